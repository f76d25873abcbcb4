//! `bulla backup`: copies a log or a store while a program has it open.

use std::path::PathBuf;

use bulla_engine::{BackupOptions, BackupReport};
use serde::Serialize;

use super::inspection::explained;
use crate::args::{LogArgs, size};
use crate::error::Result;
use crate::numbers::{grouped, size as size_words};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal};

/// Copy a log or a store, also while a program writes it.
///
/// The copy has everything that was acknowledged before the command began at Balanced and Strict,
/// and of Relaxed what had been written. It holds the segments up to a durable mark, the newest
/// whole checkpoint of a store, and a manifest, which is written last, once the copy is durable
/// and was read back. A command that is killed leaves a directory without a manifest: run it
/// again. `bulla restore` restores the copy.
///
/// During the copy a hold keeps purges from removing what is not copied yet. With --hold it stays,
/// at the end of the copy: then the next backup with --since finds everything that comes after. A
/// hold that has this name already is taken over, and moved up; if the command fails, it is put
/// back where it was.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla backup /var/lib/flights /backup/monday\n  bulla backup /var/lib/flights /backup/monday --hold nightly\n  bulla backup /var/lib/flights /backup/tuesday --since /backup/monday --hold nightly"
)]
pub(crate) struct Args {
    /// The directory of the log or the store.
    dir: PathBuf,
    /// Where the backup goes: a new or an empty directory, or one that an unfinished backup left.
    dest: PathBuf,
    /// Copy only what is not in this backup, which must stay where it is.
    #[arg(long, value_name = "BACKUP")]
    since: Option<PathBuf>,
    /// Keep a hold of this name, for the next backup; take over the one that there is.
    #[arg(long, value_name = "NAME")]
    hold: Option<String>,
    /// How much the log may grow before the hold is broken.
    #[arg(long, value_parser = size, value_name = "SIZE", default_value = "16GiB")]
    quota: u64,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Serialize)]
struct BackupRow {
    backup: String,
    base: Option<String>,
    log_id: String,
    first_lsn: u64,
    end_lsn: u64,
    next_seq: u64,
    segments: u64,
    copied_segments: u64,
    copied_bytes: u64,
    checkpoint: Option<u64>,
    hold: Option<String>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (log, copying) = progress::reading_log(args.log.options(), "inspecting");
    let mut options = BackupOptions::new().log(log).quota_bytes(args.quota);
    if let Some(since) = &args.since {
        options = options.since(since);
    }
    if let Some(name) = &args.hold {
        options = options.keep_hold(name);
    }
    let report = bulla_engine::backup(&args.dir, &args.dest, &options);
    let report = report.map_err(|error| explained(&args.dir, error.into()))?;
    drop(copying);
    out.report(&row(&report))?;
    if out.is_table() {
        out.flush()?;
        terminal::note(format_args!(
            "Backed up: everything below LSN {}, {} copied and read back.",
            grouped(report.end_lsn.0),
            size_words(report.copied_bytes),
        ));
    }
    Ok(Outcome::Clean)
}

fn row(report: &BackupReport) -> BackupRow {
    BackupRow {
        backup: report.id.to_string(),
        base: report.base.map(|base| base.to_string()),
        log_id: report.log_id.to_string(),
        first_lsn: report.first_lsn.0,
        end_lsn: report.end_lsn.0,
        next_seq: report.next_seq.0,
        segments: report.segments,
        copied_segments: report.copied_segments,
        copied_bytes: report.copied_bytes,
        checkpoint: report.checkpoint,
        hold: report.hold.clone(),
    }
}
