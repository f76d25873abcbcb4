//! Replay: the live entries in order, given to a visitor.
//!
//! Every frame is validated again on the way: what is given was read whole. Stops at
//! the visitor's word, at the range's end, or with an error; never skips.

use std::fmt;
use std::ops::ControlFlow;

use bulla_storage::Corruption;
use bulla_storage::CorruptionKind;
pub use bulla_storage::EntryView;
use bulla_storage::FrameDamage;
use bulla_storage::Lsn;
use bulla_storage::SegmentNumber;
use bulla_storage::Seq;
use bulla_storage::format::Entries;

use crate::ahead;
use crate::analysis::{LogDir, Piece};
use crate::error::{Error, Result};
use bulla_storage::frames::reader::{Cursor, End, Found, Located, Step};

/// One end of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bound {
    /// A position.
    Lsn(Lsn),
    /// The number of an entry.
    Seq(Seq),
    /// A wall time in ns since 1970: the first entry whose frame was sealed then or later.
    /// A log's times never go back, but its writer's clock may have been wrong.
    Time(u64),
    /// No bound.
    #[default]
    Unbounded,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Self::Seq(seq) => write!(f, "Seq {seq}"),
            Self::Time(ns) => write!(f, "{ns} ns since 1970"),
            Self::Unbounded => f.write_str("unbounded"),
        }
    }
}

/// Which entries are replayed. The default is all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The first entry at or after this.
    pub from: Bound,
    /// Up to the last entry before this.
    pub to: Bound,
}

impl Range {
    /// All live entries.
    pub const ALL: Self = Self { from: Bound::Unbounded, to: Bound::Unbounded };
}

/// What a replay went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayStats {
    /// Frames that hold something of the range.
    pub frames: u64,
    /// Entries given to the visitor.
    pub entries: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Position and number of the last of them.
    pub last: Option<(Lsn, Seq)>,
    /// Of its frame: its end, where a repair can cut so that just this much is left, and
    /// its wall time in ns since 1970.
    pub last_frame: Option<(Lsn, u64)>,
    /// The visitor broke off.
    pub stopped: bool,
}

/// Is an entry, with its frame's wall time, before a bound?
fn is_before(lsn: Lsn, seq: Seq, wall_ns: u64, bound: Bound) -> bool {
    match bound {
        Bound::Lsn(bound) => lsn < bound,
        Bound::Seq(bound) => seq < bound,
        Bound::Time(bound) => wall_ns < bound,
        Bound::Unbounded => false,
    }
}

/// Replays the entries of `pieces` that are in `range`.
pub(crate) fn replay(
    log: &LogDir,
    pieces: &[Piece],
    start: Cursor,
    range: Range,
    mut visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    if is_before_start(range.from, start) {
        return Err(Error::Purged { position: range.from, low_water: start.lsn });
    }
    let mut stats = ReplayStats::default();
    // `end` is what comes next: a piece that ends there has nothing of the range.
    let pieces = pieces.iter().filter(|piece| !is_at_or_after_end(piece, range.from));
    let pieces = pieces.take_while(|piece| !is_reached(range.to, piece.start)).collect();
    ahead::frames(log, pieces, |located, body| {
        visit(located, body, range, &mut stats, &mut visitor)
    })?;
    Ok(stats)
}

fn is_before_start(from: Bound, start: Cursor) -> bool {
    match from {
        Bound::Lsn(from) => from < start.lsn,
        Bound::Seq(from) => from < start.seq,
        // What was purged is older than a time, too, but nobody can tell by how much.
        Bound::Time(_) | Bound::Unbounded => false,
    }
}

/// Does the range end at a place, or before?
pub(crate) fn is_reached(to: Bound, at: Cursor) -> bool {
    match to {
        Bound::Lsn(to) => at.lsn >= to,
        Bound::Seq(to) => at.seq >= to,
        // So was a frame before it.
        Bound::Time(to) => at.wall_ns >= to,
        Bound::Unbounded => false,
    }
}

/// Does the range begin only after this piece?
fn is_at_or_after_end(piece: &Piece, from: Bound) -> bool {
    match from {
        Bound::Lsn(from) => from >= piece.end.lsn,
        Bound::Seq(from) => from >= piece.end.seq,
        Bound::Time(from) => from > piece.end.wall_ns,
        Bound::Unbounded => false,
    }
}

fn visit(
    found: &Located,
    body: &[u8],
    range: Range,
    stats: &mut ReplayStats,
    visitor: &mut impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let wall_ns = found.frame.wall_ns;
    let (mut entries, mut payload_bytes, mut last) = (0, 0, None);
    let mut flow = ControlFlow::Continue(());
    for entry in Entries::new(&found.frame, body) {
        // The walk has gone through them before.
        let Ok(entry) = entry else { break };
        if entries == 0 && is_before(entry.lsn, entry.seq, wall_ns, range.from) {
            continue;
        }
        if range.to != Bound::Unbounded && !is_before(entry.lsn, entry.seq, wall_ns, range.to) {
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
            epoch: found.frame.epoch,
            wall_ns,
        };
        if visitor(&view).is_break() {
            stats.stopped = true;
            flow = ControlFlow::Break(());
            break;
        }
    }
    if is_reached(range.to, found.after) {
        flow = ControlFlow::Break(());
    }
    if last.is_some() {
        stats.frames += 1;
        stats.entries += entries;
        stats.payload_bytes += payload_bytes;
        (stats.last, stats.last_frame) = (last, Some((found.after.lsn, wall_ns)));
    }
    flow
}

/// Gives every frame of a piece, in order; each was validated before, and is again.
///
/// # Errors
/// Corruption when a frame is not there any more.
pub(crate) fn frames(
    log: &LogDir,
    piece: &Piece,
    mut each: impl FnMut(SegmentNumber, &Found<'_>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut walk = log.walk(piece)?;
    let mut at = piece.start;
    loop {
        let offset = walk.offset();
        match walk.step()? {
            Step::Frame(found) => {
                at = found.after;
                if each(piece.header.number, &found)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Step::End(_) if at.lsn == piece.end.lsn => return Ok(ControlFlow::Continue(())),
            Step::End(end) => {
                return Err(not_there_any_more(piece, offset, at.lsn, damage(end)));
            }
        }
    }
}

/// What is wrong where a walk ended before the end of its piece.
pub(crate) fn damage(end: End) -> FrameDamage {
    match end {
        End::Damage(damage) => damage,
        End::Ceiling | End::Rotated | End::Closed => FrameDamage::Boundary,
    }
}

/// Corruption of a frame that the look found.
pub(crate) fn not_there_any_more(
    piece: &Piece,
    offset: u64,
    lsn: Lsn,
    damage: FrameDamage,
) -> Error {
    Error::from(Corruption {
        segment: Some(piece.header.number),
        offset: Some(offset),
        lsn: Some(lsn),
        durable: Some(piece.end.lsn),
        kind: CorruptionKind::Frame(damage),
    })
}
