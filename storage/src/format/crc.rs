//! Checksums: CRC-32 (IEEE), seeded for frames, over whole sectors for headers of files.

use super::{FormatError, LogId};
use crate::faults;
use crate::position::{Epoch, SegmentNumber};

/// Bytes that the CRC of CONTROL and of a segment header do not cover: magic and CRC.
pub(super) const CRC_START: usize = 12;

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

/// Returns the part of a sector that its CRC covers: all but magic and CRC.
pub(super) fn covered_sector(bytes: &[u8], sector: u32) -> Result<&[u8], FormatError> {
    let sector = usize::try_from(sector).map_err(|_| FormatError::TooShort)?;
    bytes.get(CRC_START..sector).ok_or(FormatError::TooShort)
}

/// Returns the CRC of a sector made of `parts` and zeros, without magic and CRC.
pub(super) fn sector_crc(parts: &[&[u8]], sector: u32) -> u32 {
    let bytes = padded(parts, sector);
    crc32fast::hash(bytes.get(CRC_START..).unwrap_or(&[]))
}

pub(super) fn padded(parts: &[&[u8]], sector: u32) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(usize::try_from(sector).unwrap_or(bytes.len()), 0);
    bytes
}
