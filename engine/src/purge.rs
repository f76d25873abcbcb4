//! Purge of a log that is not open, and that may be a store's.
//!
//! Owns what a store needs of its log: the checkpoints say it. The purge itself is
//! `bulla_recovery`'s. Tested by `engine/tests/purge.rs`, and at every step by
//! `tests/tests/full_disk.rs`.

use std::path::Path;

use bulla_recovery::{Floor, Inspection, Position, Purge, PurgeReport, Report};
use bulla_storage::files::dir::Directory;
use bulla_storage::frames::anchor::Anchor;
use bulla_wal::{Options, SegmentNumber, Seq};

use crate::checkpoint::{Candidates, CheckpointDir, CheckpointError};
use crate::error::Result;

/// Purges the log in `dir`, which no one has open: removes whole segments that hold nothing at or
/// above `keep_from`, nothing that is not known to be durable, and nothing that the store's
/// checkpoints need. On return the log's new start is durable.
///
/// It creates no file, so that it works on a full disk, where an open lacks space. With
/// [`Position::End`] it purges as much as the store can do without.
///
/// The store of a log without checkpoints needs all of it. A log that is not a store's is purged
/// as by [`bulla_recovery::purge`].
///
/// # Errors
/// [`CheckpointError::StillNeeded`] when the store needs something below `keep_from`;
/// [`CheckpointError::Missing`] when it can't be opened at all; [`Error::Log`](crate::Error::Log)
/// when the log is corrupt, locked or not there. Nothing was purged then. `Error::Log` also when
/// the disk fails; the next open or purge removes what is left below the log's start.
pub fn purge(
    dir: impl AsRef<Path>,
    keep_from: impl Into<Position>,
    options: &Options,
) -> Result<PurgeReport> {
    let keep_from = keep_from.into();
    let mut candidates = Candidates::default();
    let purge = Purge::prepare(dir.as_ref(), &options.clone().any_content(), |dir| {
        candidates = Candidates::recover(&CheckpointDir::of(dir))?;
        Ok(candidates.anchors())
    })?;
    let floor = floor(candidates, purge.standing(), &purge.report())?;
    check(keep_from, floor, &purge.preview(keep_from, &[])?)?;
    Ok(purge.run(keep_from, floor.as_slice())?)
}

/// Returns what [`purge`] would do now. Takes no lock, changes nothing.
///
/// # Errors
/// Those of [`purge`].
pub fn preview_purge(
    dir: impl AsRef<Path>,
    keep_from: impl Into<Position>,
    options: &Options,
) -> Result<PurgeReport> {
    let keep_from = keep_from.into();
    let dir = Directory::of_log(options.io.as_ref(), dir.as_ref())?;
    // A running store writes the log first, then the checkpoint.
    let candidates = Candidates::read(&CheckpointDir::of(&dir))?;
    let inspection = Inspection::read_in(&dir, options, &[])?;
    let unbounded = inspection.preview_purge(keep_from, &[])?;
    let standing = inspection.standing(&candidates.anchors())?;
    let floor = floor(candidates, &standing, inspection.report())?;
    check(keep_from, floor, &unbounded)?;
    let unheld = inspection.preview_purge(keep_from, floor.as_slice())?;
    let mut floors = inspection.held(unheld.first_lsn)?;
    floors.extend(floor);
    Ok(inspection.preview_purge(keep_from, &floors)?)
}

/// Returns from where on a store needs its log: the older of its two checkpoints does. `None` for
/// a log that is not a store's.
fn floor(candidates: Candidates, standing: &[Anchor], found: &Report) -> Result<Option<Floor>> {
    if candidates.highest == 0 && !found.content.is_of_store() {
        return Ok(None);
    }
    let choice = candidates.choose(standing, found.first_lsn, found.first_seq == Seq(1))?;
    // With one checkpoint the log from its first entry is the other; with none it is all.
    let whole = Floor { lsn: found.first_lsn, segment: SegmentNumber::MAX };
    Ok(Some(choice.needed().map_or(whole, |anchor| anchor.floor())))
}

/// Refuses a purge that would remove what the store needs; `unbounded` is what would be purged
/// without a floor.
fn check(
    keep_from: Position,
    floor: Option<Floor>,
    unbounded: &PurgeReport,
) -> Result<(), CheckpointError> {
    match floor {
        Some(Floor { lsn: needed, .. })
            if keep_from != Position::End && unbounded.first_lsn > needed =>
        {
            Err(CheckpointError::StillNeeded { keep_from, needed })
        }
        _ => Ok(()),
    }
}
