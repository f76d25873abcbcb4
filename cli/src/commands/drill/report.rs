//! The report of a drill: a timeline of every kill, and the totals.

use std::path::Path;

use anstyle::Style;
use bulla_recovery::{Report, Status};
use serde::Serialize;

use super::args::Args;
use super::feed::Feed;
use super::ledger::{Findings, Recovered};
use super::victim::Fall;
use crate::args::{Backend, LevelArg};
use crate::error::Result;
use crate::numbers::{grouped, rounded, size};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::picture::{KillMarks, KillsPage};
use crate::terminal::{BAD, GOOD, WARNING};

/// One kill.
#[derive(Debug)]
pub(super) struct Kill {
    number: u64,
    aim: &'static str,
    after_ms: f64,
    opened: bool,
    acknowledged: u64,
    /// Number and LSN of the last acknowledged entry.
    last_ack: Option<(u64, u64)>,
    written: u64,
    durable: u64,
    /// What was found after it; `None` when the next kill came first.
    checked: Option<Checked>,
}

impl Kill {
    pub(super) fn new(number: u64, fall: &Fall) -> Self {
        let run = &fall.run;
        Self {
            number,
            aim: fall.aim.name(),
            after_ms: (fall.age.as_secs_f64() * 10_000.0).round() / 10.0,
            opened: run.opened.is_some(),
            acknowledged: run.acks.len() as u64,
            last_ack: run.acks.iter().map(|ack| (ack.seq.0, ack.lsn.0)).max(),
            written: run.written.0,
            durable: run.durable.0,
            checked: None,
        }
    }
}

/// What was found after a kill.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    findings: Findings,
    /// Everything below this was proved to be durable.
    proved: u64,
    /// The end of what was recovered.
    cut_at: u64,
    last_seq: u64,
    bytes_cut: u64,
    torn: bool,
}

impl Checked {
    pub(super) fn new(findings: Findings, recovered: Recovered, report: Option<&Report>) -> Self {
        Self {
            findings,
            proved: report.map_or(0, |report| report.durable_lsn.0),
            cut_at: recovered.end.0,
            last_seq: recovered.next_seq.0 - 1,
            bytes_cut: report.map_or(0, |report| report.bytes_cut),
            torn: report.is_some_and(|report| report.status == Status::TornTail),
        }
    }
}

/// The whole drill.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) kills: Vec<Kill>,
    pub(super) seconds: f64,
    ring_len: u64,
    /// Tokens in the store at the end.
    pub(super) tokens: u64,
    pub(super) corruption: Option<String>,
    sum: Findings,
}

impl Totals {
    pub(super) fn new(ring_len: u64) -> Self {
        Self { ring_len, ..Self::default() }
    }

    /// Adds what was found after the last kill.
    pub(super) fn add(&mut self, checked: Checked) {
        self.total(&checked.findings);
        if let Some(kill) = self.kills.last_mut() {
            kill.checked = Some(checked);
        }
    }

    pub(super) fn total(&mut self, findings: &Findings) {
        let sum = &mut self.sum;
        sum.new += findings.new;
        sum.lost_allowed += findings.lost_allowed;
        sum.lost_forbidden += findings.lost_forbidden;
        sum.prefix_violations += findings.prefix_violations;
        sum.lost_bytes = sum.lost_bytes.max(findings.lost_bytes);
        sum.words.extend(findings.words.iter().cloned());
    }

    pub(super) fn outcome(&self) -> Outcome {
        if self.corruption.is_some() {
            Outcome::Corrupt
        } else if self.sum.is_good() && self.acknowledged() > 0 {
            Outcome::Clean
        } else {
            Outcome::Failed
        }
    }

    fn acknowledged(&self) -> u64 {
        self.kills.iter().map(|kill| kill.acknowledged).sum()
    }

    fn torn(&self) -> u64 {
        let torn = |kill: &&Kill| kill.checked.as_ref().is_some_and(|checked| checked.torn);
        self.kills.iter().filter(torn).count() as u64
    }

    fn aimed(&self, aim: &str) -> u64 {
        self.kills.iter().filter(|kill| kill.aim == aim).count() as u64
    }

    /// Returns the number of kills that came before the log was open.
    fn unopened(&self) -> u64 {
        self.kills.iter().filter(|kill| !kill.opened).count() as u64
    }
}

/// Prints the report; `kept` is where the log still is.
pub(super) fn print(
    totals: &Totals,
    args: &Args,
    feed: &Feed,
    kept: Option<&Path>,
    out: &mut Out,
) -> Result<()> {
    if out.is_table() {
        return for_people(totals, args, feed, kept, out);
    }
    let sum = &totals.sum;
    out.report(&DrillReport {
        kills: totals.kills.len(),
        acknowledged: totals.acknowledged(),
        recovered: sum.new,
        lost_allowed: sum.lost_allowed,
        lost_forbidden: sum.lost_forbidden,
        prefix_violations: sum.prefix_violations,
        level: args.level,
        backend: args.log.backend,
        seed: args.seed,
        clients: args.clients,
        records: feed.len(),
        ring_bytes: totals.ring_len,
        max_lost_bytes: sum.lost_bytes,
        torn_tails: totals.torn(),
        kills_while_opening: totals.aimed("opening"),
        kills_while_recovering: totals.aimed("recovering"),
        kills_before_open: totals.unopened(),
        tokens: totals.tokens,
        seconds: rounded(totals.seconds, 3),
        dir: kept.map(|dir| dir.display().to_string()),
        corruption: totals.corruption.as_deref(),
        problems: &sum.words,
        timeline: totals.kills.iter().map(KillRow::new).collect(),
    })
}

#[derive(Serialize)]
struct DrillReport<'a> {
    kills: usize,
    acknowledged: u64,
    recovered: u64,
    lost_allowed: u64,
    lost_forbidden: u64,
    prefix_violations: u64,
    level: LevelArg,
    backend: Backend,
    seed: u64,
    clients: u8,
    records: usize,
    ring_bytes: u64,
    max_lost_bytes: u64,
    torn_tails: u64,
    kills_while_opening: u64,
    kills_while_recovering: u64,
    kills_before_open: u64,
    tokens: u64,
    seconds: f64,
    dir: Option<String>,
    corruption: Option<&'a str>,
    problems: &'a [String],
    timeline: Vec<KillRow>,
}

/// A kill, for programs.
#[derive(Serialize)]
struct KillRow {
    kill: u64,
    #[serde(rename = "while")]
    aim: &'static str,
    after_ms: f64,
    opened: bool,
    acknowledged: u64,
    acknowledged_seq: Option<u64>,
    acknowledged_lsn: Option<u64>,
    written_lsn: u64,
    durable_lsn: u64,
    proved_lsn: Option<u64>,
    cut_lsn: Option<u64>,
    cut_bytes: Option<u64>,
    recovered: Option<u64>,
    recovered_seq: Option<u64>,
    lost_allowed: Option<u64>,
    lost_forbidden: Option<u64>,
    prefix_violations: Option<u64>,
}

impl KillRow {
    fn new(kill: &Kill) -> Self {
        let checked = kill.checked.as_ref();
        let findings = checked.map(|checked| &checked.findings);
        Self {
            kill: kill.number,
            aim: kill.aim,
            after_ms: kill.after_ms,
            opened: kill.opened,
            acknowledged: kill.acknowledged,
            acknowledged_seq: kill.last_ack.map(|(seq, _)| seq),
            acknowledged_lsn: kill.last_ack.map(|(_, lsn)| lsn),
            written_lsn: kill.written,
            durable_lsn: kill.durable,
            proved_lsn: checked.map(|checked| checked.proved),
            cut_lsn: checked.map(|checked| checked.cut_at),
            cut_bytes: checked.map(|checked| checked.bytes_cut),
            recovered: findings.map(|findings| findings.new),
            recovered_seq: checked.map(|checked| checked.last_seq),
            lost_allowed: findings.map(|findings| findings.lost_allowed),
            lost_forbidden: findings.map(|findings| findings.lost_forbidden),
            prefix_violations: findings.map(|findings| findings.prefix_violations),
        }
    }
}

fn for_people(
    totals: &Totals,
    args: &Args,
    feed: &Feed,
    kept: Option<&Path>,
    out: &mut Out,
) -> Result<()> {
    let mut rows = out.rows();
    totals.kills.iter().try_for_each(|kill| rows.push(&ShortRow::new(kill)))?;
    rows.end()?;
    out.line("")?;
    out.line(
        "acked to, written, durable: LSNs that the child reported before it died. proved: the log\n\
         itself proves it durable up to there. recovered to: where recovery cut the log. Each is\n\
         at most the next recovery's end, unless something was lost.",
    )?;
    out.line("")?;
    out.report(&Summary::new(totals, args, feed))?;
    for words in &totals.sum.words {
        out.line(format_args!("  {}", out.painted(BAD, words)))?;
    }
    out.line("")?;
    let (style, verdict) = totals.verdict();
    out.line(out.painted(style, verdict))?;
    if let Some(kept) = kept {
        out.line(format_args!("The log is in {}.", kept.display()))?;
    }
    Ok(())
}

impl Totals {
    /// Returns the verdict in a sentence, and its colour.
    fn verdict(&self) -> (Style, &'static str) {
        match self.outcome() {
            Outcome::Clean if self.sum.lost_allowed == 0 => {
                (GOOD, "Every acknowledged record was there after every kill, byte for byte.")
            }
            Outcome::Clean => (
                GOOD,
                "Nothing was lost but what the level allows; the rest is there, byte for byte.",
            ),
            _ if self.sum.is_good() => (
                WARNING,
                "Nothing was acknowledged before the kills, so this shows nothing: use more --kills.",
            ),
            _ => (BAD, "ACKNOWLEDGED RECORDS WERE LOST OR CHANGED: see above."),
        }
    }
}

impl Totals {
    /// Returns the drill as a page.
    pub(super) fn page(&self, args: &Args) -> KillsPage {
        let kills: Vec<KillMarks> = self.kills.iter().map(Kill::marks).collect();
        let is_good = self.outcome() == Outcome::Clean;
        let (_, sentence) = self.verdict();
        KillsPage::new(args.level.name(), is_good, sentence, &kills, &self.sum.words)
    }
}

impl Kill {
    fn marks(&self) -> KillMarks {
        let row = ShortRow::new(self);
        let findings = self.checked.as_ref().map(|checked| &checked.findings);
        KillMarks {
            number: row.kill,
            aim: row.aim,
            after_ms: row.at_ms,
            acknowledged: row.acked,
            acknowledged_to: row.acked_to,
            written: row.written,
            durable: row.durable,
            proved: row.proved,
            recovered_to: row.recovered_to,
            lost_allowed: findings.map_or(0, |findings| findings.lost_allowed),
            lost_forbidden: findings.map_or(0, |findings| findings.lost_forbidden),
            verdict: row.verdict,
            is_broken: findings.is_some_and(|findings| !findings.is_good()),
        }
    }
}

/// The totals, for people.
#[derive(Serialize)]
struct Summary {
    level: LevelArg,
    backend: Backend,
    kills: String,
    records: String,
    acknowledged: u64,
    recovered: u64,
    lost_but_allowed: String,
    lost_and_forbidden: u64,
    prefix_violations: u64,
}

impl Summary {
    fn new(totals: &Totals, args: &Args, feed: &Feed) -> Self {
        let sum = &totals.sum;
        Self {
            level: args.level,
            backend: args.log.backend,
            kills: format!(
                "{} in {:.1} s: {} aimed at opening, {} at recovering; {} before the log was \
                 open; {} torn tails",
                totals.kills.len(),
                totals.seconds,
                totals.aimed("opening"),
                totals.aimed("recovering"),
                totals.unopened(),
                totals.torn(),
            ),
            records: format!(
                "{} sent over and over by {} threads",
                grouped(feed.len() as u64),
                args.clients
            ),
            acknowledged: totals.acknowledged(),
            recovered: sum.new,
            lost_but_allowed: format!(
                "{} (relaxed only; the farthest {} after the end, the ring holds {})",
                grouped(sum.lost_allowed),
                size(sum.lost_bytes),
                size(totals.ring_len),
            ),
            lost_and_forbidden: sum.lost_forbidden,
            prefix_violations: sum.prefix_violations,
        }
    }
}

/// A kill, for people.
#[derive(Serialize)]
struct ShortRow {
    kill: u64,
    #[serde(rename = "while")]
    aim: &'static str,
    at_ms: f64,
    acked: u64,
    acked_to: Option<u64>,
    written: Option<u64>,
    durable: Option<u64>,
    proved: Option<u64>,
    recovered_to: Option<u64>,
    cut_bytes: Option<u64>,
    new: Option<u64>,
    lost: Option<u64>,
    verdict: &'static str,
}

impl ShortRow {
    fn new(kill: &Kill) -> Self {
        let checked = kill.checked.as_ref();
        let findings = checked.map(|checked| &checked.findings);
        let reported = |lsn: u64| (lsn > 0).then_some(lsn);
        Self {
            kill: kill.number,
            aim: kill.aim,
            at_ms: kill.after_ms,
            acked: kill.acknowledged,
            acked_to: kill.last_ack.map(|(_, lsn)| lsn),
            written: reported(kill.written),
            durable: reported(kill.durable),
            proved: checked.map(|checked| checked.proved),
            recovered_to: checked.map(|checked| checked.cut_at),
            cut_bytes: checked.map(|checked| checked.bytes_cut),
            new: findings.map(|findings| findings.new),
            lost: findings.map(|findings| findings.lost_allowed + findings.lost_forbidden),
            verdict: match findings {
                None => "killed again",
                Some(findings) if !findings.is_good() => "BROKEN",
                Some(findings) if findings.lost_allowed > 0 => "ok, lost within bounds",
                Some(_) => "ok",
            },
        }
    }
}
