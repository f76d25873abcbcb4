//! A frame: the unit of group commit, of checksums and of atomicity.

use std::mem::size_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc::Seed;
use super::layout::{Structure, structure};
use super::{
    ENTRY_ALIGN, ENTRY_HEADER_LEN, FRAME_HEADER_LEN, FormatError, MAX_FRAME_LEN, align_up,
};
use crate::position::{Epoch, Lsn, Seq};

/// Bytes of a frame's header, as a length in memory.
pub const FRAME_HEADER_BYTES: usize = size_of::<FrameHeader>();

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"BuFr");

const _: () = assert!(FRAME_HEADER_BYTES as u64 == FRAME_HEADER_LEN);

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum FrameKind {
    /// Holds entries.
    Data = 1,
    /// Holds nothing but its durable mark; one sector.
    DurableMark = 2,
    /// Ends a segment that has a successor; no LSN length, its LSN is the segment's end.
    SegmentEnd = 3,
    /// Ends a log that was closed; one sector.
    CleanShutdown = 4,
}

impl FrameKind {
    const fn from_u16(kind: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Data,
            2 => Self::DurableMark,
            3 => Self::SegmentEnd,
            4 => Self::CleanShutdown,
            _ => return None,
        })
    }

    /// Returns whether the next frame carries this one's CRC.
    #[must_use]
    pub const fn is_seal(self) -> bool {
        matches!(self, Self::SegmentEnd | Self::CleanShutdown)
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
    /// The durable watermark known when the frame was sealed: everything below it is on disk,
    /// so that damage there is distinguished from a torn tail (the idea is Pebble's).
    pub durable_lsn: Lsn,
    /// Number of the first user entry in it, or the number that the next one will get.
    pub first_seq: Seq,
    /// How many user entries it holds.
    pub entry_count: u32,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Sealing time in ns since 1970, never below the previous frame's.
    pub wall_ns: u64,
    /// Header CRC of the previous non-seal frame; 0 for the first of a log.
    pub prev_crc: u32,
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
    durable_lsn: U64,
    first_seq: U64,
    entry_count: U32,
    epoch: U32,
    wall_ns: U64,
    prev_crc: U32,
    kind: U16,
    reserved: U16,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const FRAME_HEADER: Structure = structure!(FrameHeader {
    magic,
    crc,
    body_len,
    body_crc,
    lsn,
    durable_lsn,
    first_seq,
    entry_count,
    epoch,
    wall_ns,
    prev_crc,
    kind,
    reserved
});
/// Bytes of a frame header before what its CRC covers.
const FRAME_CRC_START: usize = 8;

impl Frame {
    /// Returns the bytes on disk: header, body and padding, in whole sectors.
    #[must_use]
    pub const fn disk_len(&self, sector: u32) -> u64 {
        align_up(FRAME_HEADER_LEN + self.body_len as u64, sector as u64)
    }

    /// Returns the bytes of LSN space: as on disk, but none for a segment end.
    #[must_use]
    pub const fn lsn_len(&self, sector: u32) -> u64 {
        match self.kind {
            FrameKind::SegmentEnd => 0,
            _ => self.disk_len(sector),
        }
    }

    /// Returns the LSN after it.
    #[must_use]
    pub const fn end(&self, sector: u32) -> Lsn {
        self.lsn.plus(self.lsn_len(sector))
    }

    /// Returns the number of the first entry after it.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        Seq(self.first_seq.0.saturating_add(self.entry_count as u64))
    }

    /// Returns the header's bytes, and its CRC, the `prev_crc` of the next frame.
    #[must_use]
    pub fn encode(&self, seed: Seed) -> ([u8; FRAME_HEADER_BYTES], u32) {
        let mut header = FrameHeader {
            magic: FRAME_MAGIC.into(),
            crc: U32::ZERO,
            body_len: self.body_len.into(),
            body_crc: self.body_crc.into(),
            lsn: self.lsn.0.into(),
            durable_lsn: self.durable_lsn.0.into(),
            first_seq: self.first_seq.0.into(),
            entry_count: self.entry_count.into(),
            epoch: self.epoch.0.into(),
            wall_ns: self.wall_ns.into(),
            prev_crc: self.prev_crc.into(),
            kind: (self.kind as u16).into(),
            reserved: U16::ZERO,
        };
        let crc = header_crc(&header, seed);
        header.crc = crc.into();
        (zerocopy::transmute!(header), crc)
    }

    /// Decodes and checks a header: everything that can be checked without knowing where it
    /// was found. Returns the header and its CRC. The caller compares LSN, Seq, `prev_crc` and
    /// length with the expected values, and the body with its CRC.
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
            durable_lsn: Lsn(header.durable_lsn.get()),
            first_seq: Seq(header.first_seq.get()),
            entry_count: header.entry_count.get(),
            epoch: Epoch(header.epoch.get()),
            wall_ns: header.wall_ns.get(),
            prev_crc: header.prev_crc.get(),
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
        if self.durable_lsn > self.lsn || !self.durable_lsn.0.is_multiple_of(sector) {
            return Err(FormatError::Field("durable LSN"));
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
            FrameKind::DurableMark | FrameKind::SegmentEnd | FrameKind::CleanShutdown => {
                if body_len != 0 || self.entry_count != 0 {
                    return Err(FormatError::Field("body length or entry count"));
                }
            }
        }
        if self.kind.is_seal() && self.durable_lsn != self.lsn {
            return Err(FormatError::Field("durable LSN"));
        }
        Ok(())
    }
}

fn header_crc(header: &FrameHeader, seed: Seed) -> u32 {
    let mut hasher = seed.hasher();
    hasher.update(header.as_bytes().get(FRAME_CRC_START..).unwrap_or(&[]));
    hasher.finalize()
}
