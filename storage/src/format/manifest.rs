//! A backup's manifest: what the backup holds, and on which other backup it builds.
//!
//! `ManifestHeader`, a `SegmentPart` for each segment, a `CheckpointPart` for each checkpoint, and
//! the path of the base, in UTF-8.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::content::{Content, NAME_LEN};
use super::layout::{Structure, structure};
use super::sector::{self, HeaderStart};
use super::{FormatError, LogId, LowWater, MAX_START, VERSION, is_valid_sector};
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

const MANIFEST_MAGIC: [u8; 8] = *b"BULLABAK";

/// The longest manifest: of more than a million segments.
pub const MAX_MANIFEST_LEN: u64 = 64 * 1024 * 1024;

const _: () = assert!(size_of::<ManifestHeader>() == 216);
const _: () = assert!(size_of::<SegmentPart>() == 40);
const _: () = assert!(size_of::<CheckpointPart>() == 32);
const _: () = assert!(
    offset_of!(ManifestHeader, crc) == offset_of!(HeaderStart, crc)
        && offset_of!(ManifestHeader, version) == offset_of!(HeaderStart, version)
);

/// Which backup it is: random, and new for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BackupId(pub [u8; 16]);

impl std::fmt::Display for BackupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        LogId(self.0).fmt(f)
    }
}

/// The backup on which an incremental one builds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseBackup {
    /// Which one it is.
    pub id: BackupId,
    /// Where it was: an absolute path, or one from the folder that the backup is in.
    pub path: String,
}

/// A segment in a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackedUpSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// The nonce of its epoch.
    pub nonce: u64,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Bytes of it that count, its header included.
    pub len: u64,
    /// Offset of the first byte that this backup holds; those before are in its base. Equal to
    /// `len` when all are.
    pub from: u64,
    /// CRC of the bytes that this backup holds.
    pub crc: u32,
}

/// A checkpoint in a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackedUpCheckpoint {
    /// Its number.
    pub number: u64,
    /// Bytes of its file.
    pub len: u64,
    /// It contains the changes below this position.
    pub upto: Lsn,
    /// CRC of the file.
    pub crc: u32,
    /// This backup holds it; otherwise its base does.
    pub is_here: bool,
}

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Which backup it is.
    pub id: BackupId,
    /// Which log it is of.
    pub log_id: LogId,
    /// The backup on which it builds.
    pub base: Option<BaseBackup>,
    /// The log's sector size in bytes.
    pub sector: u32,
    /// The log's newest epoch.
    pub epoch: Epoch,
    /// Its nonce.
    pub nonce: u64,
    /// Where the log started.
    pub low_water: LowWater,
    /// What its entries are.
    pub content: Content,
    /// Where what was copied ends: everything below it is in the backup, or in its base.
    pub end_lsn: Lsn,
    /// The number of the first entry at or after that.
    pub end_seq: Seq,
    /// The epoch that wrote the last frame before it.
    pub end_epoch: Epoch,
    /// When the backup began, in ns since 1970.
    pub wall_ns: u64,
    /// The log's segments, in order of number.
    pub segments: Vec<BackedUpSegment>,
    /// The checkpoint of a store, if there is one.
    pub checkpoints: Vec<BackedUpCheckpoint>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ManifestHeader {
    magic: [u8; 8],
    /// Over the whole file after this field.
    crc: U32,
    version: U32,
    backup_id: [u8; 16],
    log_id: [u8; 16],
    base_id: [u8; 16],
    sector: U32,
    epoch: U32,
    nonce: U64,
    low_segment: U64,
    low_lsn: U64,
    low_seq: U64,
    low_wall_ns: U64,
    low_prev_crc: U32,
    low_epoch: U32,
    end_lsn: U64,
    end_seq: U64,
    wall_ns: U64,
    end_epoch: U32,
    segment_count: U32,
    checkpoint_count: U32,
    base_path_len: U32,
    content_name: [u8; NAME_LEN],
    content_version: U32,
    content_schema: U32,
    content_form: U32,
    reserved: [u8; 12],
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const MANIFEST_HEADER: Structure = structure!(ManifestHeader {
    magic,
    crc,
    version,
    backup_id,
    log_id,
    base_id,
    sector,
    epoch,
    nonce,
    low_segment,
    low_lsn,
    low_seq,
    low_wall_ns,
    low_prev_crc,
    low_epoch,
    end_lsn,
    end_seq,
    wall_ns,
    end_epoch,
    segment_count,
    checkpoint_count,
    base_path_len,
    content_name,
    content_version,
    content_schema,
    content_form,
    reserved
});

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct SegmentPart {
    number: U64,
    nonce: U64,
    len: U64,
    from: U64,
    epoch: U32,
    crc: U32,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const SEGMENT_PART: Structure =
    structure!(SegmentPart { number, nonce, len, from, epoch, crc });

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
struct CheckpointPart {
    number: U64,
    len: U64,
    upto: U64,
    crc: U32,
    is_here: U32,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const CHECKPOINT_PART: Structure =
    structure!(CheckpointPart { number, len, upto, crc, is_here });

impl Manifest {
    /// Returns the bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let path = self.base.as_ref().map_or("", |base| base.path.as_str());
        let count = |len: usize| U32::new(u32::try_from(len).unwrap_or(u32::MAX));
        let mut header = ManifestHeader {
            magic: MANIFEST_MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            backup_id: self.id.0,
            log_id: self.log_id.0,
            base_id: self.base.as_ref().map_or([0; 16], |base| base.id.0),
            sector: self.sector.into(),
            epoch: self.epoch.0.into(),
            nonce: self.nonce.into(),
            low_segment: self.low_water.segment.0.into(),
            low_lsn: self.low_water.lsn.0.into(),
            low_seq: self.low_water.seq.0.into(),
            low_wall_ns: self.low_water.wall_ns.into(),
            low_prev_crc: self.low_water.prev_crc.into(),
            low_epoch: self.low_water.epoch.0.into(),
            end_lsn: self.end_lsn.0.into(),
            end_seq: self.end_seq.0.into(),
            wall_ns: self.wall_ns.into(),
            end_epoch: self.end_epoch.0.into(),
            segment_count: count(self.segments.len()),
            checkpoint_count: count(self.checkpoints.len()),
            base_path_len: count(path.len()),
            content_name: self.content.name,
            content_version: self.content.version.into(),
            content_schema: self.content.schema.into(),
            content_form: self.content.form.into(),
            reserved: [0; 12],
        };
        let segments = self.segments.iter().map(|segment| SegmentPart {
            number: segment.number.0.into(),
            nonce: segment.nonce.into(),
            len: segment.len.into(),
            from: segment.from.into(),
            epoch: segment.epoch.0.into(),
            crc: segment.crc.into(),
        });
        let segments: Vec<_> = segments.collect();
        let checkpoints = self.checkpoints.iter().map(|checkpoint| CheckpointPart {
            number: checkpoint.number.into(),
            len: checkpoint.len.into(),
            upto: checkpoint.upto.0.into(),
            crc: checkpoint.crc.into(),
            is_here: u32::from(checkpoint.is_here).into(),
        });
        let checkpoints: Vec<_> = checkpoints.collect();
        let rest = [segments.as_bytes(), checkpoints.as_bytes(), path.as_bytes()].concat();
        header.crc = sector::covered_crc(&[header.as_bytes(), &rest].concat()).into();
        [header.as_bytes(), &rest].concat()
    }

    /// Decodes the bytes of a whole file.
    ///
    /// # Errors
    /// Any [`FormatError`]. `Version` means that the file is intact.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, rest) =
            ManifestHeader::read_from_prefix(bytes).map_err(|_| FormatError::TooShort)?;
        sector::check_whole(bytes, MANIFEST_MAGIC)?;
        if header.reserved != [0; 12] {
            return Err(FormatError::Reserved);
        }
        let content = Content::decode(
            header.content_name,
            (header.content_version.get(), header.content_schema.get(), header.content_form.get()),
        )?;
        let starts = [header.low_segment.get(), header.low_seq.get(), header.end_seq.get()];
        if starts.iter().any(|start| *start == 0 || *start > MAX_START)
            || header.low_lsn.get() > header.end_lsn.get()
            || !header.low_lsn.get().is_multiple_of(u64::from(header.sector.get()).max(1))
            || header.end_lsn.get() > MAX_START
            || !is_valid_sector(header.sector.get())
            || header.epoch.get() == 0
        {
            return Err(FormatError::Field("position"));
        }
        let count = |field: U32| usize::try_from(field.get()).map_err(|_| FormatError::TooShort);
        let (segments, rest) =
            <[SegmentPart]>::ref_from_prefix_with_elems(rest, count(header.segment_count)?)
                .map_err(|_| FormatError::TooShort)?;
        let (checkpoints, path) =
            <[CheckpointPart]>::ref_from_prefix_with_elems(rest, count(header.checkpoint_count)?)
                .map_err(|_| FormatError::TooShort)?;
        if path.len() != count(header.base_path_len)? {
            return Err(FormatError::Field("base_path_len"));
        }
        let path = std::str::from_utf8(path).map_err(|_| FormatError::Field("base path"))?;
        Ok(Self {
            id: BackupId(header.backup_id),
            log_id: LogId(header.log_id),
            base: (header.base_id != [0; 16])
                .then(|| BaseBackup { id: BackupId(header.base_id), path: path.to_owned() }),
            sector: header.sector.get(),
            epoch: Epoch(header.epoch.get()),
            nonce: header.nonce.get(),
            low_water: LowWater {
                segment: SegmentNumber(header.low_segment.get()),
                lsn: Lsn(header.low_lsn.get()),
                seq: Seq(header.low_seq.get()),
                prev_crc: header.low_prev_crc.get(),
                epoch: Epoch(header.low_epoch.get()),
                wall_ns: header.low_wall_ns.get(),
            },
            content,
            end_lsn: Lsn(header.end_lsn.get()),
            end_seq: Seq(header.end_seq.get()),
            end_epoch: Epoch(header.end_epoch.get()),
            wall_ns: header.wall_ns.get(),
            segments: decode_segments(segments)?,
            checkpoints: decode_checkpoints(checkpoints)?,
        })
    }
}

fn decode_segments(parts: &[SegmentPart]) -> Result<Vec<BackedUpSegment>, FormatError> {
    let in_order = parts.is_sorted_by(|left, right| left.number.get() < right.number.get());
    let fits = |part: &SegmentPart| {
        (1..=MAX_START).contains(&part.number.get())
            && part.from.get() <= part.len.get()
            && part.len.get() <= MAX_START
    };
    if !in_order || !parts.iter().all(fits) {
        return Err(FormatError::Field("segments"));
    }
    let segments = parts.iter().map(|part| BackedUpSegment {
        number: SegmentNumber(part.number.get()),
        nonce: part.nonce.get(),
        epoch: Epoch(part.epoch.get()),
        len: part.len.get(),
        from: part.from.get(),
        crc: part.crc.get(),
    });
    Ok(segments.collect())
}

fn decode_checkpoints(parts: &[CheckpointPart]) -> Result<Vec<BackedUpCheckpoint>, FormatError> {
    let fits = |part: &CheckpointPart| {
        part.number.get() > 0 && part.len.get() <= MAX_START && part.is_here.get() <= 1
    };
    if !parts.iter().all(fits) {
        return Err(FormatError::Field("checkpoints"));
    }
    let checkpoints = parts.iter().map(|part| BackedUpCheckpoint {
        number: part.number.get(),
        len: part.len.get(),
        upto: Lsn(part.upto.get()),
        crc: part.crc.get(),
        is_here: part.is_here.get() == 1,
    });
    Ok(checkpoints.collect())
}
