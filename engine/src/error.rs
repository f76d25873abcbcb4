//! What can go wrong in a store, told apart by what the caller may do next.

use bulla_wal::{Lsn, Seq};

use crate::entries::EntryError;
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
    /// The log refused or failed; see [`bulla_wal::Error`] for what may be done.
    #[error(transparent)]
    Log(#[from] bulla_wal::Error),
    /// The log could not be recovered; see [`bulla_recovery::Error`].
    #[error(transparent)]
    Recovery(#[from] bulla_recovery::Error),
    /// The log holds an entry that is no change of tokens: it was written by something
    /// else than a store, or by a newer one. It is whole; `bulla dump` shows it.
    #[error("the entry {seq} at LSN {lsn} is no change of tokens")]
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
