//! Which frames a search for one entry knows.
//!
//! An entry's LSN lies inside a frame, and frames are found only one from another. So a search
//! reads headers from the nearest frame that it knows, and remembers some that it passes. This
//! file owns that bounded index; `by_position` searches.

use std::collections::BTreeMap;

use super::current::damaged;
use super::cursor::ReadCursor;
use super::index::{Begin, SegmentIndex};
use bulla_storage::format::{Entries, EntriesAt, Frame};
use bulla_storage::frames::reader::{Cursor, End};
use bulla_storage::{Error, FrameDamage, Lsn, Position, Seq};

/// Frames that are remembered at most.
const MAX_KNOWN: usize = 1024;
/// At first no two of them are nearer than this.
const FIRST_STRIDE: u64 = 1024 * 1024;

/// What random reads remember.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Of which generation of the index.
    pub(super) generation: u64,
    pub(super) known: BTreeMap<Lsn, Begin>,
    pub(super) stride: u64,
    /// Holds the frame that was read last.
    pub(super) cursor: Option<ReadCursor>,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { generation: 0, known: BTreeMap::new(), stride: FIRST_STRIDE, cursor: None }
    }
}

impl Lookup {
    /// The last known place at or before an entry.
    pub(super) fn nearest(&self, target: Target) -> Option<Begin> {
        let found = match target {
            Target::Lsn(lsn) => self.known.range(..=lsn).next_back().map(|(_, begin)| begin),
            Target::Seq(seq) => self.known.values().rfind(|begin| begin.cursor.seq <= seq),
        };
        found.copied()
    }

    pub(super) fn note(&mut self, begin: Begin) {
        let lsn = begin.cursor.lsn;
        let near = self.nearest(Target::Lsn(lsn)).is_some_and(|known| {
            known.number == begin.number && lsn.distance_from(known.cursor.lsn) < self.stride
        });
        if near {
            return;
        }
        self.known.insert(lsn, begin);
        if self.known.len() > MAX_KNOWN {
            self.stride = self.stride.saturating_mul(2);
            let mut keep = false;
            self.known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

/// What tells the entry that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Lsn(Lsn),
    Seq(Seq),
}

impl Target {
    /// It is not below this.
    pub(super) fn lsn(self) -> Lsn {
        match self {
            Self::Lsn(lsn) => lsn,
            Self::Seq(_) => Lsn::ZERO,
        }
    }

    pub(super) fn position(self) -> Position {
        match self {
            Self::Lsn(lsn) => lsn.into(),
            Self::Seq(seq) => seq.into(),
        }
    }

    pub(super) fn is_purged(self, index: &SegmentIndex) -> bool {
        match self {
            Self::Lsn(lsn) => lsn < index.control.low_water.lsn,
            Self::Seq(seq) => seq < index.control.low_water.seq,
        }
    }

    pub(super) fn is_at_or_after(self, first: &Cursor) -> bool {
        match self {
            Self::Lsn(lsn) => first.lsn <= lsn,
            Self::Seq(seq) => first.seq <= seq,
        }
    }

    pub(super) fn is_after(self, frame: &Frame, sector: u32) -> bool {
        match self {
            Self::Lsn(lsn) => frame.end(sector) <= lsn,
            Self::Seq(seq) => frame.next_seq() <= seq,
        }
    }

    /// Its place in a frame.
    pub(super) fn find(self, frame: &Frame, body: &[u8]) -> Option<EntriesAt> {
        let mut entries = Entries::new(frame, body);
        loop {
            let at = entries.at();
            let found = entries.next()?.ok()?;
            let (is_it, is_past) = match self {
                Self::Lsn(lsn) => (found.lsn == lsn, found.lsn > lsn),
                Self::Seq(seq) => (found.seq == seq, found.seq > seq),
            };
            if is_it || is_past {
                return is_it.then_some(at);
            }
        }
    }

    /// No entry of the frame is it, though it is not after the frame.
    pub(super) fn missing(self, cursor: &ReadCursor, frame: &Frame) -> Error {
        match self {
            Self::Lsn(lsn) => Error::NoEntry { lsn },
            // Numbers have no gaps.
            Self::Seq(_) => damaged(cursor, frame.lsn, End::Damage(FrameDamage::Seq)),
        }
    }
}
