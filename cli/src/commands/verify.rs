//! `bulla verify`: is the log whole? Read-only.

use std::path::PathBuf;

use bulla_recovery::Status;
use bulla_wal::Options;
use serde_json::Value;

use super::{kept, report};
use crate::error::{Error, Result};
use crate::output::{Format, Out};
use crate::{Outcome, fields};

/// Check a log and a store's checkpoints, every byte of them, and change nothing.
///
/// Exits with 0 when it is clean (only zeros follow the last frame), with 3 when its tail
/// is torn, with 4 when something that was durable is damaged. A log that is open for
/// writing may look torn: what is being written is not whole yet. With 1 when the log is
/// clean and a checkpoint is damaged: a store opens from the older one. With 4 when none of
/// the checkpoints can be used, and what is before the log's start is in no other place.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla verify /var/lib/flights --format json")]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (inspection, kept) = match kept::look(&args.dir, &Options::new(), true) {
        Err(Error::Recovery(error)) => return verify_control(error, out),
        looked => looked?,
    };
    let found = inspection.report();
    let mut fields = report::fields(found);
    if out.format() != Format::Table {
        let segments = found.segments.iter().map(report::segment);
        fields.insert("segment_list".to_owned(), segments.map(Value::from).collect());
        fields.insert("checkpoint_list".to_owned(), kept.rows().map(Value::from).collect());
    } else if !kept.files.is_empty() {
        fields.insert("checkpoints".to_owned(), kept.lines().into());
    }
    out.report(&fields)?;
    let outcome = match report::outcome(&found.status) {
        _ if kept.is_missing(found) => Outcome::Corrupt,
        Outcome::Clean if kept.is_damaged() => Outcome::Failed,
        outcome => outcome,
    };
    if out.format() == Format::Table {
        tell(&found.status, out)?;
        kept.advise(found);
    }
    Ok(outcome)
}

/// Of a log whose CONTROL is damaged nothing else can be read.
fn verify_control(error: bulla_recovery::Error, out: &mut Out) -> Result<Outcome> {
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
    if out.format() == Format::Table {
        tell(&status, out)?;
    }
    Ok(report::outcome(&status))
}

/// Tells people what it means.
fn tell(status: &Status, out: &mut Out) -> Result<()> {
    out.flush()?;
    if let Some(advice) = report::advice(status) {
        eprintln!("{advice}");
    }
    Ok(())
}
