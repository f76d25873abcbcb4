//! `bulla doctor`: measures the disk of a directory, and says what that means for a log on it.

mod judge;
mod measure;

use std::path::PathBuf;
use std::time::Duration;

use bulla_wal::Options;
use serde::Serialize;

use crate::error::Result;
use crate::facts::{Facts, FactsReport};
use crate::numbers::rounded;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::progress;
use crate::signals::Interrupt;
use crate::terminal::{self, ADVICE, HEADING, WARNING};

use judge::{Recommended, Verdict, judge};
use measure::{Bench, Measured, Scratch, Test};

/// Measure how long syncs take in a directory, by every method and backend, and say which
/// settings to use, and what not to trust.
///
/// Bare loops write synced blocks of 4 KiB, 16 KiB and 1 MiB: past the page cache with
/// synced writes (`O_DIRECT` + `DSYNC`) and through it (`fdatasync`), into blocks that
/// were written before, that are only reserved, and at the end of a growing file. Logs of
/// each backend commit strict entries of 64 bytes, from one writer and from several.
/// Warnings name file systems and speeds with which no sync can be durable. Each test runs in three
/// rounds among the others: shown are the round with the middle median, and the lowest and the
/// highest median.
///
/// Works in a temporary directory inside the directory, which is removed also on Ctrl-C; needs
/// about 200 MiB there meanwhile.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla doctor /var/lib\n  bulla doctor /var/lib --seconds 5 --format json"
)]
pub(crate) struct Args {
    /// The directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Duration of each test, in three rounds, 0.01 to 60. All tests together take about 20 times
    /// as long.
    #[arg(long, default_value_t = 0.75, value_parser = seconds, value_name = "N")]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=60.0).contains(seconds));
    seconds.ok_or_else(|| format!("{text:?} is not a number of seconds from 0.01 to 60"))
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let facts = Facts::read(&args.dir)?;
    let options = Options::new();
    let scratch = Scratch::make(&facts.dir)?;
    let bench = Bench {
        scratch: &scratch,
        io: options.io.as_ref(),
        time: Duration::from_secs_f64(args.seconds / ROUNDS as f64),
        interrupt: &interrupt,
    };
    let tests = Test::all();
    let bar = progress::count((tests.len() * ROUNDS) as u64, "tests");
    let mut rounds = vec![Vec::new(); tests.len()];
    for _ in 0..ROUNDS {
        for (test, rounds) in tests.iter().zip(&mut rounds) {
            rounds.push(bench.run(*test)?);
            bar.inc(1);
        }
    }
    drop(bar);
    let outcomes: Vec<_> = tests.into_iter().zip(rounds.into_iter().map(Measured::of)).collect();
    scratch.remove()?;
    let verdict = judge(&facts, &outcomes);
    if out.is_table() {
        print_for_people(&facts, &outcomes, &verdict, out)?;
    } else {
        out.report(&Diagnosis {
            facts: facts.report(),
            seconds_per_test: args.seconds,
            tests: outcomes.iter().map(|(test, measured)| Row::new(*test, measured)).collect(),
            verdict: &verdict,
        })?;
    }
    // Without O_DIRECT or io_uring a test is impossible; without space nothing is known.
    let is_full = |measured: &Result<Measured, String>| {
        let words = measured.as_ref().err().map(|words| words.to_lowercase()).unwrap_or_default();
        words.contains("no space left") || words.contains("quota exceeded")
    };
    let full = outcomes.iter().filter(|(_, measured)| is_full(measured)).count();
    if full == 0 {
        return Ok(Outcome::Clean);
    }
    if out.is_table() {
        out.flush()?;
    }
    terminal::warn(format_args!("{full} of {} tests had no space", outcomes.len()));
    terminal::advise(
        "free about 200 MiB (`df -h`) or inodes (`df -i`), then run the command again: what it says \
         of this disk is incomplete",
    );
    Ok(Outcome::Failed)
}

/// Each test runs so often, after and before the others: a disk that others use is not equally fast
/// all the time.
const ROUNDS: usize = 3;

/// Everything that was found, for programs.
#[derive(Serialize)]
struct Diagnosis<'a> {
    #[serde(flatten)]
    facts: FactsReport<'a>,
    seconds_per_test: f64,
    tests: Vec<Row<'a>>,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

#[derive(Serialize)]
struct Row<'a> {
    test: String,
    bytes: usize,
    operations: Option<usize>,
    per_second: Option<u64>,
    p50_ns: Option<u64>,
    p50_lowest_ns: Option<u64>,
    p50_highest_ns: Option<u64>,
    p99_ns: Option<u64>,
    max_ns: Option<u64>,
    not_measured: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(test: Test, measured: &'a Result<Measured, String>) -> Self {
        let found = measured.as_ref().ok();
        Self {
            test: test.name(),
            bytes: test.len(),
            operations: found.map(|found| found.operations),
            per_second: found.map(|found| found.per_second),
            p50_ns: found.map(|found| found.p50_ns),
            p50_lowest_ns: found.map(|found| found.p50_range_ns.0),
            p50_highest_ns: found.map(|found| found.p50_range_ns.1),
            p99_ns: found.map(|found| found.p99_ns),
            max_ns: found.map(|found| found.max_ns),
            not_measured: measured.as_ref().err().map(String::as_str),
        }
    }
}

/// A test for people: a rate, or why there is none.
#[derive(Serialize)]
struct ShortRow<'a> {
    test: String,
    bytes: usize,
    per_second: Rate<'a>,
    p50_us: Option<f64>,
    lowest_us: Option<f64>,
    highest_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rate<'a> {
    PerSecond(u64),
    NotMeasured(&'a str),
}

impl<'a> ShortRow<'a> {
    fn new(test: Test, measured: &'a Result<Measured, String>) -> Self {
        let us = |ns: fn(&Measured) -> u64| {
            measured.as_ref().ok().map(|found| rounded(ns(found) as f64 / 1000.0, 1))
        };
        Self {
            test: test.name(),
            bytes: test.len(),
            per_second: match measured {
                Ok(found) => Rate::PerSecond(found.per_second),
                Err(reason) => Rate::NotMeasured(reason),
            },
            p50_us: us(|found| found.p50_ns),
            lowest_us: us(|found| found.p50_range_ns.0),
            highest_us: us(|found| found.p50_range_ns.1),
            p99_us: us(|found| found.p99_ns),
            max_us: us(|found| found.max_ns),
        }
    }
}

fn print_for_people(
    facts: &Facts,
    outcomes: &[judge::Outcome],
    verdict: &Verdict,
    out: &mut Out,
) -> Result<()> {
    out.report(&facts.report())?;
    out.line("")?;
    let mut rows = out.rows();
    for (test, measured) in outcomes {
        rows.push(&ShortRow::new(*test, measured))?;
    }
    rows.end()?;
    out.line("")?;
    for warning in &verdict.warnings {
        let title = out.painted(WARNING, "warning:");
        out.line(format_args!("{title} {warning}."))?;
    }
    for note in &verdict.notes {
        let title = out.painted(HEADING, "note:");
        out.line(format_args!("{title} {note}."))?;
    }
    if let Some(recommended) = &verdict.recommended {
        let Recommended { backend, level, reason } = recommended;
        let title = out.painted(ADVICE, "use:");
        out.line(format_args!("{title} --backend {backend} --level {level} ({reason})."))?;
    }
    Ok(())
}
