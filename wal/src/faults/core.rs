//! Actions that are changed before the driver carries them out, and events before the core hears
//! of them: syncs that are left out, come late, or are of another segment; watermarks that say
//! too much.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use crate::commit::core::{self, Action, Config, Nanos, Op, Watermarks};
use crate::ring::Closed;
use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::faults::mutants::{Mutant, planted};
use bulla_storage::format::FrameKind;
use bulla_storage::{Lsn, SegmentNumber};

/// The commit core, and what passed between it and the driver.
#[derive(Debug)]
pub(crate) struct Core {
    core: core::Core,
    /// Frames that are not durable as the core sees it, in order.
    frames: VecDeque<Frame>,
    /// Actions that the core did not decide on, or earlier than they are carried out.
    inserted: VecDeque<Action>,
    /// The watermarks that the core decided on, and those that the driver was told.
    decided: Watermarks,
    told: Watermarks,
    /// Everything below it is durable, it is said.
    overshot: Lsn,
    early_syncs: Vec<EarlySync>,
    next_early: u64,
    /// Syncs of which the core heard before they were done.
    acknowledged: Vec<Op>,
    late_sync: Option<LateSync>,
    newest: SegmentNumber,
    is_closing: bool,
    is_failed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    op: Op,
    closed: Closed,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Sealed,
    InFlight {
        dsync: bool,
    },
    Written,
    /// Written, and covered by this sync.
    Covered(Op),
    Synced,
}

/// A sync that is submitted before the writes that it is to cover are done.
#[derive(Clone, Copy, Debug)]
struct EarlySync {
    op: Op,
    segment: SegmentNumber,
    is_done: bool,
    /// The core's sync, which this stands for.
    stands_for: Option<Op>,
}

/// The last sync of a segment, which comes after the segment's end mark.
#[derive(Clone, Copy, Debug)]
struct LateSync {
    op: Op,
    segment: SegmentNumber,
    /// What was durable before it.
    synced: Lsn,
}

impl Core {
    pub(crate) fn new(config: Config, start: Lsn, segment: SegmentNumber, now: Nanos) -> Self {
        let marks = Watermarks { written: start, balanced: start, synced: start };
        Self {
            core: core::Core::new(config, start, segment, now),
            frames: VecDeque::new(),
            inserted: VecDeque::new(),
            decided: marks,
            told: marks,
            overshot: start,
            early_syncs: Vec::new(),
            // Far above those of the core.
            next_early: 1 << 63,
            acknowledged: Vec::new(),
            late_sync: None,
            newest: segment,
            is_closing: false,
            is_failed: false,
        }
    }

    // Events.

    pub(crate) fn sealed(&mut self, closed: Closed) -> Op {
        let op = self.core.sealed(closed);
        self.frames.push_back(Frame { op, closed, status: Status::Sealed });
        self.newest = closed.segment;
        op
    }

    pub(crate) fn completed(&mut self, op: Op) {
        if self.is_failed {
            return;
        }
        self.note_completion(op);
        if let Some(early) = self.early_syncs.iter_mut().find(|early| early.op == op) {
            early.is_done = true;
            if let Some(sync) = early.stands_for {
                self.core.completed(sync);
            }
        } else if self.late_sync.is_some_and(|late| late.op == op) {
            self.late_sync = None;
        } else if let Some(index) = self.acknowledged.iter().position(|sync| *sync == op) {
            self.acknowledged.swap_remove(index);
        } else {
            self.core.completed(op);
        }
    }

    fn note_completion(&mut self, op: Op) {
        for frame in &mut self.frames {
            frame.status = match frame.status {
                Status::InFlight { dsync: true } if frame.op == op => Status::Synced,
                Status::InFlight { dsync: false } if frame.op == op => Status::Written,
                Status::Covered(sync) if sync == op => Status::Synced,
                status => status,
            };
        }
    }

    pub(crate) fn fail(&mut self) {
        self.is_failed = true;
        self.core.fail();
    }

    pub(crate) fn close(&mut self) {
        self.is_closing = true;
        self.core.close();
    }

    // Questions.

    pub(crate) fn is_closed(&self) -> bool {
        self.core.is_closed() || (planted(Mutant::CloseDoesNotDrain) && self.is_closing)
    }

    pub(crate) fn synced(&self) -> Lsn {
        self.core.synced().max(self.overshot)
    }

    pub(crate) fn persisted_mark(&self) -> Lsn {
        if planted(Mutant::MarkInMemoryOnly) { self.synced() } else { self.core.persisted_mark() }
    }

    // Actions.

    pub(crate) fn next(&mut self) -> Option<Action> {
        if self.is_failed {
            return None;
        }
        if let Some(action) = self.inserted.pop_front() {
            return Some(action);
        }
        loop {
            let changed = match self.core.next() {
                None => return self.next_advance(),
                Some(Action::Advance(marks)) => {
                    self.decide(marks);
                    self.next_advance()
                }
                Some(Action::Write { op, dsync }) => Some(self.next_write(op, dsync)),
                Some(Action::Sync { op, segment }) => self.next_sync(op, segment),
                Some(action @ Action::SealSegment { segment, .. }) => {
                    if let Some(late) = self.late_sync.filter(|late| late.segment == segment) {
                        self.inserted.push_back(Action::Sync { op: late.op, segment });
                    }
                    Some(action)
                }
                action => action,
            };
            if changed.is_some() {
                return changed;
            }
        }
    }

    fn next_write(&mut self, op: Op, dsync: bool) -> Action {
        let Some(frame) = self.frames.iter_mut().find(|frame| frame.op == op) else {
            return Action::Write { op, dsync };
        };
        frame.status = Status::InFlight { dsync };
        let (kind, segment) = (frame.closed.kind, frame.closed.segment);
        if skip(Failpoint::SyncCoversReapedOnly) && !dsync {
            self.early_syncs.retain(|early| !early.is_done);
            self.next_early += 1;
            let early = Op(self.next_early);
            self.early_syncs.push(EarlySync {
                op: early,
                segment,
                is_done: false,
                stands_for: None,
            });
            self.inserted.push_back(Action::Sync { op: early, segment });
        }
        Action::Write { op, dsync: dsync && !skip(failpoint(kind, Failpoint::FrameDsync)) }
    }

    /// Returns the sync, or another one; `None` when it is none, and the core was told so.
    fn next_sync(&mut self, op: Op, segment: SegmentNumber) -> Option<Action> {
        let mut kind = FrameKind::Data;
        for frame in self.frames.iter_mut().filter(|frame| frame.closed.segment == segment) {
            if frame.status == Status::Written {
                frame.status = Status::Covered(op);
                kind = frame.closed.kind;
            }
        }
        if skip(failpoint(kind, Failpoint::FrameSync)) {
            self.note_completion(op);
            self.core.completed(op);
            return None;
        }
        if planted(Mutant::AckBeforeSync) {
            self.core.completed(op);
            self.acknowledged.push(op);
        }
        if planted(Mutant::SegmentSealedEarly) && self.is_last_sync_of(segment) {
            let synced = self.told.synced;
            self.late_sync = Some(LateSync { op, segment, synced });
            self.core.completed(op);
            return None;
        }
        if skip(Failpoint::SyncCoversReapedOnly) {
            let early = self.early_syncs.iter_mut().rfind(|early| early.segment == segment);
            if let Some(early) = early.filter(|early| early.stands_for.is_none()) {
                early.stands_for = Some(op);
                if early.is_done {
                    self.core.completed(op);
                }
                return None;
            }
        }
        let wrong = planted(Mutant::SyncOfWrongSegment);
        Some(Action::Sync { op, segment: if wrong { self.newest } else { segment } })
    }

    fn is_last_sync_of(&self, segment: SegmentNumber) -> bool {
        let is_written = |frame: &Frame| {
            frame.closed.segment != segment
                || matches!(frame.status, Status::Covered(_) | Status::Synced)
        };
        self.late_sync.is_none() && self.newest != segment && self.frames.iter().all(is_written)
    }

    // Watermarks.

    fn decide(&mut self, marks: Watermarks) {
        if planted(Mutant::WatermarkOvershoots) && marks.synced > self.decided.synced {
            self.overshot = self.overshot.max(marks.written);
        }
        self.decided = marks;
        while self.frames.front().is_some_and(|frame| frame.closed.end <= marks.synced) {
            self.frames.pop_front();
        }
    }

    /// Returns the watermarks that the driver is told, when they differ from those before.
    fn next_advance(&mut self) -> Option<Action> {
        let mut marks = self.decided;
        let is_durable = |frame: &&Frame| frame.status == Status::Synced;
        let is_written =
            |frame: &&Frame| !matches!(frame.status, Status::Sealed | Status::InFlight { .. });
        if planted(Mutant::DsyncCoversBelow)
            && self.frames.iter().any(|f| is_durable(&f) && f.closed.end <= marks.written)
        {
            self.overshot = self.overshot.max(marks.written);
        }
        if skip(Failpoint::ContiguousWatermark) {
            let last = self.frames.iter().rfind(is_durable);
            self.overshot = last.map_or(self.overshot, |frame| frame.closed.end.max(self.overshot));
            let last = self.frames.iter().rfind(is_written);
            marks.written = last.map_or(marks.written, |frame| frame.closed.end);
        }
        if planted(Mutant::BoundIgnored) {
            marks.balanced = marks.written;
        }
        marks.synced = marks.synced.max(self.overshot);
        if let Some(late) = self.late_sync {
            marks.synced = marks.synced.min(late.synced);
        }
        // Watermarks that go back are another mutant.
        marks.written = marks.written.max(self.told.written).max(marks.synced);
        marks.balanced = marks.balanced.max(self.told.balanced);
        marks.synced = marks.synced.max(self.told.synced);
        (std::mem::replace(&mut self.told, marks) != marks).then_some(Action::Advance(marks))
    }
}

/// The failpoint of what makes a frame of this kind durable.
fn failpoint(kind: FrameKind, of_data: Failpoint) -> Failpoint {
    match kind {
        FrameKind::Data => of_data,
        FrameKind::DurableMark => Failpoint::MarkSync,
        FrameKind::CleanShutdown | FrameKind::SegmentEnd => Failpoint::CloseSealSync,
    }
}

impl Deref for Core {
    type Target = core::Core;

    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

impl DerefMut for Core {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.core
    }
}
