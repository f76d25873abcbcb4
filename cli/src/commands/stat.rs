//! `bulla stat`: what a log holds. Read-only.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Range};
use bulla_wal::Options;
use serde::Serialize;

use super::holds::{self, HoldRow};
use super::inspection::{CheckpointRow, Depth, inspect, undisturbed};
use super::report::{self, LogReport, SegmentRow};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::picture::{HtmlArg, LogPage, Subject};
use crate::progress;

/// Show what a log holds: positions, segments, checkpoints, holds, bytes on disk.
///
/// Changes nothing. It reads headers, and so does not see all damage: `bulla verify` does. Exits
/// with 4 when the log is corrupt, else with 0.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla stat /var/lib/flights\n  bulla stat /var/lib/flights --kinds --format json"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    #[command(flatten)]
    html: HtmlArg,
    /// Also count entries and bytes by kind, for which every entry is read.
    #[arg(long)]
    kinds: bool,
}

#[derive(Serialize)]
struct StatReport {
    #[serde(flatten)]
    log: LogReport,
    /// What `status` follows from.
    checked: &'static str,
    disk_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<Kind>>,
    /// For programs: people see tables of their own.
    #[serde(flatten)]
    lists: Option<Lists>,
}

/// The entries of one kind.
#[derive(Serialize)]
struct Kind {
    kind: u16,
    entries: u64,
    payload_bytes: u64,
}

#[derive(Serialize)]
struct Lists {
    segment_list: Vec<SegmentRow>,
    checkpoint_list: Vec<CheckpointRow>,
    hold_list: Vec<HoldRow>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let picture = args.html.destination()?;
    let (inspection, checkpoints, kinds) = undisturbed(&args.dir, &Options::new(), || {
        let (inspection, checkpoints) = inspect(&args.dir, &Options::new(), Depth::Headers)?;
        let kinds = args.kinds.then(|| kinds(&inspection)).transpose()?;
        Ok(Some((inspection, checkpoints, kinds)))
    })?;
    let found = inspection.report();
    let lists = Lists {
        segment_list: found.segments.iter().map(SegmentRow::new).collect(),
        checkpoint_list: checkpoints.rows().collect(),
        hold_list: holds::rows(&args.dir, &Options::new(), found)?,
    };
    let outcome = if checkpoints.is_missing(found) {
        Outcome::Corrupt
    } else {
        report::outcome(&found.status).of_display()
    };
    let page = picture.as_ref().map(|_| {
        LogPage::new(&Subject {
            command: "stat",
            checked: "headers; damage in what they describe does not show",
            dir: &args.dir,
            inspection: &inspection,
            checkpoints: &checkpoints,
            holds: &lists.hold_list,
            outcome,
        })
    });
    let mut report = StatReport {
        log: LogReport::new(found),
        checked: "headers",
        disk_bytes: disk_bytes(&args.dir)?,
        kinds,
        lists: None,
    };
    if out.is_table() {
        out.report(&report)?;
        table(&lists.segment_list, out)?;
        table(&lists.checkpoint_list, out)?;
        table(&lists.hold_list, out)?;
        out.flush()?;
        if !checkpoints.advise(found) {
            report::tell(&found.status, out)?;
        }
        holds::warn(&lists.hold_list);
    } else {
        report.lists = Some(lists);
        out.report(&report)?;
    }
    if let (Some(picture), Some(page)) = (picture, page) {
        out.flush()?;
        picture.save(&page?)?;
    }
    Ok(outcome)
}

/// Counts the entries of each kind.
fn kinds(inspection: &Inspection) -> Result<Vec<Kind>> {
    let _progress = progress::reading("counting");
    let mut kinds = BTreeMap::<u16, (u64, u64)>::new();
    inspection.replay(Range::ALL, |entry| {
        let (count, len) = kinds.entry(entry.kind).or_default();
        *count += 1;
        *len += entry.payload.len() as u64;
        ControlFlow::Continue(())
    })?;
    let kind = |(kind, (entries, payload_bytes))| Kind { kind, entries, payload_bytes };
    Ok(kinds.into_iter().map(kind).collect())
}

/// Prints rows after an empty line; nothing for none.
fn table(rows: &[impl Serialize], out: &mut Out) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut list = out.rows();
    rows.iter().try_for_each(|row| list.push(row))?;
    list.end().map(drop)
}

/// Returns the disk space of all files of the log, including the quarantine.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let entry = entry.map_err(Error::file("list", dir))?;
        // Links are not followed. A file that was removed meanwhile takes no space.
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += disk_bytes(&entry.path())?,
            Ok(metadata) => sum += metadata.blocks() * 512,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("inspect", entry.path())(error)),
        }
    }
    Ok(sum)
}
