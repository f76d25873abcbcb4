//! What the core is told: time, requests, frames, completions.

use super::frames::{FrameState, SegmentState, Status};
use super::{Core, Nanos, Op, Phase};
use crate::ring::{Closed, Tail};
use bulla_storage::format::FrameKind;
use bulla_storage::{Lsn, Seq};

impl Core {
    /// Takes note of the time, and of the ring's tail, which may have moved.
    pub(crate) fn tick(&mut self, now: Nanos, tail: Tail) {
        // While the flusher slept nobody polled: what is unsealed is as new as its wake-up.
        if tail.end <= self.sealed || tail.after_sleep {
            self.idle_since = now;
        }
        self.now = now;
        self.tail = tail;
        self.is_used |= tail.end > self.sealed;
    }

    /// Takes note that somebody waits for the positions below these to be written, or synced.
    pub(crate) fn request(&mut self, written: Lsn, synced: Lsn) {
        self.requested_written = self.requested_written.max(written);
        self.requested_synced = self.requested_synced.max(synced);
    }

    /// Takes over a frame that left the ring; returns the operation that will write it.
    pub(crate) fn sealed(&mut self, frame: Closed) -> Op {
        assert_eq!(frame.start, self.sealed, "frames are contiguous");
        assert!(frame.end > frame.start, "a frame has a length");
        assert!(
            self.next_seq.is_none_or(|next| next == frame.first_seq),
            "the numbers of entries are contiguous: {frame:?} after {:?}",
            self.next_seq
        );
        let op = self.op();
        let interval =
            if frame.relaxed { self.config.sync_interval } else { self.config.balanced_interval };
        let due = match frame.kind {
            FrameKind::Data => self.idle_since.saturating_add(interval),
            // Nothing gathers behind a durable mark or a clean shutdown.
            _ => self.now,
        };
        if self.flush_due() < self.now && frame.kind == FrameKind::Data {
            self.late_by = self.late_by.max(self.now - self.flush_due());
        }
        self.sealed = frame.end;
        self.next_seq = Some(Seq(frame.first_seq.0 + u64::from(frame.entries)));
        let requested = self.requested_written.max(self.requested_synced());
        if self.tail.closed == 0 && frame.start < requested {
            self.groups.push((op, frame.entries));
        }
        self.tail.closed = self.tail.closed.saturating_sub(1);
        if self.tail.end <= self.sealed {
            self.tail.end = self.sealed;
            self.idle_since = self.now;
        }
        if frame.kind == FrameKind::Data {
            self.last_work = self.now;
        }
        self.enter_segment_of(&frame);
        let durable_lsn = self.marks.synced;
        self.frames.push_back(FrameState { op, frame, status: Status::Queued, due, durable_lsn });
        op
    }

    fn enter_segment_of(&mut self, frame: &Closed) {
        if self.segments.back().is_some_and(|last| last.number == frame.segment) {
            return;
        }
        assert_eq!(frame.base, frame.start, "a segment begins with its first frame");
        if let Some(last) = self.segments.back_mut() {
            assert!(last.number < frame.segment, "segments are used in order");
            last.end = Some(frame.base);
        }
        self.segments.push_back(SegmentState::new(frame.segment));
        self.spares = self.spares.saturating_sub(1);
    }

    /// Takes note that there was no room for the empty frame that was asked for.
    pub(crate) fn no_room_for(&mut self, kind: FrameKind) {
        if kind == FrameKind::CleanShutdown {
            self.phase = Phase::Closed;
        }
        // A durable mark waits for the next segment: nothing else goes into this one either.
        self.mark_wanted |= kind == FrameKind::DurableMark;
    }

    /// Takes note that an entry was appended before the empty frame that was asked for.
    pub(crate) fn entry_before(&mut self, kind: FrameKind) {
        assert!(kind == FrameKind::DurableMark, "nothing is appended to a log that closes");
        self.mark_pending = false;
    }

    /// Has the durable mark written as soon as everything is durable, without waiting for an
    /// idle moment.
    pub(crate) fn request_mark(&mut self) {
        self.mark_wanted = true;
    }

    /// Takes note that an operation completed well.
    pub(crate) fn completed(&mut self, op: Op) {
        if self.phase == Phase::Failed {
            return;
        }
        self.groups.retain(|(group, _)| *group != op);
        if let Ok(index) = self.frames.binary_search_by_key(&op, |state| state.op) {
            self.write_completed(index);
        } else if let Some(index) = self.segments.iter().position(|s| s.syncing == Some(op)) {
            self.sync_completed(index, op);
        } else {
            let index = self.segments.iter().position(|s| s.sealing == Some(op));
            // The segment's end mark is in place: the segment is done.
            let done = index.and_then(|index| self.segments.remove(index));
            assert!(done.is_some(), "{op:?} completed, which was not in flight");
        }
        self.advance();
    }

    /// Stops everything for good: no watermark advances any more.
    pub(crate) fn fail(&mut self) {
        self.phase = Phase::Failed;
    }

    /// Takes note that a segment was made ready.
    pub(crate) fn spare_ready(&mut self) {
        if self.is_idle() {
            // No durable mark is on its way: it may have waited for this segment.
            self.mark_pending = false;
        }
        self.spares += 1;
        self.preparing = false;
    }

    /// Takes note that a segment could not be made; none is asked for before
    /// [`space`](Self::space).
    pub(crate) fn spare_failed(&mut self) {
        self.preparing = false;
        self.prepare_blocked = true;
    }

    /// Takes note that there may be space again.
    pub(crate) fn space(&mut self) {
        self.prepare_blocked = false;
    }

    /// Begins to close: everything is made durable, then the log is marked as shut down cleanly.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Closing;
        }
    }
}
