//! What an open does beside its commit point: before it, it removes dead files; after it, it
//! copies what is cut off, then trims.
//!
//! Owns how much of an older segment stays, and trims only when the new epoch is durable. All of it
//! can run again after a crash. Tested by `recovery/tests/files/crashes.rs`.

use std::path::PathBuf;

use bulla_storage::SegmentNumber;
use bulla_storage::files::dir::segment_name;
use bulla_storage::io::{Access, FileKind};

use crate::analysis::Analysis;
use crate::log_dir::{LogDir, Piece};
use crate::plan::PlannedSegment;
use crate::quarantine::Quarantine;
use bulla_storage::{Error, Result};

/// Returns the file offset after what the segment with this index in the plan keeps, which
/// includes everything below the start of the scan.
fn kept_len(analysis: &Analysis, pieces: &[Piece], index: usize, segment: &PlannedSegment) -> u64 {
    let (plan, sector) = (&analysis.plan, analysis.control.sector);
    let keep = keep_len(pieces, segment.number, sector);
    match index.cmp(&plan.first) {
        std::cmp::Ordering::Less => segment.file_len,
        std::cmp::Ordering::Equal => {
            let unseen = plan.start.lsn.distance_from(plan.first_start.lsn);
            keep.max(u64::from(sector).saturating_add(unseen))
        }
        std::cmp::Ordering::Greater => keep,
    }
}

/// Returns the file offset after what a segment keeps: at least its header.
pub(crate) fn keep_len(pieces: &[Piece], number: SegmentNumber, sector: u32) -> u64 {
    pieces
        .iter()
        .find(|piece| piece.header.number == number)
        .map_or(u64::from(sector), Piece::end_offset)
}

/// Copies what is cut off, before [`trim`] removes it. After a recovery that a crash interrupted
/// it copies more than was cut off, because the two can't be told apart any more.
pub(crate) fn keep_cut_bytes(
    log: &LogDir,
    analysis: &Analysis,
    pieces: &[Piece],
) -> Result<Vec<PathBuf>> {
    let mut quarantine = Quarantine::new(log);
    for (index, segment) in analysis.plan.segments.iter().enumerate() {
        let keep = kept_len(analysis, pieces, index, segment);
        let from = analysis.cut_from(index).map_or(keep, |from| from.max(keep));
        if segment.file_len > from && !analysis.is_zero_from(index, from) {
            let source = segment_name(segment.number);
            let (epoch, number) = (segment.header.epoch, segment.number);
            quarantine.keep_rest(&source, from, &format!("{epoch}-{number}-{from}.bin"))?;
        }
    }
    quarantine.finish()
}

/// Truncates older segments to what counts of them. Only purge removes one: a replaced
/// segment keeps its number.
pub(crate) fn trim(log: &LogDir, analysis: &Analysis, pieces: &[Piece]) -> Result<()> {
    for (index, segment) in analysis.plan.segments.iter().enumerate() {
        let keep = kept_len(analysis, pieces, index, segment);
        if segment.file_len > keep {
            let name = segment_name(segment.number);
            let file = log.dir.file(&name, Access::WRITE)?;
            file.set_len(keep).map_err(Error::io("truncate", log.dir.path_of(&name)))?;
        }
    }
    Ok(())
}

/// Removes segments below the low-water mark, and temporary files that a crash left behind.
/// CONTROL, which says that they are dead, is durable.
pub(crate) fn remove_dead(log: &LogDir, analysis: &Analysis) -> Result<()> {
    let first = analysis.plan.low_water.segment;
    let dead = analysis.listing.segments.iter();
    let dead = dead
        .filter(|file| file.number < first && file.kind == FileKind::Regular)
        .map(|file| segment_name(file.number));
    let mut names = dead.chain(analysis.listing.temporaries.iter().cloned());
    names.try_for_each(|name| log.dir.remove(&name))
}
