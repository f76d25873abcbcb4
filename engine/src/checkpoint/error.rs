//! What can go wrong with checkpoints, told apart by what the caller may do next.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bulla_recovery::Position;
use bulla_wal::Lsn;

use super::format::CheckpointDamage;

/// Why a checkpoint could not be taken, or its records could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The checkpoint could not be written, or the log could not be purged after it. The store
    /// continues without it; on a full disk, free space or set
    /// [`checkpoint_reserve_bytes`](crate::StoreOptions::checkpoint_reserve_bytes).
    #[error("could not {operation} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// Its file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The log could not record durably that what the checkpoint contains is durable. Append
    /// something, and try again.
    #[error("the log durably marks LSN {durable_mark} as durable, not yet LSN {lsn}")]
    NotMarked {
        /// The position of the checkpoint.
        lsn: Lsn,
        /// The position that is marked as durable.
        durable_mark: Lsn,
    },
    /// The log does not begin with its first entry, and no checkpoint replaces what was purged. Restore a backup of the directory.
    #[error(
        "the log starts at LSN {first}, and no checkpoint replaces what was before{}",
        Refusals(refused)
    )]
    Missing {
        /// Where the log starts.
        first: Lsn,
        /// The checkpoints in the directory, and why none of them can be used.
        refused: Vec<RefusedCheckpoint>,
    },
    /// Records in a checkpoint are damaged, and could not be rebuilt from the older one and the
    /// log. All others can be read.
    #[error(
        "records {} to {} in {} can't be read ({fault}) and can't be rebuilt from the log",
        u64::from(*slab) << 15,
        (u64::from(*slab) << 15) + 32_767,
        path.display()
    )]
    Slab {
        /// The checkpoint.
        path: PathBuf,
        /// Which slab: ids divided by 32,768.
        slab: u32,
        /// What is wrong with it.
        fault: CheckpointFault,
        /// Why it could not be rebuilt.
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A purge would remove a part of the log that the store needs: without its checkpoints it
    /// would lose records, or have no second way to open. Nothing was purged. Keep the log from
    /// `needed` on, or take another checkpoint.
    #[error("the store needs its log from LSN {needed} on, so {} is too high", keep_from.in_words())]
    StillNeeded {
        /// The position to keep from that was asked for.
        keep_from: Position,
        /// The highest one that the store can do with.
        needed: Lsn,
    },
    /// There are checkpoints in the directory, but no log. Restore it, or move them away.
    #[error("there are checkpoints in {}, but no log", path.display())]
    WithoutLog {
        /// Where they are.
        path: PathBuf,
    },
    /// The older checkpoint can't be read either.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The checkpoint.
        path: PathBuf,
        /// Why not.
        #[source]
        fault: CheckpointFault,
    },
    /// There is no older checkpoint, and the log starts too late to replace it.
    #[error("there is no older checkpoint")]
    NoOlder,
    /// The log ends before the checkpoint.
    #[error("the log ends before LSN {upto}")]
    LogTooShort {
        /// The checkpoint's position.
        upto: Lsn,
    },
    /// The store's directory could not be synced when its folder of checkpoints was made. That
    /// is not tried again: no checkpoint is taken until the store is opened again.
    #[error("{} could not be synced: open the store again to take checkpoints", path.display())]
    Unsynced {
        /// The store's directory.
        path: PathBuf,
    },
    /// The older checkpoint and the log yield other records than the newer one lists.
    #[error("the older checkpoint and the log yield other records for slab {slab}")]
    OtherRecords {
        /// Which slab.
        slab: u32,
    },
}

impl CheckpointError {
    /// Wraps a system error with the operation and its path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}

/// Why a checkpoint can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointFault {
    /// The system's error.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// Its bytes are not those of a checkpoint.
    #[error(transparent)]
    Damage(#[from] CheckpointDamage),
}

/// A checkpoint that a store could not open from.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedCheckpoint {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// Why not.
    pub reason: Refusal,
}

/// Why a store could not open from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] CheckpointFault),
    /// It is newer than the end of the log, or belongs to another history of it: a repair cut off
    /// what it was taken from, or it is of another log.
    #[error(
        "it is newer than the end of the log, or belongs to another history of it (it was taken at \
         LSN {lsn})"
    )]
    OffTimeline {
        /// Its position.
        lsn: Lsn,
    },
}

impl fmt::Display for RefusedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

struct Refusals<'a>(&'a [RefusedCheckpoint]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|refused| write!(f, "; {refused}"))
    }
}
