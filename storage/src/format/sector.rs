//! Sectors that begin with a header: the slots of CONTROL, and the first sector of a segment.
//! Each has its magic number, a CRC over everything behind it, and the format version.

use std::mem::size_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{FormatError, VERSION, is_valid_sector};

/// Bytes that the CRC does not cover: magic number and CRC.
const CRC_START: usize = 12;

/// What every header begins with.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HeaderStart {
    pub(super) magic: [u8; 8],
    /// Over the whole sector after this field.
    pub(super) crc: U32,
    pub(super) version: U32,
}

/// Decodes the header `H` of a sector whose CRC and version it checks; `bytes` may be longer.
/// `sector` returns the sector's length as the header states it. Returns the header and the
/// rest of the sector.
pub(super) fn decode<H: FromBytes>(
    bytes: &[u8],
    magic: [u8; 8],
    sector: impl FnOnce(&H) -> u32,
) -> Result<(H, &[u8]), FormatError> {
    let (header, _) = H::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
    let (start, _) = HeaderStart::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
    if start.magic != magic {
        return Err(FormatError::Magic);
    }
    let sector = sector(&header);
    if !is_valid_sector(sector) {
        return Err(FormatError::Field("sector"));
    }
    let bytes = bytes.get(..to_usize(sector)).ok_or(FormatError::TooShort)?;
    check_whole(bytes, magic)?;
    let rest = bytes.get(size_of::<H>()..).ok_or(FormatError::TooShort)?;
    Ok((header, rest))
}

/// Checks magic number, CRC and version of a structure that is all of `bytes`.
pub(super) fn check_whole(bytes: &[u8], magic: [u8; 8]) -> Result<(), FormatError> {
    let (start, _) = HeaderStart::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
    if start.magic != magic {
        return Err(FormatError::Magic);
    }
    if covered_crc(bytes) != start.crc.get() {
        return Err(FormatError::Crc);
    }
    match start.version.get() {
        0 => Err(FormatError::Field("version")),
        1..=VERSION => Ok(()),
        newer => Err(FormatError::Version(newer)),
    }
}

/// Returns the CRC of a sector made of `parts` and zeros, without magic and CRC.
pub(super) fn crc(parts: &[&[u8]], sector: u32) -> u32 {
    covered_crc(&padded(parts, sector))
}

/// Returns a sector made of `parts` and zeros.
pub(super) fn padded(parts: &[&[u8]], sector: u32) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(to_usize(sector), 0);
    bytes
}

/// Returns the CRC of a structure that is all of `bytes`, without magic and CRC.
pub(super) fn covered_crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes.get(CRC_START..).unwrap_or(&[]))
}

/// Converts a sector's length; the target is 64-bit (asserted by the format).
fn to_usize(sector: u32) -> usize {
    usize::try_from(sector).unwrap_or(usize::MAX)
}
