//! What was found of a log, as fields, and as the outcome of a command.

use std::time::SystemTime;

use bulla_recovery::{Report, SegmentReport, Status};

use crate::Outcome;
use crate::error::of_corruption;
use crate::fields;
use crate::output::Fields;
use crate::tokens::time;

/// The outcome that a log's state means.
pub(crate) const fn outcome(status: &Status) -> Outcome {
    match status {
        Status::Clean => Outcome::Clean,
        Status::TornTail => Outcome::TornTail,
        Status::Corrupt(_) => Outcome::Corrupt,
    }
}

/// The report in the order in which it is read.
pub(crate) fn fields(report: &Report) -> Fields {
    let evidence: Vec<_> = report.evidence.iter().map(ToString::to_string).collect();
    fields! {
        "status": report.status.name(),
        "first_lsn": report.first_lsn.0,
        "last_lsn": report.last_lsn.0,
        "durable_lsn": report.durable_lsn.0,
        "entries": report.entries,
        "first_seq": report.first_seq.0,
        "next_seq": report.next_seq.0,
        "segments": report.segments.len(),
        "bytes_cut": report.bytes_cut,
        "epoch": report.epoch.0,
        "log_id": report.log_id.to_string(),
        "sector": report.sector,
        "last_write": wall_time(report.wall_ns),
        "evidence": evidence,
    }
}

/// One segment of a report.
pub(crate) fn segment(segment: &SegmentReport) -> Fields {
    fields! {
        "segment": segment.number.0,
        "state": segment.state.name(),
        "epoch": segment.epoch.map(|epoch| epoch.0),
        "base_lsn": segment.base.map(|base| base.0),
        "live_from": segment.live.map(|(from, _)| from.0),
        "live_to": segment.live.map(|(_, to)| to.0),
        "frames": segment.frames,
        "entries": segment.entries,
        "file_bytes": segment.file_len,
    }
}

/// Wall time of a frame, to the second; `None` when there is none.
pub(crate) fn wall_time(wall_ns: u64) -> Option<String> {
    let seconds = u32::try_from(wall_ns / 1_000_000_000).ok()?;
    (seconds > 0).then(|| format!("{} UTC", time(seconds)))
}

/// Returns a time in ns since 1970.
pub(crate) fn ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Wall time of a frame as in RFC 3339, to the nanosecond.
pub(crate) fn exact_time(wall_ns: u64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).ok()?;
    Some(time.to_string())
}

/// What the state means for the one who looks.
pub(crate) fn advice(status: &Status) -> Option<&'static str> {
    match status {
        Status::Clean => None,
        Status::TornTail => Some(
            "the end was never promised to be durable: a crash took it. The next open, or \
             `bulla replay DIR`, cuts it and keeps a copy",
        ),
        Status::Corrupt(corruption) => Some(of_corruption(corruption.kind)),
    }
}
