//! Nanoseconds per append in memory: nothing is written while it is timed. The ring is
//! warm: it was filled once before.
//!
//! Run: `cargo run --release -p bulla-benches --bin append -- DIR`

use std::path::PathBuf;
use std::time::Instant;

use bulla_wal::{Level, Log, Options};

/// Appends that are timed at once, and how often.
const BATCH: usize = 500;
const ROUNDS: usize = 400;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("bulla-append-{}", std::process::id()));
    for len in [16, 64, 256, 1024] {
        let log = Log::create(&dir, &Options::new().manual())?;
        let payload = vec![7; len];
        let append = |count: usize| -> Result<f64, bulla_wal::Error> {
            let start = Instant::now();
            for _ in 0..count {
                let _ = log.append_with(1, &payload, Level::Relaxed)?;
            }
            let ns = start.elapsed().as_nanos() as f64 / count as f64;
            log.sync()?;
            Ok(ns)
        };
        for _ in 0..(40 << 20) / (BATCH * len) {
            append(BATCH)?;
        }
        let mut ns = (0..ROUNDS).map(|_| append(BATCH)).collect::<Result<Vec<_>, _>>()?;
        ns.sort_by(f64::total_cmp);
        println!("append {len:>5} B: best {:>6.1} ns, median {:>6.1} ns", ns[0], ns[ROUNDS / 2]);
        log.close()?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
