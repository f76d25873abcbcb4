//! Where a reader's range begins and ends, in a log that may be purged meanwhile.

use super::cursor::Track;
use super::index::{Disk, MAX_LOOKS, Map};
use bulla_storage::format::{Frame, FrameKind};
use bulla_storage::frames::read_buffer::READ_LEN;
use bulla_storage::frames::reader::Cursor;
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

/// Returns whether a range ends here: an entry at a place comes after all that the place
/// continues.
pub(super) fn is_reached(until: &Limit, at: &Cursor) -> bool {
    until.is_reached(at.lsn, at.seq, at.wall_ns)
}

/// Finds where reading begins, in a log that may be purged meanwhile.
pub(super) fn begin(disk: &Disk, range: Range, unsure: bool) -> Result<(Map, Track)> {
    let mut looks = 1;
    loop {
        let mut map = Map::read(disk)?;
        check_range(&map, range)?;
        let lower = range.from.lower_limit();
        let begin = map.locate(disk, unsure, |first| match range.from {
            Position::Start => false,
            Position::Time(_) => lower.wall_ns.is_some_and(|limit| first.wall_ns < limit),
            Position::Seq(seq) => first.seq <= seq,
            _ => first.lsn <= lower.lsn,
        })?;
        match Track::open(disk, &map, begin, READ_LEN)? {
            Some(track) => return Ok((map, track)),
            None if looks == MAX_LOOKS => return Err(purged(&map, begin.cursor.lsn.into())),
            None => looks += 1,
        }
    }
}

pub(super) fn check_range(map: &Map, range: Range) -> Result<()> {
    let low_water = &map.control.low_water;
    if range.from.is_purged(low_water.lsn, low_water.seq) {
        return Err(purged(map, range.from));
    }
    for position in [range.from, range.to] {
        if let Position::Lsn { epoch: Some(epoch), lsn } = position {
            map.timeline().check_read(epoch, lsn)?;
        }
    }
    Ok(())
}

pub(super) fn purged(map: &Map, position: Position) -> Error {
    Error::Purged { position, low_water: map.low_water() }
}
