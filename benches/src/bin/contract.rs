//! The append and commit path against the machine's own limits, in one run.
//!
//! Run: `cargo run --release -p bulla-benches --bin contract -- DIR`
//! Prints, per sync method: the bare loop (write + sync of 4 KiB) and one Strict
//! writer, interleaved; then many Strict writers; then Relaxed appends.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bulla_wal::io::{AlignedBuf, Io, Queue, Request, Ticket, std::StdIo};
use bulla_wal::{Level, Log, Method, Options, RingBytes};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("bulla-contract-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    println!("directory: {}", dir.display());
    for method in [Method::Direct, Method::Buffered] {
        lone_writer(&dir, method)?;
        for threads in [8, 32, 128] {
            many_writers(&dir, method, threads)?;
        }
        for threads in [1, 2, 8] {
            relaxed(&dir, method, threads)?;
        }
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

const COMMITS: u64 = 3_000;
const ROUNDS: usize = 5;

/// One writer, one commit after the other, against a loop that does nothing else.
fn lone_writer(dir: &Path, method: Method) -> Result<(), Failure> {
    let log_dir = dir.join("lone");
    let log = Log::create(&log_dir, &Options::new().method(method))?;
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let bare = bare_loop(&dir.join(format!("bare-{round}")), method)?;
        let before = log.stats();
        let start = Instant::now();
        for _ in 0..COMMITS {
            let receipt = log.append_with(1, &[7; 64], Level::Strict)?;
            log.wait(receipt)?;
        }
        let rate = COMMITS as f64 / start.elapsed().as_secs_f64();
        let after = log.stats();
        let syncs = after.durable_operations() - before.durable_operations();
        println!(
            "{:>8} lone Strict writer {rate:>9.0}/s, bare loop {bare:>9.0}/s, ratio {:.3}, {:.3} syncs per commit",
            method.name(),
            rate / bare,
            syncs as f64 / COMMITS as f64,
        );
        ratios.push(rate / bare);
        rates.push(rate);
    }
    println!("{:>8} lone Strict writer: median ratio {:.3}", method.name(), median(&mut ratios));
    println!("{:>8} commit latency (ns): {}", method.name(), log.stats().commit_latency_ns);
    log.close()?;
    std::fs::remove_dir_all(log_dir)?;
    Ok(())
}

/// The machine's limit: 4 KiB writes, each durable, into blocks written before.
fn bare_loop(path: &Path, method: Method) -> Result<f64, Failure> {
    let io = StdIo::new();
    let direct = method == Method::Direct;
    let file = io.create(path, direct)?;
    let zeros = AlignedBuf::zeroed(1 << 20);
    for chunk in 0..(COMMITS * 4096).div_ceil(1 << 20) {
        bulla_wal::io::write_full(file.as_ref(), &zeros, chunk << 20)?;
    }
    file.sync()?;
    let mut queue = io.queue(1)?;
    let bytes = RingBytes::from_heap(AlignedBuf::copy_of(&[7; 4096]));
    let start = Instant::now();
    for commit in 0..COMMITS {
        let request = Request::Write {
            file: file.clone(),
            offset: commit * 4096,
            bytes: bytes.clone(),
            dsync: direct,
        };
        one(queue.as_mut(), request)?;
        if !direct {
            one(queue.as_mut(), Request::Sync { file: file.clone() })?;
        }
    }
    let rate = COMMITS as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn one(queue: &mut dyn Queue, request: Request) -> Result<(), Failure> {
    queue.submit(Ticket(0), request);
    queue.complete(true).ok_or("nothing in flight")?.result?;
    Ok(())
}

fn many_writers(dir: &Path, method: Method, threads: u64) -> Result<(), Failure> {
    let log_dir = dir.join("many");
    let log = Log::create(&log_dir, &Options::new().method(method))?;
    let per_thread = 200_000 / threads / 8;
    let before = log.stats();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..per_thread {
                    let receipt = log.append_with(1, &[7; 64], Level::Strict).expect("append");
                    log.wait(receipt).expect("wait");
                }
            });
        }
    });
    let commits = (per_thread * threads) as f64;
    let rate = commits / start.elapsed().as_secs_f64();
    let after = log.stats();
    let syncs = after.durable_operations() - before.durable_operations();
    println!(
        "{:>8} {threads:>3} Strict writers {rate:>9.0}/s, {:.4} syncs per commit, group size {}",
        method.name(),
        syncs as f64 / commits,
        after.group_size,
    );
    log.close()?;
    std::fs::remove_dir_all(log_dir)?;
    Ok(())
}

/// Relaxed appends from several threads, and the sync of all of them.
fn relaxed(dir: &Path, method: Method, threads: u64) -> Result<(), Failure> {
    const APPENDS: u64 = 4_000_000;
    let log_dir = dir.join("relaxed");
    let log = Log::create(&log_dir, &Options::new().method(method))?;
    let (mut appended, mut synced) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..APPENDS / threads {
                        log.append_with(1, &[7; 64], Level::Relaxed).expect("append");
                    }
                });
            }
        });
        appended.push(APPENDS as f64 / start.elapsed().as_secs_f64() / 1e6);
        log.sync()?;
        synced.push(APPENDS as f64 / start.elapsed().as_secs_f64() / 1e6);
        log.purge(log.durable())?;
    }
    println!(
        "{:>8} {threads:>3} Relaxed writers, 64 B: {:>6.2} M/s appended, {:>6.2} M/s synced (medians of {ROUNDS})",
        method.name(),
        median(&mut appended),
        median(&mut synced),
    );
    log.close()?;
    std::fs::remove_dir_all(log_dir)?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
