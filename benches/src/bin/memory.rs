//! Memory per record, and the speed of puts, gets and a scan. Baseline is a store whose
//! ring is touched and whose log is at work. Fails above 66 bytes per record.
//!
//! Run: `cargo run --release -p bulla-benches --bin memory -- DIR [RECORDS]`
//! (default: 9,500,000, without times to live; the log takes some 75 bytes for each)

use std::path::PathBuf;
use std::time::Instant;

use bulla_engine::{EntityType, Level, Quota, Store, StoreOptions, Token, TokenId};

/// Bytes of memory for a record, at most.
const MAX_PER_RECORD: f64 = 66.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let records: u32 = match args.next() {
        Some(text) => text.to_str().ok_or("a number of records")?.parse()?,
        None => 9_500_000,
    };
    let dir = dir.join(format!("bulla-memory-{}", std::process::id()));
    let result = measure(&dir, records);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &std::path::Path, records: u32) -> Result<(), Box<dyn std::error::Error>> {
    let options = StoreOptions::new()
        .quota(Quota::unlimited())
        .checkpoint_bytes(None)
        .checkpoint_interval(None)
        .checkpoint_close_bytes(None);
    let store = Store::open(dir, &options)?;
    let token = |local| -> Result<Token, Box<dyn std::error::Error>> {
        Ok(Token::builder(TokenId::new(local, EntityType::Event, 0)?).weight(1.0).build()?)
    };
    // One record, over and over: all of the ring is used, and hardly any of the table.
    for _ in 0..1_000_000 {
        store.at(Level::Relaxed).put(&token(0)?)?;
    }
    store.sync()?;
    let before = resident()?;
    let start = Instant::now();
    for local in 1..=records {
        store.at(Level::Relaxed).put(&token(local)?)?;
    }
    report("put, Relaxed", records, start);
    store.sync()?;
    let grown = resident()?.saturating_sub(before);
    let start = Instant::now();
    // Steps that are no neighbours: about as far apart as a hash would put them.
    let found = (0..u64::from(records))
        .filter(|number| {
            let local = number * 0x9E37_79B1 % u64::from(records) + 1;
            let id = u32::try_from(local)
                .ok()
                .and_then(|id| TokenId::new(id, EntityType::Event, 0).ok());
            id.is_some_and(|id| matches!(store.get(id), Ok(Some(_))))
        })
        .count();
    report("get, scattered", records, start);
    let start = Instant::now();
    let threads = std::thread::available_parallelism()?.get();
    let counted = store.count(threads, |token| token.weight() > 0.5)?;
    report("count by a filter, all cores", records, start);
    let per_record = grown as f64 / f64::from(records);
    println!("VmRSS grew by {grown} bytes: {per_record:.2} per record");
    println!("{:?}", store.stats().quota);
    store.close()?;
    if found as u64 != u64::from(records) || counted != u64::from(records) + 1 {
        return Err(format!("{found} found and {counted} counted of {records}").into());
    }
    if per_record > MAX_PER_RECORD {
        return Err(format!("above {MAX_PER_RECORD} bytes per record").into());
    }
    Ok(())
}

fn report(what: &str, records: u32, start: Instant) {
    let ns = start.elapsed().as_nanos() as f64 / f64::from(records);
    println!("{what:<30} {ns:>7.1} ns, {:>6.2} M/s", 1_000.0 / ns);
}

/// Bytes of this process that are in memory.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}
