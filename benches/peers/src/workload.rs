//! The workloads: what is done, how much of it, and what is inside the timing.
//!
//! A log is created in an empty directory, takes one record, and the file system is
//! synced; then time runs until everything appended is durable. Creating, closing and
//! removing are outside.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::log::{Failure, Log, Open, Plan, Replay, Result, Tally, Unsupported, Writer};
use crate::syncs;

/// What is done with each record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Appended by a call of its own; one sync at the end.
    Append,
    /// Appended in batches of this size; one sync at the end.
    Batch(usize),
    /// Committed by a call that returns when it is durable.
    Strict,
    /// Appended, with at most this many not yet known to be durable.
    Outstanding(usize),
    /// Read back from a closed log: opened, verified and visited.
    Replay,
    /// Put into a store by a call of its own; one sync at the end.
    Put,
    /// Put into a store in batches of this size; one sync at the end.
    PutBatch(usize),
    /// Got from a store, each once, in an order that jumps about.
    Get,
    /// A store opened, and one record got.
    Reopen,
    /// A store opened, and every record visited.
    ReadAll,
}

impl Kind {
    /// Is it a store's?
    pub(crate) const fn is_of_stores(self) -> bool {
        matches!(self, Self::Put | Self::PutBatch(_) | Self::Get | Self::Reopen | Self::ReadAll)
    }

    /// Is something written in the time?
    pub(crate) const fn is_written(self) -> bool {
        !matches!(self, Self::Replay | Self::Get | Self::Reopen | Self::ReadAll)
    }
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Unique.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) about: &'static str,
    /// What is done.
    pub(crate) kind: Kind,
    /// By how many threads at once.
    pub(crate) threads: u64,
    /// Bytes of each record.
    pub(crate) record_len: usize,
    /// Records of all threads.
    pub(crate) records: u64,
}

/// `--quick` does a fiftieth.
const QUICK: u64 = 50;

impl Workload {
    /// A fraction of it that shows that everything works.
    pub(crate) fn quick(self) -> Self {
        Self { records: (self.records / QUICK).max(self.threads * 2), ..self }
    }

    /// The same with another number of records, if it is one of stores.
    pub(crate) fn with_records(self, records: Option<u64>) -> Self {
        let records = records.filter(|_| self.kind.is_of_stores()).unwrap_or(self.records);
        Self { records, ..self }
    }

    /// What the log will hold: the records and the one before the timing.
    fn plan(&self) -> Plan {
        Plan { records: self.records + 1, record_len: self.record_len }
    }
}

/// All of them, in the order of the tables.
#[rustfmt::skip]
pub(crate) const ALL: &[Workload] = &[
    Workload { name: "append-64", kind: Kind::Append, threads: 1, record_len: 64, records: 1_000_000,
        about: "1,000,000 records of 64 B appended one by one, one sync at the end" },
    Workload { name: "append-1k", kind: Kind::Append, threads: 1, record_len: 1024, records: 200_000,
        about: "200,000 records of 1 KiB appended one by one, one sync at the end" },
    Workload { name: "append-64-2t", kind: Kind::Append, threads: 2, record_len: 64, records: 1_000_000,
        about: "1,000,000 records of 64 B appended by 2 threads, one sync at the end" },
    Workload { name: "append-64-8t", kind: Kind::Append, threads: 8, record_len: 64, records: 1_000_000,
        about: "1,000,000 records of 64 B appended by 8 threads, one sync at the end" },
    Workload { name: "batch-64", kind: Kind::Batch(1000), threads: 1, record_len: 64, records: 1_000_000,
        about: "1,000,000 records of 64 B appended in atomic batches of 1,000, one sync at the end" },
    Workload { name: "strict-1", kind: Kind::Strict, threads: 1, record_len: 64, records: 10_000,
        about: "10,000 records of 64 B, one thread waits for each to be durable" },
    Workload { name: "strict-8", kind: Kind::Strict, threads: 8, record_len: 64, records: 24_000,
        about: "24,000 records of 64 B, each of 8 threads waits for its own to be durable" },
    Workload { name: "strict-32", kind: Kind::Strict, threads: 32, record_len: 64, records: 48_000,
        about: "48,000 records of 64 B, each of 32 threads waits for its own to be durable" },
    Workload { name: "strict-128", kind: Kind::Strict, threads: 128, record_len: 64, records: 64_000,
        about: "64,000 records of 64 B, each of 128 threads waits for its own to be durable" },
    Workload { name: "outstanding", kind: Kind::Outstanding(10_000), threads: 1, record_len: 64, records: 2_000_000,
        about: "2,000,000 records of 64 B, one thread that keeps up to 10,000 not yet durable" },
    Workload { name: "replay-64", kind: Kind::Replay, threads: 1, record_len: 64, records: 1_000_000,
        about: "1,000,000 records of 64 B read from a closed log: opened, verified, visited" },
    Workload { name: "store-put", kind: Kind::Put, threads: 1, record_len: 64, records: 9_500_000,
        about: "records of 64 B with dense ids put one by one, one sync at the end" },
    Workload { name: "store-put-1000", kind: Kind::PutBatch(1000), threads: 1, record_len: 64, records: 9_500_000,
        about: "records of 64 B with dense ids put in batches of 1,000, one sync at the end" },
    Workload { name: "store-get", kind: Kind::Get, threads: 1, record_len: 64, records: 9_500_000,
        about: "records of 64 B got by id, each once, in an order that jumps about" },
    Workload { name: "store-reopen", kind: Kind::Reopen, threads: 1, record_len: 64, records: 9_500_000,
        about: "records in a closed store, which is opened and one of them got: p50 is that time" },
    Workload { name: "store-read-all", kind: Kind::ReadAll, threads: 1, record_len: 64, records: 9_500_000,
        about: "records in a closed store, which is opened and every one visited" },
];

/// One run of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Records done in the time.
    pub(crate) records: u64,
    /// How long it took.
    pub(crate) time: Duration,
    /// Median and 99th percentile of a commit, where each is waited for.
    pub(crate) latency: Option<Latency>,
    /// Operations in that time that made something durable.
    pub(crate) syncs: u64,
}

impl Sample {
    /// Records per second.
    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.time.as_secs_f64()
    }

    /// Durable operations per record.
    pub(crate) fn syncs_per_record(&self) -> f64 {
        self.syncs as f64 / self.records as f64
    }
}

/// Nanoseconds of one commit, waiting included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
}

/// Runs a workload once, in a directory that is empty.
///
/// # Errors
/// [`Unsupported`], those of the log, and a replay that gives other records.
pub(crate) fn run<L: Log>(
    workload: &Workload,
    dir: &Path,
    open: Open<L>,
    replay: Option<Replay>,
) -> Result<Sample> {
    let log = open(dir, &workload.plan())?;
    let sample = match (workload.kind, replay) {
        (Kind::Replay, None) => return Err(Box::new(Unsupported)),
        (Kind::Replay, Some(replay)) => return read_back(workload, dir, log, replay),
        _ => write(workload, dir, &log)?,
    };
    log.close()?;
    Ok(sample)
}

/// Records with rising stamps and bytes that don't compress.
struct Records {
    pool: Vec<u8>,
    record_len: usize,
    stamp: u64,
}

/// Enough that no two of a batch are the same.
const POOL: usize = 1024;

impl Records {
    fn new(record_len: usize, thread: u64, stamp: u64) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(thread + 1);
        let words = (POOL * record_len).div_ceil(8);
        let mut pool: Vec<u8> =
            (0..words).flat_map(|_| xorshift(&mut state).to_le_bytes()).collect();
        pool.truncate(POOL * record_len);
        Self { pool, record_len, stamp }
    }

    fn next(&mut self) -> &[u8] {
        let slot = self.stamp as usize % POOL * self.record_len;
        let record = &mut self.pool[slot..slot + self.record_len];
        record[..8].copy_from_slice(&self.stamp.to_le_bytes());
        self.stamp += 1;
        record
    }

    fn batch(&mut self, len: usize) -> Vec<&[u8]> {
        let first = self.stamp as usize;
        for _ in 0..len {
            self.next();
        }
        let slot = |index: usize| index % POOL * self.record_len;
        (first..first + len).map(|index| &self.pool[slot(index)..][..self.record_len]).collect()
    }
}

/// The next number of a sequence that looks random.
pub(crate) fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes the records; time ends when all are durable.
fn write<L: Log>(workload: &Workload, dir: &Path, log: &L) -> Result<Sample> {
    let threads = if L::STANDS_FOR_ALL { 1 } else { workload.threads };
    let share = workload.records / threads;
    let mut writers = Vec::new();
    for thread in 0..threads {
        let mut writer = log.writer(thread)?;
        let mut records = Records::new(workload.record_len, thread, 1);
        if thread == 0 {
            warm_up(workload.kind, log, &mut writer, &mut records)?;
        }
        writers.push((writer, records));
    }
    log.settle()?;
    settle(dir)?;
    let barrier = Barrier::new(writers.len() + 1);
    let syncs_before = syncs::count() + log.unseen_syncs();
    let (start, latencies) = std::thread::scope(|scope| {
        let handles: Vec<_> = writers
            .into_iter()
            .map(|(writer, records)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    // Its own clock: the thread that waits for all may be woken last.
                    let start = Instant::now();
                    let latencies = write_share::<L>(workload, share, writer, records)?;
                    Ok::<_, Failure>((start, latencies))
                })
            })
            .collect();
        let mut start = Instant::now();
        barrier.wait();
        let mut all = Vec::new();
        for (index, handle) in handles.into_iter().enumerate() {
            let (begun, latencies) = handle.join().map_err(|_| "a writer panicked")??;
            start = if index == 0 { begun } else { start.min(begun) };
            all.extend(latencies);
        }
        Ok::<_, Failure>((start, all))
    })?;
    if workload.kind != Kind::Strict {
        log.sync()?;
    }
    let time = start.elapsed();
    let syncs = syncs::count() + log.unseen_syncs() - syncs_before;
    Ok(Sample { records: share * threads, time, latency: latency(latencies), syncs })
}

/// The first record, outside the timing: it makes files, maps and buffers be there.
fn warm_up<L: Log>(
    kind: Kind,
    log: &L,
    writer: &mut L::Writer<'_>,
    records: &mut Records,
) -> Result<()> {
    match kind {
        Kind::Strict => return writer.commit(records.next()),
        Kind::Batch(_) => writer.append_batch(&[records.next()])?,
        Kind::Outstanding(_) => {
            let ticket = writer.submit(records.next())?;
            return writer.wait(ticket);
        }
        _ => writer.append(records.next())?,
    }
    log.sync()
}

/// Makes what went before durable, removals too, so that it does not disturb.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    let dir = std::fs::File::open(dir)?;
    Ok(rustix::fs::syncfs(dir)?)
}

/// What one thread does inside the timing; returns the nanoseconds of each commit.
fn write_share<L: Log>(
    workload: &Workload,
    share: u64,
    mut writer: L::Writer<'_>,
    mut records: Records,
) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    match workload.kind {
        Kind::Append => {
            for _ in 0..share {
                writer.append(records.next())?;
            }
        }
        Kind::Batch(len) => {
            for _ in 0..share / len as u64 {
                writer.append_batch(&records.batch(len))?;
            }
        }
        Kind::Strict => {
            let group = if L::STANDS_FOR_ALL { workload.threads } else { 1 };
            latencies = commits(&mut writer, &mut records, share, group)?;
        }
        Kind::Outstanding(limit) => outstanding(&mut writer, &mut records, share, limit)?,
        _ => {}
    }
    writer.finish()?;
    Ok(latencies)
}

/// Commits one after the other, `group` records at a time.
fn commits<W: Writer>(
    writer: &mut W,
    records: &mut Records,
    share: u64,
    group: u64,
) -> Result<Vec<u32>> {
    let mut latencies = Vec::with_capacity(usize::try_from(share / group)?);
    for _ in 0..share / group {
        let start = Instant::now();
        for _ in 1..group {
            writer.append(records.next())?;
        }
        writer.commit(records.next())?;
        latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    Ok(latencies)
}

/// Appends; when `limit` are not known to be durable, waits for the oldest.
fn outstanding<W: Writer>(
    writer: &mut W,
    records: &mut Records,
    share: u64,
    limit: usize,
) -> Result<()> {
    let mut tickets = std::collections::VecDeque::with_capacity(limit);
    for _ in 0..share {
        if tickets.len() == limit
            && let Some(oldest) = tickets.pop_front()
        {
            writer.wait(oldest)?;
            while let Some(next) = tickets.front().copied()
                && writer.is_durable(next)?
            {
                tickets.pop_front();
            }
        }
        tickets.push_back(writer.submit(records.next())?);
    }
    match tickets.back() {
        Some(newest) => writer.wait(*newest),
        None => Ok(()),
    }
}

/// Fills and closes a log, reads it once so that it is in memory, then once in time.
fn read_back<L: Log>(workload: &Workload, dir: &Path, log: L, replay: Replay) -> Result<Sample> {
    let plan = workload.plan();
    let mut writer = log.writer(0)?;
    let mut records = Records::new(workload.record_len, 0, 1);
    fill(&mut writer, &mut records, plan.records)?;
    writer.finish()?;
    drop(writer);
    log.sync()?;
    log.close()?;
    let expected = Tally::of_first(plan.records);
    check(dir, &plan, replay, expected)?;
    settle(dir)?;
    let start = Instant::now();
    check(dir, &plan, replay, expected)?;
    let time = start.elapsed();
    Ok(Sample { records: plan.records, time, latency: None, syncs: 0 })
}

/// Appends one by one, or in batches where there is no other way.
fn fill<W: Writer>(writer: &mut W, records: &mut Records, count: u64) -> Result<()> {
    match writer.append(records.next()) {
        Ok(()) => {
            for _ in 1..count {
                writer.append(records.next())?;
            }
        }
        Err(error) if error.is::<Unsupported>() => {
            *records = Records::new(records.record_len, 0, 1);
            let mut left = count;
            while left > 0 {
                let len = left.min(POOL as u64);
                writer.append_batch(&records.batch(usize::try_from(len)?))?;
                left -= len;
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn check(dir: &Path, plan: &Plan, replay: Replay, expected: Tally) -> Result<()> {
    let mut tally = Tally::default();
    replay(dir, plan, &mut tally)?;
    if tally == expected {
        return Ok(());
    }
    let (found, there) = (tally.records, expected.records);
    Err(format!("replay gave {found} records, other ones or fewer than the {there} appended")
        .into())
}

fn latency(mut latencies: Vec<u32>) -> Option<Latency> {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index.min(latencies.len() - 1)).map(|ns| f64::from(*ns))
    };
    if latencies.is_empty() {
        return None;
    }
    Some(Latency { p50_ns: at(0.5)?, p99_ns: at(0.99)? })
}
