//! `bulla replay`: recover a log after a crash, and say what survived.

use std::ops::ControlFlow;
use std::path::PathBuf;

use bulla_recovery::{EntryView, Inspection, Range, Recovery, ReplayStats, Report};
use serde_json::Value;

use super::report;
use crate::args::{LogArgs, RangeArgs};
use crate::error::Result;
use crate::output::{Format, Out, bytes};
use crate::{Outcome, fields};

/// Recover a log after a crash: cut its torn tail (a copy is kept), make the rest durable,
/// read every entry, and report what survived.
///
/// The whole log is recovered, whatever range is given: a range only says which entries
/// are read and counted, and nothing is cut at its ends. To go back to a point in time,
/// look with --to-time and --dry-run, then cut with `bulla repair DIR --cut-at LSN` at the
/// LSN that it shows as `replayed end`.
///
/// Exits with 0 when the log is whole again, with 4 (and nothing changed) when something
/// that was durable is damaged. With --dry-run nothing is changed, and a torn tail exits
/// with 3.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla replay /var/lib/flights\n  bulla replay /var/lib/flights --dry-run --from seq:1000 --format json\n  bulla replay /var/lib/flights --dry-run --to-time 2026-11-21T06:00:00Z"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Only look: change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (options, range) = (args.log.options(), args.range.range());
    if args.dry_run {
        let inspection = Inspection::read(&args.dir, &options)?;
        let (stats, first) = replayed(range, |range, visitor| inspection.replay(range, visitor))?;
        print(inspection.report(), &stats, first, false, out)?;
        return Ok(report::outcome(&inspection.report().status));
    }
    let recovery = Recovery::run(&args.dir, &options)?;
    let (stats, first) = replayed(range, |range, visitor| recovery.replay(range, visitor))?;
    print(recovery.report(), &stats, first, true, out)?;
    Ok(Outcome::Clean)
}

/// Goes through the range; gives the first entry's position and number too.
fn replayed(
    range: Range,
    replay: impl FnOnce(
        Range,
        &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> bulla_recovery::Result<ReplayStats>,
) -> Result<(ReplayStats, Option<(u64, u64)>)> {
    let mut first = None;
    let stats = replay(range, &mut |entry| {
        first.get_or_insert((entry.lsn.0, entry.seq.0));
        ControlFlow::Continue(())
    })?;
    Ok((stats, first))
}

fn print(
    found: &Report,
    stats: &ReplayStats,
    first: Option<(u64, u64)>,
    changed: bool,
    out: &mut Out,
) -> Result<()> {
    let position = |(lsn, seq): (u64, u64)| -> Value {
        if out.format() == Format::Table {
            format!("entry {seq} at LSN {lsn}").into()
        } else {
            fields! { "lsn": lsn, "seq": seq }.into()
        }
    };
    let mut fields = report::fields(found);
    fields.extend(fields! {
        "replayed_entries": stats.entries,
        "replayed_frames": stats.frames,
        "replayed_bytes": stats.payload_bytes,
        "replayed_first": first.map(position),
        "replayed_last": stats.last.map(|(lsn, seq)| position((lsn.0, seq.0))),
        "replayed_end": stats.last_frame.map(|(end, _)| end.0),
        "replayed_time": stats.last_frame.and_then(|(_, ns)| report::exact_time(ns)),
        "changed": changed,
        "rehomed": found.rehomed.map(|(from, to)| format!("LSN {from} to {to}")),
        "quarantine": found.quarantine.as_ref().map(|path| path.display().to_string()),
    });
    out.report(&fields)?;
    if out.format() == Format::Table {
        out.flush()?;
        match (changed, found.bytes_cut) {
            (true, 0) => eprintln!("Recovered: nothing was lost, all of it is durable."),
            (true, cut) => eprintln!(
                "Recovered: {} that were never promised to be durable were cut; a copy is in {}.",
                bytes(cut),
                found
                    .quarantine
                    .as_ref()
                    .map_or("quarantine/".into(), |path| path.display().to_string()),
            ),
            (false, _) => {
                if let Some(advice) = report::advice(&found.status) {
                    eprintln!("{advice}");
                }
            }
        }
    }
    Ok(())
}
