//! The append ring: entries go in without a lock, whole frames come out.
//!
//! Owns positions and numbers (LSN, Seq), the bounds of frames, and the claim of every
//! frame to a place in a segment that exists already: an append succeeds only where its
//! bytes have both memory and disk space. Never does I/O, never waits for it.
//!
//! An entry joins the open frame by one compare-and-swap of [`OpenFrame`]; all else (opening
//! and closing frames, segments, memory that was freed) is done under the lock of
//! `State`, once per frame. Tested here, by the loom models, and by the simulator.

mod frame;
mod memory;
#[cfg(test)]
#[cfg(loom)]
mod model;
mod open_frame;
mod pieces;
mod residency;
pub(crate) mod slots;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

pub(crate) use bulla_storage::RingBytes;
pub(crate) use frame::{Closed, Stamp, Tail};

use self::open_frame::{Addition, MAX_OPEN_LEN, NewFrame, OpenFrame, Reserved};
use self::residency::Residency;
use self::slots::Mine;
use crate::faults::slots::Slots;
use crate::sync::{Mutex, lock};
use bulla_storage::format::{
    ENTRY_HEADER_LEN, EntryHeader, FIRST_INTERNAL_KIND, FRAME_HEADER_BYTES, FRAME_HEADER_LEN,
    Frame, FrameKind, Seed, align_up, entry_len,
};
use bulla_storage::io::ring_memory::RingMemory;
use bulla_storage::{Error, Level, Lsn, Options, SOFT_FRAME_LEN, SegmentNumber, Seq};
use zerocopy::IntoBytes;

/// Where and what an append put into the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Appended {
    /// Where the last of its entries starts.
    pub(crate) lsn: Lsn,
    /// That entry's number.
    pub(crate) seq: Seq,
    /// The flusher sleeps and must be woken.
    pub(crate) wake_flusher: bool,
}

/// Entries of a user that fit into one frame together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    pub(crate) entries: &'a [(u16, &'a [u8])],
    /// Bytes that they take in a frame, their headers and padding included.
    len: u64,
}

/// Why an append was not done. Nothing was reserved.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// The ring has no room until something is written.
    Full,
    /// No segment is ready; one is being made.
    NoSegment,
    /// No segment could be made.
    NoSpare(Arc<Error>),
    /// The log is closing or poisoned.
    Shut,
}

/// Why there was no frame without entries to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoEmptyFrame {
    /// An entry was appended meanwhile.
    EntryBefore,
    /// The segment has no room for it, and there is no spare one.
    NoRoom,
}

#[derive(Debug)]
pub(crate) struct Ring {
    memory: Arc<RingMemory>,
    sector: u64,
    soft_frame: u64,
    max_frame: u64,
    first_seq: Seq,
    open: OpenFrame,
    slots: Slots,
    state: Mutex<State>,
}

/// What changes once per frame, or less often.
#[derive(Debug)]
struct State {
    /// Where the open frame starts, or the next one, and its first number.
    start: Lsn,
    first_seq: Seq,
    /// There is an open frame.
    is_open: bool,
    /// Its generation, or the next one's.
    generation: u64,
    /// Its memory is there from the start, so that an append allocates nothing.
    closed: VecDeque<Closed>,
    /// Below it the ring's bytes are free.
    freed: Lsn,
    /// Where frames go now, and the end of the room there.
    segment: SegmentNumber,
    base: Lsn,
    room_end: Lsn,
    /// The next frame begins another segment if one is ready.
    ended: bool,
    spares: VecDeque<Spare>,
    spare_error: Option<Arc<Error>>,
    shut: bool,
    pressed: bool,
    after_sleep: bool,
    flusher_asleep: bool,
    residency: Residency,
}

/// A segment that is ready: frames may claim its room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spare {
    pub(crate) number: SegmentNumber,
    /// Bytes of frames it holds, the sector of its seal left out.
    pub(crate) room: u64,
}

/// Where a ring starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    pub(crate) segment: SegmentNumber,
    pub(crate) base: Lsn,
    pub(crate) room: u64,
}

/// Counters of the append path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AppendCounts {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl Ring {
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn new(options: &Options, start: Start) -> io::Result<Self> {
        let sector = u64::from(options.sector);
        let max_frame = options.frame_limit();
        let soft_frame = SOFT_FRAME_LEN.min(max_frame);
        const { assert!(SOFT_FRAME_LEN <= MAX_OPEN_LEN, "longer frames are never open") };
        // A frame is closed because the next entry would make it longer than the soft bound,
        // so it and the one after it are together longer; or because its segment ends, or
        // the ring is shut or cut, of which there are few. That bounds
        // those that are closed and not yet taken.
        let most_closed = usize::try_from(2 * options.ring_len / soft_frame).unwrap_or(0) + 8;
        Ok(Self {
            memory: RingMemory::new(options.ring_len)?,
            sector,
            soft_frame,
            max_frame,
            first_seq: start.seq,
            open: OpenFrame::new(),
            slots: Slots::new(),
            state: Mutex::new(State {
                start: start.lsn,
                first_seq: start.seq,
                is_open: false,
                generation: 0,
                closed: VecDeque::with_capacity(most_closed),
                freed: start.lsn,
                segment: start.segment,
                base: start.base,
                room_end: start.base.plus(start.room),
                ended: false,
                spares: VecDeque::new(),
                spare_error: None,
                shut: false,
                pressed: false,
                after_sleep: false,
                // Nobody has started it. A log without one wakes nobody.
                flusher_asleep: !options.is_manual(),
                residency: Residency::untouched(start.lsn),
            }),
        })
    }

    /// The most bytes of payload that a frame can hold in one entry.
    pub(crate) fn max_payload(&self) -> u64 {
        self.max_entries_len() - ENTRY_HEADER_LEN
    }

    /// Bytes of the ring.
    pub(crate) fn len(&self) -> u64 {
        self.memory.len()
    }

    /// The most bytes that a batch can take in a frame, headers and padding of its entries
    /// included.
    pub(crate) fn max_entries_len(&self) -> u64 {
        self.max_frame - FRAME_HEADER_LEN
    }

    /// Checks that entries can be appended together.
    ///
    /// # Errors
    /// [`Error::ReservedKind`], [`Error::EmptyBatch`], [`Error::TooLarge`].
    #[inline]
    pub(crate) fn group<'a>(&self, entries: &'a [(u16, &'a [u8])]) -> Result<Group<'a>, Error> {
        let mut len = 0_u64;
        for (kind, payload) in entries {
            if *kind >= FIRST_INTERNAL_KIND {
                return Err(Error::ReservedKind(*kind));
            }
            len = len.saturating_add(entry_len(payload.len() as u64));
        }
        if entries.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let max = self.max_entries_len();
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        Ok(Group { entries, len })
    }

    /// Appends entries, all into one frame.
    pub(crate) fn append(&self, group: Group<'_>, level: Level) -> Result<Appended, Refused> {
        let Group { entries, len } = group;
        debug_assert!(len <= self.max_entries_len(), "made by `group`");
        let bound = level != Level::Relaxed;
        let addition = Addition { len, entries: entries.len() as u64, bound };
        let slot = self.slots.mine();
        // No code of others runs from here on until the entries are published.
        let (Reserved { at: reserved, last }, wake_flusher) =
            match self.open.reserve(&slot, addition) {
                Some(reserved) => (reserved, false),
                None => self.reserve_slowly(&slot, addition)?,
            };
        let (mut at, mut lsn, mut bytes) = (reserved, reserved, 0);
        for (kind, payload) in entries {
            lsn = at;
            at = self.put(at, *kind, payload);
            bytes += payload.len() as u64;
        }
        debug_assert!(at.distance_from(reserved) == len, "the reserved range is filled");
        slot.publish(bytes);
        Ok(Appended { lsn, seq: last, wake_flusher })
    }

    /// Copies an entry to where it was reserved; returns its end.
    #[inline]
    fn put(&self, at: Lsn, kind: u16, payload: &[u8]) -> Lsn {
        // Lengths were checked against the frame's, which fits in 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        let header = EntryHeader::new(payload.len() as u32, kind);
        let len = entry_len(payload.len() as u64);
        // SAFETY: our caller reserved the range, so that no other appender has it. The
        // frame's sealer reads it only once our slot says that it is copied. And it was
        // reserved within `freed + len`, so no frame not yet written is there.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        unsafe {
            self.memory.write_entry(at, header.as_bytes(), payload, len as usize);
        }
        at.plus(len)
    }

    /// Reserves what the open frame has no room for; returns also whether the flusher must
    /// be woken.
    #[cold]
    fn reserve_slowly(
        &self,
        slot: &Mine<'_>,
        addition: Addition,
    ) -> Result<(Reserved, bool), Refused> {
        let mut state = lock(&self.state);
        if state.shut {
            return Err(Refused::Shut);
        }
        if state.is_open {
            // Something may have been freed since the frame's limit was set, or another
            // appender opened it just now. Only the lock's holder closes it.
            self.open.extend(state.memory_limit(self).min(state.frame_limit(self)));
            if let Some(reserved) = self.open.reserve(slot, addition) {
                return Ok((reserved, false));
            }
            if self.open.word().len() + addition.len <= state.frame_limit(self) {
                state.pressed = true;
                return Err(Refused::Full);
            }
            self.close_open(&mut state);
        }
        state.make_room(self, addition.len)?;
        Ok(self.start_frame(&mut state, slot, addition))
    }

    /// Opens a frame, for which there is room, with its first entries.
    fn start_frame(
        &self,
        state: &mut State,
        slot: &Mine<'_>,
        addition: Addition,
    ) -> (Reserved, bool) {
        let at = state.start.plus(FRAME_HEADER_LEN);
        let last = Seq(state.first_seq.0 + addition.entries - 1);
        slot.begin(at);
        if FRAME_HEADER_LEN + addition.len <= self.soft_frame {
            let limit = state.memory_limit(self).min(state.frame_limit(self));
            let (start, first_seq) = (state.start, state.first_seq);
            let frame = NewFrame { generation: state.generation, start, first_seq, limit };
            self.open.open(frame, addition);
            state.is_open = true;
        } else {
            // It is long enough to go alone.
            self.close_frame(state, FRAME_HEADER_LEN + addition.len, addition);
        }
        let wake_flusher = std::mem::take(&mut state.flusher_asleep);
        state.after_sleep |= wake_flusher;
        (Reserved { at, last }, wake_flusher)
    }

    fn close_open(&self, state: &mut State) {
        if std::mem::take(&mut state.is_open) {
            state.generation = state.generation.wrapping_add(1);
            let word = self.open.close(state.generation);
            let (len, entries, bound) = (word.len(), word.entries(), word.is_bound());
            self.close_frame(state, len, Addition { len, entries, bound });
        }
    }

    /// Ends the frame at `state.start` after `len` bytes.
    fn close_frame(&self, state: &mut State, len: u64, content: Addition) {
        let tail = state.start.plus(len);
        let end = Lsn(align_up(tail.0, self.sector));
        debug_assert!(end <= state.room_end, "a frame lies within its segment");
        // SAFETY: the padding belongs to this frame, whose aligned end was found free when
        // it was opened or extended; it is closed, so nobody reserves there.
        #[expect(clippy::cast_possible_truncation, reason = "below a sector")]
        unsafe {
            self.memory.zero(tail, end.distance_from(tail) as usize);
        }
        // A frame is at most 64 MiB, an entry at least 8 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        state.closed.push_back(Closed {
            kind: FrameKind::Data,
            start: state.start,
            end,
            body_len: (len - FRAME_HEADER_LEN) as u32,
            first_seq: state.first_seq,
            entries: content.entries as u32,
            segment: state.segment,
            base: state.base,
            relaxed: !content.bound,
        });
        state.first_seq = Seq(state.first_seq.0 + content.entries);
        state.start = end;
    }

    /// The end of everything appended, in whole frames.
    pub(crate) fn end(&self) -> Lsn {
        self.end_of(&lock(&self.state))
    }

    fn end_of(&self, state: &State) -> Lsn {
        Lsn(align_up(self.tail_of(state).0, self.sector))
    }

    /// Ends the open frame; returns its end. What is appended from now on is at or after it,
    /// by a thread that sees what ours did before.
    pub(crate) fn cut(&self) -> Lsn {
        let mut state = lock(&self.state);
        // A read-modify-write of the word in which entries are reserved: who reserves after
        // it has to open a frame, or finds one that was opened after it. Both begin with
        // the lock that we hold.
        self.close_open(&mut state);
        state.start
    }

    /// Where entries end.
    fn tail_of(&self, state: &State) -> Lsn {
        if state.is_open { state.start.plus(self.open.word().len()) } else { state.start }
    }

    /// Returns what the core must know; for the driver alone, as it takes the notes of what
    /// appends found.
    pub(crate) fn tail(&self) -> Tail {
        let mut state = lock(&self.state);
        Tail {
            end: self.end_of(&state),
            closed: state.closed.len(),
            pressed: std::mem::take(&mut state.pressed),
            after_sleep: std::mem::take(&mut state.after_sleep),
        }
    }

    /// Takes the oldest frame; closes the open one when it is the oldest. `None` when
    /// nothing was appended. On return all of the frame is in memory.
    pub(crate) fn take_frame(&self) -> Option<Closed> {
        let closed = {
            let mut state = lock(&self.state);
            if state.closed.is_empty() {
                self.close_open(&mut state);
            }
            let closed = state.closed.pop_front()?;
            // Asserted here, where the driver is: a panic of it poisons the log.
            assert!(closed.end.distance_from(state.freed) <= self.len(), "it was free memory");
            closed
        };
        self.slots.wait_until_copied(closed.end);
        Some(closed)
    }

    /// Takes a frame without entries, one sector long, in the next segment if need be.
    pub(crate) fn take_empty_frame(&self, kind: FrameKind) -> Result<Closed, NoEmptyFrame> {
        let mut state = lock(&self.state);
        if state.is_open || !state.closed.is_empty() {
            return Err(NoEmptyFrame::EntryBefore);
        }
        state.make_room(self, 0).map_err(|_| NoEmptyFrame::NoRoom)?;
        let start = state.start;
        let end = start.plus(self.sector);
        assert!(end <= state.room_end, "a frame lies within its segment");
        // SAFETY: no frame is open, and none can be before the lock is free: nobody writes
        // from `start` on. It is inside the free part.
        unsafe { self.memory.zero(start, self.sector_len()) };
        state.start = end;
        Ok(Closed {
            kind,
            start,
            end,
            body_len: 0,
            first_seq: state.first_seq,
            entries: 0,
            segment: state.segment,
            base: state.base,
            relaxed: false,
        })
    }

    /// Seals a frame that was taken: writes its header before its body. Returns its bytes, to
    /// be written to disk, and the CRC of its header.
    pub(crate) fn seal(&self, closed: &Closed, seed: Seed, stamp: Stamp) -> (RingBytes, u32) {
        let len = usize::try_from(closed.end.distance_from(closed.start)).unwrap_or(0);
        let at = closed.start;
        // SAFETY: the frame is closed and all copied (`take_frame`), and it is not freed
        // before its write has completed, when by the contract of `Queue` nobody has the
        // bytes any more: nobody writes it but we, below, before they are handed out.
        let bytes = unsafe { RingBytes::from_ring(Arc::clone(&self.memory), at, len) };
        let body = bytes.clone().skip(FRAME_HEADER_BYTES);
        let frame = Frame {
            kind: closed.kind,
            body_len: closed.body_len,
            body_crc: seed.body_crc(&body.pieces()),
            lsn: closed.start,
            durable_lsn: stamp.durable_lsn,
            first_seq: closed.first_seq,
            entry_count: closed.entries,
            epoch: stamp.epoch,
            wall_ns: stamp.wall_ns,
            prev_crc: stamp.prev_crc,
        };
        let (header, prev_crc) = frame.encode(seed);
        drop(body);
        // SAFETY: no slice of the range is alive (`body` is gone, `bytes` gave none), no
        // appender writes below the open frame, and no I/O has the range yet.
        unsafe { self.memory.write(at, &header) };
        (bytes, prev_crc)
    }

    /// Frees the ring's bytes below `upto`, whose writes were reaped. Returns whether there is
    /// memory to [populate](Self::populate_next) now.
    pub(crate) fn free(&self, upto: Lsn) -> bool {
        let mut state = lock(&self.state);
        assert!(upto >= state.freed && upto <= state.start, "frees what was written");
        state.freed = upto;
        let filled = state.start;
        let is_used_now = state.residency.note(filled, self.memory.len());
        if is_used_now {
            self.memory.use_huge_pages(true);
        }
        is_used_now
    }

    /// A segment is ready.
    pub(crate) fn add_spare(&self, spare: Spare) {
        let mut state = lock(&self.state);
        state.spare_error = None;
        state.spares.push_back(spare);
    }

    /// A segment could not be made: appends that need one get `error`.
    pub(crate) fn spare_failed(&self, error: Arc<Error>) {
        lock(&self.state).spare_error = Some(error);
    }

    /// Frames go to the next segment, if they still go to `number` and as soon as one is ready.
    pub(crate) fn end_segment(&self, number: SegmentNumber) {
        let mut state = lock(&self.state);
        state.ended |= state.segment == number;
    }

    /// How many segments are ready and unclaimed.
    pub(crate) fn spares(&self) -> usize {
        lock(&self.state).spares.len()
    }

    /// No append succeeds any more.
    pub(crate) fn shut(&self) {
        let mut state = lock(&self.state);
        state.shut = true;
        // What comes next finds no open frame, and so the lock.
        self.close_open(&mut state);
    }

    /// Marks the flusher as asleep, unless there is something to write. The next append
    /// wakes it.
    pub(crate) fn flusher_sleeps(&self) -> bool {
        let mut state = lock(&self.state);
        state.flusher_asleep = !state.is_open && state.closed.is_empty();
        state.flusher_asleep
    }

    /// Returns whether the last append found no room in memory, and there still is none.
    /// Assumes the largest frame, so that a waiter may try once too often, never too seldom.
    pub(crate) fn is_full(&self) -> bool {
        let state = lock(&self.state);
        !state.shut
            && self.tail_of(&state).plus(self.max_frame).distance_from(state.freed) > self.len()
    }

    /// Returns whether no segment is ready, and none failed.
    pub(crate) fn lacks_segment(&self) -> bool {
        let state = lock(&self.state);
        !state.shut && state.spares.is_empty() && state.spare_error.is_none()
    }

    pub(crate) fn counts(&self) -> AppendCounts {
        let state = lock(&self.state);
        let open = if state.is_open { self.open.word().entries() } else { 0 };
        let entries = state.first_seq.0 + open - self.first_seq.0;
        AppendCounts { entries, bytes: self.slots.bytes() }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sector is at most 16 KiB")]
    fn sector_len(&self) -> usize {
        self.sector as usize
    }
}

impl State {
    /// How long the open frame may become before memory ends that is free.
    fn memory_limit(&self, ring: &Ring) -> u64 {
        self.freed.plus(ring.memory.len()).distance_from(self.start)
    }

    /// How long it may become before it must be closed.
    fn frame_limit(&self, ring: &Ring) -> u64 {
        self.room_end.distance_from(self.start).min(ring.soft_frame)
    }

    /// Finds room for a new frame with `len` bytes of entries, or refuses.
    fn make_room(&mut self, ring: &Ring, len: u64) -> Result<(), Refused> {
        let frame = align_up(FRAME_HEADER_LEN + len, ring.sector);
        if frame > self.memory_limit(ring) {
            self.pressed = true;
            return Err(Refused::Full);
        }
        let ends = self.ended && !self.spares.is_empty();
        if ends || self.start.plus(frame) > self.room_end {
            let Some(spare) = self.spares.pop_front() else {
                self.pressed = true;
                return Err(self.spare_error.clone().map_or(Refused::NoSegment, Refused::NoSpare));
            };
            self.segment = spare.number;
            self.base = self.start;
            self.ended = false;
            self.room_end = self.base.plus(spare.room);
        }
        Ok(())
    }
}
