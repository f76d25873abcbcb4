//! Places in a log and what lies between two of them: they tell readers and replay where to
//! begin and where to end.
//!
//! Never says whether a place still exists: the reader finds out.

use std::fmt;
use std::ops;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::parse::ParseError;
use crate::position::{Epoch, Lsn, Seq};

/// A place between two entries of a log, identified by what follows it.
///
/// Its text form, which it also parses from, is `start`, `end`, `lsn:N`, `lsn:N@EPOCH`,
/// `seq:N`, or `time:N` with N in ns since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Position {
    /// Before the first entry that is not purged.
    #[default]
    Start,
    /// Before the first entry at or after an LSN.
    Lsn {
        /// The epoch under which the LSN was seen; `None` when unknown. With it,
        /// [`Error::Diverged`](crate::Error::Diverged) tells when what was read below it is
        /// not in the log any more.
        epoch: Option<Epoch>,
        /// The LSN.
        lsn: Lsn,
    },
    /// Before the entry of this number.
    Seq(Seq),
    /// After the last entry whose frame was sealed before. A log's times go back where its
    /// writer's clock was set back by more than an hour. Then entries from that time or later may
    /// be before this position, but none from before it is after.
    Time(SystemTime),
    /// After everything. A range that begins here begins with what is appended later;
    /// one that ends here has no bound.
    End,
}

/// The entries between two positions. The default is all of them.
///
/// Its text form is `FROM..TO`; an omitted position stands for the start or the end.
///
/// # Examples
/// ```
/// use bulla_storage::{Lsn, Position, Range, Seq};
///
/// let range = Range::from(Seq(10)..Seq(20)); // entries 10 to 19
/// assert_eq!(range, "seq:10..seq:20".parse()?);
/// assert_eq!(Range::from(Lsn(4096)..), Range { from: Lsn(4096).into(), to: Position::End });
/// # Ok::<(), bulla_storage::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Range {
    /// Entries before it are excluded.
    pub from: Position,
    /// The first entry at or after it is excluded, and so are all that follow.
    pub to: Position,
}

/// A position as numbers to compare entries with; a single one of them decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// The LSN of an entry.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The wall time of its frame, in ns since 1970; `None` if it does not matter. It decides
    /// in one segment only.
    pub wall_ns: Option<u64>,
}

impl Position {
    /// Returns the position of a wall time in ns since 1970.
    #[must_use]
    pub fn at_wall_ns(ns: u64) -> Self {
        Self::Time(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
    }

    /// Returns what an entry is compared with when a range begins here: one that the limit
    /// [`is_above`](Limit::is_above) is before the range.
    #[must_use]
    pub fn lower_limit(self) -> Limit {
        match self {
            Self::End => Limit::MAX,
            _ => self.limit(Limit::MIN),
        }
    }

    /// Returns what an entry is compared with when a range ends here: one by which the limit
    /// [`is_reached`](Limit::is_reached) is after the range.
    #[must_use]
    pub fn upper_limit(self) -> Limit {
        match self {
            Self::Start => Limit::MIN,
            _ => self.limit(Limit::MAX),
        }
    }

    fn limit(self, rest: Limit) -> Limit {
        match self {
            Self::Lsn { lsn, .. } => Limit { lsn, ..rest },
            Self::Seq(seq) => Limit { seq, ..rest },
            Self::Time(time) => Limit { wall_ns: Some(wall_ns(time)), ..rest },
            Self::Start | Self::End => rest,
        }
    }

    /// Returns whether a range that begins here includes entries that a log no longer has
    /// when its first one is at `lsn` and has the number `seq`. A time never does: what was
    /// purged is older, but the log does not say by how much.
    #[must_use]
    pub fn is_purged(self, lsn: Lsn, seq: Seq) -> bool {
        match self {
            Self::Lsn { lsn: from, .. } => from < lsn,
            // Numbers begin with 1: nothing below it was purged.
            Self::Seq(from) => from.max(Seq(1)) < seq,
            Self::Start | Self::Time(_) | Self::End => false,
        }
    }

    /// Returns the position as a sentence names it, such as "LSN 8192 of epoch 3".
    pub fn in_words(&self) -> impl fmt::Display {
        struct Words(Position);

        impl fmt::Display for Words {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Position::Start => f.write_str("the start"),
                    Position::Lsn { epoch: Some(epoch), lsn } => {
                        write!(f, "LSN {lsn} of epoch {epoch}")
                    }
                    Position::Lsn { epoch: None, lsn } => write!(f, "LSN {lsn}"),
                    Position::Seq(seq) => write!(f, "Seq {seq}"),
                    Position::Time(time) => write!(f, "time {} ns", wall_ns(time)),
                    Position::End => f.write_str("the end"),
                }
            }
        }

        Words(*self)
    }
}

impl Range {
    /// All entries.
    pub const ALL: Self = Self { from: Position::Start, to: Position::End };
}

impl Limit {
    const MIN: Self = Self { lsn: Lsn::ZERO, seq: Seq::ZERO, wall_ns: None };
    const MAX: Self = Self { lsn: Lsn::MAX, seq: Seq::MAX, wall_ns: None };

    /// Returns whether an entry comes before this limit, by its position and number.
    #[must_use]
    pub fn is_above(&self, lsn: Lsn, seq: Seq) -> bool {
        lsn < self.lsn || seq < self.seq
    }

    /// Returns whether an entry is at this limit or after it, by its position and number.
    #[must_use]
    pub fn is_reached(&self, lsn: Lsn, seq: Seq) -> bool {
        lsn >= self.lsn || seq >= self.seq
    }
}

impl Default for Range {
    fn default() -> Self {
        Self::ALL
    }
}

/// Returns nanoseconds since 1970, as frames store them; a time that a frame can't store
/// becomes the nearest one that it can.
fn wall_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl From<Lsn> for Position {
    fn from(lsn: Lsn) -> Self {
        Self::Lsn { epoch: None, lsn }
    }
}

impl From<(Epoch, Lsn)> for Position {
    fn from((epoch, lsn): (Epoch, Lsn)) -> Self {
        Self::Lsn { epoch: Some(epoch), lsn }
    }
}

impl From<Seq> for Position {
    fn from(seq: Seq) -> Self {
        Self::Seq(seq)
    }
}

impl From<SystemTime> for Position {
    fn from(time: SystemTime) -> Self {
        Self::Time(time)
    }
}

/// Everything from there on.
impl From<Position> for Range {
    fn from(from: Position) -> Self {
        Self { from, to: Position::End }
    }
}

impl<T: Into<Position>> From<ops::Range<T>> for Range {
    fn from(range: ops::Range<T>) -> Self {
        Self { from: range.start.into(), to: range.end.into() }
    }
}

impl<T: Into<Position>> From<ops::RangeFrom<T>> for Range {
    fn from(range: ops::RangeFrom<T>) -> Self {
        Self::from(range.start.into())
    }
}

impl<T: Into<Position>> From<ops::RangeTo<T>> for Range {
    fn from(range: ops::RangeTo<T>) -> Self {
        Self { from: Position::Start, to: range.end.into() }
    }
}

impl From<ops::RangeFull> for Range {
    fn from(_: ops::RangeFull) -> Self {
        Self::ALL
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Lsn { epoch: Some(epoch), lsn } => write!(f, "lsn:{lsn}@{epoch}"),
            Self::Lsn { epoch: None, lsn } => write!(f, "lsn:{lsn}"),
            Self::Seq(seq) => write!(f, "seq:{seq}"),
            Self::Time(time) => write!(f, "time:{}", wall_ns(*time)),
            Self::End => f.write_str("end"),
        }
    }
}

impl FromStr for Position {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || match text.split_once(':') {
            None if text == "start" => Some(Self::Start),
            None if text == "end" => Some(Self::End),
            Some(("lsn", place)) => match place.split_once('@') {
                Some((lsn, epoch)) => {
                    Some((Epoch(epoch.parse().ok()?), Lsn(lsn.parse().ok()?)).into())
                }
                None => Some(Lsn(place.parse().ok()?).into()),
            },
            Some(("seq", number)) => Some(Seq(number.parse().ok()?).into()),
            Some(("time", ns)) => Some(Self::at_wall_ns(ns.parse().ok()?)),
            _ => None,
        };
        parse().ok_or_else(|| {
            ParseError::new(text, "start, end, lsn:N, lsn:N@EPOCH, seq:N or time:NS")
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

impl FromStr for Range {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (from, to) = text
            .split_once("..")
            .ok_or_else(|| ParseError::new(text, "two positions with .. between them"))?;
        let position = |text: &str, left_out| match text {
            "" => Ok(left_out),
            _ => text.parse(),
        };
        Ok(Self { from: position(from, Position::Start)?, to: position(to, Position::End)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSN: Lsn = Lsn(8192);

    fn positions() -> [(Position, &'static str, &'static str); 6] {
        [
            (Position::Start, "start", "the start"),
            (Position::End, "end", "the end"),
            (
                Position::Lsn { epoch: Some(Epoch(3)), lsn: LSN },
                "lsn:8192@3",
                "LSN 8192 of epoch 3",
            ),
            (Position::Lsn { epoch: None, lsn: LSN }, "lsn:8192", "LSN 8192"),
            (Position::Seq(Seq(17)), "seq:17", "Seq 17"),
            (Position::at_wall_ns(5), "time:5", "time 5 ns"),
        ]
    }

    #[test]
    fn every_position_and_range_is_parsed_from_its_own_text() {
        for (from, text, words) in positions() {
            assert_eq!(
                (from.to_string().as_str(), from.in_words().to_string().as_str()),
                (text, words)
            );
            assert_eq!(text.parse(), Ok(from));
            for (to, ..) in positions() {
                let range = Range { from, to };
                assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
        assert_eq!("..".parse(), Ok(Range::ALL));
        assert_eq!("seq:3..".parse(), Ok(Range::from(Seq(3)..)));
        assert_eq!("..lsn:3".parse(), Ok(Range::from(..Lsn(3))));
        for text in ["", "lsn", "lsn:", "lsn:x", "lsn:1@", "seq:-1", "time:1s", "Start", "end:1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        assert!("seq:1".parse::<Range>().is_err());
    }

    #[test]
    fn limits_leave_out_what_is_before_and_what_is_at_or_after() {
        let after = [Position::from(Lsn(8193)), Seq(18).into(), Position::End];
        let before = [Position::Start, LSN.into(), Seq(17).into()];
        for (positions, expected) in [(before, false), (after, true)] {
            for position in positions {
                let (lower, upper) = (position.lower_limit(), position.upper_limit());
                assert_eq!(lower.is_above(LSN, Seq(17)), expected, "{position}..");
                assert_eq!(upper.is_reached(LSN, Seq(17)), !expected, "..{position}");
            }
        }
    }

    #[test]
    fn only_what_lies_below_the_first_entry_was_purged() {
        let first = (LSN, Seq(17));
        let is_purged = |position: Position| position.is_purged(first.0, first.1);
        for position in [Position::Start, Position::End, Position::at_wall_ns(0)] {
            assert!(!is_purged(position), "{position}");
        }
        assert!(is_purged(Lsn(8191).into()) && !is_purged(LSN.into()));
        assert!(is_purged(Seq(16).into()) && !is_purged(Seq(17).into()));
        assert!(!Position::from(Seq(0)).is_purged(Lsn::ZERO, Seq(1)));
    }

    #[test]
    fn times_that_no_frame_has_are_the_nearest_that_one_can_have() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Position::Time(before).lower_limit().wall_ns, Some(0));
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 1_000_000_000 + 1);
        assert_eq!(Position::Time(after).lower_limit().wall_ns, Some(u64::MAX));
    }
}
