//! What can go wrong in a store, told apart by what the caller may do next.

use std::path::PathBuf;
use std::time::Duration;

use bulla_wal::{Lsn, Seq};

use crate::checkpoint::error::CheckpointError;
use crate::entries::EntryError;
use crate::quota::QuotaError;
use crate::token::TokenError;

/// The result of a store's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid token; nothing was changed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Id 0 stands for "no record"; nothing was changed.
    #[error("id 0 is not allowed")]
    ZeroId,
    /// A record whose time is further ahead of the clock than the store accepts
    /// ([`max_ahead`](crate::StoreOptions::max_ahead)); nothing was changed.
    #[error("the timestamp {timestamp} is more than {} s ahead of now, {now}", max_ahead.as_secs())]
    TooFarAhead {
        /// The record's time, in seconds since 1970.
        timestamp: u32,
        /// The clock, in seconds since 1970.
        now: u64,
        /// How far ahead it may be.
        max_ahead: Duration,
    },
    /// There is a record with this id; nothing was changed.
    #[error("there is a record with id {id}")]
    Exists {
        /// The id.
        id: u32,
    },
    /// A record and its replacement have different ids; nothing was changed.
    #[error("the record {id} can't be replaced by one with id {other}")]
    OtherId {
        /// The id of the record that is there.
        id: u32,
        /// The id of its replacement.
        other: u32,
    },
    /// The function that was to update a record refused; nothing was changed.
    #[error("the update was refused: {0}")]
    Update(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Other threads changed a record each time between its read and its update. Nothing was
    /// changed; try again.
    #[error("other threads keep changing the record {id}")]
    Contended {
        /// The id.
        id: u32,
    },
    /// The store is full; nothing was changed. Delete something, or raise the quota.
    #[error("the store is full: {0}")]
    Quota(#[from] QuotaError),
    /// The system has no memory for the records; nothing was changed.
    #[error("could not map memory for records: {0}")]
    Memory(#[source] std::io::Error),
    /// A transaction read as many records as one may read; nothing was changed.
    #[error("a transaction can read at most {max} records")]
    TooManyReads {
        /// How many different records one may read.
        max: usize,
    },
    /// As many snapshots live as may live at once; drop one.
    #[error("there are {max} snapshots, the most allowed")]
    TooManySnapshots {
        /// How many may live at once.
        max: usize,
    },
    /// There is no store in the directory, and it holds something else: none was created among it.
    #[error("can't create a store in {}: it holds other files ({name})", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        name: String,
    },
    /// A snapshot expired to make room for changes; take a new one.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// The store was [closed](crate::Store::close) or [shut down](crate::Store::shut_down);
    /// nothing was changed. Records in memory can still be read; those that are only in a
    /// checkpoint can be read after a shutdown, but not after a close.
    #[error("the store is closed")]
    Closed,
    /// A checkpoint could not be taken, or could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log refused, failed or could not be recovered; see [`bulla_wal::Error`] for what
    /// may be done.
    #[error(transparent)]
    Log(bulla_wal::Error),
    /// The log holds an entry that is not a change of records: something other than a store, or
    /// a newer version, wrote it. The log itself is intact; `bulla dump` shows the entry.
    #[error("entry {seq} (LSN {lsn}) is not a record change")]
    Entry {
        /// Its position.
        lsn: Lsn,
        /// Its number.
        seq: Seq,
        /// What is wrong with it.
        #[source]
        source: EntryError,
    },
}

/// A store closes its log, and no one else does: then it is closed itself.
impl From<bulla_wal::Error> for Error {
    fn from(error: bulla_wal::Error) -> Self {
        match error {
            bulla_wal::Error::Closed => Self::Closed,
            error => Self::Log(error),
        }
    }
}

/// A snapshot has expired: the quota had no room for both a page version that it retained and
/// the changes of records. What was read of it before is right; take a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the snapshot at LSN {lsn} has expired: changes needed its memory")]
#[non_exhaustive]
pub struct Expired {
    /// The position of the snapshot.
    pub lsn: Lsn,
}
