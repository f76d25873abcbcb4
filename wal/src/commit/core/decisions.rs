//! When to seal, write, prepare, mark and close.

use super::frames::Status;
use super::{Action, Core, MAX_UNSYNCED_SEGMENTS, Nanos, Phase};
use crate::ring::Closed;
use bulla_storage::SegmentNumber;
use bulla_storage::format::FrameKind;

impl Core {
    pub(super) fn next_write(&mut self) -> Option<Action> {
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
        assert!(self.segments.len() <= MAX_UNSYNCED_SEGMENTS, "{:?}", self.segments);
        let dsync = self.config.write_through
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
        frame.kind != FrameKind::Data || frame.start < self.requested_synced() || due <= self.now
    }

    fn unsynced_segments_before(&self, number: SegmentNumber) -> usize {
        self.segments.iter().filter(|segment| segment.number < number).count()
    }

    pub(super) fn next_seal(&mut self) -> Option<Action> {
        if self.tail.end <= self.sealed
            || self.writes_in_flight >= self.config.depth
            || self.frames.back().is_some_and(|state| state.status == Status::Queued)
        {
            return None;
        }
        let due = self.flush_due() <= self.now;
        let wanted = self.may_close_group()
            && self.requested_written.max(self.requested_synced()) > self.sealed;
        // Without DSYNC the waiters' sync comes next; what is appended meanwhile waits
        // for the group after it.
        let hold = !self.config.write_through
            && !due
            && self.segments.iter().any(|s| s.plain_in_flight > 0)
            && self.segments.iter().any(|s| self.demanded_in_flight(s.number));
        ((wanted && !hold) || due || self.tail.closed > 0 || self.tail.pressed)
            .then_some(Action::Seal)
    }

    /// Returns whether another frame may be closed just because somebody waits for it. While
    /// one such group is on its way the next one gathers, to share a sync. Only two lone entries
    /// are better off side by side: the disk does both in less time than one after the
    /// other, and there is nobody to share with.
    fn may_close_group(&self) -> bool {
        match self.groups[..] {
            [] => true,
            [(_, 1)] => self.config.write_through,
            _ => false,
        }
    }

    pub(super) fn next_seal_of_segment(&mut self) -> Option<Action> {
        let synced = self.marks.synced;
        let index = self.segments.iter().position(|segment| {
            segment.sealing.is_none() && segment.end.is_some_and(|end| end <= synced)
        })?;
        let op = self.op();
        let segment = self.segments.get_mut(index)?;
        segment.sealing = Some(op);
        let (number, end) = (segment.number, segment.end?);
        let unsynced = self.frames.iter().any(|state| state.frame.segment == number);
        assert!(!unsynced, "all of a segment is durable before its end mark says so");
        Some(Action::SealSegment { op, segment: number, end })
    }

    pub(super) fn next_prepare(&mut self) -> Option<Action> {
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

    pub(super) fn mark_is_due_later(&self) -> bool {
        self.phase == Phase::Running
            && !self.mark_pending
            && self.is_idle()
            && (self.durable_mark < self.marks.synced
                || (self.mark_wanted && self.persisted_mark < self.marks.synced))
    }

    pub(super) fn next_mark(&mut self) -> Option<Action> {
        let idle = self.last_work.saturating_add(self.config.idle_mark) <= self.now;
        if !self.mark_is_due_later() || !(idle || self.mark_wanted) {
            return None;
        }
        self.mark_pending = true;
        self.mark_wanted = false;
        Some(Action::SealEmpty(FrameKind::DurableMark))
    }

    pub(super) fn next_close(&mut self) -> Option<Action> {
        if !self.is_idle() || self.segments.len() > 1 {
            return None;
        }
        match self.phase {
            Phase::Closing => {
                self.phase = Phase::Sealing;
                Some(Action::SealEmpty(FrameKind::CleanShutdown))
            }
            Phase::Sealing => {
                self.phase = Phase::Closed;
                None
            }
            _ => None,
        }
    }
}
