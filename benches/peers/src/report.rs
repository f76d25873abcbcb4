//! What was measured, for people and for programs.
//!
//! A ratio is taken within each round and its median is shown: what disturbs a round
//! disturbs both sides of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::comparison::{Measured, Outcome};
use crate::statistics::Spread;
use crate::subjects::{Group, reference};
use crate::workload::{Sample, Workload};

/// A log's line in a workload's table.
struct Line<'a> {
    log: &'a Measured,
    rate: Option<Spread>,
    to_reference: Option<Spread>,
    to_limit: Option<Spread>,
    p50_ns: Option<Spread>,
    p99_ns: Option<Spread>,
    syncs_per_record: Option<Spread>,
}

fn lines<'a>(workload: &Workload, logs: &'a [Measured]) -> Vec<Line<'a>> {
    let reference = reference(workload.kind);
    let reference = best_rates(logs, |log| log.name == reference);
    let limit = best_rates(logs, |log| log.group == Group::Limit);
    let mut lines: Vec<_> =
        logs.iter().map(|log| line(workload, log, &reference, &limit)).collect();
    lines.sort_by_key(|line| line.log.group);
    lines
}

fn line<'a>(workload: &Workload, log: &'a Measured, reference: &[f64], limit: &[f64]) -> Line<'a> {
    let of =
        |value: &dyn Fn(&Sample) -> Option<f64>| Spread::of(log.samples.iter().filter_map(value));
    let to = |other: &[f64]| {
        Spread::of(log.samples.iter().zip(other).map(|(sample, other)| sample.rate() / other))
    };
    let is_written = workload.kind.is_written();
    Line {
        log,
        rate: of(&|sample| Some(sample.rate())),
        to_reference: to(reference),
        to_limit: to(limit),
        p50_ns: of(&|sample| Some(sample.latency?.p50_ns)),
        p99_ns: of(&|sample| Some(sample.latency?.p99_ns)),
        syncs_per_record: of(&|sample| is_written.then(|| sample.syncs_per_record())),
    }
}

/// Round by round, the highest rate of the logs chosen; up to the first round that one lacks.
fn best_rates(logs: &[Measured], chosen: impl Fn(&Measured) -> bool) -> Vec<f64> {
    let chosen: Vec<_> = logs.iter().filter(|log| chosen(log)).collect();
    let rounds = chosen.iter().map(|log| log.samples.len()).min().unwrap_or(0);
    let rate = |log: &&Measured, round: usize| log.samples.get(round).map(Sample::rate);
    (0..rounds)
        .filter_map(|round| chosen.iter().filter_map(|log| rate(log, round)).reduce(f64::max))
        .collect()
}

/// For a terminal.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = about(outcome);
    for (workload, logs) in &outcome.results {
        let _ = writeln!(text, "\n{}: {}", workload.name, about_workload(workload));
        let _ = writeln!(
            text,
            "  {:<27} {:<16} {:>10} {:>21} {:>8} {:>8} {:>9} {:>9} {:>10}",
            "log",
            "group",
            "records/s",
            "lowest..highest",
            "/ bulla",
            "/ limit",
            "p50",
            "p99",
            "syncs/rec"
        );
        for line in lines(workload, logs) {
            let _ = writeln!(
                text,
                "  {:<27} {:<16} {:>10} {:>21} {:>8} {:>8} {:>9} {:>9} {:>10}",
                line.log.name,
                line.log.group.name(),
                median(line.rate, count),
                range(line.rate),
                median(line.to_reference, ratio),
                median(line.to_limit, ratio),
                median(line.p50_ns, time),
                median(line.p99_ns, time),
                median(line.syncs_per_record, per_record),
            );
            if let Some(failure) = &line.log.failure {
                let _ = writeln!(text, "    FAILED: {failure}");
            }
        }
    }
    text
}

/// For docs/PERFORMANCE.md.
pub(crate) fn markdown(outcome: &Outcome) -> String {
    let mut text = about(outcome);
    for (workload, logs) in &outcome.results {
        let _ = writeln!(text, "\n### {}\n\n{}\n", workload.name, about_workload(workload));
        text.push_str("| log | group | records/s | lowest..highest | / bulla | / limit | p50 | p99 | syncs per record |\n");
        text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|\n");
        for line in lines(workload, logs) {
            let failure = line.log.failure.as_ref();
            let failure =
                failure.map_or_else(String::new, |failure| format!(" (failed: {failure})"));
            let _ = writeln!(
                text,
                "| {}{failure} | {} | {} | {} | {} | {} | {} | {} | {} |",
                line.log.name,
                line.log.group.name(),
                median(line.rate, count),
                range(line.rate),
                median(line.to_reference, ratio),
                median(line.to_limit, ratio),
                median(line.p50_ns, time),
                median(line.p99_ns, time),
                median(line.syncs_per_record, per_record),
            );
        }
    }
    text
}

/// What is done, and with how many records where that can be chosen.
fn about_workload(workload: &Workload) -> String {
    let about = workload.about;
    if workload.kind.is_of_stores() {
        format!("{} {about}", workload.records)
    } else {
        about.to_owned()
    }
}

/// Machine and versions in a few lines that are Markdown, too.
fn about(outcome: &Outcome) -> String {
    let mut text = String::new();
    let rounds = outcome.rounds;
    let _ = writeln!(text, "- {rounds} rounds, seed {}; medians", outcome.seed);
    if outcome.quick {
        text.push_str("- **quick: a fiftieth of the work; these are no measurements**\n");
    }
    for (name, value) in outcome.fingerprint.as_object().into_iter().flatten() {
        let _ = writeln!(text, "- {}: {}", name.replace('_', " "), plain(value));
    }
    let _ = writeln!(text, "- load average at end: {}", outcome.load_at_end);
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// Every round of every log, with the medians; rates in records per second.
pub(crate) fn json(outcome: &Outcome) -> String {
    let workloads: Vec<_> =
        outcome.results.iter().map(|(workload, logs)| workload_json(workload, logs)).collect();
    let value = json!({
        "fingerprint": outcome.fingerprint,
        "load_average_at_end": outcome.load_at_end,
        "rounds": outcome.rounds,
        "seed": outcome.seed,
        "quick": outcome.quick,
        "workloads": workloads,
    });
    format!("{value:#}\n")
}

fn workload_json(workload: &Workload, logs: &[Measured]) -> Value {
    json!({
        "name": workload.name,
        "about": workload.about,
        "threads": workload.threads,
        "record_len_bytes": workload.record_len,
        "records": workload.records,
        "logs": lines(workload, logs).iter().map(line_json).collect::<Vec<_>>(),
    })
}

fn line_json(line: &Line<'_>) -> Value {
    json!({
        "name": line.log.name,
        "group": line.log.group.name(),
        "failure": line.log.failure,
        "records_per_s": spread_json(line.rate),
        "ratio_to_bulla": spread_json(line.to_reference),
        "ratio_to_limit": spread_json(line.to_limit),
        "p50_ns": spread_json(line.p50_ns),
        "p99_ns": spread_json(line.p99_ns),
        "syncs_per_record": spread_json(line.syncs_per_record),
        "rounds": line.log.samples.iter().map(sample_json).collect::<Vec<_>>(),
    })
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "records": sample.records,
        "seconds": sample.time.as_secs_f64(),
        "records_per_s": sample.rate(),
        "syncs": sample.syncs,
        "p50_ns": sample.latency.map(|latency| latency.p50_ns),
        "p99_ns": sample.latency.map(|latency| latency.p99_ns),
    })
}

fn spread_json(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |spread| {
        json!({
            "median": spread.median,
            "min": spread.min,
            "lower_quartile": spread.lower,
            "upper_quartile": spread.upper,
            "max": spread.max,
        })
    })
}

fn median(spread: Option<Spread>, show: impl Fn(f64) -> String) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| show(spread.median))
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |spread| format!("{}..{}", count(spread.min), count(spread.max)),
    )
}

/// Three digits that count.
fn count(value: f64) -> String {
    match value {
        value if value >= 10e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 10e3 => format!("{:.1} k", value / 1e3),
        value if value >= 1e3 => format!("{:.2} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

fn ratio(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

fn time(ns: f64) -> String {
    if ns >= 1e6 { format!("{:.2} ms", ns / 1e6) } else { format!("{:.1} µs", ns / 1e3) }
}

fn per_record(value: f64) -> String {
    if value >= 0.01 { format!("{value:.3}") } else { format!("{value:.6}") }
}
