//! The table beside a plain `Vec`, one thread, dense ids: puts that are logged at the level
//! Relaxed beside a `Vec` with a naive log (a `BufWriter`, a CRC-32 for each record),
//! scattered gets beside scattered reads of the `Vec`, and the replay of the log into a
//! store beside the replay of the log alone, both with the look at the log before it.
//! No checkpoint is taken. Before the puts and before the replay, as much fresh memory as the
//! records need is touched, and given back: a system that must find it first bounds both.
//!
//! Run: `cargo run --release -p bulla-benches --bin table -- DIR [RECORDS] [ROUNDS]`
//! (default: 9,500,000 records, 3 rounds; medians; `DIR` on the disk that you mean)

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bulla_engine::{
    EntityType, Level, Quota, Store, StoreInspection, StoreOptions, Token, TokenId,
};
use bulla_recovery::{Inspection, Range};
use bulla_wal::Options;
use memmap2::{Advice, MmapMut};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Bytes of the naive log's buffer.
const BUFFER_LEN: usize = 1 << 20;
/// Bytes of a page of the machine.
const PAGE_LEN: usize = 4096;

/// Millions of records per second, of each round.
#[derive(Default)]
struct Speeds {
    store_put: Vec<f64>,
    naive_put: Vec<f64>,
    store_get: Vec<f64>,
    vec_get: Vec<f64>,
    store_replay: Vec<f64>,
    log_replay: Vec<f64>,
    memory: Vec<f64>,
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mut number = |default: u32| match args.next() {
        Some(text) => {
            Ok::<u32, Box<dyn std::error::Error>>(text.to_str().ok_or("a number")?.parse()?)
        }
        None => Ok(default),
    };
    let (records, rounds) = (number(9_500_000)?, number(3)?);
    let dir = dir.join(format!("bulla-table-{}", std::process::id()));
    let mut speeds = Speeds::default();
    for _ in 0..rounds {
        std::fs::create_dir_all(&dir)?;
        let round =
            naive(&dir, records, &mut speeds).and_then(|()| store(&dir, records, &mut speeds));
        std::fs::remove_dir_all(&dir)?;
        round?;
    }
    report("put, logged at Relaxed", "Vec and naive log", speeds.store_put, speeds.naive_put);
    report("get, scattered", "Vec", speeds.store_get, speeds.vec_get);
    report("replay into a store", "log alone", speeds.store_replay, speeds.log_replay);
    speeds.memory.sort_by(f64::total_cmp);
    if let [slowest, .., fastest] = speeds.memory[..] {
        println!("fresh memory for records: {slowest:.1} to {fastest:.1} M/s");
    }
    Ok(())
}

fn first() -> Result<Token> {
    Ok(Token::builder(TokenId::new(1, EntityType::Event, 0)?).weight(1.0).build()?)
}

/// Numbers below `records`, about as far apart as a hash would put them.
fn scattered(records: u32) -> impl Iterator<Item = u32> {
    let scatter = move |number: u64| number * 0x9E37_79B1 % u64::from(records);
    #[expect(clippy::cast_possible_truncation, reason = "below `records`")]
    (0..u64::from(records)).map(move |number| scatter(number) as u32)
}

fn naive(dir: &Path, records: u32, speeds: &mut Speeds) -> Result<()> {
    let first = first()?;
    let mut table: Vec<Token> = Vec::new();
    let mut log = BufWriter::with_capacity(BUFFER_LEN, File::create(dir.join("naive"))?);
    let start = Instant::now();
    for id in 1..=records {
        let token = first.with_id(TokenId(id))?;
        log.write_all(&crc32fast::hash(token.as_bytes()).to_le_bytes())?;
        log.write_all(token.as_bytes())?;
        table.push(token);
    }
    log.flush()?;
    speeds.naive_put.push(speed(records, start));
    let start = Instant::now();
    let weights: f32 = scattered(records).map(|at| table[at as usize].weight()).sum();
    speeds.vec_get.push(speed(records, start));
    check(weights)
}

fn store(dir: &Path, records: u32, speeds: &mut Speeds) -> Result<()> {
    let dir = dir.join("store");
    let first = first()?;
    let options = StoreOptions::new().quota(Quota::unlimited());
    let options = options.checkpoint_bytes(None).checkpoint_interval(None);
    let store = Store::open(&dir, &options.checkpoint_close_bytes(None))?;
    touch(records, speeds)?;
    let start = Instant::now();
    for id in 1..=records {
        store.at(Level::Relaxed).put(&first.with_id(TokenId(id))?)?;
    }
    speeds.store_put.push(speed(records, start));
    store.sync()?;
    let start = Instant::now();
    let found = scattered(records).filter_map(|at| store.get(TokenId(at + 1)).transpose());
    let weights = found.map(|token| Ok(token?.weight())).sum::<Result<f32>>()?;
    speeds.store_get.push(speed(records, start));
    check(weights)?;
    store.close()?;
    replay(&dir, records, speeds)
}

fn replay(dir: &Path, records: u32, speeds: &mut Speeds) -> Result<()> {
    // Brings the log into the page cache.
    drop(Inspection::read(dir, &Options::new())?);
    let start = Instant::now();
    let inspection = Inspection::read(dir, &Options::new())?;
    let mut sum = 0_u64;
    let visit = |entry: &bulla_recovery::EntryView<'_>| {
        sum += u64::from(entry.payload[48]);
        ControlFlow::Continue(())
    };
    inspection.replay(Range::ALL, visit)?;
    black_box(sum);
    speeds.log_replay.push(speed(records, start));
    touch(records, speeds)?;
    let start = Instant::now();
    let inspection = StoreInspection::read(dir, &Options::new())?;
    speeds.store_replay.push(speed(records, start));
    if inspection.len() == records as usize { Ok(()) } else { Err("not all are there".into()) }
}

/// Touches memory for `records` records, in huge pages where there are any.
fn touch(records: u32, speeds: &mut Speeds) -> Result<()> {
    let start = Instant::now();
    let mut memory = MmapMut::map_anon(records as usize * size_of::<Token>())?;
    let _ = memory.advise(Advice::HugePage);
    memory.iter_mut().step_by(PAGE_LEN).for_each(|byte| *byte = 1);
    black_box(&memory);
    speeds.memory.push(speed(records, start));
    Ok(())
}

/// All weights are 1, of at least one record.
fn check(weights: f32) -> Result<()> {
    if weights > 0.0 { Ok(()) } else { Err("nothing was found".into()) }
}

fn speed(records: u32, start: Instant) -> f64 {
    f64::from(records) / start.elapsed().as_secs_f64() / 1e6
}

fn median(mut speeds: Vec<f64>) -> f64 {
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}

fn report(what: &str, beside: &str, speeds: Vec<f64>, others: Vec<f64>) {
    let (speed, other) = (median(speeds), median(others));
    let part = speed / other;
    println!("{what:<24} {speed:>6.1} M/s; {beside:<20} {other:>6.1} M/s: {part:.2} times");
}
