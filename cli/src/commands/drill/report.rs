//! What a drill tells: a timeline of every kill, and the totals.

use std::path::Path;

use bulla_recovery::{Report, Status};
use serde_json::Value;

use super::Args;
use super::feed::Feed;
use super::ledger::{Findings, Recovered};
use super::victim::Fall;
use crate::error::Result;
use crate::output::{Fields, Format, Out, bytes, grouped};
use crate::{Outcome, fields};

/// One kill.
#[derive(Debug)]
pub(super) struct Kill {
    number: u64,
    aim: &'static str,
    after_ms: f64,
    opened: bool,
    acknowledged: u64,
    /// End of what was acknowledged, as (Seq, LSN) of the last entry.
    last_ack: Option<(u64, u64)>,
    written: u64,
    durable: u64,
    /// What was found after it; `None` when the next kill came first.
    checked: Option<Checked>,
}

impl Kill {
    pub(super) fn new(number: u64, fall: &Fall) -> Self {
        let life = &fall.life;
        Self {
            number,
            aim: fall.aim.name(),
            after_ms: (fall.age.as_secs_f64() * 10_000.0).round() / 10.0,
            opened: life.opened.is_some(),
            acknowledged: life.acks.len() as u64,
            last_ack: life.acks.iter().map(|ack| (ack.seq.0, ack.lsn.0)).max(),
            written: life.written.0,
            durable: life.durable.0,
            checked: None,
        }
    }
}

/// What was found after a kill.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    findings: Findings,
    /// Everything below was durable for certain, D.
    proved: u64,
    /// The end of what was recovered, X.
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

    /// Kills that came before the log was open.
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
    if out.format() == Format::Table {
        return for_people(totals, args, feed, kept, out);
    }
    let sum = &totals.sum;
    let timeline: Vec<Value> = totals.kills.iter().map(|kill| kill_fields(kill).into()).collect();
    out.report(&fields! {
        "kills": totals.kills.len(),
        "acknowledged": totals.acknowledged(),
        "recovered": sum.new,
        "lost_allowed": sum.lost_allowed,
        "lost_forbidden": sum.lost_forbidden,
        "prefix_violations": sum.prefix_violations,
        "level": args.level.level().name(),
        "backend": args.log.backend.to_string(),
        "seed": args.seed,
        "clients": args.clients,
        "records": feed.len(),
        "ring_bytes": totals.ring_len,
        "max_lost_bytes": sum.lost_bytes,
        "torn_tails": totals.torn(),
        "kills_while_opening": totals.aimed("opening"),
        "kills_while_recovering": totals.aimed("recovering"),
        "kills_before_open": totals.unopened(),
        "tokens": totals.tokens,
        "seconds": (totals.seconds * 1000.0).round() / 1000.0,
        "dir": kept.map(|dir| dir.display().to_string()),
        "corruption": totals.corruption,
        "problems": sum.words,
        "timeline": timeline,
    })
}

fn kill_fields(kill: &Kill) -> Fields {
    let checked = kill.checked.as_ref();
    fields! {
        "kill": kill.number,
        "while": kill.aim,
        "after_ms": kill.after_ms,
        "opened": kill.opened,
        "acknowledged": kill.acknowledged,
        "acknowledged_seq": kill.last_ack.map(|(seq, _)| seq),
        "acknowledged_lsn": kill.last_ack.map(|(_, lsn)| lsn),
        "written_lsn": kill.written,
        "durable_lsn": kill.durable,
        "proved_lsn": checked.map(|checked| checked.proved),
        "cut_lsn": checked.map(|checked| checked.cut_at),
        "cut_bytes": checked.map(|checked| checked.bytes_cut),
        "recovered": checked.map(|checked| checked.findings.new),
        "recovered_seq": checked.map(|checked| checked.last_seq),
        "lost_allowed": checked.map(|checked| checked.findings.lost_allowed),
        "lost_forbidden": checked.map(|checked| checked.findings.lost_forbidden),
        "prefix_violations": checked.map(|checked| checked.findings.prefix_violations),
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
    for kill in &totals.kills {
        rows.push(people_row(kill))?;
    }
    rows.end()?;
    let sum = &totals.sum;
    out.line("")?;
    out.line(
        "acked to, written, durable: LSNs the child told before it died. proved: durable by the\n\
         log's own evidence. recovered to: where recovery cut the log. Each is at most the next\n\
         recovery's end, unless something was lost.",
    )?;
    out.line("")?;
    out.report(&fields! {
        "level": args.level.level().name(),
        "backend": args.log.backend.to_string(),
        "kills": format!(
            "{} in {:.1} s: {} aimed at opening, {} at recovering; {} before the log was open; {} torn tails",
            totals.kills.len(), totals.seconds, totals.aimed("opening"),
            totals.aimed("recovering"), totals.unopened(), totals.torn(),
        ),
        "records": format!("{} sent over and over by {} threads", grouped(feed.len() as u64), args.clients),
        "acknowledged": totals.acknowledged(),
        "recovered": sum.new,
        "lost, allowed": format!(
            "{} (relaxed only; the farthest {} behind the end, the ring holds {})",
            grouped(sum.lost_allowed), bytes(sum.lost_bytes), bytes(totals.ring_len),
        ),
        "lost, forbidden": sum.lost_forbidden,
        "prefix violations": sum.prefix_violations,
    })?;
    for words in &sum.words {
        out.line(format_args!("  {words}"))?;
    }
    out.line("")?;
    out.line(match totals.outcome() {
        Outcome::Clean if sum.lost_allowed == 0 => {
            "Every acknowledged record was there after every kill, byte for byte."
        }
        Outcome::Clean => {
            "Nothing was lost but what the level allows; the rest is there, byte for byte."
        }
        _ if sum.is_good() => {
            "Nothing was acknowledged before the kills, so this shows nothing: give it more --kills."
        }
        _ => "PROMISES WERE BROKEN: see above.",
    })?;
    if let Some(kept) = kept {
        out.line(format_args!("The log is in {}.", kept.display()))?;
    }
    Ok(())
}

fn people_row(kill: &Kill) -> Fields {
    let checked = kill.checked.as_ref();
    let told = |lsn: u64| (lsn > 0).then_some(lsn);
    let verdict = match checked {
        None => "killed again",
        Some(checked) if !checked.findings.is_good() => "BROKEN",
        Some(checked) if checked.findings.lost_allowed > 0 => "ok, lost in bounds",
        Some(_) => "ok",
    };
    fields! {
        "kill": kill.number,
        "while": kill.aim,
        "at ms": kill.after_ms,
        "acked": kill.acknowledged,
        "acked to": kill.last_ack.map(|(_, lsn)| lsn),
        "written": told(kill.written),
        "durable": told(kill.durable),
        "proved": checked.map(|checked| checked.proved),
        "recovered to": checked.map(|checked| checked.cut_at),
        "cut bytes": checked.map(|checked| checked.bytes_cut),
        "new": checked.map(|checked| checked.findings.new),
        "lost": checked.map(|checked| checked.findings.lost_allowed + checked.findings.lost_forbidden),
        "verdict": verdict,
    }
}
