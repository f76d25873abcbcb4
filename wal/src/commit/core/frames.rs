//! Which frames and segments are on their way, and how far each of them is.

use super::actions::{Nanos, Op};
use crate::ring::Closed;
use bulla_storage::{Lsn, SegmentNumber};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
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
pub(super) struct FrameState {
    pub(super) op: Op,
    pub(super) frame: Closed,
    pub(super) status: Status,
    /// A sync of it starts by then.
    pub(super) due: Nanos,
    /// The durable mark in its header.
    pub(super) durable_lsn: Lsn,
}

/// A segment with frames that are not synced, or whose end mark is not written.
#[derive(Clone, Debug)]
pub(super) struct SegmentState {
    pub(super) number: SegmentNumber,
    /// Where it ended, once there are frames in its successor.
    pub(super) end: Option<Lsn>,
    /// The write of its end mark in flight.
    pub(super) sealing: Option<Op>,
    /// The sync in flight; at most one.
    pub(super) syncing: Option<Op>,
    /// Plain writes of frames in flight.
    pub(super) plain_in_flight: usize,
    /// Written, not synced, not covered by a sync in flight.
    pub(super) unsynced: Unsynced,
}

/// Frames that the next sync of a segment is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsynced {
    pub(super) frames: usize,
    /// Those of frames that are not all Relaxed.
    pub(super) entries: u64,
    pub(super) lowest: Lsn,
    pub(super) due: Nanos,
}

impl SegmentState {
    pub(super) const fn new(number: SegmentNumber) -> Self {
        Self {
            number,
            end: None,
            sealing: None,
            syncing: None,
            plain_in_flight: 0,
            unsynced: Unsynced::NOTHING,
        }
    }
}

impl Unsynced {
    pub(super) const NOTHING: Self =
        Self { frames: 0, entries: 0, lowest: Lsn::MAX, due: Nanos::MAX };

    pub(super) fn add(&mut self, state: &FrameState) {
        self.frames += 1;
        self.entries += state.frame.bounded_entries();
        self.lowest = self.lowest.min(state.frame.start);
        self.due = self.due.min(state.due);
    }
}
