//! The campaigns of seeds on demand: of a log, of a store (`--store`), of readers (`--readers`).
//!
//! `cargo run --release -p bulla-tests --bin sim -- --seeds 1000000`
//! `cargo run -p bulla-tests --bin sim -- --store --seed 17 --trace` for the steps of a seed,
//! `--shrink` for a shorter run that breaks the same invariant.
//! In a build with `--cfg bulla_broken`, `--broken NAME` breaks the code first.

use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bulla_tests::seeds::{Campaign, Failure};
use bulla_tests::{LEFT_OUT, campaign, reading, store};

const USAGE: &str = "usage: sim [--store|--readers] [--seeds COUNT] [--start SEED] [--seed SEED]\n       \
     sim [--store|--readers] --seed SEED --trace|--shrink\n       \
     sim [--store|--readers] --tape NUMBER,...";

fn main() -> ExitCode {
    let (mut seeds, mut start, mut trace, mut shrink) = (10_000_u64, 0_u64, false, false);
    let (mut of, mut tape) = (Campaign::Log, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        let taken = match argument.as_str() {
            "--seeds" => number().map(|value| seeds = value),
            "--start" => number().map(|value| start = value),
            "--seed" => number().map(|value| (start, seeds) = (value, 1)),
            "--store" => set(&mut of, Campaign::Store),
            "--readers" => set(&mut of, Campaign::Readers),
            "--trace" => set(&mut trace, true),
            "--shrink" => set(&mut shrink, true),
            "--tape" => arguments.next().as_deref().and_then(numbers).map(|told| tape = Some(told)),
            #[cfg(bulla_broken)]
            "--broken" => arguments.next().as_deref().and_then(break_it),
            _ => None,
        };
        if taken.is_none() {
            return misused();
        }
    }
    if let Some(tape) = tape {
        print!("{}", of.trace_tape(&tape));
        return ExitCode::SUCCESS;
    }
    if trace {
        print!("{}", of.trace(start));
        return ExitCode::SUCCESS;
    }
    if shrink {
        std::panic::set_hook(Box::new(|_| {}));
        let Some(mut tape) = of.shrunk(start) else {
            println!("it does not fail");
            return ExitCode::SUCCESS;
        };
        if tape.is_empty() {
            // The same, and something to write down.
            tape.push(0);
        }
        let numbers: Vec<_> = tape.iter().map(|number| written(*number)).collect();
        print!("{}", of.trace_tape(&tape));
        println!("play it again: sim {}--tape {}", of.option(), numbers.join(","));
        return ExitCode::SUCCESS;
    }
    match of {
        Campaign::Log => run(start, seeds, campaign::run, campaign::Tally::add),
        Campaign::Store => run(start, seeds, store::run, store::Tally::add),
        Campaign::Readers => run(start, seeds, reading::run, reading::Tally::add),
    }
}

fn set<T>(option: &mut T, value: T) -> Option<()> {
    *option = value;
    Some(())
}

fn written(number: u64) -> String {
    if number == LEFT_OUT { "-".to_owned() } else { number.to_string() }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    let number = |text: &str| if text == "-" { Some(LEFT_OUT) } else { text.parse().ok() };
    text.split(',').map(number).collect()
}

/// From now on this defect is in the code.
#[cfg(bulla_broken)]
fn break_it(name: &str) -> Option<()> {
    use bulla_tests::defects::Defect;
    let defect = Defect::all().find(|defect| defect.name() == name)?;
    Defect::apply(Some(defect));
    Some(())
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Plays seeds on all processors, until ten have failed.
fn run<Tally: Default + Debug + Send>(
    start: u64,
    seeds: u64,
    play: impl Fn(u64) -> Result<Tally, Box<Failure>> + Sync,
    add: impl Fn(&mut Tally, &Tally) + Sync,
) -> ExitCode {
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
                    match play(seed) {
                        Ok(one) => add(&mut tally, &one),
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
                add(&mut total.lock().expect("no thread panics while it adds"), &tally);
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
