//! What was found wrong, with its place: what a picture must show first.

use bulla_recovery::{Evidence, Report, Status};
use bulla_wal::{Corruption, CorruptionKind};

use crate::commands::report::lines_of_evidence;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Severity {
    /// It belongs to what was found.
    Note,
    /// Bytes that no durable mark covers.
    Torn,
    /// Damage to what had been durable.
    Damage,
}

/// One thing that was found, and where.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) words: String,
    pub(super) segment: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) lsn: Option<u64>,
    /// How many bytes it takes, if that is known.
    pub(super) len: u64,
    pub(super) is_missing_segment: bool,
    /// It is of CONTROL, and of no segment.
    pub(super) is_of_control: bool,
}

impl Problem {
    /// Returns where it is, in few words.
    pub(super) fn place(&self) -> String {
        let what = match self.severity {
            _ if self.is_of_control => "CONTROL",
            Severity::Damage if self.is_missing_segment => "missing",
            Severity::Damage => "damage",
            Severity::Torn => "torn",
            Severity::Note => "here",
        };
        let segment = self.segment.map_or_else(String::new, |number| format!(" segment {number}"));
        let offset = self.offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
        let lsn = self.lsn.map_or_else(String::new, |lsn| format!(", LSN {lsn}"));
        format!("{what}:{segment}{offset}{lsn}")
    }
}

/// Returns everything that was found, in the report's order.
pub(super) fn of_report(found: &Report) -> Vec<Problem> {
    let is_corrupt = matches!(found.status, Status::Corrupt(_));
    found.evidence.iter().map(|evidence| of_evidence(evidence, is_corrupt)).collect()
}

/// Returns a corruption that keeps a log from being read at all.
pub(super) fn of_corruption(corruption: &Corruption) -> Problem {
    of_evidence(&Evidence::Fault(corruption.clone()), true)
}

fn of_evidence(evidence: &Evidence, is_corrupt: bool) -> Problem {
    let mut problem = Problem {
        severity: Severity::Note,
        words: lines_of_evidence(evidence).join("; "),
        segment: None,
        offset: None,
        lsn: None,
        len: 0,
        is_missing_segment: false,
        is_of_control: false,
    };
    match evidence {
        Evidence::Fault(fault) => {
            problem.severity = Severity::Damage;
            problem.segment = fault.segment.map(|segment| segment.0);
            problem.offset = fault.offset;
            problem.lsn = fault.lsn.map(|lsn| lsn.0);
            problem.is_missing_segment = fault.kind == CorruptionKind::SegmentMissing;
            problem.is_of_control = matches!(
                fault.kind,
                CorruptionKind::Control(_)
                    | CorruptionKind::ControlSlot(_)
                    | CorruptionKind::ControlOrSegment(_)
                    | CorruptionKind::ControlMissing
            );
        }
        Evidence::ControlSlot { .. } => {
            problem.severity = Severity::Torn;
            problem.is_of_control = true;
        }
        Evidence::Damaged { segment, offset, lsn, .. } => {
            problem.severity = if is_corrupt { Severity::Damage } else { Severity::Torn };
            problem.segment = Some(segment.0);
            problem.offset = Some(*offset);
            problem.lsn = Some(lsn.0);
        }
        Evidence::Tail { segment, offset, bytes } => {
            problem.severity = Severity::Torn;
            problem.segment = Some(segment.0);
            problem.offset = Some(*offset);
            problem.len = *bytes;
        }
        Evidence::Ignored { segment, offset, .. } => {
            problem.segment = Some(segment.0);
            problem.offset = Some(*offset);
        }
        _ => {}
    }
    problem
}
