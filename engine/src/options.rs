//! How a store opens: every option with its unit and default.

use std::time::Duration;

use bulla_wal::{Level, Options};

use crate::batch::check;
use crate::error::Result;
use crate::quota::Quota;
use crate::record::Record;

/// Options of a store.
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreOptions {
    pub(crate) log: Options,
    pub(crate) level: Level,
    pub(crate) create: bool,
    pub(crate) quota: Quota,
    pub(crate) max_ahead: Duration,
    pub(crate) triggers: Triggers,
}

/// When checkpoints are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Triggers {
    pub(crate) bytes: Option<u64>,
    pub(crate) interval: Option<Duration>,
    pub(crate) close_bytes: Option<u64>,
    pub(crate) reserve_bytes: Option<u64>,
    pub(crate) keep_log: bool,
}

/// One day.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
const BYTES: u64 = 256 * 1024 * 1024;
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// A log of this length is replayed in some ten milliseconds.
const CLOSE_BYTES: u64 = 4 * 1024 * 1024;

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            log: Options::new(),
            level: Level::default(),
            create: true,
            quota: Quota::new(),
            max_ahead: MAX_AHEAD,
            triggers: Triggers {
                bytes: Some(BYTES),
                interval: Some(INTERVAL),
                close_bytes: Some(CLOSE_BYTES),
                reserve_bytes: None,
                keep_log: false,
            },
        }
    }
}

impl StoreOptions {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the options of the log. Default: the log's defaults.
    pub fn log(mut self, log: Options) -> Self {
        self.log = log;
        self
    }

    /// Sets the level of a write that names none. Default: [`Level::Balanced`].
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets whether to create the store where there is none. Default: yes. A store is never created
    /// in a directory that holds other files ([`NotEmpty`](crate::Error::NotEmpty)); without
    /// `create`, a directory without a store is an error in any case
    /// ([`NotALog`](bulla_wal::Error::NotALog)).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets the most that the store may hold. A store whose log holds more opens all the same;
    /// then nothing more fits. Default: see [`Quota`].
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// Checks whether a store with these options would accept this record, as far as the record
    /// alone tells: its id and, by the clock, its time. The quota is not considered.
    ///
    /// # Errors
    /// [`Error::ZeroId`](crate::Error::ZeroId), [`Error::TooFarAhead`](crate::Error::TooFarAhead).
    pub fn check<R: Record>(&self, record: &R) -> Result<()> {
        let clock = || self.log.io.wall_ns() / 1_000_000_000;
        check(record, self.max_ahead, clock)
    }

    /// Sets how far ahead of the clock the time of a record may be, in whole seconds. Default:
    /// one day.
    pub fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.max_ahead = max_ahead;
        self
    }

    /// Takes a checkpoint when the log has grown by this many bytes since the last one, if a
    /// record was changed; `None` for never. The log is purged to what the last two checkpoints
    /// need, so it grows to about three times this length. Default: 256 MiB.
    pub fn checkpoint_bytes(mut self, bytes: Option<u64>) -> Self {
        self.triggers.bytes = bytes;
        self
    }

    /// Takes a checkpoint this long after the last one, if a record was changed; `None` for
    /// never. Default: 10 minutes.
    pub fn checkpoint_interval(mut self, interval: Option<Duration>) -> Self {
        self.triggers.interval = interval;
        self
    }

    /// Takes a checkpoint when the store closes, if the next open would have to replay this many
    /// bytes of log; `None` for never. Default: 4 MiB.
    pub fn checkpoint_close_bytes(mut self, bytes: Option<u64>) -> Self {
        self.triggers.close_bytes = bytes;
        self
    }

    /// Reserves this many bytes of disk for a checkpoint, without which the log can't be purged
    /// when the disk is full: as many as the records take. Default: `None`.
    pub fn checkpoint_reserve_bytes(mut self, bytes: Option<u64>) -> Self {
        self.triggers.reserve_bytes = bytes;
        self
    }

    /// Sets whether to keep the whole log: then checkpoints purge nothing of it. Default: no.
    pub fn keep_log(mut self, keep: bool) -> Self {
        self.triggers.keep_log = keep;
        self
    }
}
