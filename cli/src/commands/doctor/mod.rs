//! `bulla doctor`: what a directory's disk does, and what that means for a log on it.

mod judge;
mod measure;

use std::path::PathBuf;
use std::time::Duration;

use bulla_wal::Options;
use serde_json::Value;

use crate::error::Result;
use crate::facts::Facts;
use crate::input::progress;
use crate::output::{Fields, Format, Out};
use crate::signals::Interrupt;
use crate::{Outcome, fields};

use judge::{Verdict, judge};
use measure::{Bench, Measured, Scratch, Test};

/// Measure how long syncs take in a directory, by every method and backend, and say what
/// to use, and what not to trust.
///
/// Bare loops write synced blocks of 4 KiB, 16 KiB and 1 MiB: past the page cache with
/// synced writes (`O_DIRECT` + `DSYNC`) and through it (`fdatasync`), into blocks that
/// were written before, that are only reserved, and at the end of a growing file. Logs of
/// each backend commit strict entries of 64 bytes, from one writer and from several.
/// Warnings tell file systems and speeds at which no sync can be durable.
///
/// Works in a folder of its own in the directory, which is removed also on Ctrl-C; needs
/// some 200 MiB there for the while.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla doctor /var/lib\n  bulla doctor /var/lib --seconds 5 --format json"
)]
pub(crate) struct Args {
    /// The directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How long each of the tests takes, 0.01 to 60. All together take some 20 times that.
    #[arg(long, default_value_t = 0.75, value_parser = seconds, value_name = "N")]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=60.0).contains(seconds));
    seconds.ok_or_else(|| format!("{text:?} is no number of seconds from 0.01 to 60"))
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let facts = Facts::read(&args.dir)?;
    let options = Options::new();
    let scratch = Scratch::make(&facts.dir, options.io.as_ref())?;
    let bench = Bench {
        scratch: &scratch,
        io: options.io.as_ref(),
        time: Duration::from_secs_f64(args.seconds),
        interrupt: &interrupt,
    };
    let tests = Test::all();
    let bar = progress(tests.len() as u64, "tests");
    let mut outcomes = Vec::new();
    for test in tests {
        let measured = bench.run(test)?;
        outcomes.push((test, measured));
        bar.inc(1);
    }
    bar.finish_and_clear();
    scratch.remove()?;
    let verdict = judge(&facts, &outcomes);
    if out.format() == Format::Table {
        print_for_people(&facts, &outcomes, &verdict, out)?;
    } else {
        let mut report = facts.fields();
        let tests: Vec<_> = outcomes.iter().map(|(test, measured)| row(*test, measured)).collect();
        report.extend(fields! {
            "seconds_per_test": args.seconds,
            "tests": tests,
            "warnings": verdict.warnings,
            "notes": verdict.notes,
            "recommended": verdict.recommended.as_ref().map(|recommended| fields! {
                "backend": recommended.backend.to_string(),
                "level": recommended.level.level().name(),
                "reason": recommended.reason,
            }),
        });
        out.report(&report)?;
    }
    Ok(Outcome::Clean)
}

fn row(test: Test, measured: &Result<Measured, String>) -> Fields {
    let found = measured.as_ref().ok();
    fields! {
        "test": test.name(),
        "bytes": test.len(),
        "operations": found.map(|found| found.operations),
        "per_second": found.map(|found| found.per_second),
        "p50_ns": found.map(|found| found.p50_ns),
        "p99_ns": found.map(|found| found.p99_ns),
        "max_ns": found.map(|found| found.max_ns),
        "not_measured": measured.as_ref().err(),
    }
}

fn print_for_people(
    facts: &Facts,
    outcomes: &[judge::Outcome],
    verdict: &Verdict,
    out: &mut Out,
) -> Result<()> {
    out.report(&facts.fields())?;
    out.line("")?;
    let mut rows = out.rows();
    for (test, measured) in outcomes {
        rows.push(row_for_people(*test, measured))?;
    }
    rows.end()?;
    out.line("")?;
    for warning in &verdict.warnings {
        out.line(format_args!("warning: {warning}."))?;
    }
    for note in &verdict.notes {
        out.line(format_args!("note: {note}."))?;
    }
    if let Some(recommended) = &verdict.recommended {
        let (backend, level) = (recommended.backend, recommended.level.level());
        let reason = &recommended.reason;
        out.line(format_args!("use: --backend {backend} --level {level} ({reason})."))?;
    }
    Ok(())
}

fn row_for_people(test: Test, measured: &Result<Measured, String>) -> Fields {
    let us = |ns: fn(&Measured) -> u64| match measured {
        // Rounded to a tenth.
        Ok(found) => Value::from((ns(found) as f64 / 100.0).round() / 10.0),
        Err(_) => Value::Null,
    };
    let rate = match measured {
        Ok(found) => Value::from(found.per_second),
        Err(reason) => Value::from(reason.as_str()),
    };
    fields! {
        "test": test.name(),
        "bytes": test.len(),
        "per_second": rate,
        "p50_us": us(|found| found.p50_ns),
        "p99_us": us(|found| found.p99_ns),
        "max_us": us(|found| found.max_ns),
    }
}
