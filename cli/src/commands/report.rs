//! What was found of a log, as a report, and as the outcome of a command.

use bulla_recovery::{Evidence, Report, SegmentReport, Status};
use serde::Serialize;

use crate::failure::{lines_of_corruption, of_corruption};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::terminal;
use crate::times;

/// Returns the outcome that a log's state means.
pub(crate) const fn outcome(status: &Status) -> Outcome {
    match status {
        Status::Clean => Outcome::Clean,
        Status::TornTail => Outcome::TornTail,
        Status::Corrupt(_) => Outcome::Corrupt,
    }
}

/// A log, in the order in which people read it.
#[derive(Serialize)]
pub(crate) struct LogReport {
    status: &'static str,
    /// The case of the recovery table that decided the status.
    case: &'static str,
    #[serde(flatten)]
    pub(crate) rest: LogDetails,
}

/// A log, without its state.
#[derive(Serialize)]
pub(crate) struct LogDetails {
    first_lsn: u64,
    last_lsn: u64,
    proved_durable_lsn: u64,
    entries: u64,
    first_seq: u64,
    next_seq: u64,
    segments: usize,
    cut_bytes: u64,
    epoch: u32,
    log_id: String,
    content: String,
    sector_bytes: u32,
    last_write: Option<String>,
    evidence: Vec<String>,
}

impl LogReport {
    pub(crate) fn new(found: &Report) -> Self {
        let (status, case) = (found.status.name(), found.case.name());
        Self { status, case, rest: LogDetails::new(found) }
    }
}

impl LogDetails {
    pub(crate) fn new(found: &Report) -> Self {
        Self {
            first_lsn: found.first_lsn.0,
            last_lsn: found.last_lsn.0,
            proved_durable_lsn: found.durable_lsn.0,
            entries: found.entries,
            first_seq: found.first_seq.0,
            next_seq: found.next_seq.0,
            segments: found.segments.len(),
            cut_bytes: found.bytes_cut,
            epoch: found.epoch.0,
            log_id: found.log_id.to_string(),
            content: found.content.to_string(),
            sector_bytes: found.sector,
            last_write: times::of_nanoseconds(found.wall_ns),
            evidence: found.evidence.iter().flat_map(lines_of_evidence).collect(),
        }
    }
}

pub(crate) fn lines_of_evidence(evidence: &Evidence) -> Vec<String> {
    match evidence {
        Evidence::Fault(corruption) => lines_of_corruption(corruption),
        Evidence::Closed { at } => vec![format!("closed cleanly at LSN {at}")],
        evidence => vec![evidence.to_string()],
    }
}

/// One segment of a log.
#[derive(Serialize)]
pub(crate) struct SegmentRow {
    segment: u64,
    state: &'static str,
    epoch: Option<u32>,
    base_lsn: Option<u64>,
    live_from: Option<u64>,
    live_to: Option<u64>,
    frames: u64,
    entries: u64,
    file_bytes: u64,
}

impl SegmentRow {
    pub(crate) fn new(segment: &SegmentReport) -> Self {
        Self {
            segment: segment.number.0,
            state: segment.state.name(),
            epoch: segment.epoch.map(|epoch| epoch.0),
            base_lsn: segment.base.map(|base| base.0),
            live_from: segment.live.map(|(from, _)| from.0),
            live_to: segment.live.map(|(_, to)| to.0),
            frames: segment.frames,
            entries: segment.entries,
            file_bytes: segment.file_len,
        }
    }
}

/// Returns a state in words for a note: of a corrupt log what is damaged.
pub(crate) fn words_of_status(status: &Status) -> String {
    match status {
        Status::Corrupt(corruption) => lines_of_corruption(corruption).join("; "),
        status => status.to_string(),
    }
}

/// Returns what the user can do about a log in this state; nothing about a clean one.
pub(crate) fn advice(status: &Status) -> Option<&'static str> {
    match status {
        Status::Clean => None,
        Status::TornTail => Some(
            "nothing is needed: the next open, or `bulla replay DIR`, cuts it and keeps a copy",
        ),
        Status::Corrupt(corruption) => Some(of_corruption(corruption.kind)),
    }
}

/// Tells people what the state means and what to do, after the report.
pub(crate) fn tell(status: &Status, out: &mut Out) -> crate::error::Result<()> {
    if !out.is_table() {
        return Ok(());
    }
    out.flush()?;
    if *status == Status::TornTail {
        terminal::note(
            "The end of the log is torn: a crash came while it was written, or it was cut off. No \
             durable mark covers what is there, and nothing tells what was behind it.",
        );
    }
    if let Some(advice) = advice(status) {
        terminal::advise(advice);
    }
    Ok(())
}
