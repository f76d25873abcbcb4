//! Frames as they leave the ring, and what the commit core must know of it.

use bulla_storage::format::FrameKind;
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};

/// A frame whose bounds are final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    pub(crate) kind: FrameKind,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) body_len: u32,
    pub(crate) first_seq: Seq,
    pub(crate) entries: u32,
    /// The segment in which its place is, and the LSN of that segment's first frame.
    pub(crate) segment: SegmentNumber,
    pub(crate) base: Lsn,
    /// All entries are Relaxed.
    pub(crate) relaxed: bool,
}

impl Closed {
    /// Entries that count against the bound of Balanced.
    pub(crate) fn bounded_entries(&self) -> u64 {
        if self.relaxed { 0 } else { u64::from(self.entries) }
    }
}

/// What a frame's header says that the ring does not know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Everything below it is durable.
    pub(crate) durable_lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) wall_ns: u64,
    /// The CRC of the frame before.
    pub(crate) prev_crc: u32,
}

/// What the commit core must know of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tail {
    /// The end of everything appended, in whole frames.
    pub(crate) end: Lsn,
    /// Frames whose bounds are final and that nobody took yet.
    pub(crate) closed: usize,
    /// An append found no room since the last poll.
    pub(crate) pressed: bool,
    /// An append woke the flusher since the last poll.
    pub(crate) after_sleep: bool,
}
