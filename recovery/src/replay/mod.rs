//! Replay: passes the live entries to a visitor, in order.
//!
//! Validates every frame again before it passes the frame's entries on. Stops when the
//! visitor asks for it, at the range's end, or with an error; never skips. Owns no thread:
//! `ahead` does. Tested by `recovery/tests/files/replays.rs`.

mod ahead;

use std::ops::ControlFlow;

pub use bulla_storage::EntryView;
use bulla_storage::format::Entries;
use bulla_storage::{Entry, Limit, Lsn, Position, Range, SegmentNumber, Seq};
use bytes::Bytes;

use crate::log_dir::{LogDir, Piece, damage, no_longer_valid};
use bulla_storage::frames::reader::{Cursor, Found, Located, Step};
use bulla_storage::frames::timeline::Timeline;
use bulla_storage::{Error, Result};

/// What a replay read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ReplayStats {
    /// Frames that hold something of the range.
    pub frames: u64,
    /// Entries passed to the visitor.
    pub entries: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Position and number of the last of them.
    pub last: Option<(Lsn, Seq)>,
    /// The end of that entry's frame, where a repair can cut to leave exactly this much, and
    /// the frame's wall time in ns since 1970.
    pub last_frame: Option<(Lsn, u64)>,
    /// The visitor stopped the replay.
    pub stopped: bool,
}

/// A log whose entries can be replayed.
pub(crate) struct Live<'a> {
    pub(crate) log: &'a LogDir,
    /// All its frames, in order, and where they start.
    pub(crate) pieces: &'a [Piece],
    pub(crate) start: Cursor,
    pub(crate) timeline: &'a Timeline,
}

/// Replays the entries of a log that are in `range`.
pub(crate) fn replay(
    live: &Live<'_>,
    range: Range,
    mut visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    replay_frames(live, range, |located, body, limits, stats| {
        visit(located, body, limits, stats, &mut visitor)
    })
}

/// Replays entries that own their payloads, slices of one copy of each frame's body.
pub(crate) fn replay_owned(
    live: &Live<'_>,
    range: Range,
    mut visitor: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    replay_frames(live, range, |located, body, limits, stats| {
        let body = Bytes::copy_from_slice(body);
        visit(located, &body, limits, stats, &mut |view| {
            let EntryView { lsn, seq, kind, payload, epoch, wall_ns } = *view;
            visitor(Entry { lsn, seq, kind, payload: body.slice_ref(payload), epoch, wall_ns })
        })
    })
}

/// Passes the frames that may hold something of the range, with their bodies, to `each`.
fn replay_frames(
    live: &Live<'_>,
    range: Range,
    mut each: impl FnMut(&Located, &[u8], (Limit, Limit), &mut ReplayStats) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    check_range(live, range)?;
    let range = without_times(live, range)?;
    let (from, to) = (range.from.lower_limit(), range.to.upper_limit());
    let mut stats = ReplayStats::default();
    // A piece's end is where the next frame starts: a range from there on has nothing of it.
    let pieces = live.pieces.iter().filter(|piece| !is_at_or_above(&from, &piece.end));
    let pieces = pieces.take_while(|piece| !is_reached(&to, &piece.start)).collect();
    ahead::frames(live.log, pieces, |located, body| each(located, body, (from, to), &mut stats))?;
    Ok(stats)
}

/// Checks that nothing of the range was purged, and that its positions were not cut off under
/// the epochs they name.
fn check_range(live: &Live<'_>, range: Range) -> Result<()> {
    let Cursor { lsn, seq, .. } = live.start;
    if range.from.is_purged(lsn, seq) {
        return Err(Error::Purged { position: range.from, low_water: lsn });
    }
    for position in [range.from, range.to] {
        if let Position::Lsn { epoch: Some(epoch), lsn } = position {
            live.timeline.check_read(epoch, lsn)?;
        }
    }
    Ok(())
}

/// Returns the range with LSNs for its times.
fn without_times(live: &Live<'_>, Range { from, to }: Range) -> Result<Range> {
    let at_lsn = |position: Position| match position.lower_limit().wall_ns {
        Some(wall_ns) => lsn_at(live, wall_ns).map(Position::from),
        None => Ok(position),
    };
    Ok(Range { from: at_lsn(from)?, to: at_lsn(to)? })
}

/// Returns where a time falls: behind the last frame that was sealed before it. Times go back
/// only from one segment to the next, so a segment's first frame tells whether it has such a
/// frame.
pub(crate) fn lsn_at(live: &Live<'_>, wall_ns: u64) -> Result<Lsn> {
    for piece in live.pieces.iter().rev() {
        let mut frames = live.log.frames_of(piece)?;
        let mut at = piece.start.lsn;
        while at < piece.end.lsn {
            let offset = frames.offset();
            match frames.skip()? {
                Ok(located) if located.frame.wall_ns < wall_ns => at = located.after.lsn,
                Ok(_) => break,
                Err(end) => return Err(no_longer_valid(piece, offset, at, damage(end))),
            }
        }
        if at > piece.start.lsn {
            return Ok(at);
        }
    }
    Ok(live.start.lsn)
}

/// Returns whether a range from this limit on has nothing before `end`.
fn is_at_or_above(from: &Limit, end: &Cursor) -> bool {
    from.lsn >= end.lsn || from.seq >= end.seq
}

/// Returns whether a range up to this limit ends at `at`, or before.
pub(crate) fn is_reached(to: &Limit, at: &Cursor) -> bool {
    to.is_reached(at.lsn, at.seq)
}

fn visit(
    located: &Located,
    body: &[u8],
    (from, to): (Limit, Limit),
    stats: &mut ReplayStats,
    visitor: &mut impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let wall_ns = located.frame.wall_ns;
    let (mut entries, mut payload_bytes, mut last) = (0, 0, None);
    let mut flow = ControlFlow::Continue(());
    for entry in Entries::new(&located.frame, body) {
        // The entries were decoded when the frame was validated.
        let Ok(entry) = entry else { break };
        if entries == 0 && from.is_above(entry.lsn, entry.seq) {
            continue;
        }
        if to.is_reached(entry.lsn, entry.seq) {
            flow = ControlFlow::Break(());
            break;
        }
        entries += 1;
        payload_bytes += entry.payload.len() as u64;
        last = Some((entry.lsn, entry.seq));
        let view = EntryView {
            lsn: entry.lsn,
            seq: entry.seq,
            kind: entry.kind,
            payload: entry.payload,
            epoch: located.frame.epoch,
            wall_ns,
        };
        if visitor(&view).is_break() {
            stats.stopped = true;
            flow = ControlFlow::Break(());
            break;
        }
    }
    if is_reached(&to, &located.after) {
        flow = ControlFlow::Break(());
    }
    if last.is_some() {
        stats.frames += 1;
        stats.entries += entries;
        stats.payload_bytes += payload_bytes;
        (stats.last, stats.last_frame) = (last, Some((located.after.lsn, wall_ns)));
    }
    flow
}

/// Reads and validates every frame of a piece, and passes them to `each`, in order.
///
/// # Errors
/// Corruption when a frame is no longer valid.
pub(crate) fn each_frame(
    log: &LogDir,
    piece: &Piece,
    mut each: impl FnMut(SegmentNumber, &Found<'_>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut frames = log.frames_of(piece)?;
    let mut at = piece.start;
    loop {
        let offset = frames.offset();
        match frames.step()? {
            Step::Frame(found) => {
                at = found.after;
                if each(piece.header.number, &found)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Step::End(_) if at.lsn == piece.end.lsn => return Ok(ControlFlow::Continue(())),
            Step::End(end) => {
                return Err(no_longer_valid(piece, offset, at.lsn, damage(end)));
            }
        }
    }
}
