//! `bulla purge`: removes the oldest segments of a log that no program has open.

use std::path::PathBuf;

use bulla_engine::{preview_purge, purge};
use bulla_recovery::{Position, PurgeReport};
use bulla_wal::Options;
use serde::Serialize;

use super::inspection::explained;
use crate::args::kept_from;
use crate::error::Result;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal};

/// Remove the oldest segments of a log. It needs no space, and so works on a full disk.
///
/// Without --yes it only shows what would be removed, and changes nothing. Only whole segments
/// are removed, so that some entries below --keep-from stay. What is not known to be durable
/// stays, and what a store's checkpoints and holds need (`bulla holds DIR`); a hold over its quota
/// is broken. No copy is kept: purged entries are gone.
///
/// The log must not be open in another program, which can purge it itself. A corrupt log is not
/// purged (exit code 4).
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla purge /var/lib/flights --keep-from seq:100000\n  bulla purge /var/lib/flights --keep-from 2026-11-21T06:00:00Z --yes\n  bulla purge /var/lib/flights --keep-from end --yes --format json"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// The first entry that must stay: a position (LSN) such as 8192, a number such as seq:17, or
    /// a time such as 2026-11-21T06:00:00Z; or end, to remove as much as possible.
    #[arg(long, value_parser = kept_from, value_name = "LSN|seq:N|TIME|end")]
    keep_from: Position,
    /// Remove the segments.
    #[arg(long)]
    yes: bool,
    /// Only show what would be removed, as without --yes.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// What was removed, or would be.
#[derive(Serialize)]
struct Purged {
    purged: bool,
    first_lsn: u64,
    first_seq: u64,
    removed_segments: usize,
    removed_entries: u64,
    removed_bytes: u64,
    kept_entries: u64,
    /// Holds that kept more than their quota, and keep nothing from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    broken_holds: Vec<String>,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_segment_list: Option<Vec<u64>>,
}

impl Purged {
    fn new(report: &PurgeReport, purged: bool, out: &Out) -> Self {
        let numbers = || report.segments.iter().map(|number| number.0).collect();
        Self {
            purged,
            first_lsn: report.first_lsn.0,
            first_seq: report.first_seq.0,
            removed_segments: report.segments.len(),
            removed_entries: report.entries,
            removed_bytes: report.bytes,
            kept_entries: report.before.next_seq.0.saturating_sub(report.first_seq.0),
            broken_holds: report.broken.iter().map(|hold| hold.name.clone()).collect(),
            removed_segment_list: (!out.is_table()).then(numbers),
        }
    }
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (options, reading) = progress::reading_log(Options::new(), "reading the log");
    let report = match args.yes {
        true => purge(&args.dir, args.keep_from, &options),
        false => preview_purge(&args.dir, args.keep_from, &options),
    };
    let report = report.map_err(|error| explained(&args.dir, error.into()))?;
    drop(reading);
    let is_any = !report.segments.is_empty();
    out.report(&Purged::new(&report, args.yes && is_any, out))?;
    if out.is_table() {
        out.flush()?;
        match (is_any, args.yes) {
            (false, _) => terminal::note("There is nothing to purge: no whole segment can go."),
            (true, false) => {
                terminal::note("Nothing was changed. To purge the log as shown, add --yes.");
            }
            (true, true) => terminal::note(format_args!(
                "Purged: the log starts at LSN {}. What was removed is gone.",
                report.first_lsn
            )),
        }
    }
    Ok(Outcome::Clean)
}
