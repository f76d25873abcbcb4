//! `bulla checkpoint`: take one of a store now.

use std::path::PathBuf;

use bulla_engine::{Quota, Store, StoreOptions};
use bulla_storage::files::control;

use super::report;
use crate::args::LogArgs;
use crate::error::Result;
use crate::output::{Format, Out, bytes};
use crate::{Outcome, fields};

/// Take a checkpoint of a store, and purge the log before the last two.
///
/// Opens the store, which recovers its log. The next open reads the checkpoint, and replays
/// only what came after it. With nothing changed since the newest checkpoint none is taken.
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

const TAKEN: &str = "Taken, and durable: the next open reads it, and replays what comes after it.";
const NOTHING_NEW: &str =
    "None was taken: nothing was changed since the newest one, which this is.";

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let options = StoreOptions::new()
        .log(args.log.options())
        .quota(Quota::unlimited())
        .keep_log(args.keep_log)
        .create(false);
    let store = Store::open(&args.dir, &options)?;
    for refused in &store.opened_from().refused {
        eprintln!("bulla: not used: {refused}");
    }
    let taken = store.checkpoint()?;
    let is_new = store.stats().checkpoints.taken > 0;
    store.close()?;
    let log = control::read(args.log.options().io.as_ref(), &args.dir)?;
    let people = out.format() == Format::Table;
    let len = if people { bytes(taken.file_len).into() } else { taken.file_len.into() };
    let mut fields = fields! {
        "number": taken.number,
        "new": is_new,
        "lsn": taken.lsn.0,
        "tokens": taken.records,
        "taken": report::wall_time(report::ns(taken.taken_at)),
    };
    fields.insert(if people { "size" } else { "file_bytes" }.to_owned(), len);
    fields.insert("first_lsn".to_owned(), log.low_water.lsn.0.into());
    out.report(&fields)?;
    if people {
        out.flush()?;
        eprintln!("{}", if is_new { TAKEN } else { NOTHING_NEW });
    }
    Ok(Outcome::Clean)
}
