//! What an open log costs that nobody uses: memory, threads, descriptors, and the time to open
//! and to close it. First with logs that were only opened, then after one Strict entry in each.
//!
//! An open makes five syncs, one after the other, and a close one durable write: so it says what one
//! of either costs in the same run, too.
//!
//! Run: `cargo run --release -p bulla-benches --bin many -- DIR [LOGS] [THREADS]` (default: 1,000
//! logs, which 8 threads open and close: an open waits for the disk most of the time). The process
//! needs 6 open files for each log: `ulimit -n 65536`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bulla_wal::{Level, Log, Options};

/// Longer than a log's threads wait for more work.
const IDLE: Duration = Duration::from_secs(3);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mut number = |default: usize| match args.next() {
        Some(text) => {
            Ok::<_, Box<dyn std::error::Error>>(text.to_str().ok_or("a number")?.parse()?)
        }
        None => Ok(default),
    };
    let (count, threads) = (number(1_000)?, number(8)?.max(1));
    let dir = dir.join(format!("bulla-many-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(&dir, count, threads);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &Path, count: usize, threads: usize) -> Result<()> {
    let options = Options::new().segment_len(1 << 20);
    let paths: Vec<_> = (0..count).map(|number| dir.join(number.to_string())).collect();
    let part = count.div_ceil(threads).max(1);
    in_parallel(&paths, part, |path| Log::create(path, &options)?.close())?;
    sync_latency(dir)?;
    let before = Cost::now()?;
    let open = || in_parallel(&paths, part, |path| Ok(Log::open(path, &options)?.0));
    let logs = timed("open", open)?;
    before.report("opened", count)?;
    let append = |log: &Log| log.wait(log.append_with(1, b"entry", Level::Strict)?);
    timed("one Strict entry in each", || Ok(logs.iter().try_for_each(append)?))?;
    before.report("appended to", count)?;
    thread::sleep(IDLE);
    before.report("idle", count)?;
    timed("one Strict entry in each", || Ok(logs.iter().try_for_each(append)?))?;
    before.report("appended to", count)?;
    timed("close", || in_parallel(&logs, part, Log::close))?;
    drop(logs);
    before.report("closed", count)?;
    sync_latency(dir)
}

/// Prints what one sync of a small file costs, and one of a directory with a new name.
fn sync_latency(dir: &Path) -> Result<()> {
    const SYNCS: usize = 100;
    let (first, second) = (dir.join("probe-1"), dir.join("probe-2"));
    let file = File::create(&first)?;
    file.write_all_at(&[1; 64 * 1024], 0)?;
    file.sync_all()?;
    let folder = File::open(dir)?;
    let (mut of_file, mut of_folder) = (Vec::new(), Vec::new());
    for turn in 0..SYNCS {
        file.write_all_at(&[turn as u8; 4096], 0)?;
        let start = Instant::now();
        file.sync_data()?;
        of_file.push(start.elapsed());
        let names = if turn % 2 == 0 { (&first, &second) } else { (&second, &first) };
        std::fs::rename(names.0, names.1)?;
        let start = Instant::now();
        folder.sync_all()?;
        of_folder.push(start.elapsed());
    }
    std::fs::remove_file(if SYNCS.is_multiple_of(2) { first } else { second })?;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    println!(
        "one sync: {:.2} ms of 4 KiB of a file, {:.2} ms of a directory (medians of {SYNCS})",
        median(of_file),
        median(of_folder)
    );
    Ok(())
}

/// Does the same with each item, with a thread for each part of so many.
fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    part: usize,
    run: impl Fn(&I) -> std::result::Result<T, bulla_wal::Error> + Sync,
) -> Result<Vec<T>> {
    let run = &run;
    thread::scope(|scope| {
        let start = |part: &'_ [I]| part.iter().map(run).collect::<Vec<_>>();
        let parts: Vec<_> =
            items.chunks(part).map(|part| scope.spawn(move || start(part))).collect();
        let results = parts.into_iter().flat_map(|part| part.join().expect("no panic"));
        Ok(results.collect::<std::result::Result<_, _>>()?)
    })
}

fn timed<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let value = run()?;
    println!("{what:<26} {:>7.2} s", start.elapsed().as_secs_f64());
    Ok(value)
}

/// What the process has in use.
struct Cost {
    resident: usize,
    threads: usize,
    descriptors: usize,
}

impl Cost {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
        Ok(Self {
            resident: kib.parse::<usize>()? * 1024,
            threads: std::fs::read_dir("/proc/self/task")?.count(),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
        })
    }

    /// Prints what was added since `self`.
    fn report(&self, what: &str, count: usize) -> Result<()> {
        let now = Self::now()?;
        let resident = now.resident.saturating_sub(self.resident);
        println!(
            "{count} logs {what}: {:.1} MB resident, {:.1} KiB each; {} threads; {:.1} descriptors each",
            resident as f64 / 1e6,
            resident as f64 / 1024.0 / count as f64,
            now.threads,
            now.descriptors.saturating_sub(self.descriptors) as f64 / count as f64,
        );
        Ok(())
    }
}
