//! What a repair changed, so that it can be undone: the file that names its copies.
//!
//! `RepairHeader`, and a `RepairPart` for each segment from the low-water mark on.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{Structure, structure};
use super::sector::{self, HeaderStart};
use super::{FormatError, LogId, MAX_START, VERSION};
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

const REPAIR_MAGIC: [u8; 8] = *b"BULLAREP";
/// `to_len` of a segment that the repair removed or replaced.
const GONE: u64 = u64::MAX;

/// The longest such file: of more than a million segments.
pub const MAX_REPAIR_LEN: u64 = 64 * 1024 * 1024;

const _: () = assert!(size_of::<RepairHeader>() == 80);
const _: () = assert!(size_of::<RepairPart>() == 32);
const _: () = assert!(
    offset_of!(RepairHeader, crc) == offset_of!(HeaderStart, crc)
        && offset_of!(RepairHeader, version) == offset_of!(HeaderStart, version)
);

/// What a repair changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepairRecord {
    /// Which log it is of.
    pub log_id: LogId,
    /// The epoch that the repair began.
    pub epoch: Epoch,
    /// Where it cut the log.
    pub cut_at: Lsn,
    /// The number of the next entry after the repair.
    pub next_seq: Seq,
    /// Length of CONTROL before.
    pub control_len: u64,
    /// CRC of that.
    pub control_crc: u32,
    /// CRC of the names and lengths of the log's checkpoints and holds.
    pub folders_crc: u32,
    /// The segments from the low-water mark on, in order of number.
    pub segments: Vec<RepairedSegment>,
}

/// What a repair did to a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairedSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// Bytes of its file before.
    pub from_len: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a segment in a repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was left as it was.
    Left,
    /// It was shortened.
    Cut {
        /// Bytes of its file after.
        to_len: u64,
        /// CRC of the whole file before, of which there is a copy.
        crc: u32,
    },
    /// It was removed, or replaced.
    Gone {
        /// CRC of the whole file before, of which there is a copy.
        crc: u32,
    },
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RepairHeader {
    magic: [u8; 8],
    /// Over the whole file after this field.
    crc: U32,
    version: U32,
    log_id: [u8; 16],
    cut_at: U64,
    next_seq: U64,
    control_len: U64,
    control_crc: U32,
    folders_crc: U32,
    epoch: U32,
    segment_count: U32,
    reserved: [u8; 8],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const REPAIR_HEADER: Structure = structure!(RepairHeader {
    magic,
    crc,
    version,
    log_id,
    cut_at,
    next_seq,
    control_len,
    control_crc,
    folders_crc,
    epoch,
    segment_count,
    reserved
});

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct RepairPart {
    number: U64,
    from_len: U64,
    to_len: U64,
    crc: U32,
    reserved: [u8; 4],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const REPAIR_PART: Structure =
    structure!(RepairPart { number, from_len, to_len, crc, reserved });

impl RepairRecord {
    /// Returns the bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut header = RepairHeader {
            magic: REPAIR_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            log_id: self.log_id.0,
            cut_at: self.cut_at.0.into(),
            next_seq: self.next_seq.0.into(),
            control_len: self.control_len.into(),
            control_crc: self.control_crc.into(),
            folders_crc: self.folders_crc.into(),
            epoch: self.epoch.0.into(),
            segment_count: u32::try_from(self.segments.len()).unwrap_or(u32::MAX).into(),
            reserved: [0; 8],
        };
        let parts = self.segments.iter().map(|segment| {
            let (to_len, crc) = match segment.fate {
                Fate::Left => (segment.from_len, 0),
                Fate::Cut { to_len, crc } => (to_len, crc),
                Fate::Gone { crc } => (GONE, crc),
            };
            RepairPart {
                number: segment.number.0.into(),
                from_len: segment.from_len.into(),
                to_len: to_len.into(),
                crc: crc.into(),
                reserved: [0; 4],
            }
        });
        let parts: Vec<_> = parts.collect();
        let parts = parts.as_bytes();
        header.crc = sector::covered_crc(&[header.as_bytes(), parts].concat()).into();
        [header.as_bytes(), parts].concat()
    }

    /// Decodes the bytes of a whole file.
    ///
    /// # Errors
    /// Any [`FormatError`]. `Version` means that the file is intact.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, rest) =
            RepairHeader::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
        sector::check_whole(bytes, REPAIR_MAGIC)?;
        if header.reserved != [0; 8] {
            return Err(FormatError::Reserved);
        }
        let (cut_at, next_seq) = (header.cut_at.get(), header.next_seq.get());
        if cut_at > MAX_START || next_seq == 0 || next_seq > MAX_START || header.epoch.get() == 0 {
            return Err(FormatError::Field("position"));
        }
        let count = usize::try_from(header.segment_count.get());
        let count = count.map_err(|_| FormatError::TooShort)?;
        let (parts, rest) = <[RepairPart]>::ref_from_prefix_with_elems(rest, count)
            .map_err(|_| FormatError::TooShort)?;
        if !rest.is_empty() {
            return Err(FormatError::Field("segment_count"));
        }
        Ok(Self {
            log_id: LogId(header.log_id),
            epoch: Epoch(header.epoch.get()),
            cut_at: Lsn(cut_at),
            next_seq: Seq(next_seq),
            control_len: header.control_len.get(),
            control_crc: header.control_crc.get(),
            folders_crc: header.folders_crc.get(),
            segments: decode_parts(parts)?,
        })
    }
}

fn decode_parts(parts: &[RepairPart]) -> Result<Vec<RepairedSegment>, FormatError> {
    let in_order = parts.is_sorted_by(|left, right| left.number.get() < right.number.get());
    let fits = |part: &RepairPart| {
        let (from_len, to_len) = (part.from_len.get(), part.to_len.get());
        (1..=MAX_START).contains(&part.number.get())
            && from_len <= MAX_START
            && (to_len <= from_len || to_len == GONE)
            && part.reserved == [0; 4]
    };
    if !in_order || !parts.iter().all(fits) {
        return Err(FormatError::Field("segments"));
    }
    let segments = parts.iter().map(|part| {
        let (from_len, crc) = (part.from_len.get(), part.crc.get());
        let fate = match part.to_len.get() {
            GONE => Fate::Gone { crc },
            to_len if to_len == from_len => Fate::Left,
            to_len => Fate::Cut { to_len, crc },
        };
        RepairedSegment { number: SegmentNumber(part.number.get()), from_len, fate }
    });
    Ok(segments.collect())
}
