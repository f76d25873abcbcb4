//! `bulla repair`: give up what is damaged, keep a copy of it, and the rest.

use std::path::PathBuf;

use bulla_engine::usable_checkpoints_after;
use bulla_recovery::{RepairPlan, RepairPreview, Report, Status, preview_repair, repair};
use bulla_storage::files::dir;
use bulla_wal::{Lsn, Options};
use serde_json::Value;

use super::kept::{self, Kept};
use super::report;
use crate::args::{LogArgs, position};
use crate::error::Result;
use crate::output::{Fields, Format, Out, bytes, grouped};
use crate::{Outcome, fields};

/// Cut a log that recovery refuses: keep everything before the damage, give up the rest.
///
/// Without --yes it only says what would be cut and lost, changes nothing, and exits as
/// `bulla verify` does. What is cut is lost to the log, also what was durable; copies of
/// all files that are changed stay in `quarantine/`. A log that is not corrupt needs no
/// repair, and is left alone unless --cut-at is given.
///
/// A cut below a store's checkpoint makes that unusable: the store opens from the older one,
/// or from the log alone, or, when that was purged, not at all. It says so before.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla repair /var/lib/flights\n  bulla repair /var/lib/flights --yes\n  bulla repair /var/lib/flights --cut-at 8192 --yes"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Give up everything from this position on; a frame's start or end. Without it,
    /// everything is kept that can be read in order.
    #[arg(long, value_parser = position, value_name = "LSN")]
    cut_at: Option<u64>,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// Only say what would be done, as without --yes.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let options = args.log.options();
    let (inspection, kept) = kept::look(&args.dir, &options, false)?;
    let found = inspection.report();
    let plan = args
        .cut_at
        .map_or_else(|| RepairPlan::keep_readable(found), |lsn| RepairPlan { cut_at: Lsn(lsn) });
    if !matches!(found.status, Status::Corrupt(_)) && args.cut_at.is_none() {
        let mut fields = report::fields(found);
        fields.extend(fields! { "repaired": false });
        out.report(&fields)?;
        if out.format() == Format::Table {
            out.flush()?;
            eprintln!("This log needs no repair: opening it, or `bulla replay`, is enough.");
            kept.advise(found);
        }
        return Ok(Outcome::Clean);
    }
    if args.yes {
        return cut(args, &options, plan, out);
    }
    let preview = preview_repair(&args.dir, &options, plan)?;
    let left = usable_checkpoints_after(&preview, &inspection, &kept.files)?;
    let mut fields = planned(&preview, out.format());
    fields.extend(checkpoints(&kept, &left, found, out.format()));
    out.report(&fields)?;
    if out.format() == Format::Table {
        out.flush()?;
        kept.advise(found);
        if kept::opens(&kept.usable, found) && !kept::opens(&left, found) {
            eprintln!("{NO_STORE_THEN}");
        }
        eprintln!("Nothing was changed. To do this, add --yes.");
    }
    Ok(report::outcome(&preview.before.status))
}

const NO_STORE_THEN: &str = "a store can't be opened here after this cut: no checkpoint can be \
                             used then, and the log does not begin with its first entry";

/// Repairs, and says what was done.
fn cut(args: &Args, options: &Options, plan: RepairPlan, out: &mut Out) -> Result<Outcome> {
    let done = repair(&args.dir, options, plan)?;
    // It is done, whatever comes of this look.
    let looked = kept::look(&args.dir, options, false);
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
    if let Ok((inspection, kept)) = &looked {
        all.extend(checkpoints(kept, &kept.usable, inspection.report(), out.format()));
    }
    out.report(&all)?;
    if out.format() == Format::Table {
        out.flush()?;
        eprintln!(
            "Repaired: the log ends at LSN {} and can be opened. Copies of what was cut are kept.",
            done.cut_at
        );
    }
    match looked {
        Ok((inspection, kept)) if out.format() == Format::Table => {
            kept.advise(inspection.report());
        }
        Ok(_) => {}
        Err(error) => eprintln!("the checkpoints could not be looked at: {error}"),
    }
    Ok(Outcome::Clean)
}

/// Which checkpoints can be used after the cut: `left`. Nothing where there are none.
fn checkpoints(kept: &Kept, left: &[u64], found: &Report, format: Format) -> Fields {
    if kept.files.is_empty() {
        return Fields::new();
    }
    let opens = kept::opens(left, found);
    if format == Format::Table {
        return fields! { "checkpoints": kept.lines_of_cut(left), "store_opens_after": opens };
    }
    let rows = kept.files.iter().zip(kept.rows()).map(|(file, mut row)| {
        row.insert("usable_after".to_owned(), left.contains(&file.number).into());
        Value::from(row)
    });
    fields! { "checkpoint_list": rows.collect::<Vec<_>>(), "store_opens_after": opens }
}

/// What would be kept, cut and lost.
fn planned(preview: &RepairPreview, format: Format) -> Fields {
    let files = preview.cut.iter().map(|file| {
        if format == Format::Table {
            let (from, to) = (bytes(file.from_len), bytes(file.to_len));
            return Value::from(format!("segment {} from {from} to {to}", file.number));
        }
        let (number, from, to) = (file.number.0, file.from_len, file.to_len);
        fields! { "segment": number, "from_bytes": from, "to_bytes": to }.into()
    });
    let removed = preview.removed.iter().map(|number| {
        if format == Format::Table {
            Value::from(format!("segment {number}"))
        } else {
            Value::from(number.0)
        }
    });
    let lost_to = preview.lost_to;
    let mut fields = fields! { "repaired": false };
    let evidence = report::fields(&preview.before);
    fields.extend(evidence);
    fields.extend(fields! {
        "cut_at": preview.cut_at.0,
        "would_keep": preview.kept_entries,
        "would_lose": preview.lost_entries,
        "first_lost_seq": preview.first_lost.0,
    });
    if format == Format::Table {
        let (lost, at) = (preview.lost_entries, preview.cut_at);
        let durable = lost_to.distance_from(at);
        let mut words = vec![format!("{} entries that can be read", grouped(lost))];
        if preview.before.last_lsn < lost_to {
            let unread = bytes(lost_to.distance_from(preview.before.last_lsn.max(at)));
            words.push(format!("all entries in {unread} that were durable and can't be read"));
        }
        words.push(format!("LSN {at} to {lost_to} at least, {}", bytes(durable)));
        let kept = format!("{} entries, up to LSN {at}", grouped(preview.kept_entries));
        fields.extend(fields! { "would_keep": kept, "would_lose": words });
    } else {
        fields.extend(fields! { "lost_to_lsn": lost_to.0 });
    }
    fields.extend(fields! {
        "would_cut": files.collect::<Vec<_>>(),
        "would_replace_or_remove": removed.collect::<Vec<_>>(),
        "copies_in": format!("{}/", dir::QUARANTINE),
    });
    fields
}
