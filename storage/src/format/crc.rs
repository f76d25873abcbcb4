//! The checksum of frames: CRC-32 (IEEE) with a seed. That of headers is in `sector`.

use super::LogId;
use crate::faults;
use crate::position::{Epoch, SegmentNumber};

/// What frame CRCs start from, so that a frame is valid only where it was written:
/// in this log, this segment, this epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u32);

impl Seed {
    /// Returns the seed for the frames of one segment.
    #[must_use]
    pub fn new(log_id: LogId, number: SegmentNumber, epoch: Epoch, nonce: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log_id.0);
        hasher.update(&number.0.to_le_bytes());
        hasher.update(&epoch.0.to_le_bytes());
        hasher.update(&nonce.to_le_bytes());
        Self(hasher.finalize())
    }

    /// Returns the CRC of a frame's body, which is passed in pieces, padding included.
    #[must_use]
    pub fn body_crc(self, pieces: &[&[u8]]) -> u32 {
        let mut hasher = self.hasher();
        for piece in pieces {
            hasher.update(faults::format::covered(piece));
        }
        hasher.finalize()
    }

    /// Returns a hasher that computes a body's CRC piece by piece.
    #[must_use]
    pub fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.0)
    }
}
