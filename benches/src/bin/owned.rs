//! Reads a log's entries and gives them to another thread: owned entries, which share
//! the buffer that they were read into, beside copies and beside borrowed reading.
//!
//! Run: `cargo run --release -p bulla-benches --bin owned -- DIR`. Prints allocations of
//! the reading thread per entry, whether payloads lie where they were read, and M entries/s.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use bulla_wal::{Entry, Level, Log, Method, Options, Position, Reader, Visibility};

/// The package of the tests is no dependency: it would switch on features of what is measured.
#[path = "../../../tests/src/counting.rs"]
mod counting;

const ENTRIES: u64 = 1_000_000;
const ROUNDS: usize = 5;
/// Entries on their way between the threads at most.
const CHANNEL: usize = 1024;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("bulla-owned-{}", std::process::id()));
    for len in [64, 1024] {
        let result = measure(&dir, len);
        fs::remove_dir_all(&dir)?;
        result?;
    }
    Ok(())
}

fn measure(dir: &Path, len: usize) -> Result<()> {
    // Through the page cache, so that the disk's speed is not what is measured.
    let log = Log::create(dir, &Options::new().method(Method::Buffered))?;
    for number in 0..ENTRIES {
        let _ = log.append_with(1, &vec![number as u8; len], Level::Relaxed)?;
    }
    log.sync()?;
    println!("{ENTRIES} entries of {len} B:");
    let reader = || log.reader(Position::Start, Visibility::Durable);
    print("borrowed, one thread", || lend(&mut reader()?))?;
    print("owned, one thread", || own(&mut reader()?))?;
    print("owned, to another thread", || send(reader()?, |reader| reader.next_owned()))?;
    print("copied, to another thread", || {
        send(reader()?, |reader| Ok(reader.next()?.map(Entry::from)))
    })?;
    Ok(log.close()?)
}

/// Entries, and those that lie as far from the one before as in the log.
type Seen = (u64, u64);

fn print(name: &str, mut read: impl FnMut() -> Result<Seen>) -> Result<()> {
    let mut rates = Vec::new();
    let (mut allocations, mut in_place) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let (before, start) = (counting::allocations(), Instant::now());
        let (seen, places) = read()?;
        if seen != ENTRIES {
            return Err(format!("{seen} entries, not {ENTRIES}").into());
        }
        rates.push(ENTRIES as f64 / start.elapsed().as_secs_f64() / 1e6);
        allocations = (counting::allocations() - before) as f64 / ENTRIES as f64;
        in_place = 100.0 * places as f64 / ENTRIES as f64;
    }
    rates.sort_by(f64::total_cmp);
    println!(
        "  {name:<26} {allocations:>7.4} allocations/entry, {in_place:>5.1}% in place, \
         median {:>5.1} M/s, best {:>5.1}",
        rates[ROUNDS / 2],
        rates[ROUNDS - 1]
    );
    Ok(())
}

#[derive(Default)]
struct Tally {
    seen: u64,
    in_place: u64,
    place: u64,
}

impl Tally {
    fn add(&mut self, lsn: u64, payload: &[u8]) {
        black_box(payload[0]);
        let place = (payload.as_ptr() as u64).wrapping_sub(lsn);
        self.seen += 1;
        self.in_place += u64::from(place == std::mem::replace(&mut self.place, place));
    }
}

fn lend(reader: &mut Reader) -> Result<Seen> {
    let mut tally = Tally::default();
    while let Some(entry) = reader.next()? {
        tally.add(entry.lsn.0, entry.payload);
    }
    Ok((tally.seen, tally.in_place))
}

fn own(reader: &mut Reader) -> Result<Seen> {
    let mut tally = Tally::default();
    for entry in reader.entries() {
        let entry = entry?;
        tally.add(entry.lsn.0, &entry.payload);
    }
    Ok((tally.seen, tally.in_place))
}

fn send(
    mut reader: Reader,
    next: impl Fn(&mut Reader) -> bulla_wal::Result<Option<Entry>>,
) -> Result<Seen> {
    let (sender, receiver) = sync_channel::<Entry>(CHANNEL);
    std::thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            let mut tally = Tally::default();
            for entry in receiver {
                tally.add(entry.lsn.0, &entry.payload);
            }
            (tally.seen, tally.in_place)
        });
        while let Some(entry) = next(&mut reader)? {
            sender.send(entry)?;
        }
        drop(sender);
        Ok(consumer.join().unwrap_or_default())
    })
}
