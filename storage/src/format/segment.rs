//! A segment's first sector: its identity and, in an epoch-start segment, what the epoch
//! takes over.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::Seed;
use super::layout::{Structure, structure};
use super::sector::{self, HeaderStart};
use super::{FormatError, LogId, MAX_START, MIN_SECTOR, VERSION, all_zero};
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

const SEGMENT_MAGIC: [u8; 8] = *b"BULLASEG";
const CHECKSUM_CRC32_IEEE: u32 = 1;
const SEGMENT_STARTS_EPOCH: u32 = 1;

const _: () = assert!(size_of::<SegmentHeader>() == 96);
const _: () = assert!(
    offset_of!(SegmentHeader, crc) == offset_of!(HeaderStart, crc)
        && offset_of!(SegmentHeader, version) == offset_of!(HeaderStart, version)
);
const _: () = assert!(size_of::<EpochStartHeader>() == 32);
const _: () = assert!(size_of::<TruncationRecord>() == 16);
const _: () = assert!(
    size_of::<SegmentHeader>() + size_of::<EpochStartHeader>() + size_of::<TruncationRecord>()
        <= MIN_SECTOR as usize
);

/// A later epoch's truncation: positions of earlier epochs at or above `truncated_at` were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The epoch whose start truncated the log.
    pub epoch: Epoch,
    /// The end of the valid log that the recovery before it found.
    pub truncated_at: Lsn,
}

/// What an epoch-start segment's header says in addition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// LSN of the segment's first frame.
    pub base: Lsn,
    /// Number of the first entry in it.
    pub first_seq: Seq,
    /// The truncation point: from here on readers ignore the bytes of lower epochs.
    pub replaces_from: Lsn,
    /// The end of the prefix that the recovery before this epoch kept; a durable mark.
    pub truncated_at: Lsn,
    /// The newest truncations of earlier epochs above the low-water mark, oldest first, as
    /// many as fit ([`max_truncations`]). The epoch-start segments themselves hold all of them.
    pub truncations: Vec<Truncation>,
}

/// A segment's first sector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which log this is.
    pub log_id: LogId,
    /// The number in the file's name.
    pub number: SegmentNumber,
    /// The epoch that wrote the segment.
    pub epoch: Epoch,
    /// That epoch's nonce.
    pub nonce: u64,
    /// The nonce of segment `number - 1`; 0 for the first segment.
    pub previous_nonce: u64,
    /// Sector size in bytes.
    pub sector: u32,
    /// When it was made, in ns since 1970.
    pub wall_ns: u64,
    /// Present on an epoch-start segment.
    pub epoch_start: Option<EpochStart>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SegmentHeader {
    magic: [u8; 8],
    /// Over the whole sector after this field.
    crc: U32,
    version: U32,
    flags: U32,
    checksum: U32,
    log_id: [u8; 16],
    number: U64,
    epoch: U32,
    sector: U32,
    nonce: U64,
    previous_nonce: U64,
    wall_ns: U64,
    truncation_count: U32,
    reserved: [u8; 12],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const SEGMENT_HEADER: Structure = structure!(SegmentHeader {
    magic,
    crc,
    version,
    flags,
    checksum,
    log_id,
    number,
    epoch,
    sector,
    nonce,
    previous_nonce,
    wall_ns,
    truncation_count,
    reserved
});

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct EpochStartHeader {
    base: U64,
    first_seq: U64,
    replaces_from: U64,
    truncated_at: U64,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const OPENING_HEADER: Structure =
    structure!(EpochStartHeader { base, first_seq, replaces_from, truncated_at });

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct TruncationRecord {
    epoch: U32,
    reserved: U32,
    truncated_at: U64,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const EPOCH_CUT: Structure =
    structure!(TruncationRecord { epoch, reserved, truncated_at });

/// Returns how many earlier truncations fit in the header of an epoch-start segment.
#[must_use]
pub const fn max_truncations(sector: u32) -> usize {
    (sector as usize - size_of::<SegmentHeader>() - size_of::<EpochStartHeader>())
        / size_of::<TruncationRecord>()
}

impl Header {
    /// Returns one whole sector of bytes. If not all truncations fit, the newest are kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let truncations: Vec<TruncationRecord> =
            self.epoch_start.as_ref().map_or_else(Vec::new, |epoch_start| {
                let skip =
                    epoch_start.truncations.len().saturating_sub(max_truncations(self.sector));
                epoch_start
                    .truncations
                    .iter()
                    .skip(skip)
                    .map(|truncation| TruncationRecord {
                        epoch: truncation.epoch.0.into(),
                        reserved: U32::ZERO,
                        truncated_at: truncation.truncated_at.0.into(),
                    })
                    .collect()
            });
        let epoch_start = self.epoch_start.as_ref().map(|epoch_start| EpochStartHeader {
            base: epoch_start.base.0.into(),
            first_seq: epoch_start.first_seq.0.into(),
            replaces_from: epoch_start.replaces_from.0.into(),
            truncated_at: epoch_start.truncated_at.0.into(),
        });
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            flags: if epoch_start.is_some() { SEGMENT_STARTS_EPOCH } else { 0 }.into(),
            checksum: CHECKSUM_CRC32_IEEE.into(),
            log_id: self.log_id.0,
            number: self.number.0.into(),
            epoch: self.epoch.0.into(),
            sector: self.sector.into(),
            nonce: self.nonce.into(),
            previous_nonce: self.previous_nonce.into(),
            wall_ns: self.wall_ns.into(),
            truncation_count: u32::try_from(truncations.len()).unwrap_or(0).into(),
            reserved: [0; 12],
        };
        let epoch_start_bytes =
            epoch_start.as_ref().map_or(&[][..], |epoch_start| epoch_start.as_bytes());
        header.crc = sector::crc(
            &[header.as_bytes(), epoch_start_bytes, truncations.as_bytes()],
            self.sector,
        )
        .into();
        sector::padded(&[header.as_bytes(), epoch_start_bytes, truncations.as_bytes()], self.sector)
    }

    /// Decodes a segment's first sector; `bytes` may be longer.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, tail) =
            sector::decode(bytes, SEGMENT_MAGIC, |header: &SegmentHeader| header.sector.get())?;
        let sector = header.sector.get();
        if header.checksum.get() != CHECKSUM_CRC32_IEEE {
            return Err(FormatError::Field("checksum"));
        }
        if header.flags.get() & !SEGMENT_STARTS_EPOCH != 0 || header.reserved != [0; 12] {
            return Err(FormatError::Reserved);
        }
        let number = header.number.get();
        if number == 0 || number > MAX_START || header.epoch.get() == 0 {
            return Err(FormatError::Field("number or epoch"));
        }
        let truncation_count = usize::try_from(header.truncation_count.get())
            .map_err(|_| FormatError::Field("truncation count"))?;
        let epoch_start = if header.flags.get() & SEGMENT_STARTS_EPOCH == 0 {
            if truncation_count != 0 || !all_zero(tail) {
                return Err(FormatError::Reserved);
            }
            None
        } else {
            Some(decode_epoch_start(tail, truncation_count, sector)?)
        };
        Ok(Self {
            log_id: LogId(header.log_id),
            number: SegmentNumber(header.number.get()),
            epoch: Epoch(header.epoch.get()),
            nonce: header.nonce.get(),
            previous_nonce: header.previous_nonce.get(),
            sector,
            wall_ns: header.wall_ns.get(),
            epoch_start,
        })
    }

    /// Returns the checksum seed of this segment's frames.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed::new(self.log_id, self.number, self.epoch, self.nonce)
    }
}

fn decode_epoch_start(
    tail: &[u8],
    truncation_count: usize,
    sector: u32,
) -> Result<EpochStart, FormatError> {
    let (epoch_start, tail) =
        EpochStartHeader::read_from_prefix(tail).map_err(|_| FormatError::TooShort)?;
    if truncation_count > max_truncations(sector) {
        return Err(FormatError::Field("truncation count"));
    }
    let (truncations, rest) =
        <[TruncationRecord]>::ref_from_prefix_with_elems(tail, truncation_count)
            .map_err(|_| FormatError::Field("truncation count"))?;
    if !all_zero(rest) || truncations.iter().any(|truncation| truncation.reserved.get() != 0) {
        return Err(FormatError::Reserved);
    }
    let sector = u64::from(sector);
    let (base, truncated_at) = (epoch_start.base.get(), epoch_start.truncated_at.get());
    if !base.is_multiple_of(sector) || !truncated_at.is_multiple_of(sector) || truncated_at < base {
        return Err(FormatError::Field("base or truncation point"));
    }
    let first_seq = epoch_start.first_seq.get();
    if truncated_at > MAX_START || first_seq > MAX_START {
        return Err(FormatError::Field("base or first Seq"));
    }
    if epoch_start.replaces_from.get() != base || first_seq == 0 {
        return Err(FormatError::Field("replaces_from or first Seq"));
    }
    Ok(EpochStart {
        base: Lsn(base),
        first_seq: Seq(epoch_start.first_seq.get()),
        replaces_from: Lsn(epoch_start.replaces_from.get()),
        truncated_at: Lsn(truncated_at),
        truncations: truncations
            .iter()
            .map(|truncation| Truncation {
                epoch: Epoch(truncation.epoch.get()),
                truncated_at: Lsn(truncation.truncated_at.get()),
            })
            .collect(),
    })
}
