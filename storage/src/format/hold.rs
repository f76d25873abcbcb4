//! A hold's file: from where on a log is kept, and how much that may be.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{Structure, structure};
use super::sector::{self, HeaderStart};
use super::{FormatError, LogId, VERSION};
use crate::position::{Lsn, SegmentNumber};

const HOLD_MAGIC: [u8; 8] = *b"BULLAHLD";

/// Length of a hold's file.
pub const HOLD_LEN: usize = size_of::<HoldFile>();

const _: () = assert!(HOLD_LEN == 96);
const _: () = assert!(
    offset_of!(HoldFile, crc) == offset_of!(HeaderStart, crc)
        && offset_of!(HoldFile, version) == offset_of!(HeaderStart, version)
);

/// What a hold's file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldRecord {
    /// Which log it is of.
    pub log_id: LogId,
    /// The first position that is kept.
    pub lsn: Lsn,
    /// The segment that holds it; [`SegmentNumber::MAX`] when the position alone counts.
    pub segment: SegmentNumber,
    /// Bytes of log that it may keep.
    pub quota_bytes: u64,
    /// When it was taken, in ns since 1970.
    pub taken_ns: u64,
    /// When it was broken, in ns since 1970; 0 while it holds.
    pub broken_ns: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HoldFile {
    magic: [u8; 8],
    /// Over everything after this field.
    crc: U32,
    version: U32,
    log_id: [u8; 16],
    lsn: U64,
    segment: U64,
    quota_bytes: U64,
    taken_ns: U64,
    broken_ns: U64,
    reserved: [u8; 24],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const HOLD_FILE: Structure = structure!(HoldFile {
    magic,
    crc,
    version,
    log_id,
    lsn,
    segment,
    quota_bytes,
    taken_ns,
    broken_ns,
    reserved
});

impl HoldRecord {
    /// Returns the bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut file = HoldFile {
            magic: HOLD_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            log_id: self.log_id.0,
            lsn: self.lsn.0.into(),
            segment: self.segment.0.into(),
            quota_bytes: self.quota_bytes.into(),
            taken_ns: self.taken_ns.into(),
            broken_ns: self.broken_ns.into(),
            reserved: [0; 24],
        };
        file.crc = sector::covered_crc(file.as_bytes()).into();
        file.as_bytes().to_vec()
    }

    /// Decodes the bytes of a whole file.
    ///
    /// # Errors
    /// Any [`FormatError`]. `Version` means that the file is intact.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let file = HoldFile::read_from_bytes(bytes).map_err(|_| FormatError::TooShort)?;
        sector::check_whole(bytes, HOLD_MAGIC)?;
        if file.segment.get() == 0 {
            return Err(FormatError::Field("segment"));
        }
        if file.reserved != [0; 24] {
            return Err(FormatError::Reserved);
        }
        Ok(Self {
            log_id: LogId(file.log_id),
            lsn: Lsn(file.lsn.get()),
            segment: SegmentNumber(file.segment.get()),
            quota_bytes: file.quota_bytes.get(),
            taken_ns: file.taken_ns.get(),
            broken_ns: file.broken_ns.get(),
        })
    }
}
