//! Readers of a log that is written, purged, crashed and opened again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_tests::reading::{self, Tally};

#[test]
fn readers_show_what_was_appended_and_never_more_than_their_watermark() {
    let seeds = std::env::var("BULLA_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = seeds.unwrap_or(5_000_u64);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match reading::run(seed) {
                        Ok(one) => total.lock().unwrap().add(&one),
                        Err(violation) => panic!("{violation}"),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{total:#?}");
    // A campaign that never meets what it is for proves nothing.
    if seeds >= 1_000 {
        assert!(total.rarest() > seeds / 100, "{total:#?}");
    }
}
