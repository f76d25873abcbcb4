//! Positions in a log: where an entry is, which one it is, and who wrote it.
//!
//! Owns the newtypes that keep byte positions, entry numbers, epochs and
//! segment numbers apart. Never does arithmetic that can wrap silently.

use std::fmt;
use std::str::FromStr;

use crate::parse::ParseError;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The lowest value.
            pub const ZERO: Self = Self(0);
            /// The highest value.
            pub const MAX: Self = Self(<$inner>::MAX);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position! {
    /// Log sequence number: a byte position in the log's one address space,
    /// contiguous across segments. The first frame of a log is at 0.
    Lsn(u64)
}
position! {
    /// The dense number of a user entry. The first entry of a log is number 1.
    Seq(u64)
}
position! {
    /// Counts the opens of a log. The first is 1; each open adds at least one.
    Epoch(u32)
}
position! {
    /// The number of a segment file, `N.seg`. The first is 1; numbers have no gap
    /// above the low-water mark.
    SegmentNumber(u64)
}

impl Lsn {
    /// Returns the position `bytes` further on.
    ///
    /// # Panics
    /// When the address space of 2^64 bytes is exhausted, which no real log reaches.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match self.0.checked_add(bytes) {
            Some(sum) => Self(sum),
            None => panic!("the log's address space of 2^64 bytes is exhausted"),
        }
    }

    /// Returns how many bytes `self` is past `start`, or 0 when it is not past it.
    #[must_use]
    pub const fn distance_from(self, start: Self) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl SegmentNumber {
    /// Returns the number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How durable an entry must be before its receipt is ready.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Level {
    /// Ready when the entry is in the ring in memory. A crash of the process may
    /// lose what was not yet written, at most the ring's bytes.
    Relaxed,
    /// Ready when the kernel has the entry. A crash of the process loses nothing;
    /// a power loss may lose what was not yet synced, within the log's bounds.
    #[default]
    Balanced,
    /// Ready when the entry is synced. No crash loses it.
    Strict,
}

impl Level {
    /// All levels, from the weakest to the strongest.
    pub const ALL: [Self; 3] = [Self::Relaxed, Self::Balanced, Self::Strict];

    /// Returns the lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relaxed => "relaxed",
            Self::Balanced => "balanced",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| ParseError::new(text, "relaxed, balanced or strict"))
    }
}

/// What `append` returns: where the entry is and which level was requested for it.
///
/// Plain data: copy it, keep it, drop it (that cancels nothing). Pass it to
/// `Log::wait` to learn when the level holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "the entry may not be durable yet: wait for its receipt, or drop it on purpose"]
pub struct Receipt {
    /// The epoch under which the entry was appended.
    pub epoch: Epoch,
    /// Where the entry starts; of a batch, where its last entry starts.
    pub lsn: Lsn,
    /// The entry's number; of a batch, its last entry's.
    pub seq: Seq,
    /// The level chosen for this append.
    pub level: Level,
}

/// Which entries a reader returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Visibility {
    /// Durable entries: no crash takes back what was returned.
    #[default]
    Durable,
    /// Also entries that are only written: a power loss can take them back. Then a reader
    /// that has gone past the loss gets [`Error::Diverged`](crate::Error::Diverged).
    Written,
}
