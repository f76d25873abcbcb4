//! Every short workload, halted at every step, in every way in which that can end.
//!
//! `cargo run --release -p bulla-tests --bin enumerate -- --operations 3`
//! `cargo run --release -p bulla-tests --bin enumerate -- --store --operations 2`
//! `cargo run -p bulla-tests --bin enumerate -- --case CASE`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulla_tests::enumeration::{self, Case, Enumeration, Subject};

const USAGE: &str =
    "usage: enumerate [--store] [--operations COUNT] [--threads COUNT] | --case CASE";
/// Failures after which it ends.
const MOST_FAILURES: usize = 10;
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let (mut operations, mut threads) =
        (2_u32, std::thread::available_parallelism().map_or(1, usize::from));
    let mut subject = Subject::Log;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--store" {
            subject = Subject::Store;
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        let taken = match argument.as_str() {
            "--operations" => value.parse().map(|value| operations = value).is_ok(),
            "--threads" => value.parse().map(|value| threads = value).is_ok(),
            "--case" => return play(&value),
            _ => false,
        };
        if !taken {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    enumerate(subject, operations, threads.max(1))
}

fn play(case: &str) -> ExitCode {
    let played = case.parse().and_then(|case: Case| enumeration::play(&case));
    match played {
        Ok(shown) => {
            print!("{shown}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn enumerate(subject: Subject, operations: u32, threads: usize) -> ExitCode {
    let enumeration = Enumeration::new(subject, operations, MOST_FAILURES);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| enumeration.work())).collect();
        let mut reported = Instant::now();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(20));
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                let (workloads, states) = enumeration.progress();
                let rate = states as f64 / begun.elapsed().as_secs_f64();
                let all = enumeration.workloads();
                eprintln!("{workloads} of {all} workloads, {states} crash states, {rate:.0}/s");
            }
        }
    });
    let (totals, failures) = enumeration.result();
    for failure in &failures {
        eprintln!("{failure}");
    }
    println!("{totals:#?}");
    println!(
        "{} crash states of up to {operations} operations, {} violations, {:.1?}",
        totals.states,
        failures.len(),
        begun.elapsed()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
