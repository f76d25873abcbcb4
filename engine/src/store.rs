//! The store: a table of records, and the log that makes it survive.
//!
//! Owns the two together: opening, reading, waiting. How changes get into both is in
//! `write.rs`, walks through all records in `scan.rs`, what goes by itself in
//! `reclaim.rs`. State is a function of the log alone: a change that did not get into the
//! log is not applied, and replay reads no clock.

use std::path::Path;
use std::sync::Arc;

use bulla_recovery::{Bound, Range, Recovery, Report};
use bulla_storage::io::Io;
use bulla_wal::{Level, Log, Lsn, Options, Ready, Receipt, Seq, Stats};

use crate::checkpoint::{
    Background, Base, Candidates, CheckpointError, CheckpointInfo, CheckpointStats, Checkpoints,
    Choice, Folder, Found, OpenReport,
};
use crate::error::{Error, Result};
use crate::options::StoreOptions;
use crate::quota::QuotaStats;
use crate::reclaim::Reclaimer;
use crate::record::{RECORD_LEN, Record};
use crate::state::State;
use crate::table::{Bytes, Copied, PageId, index};
use crate::token::Token;

/// Threads that read a checkpoint where the caller does not say how many.
pub(crate) const LOAD_THREADS: usize = 2;

/// Records in memory, every change of them in a log. Share it between threads by
/// reference or `Arc`.
///
/// A read may show a change that a crash can still undo: wait for its receipt,
/// [`sync`](Self::sync), or [`wait_for`](Self::wait_for) what
/// [`get_with_lsn`](Self::get_with_lsn) names, before relying on it. When the log is
/// poisoned, changes above its durable watermark are in doubt: reopen the store.
///
/// # Panics
/// A panic of your code (a method of the record type, a closure) goes on to you, and is
/// counted ([`StoreStats::panics`]). No lock is held and nothing is reserved any more then,
/// and the operation is either not begun or made wholly, in the table and in the log. One
/// that happens while records make way after a write is only counted: the write is made.
#[derive(Debug)]
pub struct Store<R: Record = Token> {
    /// Ended before the log is closed.
    background: Background<R>,
    checkpoints: Arc<Checkpoints<R>>,
    pub(crate) state: Arc<State<R>>,
    pub(crate) log: Arc<Log>,
    pub(crate) level: Level,
    pub(crate) reclaimer: Reclaimer,
    io: Arc<dyn Io>,
    max_ahead_s: u64,
    recovered: Option<Report>,
    opened: OpenReport,
}

impl Store {
    /// Opens the store of tokens in a directory, or creates it: recovers its log, finds the
    /// newest checkpoint that is whole and of the log's history, and replays what came after
    /// it. [`opened_from`](Store::opened_from) tells which that was.
    ///
    /// On return everything that the store shows is durable. Records in the checkpoint are
    /// read when they are first touched, or by [`load`](Store::load).
    ///
    /// # Errors
    /// [`Error::Recovery`] when the log is corrupt (nothing was changed), locked or not
    /// there; [`Error::Entry`] when it holds something else than changes of tokens;
    /// [`Error::Checkpoint`] with [`Missing`](CheckpointError::Missing) when the log was
    /// purged and no checkpoint stands for what is gone; [`Error::Log`] when it can't be
    /// created or started; [`Error::Memory`].
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
        let io = &options.log.io;
        let state = Arc::new(State::new(options.quota, !options.log.is_manual()));
        let opened = match recover(dir, &log_options, &state) {
            Err(error) if options.create && is_not_there(&error) => create(dir, &log_options)?,
            recovered => recovered?,
        };
        let Opened { log, recovered, report, found } = opened;
        let log = Arc::new(log);
        let direct = options.log.is_direct();
        let (of, at) = ((&state, &log), (io, dir));
        let checkpoints = Arc::new(Checkpoints::new(of, at, direct, options.triggers, found));
        let background = Background::start(&checkpoints, options.log.is_manual())
            .map_err(CheckpointError::io("start a thread for", dir))?;
        Ok(Self {
            background,
            checkpoints,
            state,
            log,
            level: options.level,
            reclaimer: Reclaimer::new(),
            io: Arc::clone(io),
            max_ahead_s: options.max_ahead.as_secs(),
            recovered,
            opened: report,
        })
    }

    /// What the records were read from when the store was opened: the checkpoint, those that
    /// were refused and why, and how much of the log was replayed.
    #[must_use]
    pub fn opened_from(&self) -> &OpenReport {
        &self.opened
    }

    /// Takes a checkpoint now, while others read and write; gives the newest one when no
    /// record was changed since.
    ///
    /// On return it is durable, and the log is purged to what it and the one before it need.
    /// It reads what is still in the checkpoint that the store was opened from, and keeps
    /// pages as a [`Snapshot`](crate::Snapshot) does.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] and [`Error::Expired`]: none was taken, and the store goes on
    /// without; [`Error::Log`] with `Poisoned`; and as [`load`](Self::load).
    pub fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.checkpoints.take()
    }

    /// What recovery found in the log when the store was opened, from its checkpoint on;
    /// `None` when it was created.
    #[must_use]
    pub fn recovered(&self) -> Option<&Report> {
        self.recovered.as_ref()
    }

    /// The record with this id, if there is one. Takes no lock, but for the first touch of
    /// what is still in a checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load), for the part with this record.
    // Always a part of its caller, and so are those that it calls: a record that is returned
    // through memory is copied there in other pieces than it was written in, for which the
    // processor waits; then gets don't overlap.
    #[inline(always)]
    pub fn get(&self, id: R::Id) -> Result<Option<R>> {
        let watched = self.state.panics.watched();
        let record = match self.state.read(id.into()) {
            Ok((Some(record), _)) => Ok(decode(record)),
            Ok((None, _)) => Ok(None),
            Err(error) => Err(error),
        };
        watched.ended();
        record
    }

    /// As [`get`](Self::get), and a position to [`wait_for`](Self::wait_for) before relying
    /// on what was read, also on its absence: none of the changes that made it so is
    /// after it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with_lsn(&self, id: R::Id) -> Result<(Option<R>, Lsn)> {
        self.state.panics.watch(|| {
            let (bytes, lsn) = self.state.read(id.into())?;
            Ok((bytes.and_then(decode), Lsn(lsn)))
        })
    }

    /// The records with these ids as of one moment, in the ids' order: of a batch all
    /// changes are seen or none. Keeps writers of the same records waiting meanwhile.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, ids: &[R::Id]) -> Result<Vec<Option<R>>> {
        self.state.panics.watch(|| {
            let ids: Vec<u32> = ids.iter().map(|id| (*id).into()).collect();
            let found = self.find_many(&ids)?;
            Ok(found.into_iter().map(|bytes| bytes.and_then(decode)).collect())
        })
    }

    fn find_many(&self, ids: &[u32]) -> Result<Vec<Option<Copied>>> {
        let mut pages: Vec<_> = ids.iter().map(|id| PageId::of(*id)).collect();
        pages.sort_unstable();
        pages.dedup();
        pages.iter().try_for_each(|page| self.state.touch(*page))?;
        let guards: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((*page, self.state.table.lock_existing(*page)?)))
            .collect();
        let bytes = |id: &u32| {
            let at = guards.binary_search_by_key(&PageId::of(*id), |(page, _)| *page).ok()?;
            guards[at].1.read(index(*id))
        };
        Ok(ids.iter().map(bytes).collect())
    }

    /// When the record with this id expires, in ms since 1970; `None` for never, and where
    /// there is no record.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn expires_at(&self, id: R::Id) -> Result<Option<u64>> {
        let expiry = self.state.panics.watch(|| self.state.expiry(id.into()))?;
        Ok(Some(expiry).filter(|at| *at != 0))
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

    /// Makes every change durable and closes the log. Takes a checkpoint before that, if the
    /// next open would otherwise take long; one that fails is no error.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn close(self) -> Result<()> {
        let Self { background, checkpoints, log, .. } = self;
        drop(background);
        checkpoints.closing();
        drop(checkpoints);
        let log = Arc::into_inner(log).expect("nobody else has the log any more");
        Ok(log.close()?)
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
            checkpoints: self.checkpoints.stats(),
            panics: self.state.panics.count(),
            log: self.log.stats(),
        }
    }

    /// Does what the log's background threads would do now; `true` if there was something.
    #[doc(hidden)]
    pub fn step(&self) -> bool {
        let log = self.log.step();
        self.checkpoints.step() || log
    }

    /// The clock, in ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.io.wall_ns() / 1_000_000
    }

    /// Refuses a record whose id is 0 or whose time is too far ahead.
    pub(crate) fn check(&self, record: &R) -> Result<()> {
        check(record, self.max_ahead_s, || self.now_ms() / 1_000)
    }
}

/// Refuses a record whose id is 0 or whose time is too far ahead of `now`, in s since 1970. The
/// clock is looked at for records that have a time.
pub(crate) fn check<R: Record>(
    record: &R,
    max_ahead: u64,
    now: impl FnOnce() -> u64,
) -> Result<()> {
    crate::batch::non_zero(record.id())?;
    let Some(timestamp) = record.timestamp().filter(|timestamp| *timestamp != 0) else {
        return Ok(());
    };
    let now = now();
    if u64::from(timestamp) <= now.saturating_add(max_ahead) {
        Ok(())
    } else {
        Err(Error::TooFarAhead { timestamp, now, max_ahead })
    }
}

/// A store's log, open, and its state, replayed.
struct Opened {
    log: Log,
    recovered: Option<Report>,
    report: OpenReport,
    found: Found,
}

/// Recovers the log, and gives `state` what it and a checkpoint say.
fn recover<R: Record>(dir: &Path, options: &Options, state: &State<R>) -> Result<Opened> {
    let io = &options.io;
    let folder = Folder::of(io, dir);
    let mut candidates = Candidates::default();
    let recovery = Recovery::run_above(dir, options, || {
        candidates = Candidates::settle(&folder)?;
        Ok(candidates.landmarks())
    })?;
    let log_report = recovery.report().clone();
    let first = log_report.first_lsn;
    let choice = candidates.choose(recovery.standing(), first, log_report.first_seq == Seq(1))?;
    let from = choice.newest.as_ref().map(|newest| newest.head.landmark.upto);
    let kept = Found::new(&choice, first);
    let Choice { newest, older, mut report, .. } = choice;
    if let Some(newest) = newest {
        state.begin(Base { newest, older, io: Arc::clone(io), store: dir.to_owned() });
    }
    let from = from.map_or(Bound::Unbounded, Bound::Lsn);
    let range = Range { from, to: Bound::Unbounded };
    report.replayed = state.replay(|visitor| recovery.replay(range, visitor))?;
    let found = Found { replayed: report.replayed > 0, ..kept };
    let log = Log::start(recovery.into_recovered())?;
    Ok(Opened { log, recovered: Some(log_report), report, found })
}

fn create(dir: &Path, options: &Options) -> Result<Opened> {
    let folder = Folder::of(&options.io, dir);
    let candidates = Candidates::look(&folder)?;
    if candidates.highest > 0 {
        return Err(CheckpointError::WithoutLog { path: folder.path }.into());
    }
    let log = Log::create(dir, options)?;
    Ok(Opened { log, recovered: None, report: OpenReport::default(), found: Found::nothing() })
}

fn is_not_there(error: &Error) -> bool {
    use bulla_recovery::Error::Log;
    matches!(error, Error::Recovery(Log(bulla_wal::Error::NotALog { .. })))
}

/// A record of the table. What is there was checked before it was put there.
#[inline]
pub(crate) fn decode<R: Record>(record: Copied) -> Option<R> {
    let bytes: Bytes = zerocopy::transmute!(record);
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
    /// The checkpoints.
    pub checkpoints: CheckpointStats,
    /// Panics in operations.
    pub panics: u64,
    /// The log's counters.
    pub log: Stats,
}
