//! A read-only look at the checkpoints of a store, for those who want to know of each.

use std::path::{Path, PathBuf};

use bulla_wal::{Error as LogError, Options};

use super::error::CheckpointFault;
use super::files::{Checkpoint, Folder, SlabBuffer};
use super::open::CheckpointInfo;
use crate::error::Result;

/// A checkpoint's file.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckpointFile {
    /// The number in its name.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// What it says, if what was looked at of it is whole.
    pub state: Result<CheckpointInfo, CheckpointFault>,
}

/// The checkpoints of the store in `dir`, the newest first: their headers and indexes, and
/// with `all` every byte. Whether they fit the log is for an open to tell.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the folder can't be listed.
pub fn checkpoints(dir: &Path, options: &Options, all: bool) -> Result<Vec<CheckpointFile>> {
    let folder = Folder::of(options.file_system(), dir);
    let listing = folder.list().map_err(LogError::io("list", &folder.path))?;
    let look = |number| {
        let state = Checkpoint::open(&folder, number).and_then(|checkpoint| {
            if all {
                read_all(&checkpoint)?;
            }
            Ok(CheckpointInfo::from(&checkpoint.head))
        });
        CheckpointFile { number, path: folder.path_of(number), state }
    };
    Ok(listing.numbers.into_iter().map(look).collect())
}

fn read_all(checkpoint: &Checkpoint) -> Result<(), CheckpointFault> {
    let mut buffer = SlabBuffer::new();
    checkpoint.places.iter().try_for_each(|place| checkpoint.read(place, &mut buffer).map(drop))
}
