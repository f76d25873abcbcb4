//! The commit core: when to seal, write, sync, rotate, promise and acknowledge.
//!
//! A state machine and nothing else: it does no I/O, owns no thread, reads no clock.
//! Events go in by methods, [`Action`]s come out of [`Core::next`]; whoever holds the
//! driver's lock carries them out. It must never advance a watermark past a byte whose
//! completion it has not been told. Tested below, and by every simulator suite.

use std::collections::VecDeque;

use crate::ring::{Closed, Tail};
use bulla_storage::faults::failpoints::{Point, skip};
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::format::FrameKind;
use bulla_storage::{Lsn, SegmentNumber};

/// Nanoseconds of the log's monotonic clock.
pub(crate) type Nanos = u64;

/// What the core must know of the options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Writes can be durable by themselves (direct segments, DSYNC).
    pub(crate) fua: bool,
    /// Writes in flight at once.
    pub(crate) depth: usize,
    pub(crate) flush_interval: Nanos,
    pub(crate) sync_interval: Nanos,
    pub(crate) balanced_interval: Nanos,
    pub(crate) balanced_entries: u64,
    pub(crate) balanced_max_unsynced: u64,
    pub(crate) idle_promise: Nanos,
    /// Segments kept ready.
    pub(crate) spares: usize,
}

/// Identifies an operation of the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Op(pub(crate) u64);

/// What a sync is for; each kind is a named point of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncFor {
    Frames,
    Promise,
    CloseSeal,
}

/// What the driver must do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Take the next frame out of the ring; answer with [`Core::sealed`].
    Seal,
    /// Take a frame without entries; answer with [`Core::sealed`] or, when there is no
    /// room for it, with [`Core::no_room_for`].
    SealEmpty(FrameKind),
    /// Write the frame that was sealed as `op`; answer with [`Core::completed`].
    Write { op: Op, dsync: bool },
    /// Sync a segment; answer with [`Core::completed`].
    Sync { op: Op, segment: SegmentNumber, purpose: SyncFor },
    /// Write the rotated seal of a segment that ends at `end`; answer with
    /// [`Core::completed`].
    SealSegment { op: Op, segment: SegmentNumber, end: Lsn },
    /// Make another segment ready; answer with [`Core::spare_ready`] or
    /// [`Core::spare_failed`], now or later.
    Prepare,
    /// Publish watermarks and wake those they make ready. Ring bytes below `written`
    /// are free.
    Advance(Watermarks),
}

/// Exclusive frame ends: an entry is there when its LSN is below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watermarks {
    /// Contiguous completed writes.
    pub(crate) written: Lsn,
    /// What Balanced receipts may take for ready: `written`, but no more than the bound
    /// above `synced`.
    pub(crate) balanced: Lsn,
    /// Contiguous synced writes.
    pub(crate) synced: Lsn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    /// Sealed; not submitted.
    Queued,
    InFlight {
        dsync: bool,
    },
    /// Completed without DSYNC; `covered` by that sync in flight, if any.
    Written {
        covered: Option<Op>,
    },
    Synced,
}

#[derive(Clone, Copy, Debug)]
struct FrameState {
    op: Op,
    frame: Closed,
    status: Status,
    /// A sync of it starts by then.
    due: Nanos,
    /// What it says is durable.
    promise: Lsn,
}

/// A segment with frames that are not synced, or whose seal is not written.
#[derive(Clone, Debug)]
struct SegmentState {
    number: SegmentNumber,
    /// Where it ended, once there are frames in its successor.
    end: Option<Lsn>,
    /// The seal that is being written.
    sealing: Option<Op>,
    /// The sync in flight; at most one.
    syncing: Option<Op>,
    /// Plain writes of frames in flight.
    plain_in_flight: usize,
    /// Written, not synced, not covered by a sync in flight.
    uncovered: Uncovered,
}

#[derive(Clone, Copy, Debug)]
struct Uncovered {
    frames: usize,
    /// Those of frames that are not all Relaxed.
    entries: u64,
    lowest: Lsn,
    due: Nanos,
}

const NOTHING_UNCOVERED: Uncovered =
    Uncovered { frames: 0, entries: 0, lowest: Lsn::MAX, due: Nanos::MAX };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    /// Everything is made durable; then the seal is written.
    Closing,
    /// The seal is on its way.
    Sealing,
    Closed,
    Failed,
}

/// At most so many segments may hold frames that are not synced.
const MAX_UNSYNCED_SEGMENTS: usize = 2;

#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    phase: Phase,
    now: Nanos,
    next_op: u64,
    tail: Tail,
    /// End of what was taken out of the ring.
    sealed: Lsn,
    /// Nothing was unsealed at this time, so what is unsealed came later.
    quiet_at: Nanos,
    /// Frames from `marks.synced` on, in LSN order. Bounded by two segments.
    frames: VecDeque<FrameState>,
    /// How many of `frames` are below `marks.written`.
    written_frames: usize,
    segments: VecDeque<SegmentState>,
    writes_in_flight: usize,
    /// Frames on their way that were closed because somebody waits for them, and their
    /// entries; at most the depth.
    groups: Vec<(Op, u32)>,
    marks: Watermarks,
    published: Watermarks,
    /// Somebody waits for positions below these.
    wanted_written: Lsn,
    wanted_synced: Lsn,
    /// The highest durable position that is written down on disk.
    promised: Lsn,
    /// The highest promise of a frame that is durable itself: no recovery moves what is
    /// below it.
    secured: Lsn,
    /// Somebody waits for a promise: it is not put off until the log is idle.
    promise_wanted: bool,
    /// A promise is on its way, or waits for a segment that has room for it.
    promise_pending: bool,
    last_work: Nanos,
    /// Something was appended: segments are needed.
    is_used: bool,
    spares: usize,
    preparing: bool,
    prepare_blocked: bool,
    late_by: Nanos,
}

impl Core {
    /// A core for a log whose bytes below `start` are all durable.
    pub(crate) fn new(config: Config, start: Lsn, segment: SegmentNumber, now: Nanos) -> Self {
        let marks = Watermarks { written: start, balanced: start, synced: start };
        Self {
            config,
            phase: Phase::Running,
            now,
            next_op: 0,
            tail: Tail { end: start, closed: 0, pressed: false, after_sleep: false },
            sealed: start,
            quiet_at: now,
            frames: VecDeque::new(),
            written_frames: 0,
            segments: VecDeque::from([SegmentState::new(segment)]),
            writes_in_flight: 0,
            groups: Vec::new(),
            marks,
            published: marks,
            wanted_written: Lsn::ZERO,
            wanted_synced: Lsn::ZERO,
            // The opening segment's `cut_at` promises all that was recovered.
            promised: start,
            secured: start,
            promise_wanted: false,
            promise_pending: false,
            last_work: now,
            is_used: false,
            spares: 0,
            preparing: false,
            prepare_blocked: false,
            late_by: 0,
        }
    }

    // Events.

    /// Time passed, and the ring's tail may have moved.
    pub(crate) fn tick(&mut self, now: Nanos, tail: Tail) {
        // While the flusher slept nobody looked: what is unsealed is as new as its wake-up.
        if tail.end <= self.sealed || tail.after_sleep {
            self.quiet_at = now;
        }
        self.now = now;
        self.tail = tail;
        self.is_used |= tail.end > self.sealed;
    }

    /// Somebody waits for the positions below these to be written, or synced.
    pub(crate) fn want(&mut self, written: Lsn, synced: Lsn) {
        self.wanted_written = self.wanted_written.max(written);
        self.wanted_synced = self.wanted_synced.max(synced);
    }

    /// A frame was taken out of the ring; gives the operation that will write it.
    pub(crate) fn sealed(&mut self, frame: Closed) -> Op {
        let op = self.op();
        let interval =
            if frame.relaxed { self.config.sync_interval } else { self.config.balanced_interval };
        let due = match frame.kind {
            FrameKind::Data => self.quiet_at.saturating_add(interval),
            // Nothing gathers behind a promise or a seal.
            _ => self.now,
        };
        if self.flush_due() < self.now && frame.kind == FrameKind::Data {
            self.late_by = self.late_by.max(self.now - self.flush_due());
        }
        self.sealed = frame.end;
        let wanted = self.wanted_written.max(self.wanted_synced());
        if self.tail.closed == 0 && frame.start < wanted {
            self.groups.push((op, frame.entries));
        }
        self.tail.closed = self.tail.closed.saturating_sub(1);
        if self.tail.end <= self.sealed {
            self.tail.end = self.sealed;
            self.quiet_at = self.now;
        }
        if frame.kind == FrameKind::Data {
            self.last_work = self.now;
        }
        if self.segments.back().is_none_or(|last| last.number != frame.segment) {
            if let Some(last) = self.segments.back_mut() {
                last.end = Some(frame.base);
            }
            self.segments.push_back(SegmentState::new(frame.segment));
            self.spares = self.spares.saturating_sub(1);
        }
        let promise = self.marks.synced;
        self.frames.push_back(FrameState { op, frame, status: Status::Queued, due, promise });
        op
    }

    /// There was no room for the empty frame that was asked for.
    pub(crate) fn no_room_for(&mut self, kind: FrameKind) {
        if kind == FrameKind::SealClosed {
            self.phase = Phase::Closed;
        }
        // A promise waits for the next segment: nothing else goes into this one either.
        self.promise_wanted |= kind == FrameKind::Promise;
    }

    /// Write down that all is durable as soon as it is, without waiting for an idle moment.
    pub(crate) fn want_promise(&mut self) {
        self.promise_wanted = true;
    }

    /// An operation completed well.
    pub(crate) fn completed(&mut self, op: Op) {
        if self.phase == Phase::Failed {
            return;
        }
        self.groups.retain(|(group, _)| *group != op);
        if let Ok(index) = self.frames.binary_search_by_key(&op, |state| state.op) {
            self.write_completed(index);
        } else if let Some(index) = self.segments.iter().position(|s| s.syncing == Some(op)) {
            self.sync_completed(index, op);
        } else if let Some(segment) = self.segments.iter_mut().find(|s| s.sealing == Some(op)) {
            // The seal is in place: the segment is done.
            let number = segment.number;
            self.segments.retain(|segment| segment.number != number);
        } else if skip(Point::SyncCoversReapedOnly) {
            self.writes_in_flight = self.writes_in_flight.saturating_sub(1);
        }
        self.recount();
    }

    /// Something failed for good: nothing advances any more.
    pub(crate) fn fail(&mut self) {
        self.phase = Phase::Failed;
    }

    /// A sync failed, and the latch is left out: it will be tried again (which is wrong).
    pub(crate) fn retry_sync(&mut self, op: Op) {
        for state in &mut self.frames {
            if state.status == (Status::Written { covered: Some(op) }) {
                state.status = Status::Written { covered: None };
            }
        }
        if let Some(index) = self.segments.iter().position(|s| s.syncing == Some(op)) {
            if let Some(segment) = self.segments.get_mut(index) {
                segment.syncing = None;
            }
            self.recount_uncovered(index);
        }
    }

    pub(crate) fn spare_ready(&mut self) {
        if self.is_settled() {
            // None is on its way.
            self.promise_pending = false;
        }
        self.spares += 1;
        self.preparing = false;
    }

    /// A segment could not be made; no other is tried before [`space`](Self::space).
    pub(crate) fn spare_failed(&mut self) {
        self.preparing = false;
        self.prepare_blocked = true;
    }

    /// There may be space again.
    pub(crate) fn space(&mut self) {
        self.prepare_blocked = false;
    }

    /// Make everything durable and seal the log.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Closing;
        }
    }

    // Questions.

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// When [`tick`](Self::tick) must come next, if nothing else happens; `None` when
    /// there is nothing to do until something is appended.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        let mut deadline = Nanos::MAX;
        if self.tail.end > self.sealed {
            let due = if self.tail.closed > 0 { self.now } else { self.flush_due() };
            deadline = deadline.min(due);
        }
        for segment in &self.segments {
            deadline = deadline.min(segment.uncovered.due);
        }
        if self.promise_is_due_later() {
            deadline = deadline.min(self.last_work.saturating_add(self.config.idle_promise));
        }
        (deadline < Nanos::MAX).then_some(deadline)
    }

    /// The longest time by which a flush was late since the last call.
    pub(crate) fn take_lateness(&mut self) -> Nanos {
        std::mem::take(&mut self.late_by)
    }

    /// Everything below it is durable.
    pub(crate) fn synced(&self) -> Lsn {
        self.marks.synced
    }

    /// Everything below it is durable, and so is the promise that it is.
    pub(crate) fn secured(&self) -> Lsn {
        self.secured
    }

    // Decisions.

    /// What to do next; `None` when there is nothing until the next event.
    pub(crate) fn next(&mut self) -> Option<Action> {
        if matches!(self.phase, Phase::Failed | Phase::Closed) {
            return None;
        }
        // A sync that a bound demands starts before more is acknowledged.
        self.next_sync(true)
            .or_else(|| self.next_advance())
            .or_else(|| self.next_sync(false))
            .or_else(|| self.next_write())
            .or_else(|| self.next_seal_of_segment())
            .or_else(|| self.next_prepare())
            .or_else(|| self.next_seal())
            .or_else(|| self.next_promise())
            .or_else(|| self.next_close())
    }

    fn next_advance(&mut self) -> Option<Action> {
        let bound = Lsn(self.marks.synced.0.saturating_add(self.config.balanced_max_unsynced));
        let bound = either(bound, Bug::BoundIgnored, Lsn::MAX);
        self.marks.balanced = self.marks.written.min(bound);
        let entries: u64 = self.segments.iter().map(|segment| segment.uncovered.entries).sum();
        if entries >= self.config.balanced_entries {
            // A sync must start first, and waits for the one that is on its way.
            self.marks.balanced = self.published.balanced;
        }
        if self.marks == self.published {
            return None;
        }
        self.published = self.marks;
        Some(Action::Advance(self.marks))
    }

    /// The lowest segment that needs a sync and can have one.
    fn next_sync(&mut self, bounds_only: bool) -> Option<Action> {
        let wanted = self.wanted_synced();
        let unsynced = self.marks.written.distance_from(self.marks.synced);
        let entries: u64 = self.segments.iter().map(|segment| segment.uncovered.entries).sum();
        let index = self.segments.iter().position(|segment| {
            let uncovered = &segment.uncovered;
            if uncovered.frames == 0 || segment.syncing.is_some() {
                return false;
            }
            if entries >= self.config.balanced_entries
                || unsynced >= self.config.balanced_max_unsynced / 2
                || uncovered.due <= self.now
            {
                return true;
            }
            // Waiters' demand: let the writes that they wait for land first, so that one
            // sync does for all of them.
            !bounds_only
                && (segment.end.is_some()
                    || (uncovered.lowest < wanted && !self.demanded_in_flight(segment.number)))
        })?;
        let op = self.op();
        let segment = self.segments.get_mut(index)?;
        segment.syncing = Some(op);
        let number = segment.number;
        let mut purpose = SyncFor::Frames;
        for state in self.frames.iter_mut().filter(|state| state.frame.segment == number) {
            let reaped = match state.status {
                Status::Written { covered: None } => true,
                Status::InFlight { dsync: false } => skip(Point::SyncCoversReapedOnly),
                _ => false,
            };
            if reaped {
                state.status = Status::Written { covered: Some(op) };
                purpose = match state.frame.kind {
                    FrameKind::Promise => SyncFor::Promise,
                    FrameKind::SealClosed => SyncFor::CloseSeal,
                    FrameKind::Data | FrameKind::SealRotated => SyncFor::Frames,
                };
            }
        }
        self.recount_uncovered(index);
        Some(Action::Sync { op, segment: number, purpose })
    }

    /// Is a plain write on its way, to this segment, that a sync is wanted for?
    fn demanded_in_flight(&self, number: SegmentNumber) -> bool {
        let wanted = self.wanted_synced();
        // What is below the watermark is written: only the last frames, at most the depth and
        // those completed out of order, can be in flight.
        self.segments.iter().any(|s| s.number == number && s.plain_in_flight > 0)
            && self.frames.range(self.written_frames..).any(|state| {
                state.frame.segment == number
                    && state.frame.start < wanted
                    && state.status == (Status::InFlight { dsync: false })
            })
    }

    fn wanted_synced(&self) -> Lsn {
        match self.phase {
            Phase::Closing | Phase::Sealing => Lsn::MAX,
            _ => self.wanted_synced,
        }
    }

    fn next_write(&mut self) -> Option<Action> {
        if self.writes_in_flight >= self.config.depth {
            return None;
        }
        // Frames are submitted in order, so those queued are the last ones.
        let mut index = self.frames.len();
        while index > 0 && self.frames.get(index - 1)?.status == Status::Queued {
            index -= 1;
        }
        let state = self.frames.get(index)?;
        let (op, frame) = (state.op, state.frame);
        if self.unsynced_segments_before(frame.segment) >= MAX_UNSYNCED_SEGMENTS {
            return None;
        }
        let dsync = self.config.fua
            && self.wants_sync_of(&frame, state.due)
            && !self.has_plain_below(index);
        let state = self.frames.get_mut(index)?;
        state.status = Status::InFlight { dsync };
        self.writes_in_flight += 1;
        if !dsync {
            let number = frame.segment;
            if let Some(segment) = self.segments.iter_mut().find(|s| s.number == number) {
                segment.plain_in_flight += 1;
            }
        }
        Some(Action::Write { op, dsync })
    }

    fn wants_sync_of(&self, frame: &Closed, due: Nanos) -> bool {
        frame.kind != FrameKind::Data || frame.start < self.wanted_synced() || due <= self.now
    }

    /// Is there a plain frame in the same segment that needs a sync of the file anyway?
    fn has_plain_below(&self, index: usize) -> bool {
        let segment = self.frames.get(index).map(|state| state.frame.segment);
        self.segments
            .iter()
            .any(|s| Some(s.number) == segment && (s.plain_in_flight > 0 || s.uncovered.frames > 0))
    }

    fn unsynced_segments_before(&self, number: SegmentNumber) -> usize {
        self.segments.iter().filter(|segment| segment.number < number).count()
    }

    fn next_seal(&mut self) -> Option<Action> {
        if self.tail.end <= self.sealed
            || self.writes_in_flight >= self.config.depth
            || self.frames.back().is_some_and(|state| state.status == Status::Queued)
        {
            return None;
        }
        let due = self.flush_due() <= self.now;
        let wanted =
            self.may_close_group() && self.wanted_written.max(self.wanted_synced()) > self.sealed;
        // Without DSYNC the waiters' sync comes next; what is appended meanwhile waits
        // for the group after it.
        let hold = !self.config.fua
            && !due
            && self.segments.iter().any(|s| s.plain_in_flight > 0)
            && self.segments.iter().any(|s| self.demanded_in_flight(s.number));
        ((wanted && !hold) || due || self.tail.closed > 0 || self.tail.pressed)
            .then_some(Action::Seal)
    }

    /// May another frame be closed just because somebody waits for it? While one such
    /// group is on its way the next one gathers, to share a sync. Only two lone entries
    /// are better off side by side: the disk does both in less time than one after the
    /// other, and there is nobody to share with.
    fn may_close_group(&self) -> bool {
        match self.groups[..] {
            [] => true,
            [(_, 1)] => self.config.fua,
            _ => false,
        }
    }

    /// A write of what is unsealed starts by then.
    fn flush_due(&self) -> Nanos {
        self.quiet_at.saturating_add(self.config.flush_interval)
    }

    fn next_seal_of_segment(&mut self) -> Option<Action> {
        let synced = either(self.marks.synced, Bug::SegmentSealedEarly, self.marks.written);
        let index = self.segments.iter().position(|segment| {
            segment.sealing.is_none() && segment.end.is_some_and(|end| end <= synced)
        })?;
        let op = self.op();
        let segment = self.segments.get_mut(index)?;
        segment.sealing = Some(op);
        Some(Action::SealSegment { op, segment: segment.number, end: segment.end? })
    }

    fn next_prepare(&mut self) -> Option<Action> {
        if self.preparing
            || self.prepare_blocked
            || self.spares >= self.config.spares
            || self.phase != Phase::Running
            || !self.is_used
        {
            return None;
        }
        self.preparing = true;
        Some(Action::Prepare)
    }

    fn promise_is_due_later(&self) -> bool {
        self.phase == Phase::Running
            && !self.promise_pending
            && self.is_settled()
            && (self.promised < self.marks.synced
                || (self.promise_wanted && self.secured < self.marks.synced))
    }

    /// Is everything that was appended durable?
    fn is_settled(&self) -> bool {
        self.frames.is_empty() && self.tail.end <= self.sealed && self.writes_in_flight == 0
    }

    fn next_promise(&mut self) -> Option<Action> {
        let idle = self.last_work.saturating_add(self.config.idle_promise) <= self.now;
        if !self.promise_is_due_later() || !(idle || self.promise_wanted) {
            return None;
        }
        self.promise_pending = true;
        self.promise_wanted = false;
        Some(Action::SealEmpty(FrameKind::Promise))
    }

    fn next_close(&mut self) -> Option<Action> {
        if !self.is_settled() || self.segments.len() > 1 {
            return None;
        }
        match self.phase {
            Phase::Closing => {
                self.phase = Phase::Sealing;
                Some(Action::SealEmpty(FrameKind::SealClosed))
            }
            Phase::Sealing => {
                self.phase = Phase::Closed;
                None
            }
            _ => None,
        }
    }

    // Bookkeeping.

    fn op(&mut self) -> Op {
        self.next_op += 1;
        Op(self.next_op)
    }

    fn write_completed(&mut self, index: usize) {
        let Some(state) = self.frames.get_mut(index) else { return };
        self.writes_in_flight -= 1;
        let Status::InFlight { dsync } = state.status else { return };
        let number = state.frame.segment;
        if dsync {
            state.status = Status::Synced;
            return;
        }
        let written = Status::Written { covered: None };
        state.status = either(written, Bug::AckBeforeSync, Status::Synced);
        let (entries, start, due) = (state.frame.bounded_entries(), state.frame.start, state.due);
        if let Some(segment) = self.segments.iter_mut().find(|s| s.number == number) {
            segment.plain_in_flight -= 1;
            let uncovered = &mut segment.uncovered;
            uncovered.frames += 1;
            uncovered.entries += entries;
            uncovered.lowest = uncovered.lowest.min(start);
            uncovered.due = uncovered.due.min(due);
        }
    }

    fn sync_completed(&mut self, index: usize, op: Op) {
        for state in &mut self.frames {
            if state.status == (Status::Written { covered: Some(op) }) {
                state.status = Status::Synced;
            }
        }
        if let Some(segment) = self.segments.get_mut(index) {
            segment.syncing = None;
        }
    }

    fn recount_uncovered(&mut self, index: usize) {
        let Some(segment) = self.segments.get_mut(index) else { return };
        segment.uncovered = NOTHING_UNCOVERED;
        segment.plain_in_flight = 0;
        for state in self.frames.iter().filter(|state| state.frame.segment == segment.number) {
            match state.status {
                Status::InFlight { dsync: false } => segment.plain_in_flight += 1,
                Status::Written { covered: None } => {
                    let uncovered = &mut segment.uncovered;
                    uncovered.frames += 1;
                    uncovered.entries += state.frame.bounded_entries();
                    uncovered.lowest = uncovered.lowest.min(state.frame.start);
                    uncovered.due = uncovered.due.min(state.due);
                }
                _ => {}
            }
        }
    }

    /// Moves the watermarks over what is contiguous.
    fn recount(&mut self) {
        if skip(Point::ContiguousWatermark) {
            self.recount_with_holes();
            return;
        }
        while let Some(state) = self.frames.get(self.written_frames) {
            if !matches!(state.status, Status::Written { .. } | Status::Synced) {
                break;
            }
            self.marks.written = state.frame.end;
            self.written_frames += 1;
        }
        let fua = planted(Bug::DsyncCoversBelow)
            && self.frames.range(..self.written_frames).any(|s| s.status == Status::Synced);
        while let Some(state) = self
            .frames
            .front()
            .filter(|s| s.status == Status::Synced || (fua && self.written_frames > 0))
        {
            self.advance_synced(state.frame, state.promise);
            self.frames.pop_front();
            self.written_frames -= 1;
        }
    }

    fn advance_synced(&mut self, frame: Closed, promise: Lsn) {
        self.marks.synced = either(frame.end, Bug::WatermarkOvershoots, self.marks.written);
        self.secured = self.secured.max(promise);
        if frame.kind == FrameKind::Promise {
            self.promised = frame.end;
            self.promise_pending = false;
        }
    }

    /// What [`recount`](Self::recount) must not do, for a build that is broken on purpose.
    fn recount_with_holes(&mut self) {
        let synced = self.frames.iter().rposition(|state| state.status == Status::Synced);
        let written = self
            .frames
            .iter()
            .rposition(|state| matches!(state.status, Status::Written { .. } | Status::Synced));
        if let Some(state) = written.and_then(|index| self.frames.get(index)) {
            self.marks.written = self.marks.written.max(state.frame.end);
        }
        if let Some(state) = synced.and_then(|index| self.frames.get(index)) {
            self.marks.synced = self.marks.synced.max(state.frame.end);
        }
        while let Some(state) = self.frames.front().filter(|s| s.status == Status::Synced) {
            let (frame, promise, synced) = (state.frame, state.promise, self.marks.synced);
            self.advance_synced(frame, promise);
            self.marks.synced = synced;
            self.frames.pop_front();
        }
        self.written_frames = 0;
    }
}

impl SegmentState {
    const fn new(number: SegmentNumber) -> Self {
        Self {
            number,
            end: None,
            sealing: None,
            syncing: None,
            plain_in_flight: 0,
            uncovered: NOTHING_UNCOVERED,
        }
    }
}
