//! `bulla holds`: what keeps a log from being purged. Read-only.

use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Report};
use bulla_storage::files::control;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::holds::{self, Hold, HoldFile};
use bulla_wal::Options;
use serde::Serialize;

use crate::error::Result;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal, times};

/// Show the holds of a log: what each keeps, for how long, and how much that is.
///
/// Changes nothing. A broken hold kept more than its quota, and keeps nothing any more; a damaged
/// one stops every purge. A hold of a program that lives only as long as the program is not shown.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla holds /var/lib/flights\n  bulla holds /var/lib/flights --format json"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
}

/// One hold.
#[derive(Serialize)]
pub(crate) struct HoldRow {
    pub(crate) hold: String,
    pub(crate) state: String,
    pub(crate) lsn: Option<u64>,
    pub(crate) kept_bytes: Option<u64>,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) age: Option<String>,
    taken: Option<String>,
    broken: Option<String>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (options, reading) = progress::reading_log(Options::new(), "inspecting");
    let inspection = Inspection::read_headers(&args.dir, &options)?;
    drop(reading);
    let rows = rows(&args.dir, &options, inspection.report())?;
    let mut list = out.rows();
    rows.iter().try_for_each(|row| list.push(row))?;
    list.end()?;
    out.flush()?;
    if rows.is_empty() && out.is_table() {
        terminal::note("This log has no hold.");
    }
    warn(&rows);
    Ok(Outcome::Clean)
}

/// Returns a row for each hold of a log.
pub(crate) fn rows(dir: &Path, options: &Options, found: &Report) -> Result<Vec<HoldRow>> {
    let dir = Directory::of_log(options.io.as_ref(), dir)?;
    let control = control::read(&dir)?;
    let now_ns = options.io.wall_ns();
    let is_broken =
        |hold: &Hold| hold.broken_ns.is_some() || hold.floor.is_purged(&control.low_water);
    let row = |HoldFile { name, hold, .. }| match hold {
        Ok(hold) => HoldRow {
            hold: name,
            state: if is_broken(&hold) { BROKEN.to_owned() } else { "ok".to_owned() },
            lsn: Some(hold.floor.lsn.0),
            kept_bytes: Some(if is_broken(&hold) { 0 } else { hold.kept_bytes(found.last_lsn) }),
            quota_bytes: Some(hold.quota_bytes),
            age: Some(times::of_duration_ns(now_ns.saturating_sub(hold.taken_ns))),
            taken: times::of_nanoseconds(hold.taken_ns),
            broken: hold.broken_ns.and_then(times::of_nanoseconds),
        },
        Err(reason) => HoldRow {
            hold: name,
            state: format!("{DAMAGED}: {reason}"),
            lsn: None,
            kept_bytes: None,
            quota_bytes: None,
            age: None,
            taken: None,
            broken: None,
        },
    };
    Ok(holds::list(&dir, &control)?.into_iter().map(row).collect())
}

const BROKEN: &str = "BROKEN: it kept more than its quota";
const DAMAGED: &str = "damaged";

/// Warns of holds that do not hold, or that stop every purge.
pub(crate) fn warn(rows: &[HoldRow]) {
    for HoldRow { hold, state, .. } in rows {
        if state == BROKEN {
            terminal::warn(format_args!(
                "hold {hold} was broken: it kept more than its quota, and what it kept may be gone"
            ));
        } else if state.starts_with(DAMAGED) {
            terminal::warn(format_args!(
                "the file of hold {hold} can't be read: until `bulla release DIR {hold}`, nothing \
                 is purged"
            ));
        }
    }
}
