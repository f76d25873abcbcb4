//! How far everything is written and durable, and what of it is acknowledged.

use super::frames::{FrameState, Status};
use super::{Action, Core};
use bulla_storage::Lsn;
use bulla_storage::format::FrameKind;

impl Core {
    /// Moves the watermarks over the frames that are done, as far as there is no gap.
    pub(super) fn advance(&mut self) {
        while let Some(state) = self.frames.get(self.written_frames) {
            if !matches!(state.status, Status::Written { .. } | Status::Synced) {
                break;
            }
            assert_eq!(state.frame.start, self.marks.written, "what is written is contiguous");
            self.marks.written = state.frame.end;
            self.written_frames += 1;
        }
        while let Some(state) = self.frames.front().filter(|s| s.status == Status::Synced) {
            let FrameState { frame, durable_lsn, .. } = *state;
            assert_eq!(frame.start, self.marks.synced, "what is durable is contiguous");
            self.marks.synced = frame.end;
            self.persisted_mark = self.persisted_mark.max(durable_lsn);
            if frame.kind == FrameKind::DurableMark {
                self.durable_mark = frame.end;
                self.mark_pending = false;
            }
            self.frames.pop_front();
            self.written_frames -= 1;
        }
        assert!(self.marks.synced <= self.marks.written, "what is durable is written");
        assert!(self.marks.written <= self.sealed, "what is written was sealed");
    }

    /// Publishes watermarks that moved.
    pub(super) fn next_advance(&mut self) -> Option<Action> {
        let bound = Lsn(self.marks.synced.0.saturating_add(self.config.balanced_max_unsynced));
        self.marks.balanced = self.marks.written.min(bound);
        if self.unsynced_entries() >= self.config.balanced_entries {
            // A sync must start first, and waits for the one that is on its way.
            self.marks.balanced = self.published.balanced;
        }
        if self.marks == self.published {
            return None;
        }
        let (from, to) = (self.published, self.marks);
        assert!(to.written >= from.written && to.synced >= from.synced, "{from:?} to {to:?}");
        assert!(to.balanced >= from.balanced && to.balanced <= to.written, "{from:?} to {to:?}");
        self.published = to;
        Some(Action::Advance(self.marks))
    }
}
