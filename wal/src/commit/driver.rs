//! Carries out what the commit core decides: the only place where the log's data meets the
//! disk.
//!
//! Owns the operations in flight, the open segments and the CRC of the last frame. The leader
//! drives it; it never parks. Every completion is checked for an error and for a short count
//! before the core hears of it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::core::{Action, Op, Watermarks};
use super::frame_times::FrameTimes;
use super::published::Published;
use super::spare::{ReadySegment, SpareRequest};
use crate::faults::{Core, InFlight, SpareMaker};
use crate::ring::{Closed, NoEmptyFrame, RingBytes, Spare, Stamp};
use crate::stats::Counters;
use crate::trace;
use bulla_storage::files::dir::segment_name;
use bulla_storage::files::recovered::LiveSegment;
use bulla_storage::files::segment::CreateError;
use bulla_storage::format::{FRAME_HEADER_BYTES, Frame, FrameKind, Header, LowWater, Seed};
use bulla_storage::io::{AlignedBuf, Completion, File, Io, Lock, Queue, Request, Ticket};
use bulla_storage::{Epoch, Error, Lsn, PoisonCause, SegmentNumber, Seq};

/// How often a write that makes no progress is tried again.
const MAX_STALLS: u32 = 16;
/// Completions handled before the driver's lock is given up for a moment.
const MAX_ROUNDS: usize = 32;
/// Syncs in flight at once: the core lets no more segments be unsynced.
const MAX_SYNCS: usize = 2;

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) counters: Counters,
    /// Where purging can cut, oldest first; the last is the active segment.
    pub(crate) live: Vec<LiveSegment>,
    published: Arc<Published>,
    /// Dropped before the lock: a dying queue may still write.
    in_flight: InFlight,
    io: Arc<dyn Io>,
    /// Makes spares in this thread, for simulation; else a thread of its own does.
    inline_maker: Option<SpareMaker>,
    /// Segments that are written to, oldest first; at most three.
    open: VecDeque<OpenSegment>,
    /// Ready segments in which no frame has a place yet.
    spares: VecDeque<ReadySegment>,
    /// Sealed frames and end marks whose write has not completed; at most the depth and one
    /// more.
    pending: Vec<Pending>,
    /// Syncs in flight and their segments; at most one for each open segment.
    syncs: Vec<(Op, SegmentNumber)>,
    /// When each frame that is not durable was sealed, for the latency.
    sealed_at: VecDeque<(Lsn, u64)>,
    epoch: Epoch,
    sector: u32,
    prev_crc: u32,
    times: FrameTimes,
    /// Bytes written, and operations that made them durable, when the last spare was
    /// asked for.
    prepared_at: (u64, u64),
    /// Zeros are written ahead when a sync makes at most this many bytes durable, on average.
    zeros_pay_below: u64,
    /// Async waiters must be woken, but not under the driver's lock.
    pub(crate) async_waiters_ready: bool,
    /// Held as long as anything can be written.
    lock: Option<Box<dyn Lock>>,
}

#[derive(Debug)]
struct OpenSegment {
    number: SegmentNumber,
    file: Arc<dyn File>,
    seed: Seed,
    room: u64,
    /// The position of its first frame.
    base: Lsn,
    /// Chain, Seq and time at its end, once its successor has a frame.
    end: Option<(u32, Seq, u64)>,
}

#[derive(Debug)]
struct Pending {
    op: Op,
    file: Arc<dyn File>,
    segment: SegmentNumber,
    offset: u64,
    bytes: RingBytes,
    kind: FrameKind,
    dsync: bool,
    stalls: u32,
}

/// What a driver starts from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) published: Arc<Published>,
    pub(crate) core: Core,
    pub(crate) counters: Counters,
    pub(crate) live: Vec<LiveSegment>,
    pub(crate) queue: Box<dyn Queue>,
    pub(crate) io: Arc<dyn Io>,
    pub(crate) inline_maker: Option<SpareMaker>,
    pub(crate) header: Header,
    pub(crate) file: Arc<dyn File>,
    pub(crate) room: u64,
    pub(crate) prev_crc: u32,
    pub(crate) wall_ns: u64,
    pub(crate) zeros_pay_below: u64,
    pub(crate) lock: Box<dyn Lock>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let base =
            parts.header.epoch_start.as_ref().map_or(Lsn::ZERO, |epoch_start| epoch_start.base);
        Self {
            core: parts.core,
            counters: parts.counters,
            live: parts.live,
            published: parts.published,
            in_flight: InFlight::new(parts.queue),
            io: parts.io,
            inline_maker: parts.inline_maker,
            open: VecDeque::from([OpenSegment {
                number: parts.header.number,
                file: parts.file,
                seed: parts.header.seed(),
                room: parts.room,
                base,
                end: None,
            }]),
            spares: VecDeque::new(),
            pending: Vec::new(),
            syncs: Vec::with_capacity(MAX_SYNCS),
            sealed_at: VecDeque::new(),
            epoch: parts.header.epoch,
            sector: parts.header.sector,
            prev_crc: parts.prev_crc,
            times: FrameTimes::new(parts.wall_ns),
            prepared_at: (0, 0),
            zeros_pay_below: parts.zeros_pay_below,
            async_waiters_ready: false,
            lock: Some(parts.lock),
        }
    }

    /// Does everything that can be done without waiting for a completion (a backend may
    /// block in a submission). Stops early if async waiters must be woken, since they must not
    /// wait for the next submission. Returns whether anything was done.
    pub(crate) fn pump(&mut self) -> bool {
        let mut progress = false;
        for _ in 0..MAX_ROUNDS {
            self.refresh();
            while let Some(action) = self.core.next() {
                self.act(action);
                progress = true;
                if self.async_waiters_ready {
                    return true;
                }
            }
            match self.in_flight.complete(false) {
                Some(completion) => self.complete(completion),
                None => break,
            }
            progress = true;
        }
        progress
    }

    /// Waits for one completion; `false` when nothing is in flight.
    pub(crate) fn reap(&mut self) -> bool {
        let completion = self.in_flight.complete(true);
        completion.map(|completion| self.complete(completion)).is_some()
    }

    /// Takes out an operation that blocks, to be done without the driver's lock. Its
    /// completion must be given to [`returned`](Self::returned).
    pub(crate) fn take_out(&mut self) -> Option<(Ticket, Request)> {
        self.in_flight.take_out()
    }

    /// Handles the completion of an operation that was taken out.
    pub(crate) fn returned(&mut self, completion: Completion) {
        let completion = self.in_flight.returned(completion);
        self.complete(completion);
    }

    /// Returns whether threads that will lead afterwards are doing all the operations.
    pub(crate) fn has_workers(&self) -> bool {
        self.in_flight.is_all_outside()
    }

    /// Returns whether a thread is doing an operation without the driver's lock.
    pub(crate) fn is_worked_on(&self) -> bool {
        self.in_flight.is_any_outside()
    }

    /// Returns whether an operation is in flight, or on its way there.
    pub(crate) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty() || !self.pending.is_empty()
    }

    /// Tells the core the time, the ring's tail and what waiters requested.
    fn refresh(&mut self) {
        let (written, synced) = self.published.requested();
        self.core.tick(self.io.now_ns(), self.published.ring.tail());
        self.core.request(written, synced);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Seal => {
                if let Some(closed) = self.published.ring.take_frame() {
                    self.seal(&closed);
                }
            }
            Action::SealEmpty(kind) => match self.published.ring.take_empty_frame(kind) {
                Ok(closed) => self.seal(&closed),
                Err(NoEmptyFrame::NoRoom) => self.core.no_room_for(kind),
                Err(NoEmptyFrame::EntryBefore) => {
                    self.core.entry_before(kind);
                    // The core does not ask again until it is idle, which now it is not.
                    self.refresh();
                }
            },
            Action::Write { op, dsync } => self.write(op, dsync),
            Action::Sync { op, segment } => self.sync(op, segment),
            Action::SealSegment { op, segment, end } => self.seal_segment(op, segment, end),
            Action::Prepare => self.prepare(),
            Action::Advance(marks) => self.advance(marks),
        }
    }

    fn seal(&mut self, closed: &Closed) {
        self.rotate_to(closed);
        let Some(segment) = self.open.back() else { return };
        assert!(
            closed.start >= segment.base && closed.end <= segment.base.plus(segment.room),
            "a frame lies within its segment: {closed:?}"
        );
        let (wall_ns, now_ns) = (self.io.wall_ns(), self.io.now_ns());
        let time_ns = self.times.next(wall_ns, closed.start == segment.base);
        if self.times.end_segment(wall_ns, now_ns) {
            self.published.ring.end_segment(segment.number);
        }
        let stamp = Stamp {
            durable_lsn: if closed.kind.is_seal() { closed.start } else { self.core.synced() },
            epoch: self.epoch,
            wall_ns: time_ns,
            prev_crc: self.prev_crc,
        };
        let (bytes, prev_crc) = self.published.ring.seal(closed, segment.seed, stamp);
        let offset = u64::from(self.sector) + closed.start.distance_from(segment.base);
        let (file, number) = (Arc::clone(&segment.file), segment.number);
        if !closed.kind.is_seal() {
            self.prev_crc = prev_crc;
        }
        self.counters.stats.frames += 1;
        if closed.kind == FrameKind::Data {
            self.counters.group(closed.entries);
        }
        let op = self.core.sealed(*closed);
        self.sealed_at.push_back((closed.end, now_ns));
        self.pending.push(Pending {
            op,
            file,
            segment: number,
            offset,
            bytes,
            kind: closed.kind,
            dsync: false,
            stalls: 0,
        });
    }

    /// Makes the segment that the ring chose for a frame the active one.
    fn rotate_to(&mut self, closed: &Closed) {
        if self.open.back().is_some_and(|segment| segment.number == closed.segment) {
            return;
        }
        if let Some(last) = self.open.back_mut() {
            last.end = Some((self.prev_crc, closed.first_seq, self.times.last_ns()));
        }
        let spare = self.spares.pop_front();
        // The ring claims spares in the order in which it was told of them.
        let segment = spare.expect("the ring claimed a segment that was made ready");
        assert_eq!(segment.number, closed.segment, "segments are claimed in order");
        self.live.push(LiveSegment {
            start: LowWater {
                segment: segment.number,
                lsn: closed.base,
                seq: closed.first_seq,
                prev_crc: self.prev_crc,
                epoch: self.epoch,
                wall_ns: self.times.last_ns(),
            },
        });
        self.counters.stats.rotations += 1;
        self.counters.stats.reserved_rotations += u64::from(!segment.zeroed);
        self.open.push_back(OpenSegment {
            number: segment.number,
            file: segment.file,
            seed: segment.seed,
            room: segment.room,
            base: closed.base,
            end: None,
        });
    }

    fn write(&mut self, op: Op, dsync: bool) {
        let pending = self.pending.iter_mut().find(|pending| pending.op == op);
        pending.expect("a frame is written once, after it was sealed").dsync = dsync;
        self.submit_pending(op);
    }

    fn submit_pending(&mut self, op: Op) {
        let Some(pending) = self.pending.iter().find(|pending| pending.op == op) else {
            return;
        };
        self.counters.stats.writes += 1;
        self.counters.stats.dsync_writes += u64::from(pending.dsync);
        let request = Request::Write {
            file: Arc::clone(&pending.file),
            offset: pending.offset,
            bytes: pending.bytes.clone(),
            dsync: pending.dsync,
        };
        self.in_flight.submit(op, request);
    }

    fn sync(&mut self, op: Op, number: SegmentNumber) {
        let segment = self.open.iter().find(|open| open.number == number);
        let segment = segment.expect("a segment is open as long as it is not synced");
        assert!(
            self.syncs.len() < MAX_SYNCS,
            "one sync of each unsynced segment: {:?}",
            self.syncs
        );
        self.syncs.push((op, number));
        self.counters.stats.syncs += 1;
        self.in_flight.submit(op, Request::Sync { file: Arc::clone(&segment.file) });
    }

    fn seal_segment(&mut self, op: Op, number: SegmentNumber, end: Lsn) {
        let segment = self.open.iter().find(|open| open.number == number);
        let segment = segment.expect("a segment is open until its end mark is written");
        let (prev_crc, first_seq, wall_ns) = segment.end.expect("its successor has a frame");
        assert!(end <= self.core.synced(), "an end mark says that all before it is durable");
        assert!(end <= segment.base.plus(segment.room), "an end mark lies behind the room");
        let mut sector = AlignedBuf::zeroed(self.sector as usize);
        let (_, body) = sector.split_at(FRAME_HEADER_BYTES);
        let frame = Frame {
            kind: FrameKind::SegmentEnd,
            body_len: 0,
            body_crc: segment.seed.body_crc(&[body]),
            lsn: end,
            durable_lsn: end,
            first_seq,
            entry_count: 0,
            epoch: self.epoch,
            wall_ns,
            prev_crc,
        };
        let (header, _) = frame.encode(segment.seed);
        sector.split_at_mut(FRAME_HEADER_BYTES).0.copy_from_slice(&header);
        let offset = u64::from(self.sector) + end.distance_from(segment.base);
        self.pending.push(Pending {
            op,
            file: Arc::clone(&segment.file),
            segment: number,
            offset,
            bytes: RingBytes::from_heap(sector),
            kind: FrameKind::SegmentEnd,
            dsync: false,
            stalls: 0,
        });
        self.submit_pending(op);
    }

    fn prepare(&mut self) {
        let spare = self.spares.back().map(|spare| spare.number);
        let newest = spare.or_else(|| self.open.back().map(|open| open.number));
        let Some(number) = newest.map(SegmentNumber::next) else { return };
        let request = SpareRequest { number, zeroed: self.zeros_pay() };
        if let Some(maker) = &self.inline_maker {
            let made = maker.make(request, &|| true);
            self.prepared(made);
        } else if let Err(source) = self.published.request_spare(request) {
            let error = Error::io("start a thread to make", segment_name(number))(source);
            self.prepared(Err(CreateError::Other(error)));
        }
    }

    /// Returns whether zeros are worth their write. They save each sync a change of metadata,
    /// and cost a byte for each byte of the log. So the load since the last segment decides.
    fn zeros_pay(&mut self) -> bool {
        let stats = &self.counters.stats;
        let now = (stats.written_bytes, stats.durable_operations());
        let before = std::mem::replace(&mut self.prepared_at, now);
        let (bytes, syncs) = (now.0 - before.0, now.1 - before.1);
        bytes <= syncs.max(1).saturating_mul(self.zeros_pay_below)
    }

    /// Takes over a spare that was made, or the reason why it could not be.
    pub(crate) fn prepared(&mut self, made: Result<ReadySegment, CreateError>) {
        match made {
            Ok(segment) => {
                let spare = Spare { number: segment.number, room: segment.room };
                self.spares.push_back(segment);
                self.core.spare_ready();
                self.published.ring.add_spare(spare);
            }
            Err(CreateError::Other(error)) => {
                self.core.spare_failed();
                self.published.ring.spare_failed(Arc::new(error));
            }
            Err(CreateError::Sync(Error::Io { operation, path, source })) => {
                self.fail(PoisonCause::Spare { operation, path, source });
            }
            Err(CreateError::Sync(_)) => self.fail(PoisonCause::Panic),
        }
        self.published.waiters.release_room();
    }

    fn advance(&mut self, marks: Watermarks) {
        let now = self.io.now_ns();
        while let Some((_, sealed_at)) =
            self.sealed_at.front().filter(|(end, _)| *end <= marks.synced).copied()
        {
            self.sealed_at.pop_front();
            self.counters.commit(now.saturating_sub(sealed_at));
        }
        let late = std::time::Duration::from_nanos(self.core.take_lateness());
        let stats = &mut self.counters.stats;
        stats.max_lateness = stats.max_lateness.max(late);
        trace::committed(marks.written, marks.synced);
        self.async_waiters_ready |= self.published.publish(marks);
    }

    fn complete(&mut self, completion: Completion) {
        let op = Op(completion.ticket.0);
        match self.pending.iter().position(|pending| pending.op == op) {
            Some(index) => self.write_completed(index, completion.result),
            None => self.sync_completed(op, completion.result),
        }
    }

    fn write_completed(&mut self, index: usize, result: io::Result<u64>) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let (op, segment, len) = (pending.op, pending.segment, pending.bytes.len() as u64);
        let count = match result {
            Ok(count) => count.min(len),
            Err(source) => {
                self.fail(PoisonCause::Segment { operation: "write", segment, source });
                return;
            }
        };
        self.counters.stats.written_bytes += count;
        if count == len {
            let kind = pending.kind;
            self.pending.swap_remove(index);
            if kind == FrameKind::SegmentEnd {
                self.open.retain(|open| open.number != segment);
            }
            self.core.completed(op);
            return;
        }
        self.counters.stats.short_writes += 1;
        // Direct writes go on at a sector's start.
        let step = count / u64::from(self.sector) * u64::from(self.sector);
        if step == 0 {
            pending.stalls += 1;
            if pending.stalls > MAX_STALLS {
                let source = io::ErrorKind::WriteZero.into();
                self.fail(PoisonCause::Segment { operation: "write", segment, source });
                return;
            }
        }
        pending.offset += step;
        // Less than the length, which is a usize.
        let step = usize::try_from(step).unwrap_or(0);
        pending.bytes = pending.bytes.clone().skip(step);
        self.submit_pending(op);
    }

    fn sync_completed(&mut self, op: Op, result: io::Result<u64>) {
        let index = self.syncs.iter().position(|(sync, _)| *sync == op);
        let index = index.expect("a completion is of a write or a sync in flight");
        let (_, segment) = self.syncs.swap_remove(index);
        match result {
            Ok(_) => self.core.completed(op),
            Err(source) => {
                self.fail(PoisonCause::Segment { operation: "sync", segment, source });
            }
        }
    }

    /// Releases the space behind the frames of a log that is closed: the next open then has
    /// no zeros to scan.
    pub(crate) fn trim(&self, end: Lsn) {
        let sector = u64::from(self.sector);
        let spares = self.spares.iter().map(|spare| (&spare.file, sector));
        let active = self.open.back();
        let active = active.map(|last| (&last.file, sector + end.distance_from(last.base)));
        for (file, len) in spares.chain(active) {
            // Where it fails they are as a crash leaves them.
            let _ = file.set_len(len);
        }
    }

    /// Releases files and lock, when the log is closed or failed and nobody leads any more: a
    /// background thread may keep the rest for a while.
    pub(crate) fn release(&mut self) {
        self.in_flight.give_up();
        self.pending.clear();
        self.open.clear();
        self.spares.clear();
        self.inline_maker = None;
        self.lock = None;
    }

    /// Poisons the log: the driver does nothing more.
    pub(crate) fn fail(&mut self, cause: PoisonCause) {
        self.core.fail();
        trace::poisoned(self.published.synced(), &cause);
        self.async_waiters_ready |= self.published.poison(cause);
    }
}
