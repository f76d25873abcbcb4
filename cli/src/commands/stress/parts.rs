//! The parts that are measured: memory alone, each part of a store by itself, all of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bulla_engine::entries::PUT;
use bulla_engine::{OnExceed, Quota, Store, StoreOptions, Token};
use bulla_wal::{Level, Log};

use super::work::{Watch, Work, window};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Tokens pushed to a `Vec`, one for each thread: what all else is compared with.
    Memory,
    /// Puts that a full store refuses: what a look at the quota costs.
    Quota,
    /// Appends to a log.
    Log(LevelArg),
    /// Puts into a store: table, quota and log.
    Store(LevelArg),
}

/// What a run of a part gave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Measured {
    pub(super) time: Duration,
    /// Memory that each record took.
    pub(super) bytes_per_record: Option<f64>,
    /// Operations in the time that made something durable.
    pub(super) syncs: Option<u64>,
}

/// Entry and its payload in the log.
pub(super) const ENTRY_LEN: u64 = 72;
/// Of a log's ring, unless given.
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

    /// Runs it once, in a directory that is not there yet.
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

/// A store that holds the first token, and may hold no more.
fn quota(work: &Work, log: &LogArgs, dir: &Path, watch: Watch<'_>) -> Result<Measured> {
    let quota = Quota::new().max_records(1).on_exceed(OnExceed::Reject);
    let store = open(dir, log, quota)?;
    store.put(&work.token(0)?)?;
    let (_, time) = work.run(|_, share| {
        for number in share {
            match store.at(Level::Relaxed).begin().put(&work.token(number)?) {
                Err(bulla_engine::Error::Quota(_)) => {}
                // The one that is there may be put again.
                Ok(_) if number == 0 => {}
                Ok(_) => {
                    let what = "put a token into a full store, which took it";
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
    // All of the ring is touched before the time runs.
    for _ in 0..=log.ring_size.unwrap_or(RING_LEN) / ENTRY_LEN {
        wal.append_with(PUT, work.token(0)?.as_bytes(), Level::Relaxed)?;
    }
    wal.sync()?;
    let syncs = wal.stats().durable_operations();
    let (_, time) = work.run(|_, share| {
        let append = |token: &Token| Ok(wal.append_with(PUT, token.as_bytes(), level)?);
        window(work, share, append, |receipt| Ok(wal.wait(receipt)?), |count| watch.done(count))
    })?;
    let syncs = Some(wal.stats().durable_operations() - syncs);
    wal.close()?;
    Ok(Measured { time, bytes_per_record: None, syncs })
}

fn put(work: &Work, log: &LogArgs, level: Level, dir: &Path, watch: Watch<'_>) -> Result<Measured> {
    let store = open(dir, log, quota_for(work))?;
    // One token over and over: all of the ring is touched, and hardly any of the table.
    for _ in 0..=log.ring_size.unwrap_or(RING_LEN) / ENTRY_LEN {
        store.at(Level::Relaxed).begin().put(&work.token(0)?)?;
    }
    store.sync()?;
    let (before, syncs) = (resident()?, store.stats().log.durable_operations());
    let (_, time) = work.run(|_, share| {
        let put = |token: &Token| Ok(store.at(level).begin().put(token)?);
        window(work, share, put, |receipt| Ok(store.wait(receipt)?), |count| watch.done(count))
    })?;
    let syncs = Some(store.stats().log.durable_operations() - syncs);
    let bytes_per_record = Some(grown(before, work)?);
    store.close()?;
    Ok(Measured { time, bytes_per_record, syncs })
}

/// A limit that holds all records, so that each is counted against one.
pub(super) fn quota_for(work: &Work) -> Quota {
    Quota::new().max_records(work.records).max_bytes(u64::MAX)
}

pub(super) fn open(dir: &Path, log: &LogArgs, quota: Quota) -> Result<Store> {
    let store = Store::open(dir, &StoreOptions::new().log(log.options()).quota(quota))?;
    log.backend.warn_of_fallback(&store.stats().log);
    Ok(store)
}

/// Memory per record that came since.
fn grown(before: u64, work: &Work) -> Result<f64> {
    let grown = resident()?.saturating_sub(before);
    Ok(grown as f64 / work.records as f64)
}

/// Bytes of this process that are in memory.
fn resident() -> Result<u64> {
    kib_in("/proc/self/status", "VmRSS:")
}

/// Bytes of memory that can be had.
pub(super) fn available() -> Result<u64> {
    kib_in("/proc/meminfo", "MemAvailable:")
}

fn kib_in(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let missing = || std::io::Error::other(format!("there is no {name}"));
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::file("read", path)(missing()))
}
