//! Where a reader's range begins and ends, in a log that may be purged meanwhile.

use super::cursor::ReadCursor;
use super::index::{Disk, MAX_LOOKS, SegmentIndex};
use crate::faults;
use bulla_storage::format::{Frame, FrameKind, LowWater};
use bulla_storage::frames::read_buffer::READ_LEN;
use bulla_storage::{Error, Limit, Position, Range, Result, Seq};

/// Numbers begin with it: nothing before it was purged.
pub(super) const FIRST_SEQ: Seq = Seq(1);

/// Returns whether a range begins after a frame.
pub(super) fn is_after(skip: &Limit, frame: &Frame, sector: u32) -> bool {
    frame.kind == FrameKind::Data
        && (frame.end(sector) <= skip.lsn
            || frame.next_seq() <= skip.seq
            || skip.wall_ns.is_some_and(|limit| frame.wall_ns < limit))
}

/// Finds where reading begins, in a log that may be purged meanwhile, and what it passes over.
pub(super) fn begin(
    disk: &Disk,
    range: Range,
    unsure: bool,
) -> Result<(SegmentIndex, ReadCursor, Limit)> {
    let mut looks = 1;
    loop {
        let mut index = SegmentIndex::read(disk)?;
        check_range(&index, range)?;
        let mut skip = range.from.lower_limit();
        if let Some(limit) = skip.wall_ns {
            skip.lsn = index.locate(disk, false, |first| first.wall_ns < limit)?.cursor.lsn;
        }
        let begin = index.locate(disk, unsure, |first| match range.from {
            Position::Start => false,
            Position::Seq(seq) => first.seq <= seq,
            _ => first.lsn <= skip.lsn,
        })?;
        match ReadCursor::open(disk, &index, begin, READ_LEN)? {
            Some(cursor) => return Ok((index, cursor, skip)),
            None if looks == MAX_LOOKS => return Err(purged(&index, begin.cursor.lsn.into())),
            None => looks += 1,
        }
    }
}

pub(super) fn check_range(index: &SegmentIndex, range: Range) -> Result<()> {
    let low_water = &index.control.low_water;
    if range.from.is_purged(low_water.lsn, low_water.seq) {
        return Err(purged(index, range.from));
    }
    if let Some(gap) = index.gap_at(range.from) {
        return Err(gap);
    }
    for position in [range.from, range.to] {
        if let Position::Lsn { epoch: Some(epoch), lsn } = position {
            faults::reader::check_read(index.timeline().check_read(epoch, lsn))?;
        }
    }
    Ok(())
}

/// Returns why a position below the segments that are known can't be read: it was purged, or it is
/// in damage or below it.
pub(super) fn purged(index: &SegmentIndex, position: Position) -> Error {
    let LowWater { lsn, seq, .. } = index.control.low_water;
    match index.gap_at(position) {
        Some(gap) if !position.is_purged(lsn, seq) => gap,
        _ => Error::Purged { position, low_water: lsn },
    }
}
