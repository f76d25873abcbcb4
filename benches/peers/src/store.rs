//! What a store must offer to be compared: records of 64 bytes by a dense id.

use std::path::Path;

use crate::log::{Plan, Result, Unsupported};

/// Bytes of every record; the first eight are its id.
pub(crate) const RECORD_LEN: usize = 64;

/// A record.
pub(crate) type Bytes = [u8; RECORD_LEN];

/// A store, used by one thread.
pub(crate) trait Store: Sized {
    /// Opens the store in a directory; makes it if there is none.
    ///
    /// # Errors
    /// [`Unsupported`] where a store is in memory only and the directory's one is gone.
    fn open(dir: &Path, plan: &Plan) -> Result<Self>;

    /// Puts a record as a change of its own, which is in the store's log, if it has one,
    /// when this returns; nothing is promised of its durability.
    fn put(&mut self, id: u32, record: &Bytes) -> Result<()>;

    /// Puts records with ids from `first` on, together or not at all.
    fn put_batch(&mut self, _first: u32, _records: &[Bytes]) -> Result<()> {
        Err(Box::new(Unsupported))
    }

    /// Everything put before is durable on return, if it ever is.
    fn sync(&mut self) -> Result<()>;

    /// Returns the records with these ids to `visit`; one that is missing is an error.
    fn get(&self, ids: impl Iterator<Item = u32>, visit: impl FnMut(&[u8])) -> Result<()>;

    /// Returns every record to `visit`.
    fn scan(&self, visit: impl FnMut(&[u8])) -> Result<()>;

    /// Durable operations so far that don't pass through the C library's functions.
    fn unseen_syncs(&self) -> u64 {
        0
    }

    /// Ends it; what was put stays, unless it is in memory only.
    fn close(self) -> Result<()>;
}

/// A record that must be there is not.
pub(crate) fn missing(id: u32) -> crate::log::Failure {
    format!("record {id} is not there").into()
}
