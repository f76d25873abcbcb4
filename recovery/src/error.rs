//! What can go wrong with a repair; all else is the log's own error.

use bulla_storage::{Error, Lsn};

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
