//! A read-only look at the checkpoints of a store, for those who want to know of each.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, RepairPreview, Status};
use bulla_storage::frames::anchor::Landmark;
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
    /// What its header says, if that is whole.
    landmark: Option<Landmark>,
}

/// The checkpoints of the store in `dir`, the newest first: their headers and indexes, and
/// with `all` every byte. [`usable_checkpoints`] tells which of them fit the log.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the folder can't be listed.
pub fn checkpoints(dir: &Path, options: &Options, all: bool) -> Result<Vec<CheckpointFile>> {
    let folder = Folder::of(&options.io, dir);
    let listing = folder.list().map_err(LogError::io("list", &folder.path))?;
    let files = listing.numbers.into_iter().map(|number| look(&folder, number, all));
    Ok(files.flatten().collect())
}

/// None where a running store has removed it meanwhile.
fn look(folder: &Folder, number: u64, all: bool) -> Option<CheckpointFile> {
    let read = Checkpoint::open(folder, number);
    if matches!(&read, Err(CheckpointFault::Io(error)) if error.kind() == ErrorKind::NotFound) {
        return None;
    }
    let landmark = read.as_ref().ok().map(|checkpoint| checkpoint.head.landmark);
    let state = read.and_then(|checkpoint| {
        if all {
            read_all(&checkpoint)?;
        }
        Ok(CheckpointInfo::from(&checkpoint.head))
    });
    Some(CheckpointFile { number, path: folder.path_of(number), state, landmark })
}

fn read_all(checkpoint: &Checkpoint) -> Result<(), CheckpointFault> {
    let mut buffer = SlabBuffer::new();
    checkpoint.places.iter().try_for_each(|place| checkpoint.read(place, &mut buffer).map(drop))
}

/// The numbers of those of the [`checkpoints`] of the store in `dir` that an open could go by,
/// the newest first, and takes the first two of: their headers are whole, they are of the log's
/// history and not ahead of it, and the log after the first of them is sound. `inspection` is of the same directory, of a store
/// that runs one that was made after `files`.
///
/// # Errors
/// [`Error::Recovery`](crate::Error::Recovery) when the log can't be read.
pub fn usable_checkpoints(
    dir: &Path,
    options: &Options,
    inspection: &Inspection,
    files: &[CheckpointFile],
) -> Result<Vec<u64>> {
    let landmarks = landmarks(files);
    let is_corrupt =
        |inspection: &Inspection| matches!(inspection.report().status, Status::Corrupt(_));
    let standing = if is_corrupt(inspection) {
        // The damage may be below one of them, where no open looks.
        let above = Inspection::read_above(dir, options, &landmarks)?;
        if is_corrupt(&above) { Vec::new() } else { above.standing(&landmarks)? }
    } else {
        inspection.standing(&landmarks)?
    };
    Ok(numbers(files, &standing))
}

/// The numbers of those whose place in the log is there and sound, whatever is after it: after
/// a repair that cuts above them a store can be opened from the newest of them.
///
/// # Errors
/// [`Error::Recovery`](crate::Error::Recovery) when the log can't be read.
pub fn standing_checkpoints(inspection: &Inspection, files: &[CheckpointFile]) -> Result<Vec<u64>> {
    Ok(numbers(files, &inspection.standing(&landmarks(files))?))
}

/// The numbers of those that an open could go by after a repair. `inspection` is of the same
/// directory as it is now.
///
/// # Errors
/// [`Error::Recovery`](crate::Error::Recovery) when the log can't be read.
pub fn usable_checkpoints_after(
    repair: &RepairPreview,
    inspection: &Inspection,
    files: &[CheckpointFile],
) -> Result<Vec<u64>> {
    let mut standing = inspection.standing(&landmarks(files))?;
    standing.retain(|landmark| repair.keeps(landmark));
    Ok(numbers(files, &standing))
}

fn landmarks(files: &[CheckpointFile]) -> Vec<Landmark> {
    files.iter().filter_map(|file| file.landmark).collect()
}

fn numbers(files: &[CheckpointFile], standing: &[Landmark]) -> Vec<u64> {
    let stands =
        |file: &&CheckpointFile| file.landmark.is_some_and(|landmark| standing.contains(&landmark));
    files.iter().filter(stands).map(|file| file.number).collect()
}
