//! What can go wrong with a repair; all else is the log's own error.

use std::path::PathBuf;

use bulla_storage::{Error, Lsn, Seq};

/// An error of a repair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The environment, the options, or a damaged CONTROL; see [`Error`].
    #[error(transparent)]
    Log(#[from] Error),
    /// A repair can't cut there; nothing was changed.
    #[error("cannot cut at LSN {cut_at}: {reason}")]
    Cut {
        /// The cut asked for.
        cut_at: Lsn,
        /// Why not.
        reason: CutRefused,
    },
    /// The last repair can't be undone; nothing was changed.
    #[error("cannot undo the last repair: {0}")]
    Undo(#[from] UndoRefused),
}

/// Why a repair can't be undone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndoRefused {
    /// There was none, it was undone, or somebody removed what it had set aside.
    #[error("there is no repair of this log to undo in {}", .0.display())]
    NoRepair(PathBuf),
    /// Entries were appended after the repair, which the undo would lose.
    #[error("entries were written after it, the first with number {first}, in {}", path.display())]
    Written {
        /// The segment that holds some of them.
        path: PathBuf,
        /// The number of the first.
        first: Seq,
    },
    /// Something changed after the repair, and the undo can't tell whether it would lose anything.
    #[error("{} is not as the repair left it", .0.display())]
    Changed(PathBuf),
    /// Checkpoints or holds were made or removed after the repair.
    #[error("checkpoints or holds in {} were made or removed after it", .0.display())]
    Folders(PathBuf),
    /// A file that the repair set aside is missing, or is not what it was.
    #[error("{}, which it set aside, is missing or damaged", .0.display())]
    Copy(PathBuf),
}

/// Why a repair can't cut where it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutRefused {
    /// The frames that can be read in order end before it.
    #[error("the frames that can be read in order end at LSN {0}")]
    PastEnd(Lsn),
    /// It is below the low-water mark.
    #[error("the log starts at LSN {0}")]
    BelowStart(Lsn),
    /// It is inside a frame.
    #[error("it is inside the frame at LSN {0}")]
    InsideFrame(Lsn),
}

/// Adds to a corruption up to where the log was proved durable.
pub(crate) fn proved_durable(error: Error, durable: Lsn) -> Error {
    match error {
        Error::Corrupt(mut corruption) => {
            corruption.durable = Some(durable);
            Error::Corrupt(corruption)
        }
        other => other,
    }
}
