//! Holds of a store's log: the checkpoints of a store purge it, but for what somebody still reads.

use bulla_wal::{Hold, HoldFile, HoldGuard, Lsn};

use super::Store;
use crate::error::Result;
use crate::record::Record;

impl<R: Record> Store<R> {
    /// Keeps the log at or above `from`, as long as the guard lives. See [`bulla_wal::Log::hold`].
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log).
    pub fn hold(&self, from: Lsn) -> Result<HoldGuard> {
        Ok(self.log.hold(from)?)
    }

    /// Keeps the log at or above `from`, durably, until it is released or keeps more than its
    /// quota. See [`bulla_wal::Log::hold_named`].
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log).
    pub fn hold_named(&self, name: &str, from: Lsn, quota_bytes: u64) -> Result<Hold> {
        Ok(self.log.hold_named(name, from, quota_bytes)?)
    }

    /// Moves a hold up. See [`bulla_wal::Log::advance_hold`].
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log); with [`HoldBroken`](bulla_wal::Error::HoldBroken) what it
    /// kept may be gone.
    pub fn advance_hold(&self, name: &str, to: Lsn) -> Result<Hold> {
        Ok(self.log.advance_hold(name, to)?)
    }

    /// Ends a hold. See [`bulla_wal::Log::release_hold`].
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log).
    pub fn release_hold(&self, name: &str) -> Result<()> {
        Ok(self.log.release_hold(name)?)
    }

    /// Returns the holds that have names. See [`bulla_wal::Log::holds`].
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log).
    pub fn holds(&self) -> Result<Vec<HoldFile>> {
        Ok(self.log.holds()?)
    }
}
