//! Entries per second of a replay whose files are in the page cache, and what the machine
//! can do at best with the same bytes.
//!
//! Run: `cargo run --release -p bulla-benches --bin replay -- DIR [MILLIONS]`. 80 bytes of
//! disk per entry are needed; what is made is removed.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bulla_recovery::{EntryView, Inspection, Range, Recovery};
use bulla_wal::{Level, Log, Method, Options};

const PAYLOAD: usize = 64;
const ROUNDS: usize = 5;
/// What the bare loop reads at once.
const BUFFER: usize = 1 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let millions: u64 = match args.next() {
        Some(millions) => millions.to_str().unwrap_or_default().parse()?,
        None => 8,
    };
    let dir = dir.join(format!("bulla-replay-{}", std::process::id()));
    let result = measure(&dir, millions * 1_000_000);
    fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &Path, entries: u64) -> Result<()> {
    write(dir, entries)?;
    let files = segments(dir)?;
    let bytes = bare(&files, 1)?;
    println!("{entries} entries of {PAYLOAD} B, {bytes} bytes of segments; M entries/s:");
    // Each round has all, so that a busy moment of the machine hits all.
    let options = |method| Options::new().method(method);
    let inspection = Inspection::read(dir, &options(Method::Direct))?;
    let cases: [(&str, &dyn Fn() -> Result<u64>); 7] = [
        ("limit: read + CRC, 1 thread", &|| bare(&files, 1).map(|_| entries)),
        ("limit: read + CRC, 2 threads", &|| bare(&files, 2).map(|_| entries)),
        ("look, direct", &|| Ok(Inspection::read(dir, &options(Method::Direct))?.report().entries)),
        ("look, page cache", &|| {
            Ok(Inspection::read(dir, &options(Method::Buffered))?.report().entries)
        }),
        ("replay after a look", &|| replay(&inspection)),
        ("look, page cache, and replay", &|| {
            let inspection = Inspection::read(dir, &options(Method::Buffered))?;
            replay(&inspection)
        }),
        ("replay in one pass", &|| {
            let mut tally = Tally::default();
            bulla_recovery::replay(dir, &Options::new(), Range::ALL, |entry| tally.visit(entry))?;
            Ok(tally.count())
        }),
    ];
    let mut rates = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, case), rates) in cases.iter().zip(&mut rates) {
            let start = Instant::now();
            let seen = case()?;
            if seen != entries {
                return Err(format!("{seen} entries, not {entries}").into());
            }
            rates.push(entries as f64 / start.elapsed().as_secs_f64() / 1e6);
        }
    }
    for ((name, _), mut rates) in cases.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        println!("{name:<30} median {:>6.1}, best {:>6.1}", rates[ROUNDS / 2], rates[ROUNDS - 1]);
    }
    recovered(dir, entries)
}

/// A recovery begins a new epoch each time, so this is done once.
fn recovered(dir: &Path, entries: u64) -> Result<()> {
    let start = Instant::now();
    let recovery = Recovery::run(dir, &Options::new())?;
    let opened = start.elapsed().as_secs_f64();
    let mut tally = Tally::default();
    recovery.replay(Range::ALL, |entry| tally.visit(entry))?;
    let all = start.elapsed().as_secs_f64();
    let seen = tally.count();
    if seen != entries {
        return Err(format!("{seen} entries, not {entries}").into());
    }
    let rate = entries as f64 / (all - opened) / 1e6;
    println!(
        "{:<30} {:>6.1} in {opened:.3} s, then replay {rate:.1}",
        "recovery",
        entries as f64 / opened / 1e6
    );
    Ok(())
}

/// What a visitor makes of the entries: it reads one byte of each.
#[derive(Default)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn visit(&mut self, entry: &EntryView<'_>) -> ControlFlow<()> {
        self.count += 1;
        self.sum += u64::from(entry.payload[0]);
        ControlFlow::Continue(())
    }

    fn count(self) -> u64 {
        black_box(self.sum);
        self.count
    }
}

fn replay(inspection: &Inspection) -> Result<u64> {
    let mut tally = Tally::default();
    inspection.replay(Range::ALL, |entry| tally.visit(entry))?;
    Ok(tally.count())
}

fn write(dir: &Path, entries: u64) -> Result<()> {
    let log = Log::create(dir, &Options::new())?;
    let mut payload = [7; PAYLOAD];
    for number in 0..entries {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let _ = log.append_with(1, &payload, Level::Relaxed)?;
    }
    Ok(log.close()?)
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(dir)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    Ok(files)
}

/// Reads and checksums all files, on `threads` threads; returns their bytes.
fn bare(files: &[PathBuf], threads: usize) -> Result<u64> {
    let one = |first: usize| -> Result<u64> {
        let (mut buffer, mut sum, mut crc) = (vec![0; BUFFER], 0, 0);
        for path in files.iter().skip(first).step_by(threads) {
            let file = File::open(path)?;
            let mut offset = 0;
            loop {
                let count = file.read_at(&mut buffer, offset)?;
                if count == 0 {
                    break;
                }
                crc ^= crc32fast::hash(&buffer[..count]);
                offset += count as u64;
            }
            sum += offset;
        }
        black_box(crc);
        Ok(sum)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|first| scope.spawn(move || one(first))).collect();
        let sums =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?);
        sums.sum()
    })
}
