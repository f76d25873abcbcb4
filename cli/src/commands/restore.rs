//! `bulla restore`: makes a log or a store from a backup.

use std::path::PathBuf;

use bulla_engine::{RestoreOptions, RestoreReport};
use bulla_recovery::Position;
use bulla_wal::{Lsn, Seq};
use serde::Serialize;

use crate::args::{LogArgs, position, seq};
use crate::error::Result;
use crate::numbers::grouped;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::times::nanoseconds;
use crate::{progress, terminal, times};

/// Restore a backup to a new directory, up to its end or to an earlier point.
///
/// Checks every byte against the manifests of the backup and of those on which it builds. The
/// restored log ends with a whole group of entries (a frame), the last that has nothing at or
/// after the given point: never past it. CONTROL is written last, so a command that is killed
/// leaves no log: run it again.
///
/// The restored log has the identity of the one that was backed up, but its own history from the
/// end on. Do not run both under one name: positions that one of them assigns from now on mean
/// nothing in the other.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla restore /backup/tuesday /var/lib/flights\n  bulla restore /backup/tuesday /tmp/before-noon --to-time 2026-11-21T12:00:00Z\n  bulla restore /backup/tuesday /tmp/earlier --to-seq 1000"
)]
pub(crate) struct Args {
    /// The backup.
    backup: PathBuf,
    /// A new or an empty directory, or one that an unfinished restore left.
    dir: PathBuf,
    /// Restore only what lies below this position.
    #[arg(long, value_parser = position, value_name = "LSN", group = "end")]
    to_lsn: Option<u64>,
    /// Restore only entries with lower numbers.
    #[arg(long, value_parser = seq, value_name = "N", group = "end")]
    to_seq: Option<u64>,
    /// Restore only what was written before this time: as in RFC 3339, or nanoseconds since
    /// 1970. The writer's clock counts.
    #[arg(long, value_parser = nanoseconds, value_name = "TIME", group = "end")]
    to_time: Option<u64>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Serialize)]
struct RestoreRow {
    backup: String,
    log_id: String,
    first_lsn: u64,
    end_lsn: u64,
    next_seq: u64,
    last_write: Option<String>,
    epoch: u32,
    whole: bool,
    backups_read: u64,
    written_bytes: u64,
    checkpoints: Vec<u64>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (log, copying) = progress::reading_log(args.log.options(), "reading the backup");
    let to = (args.to_lsn.map(|lsn| Lsn(lsn).into()))
        .or(args.to_seq.map(|seq| Seq(seq).into()))
        .or(args.to_time.map(Position::at_wall_ns))
        .unwrap_or(Position::End);
    let options = RestoreOptions::new().log(log).to(to);
    let report = bulla_engine::restore(&args.backup, &args.dir, &options)?;
    drop(copying);
    out.report(&row(&report))?;
    if out.is_table() {
        out.flush()?;
        terminal::note(format_args!(
            "Restored: entries up to {}, {}. The log opens as usual.",
            grouped(report.next_seq.0.saturating_sub(1)),
            if report.is_cut { "and none after them" } else { "all that the backup holds" },
        ));
    }
    Ok(Outcome::Clean)
}

fn row(report: &RestoreReport) -> RestoreRow {
    RestoreRow {
        backup: report.id.to_string(),
        log_id: report.log_id.to_string(),
        first_lsn: report.first_lsn.0,
        end_lsn: report.end_lsn.0,
        next_seq: report.next_seq.0,
        last_write: times::of_nanoseconds(report.wall_ns),
        epoch: report.epoch.0,
        whole: !report.is_cut,
        backups_read: report.backups,
        written_bytes: report.written_bytes,
        checkpoints: report.checkpoints.clone(),
    }
}
