//! `bulla repair`: give up what is damaged, keep a copy of it, and the rest.

use std::path::PathBuf;

use bulla_recovery::{Inspection, RepairPlan, Status, repair};
use bulla_wal::Lsn;

use super::report;
use crate::args::{LogArgs, position};
use crate::error::Result;
use crate::output::{Format, Out, grouped};
use crate::{Outcome, fields};

/// Cut a log that recovery refuses: keep everything before the damage, give up the rest.
///
/// What is cut is lost to the log, also what was durable; copies of all files that are
/// changed stay in `quarantine/`. A log that is not corrupt needs no repair, and is left
/// alone unless --cut-at is given.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla repair /var/lib/flights --dry-run\n  bulla repair /var/lib/flights\n  bulla repair /var/lib/flights --cut-at 8192"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Give up everything from this position on; a frame's start or end. Without it,
    /// everything is kept that can be read in order.
    #[arg(long, value_parser = position, value_name = "LSN")]
    cut_at: Option<u64>,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let options = args.log.options();
    let inspection = Inspection::read(&args.dir, &options)?;
    let found = inspection.report();
    let plan = args
        .cut_at
        .map_or_else(|| RepairPlan::keep_readable(found), |lsn| RepairPlan { cut_at: Lsn(lsn) });
    let corrupt = matches!(found.status, Status::Corrupt(_));
    let needed = corrupt || args.cut_at.is_some();
    if args.dry_run || !needed {
        let mut fields = report::fields(found);
        fields.extend(fields! { "repaired": false, "cut_at": plan.cut_at.0 });
        out.report(&fields)?;
        if out.format() == Format::Table {
            out.flush()?;
            if needed {
                eprintln!(
                    "A repair would keep the {} entries up to LSN {}, copy the files and cut the rest.",
                    grouped(found.entries),
                    plan.cut_at
                );
            } else {
                eprintln!("This log needs no repair: opening it, or `bulla replay`, is enough.");
            }
        }
        return Ok(if needed { report::outcome(&found.status) } else { Outcome::Clean });
    }
    let done = repair(&args.dir, &options, plan)?;
    let copies: Vec<_> = done.copies.iter().map(|path| path.display().to_string()).collect();
    let removed: Vec<_> = done.removed.iter().map(|number| number.0).collect();
    let mut fields = report::fields(&done.before);
    let before = fields.shift_remove("status");
    let mut all = fields! {
        "repaired": true,
        "status_before": before,
        "cut_at": done.cut_at.0,
        "epoch_begun": done.epoch.0,
        "copies": copies,
        "removed_segments": removed,
    };
    all.extend(fields);
    out.report(&all)?;
    if out.format() == Format::Table {
        out.flush()?;
        eprintln!(
            "Repaired: the log ends at LSN {} and can be opened. Copies of what was cut are kept.",
            done.cut_at
        );
    }
    Ok(Outcome::Clean)
}
