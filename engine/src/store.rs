//! The store: a table of records, and the log that makes it survive.
//!
//! Owns the two together: opening, reading, waiting. How changes get into both is in
//! `write.rs`, walks through all records in `scan.rs`, what goes by itself in
//! `reclaim.rs`. State is a function of the log alone: a change that did not get into the
//! log is not applied, and replay reads no clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_recovery::{Range, Recovery, Report};
use bulla_wal::io::Io;
use bulla_wal::{Level, Log, Lsn, Options, Ready, Receipt, Seq, Stats};

use crate::error::{Error, Result};
use crate::quota::{Quota, QuotaStats};
use crate::reclaim::Reclaimer;
use crate::record::{RECORD_LEN, Record};
use crate::state::State;
use crate::table::{Bytes, PageId, index};
use crate::token::Token;

/// Options of a store.
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreOptions {
    log: Options,
    level: Level,
    create: bool,
    quota: Quota,
    max_ahead: Duration,
}

/// A day.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            log: Options::new(),
            level: Level::default(),
            create: true,
            quota: Quota::new(),
            max_ahead: MAX_AHEAD,
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

    /// How far ahead of the clock the time of a record may be that is put, in whole
    /// seconds. Default: one day.
    pub fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.max_ahead = max_ahead;
        self
    }
}

/// Records in memory, every change of them in a log. Share it between threads by
/// reference or `Arc`.
///
/// A read may show a change that a crash can still undo: wait for its receipt,
/// [`sync`](Self::sync), or [`wait_for`](Self::wait_for) what
/// [`get_with_lsn`](Self::get_with_lsn) names, before relying on it. When the log is
/// poisoned, changes above its durable watermark are in doubt: reopen the store.
#[derive(Debug)]
pub struct Store<R: Record = Token> {
    pub(crate) state: State<R>,
    pub(crate) log: Log,
    pub(crate) level: Level,
    pub(crate) reclaimer: Reclaimer,
    io: Arc<dyn Io>,
    max_ahead_s: u64,
    recovered: Option<Report>,
}

impl Store {
    /// Opens the store of tokens in a directory: recovers its log and replays it, or
    /// creates it.
    ///
    /// On return everything that the store shows is durable.
    ///
    /// # Errors
    /// [`Error::Recovery`] when the log is corrupt (nothing was changed), locked or not
    /// there; [`Error::Entry`] when it holds something else than changes of tokens;
    /// [`Error::Log`] when it can't be created or started; [`Error::Memory`].
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self> {
        Self::open_records(dir, options)
    }
}

impl<R: Record> Store<R> {
    /// Opens the store of records of any type in a directory, as [`open`](Store::open)
    /// does for tokens.
    ///
    /// The log does not say of which type its records are: only that they are valid as
    /// this one is checked.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_records(dir: &Path, options: &StoreOptions) -> Result<Self> {
        let log_options = options.log.clone().level(options.level);
        let state = State::new(options.quota);
        let (log, recovered) = match Recovery::run(dir, &log_options) {
            Err(bulla_recovery::Error::Log(bulla_wal::Error::NotALog { .. })) if options.create => {
                (Log::create(dir, &log_options)?, None)
            }
            recovery => {
                let recovery = recovery?;
                state.replay(|visitor| recovery.replay(Range::ALL, visitor))?;
                let report = recovery.report().clone();
                (Log::start(recovery.into_recovered())?, Some(report))
            }
        };
        Ok(Self {
            state,
            log,
            level: options.level,
            reclaimer: Reclaimer::new(),
            io: Arc::clone(options.log.file_system()),
            max_ahead_s: options.max_ahead.as_secs(),
            recovered,
        })
    }

    /// What recovery found when the store was opened; `None` when it was created.
    #[must_use]
    pub fn recovered(&self) -> Option<&Report> {
        self.recovered.as_ref()
    }

    /// The record with this id, if there is one. Takes no lock.
    #[must_use]
    pub fn get(&self, id: R::Id) -> Option<R> {
        self.state.get(id.into())
    }

    /// As [`get`](Self::get), and a position to [`wait_for`](Self::wait_for) before relying
    /// on what was read, also on its absence: none of the changes that made it so is
    /// after it.
    #[must_use]
    pub fn get_with_lsn(&self, id: R::Id) -> (Option<R>, Lsn) {
        let (bytes, lsn) = self.state.table.read(id.into());
        (bytes.and_then(decode), Lsn(lsn))
    }

    /// The records with these ids as of one moment, in the ids' order: of a batch all
    /// changes are seen or none. Keeps writers of the same records waiting meanwhile.
    #[must_use]
    pub fn get_many(&self, ids: &[R::Id]) -> Vec<Option<R>> {
        let mut pages: Vec<_> = ids.iter().map(|id| PageId::of((*id).into())).collect();
        pages.sort_unstable();
        pages.dedup();
        let guards: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((*page, self.state.table.lock_existing(*page)?)))
            .collect();
        let bytes = |id: &R::Id| {
            let id = (*id).into();
            let at = guards.binary_search_by_key(&PageId::of(id), |(page, _)| *page).ok()?;
            guards[at].1.read(index(id))
        };
        let found: Vec<_> = ids.iter().map(bytes).collect();
        drop(guards);
        found.into_iter().map(|bytes| bytes.and_then(decode)).collect()
    }

    /// When the record with this id expires, in ms since 1970; `None` for never, and where
    /// there is no record.
    #[must_use]
    pub fn expires_at(&self, id: R::Id) -> Option<u64> {
        let id = id.into();
        let guard = self.state.table.lock_existing(PageId::of(id))?;
        Some(guard.expiry(index(id))).filter(|at| *at != 0)
    }

    /// How many records there are, those of writes under way among them.
    #[must_use]
    pub fn len(&self) -> usize {
        // An address space that holds the records holds their number.
        usize::try_from(self.state.usage.records()).unwrap_or(usize::MAX)
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the receipt's level holds.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Poisoned` it is unknown whether the change is durable.
    pub fn wait(&self, receipt: Receipt) -> Result<()> {
        self.log.wait(receipt).map_err(Error::from)
    }

    /// Waits until `level` holds for everything up to a position that
    /// [`get_with_lsn`](Self::get_with_lsn) gave.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, lsn: Lsn, level: Level) -> Result<()> {
        if lsn == Lsn::ZERO {
            // No entry is there: what was read was replayed, or never written.
            return Ok(());
        }
        self.wait(Receipt { epoch: self.log.epoch(), lsn, seq: Seq::ZERO, level })
    }

    /// Does the receipt's level hold? Never blocks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self, receipt: Receipt) -> Result<bool> {
        Ok(self.log.is_ready(receipt)?)
    }

    /// A future of the receipt's level, for any executor.
    pub fn ready(&self, receipt: Receipt) -> Ready<'_> {
        self.log.ready(receipt)
    }

    /// Makes every change so far durable; gives the log's durable watermark.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn sync(&self) -> Result<Lsn> {
        Ok(self.log.sync()?)
    }

    /// Makes every change durable and closes the log.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }

    /// Numbers of the table and of the log.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let quota = self.state.usage.stats();
        StoreStats {
            tokens: quota.records,
            token_bytes: quota.records * RECORD_LEN as u64,
            quota,
            snapshots: self.state.views.len() as u64,
            log: self.log.stats(),
        }
    }

    /// Does what the log's background threads would do now; `true` if there was something.
    #[doc(hidden)]
    pub fn step(&self) -> bool {
        self.log.step()
    }

    /// The clock, in ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.io.wall_ns() / 1_000_000
    }

    /// Refuses a record whose id is 0 or whose time is too far ahead.
    pub(crate) fn check(&self, record: &R) -> Result<()> {
        crate::batch::non_zero(record.id())?;
        // The clock is looked at for records that have a time.
        let Some(timestamp) = record.timestamp().filter(|timestamp| *timestamp != 0) else {
            return Ok(());
        };
        let now = self.now_ms() / 1_000;
        if u64::from(timestamp) <= now.saturating_add(self.max_ahead_s) {
            Ok(())
        } else {
            Err(Error::TooFarAhead { timestamp, now, max_ahead: self.max_ahead_s })
        }
    }
}

/// A record of the table. What is there was checked before it was put there.
pub(crate) fn decode<R: Record>(bytes: Bytes) -> Option<R> {
    let record = R::from_bytes(&bytes);
    debug_assert!(record.is_ok(), "the table holds valid records only");
    record.ok()
}

/// Numbers of a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Records in the table.
    pub tokens: u64,
    /// Their bytes, without the table's own.
    pub token_bytes: u64,
    /// What is in use of the quota.
    pub quota: QuotaStats,
    /// Snapshots that were taken and not yet dropped.
    pub snapshots: u64,
    /// The log's counters.
    pub log: Stats,
}
