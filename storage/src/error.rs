//! The log's errors, grouped by what the caller can do next.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::format::{Content, FormatError};
use crate::position::{Epoch, Lsn, SegmentNumber};
use crate::range::Position;

/// The result of a log operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the log. Grouped: the caller's mistakes, the environment,
/// corruption, and a poisoned log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The entry or batch can never fit into a frame. Nothing was appended.
    #[error("entry too large: {len} bytes with header and padding, the limit is {max}")]
    TooLarge {
        /// Bytes asked for, with each entry's header and padding.
        len: u64,
        /// The most that fits, of the same.
        max: u64,
    },
    /// The ring is full and the log was opened with [`Overflow::Full`](crate::Overflow::Full).
    /// Nothing was appended; try again when earlier entries are written.
    #[error("the ring is full")]
    Full,
    /// A kind at or above [`FIRST_INTERNAL_KIND`](crate::format::FIRST_INTERNAL_KIND).
    #[error("kind {0:#06x} is reserved; use a kind below 0xff00")]
    ReservedKind(u16),
    /// An empty batch has no receipt.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The receipt comes from another run of a log; its positions mean nothing here.
    #[error("the receipt is of epoch {receipt}, the log is in epoch {log}")]
    ForeignReceipt {
        /// The receipt's epoch.
        receipt: Epoch,
        /// This log's epoch.
        log: Epoch,
    },
    /// An option is out of its range.
    #[error("option {option}: {reason}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory already holds a log, so none was created.
    #[error("{} holds a log already: open it with recovery", path.display())]
    AlreadyExists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a backup, or a restore into it did not end: no log is made there, and
    /// nothing was changed.
    #[error("{} holds a backup, or a restore that did not end, and no log", path.display())]
    OfBackup {
        /// The directory.
        path: PathBuf,
    },
    /// There is no log in the directory.
    #[error("{} holds no log (it has no CONTROL file)", path.display())]
    NotALog {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the log open for writing.
    #[error("{} is locked by another writer; stop it, or wait until it is closed", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file of the log has another name, too: another copy, made by `cp -al` or by a backup
    /// that links what has not changed, would be written with it. Nothing was changed.
    #[error("{} has another name (a hard link): writing to it would change that copy, too", path.display())]
    Linked {
        /// The file.
        path: PathBuf,
    },
    /// The log's entries are something else than what the caller expects, as their creator
    /// said. Nothing was changed; open it as what it is.
    #[error("{} holds {found}, not {expected}", path.display())]
    OtherContent {
        /// The directory.
        path: PathBuf,
        /// What the log holds.
        found: Content,
        /// What the caller expects.
        expected: Content,
    },
    /// The log was written by a newer build, or uses features that this one does not know.
    #[error("{}: {reason}; use the build that wrote it, or a newer one", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// `Version` or `Features`.
        reason: FormatError,
    },
    /// The device's physical sector is larger than the log's: a write to one of the
    /// log's sectors could damage its neighbours. Copy the log to another device.
    #[error("the device writes {device} bytes at once, the log's sector has {log}")]
    SectorTooSmall {
        /// The device's physical sector, in bytes.
        device: u32,
        /// The log's sector, in bytes.
        log: u32,
    },
    /// The position was lost in a crash, and a later epoch may have assigned it to another
    /// entry. Rebuild everything that depends on it from before `truncated_at`.
    #[error("LSN {lsn} of epoch {epoch} was cut off when epoch {by} began at LSN {truncated_at}")]
    Diverged {
        /// The position's epoch.
        epoch: Epoch,
        /// The position.
        lsn: Lsn,
        /// The epoch that truncated it.
        by: Epoch,
        /// The end of what that epoch kept of the log before it.
        truncated_at: Lsn,
    },
    /// The position is below the low-water mark: its entry was purged. Read on from
    /// `low_water`, or from [`Position::Start`].
    #[error(
        "{} is below the log's start, LSN {low_water}: it was purged",
        position.in_words()
    )]
    Purged {
        /// The position asked for.
        position: Position,
        /// Where the log starts.
        low_water: Lsn,
    },
    /// A hold needs another name: 1 to 64 of the characters `a` to `z`, `0` to `9`, `-` and `_`.
    #[error("{name:?} is not the name of a hold: use 1 to 64 of a-z, 0-9, - and _")]
    HoldName {
        /// The name.
        name: String,
    },
    /// The log has a hold of this name. Release it first, or advance it.
    #[error("there is a hold {name} already")]
    HoldExists {
        /// The name.
        name: String,
    },
    /// The log has as many holds as it can have. Release one that nobody needs.
    #[error("the log has {max} holds already")]
    TooManyHolds {
        /// The most holds that a log can have.
        max: usize,
    },
    /// The log has no hold of this name.
    #[error("there is no hold {name}")]
    NoHold {
        /// The name.
        name: String,
    },
    /// The hold kept more than its quota, and was broken so that the log could be purged: what it
    /// kept may be gone. Release it, and begin anew at the log's start.
    #[error("hold {name} at LSN {lsn} was broken: it kept more than its {quota_bytes} bytes")]
    HoldBroken {
        /// The name.
        name: String,
        /// Where it was.
        lsn: Lsn,
        /// What it was allowed to keep.
        quota_bytes: u64,
    },
    /// The file of a hold can't be read: what it keeps is unknown, so nothing is purged. Release
    /// the hold, and take it anew.
    #[error("the hold in {} can't be read ({reason}): nothing is purged", path.display())]
    HoldDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: FormatError,
    },
    /// Another process opened, purged, truncated or repaired the log while it was read, again
    /// and again. Read it again.
    #[error("the log was changed while it was read, at LSN {lsn}: read it again")]
    Changed {
        /// The position that is no longer there: no durable mark covered it, or it was purged.
        lsn: Lsn,
    },
    /// All 2^32 epochs are used up. Copy the entries into a new log.
    #[error("no epoch is left for another open")]
    EpochsExhausted,
    /// No entry starts at this position; no receipt has it.
    #[error("no entry starts at LSN {lsn}")]
    NoEntry {
        /// The position asked for.
        lsn: Lsn,
    },
    /// There is no space, or no quota, for another segment. Nothing was appended, and nothing
    /// acknowledged is lost. Appending works again once there is space (free some,
    /// or purge the log); the log needs no reopening.
    #[error("no space for another segment")]
    NoSpace(#[source] Arc<Self>),
    /// There is no space, or no quota, for the segment that an open begins with, or for the last steps
    /// of a creation whose first segment has its name: that is a log. No entry is lost or changed: the log can be read, and `bulla_recovery::purge` or `bulla purge` makes room in it.
    /// Open it again once there is space.
    #[error("no space to open {} for writing; nothing is lost, and it can be read", path.display())]
    NoSpaceToOpen {
        /// The log's directory.
        path: PathBuf,
        /// What there was no space for.
        #[source]
        cause: Arc<Self>,
    },
    /// A log could not be created: there is no space, no quota or no inode for its first files, or
    /// they are longer than the process may make them. What was begun is removed, or the next open
    /// goes on from it. Try again once that is mended.
    ///
    /// Beyond a limit on file lengths (`RLIMIT_FSIZE`), the kernel also sends SIGXFSZ, which ends
    /// the process by default. A program that is to get this error ignores or handles that signal.
    #[error("no log was created in {}; what was begun does not stop another try", path.display())]
    NotCreated {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: Arc<Self>,
    },
    /// The next segment can't be made, and not for lack of space: the directory is gone or
    /// can't be written to, a name is taken, or the device fails. Nothing was appended, and
    /// nothing acknowledged is lost. Each append tries again.
    #[error("the next segment can't be made")]
    NoSegment(#[source] Arc<Self>),
    /// Bytes that must be intact are not. Nothing was changed.
    #[error(transparent)]
    Corrupt(#[from] Box<Corruption>),
    /// Something is damaged or missing below a part of the log that is whole, and the position
    /// asked for is below that part. Read from `whole_from` on, or repair the log.
    #[error("{fault}; the log is whole from LSN {whole_from} on")]
    Gap {
        /// The damage.
        fault: Box<Corruption>,
        /// Where the part begins that is whole.
        whole_from: Lsn,
    },
    /// An operation on a file failed. The log itself is unharmed.
    #[error("could not {operation} {}: {source}", path.display())]
    Io {
        /// The failed operation, such as "open".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A write or sync failed earlier. Whether entries above the durable watermark are
    /// on disk is unknown; nothing more is acknowledged. Drop the log and recover it.
    #[error("the log is poisoned; whether entries above LSN {durable} are durable is unknown")]
    Poisoned {
        /// Everything below it is durable.
        durable: Lsn,
        /// What failed.
        #[source]
        cause: Arc<PoisonCause>,
    },
    /// The callback for [progress](crate::Options::on_progress) ended the open or the inspection.
    /// No entry is lost; the log can be opened again.
    #[error("cancelled while the log was read")]
    Cancelled,
    /// This process is a child, by `fork`, of the one that opened the log, and can't use it. Nothing
    /// was done, and the parent's log is unharmed. Open the log after the fork.
    #[error("can't use the log: another process opened it, and this one inherited it by fork")]
    Forked,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// What poisoned a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoisonCause {
    /// A write or a sync failed.
    #[error("{operation} of segment {segment} failed")]
    Segment {
        /// "write" or "sync".
        operation: &'static str,
        /// Which segment.
        segment: SegmentNumber,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A segment that was made ahead, or the directory with its name, could not be synced.
    #[error("{operation} {} failed", path.display())]
    Spare {
        /// "sync".
        operation: &'static str,
        /// The file or the directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// CONTROL could not be written or synced.
    #[error("writing CONTROL failed")]
    Control(#[source] io::Error),
    /// The log's background thread, which keeps its time bounds, could not be started.
    #[error("the log's background thread could not be started")]
    Thread(#[source] io::Error),
    /// The thread that led the log's I/O panicked.
    #[error("the thread that led the log's I/O panicked")]
    Panic,
}

/// Damage to bytes that were durable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "corruption: {kind}{}{}{}{}",
    Opt(" in segment ", segment),
    Opt(" at offset ", offset),
    Opt(", from LSN ", lsn),
    Opt(", proved durable up to LSN ", durable)
)]
pub struct Corruption {
    /// The segment, when one is concerned.
    pub segment: Option<SegmentNumber>,
    /// Byte offset in its file.
    pub offset: Option<u64>,
    /// The first position that is lost or in doubt.
    pub lsn: Option<Lsn>,
    /// The highest durable mark found: everything below it was durable.
    pub durable: Option<Lsn>,
    /// What is wrong.
    pub kind: CorruptionKind,
}

struct Opt<'a, T>(&'static str, &'a Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for Opt<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.1.as_ref().map_or(Ok(()), |value| write!(f, "{}{value}", self.0))
    }
}

/// The kinds of corruption.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// Neither slot of CONTROL is intact.
    #[error("no slot of CONTROL is intact ({0})")]
    Control(FormatError),
    /// One slot of CONTROL is damaged, and what the other one says does not fit the segments: it is
    /// older than they are.
    #[error(
        "the newest slot of CONTROL is damaged ({0}), and the other is older than the segments"
    )]
    ControlSlot(FormatError),
    /// One slot of CONTROL is damaged, and the first segment of the log that the other one describes
    /// is missing. If the damaged slot was the newest, a purge removed the segment; otherwise the
    /// segment is lost.
    #[error("a slot of CONTROL is damaged ({0}): it was the newest, or a file is missing,")]
    ControlOrSegment(FormatError),
    /// There are segments, but no CONTROL file.
    #[error("segments without CONTROL")]
    ControlMissing,
    /// A segment's header is damaged.
    #[error("damaged segment header ({0})")]
    SegmentHeader(FormatError),
    /// A segment that must exist does not.
    #[error("missing segment")]
    SegmentMissing,
    /// The file's length is not one a segment can have.
    #[error("impossible segment length")]
    SegmentLength,
    /// The file with a segment's name is not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// A segment of another log.
    #[error("segment of another log")]
    ForeignSegment,
    /// A segment whose number is not the one in its name.
    #[error("segment number does not match the file's name")]
    SegmentNumber,
    /// A segment whose sector size is not the log's.
    #[error("sector size does not match CONTROL")]
    SectorSize,
    /// A segment whose nonce or epoch does not fit its neighbours.
    #[error("epoch or nonce does not fit the neighbouring segments")]
    Epoch,
    /// An epoch-start segment that does not start where the log before it ends.
    #[error("the epoch start does not fit the log before it")]
    EpochStart,
    /// A frame that was durable is damaged or missing.
    #[error("damaged frame below the durable watermark ({0})")]
    Frame(FrameDamage),
}

/// What is wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameDamage {
    /// Only zeros where the frame must be.
    #[error("zeros")]
    Zeros,
    /// The header is damaged.
    #[error("header: {0}")]
    Header(FormatError),
    /// The body's CRC does not match.
    #[error("body checksum mismatch")]
    BodyCrc,
    /// The body's entries are not what the header says.
    #[error("body: {0}")]
    Body(FormatError),
    /// The LSN does not match the frame's place.
    #[error("LSN out of place")]
    Lsn,
    /// The Seq does not continue the frame before.
    #[error("Seq out of order")]
    Seq,
    /// `prev_crc` is not the CRC of the frame before.
    #[error("CRC of the previous frame")]
    PrevCrc,
    /// It does not fit into its segment.
    #[error("longer than its segment")]
    Length,
    /// The file ends before it.
    #[error("end of file")]
    EndOfFile,
    /// A position that must be a frame's start is inside one.
    #[error("no frame starts there")]
    Boundary,
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(Box::new(corruption))
    }
}

impl Error {
    /// Returns the corruption, if the error is one.
    #[must_use]
    pub fn corruption(&self) -> Option<&Corruption> {
        match self {
            Self::Corrupt(corruption) | Self::Gap { fault: corruption, .. } => Some(corruption),
            _ => None,
        }
    }

    /// Returns whether the error means that a file was not found.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns whether the disk is full, or a quota used up.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::NoSpace(_) | Self::NoSpaceToOpen { .. } => true,
            Self::NotCreated { cause, .. } => cause.is_out_of_space(),
            Self::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            _ => false,
        }
    }

    /// Wraps a system error with the operation and the path.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}
