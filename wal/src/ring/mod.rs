//! The append ring: entries go in under a short lock, whole frames come out.
//!
//! Owns positions and numbers (LSN, Seq), the bounds of frames, and the claim of every
//! frame to a place in a segment that exists already: an append succeeds only where its
//! bytes have both memory and disk space. Never does I/O, never waits. Tested here, by
//! the loom models, and by the simulator.

pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

pub use memory::RingBytes;

use self::memory::RingMemory;
use crate::format::{
    ENTRY_HEADER_LEN, EntryHeader, FIRST_INTERNAL_KIND, FRAME_HEADER_BYTES, FRAME_HEADER_LEN,
    Frame, FrameKind, Seed, align_up, entry_len,
};
use crate::options::{Options, SOFT_FRAME_LEN};
use crate::position::{Level, Lsn, SegmentNumber, Seq};
use crate::sync::{Mutex, lock};
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

/// Why an append was not done. Nothing was reserved.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// The ring has no room until something is written.
    Full,
    /// No segment is ready; one is being made.
    NoSegment,
    /// No segment could be made.
    NoSpace(Arc<io::Error>),
    /// The log is closing or poisoned.
    Shut,
}

/// A frame whose bounds are final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    pub(crate) kind: FrameKind,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) body_len: u32,
    pub(crate) first_seq: Seq,
    pub(crate) entries: u32,
    /// The segment in which its place is, and the LSN of that segment's first frame.
    pub(crate) segment: SegmentNumber,
    pub(crate) base: Lsn,
    /// All entries are Relaxed.
    pub(crate) relaxed: bool,
}

/// What the commit core must know of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tail {
    /// The end of everything appended, in whole frames.
    pub(crate) end: Lsn,
    /// Frames whose bounds are final and that nobody took yet.
    pub(crate) closed: usize,
    /// An append found no room since the last look.
    pub(crate) pressed: bool,
    /// An append woke the flusher since the last look.
    pub(crate) after_sleep: bool,
}

#[derive(Debug)]
pub(crate) struct Ring {
    memory: Arc<RingMemory>,
    sector: u64,
    soft_frame: u64,
    max_frame: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The open frame: where it starts, and where its entries end (its start when empty).
    start: Lsn,
    tail: Lsn,
    first_seq: Seq,
    entries: u32,
    relaxed: bool,
    /// Its memory is there from the start, so that an append allocates nothing.
    closed: VecDeque<Closed>,
    /// Below it the ring's bytes are free.
    freed: Lsn,
    /// Where frames go now, and the end of the room there.
    segment: SegmentNumber,
    base: Lsn,
    room_end: Lsn,
    spares: VecDeque<Spare>,
    spare_error: Option<Arc<io::Error>>,
    shut: bool,
    pressed: bool,
    after_sleep: bool,
    flusher_asleep: bool,
    appended_entries: u64,
    appended_bytes: u64,
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
        // Of two frames that follow one another, one is at least half as long as the soft
        // bound (or ends a segment): so many at most are closed and not yet taken.
        let most_closed = usize::try_from(2 * options.ring_len / soft_frame).unwrap_or(0) + 8;
        Ok(Self {
            memory: RingMemory::new(options.ring_len)?,
            sector,
            soft_frame,
            max_frame,
            state: Mutex::new(State {
                start: start.lsn,
                tail: start.lsn,
                first_seq: start.seq,
                entries: 0,
                relaxed: true,
                closed: VecDeque::with_capacity(most_closed),
                freed: start.lsn,
                segment: start.segment,
                base: start.base,
                room_end: start.base.plus(start.room),
                spares: VecDeque::new(),
                spare_error: None,
                shut: false,
                pressed: false,
                after_sleep: false,
                flusher_asleep: false,
                appended_entries: 0,
                appended_bytes: 0,
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

    /// Appends entries, all into one frame. The caller has checked their length against
    /// [`max_entries_len`](Self::max_entries_len), that there is one, and their kinds.
    pub(crate) fn append(
        &self,
        entries: &[(u16, &[u8])],
        level: Level,
    ) -> Result<Appended, Refused> {
        let len: u64 = entries.iter().map(|(_, payload)| entry_len(payload.len() as u64)).sum();
        let mut state = lock(&self.state);
        state.make_room(self, len)?;
        if state.entries == 0 {
            state.tail = state.start.plus(FRAME_HEADER_LEN);
            state.relaxed = true;
        }
        let mut last = state.tail;
        for (kind, payload) in entries {
            last = state.tail;
            debug_assert!(*kind < FIRST_INTERNAL_KIND, "checked by the caller");
            self.put(last, *kind, payload);
            state.tail = last.plus(entry_len(payload.len() as u64));
            state.appended_bytes += payload.len() as u64;
        }
        state.relaxed &= level == Level::Relaxed;
        let count = entries.len();
        // A frame is at most 64 MiB, an entry at least 8 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        {
            state.entries += count as u32;
        }
        state.appended_entries += count as u64;
        let seq = Seq(state.first_seq.0 + u64::from(state.entries) - 1);
        let wake_flusher = std::mem::take(&mut state.flusher_asleep);
        state.after_sleep |= wake_flusher;
        Ok(Appended { lsn: last, seq, wake_flusher })
    }

    fn put(&self, at: Lsn, kind: u16, payload: &[u8]) {
        // Lengths were checked against the frame's, which fits in 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        let header = EntryHeader::new(payload.len() as u32, kind);
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        let len = entry_len(payload.len() as u64) as usize;
        // SAFETY: the ring's lock is held by our caller, so no other appender writes;
        // the range is above every closed frame, so no write in flight reads it; and
        // `make_room` found it within `freed + len`, so no frame not yet written is there.
        unsafe { self.memory.write_entry(at, header.as_bytes(), payload, len) };
    }

    /// The end of everything appended, in whole frames.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(align_up(lock(&self.state).tail.0, self.sector))
    }

    /// The driver's look: it alone takes the note that an append found no room.
    pub(crate) fn tail(&self) -> Tail {
        let mut state = lock(&self.state);
        Tail {
            end: Lsn(align_up(state.tail.0, self.sector)),
            closed: state.closed.len(),
            pressed: std::mem::take(&mut state.pressed),
            after_sleep: std::mem::take(&mut state.after_sleep),
        }
    }

    /// Takes the oldest frame; closes the open one when it is the oldest. `None` when
    /// nothing was appended.
    pub(crate) fn take_frame(&self) -> Option<Closed> {
        let mut state = lock(&self.state);
        if state.closed.is_empty() {
            state.close_open(self);
        }
        state.closed.pop_front()
    }

    /// Takes a frame without entries, one sector long; `None` when there is an entry
    /// before it, or no room.
    pub(crate) fn take_empty_frame(&self, kind: FrameKind) -> Option<Closed> {
        let mut state = lock(&self.state);
        let start = state.start;
        let end = start.plus(self.sector);
        if state.entries > 0
            || !state.closed.is_empty()
            || end > state.room_end
            || end.distance_from(state.freed) > self.memory.len()
        {
            return None;
        }
        // SAFETY: as in `put`: locked, above every closed frame, inside the free part.
        unsafe { self.memory.zero(start, self.sector_len()) };
        state.start = end;
        state.tail = end;
        Some(Closed {
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

    /// Fills in a closed frame's header; gives its bytes for writing, and its chain value.
    /// `frame` maps the body's CRC to the header.
    pub(crate) fn seal(
        &self,
        closed: &Closed,
        seed: Seed,
        frame: impl FnOnce(u32) -> Frame,
    ) -> (RingBytes, u32) {
        let len = usize::try_from(closed.end.distance_from(closed.start)).unwrap_or(0);
        let at = closed.start;
        // SAFETY: the frame is closed, so appenders are past it, and it is not freed
        // before its write has completed: nobody writes it but we, below, before the
        // bytes are handed out.
        let bytes = unsafe { RingBytes::from_ring(Arc::clone(&self.memory), at, len) };
        let body = bytes.clone().skip(FRAME_HEADER_BYTES);
        let (header, chain) = frame(seed.body_crc(&body.pieces())).encode(seed);
        drop(body);
        // SAFETY: no slice of the range is alive (`body` is gone, `bytes` gave none), no
        // appender writes below the open frame, and no I/O has the range yet.
        unsafe { self.memory.write(at, &header) };
        (bytes, chain)
    }

    /// Frees the ring's bytes below `upto`, whose writes were reaped.
    pub(crate) fn free(&self, upto: Lsn) {
        let mut state = lock(&self.state);
        debug_assert!(upto >= state.freed && upto <= state.start, "frees what was written");
        state.freed = upto;
    }

    /// A segment is ready.
    pub(crate) fn add_spare(&self, spare: Spare) {
        let mut state = lock(&self.state);
        state.spare_error = None;
        state.spares.push_back(spare);
    }

    /// A segment could not be made: appends that need one get `error`.
    pub(crate) fn spare_failed(&self, error: Arc<io::Error>) {
        lock(&self.state).spare_error = Some(error);
    }

    /// How many segments are ready and unclaimed.
    pub(crate) fn spares(&self) -> usize {
        lock(&self.state).spares.len()
    }

    /// No append succeeds any more.
    pub(crate) fn shut(&self) {
        lock(&self.state).shut = true;
    }

    /// Marks the flusher as asleep, unless there is something to write. The next append
    /// wakes it.
    pub(crate) fn flusher_sleeps(&self) -> bool {
        let mut state = lock(&self.state);
        state.flusher_asleep = state.entries == 0 && state.closed.is_empty();
        state.flusher_asleep
    }

    /// Did the last append find no room in memory, and is it still so? Takes the largest
    /// frame for granted, so that a waiter may look once too often, never too seldom.
    pub(crate) fn is_full(&self) -> bool {
        let state = lock(&self.state);
        !state.shut && state.tail.plus(self.max_frame).distance_from(state.freed) > self.len()
    }

    /// Is there no segment ready, and none that failed?
    pub(crate) fn lacks_segment(&self) -> bool {
        let state = lock(&self.state);
        !state.shut && state.spares.is_empty() && state.spare_error.is_none()
    }

    pub(crate) fn counts(&self) -> AppendCounts {
        let state = lock(&self.state);
        AppendCounts { entries: state.appended_entries, bytes: state.appended_bytes }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sector is at most 16 KiB")]
    fn sector_len(&self) -> usize {
        self.sector as usize
    }
}

impl State {
    /// Makes the open frame one that takes `len` more bytes of entries, or refuses.
    fn make_room(&mut self, ring: &Ring, len: u64) -> Result<(), Refused> {
        if self.shut {
            return Err(Refused::Shut);
        }
        if self.entries > 0 {
            let with = self.tail.plus(len);
            let end = Lsn(align_up(with.0, ring.sector));
            if with.distance_from(self.start) > ring.soft_frame || end > self.room_end {
                self.close_open(ring);
            } else {
                return self.check_memory(ring, end);
            }
        }
        let end = self.start.plus(align_up(FRAME_HEADER_LEN + len, ring.sector));
        self.check_memory(ring, end)?;
        if end > self.room_end {
            let Some(spare) = self.spares.pop_front() else {
                self.pressed = true;
                return Err(self.spare_error.clone().map_or(Refused::NoSegment, Refused::NoSpace));
            };
            self.segment = spare.number;
            self.base = self.start;
            self.room_end = self.base.plus(spare.room);
        }
        Ok(())
    }

    fn check_memory(&mut self, ring: &Ring, end: Lsn) -> Result<(), Refused> {
        if end.distance_from(self.freed) > ring.memory.len() {
            self.pressed = true;
            return Err(Refused::Full);
        }
        Ok(())
    }

    fn close_open(&mut self, ring: &Ring) {
        if self.entries == 0 {
            return;
        }
        let end = Lsn(align_up(self.tail.0, ring.sector));
        let padding = end.distance_from(self.tail);
        // SAFETY: the lock is held (we have `&mut State`), and the padding belongs to
        // the open frame, whose aligned end was found free when it was extended.
        #[expect(clippy::cast_possible_truncation, reason = "below a sector")]
        unsafe {
            ring.memory.zero(self.tail, padding as usize);
        }
        let body = self.tail.distance_from(self.start) - FRAME_HEADER_LEN;
        self.closed.push_back(Closed {
            kind: FrameKind::Data,
            start: self.start,
            end,
            body_len: u32::try_from(body).unwrap_or(u32::MAX),
            first_seq: self.first_seq,
            entries: self.entries,
            segment: self.segment,
            base: self.base,
            relaxed: self.relaxed,
        });
        self.first_seq = Seq(self.first_seq.0 + u64::from(self.entries));
        self.entries = 0;
        self.start = end;
        self.tail = end;
    }
}
