//! Which checkpoint a store is opened from.
//!
//! Owns the order of the candidates: the newest whose header and index are whole and whose
//! landmark still stands in the log, then the older one, then the log alone. It removes
//! nothing but temporary files, and those only under the log's lock.

use std::fmt;

use bulla_storage::faults::failpoints::{Point, skip};
use bulla_storage::frames::anchor::Landmark;
use bulla_wal::{Epoch, Error as LogError, Lsn, Result};

use super::error::{CheckpointError, Refusal, RefusedCheckpoint};
use super::files::{Checkpoint, Folder};
use super::format::Head;
use super::lazy::Older;

/// Of more checkpoints than this only the newest are looked at.
const MAX_CANDIDATES: usize = 8;

/// A checkpoint, in a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// One more than that of the checkpoint before.
    pub number: u64,
    /// It contains the changes below this position, and no others.
    pub lsn: Lsn,
    /// The epoch in which it was taken.
    pub epoch: Epoch,
    /// When it was taken, in ns since 1970.
    pub wall_ns: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of its file.
    pub file_len: u64,
}

impl From<&Head> for CheckpointInfo {
    fn from(head: &Head) -> Self {
        Self {
            number: head.number,
            lsn: head.landmark.upto,
            epoch: head.landmark.epoch,
            wall_ns: head.wall_ns,
            records: head.records,
            file_len: head.file_len(),
        }
    }
}

/// What the records of a store were read from.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// The checkpoint; `None` when it was the log alone.
    pub checkpoint: Option<CheckpointInfo>,
    /// The one before it, from which damaged parts of it can be built again.
    pub older: Option<CheckpointInfo>,
    /// Checkpoints that were not used, the newest first.
    pub refused: Vec<RefusedCheckpoint>,
    /// Entries of the log that were replayed after the checkpoint.
    pub replayed: u64,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for refused in &self.refused {
            writeln!(f, "not used: {refused}")?;
        }
        match &self.checkpoint {
            Some(used) => {
                let which = if self.refused.is_empty() { "" } else { "the older " };
                write!(f, "{which}checkpoint {} at LSN {}", used.number, used.lsn)?;
            }
            None => f.write_str("no checkpoint")?,
        }
        write!(f, ", and {} entries of the log", self.replayed)
    }
}

/// The checkpoints that there are.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// Those that are whole, the newest first.
    whole: Vec<Checkpoint>,
    refused: Vec<RefusedCheckpoint>,
    /// The highest number that a file has.
    pub(crate) highest: u64,
}

impl Candidates {
    /// Reads what is there, for whoever holds the log's lock.
    pub(crate) fn settle(folder: &Folder) -> Result<Self> {
        let listing = folder.list().map_err(LogError::io("list", &folder.path))?;
        if listing.numbers.is_empty() && listing.temporaries.is_empty() {
            return Ok(Self::default());
        }
        // What a listing shows after a kill may not be on disk. Nothing may be built on it,
        // or removed because of it, before it is.
        if !skip(Point::CheckpointOpenDirSync) {
            folder.io.sync_dir(&folder.path).map_err(LogError::io("sync", &folder.path))?;
        }
        for temporary in &listing.temporaries {
            folder.remove(temporary).map_err(LogError::io("remove", temporary))?;
        }
        Ok(Self::of(folder, &listing.numbers))
    }

    /// Reads what is there, and changes nothing.
    pub(crate) fn look(folder: &Folder) -> Result<Self> {
        let listing = folder.list().map_err(LogError::io("list", &folder.path))?;
        Ok(Self::of(folder, &listing.numbers))
    }

    fn of(folder: &Folder, numbers: &[u64]) -> Self {
        let highest = numbers.first().copied().unwrap_or(0);
        let mut candidates = Self { highest, ..Self::default() };
        for number in numbers.iter().take(MAX_CANDIDATES) {
            match Checkpoint::open(folder, *number) {
                Ok(checkpoint) => candidates.whole.push(checkpoint),
                Err(fault) => {
                    let (path, reason) = (folder.path_of(*number), fault.into());
                    candidates.refused.push(RefusedCheckpoint { number: *number, path, reason });
                }
            }
        }
        candidates
    }

    /// The landmarks of those that are whole, the newest first.
    pub(crate) fn landmarks(&self) -> Vec<Landmark> {
        self.whole.iter().map(|checkpoint| checkpoint.head.landmark).collect()
    }

    /// Chooses the newest that stands, and the next one that does. `from_start`: does the log
    /// begin with its first entry? Then it can do without.
    ///
    /// # Errors
    /// When there is none and the log can't do without.
    pub(crate) fn choose(
        self,
        stands: &[Landmark],
        first: Lsn,
        from_start: bool,
    ) -> std::result::Result<Choice, CheckpointError> {
        let Self { whole, mut refused, highest } = self;
        let mut standing = Vec::new();
        for checkpoint in whole {
            let (number, lsn) = (checkpoint.head.number, checkpoint.head.landmark.upto);
            if stands.contains(&checkpoint.head.landmark) {
                standing.push(checkpoint);
            } else {
                let (path, reason) = (checkpoint.path, Refusal::OffHistory { lsn });
                refused.push(RefusedCheckpoint { number, path, reason });
            }
        }
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.number));
        let mut standing = standing.into_iter();
        let newest = standing.next();
        if newest.is_none() && !from_start {
            return Err(CheckpointError::Missing { first, refused });
        }
        let upto = |checkpoint: &Checkpoint| checkpoint.head.landmark.upto;
        // What is between the two must be in the log.
        let older = standing.find(|older| {
            newest.as_ref().is_some_and(|newest| upto(older) <= upto(newest))
                && older.head.landmark.segment.lsn >= first
        });
        let older = match older {
            Some(older) => Older::Checkpoint(Box::new(older)),
            None if from_start => Older::Log,
            None => Older::Nothing,
        };
        // One that has had its time comes back when its removal did not reach the disk: then
        // the log that it needs may be gone.
        let (used, kept) = match (&newest, &older) {
            (Some(newest), Older::Checkpoint(older)) => (newest.head.number, older.head.number),
            (Some(newest), Older::Log | Older::Nothing) => (newest.head.number, 0),
            (None, _) => (0, 0),
        };
        refused.retain(|refused| match refused.reason {
            Refusal::Unreadable(_) => refused.number > kept,
            Refusal::OffHistory { .. } => refused.number > used,
        });
        let report = OpenReport {
            checkpoint: newest.as_ref().map(|newest| CheckpointInfo::from(&newest.head)),
            older: match &older {
                Older::Checkpoint(older) => Some(CheckpointInfo::from(&older.head)),
                Older::Log | Older::Nothing => None,
            },
            refused,
            replayed: 0,
        };
        Ok(Choice { newest, older, report, highest })
    }
}

/// What a store is to be opened from.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) newest: Option<Checkpoint>,
    pub(crate) older: Older,
    pub(crate) report: OpenReport,
    /// The highest number that a file has.
    pub(crate) highest: u64,
}

impl Choice {
    /// The heads of what the store rests on, the newest first.
    pub(crate) fn kept(&self) -> Vec<Head> {
        let older = match &self.older {
            Older::Checkpoint(older) => Some(older.head),
            Older::Log | Older::Nothing => None,
        };
        self.newest.iter().map(|newest| newest.head).chain(older).collect()
    }
}
