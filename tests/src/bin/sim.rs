//! The simulator's campaign on demand.
//!
//! `cargo run --release -p bulla-tests --bin sim -- --seeds 1000000`
//! `cargo run -p bulla-tests --bin sim -- --seed 17 --trace`, `--shrink` for a shorter run that
//! fails as well.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bulla_tests::campaign::{self, Tally};

const USAGE: &str = "usage: sim [--seeds COUNT] [--start SEED] [--seed SEED [--trace|--shrink]]";

fn main() -> ExitCode {
    let (mut seeds, mut start, mut trace, mut shrink) = (10_000_u64, 0_u64, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        let taken = match argument.as_str() {
            "--seeds" => number().map(|value| seeds = value),
            "--start" => number().map(|value| start = value),
            "--seed" => number().map(|value| (start, seeds) = (value, 1)),
            "--trace" => {
                trace = true;
                Some(())
            }
            "--shrink" => {
                shrink = true;
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    if trace {
        print!("{}", campaign::trace(start));
        return ExitCode::SUCCESS;
    }
    if shrink {
        std::panic::set_hook(Box::new(|_| {}));
        println!("{}", campaign::shrunk(start).unwrap_or_else(|| "it does not fail".to_owned()));
        return ExitCode::SUCCESS;
    }
    run(start, seeds)
}

fn run(start: u64, seeds: u64) -> ExitCode {
    let (next, done) = (AtomicU64::new(start), AtomicU64::new(0));
    let total = Mutex::new(Tally::default());
    let failures = AtomicU64::new(0);
    let begun = Instant::now();
    let progress = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + seeds || failures.load(Ordering::Relaxed) >= 10 {
                        break;
                    }
                    match campaign::run(seed) {
                        Ok(one) => tally.add(&one),
                        Err(failure) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("{failure}");
                        }
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if progress && done.is_multiple_of(1_000) {
                        let rate = done as f64 / begun.elapsed().as_secs_f64();
                        let _ =
                            write!(std::io::stderr(), "\r{done} of {seeds} seeds, {rate:.0}/s ");
                    }
                }
                total.lock().expect("no thread panics while it adds").add(&tally);
            });
        }
    });
    if progress {
        eprintln!();
    }
    let failures = failures.into_inner();
    println!("{:#?}", total.into_inner().expect("the threads have ended"));
    println!("seeds {}, violations {failures}, {:.1?}", done.into_inner(), begun.elapsed());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
