//! `bulla replay`: recovers a log after a crash, and reports what survived.

use std::ops::ControlFlow;
use std::path::PathBuf;

use bulla_recovery::{Case, EntryView, Inspection, Prepared, Range, Recovery, ReplayStats, Report};
use bulla_wal::Options;
use serde::Serialize;

use super::inspection::{Depth, explained, inspect, undisturbed};
use super::report::{self, LogReport};
use crate::args::{LogArgs, RangeArgs};
use crate::error::Result;
use crate::numbers::size;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal, times};

/// Recover a log after a crash: cut its torn tail (a copy is kept), make the rest durable,
/// read every entry, and report what survived.
///
/// The whole log is recovered, whatever range is given: a range only says which entries
/// are read and counted, and nothing is cut at its ends. To go back to a point in time,
/// show it with --to-time and --dry-run, then cut with `bulla repair DIR --cut-at LSN` at the
/// LSN that it reports as `replayed end`.
///
/// A recovery begins a new epoch. It copies the last part of the log, as far as that was not
/// known to be durable, into a new segment; the report calls that part `rewritten`.
///
/// Exits with 0 when the log is whole again, with 4 when data that had been durable is damaged
/// or a store's log was purged and no checkpoint replaces what is gone: then nothing was changed.
/// With --dry-run nothing is changed, and a torn tail exits with 3.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla replay /var/lib/flights\n  bulla replay /var/lib/flights --dry-run --from seq:1000 --format json\n  bulla replay /var/lib/flights --dry-run --to-time 2026-11-21T06:00:00Z"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Only report; change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let range = args.range.range();
    let work = if args.dry_run { "inspecting" } else { "recovering" };
    let (options, reading) = progress::reading_log(args.log.options(), work);
    let prepared = match args.dry_run {
        true => None,
        false => prepare(args, &options)?,
    };
    let Some(prepared) = prepared else {
        let mut reading = Some(reading);
        let (inspection, replayed) = undisturbed(&args.dir, &options, || {
            let inspection = Inspection::read(&args.dir, &options)?;
            drop(reading.take());
            let found = inspection.report();
            let replayed = replay(range, found, |visitor| inspection.replay(range, visitor))?;
            Ok(Some((inspection, replayed)))
        })?;
        let found = inspection.report();
        print(found, &replayed, false, out)?;
        return tell(args, found, report::outcome(&found.status), out);
    };
    let recovery = prepared.commit()?;
    drop(reading);
    let found = recovery.report();
    let replayed = replay(range, found, |visitor| recovery.replay(range, visitor))?;
    print(found, &replayed, true, out)?;
    tell(args, found, Outcome::Clean, out)
}

/// Reads a log to recover it. `None` if it is a store's and no checkpoint replaces what was purged:
/// then it is left as it is.
fn prepare(args: &Args, options: &Options) -> Result<Option<Prepared>> {
    let options = options.clone().any_content();
    let prepared = match Recovery::prepare_above(&args.dir, &options, |_| Ok(Vec::new())) {
        Err(error) => return Err(explained(&args.dir, error.into())),
        Ok(prepared) => prepared,
    };
    if prepared.report().content.is_of_store() {
        let (inspection, checkpoints) = inspect(&args.dir, &args.log.options(), Depth::Headers)?;
        if checkpoints.is_missing(inspection.report()) {
            return Ok(None);
        }
    }
    Ok(Some(prepared))
}

/// Tells what the state of a log means, and of a store's log what its checkpoints make of it.
/// Returns the outcome, which is a corruption if no checkpoint replaces what was purged.
fn tell(args: &Args, found: &Report, outcome: Outcome, out: &mut Out) -> Result<Outcome> {
    if found.content.is_of_store() {
        let depth = if outcome == Outcome::Corrupt { Depth::Log } else { Depth::Headers };
        let (_, checkpoints) = inspect(&args.dir, &args.log.options(), depth)?;
        let is_told = out.is_table() && checkpoints.advise(found);
        if checkpoints.is_missing(found) {
            return Ok(Outcome::Corrupt);
        }
        if is_told {
            return Ok(outcome);
        }
    }
    if args.dry_run {
        report::tell(&found.status, out)?;
    }
    Ok(outcome)
}

/// What was read of a range, with its first entry.
struct Replayed {
    stats: ReplayStats,
    first: Option<Position>,
}

/// Where an entry is.
#[derive(Serialize, Clone, Copy)]
struct Position {
    lsn: u64,
    seq: u64,
}

/// Entries between two updates of the progress.
const STEP: u64 = 4096;

/// Reads the range, with progress.
fn replay(
    range: Range,
    found: &Report,
    replay: impl FnOnce(
        &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> bulla_recovery::Result<ReplayStats>,
) -> Result<Replayed> {
    let bar = if range == Range::ALL {
        progress::count(found.entries, "entries")
    } else {
        progress::reading("replaying")
    };
    let (mut first, mut entries) = (None, 0);
    let stats = replay(&mut |entry| {
        first.get_or_insert(Position { lsn: entry.lsn.0, seq: entry.seq.0 });
        entries += 1;
        if entries % STEP == 0 {
            bar.inc(STEP);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Replayed { stats, first })
}

#[derive(Serialize)]
struct ReplayReport {
    #[serde(flatten)]
    log: LogReport,
    replayed_entries: u64,
    replayed_frames: u64,
    replayed_bytes: u64,
    replayed_first: Option<Position>,
    replayed_last: Option<Position>,
    replayed_end: Option<u64>,
    replayed_time: Option<String>,
    changed: bool,
    rewritten: Option<String>,
    quarantine: Option<String>,
}

fn print(found: &Report, replayed: &Replayed, changed: bool, out: &mut Out) -> Result<()> {
    let stats = &replayed.stats;
    out.report(&ReplayReport {
        log: LogReport::new(found),
        replayed_entries: stats.entries,
        replayed_frames: stats.frames,
        replayed_bytes: stats.payload_bytes,
        replayed_first: replayed.first,
        replayed_last: stats.last.map(|(lsn, seq)| Position { lsn: lsn.0, seq: seq.0 }),
        replayed_end: stats.last_frame.map(|(end, _)| end.0),
        replayed_time: stats.last_frame.and_then(|(_, ns)| times::of_nanoseconds(ns)),
        changed,
        rewritten: found
            .rewritten
            .map(|(from, to)| format!("LSN {from} to {to}, under the new epoch")),
        quarantine: found.quarantine.as_ref().map(|path| path.display().to_string()),
    })?;
    out.flush()?;
    if changed && out.is_table() {
        terminal::note(summary(found));
    }
    Ok(())
}

/// Returns what a recovery did, in a sentence.
fn summary(found: &Report) -> String {
    if found.case == Case::CleanShutdown {
        return "The log had been closed cleanly: nothing was lost, and everything is durable."
            .to_owned();
    }
    if found.bytes_cut == 0 {
        return "Recovered: nothing was cut, and everything that was found is durable. Entries \
                that a crash kept from being written leave no trace."
            .to_owned();
    }
    let copy = match &found.quarantine {
        Some(path) => path.display().to_string(),
        None => "quarantine/".to_owned(),
    };
    let cut = size(found.bytes_cut);
    format!("Recovered: {cut} were cut that no durable mark covers; a copy is in {copy}.")
}
