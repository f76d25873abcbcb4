//! The open frame, to which entries are added without a lock.
//!
//! Owns one word that says how far the frame is filled: a compare-and-swap of it assigns an
//! entry its position and its number at once. What does not change while a frame is open
//! (where it starts, its first number) lies beside it, and is stored only while no frame
//! is open: so a swap that succeeds proves that what was read before it belonged to the
//! same frame.

use crossbeam::utils::CachePadded;

use super::slots::Mine;
use crate::sync::{AtomicU64, Ordering};
use bulla_storage::format::FRAME_HEADER_LEN;
use bulla_storage::{Lsn, Seq};

/// Positions are counted in units of entries' alignment.
const UNIT: u64 = 8;
const LEN_BITS: u32 = 18;
const COUNT_BITS: u32 = 18;
const COUNT_SHIFT: u32 = LEN_BITS;
const BOUND_SHIFT: u32 = COUNT_SHIFT + COUNT_BITS;
const GENERATION_SHIFT: u32 = BOUND_SHIFT + 1;

/// The longest frame that can be open.
pub(super) const MAX_OPEN_LEN: u64 = 1 << 20;
// A length of exactly the longest frame fits, and so does its number of entries.
const _: () = assert!(MAX_OPEN_LEN / UNIT < 1 << LEN_BITS);
const _: () = assert!(MAX_OPEN_LEN / UNIT < 1 << COUNT_BITS);

/// From low to high bits: the frame's length in units (0: no frame is open), its
/// entries, whether one of them is not Relaxed, and the frame's generation.
///
/// The generation, 27 bits, keeps a swap from succeeding on a later frame that is filled
/// just as far: it would have to come round while a thread is between its load and its
/// swap, which with frames of one sector, written at once, is some minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(u64);

/// What an append adds to a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addition {
    /// Bytes, a multiple of [`UNIT`].
    pub(super) len: u64,
    pub(super) entries: u64,
    /// Some are not Relaxed.
    pub(super) bound: bool,
}

/// A frame to be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewFrame {
    pub(super) generation: u64,
    pub(super) start: Lsn,
    pub(super) first_seq: Seq,
    /// How long it may become, for now.
    pub(super) limit: u64,
}

/// A place in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reserved {
    pub(super) at: Lsn,
    /// The number of its last entry.
    pub(super) last: Seq,
}

impl Word {
    pub(super) const fn is_open(self) -> bool {
        self.len() > 0
    }

    /// Bytes, the frame's header included.
    pub(super) const fn len(self) -> u64 {
        (self.0 & ((1 << LEN_BITS) - 1)) * UNIT
    }

    pub(super) const fn entries(self) -> u64 {
        (self.0 >> COUNT_SHIFT) & ((1 << COUNT_BITS) - 1)
    }

    pub(super) const fn is_bound(self) -> bool {
        (self.0 >> BOUND_SHIFT) & 1 == 1
    }

    /// No frame is open; the next one is of this generation.
    const fn closed(generation: u64) -> Self {
        Self(generation << GENERATION_SHIFT)
    }

    /// The caller has checked that the length stays within [`MAX_OPEN_LEN`].
    const fn with(self, addition: Addition) -> Self {
        debug_assert!(addition.len.is_multiple_of(UNIT) && addition.len <= MAX_OPEN_LEN);
        let added = self.0 + addition.len / UNIT + (addition.entries << COUNT_SHIFT);
        Self(added | ((addition.bound as u64) << BOUND_SHIFT))
    }
}

#[derive(Debug)]
pub(super) struct OpenFrame {
    /// On a cache line of its own: every append writes it.
    word: CachePadded<AtomicU64>,
    bounds: CachePadded<Bounds>,
}

/// Read by every append, written once per frame.
#[derive(Debug)]
struct Bounds {
    start: AtomicU64,
    first_seq: AtomicU64,
    /// How long the frame may become; grows while it is open.
    limit: AtomicU64,
}

impl OpenFrame {
    pub(super) fn new() -> Self {
        Self {
            word: CachePadded::new(AtomicU64::new(0)),
            bounds: CachePadded::new(Bounds {
                start: AtomicU64::new(0),
                first_seq: AtomicU64::new(0),
                limit: AtomicU64::new(0),
            }),
        }
    }

    /// Adds to the open frame; `None` when there is none, or it has no room for the addition.
    #[inline]
    pub(super) fn reserve(&self, slot: &Mine<'_>, addition: Addition) -> Option<Reserved> {
        // Acquire pairs with the Release in `open`: who sees the frame sees its start.
        let mut word = Word(self.word.load(Ordering::Acquire));
        let mut begun = false;
        while word.is_open() {
            // Acquire pairs with the Release in `extend`: who sees the limit may write
            // where others have read.
            let limit = self.bounds.limit.load(Ordering::Acquire);
            // They can't be a later frame's when the swap succeeds: its Release keeps them
            // before the swap that closes this one, after which they are stored.
            let start = Lsn(self.bounds.start.load(Ordering::Relaxed));
            let first_seq = self.bounds.first_seq.load(Ordering::Relaxed);
            if word.len() + addition.len > limit {
                break;
            }
            let at = start.plus(word.len());
            slot.begin(at);
            begun = true;
            // Release pairs with the Acquire in `close`, whose thread must see our slot.
            let swapped = self.word.compare_exchange_weak(
                word.0,
                word.with(addition).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => {
                    let last = first_seq + word.entries() + addition.entries - 1;
                    return Some(Reserved { at, last: Seq(last) });
                }
                Err(now) => word = Word(now),
            }
        }
        if begun {
            slot.withdraw();
        }
        None
    }

    // Only the holder of the ring's lock does the rest.

    pub(super) fn word(&self) -> Word {
        // Acquire, so that numbers and lengths are not older than what else was seen.
        Word(self.word.load(Ordering::Acquire))
    }

    /// Opens a frame with its first addition. None is open.
    pub(super) fn open(&self, frame: NewFrame, addition: Addition) {
        self.bounds.start.store(frame.start.0, Ordering::Relaxed);
        self.bounds.first_seq.store(frame.first_seq.0, Ordering::Relaxed);
        self.extend(frame.limit);
        let header = Addition { len: FRAME_HEADER_LEN, entries: 0, bound: false };
        let word = Word::closed(frame.generation).with(header).with(addition);
        // Release pairs with the Acquire in `reserve`.
        self.word.store(word.0, Ordering::Release);
    }

    /// Lets the open frame grow up to `limit` bytes.
    pub(super) fn extend(&self, limit: u64) {
        // Release pairs with the Acquire in `reserve`.
        self.bounds.limit.store(limit.min(MAX_OPEN_LEN), Ordering::Release);
    }

    /// Closes the open frame; returns how far it is filled. Its last entries may still be
    /// on their way into memory.
    pub(super) fn close(&self, next_generation: u64) -> Word {
        let closed = Word::closed(next_generation);
        // A read-modify-write: it comes after every reservation of the frame, and
        // (Acquire, paired with the Release in `reserve`) sees their slots.
        Word(self.word.swap(closed.0, Ordering::AcqRel))
    }
}
