//! The files of checkpoints: their names, how one is read, how one is removed.
//!
//! Owns the directory `checkpoints` of a store and the descriptors of the files read in it. What the bytes mean is in `format.rs`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::CheckpointFault;
use super::format::{
    BLOCK, CheckpointDamage, Head, MAX_SLAB_LEN, Place, SlabView, blocks, decode_index,
};
use crate::faults;
use bulla_storage::files::dir::{CHECKPOINTS, Directory};
use bulla_storage::io::{Access, AlignedBuf, Dir, File, FileKind, read_full};

/// Name of the file that reserves space for a checkpoint.
pub(crate) const RESERVE: &str = "RESERVE";
const SUFFIX: &str = ".ckpt";
const TEMPORARY_SUFFIX: &str = ".ckpt.tmp";
/// Bytes of a full slab per read: they stay in the processor's cache for their CRC.
const PIECE: usize = 256 * 1024;
/// Digits of a number in a name.
const DIGITS: usize = 20;

/// The directory of a store's checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointDir {
    /// The store's.
    store: Directory,
    /// For messages.
    pub(crate) path: PathBuf,
}

/// The files in the directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The numbers of checkpoints, the newest first.
    pub(crate) numbers: Vec<u64>,
    /// Files of writes that did not end.
    pub(crate) temporaries: Vec<String>,
    /// Bytes of the file that reserves space, if there is one.
    pub(crate) reserve: Option<u64>,
}

impl CheckpointDir {
    pub(crate) fn of(store: &Directory) -> Self {
        Self { path: store.path_of(CHECKPOINTS), store: store.clone() }
    }

    /// Returns the store's directory.
    pub(crate) fn store(&self) -> &Directory {
        &self.store
    }

    /// Opens the directory (`NotFound` without one).
    pub(crate) fn open(&self) -> io::Result<Arc<dyn Dir>> {
        self.store.handle().open_dir(CHECKPOINTS)
    }

    /// Creates the directory, if need be, and opens it.
    pub(crate) fn create(&self) -> io::Result<Arc<dyn Dir>> {
        self.store.handle().create_dir(CHECKPOINTS)?;
        self.open()
    }

    /// Lists the files; there are none without the directory.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let dir = match self.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            dir => dir?,
        };
        for entry in dir.list()?.into_iter().filter(|entry| entry.kind == FileKind::Regular) {
            if let Some(number) = parse_name(&entry.name) {
                listing.numbers.push(number);
            } else if entry.name.ends_with(TEMPORARY_SUFFIX) {
                listing.temporaries.push(entry.name);
            } else if entry.name == RESERVE {
                listing.reserve = Some(entry.len);
            }
        }
        listing.numbers.sort_unstable_by(|left, right| right.cmp(left));
        Ok(listing)
    }

    /// Returns the path of a checkpoint, for messages.
    pub(crate) fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(name_of(number))
    }
}

/// Returns the name of a checkpoint.
pub(crate) fn name_of(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// Returns the name of a checkpoint that is being written.
pub(crate) fn temporary_name_of(number: u64) -> String {
    format!("{number:020}{TEMPORARY_SUFFIX}")
}

/// Removes a name, if it is there.
pub(crate) fn remove(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.unlink(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let are_digits = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| are_digits && *number > 0)
}

/// A checkpoint whose header and index are intact. Its slabs are read one by one.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) head: Head,
    /// The slabs with a record in them, in order.
    pub(crate) places: Vec<Place>,
    pub(crate) file: Arc<dyn File>,
}

impl Checkpoint {
    /// Reads header and index of the checkpoint with this number.
    pub(crate) fn open(dir: &CheckpointDir, number: u64) -> Result<Self, CheckpointFault> {
        let path = dir.path_of(number);
        let file = dir.open().and_then(|dir| dir.open(&name_of(number), Access::READ));
        let file = file.map_err(CheckpointFault::Io)?;
        let len = file.len().map_err(CheckpointFault::Io)?;
        let mut block = AlignedBuf::zeroed(BLOCK);
        let count = read_full(file.as_ref(), &mut block, 0).map_err(CheckpointFault::Io)?;
        let head = Head::decode(block.get(..count).unwrap_or(&[]), len)?;
        if head.number != number {
            return Err(CheckpointDamage::Number.into());
        }
        // Bounded by the number of slabs that there can be, which the header's CRC covers
        // and the file's length confirms.
        let mut index = AlignedBuf::zeroed(blocks(head.index_len()));
        read_whole(file.as_ref(), &mut index, head.index_offset)?;
        let places = decode_index(&head, &index)?;
        Ok(Self { path, head, places, file })
    }

    /// Returns the place of a slab, if it has records.
    pub(crate) fn place(&self, slab: u32) -> Option<&Place> {
        let at = self.places.binary_search_by_key(&slab, |place| place.slab).ok()?;
        self.places.get(at)
    }

    /// Reads a whole slab into `buffer`.
    pub(crate) fn read<'a>(
        &self,
        place: &Place,
        buffer: &'a mut SlabBuffer,
    ) -> Result<SlabView<'a>, CheckpointFault> {
        let len = blocks(place.len());
        if buffer.0.is_empty() {
            buffer.0 = AlignedBuf::zeroed(blocks(MAX_SLAB_LEN));
        }
        let bytes = buffer.0.get_mut(..len).ok_or(CheckpointDamage::Length)?;
        read_whole(self.file.as_ref(), bytes, place.offset)?;
        Ok(SlabView::decode(place, bytes)?)
    }

    /// Reads the records of a slab that [is full](Place::is_full) into memory for them. On return
    /// the bytes are those of the checkpoint; the caller checks the records.
    pub(crate) fn read_filled(
        &self,
        place: &Place,
        records: &mut [u8],
    ) -> Result<(), CheckpointFault> {
        let mut occupied = [0; BLOCK];
        read_whole(self.file.as_ref(), &mut occupied, place.offset)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&occupied);
        let mut at = place.offset + BLOCK as u64;
        for piece in records.chunks_mut(PIECE) {
            read_whole(self.file.as_ref(), piece, at)?;
            crc.update(piece);
            at += piece.len() as u64;
        }
        if faults::checkpoint::slab_crc(crc.finalize(), place.crc) != place.crc {
            return Err(CheckpointDamage::SlabCrc(place.slab).into());
        }
        if occupied != [u8::MAX; BLOCK] {
            return Err(CheckpointDamage::Field("occupancy").into());
        }
        Ok(())
    }
}

/// A buffer for the bytes of one slab, allocated when it is first needed.
#[derive(Debug)]
pub(crate) struct SlabBuffer(AlignedBuf);

impl SlabBuffer {
    pub(crate) fn new() -> Self {
        Self(AlignedBuf::zeroed(0))
    }
}

fn read_whole(file: &dyn File, bytes: &mut [u8], offset: u64) -> Result<(), CheckpointFault> {
    let count = read_full(file, bytes, offset).map_err(CheckpointFault::Io)?;
    if count == bytes.len() { Ok(()) } else { Err(CheckpointDamage::Length.into()) }
}
