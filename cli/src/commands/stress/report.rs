//! The report of a stress run, for people and for programs.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::args::Args;
use super::crash::Crash;
use super::parts::{Measured, Part};
use crate::args::{Backend, LevelArg};
use crate::error::Result;
use crate::facts::{Facts, FactsReport};
use crate::numbers::rounded;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::terminal::BAD;

/// All results.
#[derive(Debug)]
pub(super) struct Results {
    /// Every run of every part; the first part is the baseline.
    pub(super) measured: Vec<(Part, Vec<Measured>)>,
    pub(super) crashes: Vec<Crash>,
}

impl Results {
    pub(super) fn outcome(&self) -> Outcome {
        if self.crashes.iter().all(Crash::is_ok) { Outcome::Clean } else { Outcome::Failed }
    }

    /// Returns the part's times relative to those of the baseline in the same round.
    fn ratios(&self, runs: &[Measured]) -> Vec<f64> {
        let baseline = self.measured.first().map_or(&[][..], |(_, runs)| runs);
        let ratio =
            |(run, base): (&Measured, &Measured)| run.time.as_secs_f64() / base.time.as_secs_f64();
        runs.iter().zip(baseline).map(ratio).collect()
    }

    fn part(&self, part: Part, runs: &[Measured], records: u64) -> PartRow {
        let all: Vec<_> = runs.iter().map(|run| run.time.as_secs_f64()).collect();
        let seconds = median(all.clone());
        let bytes = runs.iter().filter_map(|run| run.bytes_per_record).collect();
        let rate = |seconds| per_second(records, Duration::from_secs_f64(seconds));
        PartRow {
            part: part.name(),
            level: part.level(),
            seconds: seconds.map(|seconds| rounded(seconds, 3)),
            ns_per_record: seconds.map(|seconds| rounded(seconds * 1e9 / records as f64, 1)),
            records_per_second: seconds.map(rate),
            ratio: median(self.ratios(runs)).map(|ratio| rounded(ratio, 2)),
            bytes_per_record: median(bytes).map(|bytes| rounded(bytes, 2)),
            syncs: runs.iter().filter_map(|run| run.syncs).min(),
            all_seconds: all,
        }
    }
}

/// A part, by its medians.
#[derive(Serialize)]
struct PartRow {
    part: &'static str,
    level: Option<LevelArg>,
    seconds: Option<f64>,
    ns_per_record: Option<f64>,
    records_per_second: Option<u64>,
    ratio: Option<f64>,
    bytes_per_record: Option<f64>,
    syncs: Option<u64>,
    /// For programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_seconds: Vec<f64>,
}

/// What was run, and where.
#[derive(Serialize)]
struct About<'a> {
    #[serde(flatten)]
    facts: FactsReport<'a>,
    backend: Backend,
    records: u64,
    threads: u64,
    seed: u64,
    rounds: u32,
    #[serde(flatten)]
    lists: Option<Lists>,
}

/// For programs: people see tables of their own.
#[derive(Serialize)]
struct Lists {
    parts: Vec<PartRow>,
    crashes: Vec<CrashRow>,
    kept: Option<String>,
}

pub(super) fn print(
    args: &Args,
    facts: &Facts,
    results: &Results,
    kept: Option<&Path>,
    out: &mut Out,
) -> Result<()> {
    let rows = results.measured.iter();
    let parts: Vec<_> = rows.map(|(part, runs)| results.part(*part, runs, args.records)).collect();
    let crashes: Vec<_> = results.crashes.iter().map(CrashRow::new).collect();
    let mut about = About {
        facts: facts.report(),
        backend: args.log.backend,
        records: args.records,
        threads: args.threads,
        seed: args.seed,
        rounds: args.rounds,
        lists: None,
    };
    if !out.is_table() {
        about.lists =
            Some(Lists { parts, crashes, kept: kept.map(|kept| kept.display().to_string()) });
        return out.report(&about);
    }
    out.report(&about)?;
    out.line("")?;
    let mut rows = out.rows();
    for part in parts {
        rows.push(&PartRow { all_seconds: Vec::new(), ..part })?;
    }
    rows.end()?;
    out.line("")?;
    let mut rows = out.rows();
    crashes.iter().try_for_each(|crash| rows.push(crash))?;
    rows.end()?;
    if let Some(kept) = kept {
        let words = format!("A record was lost or changed: the store is in {}.", kept.display());
        out.line("")?;
        out.line(out.painted(BAD, &words))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct CrashRow {
    kill_9_at_level: LevelArg,
    acknowledged: u64,
    recovered: u64,
    lost: u64,
    may_lose: u64,
    wrong: u64,
    out_of_order: u64,
    open_seconds: f64,
    opened_per_second: u64,
    ok: bool,
}

impl CrashRow {
    fn new(crash: &Crash) -> Self {
        Self {
            kill_9_at_level: crash.level,
            acknowledged: crash.acknowledged,
            recovered: crash.recovered,
            lost: crash.lost,
            may_lose: crash.may_lose,
            wrong: crash.wrong,
            out_of_order: crash.out_of_order,
            open_seconds: rounded(crash.open.as_secs_f64(), 3),
            opened_per_second: per_second(crash.recovered, crash.open),
            ok: crash.is_ok(),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) =
        (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

fn per_second(records: u64, time: Duration) -> u64 {
    let per_second = u128::from(records) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ms: u64) -> Measured {
        Measured { time: Duration::from_millis(ms), bytes_per_record: None, syncs: None }
    }

    #[test]
    fn ratio_is_taken_within_each_round_and_its_median_shown() {
        let measured = vec![
            (Part::Memory, vec![run(100), run(200), run(100)]),
            (Part::Log(LevelArg::Strict), vec![run(300), run(400), run(100)]),
        ];
        let results = Results { measured, crashes: Vec::new() };
        let (part, runs) = &results.measured[1];
        let shown = results.part(*part, runs, 1_000);
        assert_eq!((shown.ratio, shown.seconds), (Some(2.0), Some(0.3)));
        assert_eq!(shown.records_per_second, Some(3_333));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
