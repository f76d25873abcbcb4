//! What can go wrong with a backup or a restore; all else is the log's own error.

use std::path::PathBuf;

use bulla_storage::format::{BackupId, FormatError, LogId};
use bulla_storage::{Error, Lsn, Position};

/// An error of a backup or a restore.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The log, the environment, the options; see [`Error`].
    #[error(transparent)]
    Log(#[from] Error),
    /// There is a whole backup in the directory. Nothing was changed.
    #[error("{} holds a backup already", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds other files, so nothing was written to it.
    #[error("{} holds other files ({name})", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of them.
        name: String,
    },
    /// There is no whole backup in the directory.
    #[error("{} holds no backup, or one that did not end", path.display())]
    NotABackup {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest can't be read.
    #[error("{} is damaged ({reason})", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: FormatError,
    },
    /// A file of the backup is not what its manifest says.
    #[error("{} is damaged ({damage})", path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: PartDamage,
    },
    /// The base of an incremental backup is not where it was, or another backup is there.
    #[error("backup {id}, on which this one builds, is not in {}", path.display())]
    BaseMissing {
        /// Where it was.
        path: PathBuf,
        /// Which one it is.
        id: BackupId,
    },
    /// The backup to build on is of another log.
    #[error("the backup is of log {backup}, this is log {log}")]
    OtherLog {
        /// The log of the backup.
        backup: LogId,
        /// The log to back up.
        log: LogId,
    },
    /// The log does not continue what the base holds: it was restored or repaired since, or a
    /// crash took the end of it. Take a full backup.
    #[error("the log does not continue the backup, which ends at LSN {end}")]
    NotContinued {
        /// Where the base ends.
        end: Lsn,
    },
    /// The log's program does not make durable what it writes. It may be poisoned.
    #[error("the log is written up to LSN {written}, and durable up to LSN {durable} only")]
    NotDurable {
        /// Everything below it is durable.
        durable: Lsn,
        /// Everything below it was written when the backup began.
        written: Lsn,
    },
    /// The log was purged, and no checkpoint can replace what is gone. A store can't be restored
    /// from that.
    #[error("the log begins at LSN {first}, and no checkpoint holds what came before")]
    NoCheckpoint {
        /// Where the log begins, or where the restore was to end.
        first: Lsn,
    },
    /// The backup does not reach to the position.
    #[error("the backup holds LSN {first} to {end}, and not {}", position.in_words())]
    OutOfRange {
        /// The position asked for.
        position: Position,
        /// Where the backup begins.
        first: Lsn,
        /// Where it ends.
        end: Lsn,
    },
    /// More backups build on one another than can be restored. Take a full one.
    #[error("more than {max} backups build on one another")]
    TooLong {
        /// The most that there can be.
        max: usize,
    },
    /// The manifests of backups that build on one another are too long to restore them. Take a full
    /// one.
    #[error("the manifests of backups that build on one another have more than {max} bytes")]
    TooLarge {
        /// The most that they can have together.
        max: u64,
    },
    /// The backup is whole, but its hold could not be released, or moved to its end.
    #[error("{} holds a whole backup, but the hold of it is not where it should be: {error}", path.display())]
    Hold {
        /// The backup.
        path: PathBuf,
        /// What went wrong with the hold.
        error: Box<Error>,
    },
}

/// What is wrong with a file of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartDamage {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is shorter or longer than the manifest says.
    #[error("its length is not what the manifest says")]
    Length,
    /// Its CRC is not what the manifest says.
    #[error("checksum mismatch")]
    Crc,
    /// The manifest names no such file, or one that does not fit.
    #[error("the manifests do not fit together")]
    Chain,
}
