//! The parts that are measured: memory alone, each part of a store by itself, all of it.

use std::path::Path;
use std::time::Duration;

use bulla_engine::entries::PUT;
use bulla_engine::{OnExceed, Quota, Store, StoreOptions, Token};
use bulla_wal::{Level, Log};
use procfs::process::Process;
use procfs::{Current, Meminfo};

use super::work::{Watch, Work, read_buffer};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Tokens pushed to a `Vec`, one for each thread: the baseline.
    Memory,
    /// Puts that a full store refuses: the cost of checking the quota.
    Quota,
    /// Appends to a log.
    Log(LevelArg),
    /// Puts into a store: table, quota and log.
    Store(LevelArg),
}

/// The result of a run of a part.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Measured {
    pub(super) time: Duration,
    /// Memory taken by each record.
    pub(super) bytes_per_record: Option<f64>,
    /// Operations in that time that made something durable.
    pub(super) syncs: Option<u64>,
}

/// Bytes of an entry in the log, with its payload.
pub(super) const ENTRY_LEN: u64 = 72;
/// Length of a log's ring, unless given.
pub(super) const RING_LEN: u64 = 32 << 20;

impl Part {
    pub(super) fn all(levels: &[LevelArg]) -> Vec<Self> {
        let logs = levels.iter().copied().map(Self::Log);
        let stores = levels.iter().copied().map(Self::Store);
        [Self::Memory, Self::Quota].into_iter().chain(logs).chain(stores).collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory: a Vec",
            Self::Quota => "quota: refused puts",
            Self::Log(_) => "log",
            Self::Store(_) => "store: table, quota, log",
        }
    }

    pub(super) const fn level(self) -> Option<LevelArg> {
        match self {
            Self::Memory | Self::Quota => None,
            Self::Log(level) | Self::Store(level) => Some(level),
        }
    }

    /// Runs the part once, in a directory that does not exist yet.
    pub(super) fn run(
        self,
        work: &Work,
        log: &LogArgs,
        dir: &Path,
        watch: Watch<'_>,
    ) -> Result<Measured> {
        match self {
            Self::Memory => memory(work, watch),
            Self::Quota => quota(work, log, dir, watch),
            Self::Log(level) => append(work, log, level.level(), dir, watch),
            Self::Store(level) => put(work, log, level.level(), dir, watch),
        }
    }
}

fn memory(work: &Work, watch: Watch<'_>) -> Result<Measured> {
    let before = resident()?;
    let (kept, time) = work.run(|_, share| {
        let len = usize::try_from(share.end - share.start).unwrap_or(usize::MAX);
        let mut tokens: Vec<Token> = Vec::with_capacity(len);
        for number in share {
            tokens.push(work.token(number)?);
            if (number + 1).is_multiple_of(work.pause()) {
                watch.done(work.pause())?;
            }
        }
        Ok(tokens)
    })?;
    let bytes_per_record = Some(grown(before, work)?);
    drop(std::hint::black_box(kept));
    Ok(Measured { time, bytes_per_record, syncs: None })
}

/// Puts tokens into a store that holds the first one, and may hold no more.
fn quota(work: &Work, log: &LogArgs, dir: &Path, watch: Watch<'_>) -> Result<Measured> {
    let quota = Quota::new().max_records(1).on_exceed(OnExceed::Reject);
    let store = open(dir, log, quota)?;
    store.put(&work.token(0)?)?;
    let (_, time) = work.run(|_, share| {
        for number in share {
            match store.at(Level::Relaxed).begin().put(&work.token(number)?) {
                Err(bulla_engine::Error::Quota(_)) => {}
                // The one that it holds may be replaced.
                Ok(_) if number == 0 => {}
                Ok(_) => {
                    let what = "fill a store: it took a token when it was full";
                    return Err(Error::System { what, source: std::io::Error::other("a defect") });
                }
                Err(error) => return Err(error.into()),
            }
            if (number + 1).is_multiple_of(work.pause()) {
                watch.done(work.pause())?;
            }
        }
        Ok(())
    })?;
    store.close()?;
    Ok(Measured { time, bytes_per_record: None, syncs: None })
}

fn append(
    work: &Work,
    log: &LogArgs,
    level: Level,
    dir: &Path,
    watch: Watch<'_>,
) -> Result<Measured> {
    let wal = Log::create(dir, &log.options())?;
    // All of the ring is touched before the clock starts.
    for _ in 0..=log.ring_size.unwrap_or(RING_LEN) / ENTRY_LEN {
        let _ = wal.append_with(PUT, work.token(0)?.as_bytes(), Level::Relaxed)?;
    }
    wal.sync()?;
    let syncs = wal.stats().durable_operations();
    let (_, time) = work.run(|_, share| {
        let append = |token: &Token| Ok(wal.append_with(PUT, token.as_bytes(), level)?);
        read_buffer(
            work,
            share,
            append,
            |receipt| Ok(wal.wait(receipt)?),
            |count| watch.done(count),
        )
    })?;
    let syncs = Some(wal.stats().durable_operations() - syncs);
    wal.close()?;
    Ok(Measured { time, bytes_per_record: None, syncs })
}

fn put(work: &Work, log: &LogArgs, level: Level, dir: &Path, watch: Watch<'_>) -> Result<Measured> {
    let store = open(dir, log, quota_for(work))?;
    // The same token over and over: touches all of the ring, and hardly any of the table.
    for _ in 0..=log.ring_size.unwrap_or(RING_LEN) / ENTRY_LEN {
        let _ = store.at(Level::Relaxed).begin().put(&work.token(0)?)?;
    }
    store.sync()?;
    let (before, syncs) = (resident()?, store.stats().log.durable_operations());
    let (_, time) = work.run(|_, share| {
        let put = |token: &Token| Ok(store.at(level).begin().put(token)?);
        read_buffer(work, share, put, |receipt| Ok(store.wait(receipt)?), |count| watch.done(count))
    })?;
    let syncs = Some(store.stats().log.durable_operations() - syncs);
    let bytes_per_record = Some(grown(before, work)?);
    store.close()?;
    Ok(Measured { time, bytes_per_record, syncs })
}

/// Returns a limit that all records fit into, so that each is counted against one.
pub(super) fn quota_for(work: &Work) -> Quota {
    Quota::new().max_records(work.records).max_bytes(u64::MAX)
}

pub(super) fn open(dir: &Path, log: &LogArgs, quota: Quota) -> Result<Store> {
    let store = Store::open(dir, &StoreOptions::new().log(log.options()).quota(quota))?;
    log.backend.warn_of_fallback(&store.stats().log);
    Ok(store)
}

/// Returns the growth of memory per record.
fn grown(before: u64, work: &Work) -> Result<f64> {
    let grown = resident()?.saturating_sub(before);
    Ok(grown as f64 / work.records as f64)
}

/// Returns the bytes of this process that are in memory.
fn resident() -> Result<u64> {
    let status = Process::myself().and_then(|process| process.status()).map_err(unknown)?;
    let kib = status.vmrss.ok_or_else(|| unknown("no VmRSS"))?;
    Ok(kib * 1024)
}

/// Returns the bytes of memory that are available.
pub(super) fn available() -> Result<u64> {
    let memory = Meminfo::current().map_err(unknown)?;
    memory.mem_available.ok_or_else(|| unknown("no MemAvailable"))
}

fn unknown(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let source = std::io::Error::other(error);
    Error::System { what: "find out the use of memory", source }
}
