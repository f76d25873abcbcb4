//! The bytes of a checkpoint, all of them, in one place.
//!
//! The `repr(C)` structs below *are* the bytes (little-endian, no implicit padding), and
//! compile-time assertions pin their sizes. No byte is trusted before its CRC, no length
//! before it is bounded; decoding never panics. No I/O here. Tested by `format_tests.rs` and
//! `engine/tests/checkpoint.rs`.
//!
//! ```text
//! DIR/checkpoints/N.ckpt   Header, one block; slabs, each from a block's start; the index
//! slab                     a word of occupancy for each page, the records that are there in
//!                          order, the time at which each expires (if any does), zeros up to
//!                          a whole block
//! index                    an IndexEntry for each slab with a record in it, in order, zeros
//!                          up to a whole block
//! ```

#![deny(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::mem::size_of;

use bulla_storage::format::{LogId, LowWater, MAX_START};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::frames::reader::Cursor;
use bulla_wal::{Epoch, Lsn, SegmentNumber, Seq};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::faults;
use crate::record::RECORD_LEN;
use crate::table::{PAGE_RECORDS, SLAB_PAGES, SLAB_RECORDS, SLABS};

/// The version of the format that this build writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
/// What everything in a checkpoint is aligned to, so that direct access can write it.
pub(crate) const BLOCK: usize = 4096;
/// The most bytes of a slab in a checkpoint.
pub(crate) const MAX_SLAB_LEN: usize = slab_len(SLAB_RECORDS, true);

const MAGIC: [u8; 8] = *b"BULLACKP";
/// Bytes that the CRC of the header does not cover: magic number and CRC.
const CRC_START: usize = 12;
/// The anchor is at the start of the first segment of its epoch.
const AT_OPENING: u32 = 1;
/// The slab has a time for each of its records.
const EXPIRES: u32 = 1;

const _: () = assert!(size_of::<Header>() == 192);
const _: () = assert!(size_of::<IndexEntry>() == 32);
const _: () = assert!(size_of::<[U64; SLAB_PAGES]>() == BLOCK);
const _: () = assert!(size_of::<Header>() <= BLOCK);

/// Why bytes are not a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointDamage {
    /// The file is shorter or longer than it says.
    #[error("its length is not what it says")]
    Length,
    /// No magic number where the header should be.
    #[error("no magic number")]
    Magic,
    /// The header's CRC does not match.
    #[error("checksum mismatch in its header")]
    HeaderCrc,
    /// The index's CRC does not match.
    #[error("checksum mismatch in its index")]
    IndexCrc,
    /// A slab's CRC does not match.
    #[error("checksum mismatch in slab {0}")]
    SlabCrc(u32),
    /// A CRC matches, but a field is out of its range.
    #[error("field `{0}` is out of range")]
    Field(&'static str),
    /// A reserved byte is not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// A record of a slab is invalid, or has another id than its place.
    #[error("no valid record for id {0}")]
    Record(u32),
    /// Its number is not the one in its name.
    #[error("its number is not the one in its name")]
    Number,
    /// Written by a newer version.
    #[error("version {0} is newer than {VERSION}")]
    Version(u32),
}

type Result<T> = std::result::Result<T, CheckpointDamage>;

/// The header of a checkpoint, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// One more than that of the checkpoint before.
    pub(crate) number: u64,
    /// The changes that it contains: those below `upto`.
    pub(crate) anchor: Anchor,
    /// When it was taken, in ns since 1970.
    pub(crate) wall_ns: u64,
    pub(crate) records: u64,
    /// Pages with a record in them.
    pub(crate) pages: u64,
    pub(crate) slabs: u32,
    pub(crate) index_crc: u32,
    pub(crate) index_offset: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    /// Over the whole block after this field.
    crc: U32,
    version: U32,
    log_id: [u8; 16],
    number: U64,
    lsn: U64,
    nonce: U64,
    epoch: U32,
    flags: U32,
    at_lsn: U64,
    at_seq: U64,
    at_wall_ns: U64,
    at_last: U64,
    at_prev_crc: U32,
    segment_prev_crc: U32,
    segment: U64,
    segment_lsn: U64,
    segment_seq: U64,
    segment_wall_ns: U64,
    wall_ns: U64,
    records: U64,
    pages: U64,
    slabs: U32,
    index_crc: U32,
    index_offset: U64,
    reserved: [u8; 16],
}

/// Where a slab is in a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Which one: the first id in it, divided by 32,768.
    pub(crate) slab: u32,
    pub(crate) records: u32,
    /// Pages with a record in them.
    pub(crate) pages: u32,
    pub(crate) expires: bool,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IndexEntry {
    slab: U32,
    flags: U32,
    records: U32,
    pages: U32,
    offset: U64,
    crc: U32,
    reserved: U32,
}

/// Returns the bytes of a slab in a checkpoint, without the zeros after it.
pub(crate) const fn slab_len(records: usize, expires: bool) -> usize {
    let each = if expires { RECORD_LEN + size_of::<u64>() } else { RECORD_LEN };
    SLAB_PAGES * size_of::<u64>() + records * each
}

/// Rounds `len` up to whole blocks.
pub(crate) const fn blocks(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

impl Place {
    pub(crate) const fn len(&self) -> usize {
        slab_len(self.records as usize, self.expires)
    }

    /// Returns whether it has every record that a slab can have, one after the other, and nothing
    /// else.
    pub(crate) const fn is_full(&self) -> bool {
        self.records as usize == SLAB_RECORDS && !self.expires
    }
}

impl Head {
    /// Returns the bytes of the index, without the zeros after it.
    pub(crate) const fn index_len(&self) -> usize {
        self.slabs as usize * size_of::<IndexEntry>()
    }

    /// Returns the bytes of the whole file.
    pub(crate) const fn file_len(&self) -> u64 {
        self.index_offset + blocks(self.index_len()) as u64
    }

    /// Encodes the first block of the file.
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let Anchor { log_id, epoch, nonce, upto, segment, at, last } = self.anchor;
        let mut header = Header {
            magic: MAGIC,
            crc: U32::ZERO,
            version: VERSION.into(),
            log_id: log_id.0,
            number: self.number.into(),
            lsn: upto.0.into(),
            nonce: nonce.into(),
            epoch: epoch.0.into(),
            flags: if last.is_none() { AT_OPENING } else { 0 }.into(),
            at_lsn: at.lsn.0.into(),
            at_seq: at.seq.0.into(),
            at_wall_ns: at.wall_ns.into(),
            at_last: last.unwrap_or_default().0.into(),
            at_prev_crc: at.prev_crc.into(),
            segment_prev_crc: segment.prev_crc.into(),
            segment: segment.segment.0.into(),
            segment_lsn: segment.lsn.0.into(),
            segment_seq: segment.seq.0.into(),
            segment_wall_ns: segment.wall_ns.into(),
            wall_ns: self.wall_ns.into(),
            records: self.records.into(),
            pages: self.pages.into(),
            slabs: self.slabs.into(),
            index_crc: self.index_crc.into(),
            index_offset: self.index_offset.into(),
            reserved: [0; 16],
        };
        let mut hasher = crc32fast::Hasher::new();
        let (_, covered) = header.as_bytes().split_at(CRC_START);
        hasher.update(covered);
        hasher.update(&[0; BLOCK - size_of::<Header>()]);
        header.crc = hasher.finalize().into();
        let mut block = [0; BLOCK];
        let (start, _) = block.split_at_mut(size_of::<Header>());
        start.copy_from_slice(header.as_bytes());
        block
    }

    /// Decodes the first block of a file of this length.
    pub(crate) fn decode(bytes: &[u8], file_len: u64) -> Result<Self> {
        let block: &[u8; BLOCK] = bytes.first_chunk().ok_or(CheckpointDamage::Length)?;
        let (header, rest) =
            Header::ref_from_prefix(block).map_err(|_| CheckpointDamage::Length)?;
        if header.magic != MAGIC {
            return Err(CheckpointDamage::Magic);
        }
        let (_, covered) = block.split_at(CRC_START);
        if crc32fast::hash(covered) != header.crc.get() {
            return Err(CheckpointDamage::HeaderCrc);
        }
        if header.version.get() > VERSION {
            return Err(CheckpointDamage::Version(header.version.get()));
        }
        if header.reserved != [0; 16]
            || header.flags.get() & !AT_OPENING != 0
            || rest.iter().any(|byte| *byte != 0)
        {
            return Err(CheckpointDamage::Reserved);
        }
        let head = header.parse()?;
        if head.file_len() == file_len { Ok(head) } else { Err(CheckpointDamage::Length) }
    }
}

impl Header {
    /// Parses the fields of a header whose CRC matches.
    fn parse(&self) -> Result<Head> {
        let range = |name, fits| if fits { Ok(()) } else { Err(CheckpointDamage::Field(name)) };
        range("version", self.version.get() > 0)?;
        range("number", self.number.get() > 0 && self.number.get() <= MAX_START)?;
        let positions = [&self.lsn, &self.at_lsn, &self.segment_lsn, &self.at_last];
        range("LSN", positions.iter().all(|lsn| lsn.get() <= MAX_START))?;
        range(
            "LSN",
            self.segment_lsn.get() <= self.at_lsn.get() && self.at_lsn.get() <= self.lsn.get(),
        )?;
        let numbers = [&self.at_seq, &self.segment_seq, &self.segment];
        range("Seq", numbers.iter().all(|seq| (1..=MAX_START).contains(&seq.get())))?;
        range("epoch", self.epoch.get() > 0)?;
        range("slabs", self.slabs.get() as usize <= SLABS)?;
        let slabs = u64::from(self.slabs.get());
        let records = self.records.get();
        range("records", records >= slabs && records <= slabs * SLAB_RECORDS as u64)?;
        range("pages", self.pages.get() >= slabs && self.pages.get() <= records)?;
        let most = BLOCK as u64 + slabs * blocks(MAX_SLAB_LEN) as u64;
        let index_offset = self.index_offset.get();
        range("index", index_offset >= BLOCK as u64 && index_offset <= most)?;
        let epoch = Epoch(self.epoch.get());
        let at_opening = self.flags.get() & AT_OPENING != 0;
        range("last frame", !at_opening || self.at_last.get() == 0)?;
        Ok(Head {
            number: self.number.get(),
            anchor: Anchor {
                log_id: LogId(self.log_id),
                epoch,
                nonce: self.nonce.get(),
                upto: Lsn(self.lsn.get()),
                segment: LowWater {
                    segment: SegmentNumber(self.segment.get()),
                    lsn: Lsn(self.segment_lsn.get()),
                    seq: Seq(self.segment_seq.get()),
                    prev_crc: self.segment_prev_crc.get(),
                    epoch,
                    wall_ns: self.segment_wall_ns.get(),
                },
                at: Cursor {
                    lsn: Lsn(self.at_lsn.get()),
                    seq: Seq(self.at_seq.get()),
                    prev_crc: self.at_prev_crc.get(),
                    wall_ns: self.at_wall_ns.get(),
                },
                last: (!at_opening).then_some(Lsn(self.at_last.get())),
            },
            wall_ns: self.wall_ns.get(),
            records,
            pages: self.pages.get(),
            slabs: self.slabs.get(),
            index_crc: self.index_crc.get(),
            index_offset,
        })
    }
}

/// Encodes the index in whole blocks, and returns it with its CRC, which leaves out the padding.
pub(crate) fn encode_index(places: &[Place]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::with_capacity(blocks(size_of_val(places)));
    for place in places {
        let entry = IndexEntry {
            slab: place.slab.into(),
            flags: if place.expires { EXPIRES } else { 0 }.into(),
            records: place.records.into(),
            pages: place.pages.into(),
            offset: place.offset.into(),
            crc: place.crc.into(),
            reserved: U32::ZERO,
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.resize(blocks(bytes.len()), 0);
    (bytes, crc)
}

/// Decodes the index of a header: every byte of the file belongs to exactly one slab.
pub(crate) fn decode_index(head: &Head, bytes: &[u8]) -> Result<Vec<Place>> {
    let (entries, padding) =
        bytes.split_at_checked(head.index_len()).ok_or(CheckpointDamage::Length)?;
    if crc32fast::hash(entries) != head.index_crc {
        return Err(CheckpointDamage::IndexCrc);
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(CheckpointDamage::Reserved);
    }
    let entries = <[IndexEntry]>::ref_from_bytes(entries).map_err(|_| CheckpointDamage::Length)?;
    let mut places: Vec<Place> = Vec::with_capacity(entries.len());
    let (mut end, mut records, mut pages) = (BLOCK as u64, 0, 0);
    for entry in entries {
        let after = places.last().map_or(0, |last| last.slab + 1);
        let place = entry.parse(after, end)?;
        end += blocks(place.len()) as u64;
        records += u64::from(place.records);
        pages += u64::from(place.pages);
        places.push(place);
    }
    if (end, records, pages) == (head.index_offset, head.records, head.pages) {
        Ok(places)
    } else {
        Err(CheckpointDamage::Field("totals"))
    }
}

impl IndexEntry {
    /// Parses an entry; `first` is the lowest slab allowed, `offset` the only place.
    fn parse(&self, first: u32, offset: u64) -> Result<Place> {
        let (slab, records, pages) = (self.slab.get(), self.records.get(), self.pages.get());
        if self.reserved.get() != 0 || self.flags.get() & !EXPIRES != 0 {
            return Err(CheckpointDamage::Reserved);
        }
        if slab < first || slab as usize >= SLABS {
            return Err(CheckpointDamage::Field("slab"));
        }
        let fits = (1..=SLAB_PAGES).contains(&(pages as usize))
            && pages <= records
            && records as usize <= pages as usize * PAGE_RECORDS;
        if !fits {
            return Err(CheckpointDamage::Field("records"));
        }
        if self.offset.get() != offset {
            return Err(CheckpointDamage::Field("offset"));
        }
        let expires = self.flags.get() & EXPIRES != 0;
        Ok(Place { slab, records, pages, expires, offset, crc: self.crc.get() })
    }
}

/// The records of a slab, as its bytes describe them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlabView<'a> {
    occupied: &'a [U64; SLAB_PAGES],
    /// The records that are there, in order.
    pub(crate) records: &'a [[u8; RECORD_LEN]],
    expiries: &'a [U64],
}

impl<'a> SlabView<'a> {
    /// Decodes a slab; `bytes` are in whole blocks.
    pub(crate) fn decode(place: &Place, bytes: &'a [u8]) -> Result<Self> {
        let (slab, padding) =
            bytes.split_at_checked(place.len()).ok_or(CheckpointDamage::Length)?;
        if faults::checkpoint::slab_crc(crc32fast::hash(slab), place.crc) != place.crc {
            return Err(CheckpointDamage::SlabCrc(place.slab));
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(CheckpointDamage::Reserved);
        }
        let (occupied, rest) =
            <[U64; SLAB_PAGES]>::ref_from_prefix(slab).map_err(|_| CheckpointDamage::Length)?;
        let (records, rest) =
            <[[u8; RECORD_LEN]]>::ref_from_prefix_with_elems(rest, place.records as usize)
                .map_err(|_| CheckpointDamage::Length)?;
        let expiries = <[U64]>::ref_from_bytes(rest).map_err(|_| CheckpointDamage::Length)?;
        let count: u32 = occupied.iter().map(|word| word.get().count_ones()).sum();
        let pages = occupied.iter().filter(|word| word.get() != 0).count();
        if (count, pages) != (place.records, place.pages as usize) {
            return Err(CheckpointDamage::Field("occupancy"));
        }
        Ok(Self { occupied, records, expiries })
    }

    /// Returns one bit for each record of a page that is there.
    pub(crate) fn occupied(&self, page: usize) -> u64 {
        self.occupied.get(page).map_or(0, |word| word.get())
    }

    /// Iterates over the times at which the records expire, in their order; empty if none does.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = u64> + 'a {
        self.expiries.iter().map(|expiry| expiry.get())
    }
}
