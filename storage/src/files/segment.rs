//! Making segment files: complete, synced and named before anyone needs them.
//!
//! Owns the one sequence that creates a segment, for spares, for a new log and for recovery:
//! temporary name, space, header and frames, sync, rename, directory sync. The rename of an
//! epoch-start segment is the commit point of its recovery.

use std::io;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::error::Error;
use crate::faults;
use crate::faults::failpoints::{Failpoint, skip};
use crate::files::dir::{self, Directory};
use crate::format::Header;
use crate::io::{AlignedBuf, File, write_full};

const CHUNK: usize = 1024 * 1024;

/// The segment to make.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct NewSegment<'a> {
    /// Its first sector.
    pub header: &'a Header,
    /// Length in bytes of the file.
    pub len: u64,
    /// Open it with direct access.
    pub direct: bool,
    /// Write zeros to the rest of it, so that no later sync has to change metadata; else only
    /// reserve that space, where the file system can.
    pub zeroed: bool,
    /// A file of that name may be replaced: one that a repair has copied and given up.
    pub replaces: bool,
    /// Returns whether the segment is still wanted; called between pieces of the work.
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// Why a segment was not made.
#[derive(Debug)]
pub enum CreateError {
    /// The file or its name could not be synced. Neither sync may be tried again.
    Sync(Error),
    /// Something before that failed.
    Other(Error),
}

impl From<Error> for CreateError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        let (CreateError::Sync(error) | CreateError::Other(error)) = error;
        error
    }
}

/// A segment that is complete and synced, under its temporary name.
#[derive(Debug)]
pub struct UnnamedSegment {
    dir: Directory,
    file: Arc<dyn File>,
    name: String,
    temporary: String,
    replaces: bool,
    dir_sync: Failpoint,
}

/// Makes a segment. On return it is durable under its name.
///
/// `frames` writes what follows the header, and returns where it ends (a file offset).
///
/// # Errors
/// The next try or the next open removes what is left under the temporary name.
pub fn create(
    dir: &Directory,
    new: &NewSegment<'_>,
    frames: impl FnOnce(&dyn File) -> io::Result<u64>,
) -> Result<Arc<dyn File>, CreateError> {
    write(dir, new, frames)?.name()
}

/// Makes a segment under its temporary name, which says nothing to a recovery. All the space that
/// it needs is taken on return.
///
/// # Errors
/// As [`create`]. A lack of space is never [`CreateError::Sync`]: nothing is built on the file,
/// and the next try makes another one.
pub fn write(
    dir: &Directory,
    new: &NewSegment<'_>,
    frames: impl FnOnce(&dyn File) -> io::Result<u64>,
) -> Result<UnnamedSegment, CreateError> {
    let number = new.header.number;
    let (name, temporary) = (dir::segment_name(number), dir::segment_temporary_name(number));
    // Before the work: a name that is taken would be tried again and again.
    if !new.replaces && dir.has(&name)? {
        let taken = io::ErrorKind::AlreadyExists.into();
        return Err(Error::io("create", dir.path_of(&name))(taken).into());
    }
    dir.remove(&temporary)?;
    let file = dir.create(&temporary, new.direct)?;
    // The file is ours and incomplete: its space is freed now.
    let remove = || drop(dir.remove(&temporary));
    fill(file.as_ref(), new, frames).map_err(|error| {
        remove();
        Error::io("write", dir.path_of(&temporary))(error)
    })?;
    let (sync, dir_sync) = if new.header.epoch_start.is_some() {
        (Failpoint::EpochStartSync, Failpoint::EpochStartDirSync)
    } else {
        (Failpoint::SpareSync, Failpoint::SpareDirSync)
    };
    if !skip(sync) {
        let synced = file.sync().map_err(Error::io("sync", dir.path_of(&temporary)));
        faults::files::segment_synced(synced).map_err(|error| {
            remove();
            if error.is_out_of_space() {
                CreateError::Other(error)
            } else {
                CreateError::Sync(error)
            }
        })?;
    }
    let (dir, replaces) = (dir.clone(), new.replaces);
    Ok(UnnamedSegment { dir, file, name, temporary, replaces, dir_sync })
}

impl UnnamedSegment {
    /// Gives it its name. On return that is durable.
    ///
    /// # Errors
    /// As [`create`].
    pub fn name(self) -> Result<Arc<dyn File>, CreateError> {
        let Self { dir, file, name, temporary, replaces, dir_sync } = self;
        let renamed = if replaces {
            dir.rename(&temporary, &name)
        } else {
            dir.rename_new(&temporary, &name)
        };
        renamed.inspect_err(|_| drop(dir.remove(&temporary)))?;
        if !skip(dir_sync) {
            faults::files::segment_named(dir.sync()).map_err(CreateError::Sync)?;
        }
        Ok(file)
    }

    /// Removes it, and frees its space.
    pub fn remove(self) {
        // The next open removes it otherwise.
        let _ = self.dir.remove(&self.temporary);
    }
}

fn fill(
    file: &dyn File,
    new: &NewSegment<'_>,
    frames: impl FnOnce(&dyn File) -> io::Result<u64>,
) -> io::Result<()> {
    // Reserve everything at once, so that a lack of space shows before the work and the
    // blocks are contiguous.
    let reserved = match file.preallocate(new.len) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
        Err(error) => return Err(error),
    };
    let mut header = AlignedBuf::zeroed(new.header.sector as usize);
    header.copy_from_slice(&new.header.encode());
    write_full(file, &header, 0)?;
    let mut at = frames(file)?;
    if reserved && !new.zeroed {
        return Ok(());
    }
    // A mapping that is only read takes no memory, and leaves none with an allocator.
    let zeros = MmapMut::map_anon(CHUNK)?;
    while at < new.len {
        if !(new.is_wanted)() {
            return Err(io::Error::other("it is not wanted any more"));
        }
        let len = usize::try_from(new.len - at).unwrap_or(CHUNK).min(CHUNK);
        write_full(file, zeros.get(..len).unwrap_or(&[]), at)?;
        at += len as u64;
    }
    Ok(())
}
