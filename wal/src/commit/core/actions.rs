//! What passes between the core and those who drive it.

use bulla_storage::format::FrameKind;
use bulla_storage::{Lsn, SegmentNumber};

/// Nanoseconds of the log's monotonic clock.
pub(crate) type Nanos = u64;

/// What the core must know of the options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Writes can be durable by themselves (direct segments, DSYNC).
    pub(crate) write_through: bool,
    /// Writes in flight at once.
    pub(crate) depth: usize,
    pub(crate) flush_interval: Nanos,
    pub(crate) sync_interval: Nanos,
    pub(crate) balanced_interval: Nanos,
    pub(crate) balanced_entries: u64,
    pub(crate) balanced_max_unsynced: u64,
    pub(crate) idle_mark: Nanos,
    /// Segments kept ready.
    pub(crate) spares: usize,
}

/// Identifies an operation of the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Op(pub(crate) u64);

/// What the driver must do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Take the next frame out of the ring; answer with `Core::sealed`.
    Seal,
    /// Take a frame without entries; answer with `Core::sealed`, with `Core::no_room_for` when
    /// there is no room for it, or with `Core::entry_before` and a new `Core::tick`.
    SealEmpty(FrameKind),
    /// Write the frame that was sealed as `op`; answer with `Core::completed`.
    Write { op: Op, dsync: bool },
    /// Sync a segment; answer with `Core::completed`.
    Sync { op: Op, segment: SegmentNumber },
    /// Write the end mark of a segment that ends at `end`; answer with `Core::completed`.
    SealSegment { op: Op, segment: SegmentNumber, end: Lsn },
    /// Make another segment ready; answer with `Core::spare_ready` or
    /// `Core::spare_failed`, now or later.
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
