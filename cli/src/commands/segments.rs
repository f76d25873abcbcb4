//! `bulla segments`: what every byte of a log's files is good for. Read-only.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Seal, SegmentBytes, SegmentReport, Status};
use bulla_storage::files::dir;
use bulla_wal::{Options, SegmentNumber};
use serde_json::Value;

use super::report;
use crate::error::{Error, Result};
use crate::output::{Fields, Format, Out, bytes};
use crate::{Outcome, fields};

/// Show what each segment file holds: live frames, dead and torn bytes, zeros
///
/// Takes no lock, changes nothing; of a log that is open for writing it shows a moment.
/// The bytes of a file are its header, then
///   live    frames that count, and the seal
///   dead    superseded by a later epoch, or below the low-water mark
///   torn    behind the end of the log and never promised: a recovery cuts them
///   unread  behind damage, or of a segment that does not fit
///   zero    not used yet
///
/// Exits with 4 when the log is corrupt, else with 0.
#[derive(clap::Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bulla segments /var/lib/flights\n  bulla segments /var/lib/flights --format jsonl"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let inspection = Inspection::read(&args.dir, &Options::new())?;
    let format = out.format();
    let mut rows = out.rows();
    for (segment, measured) in inspection.segments().iter().zip(inspection.measure()?) {
        // One that was purged meanwhile is no part of the log any more.
        let Some(measured) = measured else { continue };
        let Some(allocated) = allocated(&args.dir, segment.number)? else { continue };
        rows.push(row(segment, &measured, allocated, format))?;
    }
    rows.end()?;
    let status = &inspection.report().status;
    if *status != Status::Clean {
        out.flush()?;
        eprintln!("bulla: {status}; `bulla verify DIR` has the evidence");
    }
    Ok(match report::outcome(status) {
        Outcome::TornTail => Outcome::Clean,
        outcome => outcome,
    })
}

fn row(segment: &SegmentReport, measured: &SegmentBytes, allocated: u64, format: Format) -> Fields {
    let SegmentBytes { header, live, dead, torn, unread, zero } = *measured;
    let len = header + live + dead + torn + unread + zero;
    let people = format == Format::Table;
    let mut fields = fields! {
        "segment": segment.number.0,
        "state": segment.state.name(),
        "seal": segment.seal.map(Seal::name),
        "epoch": segment.epoch.map(|epoch| epoch.0),
        "base_lsn": segment.base.map(|base| base.0),
        "frames": segment.frames,
        "entries": segment.entries,
    };
    let lens = [
        ("live", live),
        ("dead", dead),
        ("torn", torn),
        ("unread", unread),
        ("zero", zero),
        ("file", len),
        ("allocated", allocated),
    ];
    if !people {
        fields.insert("header_bytes".to_owned(), header.into());
    }
    for (name, len) in lens {
        if people {
            let text = if len == 0 { Value::Null } else { bytes(len).into() };
            fields.insert(name.to_owned(), text);
        } else {
            fields.insert(format!("{name}_bytes"), len.into());
        }
    }
    fields
}

/// Bytes that a segment's file takes on the disk; `None` when it has gone.
fn allocated(log: &Path, number: SegmentNumber) -> Result<Option<u64>> {
    let path = dir::segment_path(log, number);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) => Ok(Some(metadata.blocks() * 512)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("look at", path)(error)),
    }
}
