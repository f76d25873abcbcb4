//! The append and commit path against the machine's own limits, in one run.
//!
//! Run: `cargo run --release -p bulla-benches --bin contract -- DIR [BACKEND...]`
//! where a backend is `std`, `uring` or `uring:DEPTH`, optionally with a method, as in
//! `uring:4/buffered`; without any, `std/direct` and `std/buffered`. Prints, with the
//! backends interleaved: the bare loop (write + sync of 4 KiB) and one Strict writer;
//! then many Strict writers; then Relaxed appends.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bulla_storage::io::{AlignedBuf, Io, Queue, Request, Ticket, std::StdIo, uring::UringIo};
use bulla_wal::{Level, Log, Method, Options, RingBytes};

type Failure = Box<dyn std::error::Error>;

/// A backend and how it is used.
#[derive(Clone)]
struct Way {
    name: String,
    io: Arc<dyn Io>,
    depth: Option<usize>,
    method: Method,
}

impl Way {
    fn parse(text: &str) -> Result<Self, Failure> {
        let (way, method) = text.split_once('/').unwrap_or((text, "direct"));
        let (backend, depth) = way.split_once(':').map_or((way, None), |(b, d)| (b, Some(d)));
        Ok(Self {
            name: text.to_owned(),
            io: match backend {
                "std" => Arc::new(StdIo::new()),
                "uring" => Arc::new(UringIo::new()),
                _ => return Err(format!("{backend:?} is no backend: std or uring").into()),
            },
            depth: depth.map(str::parse).transpose()?,
            method: match method {
                "direct" => Method::Direct,
                "buffered" => Method::Buffered,
                _ => return Err(format!("{method:?} is no method: direct or buffered").into()),
            },
        })
    }

    fn create(&self, dir: &Path) -> Result<Log, Failure> {
        let mut options = Options::new().io(self.io.clone()).method(self.method);
        if let Some(depth) = self.depth {
            options = options.depth(depth);
        }
        let log = Log::create(dir, &options)?;
        if let Some(reason) = log.stats().fallback {
            return Err(format!("{self}: {reason}").into());
        }
        Ok(log)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>16}", self.name)
    }
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("bulla-contract-{}", std::process::id()));
    let mut names: Vec<_> = args.collect();
    if names.is_empty() {
        names = ["std/direct", "std/buffered"].map(str::to_owned).into();
    }
    let ways = names.iter().map(|name| Way::parse(name)).collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(&dir)?;
    println!("directory: {}", dir.display());
    lone_writer(&dir, &ways)?;
    for threads in [8, 32, 128] {
        many_writers(&dir, &ways, threads)?;
    }
    outstanding(&dir, &ways)?;
    for threads in [1, 2, 8] {
        relaxed(&dir, &ways, threads)?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

const COMMITS: u64 = 3_000;
const ROUNDS: usize = 5;

/// One writer, one commit after the other, against a loop that does nothing else.
fn lone_writer(dir: &Path, ways: &[Way]) -> Result<(), Failure> {
    let mut ratios = vec![Vec::new(); ways.len()];
    let logs = (ways.iter().enumerate())
        .map(|(index, way)| way.create(&dir.join(format!("lone-{index}"))))
        .collect::<Result<Vec<_>, _>>()?;
    for round in 0..ROUNDS {
        for ((way, log), ratios) in ways.iter().zip(&logs).zip(&mut ratios) {
            let bare = bare_loop(&dir.join(format!("bare-{round}")), way.method)?;
            let before = log.stats();
            let start = Instant::now();
            for _ in 0..COMMITS {
                let receipt = log.append_with(1, &[7; 64], Level::Strict)?;
                log.wait(receipt)?;
            }
            let rate = COMMITS as f64 / start.elapsed().as_secs_f64();
            let syncs = log.stats().durable_operations() - before.durable_operations();
            println!(
                "{way} lone Strict writer {rate:>9.0}/s, bare loop {bare:>9.0}/s, ratio {:.3}, {:.3} syncs per commit",
                rate / bare,
                syncs as f64 / COMMITS as f64,
            );
            ratios.push(rate / bare);
        }
    }
    for ((way, log), ratios) in ways.iter().zip(logs).zip(&mut ratios) {
        println!("{way} lone Strict writer: median ratio {:.3}", median(ratios));
        println!("{way} commit latency (ns): {}", log.stats().commit_latency_ns);
        log.close()?;
    }
    Ok(())
}

/// The machine's limit: 4 KiB writes, each durable, into blocks written before.
fn bare_loop(path: &Path, method: Method) -> Result<f64, Failure> {
    let io = StdIo::new();
    let direct = method == Method::Direct;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name in UTF-8")?;
    let file = io.open_dir(path.parent().ok_or("a directory")?)?.create(name, direct)?;
    let zeros = AlignedBuf::zeroed(1 << 20);
    for chunk in 0..(COMMITS * 4096).div_ceil(1 << 20) {
        bulla_storage::io::write_full(file.as_ref(), &zeros, chunk << 20)?;
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

fn many_writers(dir: &Path, ways: &[Way], threads: u64) -> Result<(), Failure> {
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            rates.push(commits_per_second(dir, way, threads)?);
        }
    }
    for (way, rates) in ways.iter().zip(&mut rates) {
        let middle = median(rates);
        let [low, .., high] = rates[..] else { continue };
        println!(
            "{way} {threads:>3} Strict writers: median {middle:>9.0}/s ({low:.0} to {high:.0})"
        );
    }
    Ok(())
}

fn commits_per_second(dir: &Path, way: &Way, threads: u64) -> Result<f64, Failure> {
    let log_dir = dir.join("many");
    let log = way.create(&log_dir)?;
    let per_thread = 200_000 / threads / 8 * if threads > 16 { 4 } else { 1 };
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
        "{way} {threads:>3} Strict writers {rate:>9.0}/s, {:.4} syncs per commit, group size {}",
        syncs as f64 / commits,
        after.group_size,
    );
    log.close()?;
    std::fs::remove_dir_all(log_dir)?;
    Ok(rate)
}

/// One thread that waits for each Strict receipt only 10,000 appends later.
fn outstanding(dir: &Path, ways: &[Way]) -> Result<(), Failure> {
    const APPENDS: usize = 2_000_000;
    const OUTSTANDING: usize = 10_000;
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            let log_dir = dir.join("outstanding");
            let log = way.create(&log_dir)?;
            let mut receipts = VecDeque::with_capacity(OUTSTANDING);
            let start = Instant::now();
            for _ in 0..APPENDS {
                if receipts.len() == OUTSTANDING
                    && let Some(receipt) = receipts.pop_front()
                {
                    log.wait(receipt)?;
                }
                receipts.push_back(log.append_with(1, &[7; 64], Level::Strict)?);
            }
            log.sync()?;
            rates.push(APPENDS as f64 / start.elapsed().as_secs_f64() / 1e6);
            log.close()?;
            std::fs::remove_dir_all(log_dir)?;
        }
    }
    for (way, rates) in ways.iter().zip(&mut rates) {
        println!(
            "{way} 10,000 Strict receipts outstanding: {:>6.2} M/s (median of {ROUNDS})",
            median(rates)
        );
    }
    Ok(())
}

/// Relaxed appends from several threads, and the sync of all of them.
fn relaxed(dir: &Path, ways: &[Way], threads: u64) -> Result<(), Failure> {
    const APPENDS: u64 = 4_000_000;
    let logs = (ways.iter().enumerate())
        .map(|(index, way)| way.create(&dir.join(format!("relaxed-{threads}-{index}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rates = vec![(Vec::new(), Vec::new()); ways.len()];
    for _ in 0..ROUNDS {
        for (log, (appended, synced)) in logs.iter().zip(&mut rates) {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for _ in 0..APPENDS / threads {
                            let _ = log.append_with(1, &[7; 64], Level::Relaxed).expect("append");
                        }
                    });
                }
            });
            appended.push(APPENDS as f64 / start.elapsed().as_secs_f64() / 1e6);
            log.sync()?;
            synced.push(APPENDS as f64 / start.elapsed().as_secs_f64() / 1e6);
            log.purge(log.durable())?;
        }
    }
    for ((way, log), (appended, synced)) in ways.iter().zip(logs).zip(&mut rates) {
        println!(
            "{way} {threads:>3} Relaxed writers, 64 B: {:>6.2} M/s appended, {:>6.2} M/s synced (medians of {ROUNDS})",
            median(appended),
            median(synced),
        );
        log.close()?;
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
