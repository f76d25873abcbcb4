//! `bulla verify`: is the log whole? Read-only.

use std::path::PathBuf;

use bulla_recovery::{Inspection, Status};
use bulla_wal::Options;
use serde_json::Value;

use super::report;
use crate::error::Result;
use crate::output::{Format, Out};
use crate::{Outcome, fields};

/// Check a log and a store's checkpoints, every byte of them, and change nothing.
///
/// Exits with 0 when it is clean (only zeros follow the last frame), with 3 when its tail
/// is torn, with 4 when something that was durable is damaged. A log that is open for
/// writing may look torn: what is being written is not whole yet. With 1 when the log is
/// clean and a checkpoint is damaged: a store opens from the older one.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla verify /var/lib/flights --format json")]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let inspection = match Inspection::read(&args.dir, &Options::new()) {
        Ok(inspection) => inspection,
        Err(error) => {
            // What says so much about the log that nothing else can be read.
            let Some(corruption) = error.corruption().cloned() else { return Err(error.into()) };
            let status = Status::Corrupt(corruption);
            out.report(&fields! {
                "status": status.name(),
                "first_lsn": Value::Null,
                "last_lsn": Value::Null,
                "durable_lsn": Value::Null,
                "entries": Value::Null,
                "segments": Value::Null,
                "evidence": [status.to_string()],
            })?;
            return Ok(finish(&status, out.format()));
        }
    };
    let found = inspection.report();
    let mut fields = report::fields(found);
    if out.format() != Format::Table {
        let segments: Vec<_> = found.segments.iter().map(report::segment).collect();
        fields.insert("segment_list".to_owned(), segments.into_iter().map(Value::from).collect());
    }
    let checkpoints = bulla_engine::checkpoints(&args.dir, &Options::new(), true)?;
    let damaged = checkpoints.iter().any(|file| file.state.is_err());
    if out.format() != Format::Table {
        let list = checkpoints.iter().map(report::checkpoint).map(Value::from).collect();
        fields.insert("checkpoint_list".to_owned(), list);
    } else if !checkpoints.is_empty() {
        let names: Vec<_> = checkpoints
            .iter()
            .map(|file| match &file.state {
                Ok(_) => format!("{} whole", file.number),
                Err(fault) => format!("{} damaged: {fault}", file.number),
            })
            .collect();
        fields.insert("checkpoints".to_owned(), names.into());
    }
    out.report(&fields)?;
    Ok(match finish(&found.status, out.format()) {
        Outcome::Clean if damaged => Outcome::Failed,
        outcome => outcome,
    })
}

fn finish(status: &Status, format: Format) -> Outcome {
    if let (Format::Table, Some(advice)) = (format, report::advice(status)) {
        eprintln!("{advice}");
    }
    report::outcome(status)
}
