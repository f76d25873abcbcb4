//! When a segment is synced, and which frames that makes durable: those alone whose write
//! had completed when the sync was submitted.

use super::frames::{Status, Unsynced};
use super::{Action, Core, Op};
use bulla_storage::SegmentNumber;

impl Core {
    /// Starts a sync of the lowest segment that needs one and can have it.
    pub(super) fn next_sync(&mut self, bounds_only: bool) -> Option<Action> {
        let requested = self.requested_synced();
        let bytes = self.marks.written.distance_from(self.marks.synced);
        let entries = self.unsynced_entries();
        let index = self.segments.iter().position(|segment| {
            let unsynced = &segment.unsynced;
            if unsynced.frames == 0 || segment.syncing.is_some() {
                return false;
            }
            if entries >= self.config.balanced_entries
                || bytes >= self.config.balanced_max_unsynced / 2
                || unsynced.due <= self.now
            {
                return true;
            }
            // Waiters' demand: let the writes that they wait for land first, so that one
            // sync does for all of them.
            !bounds_only
                && (segment.end.is_some()
                    || (unsynced.lowest < requested && !self.demanded_in_flight(segment.number)))
        })?;
        let op = self.op();
        let segment = self.segments.get_mut(index)?;
        segment.syncing = Some(op);
        segment.unsynced = Unsynced::NOTHING;
        let number = segment.number;
        for state in self.frames.iter_mut().filter(|state| state.frame.segment == number) {
            if state.status == (Status::Written { covered: None }) {
                state.status = Status::Written { covered: Some(op) };
            }
        }
        Some(Action::Sync { op, segment: number })
    }

    /// Returns whether a plain write for which a sync is requested is in flight to this segment.
    pub(super) fn demanded_in_flight(&self, number: SegmentNumber) -> bool {
        let requested = self.requested_synced();
        // What is below the watermark is written: only the last frames, at most the depth and
        // those completed out of order, can be in flight.
        self.segments.iter().any(|s| s.number == number && s.plain_in_flight > 0)
            && self.frames.range(self.written_frames..).any(|state| {
                state.frame.segment == number
                    && state.frame.start < requested
                    && state.status == (Status::InFlight { dsync: false })
            })
    }

    /// Returns whether a plain frame in the same segment needs a sync of the file anyway.
    pub(super) fn has_plain_below(&self, index: usize) -> bool {
        let segment = self.frames.get(index).map(|state| state.frame.segment);
        self.segments
            .iter()
            .any(|s| Some(s.number) == segment && (s.plain_in_flight > 0 || s.unsynced.frames > 0))
    }

    pub(super) fn write_completed(&mut self, index: usize) {
        let Some(state) = self.frames.get_mut(index) else { return };
        let Status::InFlight { dsync } = state.status else {
            panic!("a write completed that was not in flight: {state:?}");
        };
        self.writes_in_flight -= 1;
        let number = state.frame.segment;
        if dsync {
            state.status = Status::Synced;
            return;
        }
        state.status = Status::Written { covered: None };
        let state = *state;
        if let Some(segment) = self.segments.iter_mut().find(|s| s.number == number) {
            segment.plain_in_flight -= 1;
            segment.unsynced.add(&state);
        }
    }

    pub(super) fn sync_completed(&mut self, index: usize, op: Op) {
        for state in &mut self.frames {
            if state.status == (Status::Written { covered: Some(op) }) {
                state.status = Status::Synced;
            }
        }
        if let Some(segment) = self.segments.get_mut(index) {
            segment.syncing = None;
        }
    }
}
