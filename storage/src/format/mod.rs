//! The on-disk format, all of it, in one place.
//!
//! Each structure is its own layout: the `repr(C)` structs below *are* the bytes
//! (little-endian, no implicit padding), and compile-time assertions pin their
//! sizes. Decoding never trusts a byte before its CRC, never panics and never
//! allocates. This module does no I/O. Golden files in `wal/tests/golden` pin it.
//!
//! ```text
//! DIR/CONTROL      two ControlSlot, SLOT_STRIDE bytes apart
//! DIR/N.seg        one sector: SegmentHeader [OpeningHeader EpochCut*]; then frames
//! frame            FrameHeader, entries, zeros up to a whole sector
//! entry            EntryHeader, payload, zeros up to a multiple of 8
//! ```

#![deny(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::mem::size_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::faults::mutants::{Bug, either};
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

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
/// No log starts, and no epoch opens, at a position or number beyond this: so that what
/// is appended from there on stays within what a frame's header can say.
pub const MAX_START: u64 = 1 << 62;
/// Entries start at multiples of this.
pub const ENTRY_ALIGN: u64 = 8;
/// Bytes of a frame's header, as a length in memory.
pub const FRAME_HEADER_BYTES: usize = size_of::<FrameHeader>();
/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: u64 = FRAME_HEADER_BYTES as u64;
/// Bytes of an entry's header.
pub const ENTRY_HEADER_LEN: u64 = size_of::<EntryHeader>() as u64;

const CONTROL_MAGIC: [u8; 8] = *b"BULLACTL";
const SEGMENT_MAGIC: [u8; 8] = *b"BULLASEG";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"BuFr");
const CHECKSUM_CRC32_IEEE: u32 = 1;
const SEGMENT_OPENS_EPOCH: u32 = 1;
/// Compatible features may be ignored by a reader that does not know them.
/// Incompatible ones may not: bit 0 is reserved for "a batch continues in the
/// next frame", bit 1 for the salvage ring. This build knows none.
const KNOWN_INCOMPATIBLE: u64 = 0;

const _: () = assert!(size_of::<FrameHeader>() == 64);
const _: () = assert!(size_of::<EntryHeader>() == 8);
const _: () = assert!(size_of::<ControlSlot>() == 128);
const _: () = assert!(size_of::<SegmentHeader>() == 96);
const _: () = assert!(size_of::<OpeningHeader>() == 32);
const _: () = assert!(size_of::<EpochCut>() == 16);
const _: () = assert!(
    size_of::<SegmentHeader>() + size_of::<OpeningHeader>() + size_of::<EpochCut>()
        <= MIN_SECTOR as usize
);
#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("Bulla runs on 64-bit little-endian targets only");

/// Why bytes are not a valid structure of this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are too few.
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

/// Is `sector` a sector size that a log can have?
#[must_use]
pub const fn is_valid_sector(sector: u32) -> bool {
    sector.is_power_of_two() && sector >= MIN_SECTOR && sector <= MAX_SECTOR
}

/// `len` rounded up to a multiple of `align`, a power of two.
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

/// Bytes that an entry of `payload_len` takes inside a frame.
#[must_use]
pub const fn entry_len(payload_len: u64) -> u64 {
    align_up(ENTRY_HEADER_LEN + payload_len, ENTRY_ALIGN)
}

/// Who a log is: every segment and CONTROL carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl std::fmt::Display for LogId {
    /// The usual grouping of a UUID.
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

/// Where the live part of the log starts. Segments below it are dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LowWater {
    /// The first live segment.
    pub segment: SegmentNumber,
    /// Its first live position; counts as a promise.
    pub lsn: Lsn,
    /// The number of the first entry at or after `lsn`.
    pub seq: Seq,
    /// Header CRC of the last non-seal frame before `lsn`; 0 when there is none.
    pub chain: u32,
    /// The epoch of that segment.
    pub epoch: Epoch,
    /// Wall time of the last frame before `lsn`, in ns since 1970.
    pub wall_ns: u64,
}

impl LowWater {
    /// The low-water mark of a log that was never purged.
    pub const START: Self = Self {
        segment: SegmentNumber(1),
        lsn: Lsn(0),
        seq: Seq(1),
        chain: 0,
        epoch: Epoch(1),
        wall_ns: 0,
    };
}

/// The contents of one slot of CONTROL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// One more at every write; the slot with the higher one is the newest.
    pub counter: u64,
    /// Which log this is.
    pub log_id: LogId,
    /// Sector size in bytes, fixed when the log is created.
    pub sector: u32,
    /// The newest epoch ever begun.
    pub epoch: Epoch,
    /// Its random nonce.
    pub nonce: u64,
    /// Compatible features, known or not: kept as they were found.
    pub compatible: u64,
    /// Where the live log starts.
    pub low_water: LowWater,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ControlSlot {
    magic: [u8; 8],
    /// Over the whole sector after this field.
    crc: U32,
    version: U32,
    counter: U64,
    log_id: [u8; 16],
    compatible: U64,
    incompatible: U64,
    sector: U32,
    epoch: U32,
    nonce: U64,
    low_segment: U64,
    low_lsn: U64,
    low_seq: U64,
    low_wall_ns: U64,
    low_chain: U32,
    low_epoch: U32,
    reserved: [u8; 16],
}
/// Bytes that the CRC of CONTROL and of a segment header do not cover: magic and CRC.
const UNCOVERED: usize = 12;

impl Control {
    /// The slot that holds this generation: they are written in turn.
    #[must_use]
    pub const fn slot_offset(counter: u64) -> u64 {
        (counter % 2) * SLOT_STRIDE
    }

    /// One whole sector of bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut slot = ControlSlot {
            magic: CONTROL_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            counter: self.counter.into(),
            log_id: self.log_id.0,
            compatible: self.compatible.into(),
            incompatible: U64::ZERO,
            sector: self.sector.into(),
            epoch: self.epoch.0.into(),
            nonce: self.nonce.into(),
            low_segment: self.low_water.segment.0.into(),
            low_lsn: self.low_water.lsn.0.into(),
            low_seq: self.low_water.seq.0.into(),
            low_wall_ns: self.low_water.wall_ns.into(),
            low_chain: self.low_water.chain.into(),
            low_epoch: self.low_water.epoch.0.into(),
            reserved: [0; 16],
        };
        slot.crc = sector_crc(&[slot.as_bytes()], self.sector).into();
        padded(&[slot.as_bytes()], self.sector)
    }

    /// Decodes a slot; `bytes` starts at the slot and may be longer.
    ///
    /// # Errors
    /// Any [`FormatError`]. `Version` and `Features` mean that the slot is intact.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (slot, _) = ControlSlot::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
        if slot.magic != CONTROL_MAGIC {
            return Err(FormatError::Magic);
        }
        let sector = slot.sector.get();
        if !is_valid_sector(sector) {
            return Err(FormatError::Field("sector"));
        }
        let covered = covered_sector(bytes, sector)?;
        if crc32fast::hash(covered) != slot.crc.get() {
            return Err(FormatError::Crc);
        }
        if slot.version.get() > VERSION {
            return Err(FormatError::Version(slot.version.get()));
        }
        if slot.incompatible.get() & !KNOWN_INCOMPATIBLE != 0 {
            return Err(FormatError::Features(slot.incompatible.get()));
        }
        let rest =
            covered.get(size_of::<ControlSlot>() - UNCOVERED..).ok_or(FormatError::TooShort)?;
        if slot.reserved != [0; 16] || !all_zero(rest) {
            return Err(FormatError::Reserved);
        }
        if slot.version.get() == 0 {
            return Err(FormatError::Field("version"));
        }
        if slot.counter.get() > MAX_START {
            return Err(FormatError::Field("counter"));
        }
        let starts = [slot.low_segment.get(), slot.low_seq.get()];
        if starts.iter().any(|start| *start == 0 || *start > MAX_START) || slot.epoch.get() == 0 {
            return Err(FormatError::Field("low-water mark"));
        }
        let low_lsn = slot.low_lsn.get();
        if !low_lsn.is_multiple_of(u64::from(sector)) || low_lsn > MAX_START {
            return Err(FormatError::Field("low-water LSN"));
        }
        Ok(Self {
            counter: slot.counter.get(),
            log_id: LogId(slot.log_id),
            sector,
            epoch: Epoch(slot.epoch.get()),
            nonce: slot.nonce.get(),
            compatible: slot.compatible.get(),
            low_water: LowWater {
                segment: SegmentNumber(slot.low_segment.get()),
                lsn: Lsn(slot.low_lsn.get()),
                seq: Seq(slot.low_seq.get()),
                chain: slot.low_chain.get(),
                epoch: Epoch(slot.low_epoch.get()),
                wall_ns: slot.low_wall_ns.get(),
            },
        })
    }
}

/// A later epoch's cut: positions of earlier epochs at or above `cut_at` were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The epoch whose opening cut the log.
    pub epoch: Epoch,
    /// X of the recovery before it.
    pub cut_at: Lsn,
}

/// What the segment that opens an epoch says besides the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// LSN of the segment's first frame.
    pub base: Lsn,
    /// Number of the first entry in it.
    pub first_seq: Seq,
    /// From here on the bytes of lower epochs are ignored.
    pub supersedes_from: Lsn,
    /// The end of the prefix that the recovery before this epoch kept; a promise.
    pub cut_at: Lsn,
    /// The newest cuts of earlier epochs above the low-water mark, oldest first,
    /// as many as fit ([`max_cuts`]). The openings themselves hold all of them.
    pub cuts: Vec<Cut>,
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
    /// Present on the segment that opens its epoch.
    pub opening: Option<Opening>,
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
    cut_count: U32,
    reserved: [u8; 12],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct OpeningHeader {
    base: U64,
    first_seq: U64,
    supersedes_from: U64,
    cut_at: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct EpochCut {
    epoch: U32,
    reserved: U32,
    cut_at: U64,
}

/// How many earlier cuts fit in the header of an opening segment.
#[must_use]
pub const fn max_cuts(sector: u32) -> usize {
    (sector as usize - size_of::<SegmentHeader>() - size_of::<OpeningHeader>())
        / size_of::<EpochCut>()
}

impl Header {
    /// One whole sector of bytes. Of more cuts than fit, the newest are kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let cuts: Vec<EpochCut> = self.opening.as_ref().map_or_else(Vec::new, |opening| {
            let skip = opening.cuts.len().saturating_sub(max_cuts(self.sector));
            opening
                .cuts
                .iter()
                .skip(skip)
                .map(|cut| EpochCut {
                    epoch: cut.epoch.0.into(),
                    reserved: U32::ZERO,
                    cut_at: cut.cut_at.0.into(),
                })
                .collect()
        });
        let opening = self.opening.as_ref().map(|opening| OpeningHeader {
            base: opening.base.0.into(),
            first_seq: opening.first_seq.0.into(),
            supersedes_from: opening.supersedes_from.0.into(),
            cut_at: opening.cut_at.0.into(),
        });
        let mut header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            flags: if opening.is_some() { SEGMENT_OPENS_EPOCH } else { 0 }.into(),
            checksum: CHECKSUM_CRC32_IEEE.into(),
            log_id: self.log_id.0,
            number: self.number.0.into(),
            epoch: self.epoch.0.into(),
            sector: self.sector.into(),
            nonce: self.nonce.into(),
            previous_nonce: self.previous_nonce.into(),
            wall_ns: self.wall_ns.into(),
            cut_count: u32::try_from(cuts.len()).unwrap_or(0).into(),
            reserved: [0; 12],
        };
        let opening_bytes = opening.as_ref().map_or(&[][..], |opening| opening.as_bytes());
        header.crc =
            sector_crc(&[header.as_bytes(), opening_bytes, cuts.as_bytes()], self.sector).into();
        padded(&[header.as_bytes(), opening_bytes, cuts.as_bytes()], self.sector)
    }

    /// Decodes a segment's first sector; `bytes` may be longer.
    ///
    /// # Errors
    /// Any [`FormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, _) =
            SegmentHeader::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
        if header.magic != SEGMENT_MAGIC {
            return Err(FormatError::Magic);
        }
        let sector = header.sector.get();
        if !is_valid_sector(sector) {
            return Err(FormatError::Field("sector"));
        }
        let covered = covered_sector(bytes, sector)?;
        if crc32fast::hash(covered) != header.crc.get() {
            return Err(FormatError::Crc);
        }
        if header.version.get() > VERSION {
            return Err(FormatError::Version(header.version.get()));
        }
        if header.version.get() == 0 {
            return Err(FormatError::Field("version"));
        }
        if header.checksum.get() != CHECKSUM_CRC32_IEEE {
            return Err(FormatError::Field("checksum"));
        }
        if header.flags.get() & !SEGMENT_OPENS_EPOCH != 0 || header.reserved != [0; 12] {
            return Err(FormatError::Reserved);
        }
        let number = header.number.get();
        if number == 0 || number > MAX_START || header.epoch.get() == 0 {
            return Err(FormatError::Field("number or epoch"));
        }
        let tail =
            covered.get(size_of::<SegmentHeader>() - UNCOVERED..).ok_or(FormatError::TooShort)?;
        let cut_count =
            usize::try_from(header.cut_count.get()).map_err(|_| FormatError::Field("cut count"))?;
        let opening = if header.flags.get() & SEGMENT_OPENS_EPOCH == 0 {
            if cut_count != 0 || !all_zero(tail) {
                return Err(FormatError::Reserved);
            }
            None
        } else {
            Some(decode_opening(tail, cut_count, sector)?)
        };
        Ok(Self {
            log_id: LogId(header.log_id),
            number: SegmentNumber(header.number.get()),
            epoch: Epoch(header.epoch.get()),
            nonce: header.nonce.get(),
            previous_nonce: header.previous_nonce.get(),
            sector,
            wall_ns: header.wall_ns.get(),
            opening,
        })
    }

    /// The checksum seed of this segment's frames.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed::new(self.log_id, self.number, self.epoch, self.nonce)
    }
}

fn decode_opening(tail: &[u8], cut_count: usize, sector: u32) -> Result<Opening, FormatError> {
    let (opening, tail) =
        OpeningHeader::read_from_prefix(tail).map_err(|_| FormatError::TooShort)?;
    if cut_count > max_cuts(sector) {
        return Err(FormatError::Field("cut count"));
    }
    let (cuts, rest) = <[EpochCut]>::ref_from_prefix_with_elems(tail, cut_count)
        .map_err(|_| FormatError::Field("cut count"))?;
    if !all_zero(rest) || cuts.iter().any(|cut| cut.reserved.get() != 0) {
        return Err(FormatError::Reserved);
    }
    let sector = u64::from(sector);
    let (base, cut_at) = (opening.base.get(), opening.cut_at.get());
    if !base.is_multiple_of(sector) || !cut_at.is_multiple_of(sector) || cut_at < base {
        return Err(FormatError::Field("base or cut"));
    }
    let first_seq = opening.first_seq.get();
    if cut_at > MAX_START || first_seq > MAX_START {
        return Err(FormatError::Field("base or first Seq"));
    }
    if opening.supersedes_from.get() != base || first_seq == 0 {
        return Err(FormatError::Field("supersedes_from or first Seq"));
    }
    Ok(Opening {
        base: Lsn(base),
        first_seq: Seq(opening.first_seq.get()),
        supersedes_from: Lsn(opening.supersedes_from.get()),
        cut_at: Lsn(cut_at),
        cuts: cuts
            .iter()
            .map(|cut| Cut { epoch: Epoch(cut.epoch.get()), cut_at: Lsn(cut.cut_at.get()) })
            .collect(),
    })
}

/// What frame CRCs start from, so that a frame is valid only where it was written:
/// in this log, this segment, this epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u32);

impl Seed {
    /// The seed for the frames of one segment.
    #[must_use]
    pub fn new(log_id: LogId, number: SegmentNumber, epoch: Epoch, nonce: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log_id.0);
        hasher.update(&number.0.to_le_bytes());
        hasher.update(&epoch.0.to_le_bytes());
        hasher.update(&nonce.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The CRC of a frame's body, given in pieces, padding included.
    #[must_use]
    pub fn body_crc(self, pieces: &[&[u8]]) -> u32 {
        let mut hasher = self.hasher();
        for piece in pieces {
            let end = piece.len().saturating_sub(either(0, Bug::BodyCrcStopsEarly, 8));
            hasher.update(piece.split_at(end).0);
        }
        hasher.finalize()
    }

    /// A hasher to compute a body's CRC piece by piece.
    #[must_use]
    pub fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.0)
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum FrameKind {
    /// Holds entries.
    Data = 1,
    /// Holds nothing but its promise; one sector.
    Promise = 2,
    /// Ends a segment that has a successor; no LSN length, its LSN is the segment's end.
    SealRotated = 3,
    /// Ends a log that was closed; one sector.
    SealClosed = 4,
}

impl FrameKind {
    const fn from_u16(kind: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Data,
            2 => Self::Promise,
            3 => Self::SealRotated,
            4 => Self::SealClosed,
            _ => return None,
        })
    }

    /// Do later frames chain to this one?
    #[must_use]
    pub const fn is_seal(self) -> bool {
        matches!(self, Self::SealRotated | Self::SealClosed)
    }
}

/// A frame's header, without its CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Bytes of entries, without header and padding.
    pub body_len: u32,
    /// CRC of the body and its padding.
    pub body_crc: u32,
    /// Where the frame starts.
    pub lsn: Lsn,
    /// The durable watermark known when the frame was sealed: everything below it
    /// is on disk, so that damage there is told from a torn tail (the idea is
    /// Pebble's).
    pub promise: Lsn,
    /// Number of the first user entry in it, or that the next one will get.
    pub first_seq: Seq,
    /// How many user entries it holds.
    pub entry_count: u32,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Sealing time in ns since 1970, never below the previous frame's.
    pub wall_ns: u64,
    /// Header CRC of the previous non-seal frame; 0 for the first of a log.
    pub chain: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FrameHeader {
    magic: U32,
    /// Over the rest of the header, seeded.
    crc: U32,
    body_len: U32,
    body_crc: U32,
    lsn: U64,
    promise: U64,
    first_seq: U64,
    entry_count: U32,
    epoch: U32,
    wall_ns: U64,
    chain: U32,
    kind: U16,
    reserved: U16,
}
/// Bytes of a frame header before what its CRC covers.
const FRAME_UNCOVERED: usize = 8;

impl Frame {
    /// Bytes on disk: header, body and padding, in whole sectors.
    #[must_use]
    pub const fn disk_len(&self, sector: u32) -> u64 {
        align_up(FRAME_HEADER_LEN + self.body_len as u64, sector as u64)
    }

    /// Bytes of LSN space: as on disk, but none for a rotated seal.
    #[must_use]
    pub const fn lsn_len(&self, sector: u32) -> u64 {
        match self.kind {
            FrameKind::SealRotated => 0,
            _ => self.disk_len(sector),
        }
    }

    /// The LSN after it.
    #[must_use]
    pub const fn end(&self, sector: u32) -> Lsn {
        self.lsn.plus(self.lsn_len(sector))
    }

    /// The number of the first entry after it.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        Seq(self.first_seq.0.saturating_add(self.entry_count as u64))
    }

    /// The header's bytes, and its CRC: the chain value of the next frame.
    #[must_use]
    pub fn encode(&self, seed: Seed) -> ([u8; FRAME_HEADER_BYTES], u32) {
        let mut header = FrameHeader {
            magic: FRAME_MAGIC.into(),
            crc: U32::ZERO,
            body_len: self.body_len.into(),
            body_crc: self.body_crc.into(),
            lsn: self.lsn.0.into(),
            promise: self.promise.0.into(),
            first_seq: self.first_seq.0.into(),
            entry_count: self.entry_count.into(),
            epoch: self.epoch.0.into(),
            wall_ns: self.wall_ns.into(),
            chain: self.chain.into(),
            kind: (self.kind as u16).into(),
            reserved: U16::ZERO,
        };
        let crc = header_crc(&header, seed);
        header.crc = crc.into();
        (zerocopy::transmute!(header), crc)
    }

    /// Decodes and checks a header: everything that can be checked without knowing
    /// where it was found. Gives the header and its CRC. The caller compares LSN,
    /// Seq, chain and length with what must be there, and the body with its CRC.
    ///
    /// # Errors
    /// Any [`FormatError`] but `Version` and `Features`.
    pub fn decode(
        bytes: &[u8],
        seed: Seed,
        epoch: Epoch,
        sector: u32,
    ) -> Result<(Self, u32), FormatError> {
        let (header, _) =
            FrameHeader::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
        if header.magic.get() != FRAME_MAGIC {
            return Err(FormatError::Magic);
        }
        let crc = header_crc(&header, seed);
        if crc != header.crc.get() {
            return Err(FormatError::Crc);
        }
        if header.reserved.get() != 0 {
            return Err(FormatError::Reserved);
        }
        let kind = FrameKind::from_u16(header.kind.get()).ok_or(FormatError::Field("kind"))?;
        let frame = Self {
            kind,
            body_len: header.body_len.get(),
            body_crc: header.body_crc.get(),
            lsn: Lsn(header.lsn.get()),
            promise: Lsn(header.promise.get()),
            first_seq: Seq(header.first_seq.get()),
            entry_count: header.entry_count.get(),
            epoch: Epoch(header.epoch.get()),
            wall_ns: header.wall_ns.get(),
            chain: header.chain.get(),
        };
        frame.check(epoch, sector)?;
        Ok((frame, crc))
    }

    fn check(&self, epoch: Epoch, sector: u32) -> Result<(), FormatError> {
        let sector = u64::from(sector);
        let body_len = u64::from(self.body_len);
        if self.epoch != epoch {
            return Err(FormatError::Field("epoch"));
        }
        if self.promise > self.lsn || !self.promise.0.is_multiple_of(sector) {
            return Err(FormatError::Field("promise"));
        }
        if !self.lsn.0.is_multiple_of(sector) || self.lsn.0 > u64::MAX - 2 * MAX_FRAME_LEN {
            return Err(FormatError::Field("lsn"));
        }
        if self.first_seq == Seq(0) || self.first_seq.0 > u64::MAX - u64::from(u32::MAX) {
            return Err(FormatError::Field("first Seq"));
        }
        match self.kind {
            FrameKind::Data => {
                if body_len < ENTRY_HEADER_LEN
                    || !body_len.is_multiple_of(ENTRY_ALIGN)
                    || FRAME_HEADER_LEN + body_len > MAX_FRAME_LEN
                    || u64::from(self.entry_count) > body_len / ENTRY_HEADER_LEN
                {
                    return Err(FormatError::Field("body length or entry count"));
                }
            }
            FrameKind::Promise | FrameKind::SealRotated | FrameKind::SealClosed => {
                if body_len != 0 || self.entry_count != 0 {
                    return Err(FormatError::Field("body length or entry count"));
                }
            }
        }
        if self.kind.is_seal() && self.promise != self.lsn {
            return Err(FormatError::Field("promise"));
        }
        Ok(())
    }
}

fn header_crc(header: &FrameHeader, seed: Seed) -> u32 {
    let mut hasher = seed.hasher();
    hasher.update(header.as_bytes().get(FRAME_UNCOVERED..).unwrap_or(&[]));
    hasher.finalize()
}

/// An entry's header inside a frame's body.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct EntryHeader {
    len: U32,
    kind: U16,
    flags: U16,
}

impl EntryHeader {
    /// The header of an entry with a payload of `len` bytes.
    #[must_use]
    pub fn new(len: u32, kind: u16) -> Self {
        Self { len: len.into(), kind: kind.into(), flags: U16::ZERO }
    }
}

/// One entry of a frame's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Where the entry starts.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The kind given by the user.
    pub kind: u16,
    /// The user's bytes.
    pub payload: &'a [u8],
}

/// Iterates over the user entries of a body whose CRC was checked.
///
/// Yields an error once, and then ends, when the body does not hold what its
/// header says: that is damage that the CRC did not see, or a foreign writer.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    lsn: Lsn,
    seq: Seq,
    left: u32,
    failed: bool,
}

/// A place in a body, without the body.
#[derive(Clone, Copy, Debug)]
pub struct EntriesAt {
    /// Where the next entry starts.
    pub lsn: Lsn,
    seq: Seq,
    left: u32,
    left_bytes: usize,
}

impl EntriesAt {
    /// The first entry of `frame`.
    pub fn start(frame: &Frame) -> Self {
        Self {
            lsn: frame.lsn.plus(FRAME_HEADER_LEN),
            seq: frame.first_seq,
            left: frame.entry_count,
            left_bytes: usize::try_from(frame.body_len).unwrap_or(usize::MAX),
        }
    }
}

impl<'a> Entries<'a> {
    /// The entries of `frame`; `body` starts after the header and has `body_len` bytes
    /// or more (padding is left out).
    #[must_use]
    pub fn new(frame: &Frame, body: &'a [u8]) -> Self {
        let len = usize::try_from(frame.body_len).unwrap_or(usize::MAX);
        let rest = body.get(..len);
        Self {
            rest: rest.unwrap_or(&[]),
            lsn: frame.lsn.plus(FRAME_HEADER_LEN),
            seq: frame.first_seq,
            left: frame.entry_count,
            failed: rest.is_none(),
        }
    }

    /// Goes on with a body whose entries were iterated over before, without an error.
    pub fn resume(body: &'a [u8], at: EntriesAt) -> Self {
        let rest = body.len().checked_sub(at.left_bytes).and_then(|used| body.get(used..));
        Self { rest: rest.unwrap_or(&[]), lsn: at.lsn, seq: at.seq, left: at.left, failed: false }
    }

    /// Where the iteration is.
    pub fn at(&self) -> EntriesAt {
        let left_bytes = self.rest.len();
        EntriesAt { lsn: self.lsn, seq: self.seq, left: self.left, left_bytes }
    }

    // Inlined, so that a loop that only counts makes no entries.
    #[inline]
    fn step(&mut self) -> Result<Option<Entry<'a>>, FormatError> {
        loop {
            if self.rest.is_empty() {
                return if self.left == 0 {
                    Ok(None)
                } else {
                    Err(FormatError::Field("entry count"))
                };
            }
            let (header, after) =
                EntryHeader::read_from_prefix(self.rest).map_err(|_| FormatError::TooShort)?;
            let payload_len = u64::from(header.len.get());
            let padded = entry_len(payload_len);
            let len =
                usize::try_from(payload_len).map_err(|_| FormatError::Field("entry length"))?;
            let skip = usize::try_from(padded - ENTRY_HEADER_LEN)
                .map_err(|_| FormatError::Field("entry length"))?;
            let (whole, rest) =
                after.split_at_checked(skip).ok_or(FormatError::Field("entry length"))?;
            let (payload, padding) =
                whole.split_at_checked(len).ok_or(FormatError::Field("entry length"))?;
            // Up to seven bytes, mostly none.
            if header.flags.get() != 0 || padding.iter().any(|byte| *byte != 0) {
                return Err(FormatError::Reserved);
            }
            let (lsn, seq, kind) = (self.lsn, self.seq, header.kind.get());
            self.rest = rest;
            self.lsn = lsn.plus(padded);
            if kind >= FIRST_INTERNAL_KIND {
                continue;
            }
            self.left = self.left.checked_sub(1).ok_or(FormatError::Field("entry count"))?;
            self.seq = Seq(seq.0.saturating_add(1));
            return Ok(Some(Entry { lsn, seq, kind, payload }));
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            self.failed = false;
            self.rest = &[];
            self.left = 0;
            return Some(Err(FormatError::TooShort));
        }
        match self.step() {
            Ok(entry) => entry.map(Ok),
            Err(error) => {
                self.rest = &[];
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}

/// Are all bytes zero?
#[must_use]
pub fn all_zero(bytes: &[u8]) -> bool {
    // Eight bytes a step: this runs over whole unused segments.
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn covered_sector(bytes: &[u8], sector: u32) -> Result<&[u8], FormatError> {
    let sector = usize::try_from(sector).map_err(|_| FormatError::TooShort)?;
    bytes.get(UNCOVERED..sector).ok_or(FormatError::TooShort)
}

/// The CRC over a sector made of `parts` and zeros, but for magic and CRC.
fn sector_crc(parts: &[&[u8]], sector: u32) -> u32 {
    let bytes = padded(parts, sector);
    crc32fast::hash(bytes.get(UNCOVERED..).unwrap_or(&[]))
}

fn padded(parts: &[&[u8]], sector: u32) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(usize::try_from(sector).unwrap_or(bytes.len()), 0);
    bytes
}
