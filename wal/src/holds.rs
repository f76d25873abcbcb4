//! Holds: what keeps purges from removing entries that a reader, a replica or a backup needs.

use crate::log::Log;
use crate::purge::HoldGuard;
use bulla_storage::files::holds::{Hold, HoldFile, Place};
use bulla_storage::files::purge::Floor;
use bulla_storage::{Lsn, Result};

impl Log {
    /// Keeps purges from removing entries at or above `from`, as long as the guard lives.
    ///
    /// # Errors
    /// [`Error::Purged`](crate::Error::Purged), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Examples
    /// ```
    /// # let temp = tempfile::tempdir().unwrap();
    /// # let dir = temp.path().join("log");
    /// use bulla_wal::{Level, Log, Lsn, Options};
    ///
    /// let (log, _) = Log::open(&dir, &Options::new().segment_len(1 << 20))?;
    /// let hold = log.hold(Lsn(0))?;
    /// log.wait(log.append_with(1, b"a fact", Level::Strict)?)?;
    /// assert_eq!(log.purge(Lsn::MAX)?, Lsn(0), "nothing may go");
    /// drop(hold);
    /// log.close()?;
    /// # Ok::<(), bulla_wal::Error>(())
    /// ```
    pub fn hold(&self, from: Lsn) -> Result<HoldGuard> {
        self.check_process()?;
        self.purger.hold(from)
    }

    /// Takes a hold with a name, which outlives this process: purges keep entries at or above
    /// `from` until it is [released](Self::release_hold), or keeps more than `quota_bytes` of
    /// log: then the next purge that it is in the way of breaks it. On return it is durable.
    ///
    /// # Errors
    /// [`Error::Purged`](crate::Error::Purged), [`Error::HoldExists`](crate::Error::HoldExists),
    /// [`Error::HoldName`](crate::Error::HoldName),
    /// [`Error::TooManyHolds`](crate::Error::TooManyHolds),
    /// [`Error::Locked`](crate::Error::Locked) when another process takes one or purges,
    /// [`Error::Closed`](crate::Error::Closed), [`Error::Io`](crate::Error::Io).
    pub fn hold_named(&self, name: &str, from: Lsn, quota_bytes: u64) -> Result<Hold> {
        let place = Place { floor: Floor::at(from), quota_bytes };
        self.purger.named(&self.directory()?)?.take(name, place)
    }

    /// Moves a hold with a name up to `to`, and leaves it where it is above that. On return this
    /// is durable. Returns the hold.
    ///
    /// # Errors
    /// [`Error::HoldBroken`](crate::Error::HoldBroken) when it kept more than its quota: entries
    /// from its position on may be gone. [`Error::NoHold`](crate::Error::NoHold),
    /// [`Error::HoldDamaged`](crate::Error::HoldDamaged), and those of
    /// [`hold_named`](Self::hold_named).
    pub fn advance_hold(&self, name: &str, to: Lsn) -> Result<Hold> {
        self.purger.named(&self.directory()?)?.advance(name, Floor::at(to))
    }

    /// Ends a hold with a name, also one that was broken. On return this is durable.
    ///
    /// # Errors
    /// [`Error::NoHold`](crate::Error::NoHold), and those of [`hold_named`](Self::hold_named).
    pub fn release_hold(&self, name: &str) -> Result<()> {
        self.purger.named(&self.directory()?)?.release(name)
    }

    /// Returns the holds that have names, also those that were broken, in order of their names.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked), [`Error::Closed`](crate::Error::Closed),
    /// [`Error::Io`](crate::Error::Io).
    pub fn holds(&self) -> Result<Vec<HoldFile>> {
        self.purger.named(&self.directory()?)?.list()
    }
}
