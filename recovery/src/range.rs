//! Which entries a replay visits: two bounds, each a position, a number or a time.
//!
//! Pure. Positions are compared here and nowhere else in the crate.

use std::fmt;

use bulla_storage::{Lsn, Position, Seq};

use bulla_storage::frames::reader::Cursor;

/// One end of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
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

impl From<Bound> for Position {
    fn from(bound: Bound) -> Self {
        match bound {
            Bound::Lsn(lsn) => Self::Lsn { epoch: None, lsn },
            Bound::Seq(seq) => Self::Seq(seq),
            Bound::Time(wall_ns) => Self::at_wall_ns(wall_ns),
            Bound::Unbounded => Self::Start,
        }
    }
}

impl Bound {
    /// Returns whether an entry, with its frame's wall time, comes before this bound.
    pub(crate) fn is_after(self, lsn: Lsn, seq: Seq, wall_ns: u64) -> bool {
        match self {
            Self::Lsn(bound) => lsn < bound,
            Self::Seq(bound) => seq < bound,
            Self::Time(bound) => wall_ns < bound,
            Self::Unbounded => false,
        }
    }

    /// Returns whether a range from this bound on would need entries below `start`.
    pub(crate) fn starts_below(self, start: Cursor) -> bool {
        match self {
            Self::Lsn(from) => from < start.lsn,
            Self::Seq(from) => from < start.seq,
            // What was purged is older than a time, too, but nobody can tell by how much.
            Self::Time(_) | Self::Unbounded => false,
        }
    }

    /// Returns whether a range from this bound on has nothing before `end`.
    pub(crate) fn starts_at_or_after(self, end: Cursor) -> bool {
        match self {
            Self::Lsn(from) => from >= end.lsn,
            Self::Seq(from) => from >= end.seq,
            Self::Time(from) => from > end.wall_ns,
            Self::Unbounded => false,
        }
    }

    /// Returns whether a range up to this bound ends at `at`, or before.
    pub(crate) fn is_reached(self, at: Cursor) -> bool {
        match self {
            Self::Lsn(to) => at.lsn >= to,
            Self::Seq(to) => at.seq >= to,
            // A frame before `at` already has that time.
            Self::Time(to) => at.wall_ns >= to,
            Self::Unbounded => false,
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
