//! How a store is opened: every option with its unit and default.

use std::time::Duration;

use bulla_wal::{Level, Options};

use crate::checkpoint::Triggers;
use crate::error::Result;
use crate::quota::Quota;
use crate::record::Record;
use crate::store::check;

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

/// A day.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
const BYTES: u64 = 256 * 1024 * 1024;
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// What is replayed in some ten milliseconds.
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
                reserve_bytes: 0,
                keep_log: false,
            },
        }
    }
}

impl StoreOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Options of the log. Default: the log's defaults.
    pub fn log(mut self, log: Options) -> Self {
        self.log = log;
        self
    }

    /// Level of a change that names none. Default: [`Level::Balanced`].
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Create the store where there is none. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The most that the store may hold. What its log holds is opened whether it fits or
    /// not; then nothing more does. Default: see [`Quota`].
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// Would a store with these options take this record, as far as the record alone tells? It
    /// is not the quota that is looked at here, but the id and, by the clock, the time.
    ///
    /// # Errors
    /// [`Error::ZeroId`](crate::Error::ZeroId), [`Error::TooFarAhead`](crate::Error::TooFarAhead).
    pub fn check<R: Record>(&self, record: &R) -> Result<()> {
        let clock = || self.log.io.wall_ns() / 1_000_000_000;
        check(record, self.max_ahead.as_secs(), clock)
    }

    /// How far ahead of the clock the time of a record may be that is put, in whole
    /// seconds. Default: one day.
    pub fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.max_ahead = max_ahead;
        self
    }

    /// Take a checkpoint when the log has grown by so many bytes since the last one, if any
    /// record was changed; `None` for never. The log is purged to what the last two
    /// checkpoints need, so it is some three times as long at most. Default: 256 MiB.
    pub fn checkpoint_bytes(mut self, bytes: Option<u64>) -> Self {
        self.triggers.bytes = bytes;
        self
    }

    /// Take a checkpoint so long after the last one, if any record was changed; `None` for
    /// never. Default: 10 minutes.
    pub fn checkpoint_interval(mut self, interval: Option<Duration>) -> Self {
        self.triggers.interval = interval;
        self
    }

    /// Take a checkpoint when the store is closed, if the next open would have to replay so
    /// many bytes of log; `None` for never. Default: 4 MiB.
    pub fn checkpoint_close_bytes(mut self, bytes: Option<u64>) -> Self {
        self.triggers.close_bytes = bytes;
        self
    }

    /// Bytes of disk that are kept free for a checkpoint, which is what lets the log be
    /// purged when the disk is full: as many as the records take, or 0. Default: 0.
    pub fn checkpoint_reserve_bytes(mut self, bytes: u64) -> Self {
        self.triggers.reserve_bytes = bytes;
        self
    }

    /// Keep the whole log: checkpoints purge nothing of it. Default: no.
    pub fn keep_log(mut self, keep: bool) -> Self {
        self.triggers.keep_log = keep;
        self
    }
}
