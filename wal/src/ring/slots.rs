//! What each appender is copying, so that a frame is sealed only when it is whole.
//!
//! Owns one word per appending thread: the lowest position that it may still be writing.
//! A thread stores it *before* it reserves and clears it after its copy; the sealer, who
//! has closed the frame in between, waits until no word is below the frame's end.
//! Threads get their slots for life, from a registry of the process; those beyond
//! [`OWN`] share one, one at a time. Tested by the loom models.

use crossbeam::utils::CachePadded;

use bulla_storage::Lsn;
use std::sync::atomic::AtomicU64 as Statistic;

use crate::sync::{
    AtomicU64, Mutex, MutexGuard, Ordering, lock, pause, slot_of_thread, slots_used,
};

/// Threads that have a slot of their own.
pub(crate) const OWN: usize = if cfg!(loom) { 3 } else { 128 };
/// Nothing is being copied.
const IDLE: u64 = u64::MAX;

/// Written at every append by one thread only, so each is on a cache line of its own.
#[derive(Debug)]
struct Slot {
    lowest: AtomicU64,
    /// Bytes of payload that were appended through this slot.
    bytes: Statistic,
}

#[derive(Debug)]
pub(crate) struct Slots {
    own: Box<[CachePadded<Slot>]>,
    /// Of all threads that have none of their own, one at a time.
    shared: CachePadded<Slot>,
    /// Held while the shared slot is used.
    turn: Mutex<()>,
}

/// The right to use a slot.
pub(super) struct Mine<'a> {
    slot: &'a Slot,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        let slot =
            || CachePadded::new(Slot { lowest: AtomicU64::new(IDLE), bytes: Statistic::new(0) });
        Self { own: (0..OWN).map(|_| slot()).collect(), shared: slot(), turn: Mutex::new(()) }
    }

    /// The slot of this thread.
    pub(super) fn mine(&self) -> Mine<'_> {
        match self.own.get(slot_of_thread()) {
            Some(slot) => Mine { slot, _turn: None },
            None => Mine { slot: &self.shared, _turn: Some(lock(&self.turn)) },
        }
    }

    /// Waits until everything below `end` is copied. The caller has closed the frame that
    /// ends there by a read-modify-write of the word in which entries are reserved.
    pub(crate) fn wait_until_copied(&self, end: Lsn) {
        // A thread registers before its first reservation, which we saw. One that is ending
        // uses the shared slot, however few there are.
        for slot in self.own.iter().take(slots_used()).chain([&self.shared]) {
            let mut round = 0;
            // Acquire pairs with the Release stores in `Mine`: who sees the slot idle, or
            // at a later reservation, sees what was copied for the one before.
            while slot.lowest.load(Ordering::Acquire) < end.0 {
                pause(&mut round);
            }
        }
    }

    /// Bytes of payload that were appended.
    pub(super) fn bytes(&self) -> u64 {
        // A statistic: pairs with nothing.
        let all = self.own.iter().chain([&self.shared]);
        all.map(|slot| slot.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Mine<'_> {
    /// Says that a reservation at or above `lowest` may follow.
    pub(super) fn begin(&self, lowest: Lsn) {
        // Release pairs with the sealer's Acquire: it must not take this for the store
        // of an appender that has not copied its earlier entry. That it is seen at all is
        // due to the read-modify-write that follows.
        self.slot.lowest.store(lowest.0, Ordering::Release);
    }

    /// Says that nothing was reserved.
    pub(super) fn withdraw(&self) {
        self.slot.lowest.store(IDLE, Ordering::Release);
    }

    /// Says that what was reserved is copied: `bytes` of payload.
    pub(super) fn publish(self, bytes: u64) {
        // Only this thread writes them: no read-modify-write is needed.
        let before = self.slot.bytes.load(Ordering::Relaxed);
        self.slot.bytes.store(before.wrapping_add(bytes), Ordering::Relaxed);
        // Release pairs with the sealer's Acquire.
        self.slot.lowest.store(IDLE, Ordering::Release);
    }
}
