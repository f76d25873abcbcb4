//! A segment and what its file holds.

use bulla_recovery::{SegmentBytes, SegmentReport};

/// What was measured of one segment.
pub(super) struct Measured<'a> {
    pub(super) segment: &'a SegmentReport,
    pub(super) bytes: SegmentBytes,
    /// Bytes that the file takes on the disk.
    pub(super) allocated: u64,
}

impl Measured<'_> {
    /// Returns the length of the file, the sum of its parts.
    pub(super) const fn file_len(&self) -> u64 {
        let SegmentBytes { header, live, dead, torn, unread, zero } = self.bytes;
        header + live + dead + torn + unread + zero
    }
}
