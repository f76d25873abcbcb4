//! Carries out what the commit core decides: the only place where the log's data meet
//! the disk.
//!
//! Owns the queue of operations in flight, the open segments and the chain. Whoever
//! holds its lock drives; it never parks. Every completion is checked for an error and
//! for a short count before the core hears of it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::core::{Action, Core, Op, SyncFor, Watermarks};
use super::shared::Shared;
use crate::ring::{Closed, Spare};
use crate::stats::Counters;
use bulla_storage::PoisonCause;
use bulla_storage::RingBytes;
use bulla_storage::faults::failpoints::{Point, skip};
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::files::recovered::LiveSegment;
use bulla_storage::files::segment::{self, NewSegment};
use bulla_storage::format::{FRAME_HEADER_BYTES, Frame, FrameKind, Header, LowWater, Seed};
use bulla_storage::io::{AlignedBuf, Completion, File, Io, Lock, Queue, Request, Ticket};
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};

/// How often a write that makes no progress is tried again.
const MAX_STALLS: u32 = 16;
/// Completions handled before the driver's lock is given up for a moment.
const MAX_ROUNDS: usize = 32;

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) counters: Counters,
    /// Where purging can cut, oldest first; the last is the active segment.
    pub(crate) live: Vec<LiveSegment>,
    /// There until the log is given up. Dropped before the lock: a dying queue may still
    /// write.
    queue: Option<Box<dyn Queue>>,
    io: Arc<dyn Io>,
    maker: SpareMaker,
    /// Segments that are written to, oldest first; at most three.
    open: VecDeque<OpenSegment>,
    spares: VecDeque<OpenSegment>,
    /// Sealed frames and seals whose write has not completed; at most the depth and one
    /// more.
    pending: Vec<Pending>,
    /// Operations whose completion was not handled.
    in_flight: usize,
    /// When each frame that is not durable was sealed, for the latency.
    sealed_at: VecDeque<(Lsn, u64)>,
    epoch: Epoch,
    sector: u32,
    chain: u32,
    wall_ns: u64,
    /// Makes spares in this thread: for simulation.
    inline_spares: bool,
    /// Bytes written, and operations that made them durable, when the last spare was
    /// asked for.
    prepared_at: (u64, u64),
    /// Zeros are written ahead when a sync makes at most so many bytes durable, on average.
    zeros_pay_below: u64,
    /// Operations that threads do without the driver's lock.
    outside: usize,
    /// Tasks wait to be woken, which must not be done under the driver's lock.
    pub(crate) tasks_ready: bool,
    /// A failed sync was tried again, which only a build that is broken on purpose does.
    retried: bool,
    /// Held as long as anything can be written.
    lock: Option<Box<dyn Lock>>,
}

#[derive(Debug)]
struct OpenSegment {
    number: SegmentNumber,
    file: Arc<dyn File>,
    seed: Seed,
    room: u64,
    base: Lsn,
    /// Was it written with zeros ahead?
    zeroed: bool,
    /// Chain and Seq at its end, once its successor has a frame.
    end: Option<(u32, Seq)>,
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
    pub(crate) core: Core,
    pub(crate) counters: Counters,
    pub(crate) live: Vec<LiveSegment>,
    pub(crate) queue: Box<dyn Queue>,
    pub(crate) io: Arc<dyn Io>,
    pub(crate) maker: SpareMaker,
    pub(crate) header: Header,
    pub(crate) file: Arc<dyn File>,
    pub(crate) room: u64,
    pub(crate) chain: u32,
    pub(crate) wall_ns: u64,
    pub(crate) inline_spares: bool,
    pub(crate) zeros_pay_below: u64,
    pub(crate) lock: Box<dyn Lock>,
}

/// Makes spare segments, in whichever thread.
#[derive(Clone, Debug)]
pub(crate) struct SpareMaker {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) dir: PathBuf,
    /// Of the opening segment; spares continue its epoch.
    pub(crate) opening: Header,
    pub(crate) len: u64,
    pub(crate) direct: bool,
}

/// A segment that is to be made ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedSpare {
    number: SegmentNumber,
    zeroed: bool,
}

/// A segment that was made ready.
#[derive(Debug)]
pub(crate) struct ReadySpare(OpenSegment);

impl SpareMaker {
    /// Makes segment `number`; on return it is durable under its name.
    pub(crate) fn make(
        &self,
        wanted: WantedSpare,
        is_wanted: &dyn Fn() -> bool,
    ) -> io::Result<ReadySpare> {
        let WantedSpare { number, zeroed } = wanted;
        let header = Header {
            number,
            previous_nonce: either(self.opening.nonce, Bug::SpareForgetsPredecessor, 0),
            wall_ns: self.io.wall_ns(),
            opening: None,
            ..self.opening.clone()
        };
        let sector = u64::from(header.sector);
        let new =
            NewSegment { header: &header, len: self.len, direct: self.direct, zeroed, is_wanted };
        let file = segment::create(self.io.as_ref(), &self.dir, &new, |_| Ok(sector)).map_err(
            |error| match error {
                crate::Error::Io { source, .. } => source,
                other => io::Error::other(other),
            },
        )?;
        Ok(ReadySpare(OpenSegment {
            number,
            file,
            seed: header.seed(),
            room: self.len - 2 * sector,
            base: Lsn::ZERO,
            zeroed,
            end: None,
        }))
    }
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let base = parts.header.opening.as_ref().map_or(Lsn::ZERO, |opening| opening.base);
        Self {
            core: parts.core,
            counters: parts.counters,
            live: parts.live,
            queue: Some(parts.queue),
            io: parts.io,
            maker: parts.maker,
            open: VecDeque::from([OpenSegment {
                number: parts.header.number,
                file: parts.file,
                seed: parts.header.seed(),
                room: parts.room,
                base,
                zeroed: true,
                end: None,
            }]),
            spares: VecDeque::new(),
            pending: Vec::new(),
            in_flight: 0,
            sealed_at: VecDeque::new(),
            epoch: parts.header.epoch,
            sector: parts.header.sector,
            chain: parts.chain,
            wall_ns: parts.wall_ns,
            inline_spares: parts.inline_spares,
            prepared_at: (0, 0),
            zeros_pay_below: parts.zeros_pay_below,
            outside: 0,
            tasks_ready: false,
            retried: false,
            lock: Some(parts.lock),
        }
    }

    /// Does everything that can be done without waiting for a completion (a backend may
    /// block in a submission), or until tasks are to be woken, which must not wait for
    /// the next submission. Gives whether anything was done.
    pub(crate) fn pump(&mut self, shared: &Shared) -> bool {
        let mut progress = false;
        for _ in 0..MAX_ROUNDS {
            self.look(shared);
            while let Some(action) = self.core.next() {
                self.act(shared, action);
                progress = true;
                if self.tasks_ready {
                    return true;
                }
            }
            match self.queue.as_mut().and_then(|queue| queue.complete(false)) {
                Some(completion) => self.complete(shared, completion),
                None => break,
            }
            progress = true;
        }
        progress
    }

    /// Waits for one completion; `false` when nothing is in flight.
    pub(crate) fn reap(&mut self, shared: &Shared) -> bool {
        match self.queue.as_mut().and_then(|queue| queue.complete(true)) {
            Some(completion) => {
                self.complete(shared, completion);
                true
            }
            None => false,
        }
    }

    /// Takes an operation that blocks, to do it without the driver's lock. It must be
    /// given to [`returned`](Self::returned) when it is done.
    pub(crate) fn take_out(&mut self) -> Option<(Ticket, Request)> {
        let taken = self.queue.as_mut()?.take();
        self.outside += usize::from(taken.is_some());
        taken
    }

    /// An operation that was taken out is done.
    pub(crate) fn returned(&mut self, shared: &Shared, completion: Completion) {
        self.outside -= 1;
        self.complete(shared, completion);
    }

    /// Are all operations in the hands of threads that will drive on when they are done?
    pub(crate) fn has_workers(&self) -> bool {
        self.outside > 0 && self.in_flight == self.outside
    }

    /// Is an operation in flight, or on its way there?
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight > 0 || !self.pending.is_empty()
    }

    fn submit(&mut self, op: Op, request: Request) {
        let Some(queue) = &mut self.queue else { return };
        self.in_flight += 1;
        queue.submit(Ticket(op.0), request);
    }

    /// Tells the core the time, the ring's tail and the waiters' wishes.
    fn look(&mut self, shared: &Shared) {
        let (written, synced) = shared.wanted();
        self.core.tick(self.io.now_ns(), shared.ring.tail());
        self.core.want(written, synced);
    }

    fn act(&mut self, shared: &Shared, action: Action) {
        match action {
            Action::Seal => {
                if let Some(closed) = shared.ring.take_frame() {
                    self.seal(shared, &closed);
                }
            }
            Action::SealEmpty(kind) => match shared.ring.take_empty_frame(kind) {
                Some(closed) => self.seal(shared, &closed),
                None => self.core.no_room_for(kind),
            },
            Action::Write { op, dsync } => self.write(op, dsync),
            Action::Sync { op, segment, purpose } => self.sync(op, segment, purpose),
            Action::SealSegment { op, segment, end } => self.seal_segment(op, segment, end),
            Action::Prepare => self.prepare(shared),
            Action::Advance(marks) => self.advance(shared, marks),
        }
    }

    fn seal(&mut self, shared: &Shared, closed: &Closed) {
        self.rotate_to(closed);
        let Some(segment) = self.open.back() else { return };
        let now = self.io.wall_ns();
        self.wall_ns = either(self.wall_ns.max(now), Bug::WallTimeGoesBack, now);
        let frame = |body_crc| Frame {
            kind: closed.kind,
            body_len: closed.body_len,
            body_crc,
            lsn: closed.start,
            promise: if closed.kind.is_seal() {
                closed.start
            } else {
                either(self.core.synced(), Bug::PromiseAheadOfDurable, closed.start)
            },
            first_seq: closed.first_seq,
            entry_count: closed.entries,
            epoch: self.epoch,
            wall_ns: self.wall_ns,
            chain: self.chain,
        };
        let (bytes, chain) = shared.ring.seal(closed, segment.seed, frame);
        let offset = u64::from(self.sector) + closed.start.distance_from(segment.base);
        let (file, number) = (Arc::clone(&segment.file), segment.number);
        if !closed.kind.is_seal() {
            self.chain = either(chain, Bug::ChainStandsStill, self.chain);
        }
        self.counters.stats.frames += 1;
        if closed.kind == FrameKind::Data {
            self.counters.group(closed.entries);
        }
        let op = self.core.sealed(*closed);
        self.sealed_at.push_back((closed.end, self.io.now_ns()));
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
            last.end = Some((self.chain, closed.first_seq));
        }
        let spare = self.spares.pop_front();
        // The ring claims spares in the order in which it was told of them.
        let mut segment = spare.expect("the ring claimed a segment that was made ready");
        debug_assert_eq!(segment.number, closed.segment, "segments are claimed in order");
        segment.base = either(closed.base, Bug::RotationKeepsBase, Lsn::ZERO);
        self.live.push(LiveSegment {
            start: LowWater {
                segment: segment.number,
                lsn: closed.base,
                seq: closed.first_seq,
                chain: self.chain,
                epoch: self.epoch,
                wall_ns: self.wall_ns,
            },
        });
        self.counters.stats.rotations += 1;
        self.counters.stats.reserved_rotations += u64::from(!segment.zeroed);
        self.open.push_back(segment);
    }

    fn write(&mut self, op: Op, dsync: bool) {
        let Some(pending) = self.pending.iter_mut().find(|pending| pending.op == op) else {
            return;
        };
        pending.dsync = dsync
            && !match pending.kind {
                FrameKind::Data => skip(Point::FrameDsync),
                FrameKind::Promise => skip(Point::PromiseSync),
                FrameKind::SealClosed | FrameKind::SealRotated => skip(Point::CloseSealSync),
            };
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
        self.submit(op, request);
    }

    fn sync(&mut self, op: Op, segment: SegmentNumber, purpose: SyncFor) {
        let omitted = match purpose {
            SyncFor::Frames => skip(Point::FrameSync),
            SyncFor::Promise => skip(Point::PromiseSync),
            SyncFor::CloseSeal => skip(Point::CloseSealSync),
        };
        let wrong = planted(Bug::SyncOfWrongSegment).then(|| self.open.back()).flatten();
        let file = wrong.or_else(|| self.open.iter().find(|open| open.number == segment));
        let file = file.map(|open| &open.file);
        let Some(file) = file.filter(|_| !omitted) else {
            debug_assert!(omitted, "a segment is open as long as it is not synced");
            self.core.completed(op);
            return;
        };
        self.counters.stats.syncs += 1;
        let request = Request::Sync { file: Arc::clone(file) };
        self.submit(op, request);
    }

    fn seal_segment(&mut self, op: Op, number: SegmentNumber, end: Lsn) {
        // Only what has a successor with a frame is sealed.
        let segment = self.open.iter().find(|open| open.number == number);
        let Some((segment, (chain, first_seq))) = segment.and_then(|open| Some((open, open.end?)))
        else {
            return;
        };
        let mut sector = AlignedBuf::zeroed(self.sector as usize);
        let (_, body) = sector.split_at(FRAME_HEADER_BYTES);
        let frame = Frame {
            kind: FrameKind::SealRotated,
            body_len: 0,
            body_crc: segment.seed.body_crc(&[body]),
            lsn: end,
            promise: end,
            first_seq,
            entry_count: 0,
            epoch: self.epoch,
            wall_ns: self.wall_ns,
            chain,
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
            kind: FrameKind::SealRotated,
            dsync: false,
            stalls: 0,
        });
        self.submit_pending(op);
    }

    fn prepare(&mut self, shared: &Shared) {
        let newest = self.spares.back().or(self.open.back());
        let Some(number) = newest.map(|segment| segment.number.next()) else { return };
        let number = either(number, Bug::SpareSkipsNumber, number.next());
        let wanted = WantedSpare { number, zeroed: self.zeros_pay() };
        if self.inline_spares {
            let made = self.maker.make(wanted, &|| true);
            self.prepared(shared, made);
        } else {
            shared.ask_for_spare(wanted);
        }
    }

    /// Are zeros worth their write? They save each sync a change of metadata, and cost a
    /// byte for each byte of the log. So the load since the last segment decides.
    fn zeros_pay(&mut self) -> bool {
        let stats = &self.counters.stats;
        let now = (stats.written_bytes, stats.durable_operations());
        let before = std::mem::replace(&mut self.prepared_at, now);
        let (bytes, syncs) = (now.0 - before.0, now.1 - before.1);
        bytes <= syncs.max(1).saturating_mul(self.zeros_pay_below)
    }

    /// A spare was made, or could not be.
    pub(crate) fn prepared(&mut self, shared: &Shared, made: io::Result<ReadySpare>) {
        match made {
            Ok(ReadySpare(segment)) => {
                let spare = Spare { number: segment.number, room: segment.room };
                self.spares.push_back(segment);
                self.core.spare_ready();
                shared.ring.add_spare(spare);
            }
            Err(error) => {
                self.core.spare_failed();
                shared.ring.spare_failed(Arc::new(error));
            }
        }
        shared.waiters.release_room();
    }

    fn advance(&mut self, shared: &Shared, marks: Watermarks) {
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
        self.tasks_ready |= shared.publish(marks);
    }

    fn complete(&mut self, shared: &Shared, completion: Completion) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let op = Op(completion.ticket.0);
        match self.pending.iter().position(|pending| pending.op == op) {
            Some(index) => self.write_completed(shared, index, completion.result),
            None => self.sync_completed(shared, op, completion.result),
        }
    }

    fn write_completed(&mut self, shared: &Shared, index: usize, result: io::Result<u64>) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let (op, len) = (pending.op, pending.bytes.len() as u64);
        let count = match result {
            Ok(count) if skip(Point::WriteShortCheck) => count.max(len),
            Ok(count) => count.min(len),
            Err(_) if skip(Point::WriteErrorCheck) => len,
            Err(source) => {
                let segment = pending.segment;
                self.fail(shared, PoisonCause::Segment { operation: "write", segment, source });
                return;
            }
        };
        self.counters.stats.written_bytes += count.min(len);
        if count >= len {
            let kind = pending.kind;
            let number = pending.segment;
            self.pending.swap_remove(index);
            if kind == FrameKind::SealRotated {
                self.open.retain(|segment| segment.number != number);
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
                let segment = pending.segment;
                let source = io::ErrorKind::WriteZero.into();
                self.fail(shared, PoisonCause::Segment { operation: "write", segment, source });
                return;
            }
        }
        pending.offset += either(step, Bug::ShortWriteStaysPut, 0);
        // Less than the length, which is a usize.
        let step = usize::try_from(step).unwrap_or(0);
        pending.bytes = pending.bytes.clone().skip(step);
        self.submit_pending(op);
    }

    fn sync_completed(&mut self, shared: &Shared, op: Op, result: io::Result<u64>) {
        match result {
            Ok(_) => self.core.completed(op),
            Err(_) if skip(Point::SyncErrorCheck) => self.core.completed(op),
            Err(_) if skip(Point::PoisonLatch) && !self.retried => {
                self.retried = true;
                self.core.retry_sync(op);
            }
            Err(source) => {
                let segment = self.open.front().map_or(SegmentNumber::ZERO, |open| open.number);
                self.fail(shared, PoisonCause::Segment { operation: "sync", segment, source });
            }
        }
    }

    /// Gives back the space behind the frames of a log that is closed: the next open then has
    /// no zeros to look through.
    pub(crate) fn trim(&self, end: Lsn) {
        let sector = u64::from(self.sector);
        let spares = self.spares.iter().map(|spare| (spare, sector));
        let active = self.open.back().map(|last| (last, sector + end.distance_from(last.base)));
        for (segment, len) in spares.chain(active) {
            // Where it fails they are as a crash leaves them.
            let _ = segment.file.set_len(len);
        }
    }

    /// Lets go of files and lock, when the log is closed or failed and nobody drives any
    /// more: readers may keep the rest of it for long.
    pub(crate) fn let_go(&mut self) {
        self.queue = None;
        self.pending.clear();
        self.open.clear();
        self.spares.clear();
        self.lock = None;
    }

    /// Poisons the log: the driver does nothing more.
    pub(crate) fn fail(&mut self, shared: &Shared, cause: PoisonCause) {
        self.core.fail();
        self.tasks_ready |= shared.poison(cause);
    }
}
