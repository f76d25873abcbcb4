//! The commit core: when to seal, write, sync, rotate, mark what is durable, and acknowledge.
//!
//! A state machine and nothing else: it does no I/O, owns no thread, reads no clock.
//! Events go in by methods, [`Action`]s come out of [`Core::next`]; the driver carries them
//! out. The core must never advance a watermark past a byte whose completion it has not been
//! told. What must always hold is asserted in release builds, too: a failed assertion is a
//! panic of the driver, which poisons the log. Tested in `core_tests.rs`, and by every
//! simulator suite.

mod actions;
mod decisions;
mod events;
mod frames;
mod syncing;
mod watermarks;

use std::collections::VecDeque;

pub(crate) use self::actions::{Action, Config, Nanos, Op, Watermarks};
use self::frames::{FrameState, SegmentState};
use crate::ring::Tail;
use bulla_storage::{Lsn, SegmentNumber, Seq};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    /// Everything is made durable; then the log is marked as shut down cleanly.
    Closing,
    /// That mark is on its way.
    Sealing,
    Closed,
    Failed,
}

/// How many segments may hold frames that are not synced.
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
    /// The number that the next frame begins with; `None` before the first one.
    next_seq: Option<Seq>,
    /// Nothing was unsealed at this time, so what is unsealed came later.
    idle_since: Nanos,
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
    requested_written: Lsn,
    requested_synced: Lsn,
    /// The highest durable position that is written down on disk.
    durable_mark: Lsn,
    /// The highest durable mark in a frame that is durable itself: no recovery moves what is
    /// below it.
    persisted_mark: Lsn,
    /// Somebody waits for a durable mark: it is not put off until the log is idle.
    mark_wanted: bool,
    /// A durable mark is on its way, or waits for a segment that has room for it.
    mark_pending: bool,
    last_work: Nanos,
    /// Something was appended: segments are needed.
    is_used: bool,
    spares: usize,
    preparing: bool,
    prepare_blocked: bool,
    late_by: Nanos,
}

impl Core {
    /// Returns a core for a log whose bytes below `start` are all durable.
    pub(crate) fn new(config: Config, start: Lsn, segment: SegmentNumber, now: Nanos) -> Self {
        let marks = Watermarks { written: start, balanced: start, synced: start };
        Self {
            config,
            phase: Phase::Running,
            now,
            next_op: 0,
            tail: Tail { end: start, closed: 0, pressed: false, after_sleep: false },
            sealed: start,
            next_seq: None,
            idle_since: now,
            frames: VecDeque::new(),
            written_frames: 0,
            segments: VecDeque::from([SegmentState::new(segment)]),
            writes_in_flight: 0,
            groups: Vec::new(),
            marks,
            published: marks,
            requested_written: Lsn::ZERO,
            requested_synced: Lsn::ZERO,
            // The epoch-start segment's `truncated_at` marks all that was recovered as durable.
            durable_mark: start,
            persisted_mark: start,
            mark_wanted: false,
            mark_pending: false,
            last_work: now,
            is_used: false,
            spares: 0,
            preparing: false,
            prepare_blocked: false,
            late_by: 0,
        }
    }

    // Questions.

    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Returns when [`tick`](Self::tick) must come next, if nothing else happens; `None` when
    /// there is nothing to do until something is appended.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        let mut deadline = Nanos::MAX;
        if self.tail.end > self.sealed {
            let due = if self.tail.closed > 0 { self.now } else { self.flush_due() };
            deadline = deadline.min(due);
        }
        for segment in &self.segments {
            deadline = deadline.min(segment.unsynced.due);
        }
        if self.mark_is_due_later() {
            deadline = deadline.min(self.last_work.saturating_add(self.config.idle_mark));
        }
        (deadline < Nanos::MAX).then_some(deadline)
    }

    /// Takes the longest time by which a flush was late since the last call.
    pub(crate) fn take_lateness(&mut self) -> Nanos {
        std::mem::take(&mut self.late_by)
    }

    /// Returns the position below which everything is durable.
    pub(crate) fn synced(&self) -> Lsn {
        self.marks.synced
    }

    /// Returns the position below which everything is durable, and so is the durable mark that
    /// says so.
    pub(crate) fn persisted_mark(&self) -> Lsn {
        self.persisted_mark
    }

    // Decisions.

    /// Returns what to do next; `None` when there is nothing until the next event.
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
            .or_else(|| self.next_mark())
            .or_else(|| self.next_close())
    }

    // What the parts share.

    fn unsynced_entries(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unsynced.entries).sum()
    }

    fn requested_synced(&self) -> Lsn {
        match self.phase {
            Phase::Closing | Phase::Sealing => Lsn::MAX,
            _ => self.requested_synced,
        }
    }

    /// Returns when a write of what is unsealed starts at the latest.
    fn flush_due(&self) -> Nanos {
        self.idle_since.saturating_add(self.config.flush_interval)
    }

    /// Returns whether everything that was appended is durable.
    fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.tail.end <= self.sealed && self.writes_in_flight == 0
    }

    fn op(&mut self) -> Op {
        self.next_op += 1;
        Op(self.next_op)
    }
}
