//! `bulla verify`: checks a log and its checkpoints. Read-only.

use std::path::PathBuf;

use bulla_recovery::{Evidence, Report, Status};
use bulla_wal::Options;
use serde::Serialize;

use super::holds;
use super::inspection::{CheckpointRow, Depth, inspect};
use super::report::{self, LogReport, SegmentRow};
use crate::error::{Error, Result};
use crate::failure::lines_of_corruption;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::picture::{Destination, HtmlArg, LogPage, Subject};
use crate::terminal;

/// Check a log and a store's checkpoints, every byte of them, and change nothing.
///
/// Exits with 0 when the log is clean (only zeros follow the last frame), with 3 when its end
/// is torn, with 4 when data that had been durable is damaged. A log that is open for writing
/// may look torn: the last write is not complete yet. Exits with 1 when the log is clean and a
/// checkpoint is damaged, so that the store opens from the older one, or one of the two copies in
/// CONTROL, which the next open writes anew. Exits with 4 when no checkpoint
/// can be used and the log was purged: the purged part of the log can't be replaced.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla verify /var/lib/flights --format json")]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    #[command(flatten)]
    html: HtmlArg,
}

#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    log: LogReport,
    /// For people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checkpoints: Vec<String>,
    #[serde(flatten)]
    lists: Option<Lists>,
}

/// For programs.
#[derive(Serialize)]
struct Lists {
    segment_list: Vec<SegmentRow>,
    checkpoint_list: Vec<CheckpointRow>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let picture = args.html.destination()?;
    let (inspection, checkpoints) = match inspect(&args.dir, &Options::new(), Depth::All) {
        Err(Error::Log(error)) => return verify_control(args, error, picture.as_ref(), out),
        inspected => inspected?,
    };
    let found = inspection.report();
    out.report(&Verified {
        log: LogReport::new(found),
        checkpoints: if out.is_table() { checkpoints.lines() } else { Vec::new() },
        lists: (!out.is_table()).then(|| Lists {
            segment_list: found.segments.iter().map(SegmentRow::new).collect(),
            checkpoint_list: checkpoints.rows().collect(),
        }),
    })?;
    let outcome = match report::outcome(&found.status) {
        _ if checkpoints.is_missing(found) => Outcome::Corrupt,
        Outcome::Clean if checkpoints.is_damaged() || is_control_damaged(found) => Outcome::Failed,
        outcome => outcome,
    };
    if out.is_table() {
        out.flush()?;
        terminal::detail(format_args!("{}: {}", found.case, found.case.explanation()));
        // Advice for a store includes that for its log.
        if !checkpoints.advise(found) {
            report::tell(&found.status, out)?;
        }
        if found.status == Status::Clean && is_control_damaged(found) {
            terminal::note(
                "One of the two copies in CONTROL is damaged, and the log fits the other: a crash \
                 tore it, or the disk damaged it. The next open, or `bulla replay DIR`, writes it anew.",
            );
        }
    }
    if let Some(picture) = picture {
        out.flush()?;
        let holds = holds::rows(&args.dir, &Options::new(), found)?;
        picture.save(&LogPage::new(&Subject {
            command: "verify",
            checked: "every byte of the log and of its checkpoints",
            dir: &args.dir,
            inspection: &inspection,
            checkpoints: &checkpoints,
            holds: &holds,
            outcome,
        })?)?;
    }
    Ok(outcome)
}

fn is_control_damaged(found: &Report) -> bool {
    found.evidence.iter().any(|evidence| matches!(evidence, Evidence::ControlSlot { .. }))
}

/// A log whose CONTROL is damaged: nothing else of it can be read.
#[derive(Serialize)]
struct Unreadable {
    status: &'static str,
    case: Option<&'static str>,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    proved_durable_lsn: Option<u64>,
    entries: Option<u64>,
    segments: Option<u64>,
    evidence: Vec<String>,
}

fn verify_control(
    args: &Args,
    error: bulla_recovery::Error,
    picture: Option<&Destination>,
    out: &mut Out,
) -> Result<Outcome> {
    let Some(corruption) = error.corruption().cloned() else { return Err(error.into()) };
    let evidence = lines_of_corruption(&corruption);
    let status = Status::Corrupt(corruption.clone());
    out.report(&Unreadable {
        status: status.name(),
        case: None,
        first_lsn: None,
        last_lsn: None,
        proved_durable_lsn: None,
        entries: None,
        segments: None,
        evidence,
    })?;
    report::tell(&status, out)?;
    if let Some(picture) = picture {
        out.flush()?;
        let advice = report::advice(&status).unwrap_or_default();
        picture.save(&LogPage::of_unreadable("verify", &args.dir, &corruption, advice)?)?;
    }
    Ok(report::outcome(&status))
}
