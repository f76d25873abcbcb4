//! Read-only inspection of each checkpoint of a store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_recovery::backup::CheckpointCopy;
use bulla_recovery::{Inspection, RepairPreview, Status};
use bulla_storage::files::dir::Directory;
use bulla_storage::frames::anchor::Anchor;
use bulla_wal::{Error as LogError, Options};

use super::error::CheckpointFault;
use super::files::{Checkpoint, CheckpointDir, SlabBuffer};
use super::open::CheckpointInfo;
use crate::error::Result;

/// The most checkpoints that are opened for a backup: a store has two, briefly three.
const MAX_COPIES: usize = 8;

/// The file of a checkpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckpointFile {
    /// The number in its name.
    pub number: u64,
    /// The file.
    pub path: PathBuf,
    /// Its contents in brief, if what was read of it is intact.
    pub state: Result<CheckpointInfo, CheckpointFault>,
    /// The anchor in its header, if that is intact.
    anchor: Option<Anchor>,
}

/// Reads the checkpoints of the store in `dir`, the newest first: their headers and indexes, and
/// with `all` every byte. [`usable_checkpoints`] tells which of them fit the log.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the directory can't be listed.
pub fn checkpoints(
    dir: impl AsRef<Path>,
    options: &Options,
    all: bool,
) -> Result<Vec<CheckpointFile>> {
    let dir = CheckpointDir::of(&Directory::open(options.io.as_ref(), dir.as_ref())?);
    let listing = dir.list().map_err(LogError::io("list", &dir.path))?;
    let files = listing.numbers.into_iter().map(|number| inspect(&dir, number, all));
    Ok(files.flatten().collect())
}

/// Reads one checkpoint; returns `None` where a running store has removed it in the meantime.
fn inspect(dir: &CheckpointDir, number: u64, all: bool) -> Option<CheckpointFile> {
    let read = Checkpoint::open(dir, number);
    if matches!(&read, Err(CheckpointFault::Io(error)) if error.kind() == ErrorKind::NotFound) {
        return None;
    }
    let anchor = read.as_ref().ok().map(|checkpoint| checkpoint.head.anchor);
    let state = read.and_then(|checkpoint| {
        if all {
            read_all(&checkpoint)?;
        }
        Ok(CheckpointInfo::from(&checkpoint.head))
    });
    Some(CheckpointFile { number, path: dir.path_of(number), state, anchor })
}

/// Opens the checkpoints whose headers are intact, the newest first, for a backup.
pub(crate) fn copies(dir: &CheckpointDir) -> std::io::Result<Vec<CheckpointCopy>> {
    let numbers = dir.list()?.numbers.into_iter().take(MAX_COPIES);
    let intact = numbers.filter_map(|number| Checkpoint::open(dir, number).ok());
    let copy = |checkpoint: Checkpoint| CheckpointCopy {
        number: checkpoint.head.number,
        file: Arc::clone(&checkpoint.file),
        len: checkpoint.head.file_len(),
        anchor: checkpoint.head.anchor,
        is_whole: Box::new(move || read_all(&checkpoint).is_ok()),
    };
    Ok(intact.map(copy).collect())
}

fn read_all(checkpoint: &Checkpoint) -> Result<(), CheckpointFault> {
    let mut buffer = SlabBuffer::new();
    checkpoint.places.iter().try_for_each(|place| checkpoint.read(place, &mut buffer).map(drop))
}

/// Returns the numbers of those [`checkpoints`] of the store in `dir` that an open could use, the
/// newest first; it uses the first two. Their headers are intact, they belong to the log's
/// history and are not newer than its end, and the log after the first of them is intact.
/// `inspection` is of the same directory; for a running store, make it after `files`.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the log can't be read.
pub fn usable_checkpoints(
    dir: impl AsRef<Path>,
    options: &Options,
    inspection: &Inspection,
    files: &[CheckpointFile],
) -> Result<Vec<u64>> {
    let anchors = anchors(files);
    let is_corrupt =
        |inspection: &Inspection| matches!(inspection.report().status, Status::Corrupt(_));
    let standing = if is_corrupt(inspection) {
        // The damage may be below one of them, where an open does not read.
        let above = Inspection::read_above(dir.as_ref(), options, &anchors)?;
        if is_corrupt(&above) { Vec::new() } else { above.standing(&anchors)? }
    } else {
        inspection.standing(&anchors)?
    };
    Ok(numbers(files, &standing))
}

/// Returns the numbers of those whose place in the log is intact, whatever follows it: after a
/// repair that cuts above them a store can open from the newest of them.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the log can't be read.
pub fn standing_checkpoints(inspection: &Inspection, files: &[CheckpointFile]) -> Result<Vec<u64>> {
    Ok(numbers(files, &inspection.standing(&anchors(files))?))
}

/// Returns the numbers of those that an open could use after a repair. `inspection` is of the
/// same directory as it is now.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the log can't be read.
pub fn usable_checkpoints_after(
    repair: &RepairPreview,
    inspection: &Inspection,
    files: &[CheckpointFile],
) -> Result<Vec<u64>> {
    let mut standing = inspection.standing(&anchors(files))?;
    standing.retain(|anchor| repair.keeps(anchor));
    Ok(numbers(files, &standing))
}

/// Returns the places in the log that the checkpoints with intact headers belong to, in their order.
#[must_use]
pub fn anchors(files: &[CheckpointFile]) -> Vec<Anchor> {
    files.iter().filter_map(|file| file.anchor).collect()
}

fn numbers(files: &[CheckpointFile], standing: &[Anchor]) -> Vec<u64> {
    let stands =
        |file: &&CheckpointFile| file.anchor.is_some_and(|anchor| standing.contains(&anchor));
    files.iter().filter(stands).map(|file| file.number).collect()
}
