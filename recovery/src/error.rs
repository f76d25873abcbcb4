//! What can go wrong with a recovery, told apart by what the caller may do next.

use bulla_storage::{Corruption, Lsn};

/// The result of a recovery operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of recovery. Environment and corruption come from [`bulla_storage::Error`];
/// the others are about positions that a caller kept or chose.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment, the options, or corruption (then nothing was changed).
    #[error(transparent)]
    Log(#[from] bulla_storage::Error),
    /// The range starts below the low-water mark: its entries were purged.
    #[error("{position} is below the log's start, LSN {low_water}: it was purged")]
    Purged {
        /// The position asked for.
        position: crate::range::Bound,
        /// Where the log starts.
        low_water: Lsn,
    },
    /// Another process opened, cut or repaired the log while it was read. Read it again.
    #[error("the log was changed while it was read, at LSN {lsn}: read it again")]
    Changed {
        /// What can no longer be read. No durable mark covered it.
        lsn: Lsn,
    },
    /// A repair can't cut there; nothing was changed.
    #[error("cannot cut at LSN {cut_at}: {reason}")]
    Cut {
        /// The cut asked for.
        cut_at: Lsn,
        /// Why not.
        reason: CutRefused,
    },
    /// All 2^32 epochs are used up. Copy the entries into a new log.
    #[error("no epoch is left for another open")]
    EpochsExhausted,
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

impl Error {
    /// Returns the corruption, if it is one.
    #[must_use]
    pub fn corruption(&self) -> Option<&Corruption> {
        match self {
            Self::Log(bulla_storage::Error::Corrupt(corruption)) => Some(corruption),
            _ => None,
        }
    }
}

impl Error {
    /// Adds to a corruption up to where the log was proved durable.
    pub(crate) fn proved_durable(self, durable: Lsn) -> Self {
        match self {
            Self::Log(bulla_storage::Error::Corrupt(mut corruption)) => {
                corruption.durable = Some(durable);
                Self::Log(bulla_storage::Error::Corrupt(corruption))
            }
            other => other,
        }
    }

    /// Returns whether a file that was listed is gone.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Log(bulla_storage::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
        )
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Log(bulla_storage::Error::from(Box::new(corruption)))
    }
}
