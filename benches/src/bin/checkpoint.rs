//! Checkpoints: how long one takes, and how long a store takes to open from one.
//!
//! Fills a store, takes a checkpoint while another thread writes, closes it, and opens it
//! again and again: to the first record, and to all of them beside plain reads of the same
//! file, by one thread: through a small buffer, and into fresh memory for all of it, which the
//! system has to find and to clear for a store, too. Fails above 50 ms to the first record, or
//! above twice the time of a read into memory.
//!
//! Run: `cargo run --release -p bulla-benches --bin checkpoint -- DIR [RECORDS]`
//! (default: 9,500,000; the directory takes some 2.5 GB then)

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};

use bulla_engine::{EntityType, Level, Quota, Store, StoreOptions, Token, TokenId};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 7;
/// The most that an open to the first record may take.
const MAX_FIRST: Duration = Duration::from_millis(50);
/// The most that an open to all records may take, as a multiple of a read into memory.
const MAX_FULL: f64 = 2.0;
/// Bytes that are read at once.
const BUFFER: usize = 1024 * 1024;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let records: u32 = match args.next() {
        Some(text) => text.to_str().ok_or("a number of records")?.parse()?,
        None => 9_500_000,
    };
    let dir = dir.join(format!("bulla-checkpoint-{}", std::process::id()));
    let result = measure(&dir, records);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn options() -> StoreOptions {
    StoreOptions::new().quota(Quota::unlimited()).checkpoint_bytes(None).checkpoint_interval(None)
}

fn token(local: u32, weight: f32) -> Result<Token> {
    Ok(Token::builder(TokenId::new(local, EntityType::Event, 0)?).weight(weight).build()?)
}

fn measure(dir: &Path, records: u32) -> Result<()> {
    let store = Store::open(dir, &options())?;
    for local in 1..=records {
        store.at(Level::Relaxed).put(&token(local, 1.0)?)?;
    }
    store.sync()?;
    take(&store, "checkpoint, alone")?;
    let rate = |store: &Store| store.stats().log.entries;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> std::result::Result<(), String> {
            let mut local = 0;
            while !stop.load(Ordering::Relaxed) {
                local = local % records + 1;
                let put = token(local, 2.0).map_err(|error| error.to_string())?;
                store.at(Level::Balanced).put(&put).map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        let (start, before) = (Instant::now(), rate(&store));
        std::thread::sleep(Duration::from_secs(1));
        let alone = (rate(&store) - before) as f64 / start.elapsed().as_secs_f64();
        let (start, before) = (Instant::now(), rate(&store));
        let taken = take(&store, "checkpoint beside a writer");
        let beside = (rate(&store) - before) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        println!("puts/s, Balanced: {alone:.0} alone, {beside:.0} beside the checkpoint");
        taken.and(writer.join().map_err(|_| "the writer panicked")?.map_err(Into::into))
    })?;
    store.close()?;
    open_again(dir, records)
}

fn take(store: &Store, what: &str) -> Result<()> {
    let start = Instant::now();
    let taken = store.checkpoint()?;
    let seconds = start.elapsed().as_secs_f64();
    let mib = taken.file_len as f64 / f64::from(1 << 20);
    println!("{what:<30} {seconds:>6.2} s, {mib:.0} MiB, {:.0} MiB/s", mib / seconds);
    Ok(())
}

fn open_again(dir: &Path, records: u32) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    let newest = newest(dir)?;
    let (mut first, mut full) = (Vec::new(), Vec::new());
    let (mut plain, mut into_memory) = (Vec::new(), Vec::new());
    // The first round brings the file into the page cache.
    for round in 0..=ROUNDS {
        let start = Instant::now();
        read_plainly(&newest)?;
        let plain_took = start.elapsed();
        let start = Instant::now();
        let memory = read_into_memory(&newest)?;
        let into_memory_took = start.elapsed();
        drop(memory);
        let start = Instant::now();
        let store = Store::open(dir, &options())?;
        let id = TokenId::new(records / 2, EntityType::Event, 0)?;
        if store.get(id)?.is_none() || store.opened_from().checkpoint.is_none() {
            return Err("the store was not opened from its checkpoint".into());
        }
        let first_took = start.elapsed();
        store.close()?;
        let start = Instant::now();
        let store = Store::open(dir, &options())?;
        store.load(threads)?;
        let full_took = start.elapsed();
        if store.len() != records as usize {
            return Err(format!("{} of {records} records", store.len()).into());
        }
        store.close()?;
        if round > 0 {
            first.push(first_took);
            full.push(full_took);
            plain.push(plain_took);
            into_memory.push(into_memory_took);
        }
    }
    let (first, full) = (median(first), median(full));
    let ratio = |limit: Duration| full.as_secs_f64() / limit.as_secs_f64();
    let (plain, into_memory) = (median(plain), median(into_memory));
    println!("open to the first get          {first:>9.2?}");
    println!("open to all, {threads} threads         {full:>9.2?}");
    println!("read through a small buffer    {plain:>9.2?}: open to all {:.2} of it", ratio(plain));
    let ratio = ratio(into_memory);
    println!("read into memory               {into_memory:>9.2?}: open to all {ratio:.2} of it");
    if first > MAX_FIRST || ratio > MAX_FULL {
        return Err("too slow".into());
    }
    Ok(())
}

fn newest(dir: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir.join("checkpoints"))? {
        names.push(entry?.path());
    }
    names.sort();
    names.pop().ok_or_else(|| "no checkpoint".into())
}

fn read_plainly(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            count => at += count as u64,
        }
    }
}

/// Reads a file into memory of its own, in huge pages where there are any.
fn read_into_memory(path: &Path) -> Result<MmapMut> {
    let file = std::fs::File::open(path)?;
    let mut memory = MmapMut::map_anon(usize::try_from(file.metadata()?.len())?)?;
    let _ = memory.advise(Advice::HugePage);
    for (index, piece) in memory.chunks_mut(BUFFER).enumerate() {
        file.read_exact_at(piece, (index * BUFFER) as u64)?;
    }
    Ok(memory)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
