//! `bulla hold` and `bulla release`: a place in a log that purges keep, taken and given back.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Position};
use bulla_storage::files::dir::Directory;
use bulla_storage::files::holds::{Holds, Place};
use bulla_storage::files::purge::Floor;
use bulla_wal::{Lsn, Options};
use serde::Serialize;

use crate::args::{bound, size};
use crate::error::Result;
use crate::numbers::size as size_words;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal, times};

/// Keep purges from removing a part of a log that somebody still needs.
///
/// The hold is durable, and also holds in a log that a program has open: from now on the log
/// keeps everything from its position on, until `bulla release` ends it. `bulla stat` shows each
/// hold, its age, and how much it keeps.
///
/// A hold that keeps more than its quota is broken by the next purge that it is in the way of,
/// so that a forgotten one does not fill the disk: its owner is told so.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla hold /var/lib/flights replica-1\n  bulla hold /var/lib/flights audit --from 2026-11-21T06:00:00Z --quota 4GiB\n  bulla hold /var/lib/flights replica-1 --advance --from 1323008"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// The hold's name: 1 to 64 of a-z, 0-9, - and _.
    name: String,
    /// The first position that is kept: a position (LSN) such as 8192, a number such as seq:17,
    /// or a time such as 2026-11-21T06:00:00Z. Without it, all that the log has now.
    #[arg(long, value_parser = bound, value_name = "LSN|seq:N|TIME")]
    from: Option<Position>,
    /// The most log that it may keep, from its position to the log's end.
    #[arg(long, value_parser = size, value_name = "SIZE", default_value = "16GiB")]
    quota: u64,
    /// Move a hold that there is up to this position. Its quota stays.
    #[arg(long, requires = "from", conflicts_with = "quota")]
    advance: bool,
}

#[derive(Serialize)]
struct HoldReport {
    hold: String,
    lsn: u64,
    quota_bytes: u64,
    taken: Option<String>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let options = Options::new();
    let from = args.from.map(|from| lsn_of(&args.dir, &options, from)).transpose()?;
    let dir = Directory::of_log(options.io.as_ref(), &args.dir)?;
    let holds = Holds::lock(&dir, options.io.as_ref(), options.lock_timeout)?;
    let from = from.unwrap_or(holds.control().low_water.lsn);
    let hold = if args.advance {
        holds.advance(&args.name, Floor::at(from))?
    } else {
        holds.take(&args.name, Place { floor: Floor::at(from), quota_bytes: args.quota })?
    };
    drop(holds);
    out.report(&HoldReport {
        hold: hold.name,
        lsn: hold.floor.lsn.0,
        quota_bytes: hold.quota_bytes,
        taken: times::of_nanoseconds(hold.taken_ns),
    })?;
    if out.is_table() {
        out.flush()?;
        terminal::note(format_args!(
            "The log keeps everything from LSN {} on, {} at most. `bulla release DIR {}` ends that.",
            hold.floor.lsn,
            size_words(hold.quota_bytes),
            args.name
        ));
    }
    Ok(Outcome::Clean)
}

/// Returns the LSN of the first entry at or after a position, or the log's end; for a time, that of
/// the first segment with an entry from then or later.
fn lsn_of(dir: &Path, options: &Options, from: Position) -> Result<Lsn> {
    if let Position::Lsn { lsn, .. } = from {
        return Ok(lsn);
    }
    let (options, _reading) = progress::reading_log(options.clone(), "inspecting");
    let inspection = Inspection::read_headers(dir, &options)?;
    if let Position::Time(_) = from {
        // As a purge does: an entry from then or later may come before one from before.
        return Ok(inspection.preview_purge(from, &[])?.first_lsn);
    }
    let mut first = None;
    inspection.replay(from..Position::End, |entry| {
        first = Some(entry.lsn);
        ControlFlow::Break(())
    })?;
    Ok(first.unwrap_or(inspection.report().last_lsn))
}

/// End a hold: purges may remove what it kept.
///
/// Also ends one that was broken, and one whose file is damaged.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bulla release /var/lib/flights replica-1")]
pub(crate) struct ReleaseArgs {
    /// The log's directory.
    dir: PathBuf,
    /// The hold's name.
    name: String,
}

#[derive(Serialize)]
struct ReleaseReport<'a> {
    hold: &'a str,
    released: bool,
}

pub(crate) fn release(args: &ReleaseArgs, out: &mut Out) -> Result<Outcome> {
    let options = Options::new();
    let dir = Directory::of_log(options.io.as_ref(), &args.dir)?;
    Holds::lock(&dir, options.io.as_ref(), options.lock_timeout)?.release(&args.name)?;
    if out.is_table() {
        terminal::note(format_args!("Released: purges may remove what hold {} kept.", args.name));
    } else {
        out.report(&ReleaseReport { hold: &args.name, released: true })?;
    }
    Ok(Outcome::Clean)
}
