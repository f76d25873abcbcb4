//! The store: a table of records, and the log that makes it survive.
//!
//! Owns the two together, from open to close. State is a function of the log alone: a change
//! that did not get into the log is not applied, and replay reads no clock.
//!
//! ```text
//! open    recovery of log and table     read      gets, snapshots, waiting for receipts
//! write   the public writes             commit    how a write gets into log and table as one
//! scan    all records                   evict     expired records and, in a full store, the
//!                                                 lightest; priority ranks them
//! holds   what purges of the log keep       transact changes that follow from what was read
//! ```

pub(crate) mod commit;
mod evict;
mod holds;
mod open;
mod priority;
mod read;
pub(crate) mod scan;
pub(crate) mod transact;
pub(crate) mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_recovery::Report;
use bulla_storage::io::Io;
use bulla_wal::{Level, Log, Lsn, Stats};

use self::open::{Opened, recover, recover_or_create};
use self::priority::Evictor;
use crate::batch::check;
use crate::checkpoint::{
    Background, CheckpointError, CheckpointInfo, CheckpointStats, Checkpoints, OpenReport,
};
use crate::error::{Error, Result};
use crate::options::StoreOptions;
use crate::quota::QuotaStats;
use crate::record::{RECORD_LEN, Record, content_of};
use crate::state::State;
use crate::sync::{AtomicBool, Ordering};
use crate::token::Token;

/// Records in memory, with every change in a log. Share it between threads by reference or
/// `Arc`.
///
/// # Writes
/// Each write says at which level it is acknowledged, and whether the call waits for that:
///
/// ```no_run
/// # use bulla_engine::{Level, Store, Token, TokenId};
/// # fn example(store: &Store, token: &Token) -> Result<(), bulla_engine::Error> {
/// store.put(token)?; // waits until the store's default level holds
/// store.at(Level::Strict).put(token)?; // waits until this level holds
/// let receipt = store.at(Level::Strict).begin().put(token)?; // returns at once
/// store.wait(receipt)?;
/// # Ok(())
/// # }
/// ```
///
/// # Reads
/// A read may show a change that a crash can still undo: wait for its receipt,
/// [`sync`](Self::sync), or [`wait_for`](Self::wait_for) what
/// [`get_with_lsn`](Self::get_with_lsn) returns, before relying on it. When the log is poisoned,
/// changes above its durable watermark are in doubt: reopen the store.
///
/// # Fork
/// A child of a `fork` can't use the store of its parent. Writes, checkpoints, snapshots and `close`
/// return [`Error::Log`] with [`Forked`](bulla_wal::Error::Forked); reads may wait for a thread that
/// is not there. Open the store after the fork.
///
/// # Panics
/// A panic of your code (a method of the record type, a closure) propagates to you, and is
/// counted ([`StoreStats::panics`]). No lock is held and nothing is reserved any more then, and
/// the operation is either not begun or complete, in the table and in the log. A panic in an
/// eviction that follows a write is only counted: the write is made.
#[derive(Debug)]
pub struct Store<R: Record = Token> {
    /// Stopped before the log closes.
    background: Background,
    checkpoints: Arc<Checkpoints<R>>,
    state: Arc<State<R>>,
    log: Arc<Log>,
    level: Level,
    evictor: Evictor,
    is_shut_down: AtomicBool,
    io: Arc<dyn Io>,
    max_ahead: Duration,
    recovered: Option<Report>,
    opened: OpenReport,
}

impl Store {
    /// Opens the store of tokens in a directory, or creates it: recovers its log, finds the
    /// newest checkpoint that is intact and of the log's history, and replays what came after
    /// it. [`opened_from`](Store::opened_from) tells which that was.
    ///
    /// On return everything that the store shows is durable. Records in the checkpoint are read
    /// on first access, or by [`load`](Store::load).
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when the directory holds no store but other files;
    /// [`Error::Log`] when the log is corrupt, holds something other than tokens
    /// ([`OtherContent`](bulla_wal::Error::OtherContent)), is locked or not there: nothing was
    /// changed;
    /// [`Error::Entry`] when it holds an entry that is not a change of tokens all the same;
    /// [`Error::Checkpoint`] with [`Missing`](CheckpointError::Missing) when the log was purged
    /// and no checkpoint replaces what is gone; [`Error::Log`] when it can't be created or
    /// started; [`Error::Memory`].
    pub fn open(dir: impl AsRef<Path>, options: &StoreOptions) -> Result<Self> {
        Self::open_records(dir, options)
    }
}

impl<R: Record> Store<R> {
    /// Opens the store of records of any type in a directory, as [`open`](Store::open) does for
    /// tokens.
    ///
    /// The log says of which type its records are. [`Options::content`](bulla_wal::Options) is
    /// not considered.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_records(dir: impl AsRef<Path>, options: &StoreOptions) -> Result<Self> {
        let dir = dir.as_ref();
        let log_options = options.log.clone().level(options.level).content(content_of::<R>());
        let io = &options.log.io;
        let state = Arc::new(State::new(options.quota, !options.log.is_manual()));
        let open = if options.create { recover_or_create } else { recover };
        let Opened { log, recovered, report, found } = open(dir, &log_options, &state)?;
        let log = Arc::new(log);
        let store = log.directory()?;
        let direct = options.log.is_direct();
        let (of, at) = ((&state, &log), (io, &store));
        let checkpoints = Arc::new(Checkpoints::new(of, at, direct, options.triggers, found));
        let background = Background::start(&checkpoints, options.log.is_manual())
            .map_err(CheckpointError::io("start a thread for", dir))?;
        Ok(Self {
            background,
            checkpoints,
            state,
            log,
            level: options.level,
            evictor: Evictor::new(),
            is_shut_down: AtomicBool::new(false),
            io: Arc::clone(io),
            max_ahead: options.max_ahead,
            recovered,
            opened: report,
        })
    }

    /// Returns what the store opened from: its checkpoint, those that were refused and why, and
    /// how much of the log was replayed.
    #[must_use]
    pub fn opened_from(&self) -> &OpenReport {
        &self.opened
    }

    /// Returns what recovery found in the log, from the checkpoint on; `None` when the store was
    /// created.
    #[must_use]
    pub fn recovered(&self) -> Option<&Report> {
        self.recovered.as_ref()
    }

    /// Takes a checkpoint now, while others read and write; returns the newest one when no
    /// record has changed since.
    ///
    /// On return it is durable, and the log is purged to what it and the one before it need. It
    /// reads what is still only in the checkpoint that the store opened from, and retains pages
    /// as a [`Snapshot`](crate::Snapshot) does.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] and [`Error::Expired`]: none was taken, and the store continues
    /// without; [`Error::Log`] with `Poisoned`; and as [`load`](Self::load).
    pub fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.check_process()?;
        self.checkpoints.take()
    }

    /// Makes every change so far durable; returns the log's durable watermark.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn sync(&self) -> Result<Lsn> {
        Ok(self.log.sync()?)
    }

    /// Ends all writes: from here on they return [`Error::Closed`]. Reads still work.
    ///
    /// On return everything is durable, but for a write that another thread had begun before:
    /// its receipt still tells when its level holds. Takes a checkpoint before that if the next
    /// open would otherwise take long; one that fails is not an error. The directory stays
    /// locked until the store is [closed](Self::close) or dropped. May be called repeatedly.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn shut_down(&self) -> Result<()> {
        self.check_process()?;
        // Relaxed: a write that does not see it yet is one that had begun before.
        self.is_shut_down.store(true, Ordering::Relaxed);
        self.background.stop();
        self.checkpoints.closing();
        self.sync().map(drop)
    }

    /// Makes every change durable, closes the log and every file, and unlocks the directory.
    /// Takes a checkpoint before that if the next open would otherwise take long; one that fails
    /// is not an error. Every owner of an `Arc` of the store may call it.
    ///
    /// From the call on writes return [`Error::Closed`], and so does
    /// [`checkpoint`](Self::checkpoint). Receipts still tell when their level holds. Records in
    /// memory can still be read, and so can snapshots; a read of a part of the store that was not
    /// loaded returns [`Error::Closed`] too ([`load`](Self::load) everything before, if that
    /// matters).
    ///
    /// On return the thread that takes checkpoints has ended, and no file is open but for reads
    /// that other threads have begun before. It waits for a checkpoint that another thread is
    /// taking. A call after the first one does nothing; one that comes while
    /// another thread closes the store may return before that one has released the lock.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); lock and files are released all the same.
    pub fn close(&self) -> Result<()> {
        self.check_process()?;
        // Relaxed: see `shut_down`.
        self.is_shut_down.store(true, Ordering::Relaxed);
        self.background.stop();
        self.checkpoints.closing();
        self.checkpoints.release();
        let closed = self.log.close();
        self.state.unloaded.close();
        Ok(closed?)
    }

    /// Returns the statistics of the table and of the log.
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

    /// Does what the background threads would do now; returns `true` if there was something.
    #[doc(hidden)]
    pub fn step(&self) -> bool {
        let log = self.log.step();
        self.checkpoints.step() || log
    }

    /// Refuses a child, by `fork`, of the process that opened the store.
    #[inline]
    fn check_process(&self) -> Result<()> {
        if self.log.is_inherited() { Err(bulla_wal::Error::Forked.into()) } else { Ok(()) }
    }

    /// Returns the clock, in ms since 1970.
    fn now_ms(&self) -> u64 {
        self.io.wall_ns() / 1_000_000
    }

    /// Refuses a record whose id is 0 or whose time is too far ahead.
    fn check(&self, record: &R) -> Result<()> {
        check(record, self.max_ahead, || self.now_ms() / 1_000)
    }

    #[inline]
    fn check_open(&self) -> Result<()> {
        // Before any lock: a thread that is not in this process may hold it.
        self.check_process()?;
        // Relaxed: see `shut_down`.
        if self.is_shut_down.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }
}

/// Statistics of a store.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoreStats {
    /// Records in the table.
    pub tokens: u64,
    /// Their bytes, without the table's own.
    pub token_bytes: u64,
    /// The quota.
    pub quota: QuotaStats,
    /// Snapshots that live.
    pub snapshots: u64,
    /// The checkpoints.
    pub checkpoints: CheckpointStats,
    /// Panics in operations.
    pub panics: u64,
    /// The log's counters.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub log: Stats,
}
