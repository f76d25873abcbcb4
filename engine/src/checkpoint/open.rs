//! Which checkpoint a store opens from.
//!
//! Owns the order of the candidates: the newest whose header and index are intact and whose
//! anchor is still in the log, then the older one, then the log alone. It removes nothing but
//! temporary files, and those only under the log's lock.

use std::fmt;
use std::time::SystemTime;

use bulla_storage::frames::anchor::Anchor;
use bulla_wal::{Epoch, Error as LogError, Lsn, Result};

use super::error::{CheckpointError, Refusal, RefusedCheckpoint};
use super::files::{Checkpoint, CheckpointDir, remove};
use super::format::Head;
use super::source::Fallback;
use crate::faults::{self, Failpoint, skip};
use crate::time::from_ns;

/// Of more checkpoints than this only the newest are considered.
const MAX_CANDIDATES: usize = 8;

/// A checkpoint, in a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// One more than that of the checkpoint before.
    pub number: u64,
    /// It contains the changes below this position, and no others.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_impls::lsn"))]
    pub lsn: Lsn,
    /// The epoch in which it was taken.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde_impls::epoch"))]
    pub epoch: Epoch,
    /// When it was taken.
    pub taken_at: SystemTime,
    /// Records in it.
    pub records: u64,
    /// Bytes of its file.
    pub file_len: u64,
}

impl From<&Head> for CheckpointInfo {
    fn from(head: &Head) -> Self {
        Self {
            number: head.number,
            lsn: head.anchor.upto,
            epoch: head.anchor.epoch,
            taken_at: from_ns(head.wall_ns),
            records: head.records,
            file_len: head.file_len(),
        }
    }
}

/// What a store opened from: its checkpoint, and how much of the log.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// The checkpoint; `None` when the store opened from the log alone.
    pub checkpoint: Option<CheckpointInfo>,
    /// The one before it, from which its damaged parts can be rebuilt.
    pub older: Option<CheckpointInfo>,
    /// Checkpoints that could not be used, the newest first.
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

/// The checkpoints in a directory.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// Those that are intact, the newest first.
    intact: Vec<Checkpoint>,
    refused: Vec<RefusedCheckpoint>,
    /// The highest number of a file.
    pub(crate) highest: u64,
}

impl Candidates {
    /// Reads the checkpoints for an open, which holds the log's lock: makes their names durable
    /// and removes temporary files.
    pub(crate) fn recover(dir: &CheckpointDir) -> Result<Self> {
        let listing = dir.list().map_err(LogError::io("list", &dir.path))?;
        if listing.numbers.is_empty() && listing.temporaries.is_empty() {
            return Ok(Self::default());
        }
        let folder = dir.open().map_err(LogError::io("open", &dir.path))?;
        // Names that a listing shows after a kill may not be on disk. They must be before anything
        // relies on them, or is removed because of them.
        if !skip(Failpoint::CheckpointOpenDirSync) {
            folder.sync().map_err(LogError::io("sync", &dir.path))?;
        }
        for temporary in &listing.temporaries {
            remove(folder.as_ref(), temporary)
                .map_err(LogError::io("remove", dir.path.join(temporary)))?;
        }
        Ok(Self::of(dir, &listing.numbers))
    }

    /// Reads the checkpoints, and changes nothing.
    pub(crate) fn read(dir: &CheckpointDir) -> Result<Self> {
        let listing = dir.list().map_err(LogError::io("list", &dir.path))?;
        Ok(Self::of(dir, &listing.numbers))
    }

    fn of(dir: &CheckpointDir, numbers: &[u64]) -> Self {
        let highest = numbers.first().copied().unwrap_or(0);
        let mut candidates = Self { highest, ..Self::default() };
        for number in numbers.iter().take(MAX_CANDIDATES) {
            match Checkpoint::open(dir, *number) {
                Ok(checkpoint) => candidates.intact.push(checkpoint),
                Err(fault) => {
                    let (path, reason) = (dir.path_of(*number), fault.into());
                    candidates.refused.push(RefusedCheckpoint { number: *number, path, reason });
                }
            }
        }
        candidates
    }

    /// Returns the anchors of those that are intact, the newest first.
    pub(crate) fn anchors(&self) -> Vec<Anchor> {
        self.intact.iter().map(|checkpoint| checkpoint.head.anchor).collect()
    }

    /// Chooses the newest whose anchor is in the log, and the next such one. With `from_start`
    /// the log begins with its first entry, and needs none.
    ///
    /// # Errors
    /// When there is none and the log needs one.
    pub(crate) fn choose(
        self,
        stands: &[Anchor],
        first: Lsn,
        from_start: bool,
    ) -> std::result::Result<Choice, CheckpointError> {
        let Self { intact, mut refused, highest } = self;
        let mut standing = Vec::new();
        for checkpoint in intact {
            let (number, lsn) = (checkpoint.head.number, checkpoint.head.anchor.upto);
            if stands.contains(&checkpoint.head.anchor) {
                standing.push(checkpoint);
            } else {
                let (path, reason) = (checkpoint.path, Refusal::OffTimeline { lsn });
                refused.push(RefusedCheckpoint { number, path, reason });
            }
        }
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.number));
        let mut standing = standing.into_iter();
        let newest = standing.next();
        if newest.is_none() && !from_start {
            return Err(CheckpointError::Missing { first, refused });
        }
        let upto = |checkpoint: &Checkpoint| checkpoint.head.anchor.upto;
        // The log must have everything between the two.
        let older = standing.find(|older| {
            newest.as_ref().is_some_and(|newest| upto(older) <= upto(newest))
                && older.head.anchor.segment.lsn >= first
        });
        let fallback = match older {
            Some(older) => Fallback::Checkpoint(Box::new(older)),
            None if from_start => Fallback::Log,
            None => Fallback::Nothing,
        };
        // A checkpoint that was removed reappears if its removal did not reach the disk: then the
        // log that it needs may be purged.
        let (used, oldest) = match (&newest, &fallback) {
            (Some(newest), Fallback::Checkpoint(older)) => (newest.head.number, older.head.number),
            (Some(newest), Fallback::Log | Fallback::Nothing) => (newest.head.number, 0),
            (None, _) => (0, 0),
        };
        refused.retain(|refused| match refused.reason {
            Refusal::Unreadable(_) => refused.number > oldest,
            Refusal::OffTimeline { .. } => refused.number > used,
        });
        let report = OpenReport {
            checkpoint: newest.as_ref().map(|newest| CheckpointInfo::from(&newest.head)),
            older: match &fallback {
                Fallback::Checkpoint(older) => Some(CheckpointInfo::from(&older.head)),
                Fallback::Log | Fallback::Nothing => None,
            },
            refused,
            replayed: 0,
        };
        Ok(Choice { newest, fallback, report, highest })
    }
}

/// The checkpoints that a store opens from.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) newest: Option<Checkpoint>,
    pub(crate) fallback: Fallback,
    pub(crate) report: OpenReport,
    /// The highest number of a file.
    pub(crate) highest: u64,
}

impl Choice {
    /// Returns the heads of the checkpoints in use, the newest first.
    pub(crate) fn in_use(&self) -> Vec<Head> {
        let older = match &self.fallback {
            Fallback::Checkpoint(older) => Some(older.head),
            Fallback::Log | Fallback::Nothing => None,
        };
        self.newest.iter().map(|newest| newest.head).chain(older).collect()
    }

    /// Returns the anchor from whose segment on the log is needed; `None` when all of it is.
    pub(crate) fn needed(&self) -> Option<Anchor> {
        match (&self.newest, &self.fallback) {
            (Some(newest), Fallback::Checkpoint(older)) => {
                Some(faults::checkpoint::needed(newest, older).head.anchor)
            }
            (Some(newest), Fallback::Nothing) => Some(newest.head.anchor),
            (_, Fallback::Log) | (None, _) => None,
        }
    }
}
