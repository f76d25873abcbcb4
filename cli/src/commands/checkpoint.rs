//! `bulla checkpoint`: takes a checkpoint of a store now.

use std::path::PathBuf;

use bulla_engine::{Quota, Store, StoreOptions};
use bulla_storage::files::control;
use bulla_storage::files::dir::Directory;
use serde::Serialize;

use super::inspection::explained;
use crate::args::LogArgs;
use crate::error::Result;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal, times};

/// Take a checkpoint of a store, and purge the log before the last two.
///
/// Opens the store, which recovers its log. The next open reads the checkpoint, and replays
/// only what came after it. Takes no checkpoint when nothing has changed since the newest one.
///
/// Shows the checkpoint, and where the log starts now.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla checkpoint /var/lib/flights")]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    /// Keep the whole log.
    #[arg(long)]
    keep_log: bool,
    #[command(flatten)]
    log: LogArgs,
}

const TAKEN: &str =
    "The checkpoint is durable: the next open reads it, and replays what came after it.";
const NOTHING_NEW: &str = "No new checkpoint: nothing has changed since the newest one (above).";

#[derive(Serialize)]
struct CheckpointReport {
    number: u64,
    new: bool,
    lsn: u64,
    tokens: u64,
    taken: Option<String>,
    file_bytes: u64,
    first_lsn: u64,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (log, opening) = progress::reading_log(args.log.options(), "opening the store");
    let options = StoreOptions::new()
        .log(log)
        .quota(Quota::unlimited())
        .keep_log(args.keep_log)
        .create(false);
    let store = Store::open(&args.dir, &options);
    let store = store.map_err(|error| explained(&args.dir, error.into()))?;
    drop(opening);
    args.log.backend.warn_of_fallback(&store.stats().log);
    terminal::detail(format_args!("opened from: {}", store.opened_from()));
    for refused in &store.opened_from().refused {
        terminal::warn(format_args!("not used: {refused}"));
    }
    let taking = progress::reading("taking the checkpoint");
    let taken = store.checkpoint()?;
    let new = store.stats().checkpoints.taken > 0;
    store.close()?;
    drop(taking);
    let log = control::read(&Directory::of_log(args.log.options().io.as_ref(), &args.dir)?)?;
    out.report(&CheckpointReport {
        number: taken.number,
        new,
        lsn: taken.lsn.0,
        tokens: taken.records,
        taken: times::of_system_time(taken.taken_at),
        file_bytes: taken.file_len,
        first_lsn: log.low_water.lsn.0,
    })?;
    if out.is_table() {
        out.flush()?;
        terminal::note(if new { TAKEN } else { NOTHING_NEW });
    }
    Ok(Outcome::Clean)
}
