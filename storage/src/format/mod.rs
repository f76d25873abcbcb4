//! The on-disk format, all of it, in one place.
//!
//! Each structure is its own layout: the `repr(C)` structs in these files *are* the bytes
//! (little-endian, no implicit padding), and compile-time assertions pin their
//! sizes. Decoding never trusts a byte before its CRC, never panics and never
//! allocates. This module does no I/O. Golden files in `storage/tests/golden` pin it.
//!
//! ```text
//! DIR/CONTROL      two ControlSlot, SLOT_STRIDE bytes apart
//! DIR/N.seg        one sector: SegmentHeader [EpochStartHeader TruncationRecord*]; then frames
//! frame            FrameHeader, entries, zeros up to a whole sector
//! entry            EntryHeader, payload, zeros up to a multiple of 8
//! DIR/holds/X.hold HoldFile
//! BACKUP/MANIFEST  ManifestHeader SegmentPart* CheckpointPart*; then a path
//! quarantine/*.undo  RepairHeader RepairPart*
//! ```

#![deny(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod content;
mod control;
mod crc;
mod entry;
mod frame;
mod hold;
pub mod layout;
mod manifest;
mod repair;
mod sector;
mod segment;
pub mod tables;

pub use content::Content;
pub use control::{Control, LowWater};
pub use crc::Seed;
pub use entry::{Entries, EntriesAt, Entry, EntryHeader, entry_len};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameKind};
pub use hold::{HOLD_LEN, HoldRecord};
pub use manifest::{
    BackedUpCheckpoint, BackedUpSegment, BackupId, BaseBackup, MAX_MANIFEST_LEN, Manifest,
};
pub use repair::{Fate, MAX_REPAIR_LEN, RepairRecord, RepairedSegment};
pub use segment::{EpochStart, Header, Truncation, max_truncations};

/// The format version that this build writes, and the highest that it reads.
pub const VERSION: u32 = 1;
/// The smallest sector a log can be created with.
pub const MIN_SECTOR: u32 = 512;
/// The largest sector a log can be created with.
pub const MAX_SECTOR: u32 = 16 * 1024;
/// Distance between the two slots of CONTROL: enough for the largest sector.
pub const SLOT_STRIDE: u64 = MAX_SECTOR as u64;
/// Length of the CONTROL file.
pub const CONTROL_LEN: u64 = 2 * SLOT_STRIDE;
/// No frame is longer than this, whatever a header says.
pub const MAX_FRAME_LEN: u64 = 64 * 1024 * 1024;
/// Entry kinds from here on belong to the log; users' kinds are below.
pub const FIRST_INTERNAL_KIND: u16 = 0xFF00;
/// Entries start at multiples of this.
pub const ENTRY_ALIGN: u64 = 8;
/// Bytes of an entry's header.
pub const ENTRY_HEADER_LEN: u64 = 8;
/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: u64 = 64;
/// No log and no epoch starts at a position or number beyond this, so that later appends stay
/// within the range of a frame's header.
pub const MAX_START: u64 = 1 << 62;

/// Compatible features may be ignored by a reader that does not know them.
/// Incompatible ones may not: bit 0 is reserved for "a batch continues in the
/// next frame", bit 1 for the salvage ring. This build knows none.
const KNOWN_INCOMPATIBLE: u64 = 0;

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("Bulla runs on 64-bit little-endian targets only");

/// Why bytes are not a valid structure of this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There are too few bytes.
    #[error("too short")]
    TooShort,
    /// The magic number is not there: never written, or not ours.
    #[error("no magic number")]
    Magic,
    /// The CRC does not match.
    #[error("checksum mismatch")]
    Crc,
    /// The CRC matches, but a field is out of its range.
    #[error("field `{0}` is out of range")]
    Field(&'static str),
    /// A reserved byte is not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// Written by a newer version of the format.
    #[error("format version {0} is newer than {VERSION}")]
    Version(u32),
    /// Uses features that this build does not know.
    #[error("incompatible features {0:#x} are not known to this build")]
    Features(u64),
}

/// Returns whether `sector` is a sector size that a log can have.
#[must_use]
pub const fn is_valid_sector(sector: u32) -> bool {
    sector.is_power_of_two() && sector >= MIN_SECTOR && sector <= MAX_SECTOR
}

/// Returns `len` rounded up to a multiple of `align`, a power of two.
///
/// # Panics
/// On overflow of 64 bits, which lengths bounded by this format never reach.
#[must_use]
pub const fn align_up(len: u64, align: u64) -> u64 {
    // A mask, not a division: this is on the path of every append.
    debug_assert!(align.is_power_of_two());
    match len.checked_add(align - 1) {
        Some(sum) => sum & !(align - 1),
        None => panic!("length overflows"),
    }
}

/// Who a log is: every segment and CONTROL carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl std::fmt::Display for LogId {
    /// Formats it in the usual groups of a UUID.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Returns whether all bytes are zero.
#[must_use]
pub fn all_zero(bytes: &[u8]) -> bool {
    // Eight bytes a step: this runs over whole unused segments.
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
