//! What a stress gave, for people and for programs.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Args;
use super::crash::Crash;
use super::parts::{Measured, Part};
use crate::args::LevelArg;
use crate::error::Result;
use crate::facts::Facts;
use crate::output::{Fields, Format, Out};
use crate::{Outcome, fields};

/// All that was measured.
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

    /// The part's times to those of the baseline in the same round.
    fn ratios(&self, runs: &[Measured]) -> Vec<f64> {
        let baseline = self.measured.first().map_or(&[][..], |(_, runs)| runs);
        let ratio =
            |(run, base): (&Measured, &Measured)| run.time.as_secs_f64() / base.time.as_secs_f64();
        runs.iter().zip(baseline).map(ratio).collect()
    }

    fn part(&self, part: Part, runs: &[Measured], records: u64) -> Fields {
        let seconds: Vec<_> = runs.iter().map(|run| run.time.as_secs_f64()).collect();
        let typical = median(seconds.clone());
        let bytes: Vec<_> = runs.iter().filter_map(|run| run.bytes_per_record).collect();
        let syncs: Vec<_> = runs.iter().filter_map(|run| run.syncs).collect();
        fields! {
            "part": part.name(),
            "level": part.level().map(LevelArg::name),
            "seconds": typical.map(|seconds| rounded(seconds, 1_000.0)),
            "ns_per_record": typical.map(|seconds| rounded(seconds * 1e9 / records as f64, 10.0)),
            "records_per_second": typical.map(|seconds| per_second(records, Duration::from_secs_f64(seconds))),
            "ratio": median(self.ratios(runs)).map(|ratio| rounded(ratio, 100.0)),
            "bytes_per_record": median(bytes).map(|bytes| rounded(bytes, 100.0)),
            "syncs": syncs.iter().min(),
            "all_seconds": seconds,
        }
    }
}

pub(super) fn print(
    args: &Args,
    facts: &Facts,
    results: &Results,
    kept: Option<&Path>,
    out: &mut Out,
) -> Result<()> {
    let mut about = facts.fields();
    about.extend(fields! {
        "backend": args.log.backend.to_string(),
        "records": args.records,
        "threads": args.threads,
        "seed": args.seed,
        "rounds": args.rounds,
    });
    let rows = results.measured.iter();
    let parts = rows.map(|(part, runs)| results.part(*part, runs, args.records));
    let crashes = results.crashes.iter().map(crash_fields);
    if out.format() != Format::Table {
        about.extend(fields! {
            "parts": parts.map(Value::from).collect::<Vec<_>>(),
            "crashes": crashes.map(Value::from).collect::<Vec<_>>(),
            "kept": kept.map(|kept| kept.display().to_string()),
        });
        return out.report(&about);
    }
    out.report(&about)?;
    out.line("")?;
    let mut rows = out.rows();
    for mut part in parts {
        part.remove("all_seconds");
        rows.push(part)?;
    }
    rows.end()?;
    out.line("")?;
    let mut rows = out.rows();
    crashes.into_iter().try_for_each(|crash| rows.push(crash))?;
    rows.end()?;
    if let Some(kept) = kept {
        out.line(format_args!(
            "\nA record was lost or changed: the store is kept in {}.",
            kept.display()
        ))?;
    }
    Ok(())
}

fn crash_fields(crash: &Crash) -> Fields {
    let seconds = crash.open.as_secs_f64();
    fields! {
        "kill_9_at_level": crash.level.name(),
        "acknowledged": crash.acknowledged,
        "recovered": crash.recovered,
        "lost": crash.lost,
        "may_lose": crash.may_lose,
        "wrong": crash.wrong,
        "out_of_order": crash.out_of_order,
        "open_seconds": rounded(seconds, 1_000.0),
        "opened_per_second": per_second(crash.recovered, crash.open),
        "ok": crash.is_ok(),
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

fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
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
        assert_eq!((&shown["ratio"], &shown["seconds"]), (&2.0.into(), &0.3.into()));
        assert_eq!(shown["records_per_second"], 3_333);
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
