//! Writing a checkpoint: page by page into a temporary file, which a rename publishes.
//!
//! Owns the order of the writes: slabs, index, header, sync. Until [`Written::publish`] there is
//! only a temporary file, which the next open removes. Memory is bounded by one slab.

use std::io;
use std::sync::Arc;

use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::{AlignedBuf, Dir, File, write_full};
use zerocopy::IntoBytes;

use super::files::{CheckpointDir, RESERVE, name_of, remove, temporary_name_of};
use super::format::{BLOCK, Head, MAX_SLAB_LEN, Place, blocks, encode_index};
use crate::faults::{self, Failpoint, skip};
use crate::record::RECORD_LEN;
use crate::table::{Found, PageId, SLAB_PAGES, index};

/// A checkpoint that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: Arc<dyn Dir>,
    number: u64,
    file: Arc<dyn File>,
    offset: u64,
    places: Vec<Place>,
    slab: Gathered,
    /// Whether it uses the space that is reserved for a checkpoint.
    from_reserve: bool,
}

/// The pages of the slab that is being written.
#[derive(Debug)]
struct Gathered {
    number: Option<u32>,
    occupied: [u64; SLAB_PAGES],
    records: Vec<u8>,
    expiries: Vec<u64>,
    buffer: AlignedBuf,
}

impl Writer {
    /// Begins a checkpoint in the directory; `direct` bypasses the page cache.
    pub(crate) fn create(dir: &CheckpointDir, number: u64, direct: bool) -> io::Result<Self> {
        let (dir, temporary) = (dir.open()?, temporary_name_of(number));
        remove(dir.as_ref(), &temporary)?;
        let file = dir.create(&temporary, direct)?;
        Ok(Self::new(dir, number, file, false))
    }

    /// Begins a checkpoint in the space that is reserved for one; returns `None` without any.
    pub(crate) fn in_reserve(
        dir: &CheckpointDir,
        number: u64,
        direct: bool,
    ) -> io::Result<Option<Self>> {
        let (dir, temporary) = (dir.open()?, temporary_name_of(number));
        match dir.rename(RESERVE, &temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            renamed => renamed?,
        }
        let access = bulla_storage::io::Access { write: true, direct };
        let file = dir.open(&temporary, access)?;
        Ok(Some(Self::new(dir, number, file, true)))
    }

    fn new(dir: Arc<dyn Dir>, number: u64, file: Arc<dyn File>, from_reserve: bool) -> Self {
        Self {
            dir,
            number,
            file,
            offset: BLOCK as u64,
            places: Vec::new(),
            slab: Gathered::new(),
            from_reserve,
        }
    }

    /// Adds a page: its records in order. Pages come in order, each once.
    pub(crate) fn push(&mut self, page: PageId, records: &[Found]) -> io::Result<()> {
        if self.slab.number.is_some_and(|number| number != page.slab_number()) {
            self.flush()?;
        }
        self.slab.push(page, records);
        Ok(())
    }

    /// Writes the slab that was gathered.
    fn flush(&mut self) -> io::Result<()> {
        let Some(place) = self.slab.encode(self.offset) else { return Ok(()) };
        let len = blocks(place.len());
        write_full(self.file.as_ref(), &self.slab.buffer[..len], self.offset)?;
        self.offset += len as u64;
        self.places.push(place);
        Ok(())
    }

    /// Writes the rest, and makes the file durable under its temporary name.
    pub(crate) fn finish(&mut self, wall_ns: u64, anchor: Anchor) -> io::Result<Written> {
        self.flush()?;
        let (index, index_crc) = encode_index(&self.places);
        write_aligned(self.file.as_ref(), &index, self.offset)?;
        let sum = |count: fn(&Place) -> u32| self.places.iter().map(count).map(u64::from).sum();
        let head = Head {
            number: self.number,
            anchor,
            wall_ns,
            records: sum(|place| place.records),
            pages: sum(|place| place.pages),
            slabs: u32::try_from(self.places.len()).map_err(io::Error::other)?,
            index_crc,
            index_offset: self.offset,
        };
        write_aligned(self.file.as_ref(), &head.encode(), 0)?;
        // The reserved space may be more than the checkpoint needs.
        let len = faults::checkpoint::file_len(self.file.len()?, head.file_len());
        if len != head.file_len() {
            self.file.set_len(head.file_len())?;
        }
        if !skip(Failpoint::CheckpointSync) {
            self.file.sync()?;
        }
        Ok(Written { dir: Arc::clone(&self.dir), head })
    }

    /// Abandons the checkpoint: removes the file, or returns it to the reserve.
    pub(crate) fn abandon(self) -> io::Result<()> {
        if faults::checkpoint::is_of_reserve(self.from_reserve) {
            self.dir.rename(&temporary_name_of(self.number), RESERVE)
        } else {
            remove(self.dir.as_ref(), &temporary_name_of(self.number))
        }
    }
}

impl Gathered {
    fn new() -> Self {
        Self {
            number: None,
            occupied: [0; SLAB_PAGES],
            records: Vec::new(),
            expiries: Vec::new(),
            buffer: AlignedBuf::zeroed(blocks(MAX_SLAB_LEN)),
        }
    }

    fn push(&mut self, page: PageId, records: &[Found]) {
        self.number = Some(page.slab_number());
        for found in records {
            self.occupied[page.in_slab()] |= 1 << index(found.id);
            self.records.extend_from_slice(found.record.as_bytes());
            self.expiries.push(faults::checkpoint::expiry(found.expiry));
        }
    }

    /// Encodes the slab into the buffer, in whole blocks, and clears it; returns `None` for an
    /// empty one.
    fn encode(&mut self, offset: u64) -> Option<Place> {
        let number = self.number.take()?;
        let expires = self.expiries.iter().any(|expiry| *expiry != 0);
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        self.occupied.iter().for_each(|word| put(&word.to_le_bytes()));
        put(&self.records);
        if expires {
            self.expiries.iter().for_each(|expiry| put(&expiry.to_le_bytes()));
        }
        let (slab, rest) = self.buffer.split_at_mut(at);
        rest[..blocks(at) - at].fill(0);
        let count = self.records.len() / RECORD_LEN;
        #[expect(clippy::cast_possible_truncation, reason = "at most 32,768")]
        let place = Place {
            slab: number,
            records: count as u32,
            pages: self.occupied.iter().filter(|word| **word != 0).count() as u32,
            expires,
            offset,
            crc: crc32fast::hash(slab),
        };
        debug_assert_eq!(place.len(), at, "the layout is that of the format");
        self.occupied.fill(0);
        self.records.clear();
        self.expiries.clear();
        (count > 0).then_some(place)
    }
}

/// A checkpoint that is durable under a temporary name.
#[derive(Debug)]
pub(crate) struct Written {
    dir: Arc<dyn Dir>,
    head: Head,
}

impl Written {
    /// Renames the checkpoint to its final name; on return the name is durable. Everything
    /// below its position must be durable before, and so must a durable mark of that.
    pub(crate) fn publish(self) -> io::Result<Head> {
        let temporary = temporary_name_of(self.head.number);
        if let Err(error) = self.dir.rename(&temporary, &name_of(self.head.number)) {
            // The error is what counts; the next open removes what is left.
            let _ = remove(self.dir.as_ref(), &temporary);
            return Err(error);
        }
        if !skip(Failpoint::CheckpointDirSync) {
            self.dir.sync()?;
        }
        Ok(self.head)
    }
}

fn write_aligned(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut aligned = AlignedBuf::zeroed(bytes.len());
    aligned.copy_from_slice(bytes);
    write_full(file, &aligned, offset)
}
