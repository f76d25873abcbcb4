//! Nanoseconds per append in memory: no disk, no other thread, the best of many short runs.
//!
//! Run: `cargo run --release -p bulla-benches --bin append -- DIR`

use std::path::PathBuf;
use std::time::Instant;

use bulla_wal::{Level, Log, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("bulla-append-{}", std::process::id()));
    for len in [16, 64, 256, 1024] {
        let mut best = f64::MAX;
        for _ in 0..3 {
            // Fits into the ring and into the segment that opens the log.
            let log = Log::create(&dir, &Options::new().manual())?;
            let payload = vec![7; len];
            let batch = 500;
            for _ in 0..5_000_000 / (len + 8) / batch {
                let start = Instant::now();
                for _ in 0..batch {
                    log.append_with(1, &payload, Level::Relaxed)?;
                }
                best = best.min(start.elapsed().as_nanos() as f64 / batch as f64);
            }
            log.close()?;
            std::fs::remove_dir_all(&dir)?;
        }
        println!("append {len:>5} B: {best:>6.1} ns");
    }
    Ok(())
}
