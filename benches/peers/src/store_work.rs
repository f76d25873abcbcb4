//! The workloads of stores: one thread, dense ids, every record checked when it is read.
//!
//! A store is made in an empty directory and the file system synced; then time runs until
//! everything that was put is durable. Reads come from a store that was filled before.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::log::{Plan, Result, Tally, Unsupported};
use crate::store::{Bytes, RECORD_LEN, Store};
use crate::syncs;
use crate::workload::{Kind, Latency, Sample, Workload, settle, xorshift};

/// Runs a workload once, in a directory that is empty.
///
/// # Errors
/// [`Unsupported`], those of the store, and records that are not those that were put.
pub(crate) fn run<S: Store>(workload: &Workload, dir: &Path) -> Result<Sample> {
    let plan = Plan { records: workload.records, record_len: RECORD_LEN };
    match workload.kind {
        Kind::Put => put::<S>(&plan, dir, 1),
        Kind::PutBatch(len) => put::<S>(&plan, dir, len),
        Kind::Get => get::<S>(&plan, dir),
        Kind::Reopen => reopen::<S>(&plan, dir),
        Kind::ReadAll => read_all::<S>(&plan, dir),
        _ => Err(Box::new(Unsupported)),
    }
}

/// Records whose bytes don't compress, with ids from 1 on.
struct Records {
    pool: Vec<Bytes>,
}

const POOL: usize = 1024;

impl Records {
    fn new() -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut record = || {
            let mut bytes = [0; RECORD_LEN];
            for word in bytes.chunks_exact_mut(8) {
                word.copy_from_slice(&xorshift(&mut state).to_le_bytes());
            }
            bytes
        };
        Self { pool: (0..POOL).map(|_| record()).collect() }
    }

    fn record(&self, id: u32) -> Bytes {
        let mut record = self.pool[id as usize % POOL];
        record[..8].copy_from_slice(&u64::from(id).to_le_bytes());
        record
    }

    fn batch(&self, first: u32, len: u32) -> Vec<Bytes> {
        (first..first + len).map(|id| self.record(id)).collect()
    }
}

/// Puts all records, `batch` at a time, and syncs once.
fn put<S: Store>(plan: &Plan, dir: &Path, batch: usize) -> Result<Sample> {
    let mut store = S::open(dir, plan)?;
    let records = Records::new();
    store.put(1, &records.record(1))?;
    store.sync()?;
    settle(dir)?;
    let syncs_before = syncs::count() + store.unseen_syncs();
    let start = Instant::now();
    fill(&mut store, &records, plan, batch)?;
    store.sync()?;
    let time = start.elapsed();
    let syncs = syncs::count() + store.unseen_syncs() - syncs_before;
    check(&store, plan)?;
    store.close()?;
    Ok(Sample { records: plan.records, time, latency: None, syncs })
}

fn fill<S: Store>(store: &mut S, records: &Records, plan: &Plan, batch: usize) -> Result<()> {
    let (last, batch) = (u32::try_from(plan.records)?, u32::try_from(batch)?);
    if batch == 1 {
        return (1..=last).try_for_each(|id| store.put(id, &records.record(id)));
    }
    let mut first = 1;
    while first <= last {
        let len = batch.min(last - first + 1);
        store.put_batch(first, &records.batch(first, len))?;
        first += len;
    }
    Ok(())
}

/// Every record once, and no other.
fn check<S: Store>(store: &S, plan: &Plan) -> Result<()> {
    let mut tally = Tally::default();
    store.scan(|record| tally.visit(record))?;
    expect(tally, plan.records)
}

fn expect(tally: Tally, records: u64) -> Result<()> {
    if tally == Tally::of_first(records) {
        return Ok(());
    }
    Err(format!("{} records came, other ones or fewer than the {records} put", tally.records)
        .into())
}

/// Batches in which a store is filled that is then read.
const FILL: usize = 1_000;

/// A store with all records, in memory or on disk as it keeps them.
fn filled<S: Store>(plan: &Plan, dir: &Path) -> Result<S> {
    let (mut store, records) = (S::open(dir, plan)?, Records::new());
    match fill(&mut store, &records, plan, FILL) {
        Err(error) if error.is::<Unsupported>() => fill(&mut store, &records, plan, 1)?,
        filled => filled?,
    }
    store.sync()?;
    settle(dir)?;
    Ok(store)
}

/// Gets every record once, in an order that jumps about.
fn get<S: Store>(plan: &Plan, dir: &Path) -> Result<Sample> {
    let store = filled::<S>(plan, dir)?;
    let mut tally = Tally::default();
    let start = Instant::now();
    store.get(scattered(plan.records), |record| tally.visit(record))?;
    let time = start.elapsed();
    expect(tally, plan.records)?;
    store.close()?;
    Ok(Sample { records: plan.records, time, latency: None, syncs: 0 })
}

/// All ids once: steps of a number that has no divisor in common with theirs.
fn scattered(records: u64) -> impl Iterator<Item = u32> {
    let mut step = 0x9E37_79B1 % records.max(2);
    while gcd(step, records) != 1 {
        step += 1;
    }
    // Both are below 2^32, and so is the remainder.
    (0..records).map(move |number| (number * step % records) as u32 + 1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// From the opening to the first record.
fn reopen<S: Store>(plan: &Plan, dir: &Path) -> Result<Sample> {
    filled::<S>(plan, dir)?.close()?;
    settle(dir)?;
    let middle = u32::try_from(plan.records / 2 + 1)?;
    let mut tally = Tally::default();
    let start = Instant::now();
    let store = S::open(dir, plan)?;
    store.get(std::iter::once(middle), |record| tally.visit(record))?;
    let time = start.elapsed();
    if tally != (Tally { records: 1, stamps: u64::from(middle) }) {
        return Err("another record came than the one asked for".into());
    }
    check(&store, plan)?;
    store.close()?;
    Ok(Sample { records: 1, time, latency: Some(latency(time)), syncs: 0 })
}

/// From the opening until every record was visited.
fn read_all<S: Store>(plan: &Plan, dir: &Path) -> Result<Sample> {
    filled::<S>(plan, dir)?.close()?;
    settle(dir)?;
    let start = Instant::now();
    let store = S::open(dir, plan)?;
    check(&store, plan)?;
    let time = start.elapsed();
    store.close()?;
    Ok(Sample { records: plan.records, time, latency: None, syncs: 0 })
}

fn latency(time: Duration) -> Latency {
    let ns = time.as_nanos() as f64;
    Latency { p50_ns: ns, p99_ns: ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_ids_are_all_ids_once() {
        for records in [2, 3, 1_000, 65_536, 0x9E37] {
            let mut ids: Vec<_> = scattered(records).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().map(u64::from).eq(1..=records), "{records}");
        }
    }
}
