//! The rule of every purge: where the log may start, and in which order its files change.
//!
//! Owns which segment stays the first one, and that CONTROL says durably which segments are dead
//! before the first of them is removed; what a crash leaves of them the next open removes. Never
//! decides what is kept: its callers pass that. Tested by `recovery/tests/files/purges.rs` and the
//! simulator's suites.

use std::io::ErrorKind;

use crate::error::{Error, Result};
use crate::faults;
use crate::files::control::ControlFile;
use crate::files::dir::{Directory, segment_name};
use crate::format::{Control, LowWater};
use crate::position::{Lsn, SegmentNumber};
use crate::range::Position;

/// A place that a purge keeps with all that follows, such as what a checkpoint needs of the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Floor {
    /// The first position that is needed.
    pub lsn: Lsn,
    /// The segment that holds it. Of two segments that start at the same position it tells which.
    pub segment: SegmentNumber,
}

/// Returns the start of the segment that becomes the log's first one: of those in `starts`, which
/// are in order, the last that starts at or below `keep_from`, the durable end and every floor.
/// `None` when there is no such segment: then nothing can be purged.
#[must_use]
pub fn first_kept(
    starts: &[LowWater],
    keep_from: Lsn,
    durable: Lsn,
    floors: &[Floor],
) -> Option<LowWater> {
    let keep_from = faults::purge::keep_from(keep_from, keep_from.min(durable));
    let floors = faults::purge::floors(floors);
    let is_below =
        |start: &LowWater, floor: &Floor| start.lsn <= floor.lsn && start.segment <= floor.segment;
    let fits = |start: &&LowWater| {
        start.lsn <= keep_from && floors.iter().all(|floor| is_below(start, floor))
    };
    starts.iter().rev().find(fits).copied()
}

/// Returns the LSN at which a purge must begin to keep so that it keeps everything from `position`
/// on. A number becomes the start of the segment that holds it, a time that of the first segment
/// with a frame from then or later, although a clock that was wrong may have put earlier ones
/// behind it; `starts` are in order.
#[must_use]
pub fn keep_from(starts: &[LowWater], position: Position) -> Lsn {
    let start = match (position, position.lower_limit().wall_ns) {
        (Position::Lsn { lsn, .. }, _) => return lsn,
        (Position::End, _) => return Lsn::MAX,
        (Position::Seq(seq), _) => starts.iter().rfind(|start| start.seq <= seq),
        // A start has the time of the last frame before it, the latest of its segment.
        (_, Some(wall_ns)) => {
            let next = starts.iter().skip(1).position(|next| next.wall_ns >= wall_ns);
            next.map_or(starts.last(), |index| starts.get(index))
        }
        _ => None,
    };
    start.or(starts.first()).map_or(Lsn::ZERO, |start| start.lsn)
}

/// Moves the low-water mark in CONTROL. On return it is durable, and [`unlink`] may follow.
///
/// # Errors
/// Those of [`ControlFile::store`].
pub fn mark(
    control: &mut ControlFile,
    dir: &Directory,
    low_water: LowWater,
) -> std::io::Result<()> {
    let next = Control { low_water, ..*control.current() };
    faults::purge::store(control, dir, next)
}

/// Removes the segments from `from` to below `to`, the low-water mark's.
///
/// # Errors
/// [`Error::Io`]. The next open removes those that are left.
pub fn unlink(dir: &Directory, from: SegmentNumber, to: SegmentNumber) -> Result<()> {
    (from.0..to.0).try_for_each(|number| match dir.remove(&segment_name(SegmentNumber(number))) {
        // Something else has the name of a segment that is gone. It is not ours to remove.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::IsADirectory => Ok(()),
        removed => removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Seq;

    fn start(segment: u64, lsn: u64) -> LowWater {
        LowWater { segment: SegmentNumber(segment), lsn: Lsn(lsn), ..LowWater::START }
    }

    fn floor(segment: u64, lsn: u64) -> Floor {
        Floor { lsn: Lsn(lsn), segment: SegmentNumber(segment) }
    }

    #[test]
    fn first_segment_kept_is_at_or_below_every_bound() {
        // Segments 3 and 4 start at the same position.
        let starts = [start(1, 0), start(2, 100), start(3, 200), start(4, 200), start(5, 300)];
        let kept = |keep_from, durable, floors: &[Floor]| {
            let kept = first_kept(&starts, Lsn(keep_from), Lsn(durable), floors);
            kept.map(|start| start.segment.0)
        };
        assert_eq!(kept(u64::MAX, 350, &[]), Some(5));
        assert_eq!(kept(299, 350, &[]), Some(4));
        assert_eq!(kept(100, 350, &[]), Some(2));
        assert_eq!(kept(u64::MAX, 299, &[]), Some(4), "the rest is not durable");
        assert_eq!(kept(u64::MAX, 350, &[floor(5, 320), floor(3, 200)]), Some(3));
        assert_eq!(kept(u64::MAX, 350, &[floor(2, 150)]), Some(2));
        assert_eq!(kept(50, 350, &[floor(2, 150)]), Some(1));
        assert_eq!(first_kept(&starts[1..], Lsn(50), Lsn(350), &[]), None);
    }

    #[test]
    fn numbers_and_times_are_kept_with_their_segment() {
        let start = |segment, lsn, seq, wall_ns| {
            let seq = Seq(seq);
            LowWater { seq, wall_ns, ..start(segment, lsn) }
        };
        // No entry is in the second segment.
        let starts = [start(1, 100, 5, 10), start(2, 200, 8, 20), start(3, 300, 8, 20)];
        let kept = |position| keep_from(&starts, position).0;
        assert_eq!(kept(Lsn(250).into()), 250);
        assert_eq!(kept(Position::Start), 100);
        assert_eq!(kept(Position::End), u64::MAX);
        let by_seq = [1, 5, 7, 8, 9].map(|seq| kept(Seq(seq).into()));
        assert_eq!(by_seq, [100, 100, 100, 300, 300]);
        let by_time = [0, 10, 20, 21].map(|ns| kept(Position::at_wall_ns(ns)));
        assert_eq!(by_time, [100, 100, 100, 300], "frames before 300 may be of time 20");
    }

    #[test]
    fn what_may_be_from_a_time_or_later_is_kept_though_a_clock_was_wrong() {
        let start = |segment, wall_ns| LowWater { wall_ns, ..start(segment, segment * 100) };
        let kept = |starts: &[LowWater], ns| keep_from(starts, Position::at_wall_ns(ns)).0;
        // The second segment was written by a clock that was behind.
        let behind = [start(1, 0), start(2, 50), start(3, 20), start(4, 60)];
        assert_eq!([20, 50, 51, 60, 61].map(|ns| kept(&behind, ns)), [100, 100, 300, 300, 400]);
        // By one that was ahead.
        let ahead = [start(1, 0), start(2, 20), start(3, 90), start(4, 40)];
        assert_eq!([20, 21, 40, 90, 91].map(|ns| kept(&ahead, ns)), [100, 200, 200, 200, 400]);
    }
}
