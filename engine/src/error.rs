//! What can go wrong in a store, told apart by what the caller may do next.

use bulla_wal::{Lsn, Seq};

use crate::checkpoint::CheckpointError;
use crate::entries::EntryError;
use crate::quota::QuotaError;
use crate::snapshot::Expired;
use crate::token::TokenError;

/// The result of a store's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A token that can't be; nothing was changed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Id 0 stands for "no record"; nothing was changed.
    #[error("id 0 is not allowed")]
    ZeroId,
    /// A record whose time is further ahead of the clock than the store accepts
    /// ([`max_ahead`](crate::StoreOptions::max_ahead)); nothing was changed.
    #[error("the timestamp {timestamp} is more than {max_ahead} s ahead of now, {now}")]
    TooFarAhead {
        /// The record's time, in seconds since 1970.
        timestamp: u32,
        /// The clock.
        now: u64,
        /// How far it may be ahead, in seconds.
        max_ahead: u64,
    },
    /// There is a record with this id; nothing was changed.
    #[error("there is a record with id {id}")]
    Exists {
        /// The id.
        id: u32,
    },
    /// A record was to be replaced by one with another id; nothing was changed.
    #[error("the record {id} can't be replaced by one with id {other}")]
    OtherId {
        /// The id of the record that is there.
        id: u32,
        /// The id of the one that was to take its place.
        other: u32,
    },
    /// The function that was to update a record refused; nothing was changed.
    #[error("the update refused")]
    Update(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A record was changed by others each time between the look at it and its update.
    /// Nothing was changed; try again.
    #[error("the record {id} is changed by others all the time")]
    Contended {
        /// The id.
        id: u32,
    },
    /// The store is full; nothing was changed. Delete something, or raise the quota.
    #[error("the store is full")]
    Quota(#[from] QuotaError),
    /// The system has no memory for the records; nothing was changed.
    #[error("map memory for records")]
    Memory(#[source] std::io::Error),
    /// There are as many snapshots as there may be; drop one.
    #[error("there are {max} snapshots, and there may not be more")]
    TooManySnapshots {
        /// How many there may be.
        max: usize,
    },
    /// A snapshot had to make way for changes; take a new one.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// A checkpoint could not be taken, or not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The log refused or failed; see [`bulla_wal::Error`] for what may be done.
    #[error(transparent)]
    Log(#[from] bulla_wal::Error),
    /// The log could not be recovered; see [`bulla_recovery::Error`].
    #[error(transparent)]
    Recovery(#[from] bulla_recovery::Error),
    /// The log holds an entry that is no change of records: it was written by something
    /// else than a store, or by a newer one. It is whole; `bulla dump` shows it.
    #[error("the entry {seq} at LSN {lsn} is no change of records")]
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
