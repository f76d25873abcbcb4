//! CONTROL: two slots, each one sector, written in turn.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::content::{Content, NAME_LEN};
use super::layout::{Structure, structure};
use super::sector::{self, HeaderStart};
use super::{FormatError, KNOWN_INCOMPATIBLE, LogId, MAX_START, SLOT_STRIDE, VERSION, all_zero};
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

const CONTROL_MAGIC: [u8; 8] = *b"BULLACTL";

const _: () = assert!(size_of::<ControlSlot>() == 176);
const _: () = assert!(
    offset_of!(ControlSlot, crc) == offset_of!(HeaderStart, crc)
        && offset_of!(ControlSlot, version) == offset_of!(HeaderStart, version)
);

/// Where the live part of the log starts. Segments below it are dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LowWater {
    /// The first live segment.
    pub segment: SegmentNumber,
    /// Its first live position; counts as a durable mark.
    pub lsn: Lsn,
    /// The number of the first entry at or after `lsn`.
    pub seq: Seq,
    /// Header CRC of the last non-seal frame before `lsn`; 0 when there is none.
    pub prev_crc: u32,
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
        prev_crc: 0,
        epoch: Epoch(1),
        wall_ns: 0,
    };
}

/// The contents of one slot of CONTROL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// Incremented at every write; the slot with the higher counter is the newest.
    pub counter: u64,
    /// Which log this is.
    pub log_id: LogId,
    /// Sector size in bytes, fixed when the log is created.
    pub sector: u32,
    /// The newest epoch that was ever started.
    pub epoch: Epoch,
    /// Its random nonce.
    pub nonce: u64,
    /// Compatible features, known or not: preserved as found.
    pub compatible: u64,
    /// Where the live log starts.
    pub low_water: LowWater,
    /// What the log's entries are; fixed when the log is created.
    pub content: Content,
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
    low_prev_crc: U32,
    low_epoch: U32,
    content_name: [u8; NAME_LEN],
    content_version: U32,
    content_schema: U32,
    content_form: U32,
    reserved: [u8; 20],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const CONTROL_SLOT: Structure = structure!(ControlSlot {
    magic,
    crc,
    version,
    counter,
    log_id,
    compatible,
    incompatible,
    sector,
    epoch,
    nonce,
    low_segment,
    low_lsn,
    low_seq,
    low_wall_ns,
    low_prev_crc,
    low_epoch,
    content_name,
    content_version,
    content_schema,
    content_form,
    reserved
});

impl Control {
    /// Returns the slot that holds this generation: they are written in turn.
    #[must_use]
    pub const fn slot_offset(counter: u64) -> u64 {
        (counter % 2) * SLOT_STRIDE
    }

    /// Returns one whole sector of bytes.
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
            low_prev_crc: self.low_water.prev_crc.into(),
            low_epoch: self.low_water.epoch.0.into(),
            content_name: self.content.name,
            content_version: self.content.version.into(),
            content_schema: self.content.schema.into(),
            content_form: self.content.form.into(),
            reserved: [0; 20],
        };
        slot.crc = sector::crc(&[slot.as_bytes()], self.sector).into();
        sector::padded(&[slot.as_bytes()], self.sector)
    }

    /// Decodes a slot; `bytes` starts at the slot and may be longer.
    ///
    /// # Errors
    /// Any [`FormatError`]. `Version` and `Features` mean that the slot is intact.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (slot, rest) =
            sector::decode(bytes, CONTROL_MAGIC, |slot: &ControlSlot| slot.sector.get())?;
        if slot.incompatible.get() & !KNOWN_INCOMPATIBLE != 0 {
            return Err(FormatError::Features(slot.incompatible.get()));
        }
        if slot.reserved != [0; 20] || !all_zero(rest) {
            return Err(FormatError::Reserved);
        }
        if slot.counter.get() > MAX_START {
            return Err(FormatError::Field("counter"));
        }
        let starts = [slot.low_segment.get(), slot.low_seq.get()];
        if starts.iter().any(|start| *start == 0 || *start > MAX_START) || slot.epoch.get() == 0 {
            return Err(FormatError::Field("low-water mark"));
        }
        let low_lsn = slot.low_lsn.get();
        if !low_lsn.is_multiple_of(u64::from(slot.sector.get())) || low_lsn > MAX_START {
            return Err(FormatError::Field("low-water LSN"));
        }
        let content = Content::decode(
            slot.content_name,
            (slot.content_version.get(), slot.content_schema.get(), slot.content_form.get()),
        )?;
        Ok(Self {
            counter: slot.counter.get(),
            log_id: LogId(slot.log_id),
            sector: slot.sector.get(),
            epoch: Epoch(slot.epoch.get()),
            nonce: slot.nonce.get(),
            compatible: slot.compatible.get(),
            low_water: LowWater {
                segment: SegmentNumber(slot.low_segment.get()),
                lsn: Lsn(slot.low_lsn.get()),
                seq: Seq(slot.low_seq.get()),
                prev_crc: slot.low_prev_crc.get(),
                epoch: Epoch(slot.low_epoch.get()),
                wall_ns: slot.low_wall_ns.get(),
            },
            content,
        })
    }
}
