//! `bulla stat`: what a log holds. Read-only.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bulla_recovery::Range;
use bulla_wal::Options;
use serde_json::Value;

use super::{kept, report};
use crate::error::{Error, Result};
use crate::output::{Format, Out, bytes, grouped};
use crate::{Outcome, fields};

/// Show what a log holds: positions, entries by kind, segments, checkpoints, bytes on disk.
///
/// Changes nothing. Exits with 4 when the log is corrupt, else with 0.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla stat /var/lib/flights")]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (inspection, kept) = kept::look(&args.dir, &Options::new(), false)?;
    let mut kinds = BTreeMap::<u16, (u64, u64)>::new();
    inspection.replay(Range::ALL, |entry| {
        let (count, len) = kinds.entry(entry.kind).or_default();
        *count += 1;
        *len += entry.payload.len() as u64;
        ControlFlow::Continue(())
    })?;
    let found = inspection.report();
    let disk = disk_bytes(&args.dir)?;
    let mut fields = report::fields(found);
    if out.format() == Format::Table {
        fields.insert("disk".to_owned(), bytes(disk).into());
        let kinds = kinds.iter().map(|(kind, (count, len))| {
            format!("{} of kind {kind} with {}", grouped(*count), bytes(*len))
        });
        fields.insert("kinds".to_owned(), kinds.collect::<Vec<_>>().into());
        out.report(&fields)?;
        out.line("")?;
        let mut rows = out.rows();
        found.segments.iter().try_for_each(|segment| rows.push(report::segment(segment)))?;
        rows.end()?;
        if !kept.files.is_empty() {
            out.line("")?;
            let mut rows = out.rows();
            kept.rows().try_for_each(|row| rows.push(row))?;
            rows.end()?;
        }
    } else {
        let kinds = kinds.iter().map(|(kind, (count, len))| {
            Value::from(fields! { "kind": kind, "entries": count, "payload_bytes": len })
        });
        fields.insert("disk_bytes".to_owned(), disk.into());
        fields.insert("kinds".to_owned(), kinds.collect());
        let segments = found.segments.iter().map(report::segment);
        fields.insert("segment_list".to_owned(), segments.map(Value::from).collect());
        fields.insert("checkpoint_list".to_owned(), kept.rows().map(Value::from).collect());
        out.report(&fields)?;
    }
    Ok(match report::outcome(&found.status) {
        Outcome::TornTail => Outcome::Clean,
        outcome => outcome,
    })
}

/// Bytes of all files of the log, quarantine included.
fn disk_bytes(dir: &std::path::Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::file("list", dir))? {
        let entry = entry.map_err(Error::file("list", dir))?;
        // Not through links. A file that has gone meanwhile takes no space.
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += disk_bytes(&entry.path())?,
            Ok(metadata) => sum += metadata.blocks() * 512,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("look at", entry.path())(error)),
        }
    }
    Ok(sum)
}
