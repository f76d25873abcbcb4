//! `bulla repair`: cuts off what is damaged, and keeps the rest and a copy.

use std::path::PathBuf;

use bulla_engine::{RecordsAtStake, Token, content_of, records_at_stake, usable_checkpoints_after};
use bulla_recovery::{
    CutFile, Inspection, RepairPlan, RepairPreview, Report, Seal, Status, UndoReport,
    preview_repair, preview_undo, repair, undo_repair,
};
use bulla_storage::files::dir;
use bulla_wal::{Lsn, Options};
use serde::Serialize;

use super::inspection::{CheckpointRow, Checkpoints, Depth, inspect, opens};
use super::report::{self, LogDetails, LogReport};
use crate::args::{LogArgs, position};
use crate::error::{Error, Result};
use crate::numbers::{grouped, size};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::terminal;

/// Cut a log that recovery refuses: keep everything before the damage, give up the rest.
///
/// Without --yes it only shows what would be cut and lost, changes nothing, and exits as
/// `bulla verify` does. The log loses what is cut, even what was durable; copies of all
/// changed files stay in `quarantine/`. A log that is not corrupt needs no repair, and is
/// left alone unless --cut-at is given.
///
/// A store that opens from a checkpoint above the damage needs no repair either, and --yes
/// alone is refused there. A cut below a store's checkpoint makes that checkpoint unusable: the store then opens from
/// the older one, or from the log alone, or, when that was purged, not at all. The plan shows
/// it.
///
/// --undo brings back what the last repair cut, byte for byte, as long as no entry was written
/// since. The log is then as it was before the repair, damage included.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla repair /var/lib/flights\n  bulla repair /var/lib/flights --yes\n  bulla repair /var/lib/flights --cut-at 8192 --yes\n  bulla repair --undo /var/lib/flights --yes"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Give up everything from this position on; it must be the start or end of a frame.
    /// Without it, everything is kept that can be read in order.
    #[arg(long, value_parser = position, value_name = "LSN")]
    cut_at: Option<u64>,
    /// Bring back what the last repair cut.
    #[arg(long, conflicts_with = "cut_at")]
    undo: bool,
    /// Cut the log, or bring back what was cut.
    #[arg(long)]
    yes: bool,
    /// Only show what would be done, as without --yes.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A log that was left alone.
#[derive(Serialize)]
struct Unneeded {
    #[serde(flatten)]
    log: LogReport,
    repaired: bool,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let options = args.log.options();
    if args.undo {
        return undo(args, &options, out);
    }
    let (inspection, checkpoints) = inspect(&args.dir, &options, Depth::All)?;
    let found = inspection.report();
    let plan = args
        .cut_at
        .map_or_else(|| RepairPlan::keep_readable(found), |lsn| RepairPlan { cut_at: Lsn(lsn) });
    if !matches!(found.status, Status::Corrupt(_)) && args.cut_at.is_none() {
        out.report(&Unneeded { log: LogReport::new(found), repaired: false })?;
        if out.is_table() {
            out.flush()?;
            terminal::note(if checkpoints.is_missing(found) {
                "A repair is of no use: the log is not damaged."
            } else {
                "This log needs no repair: opening it, or `bulla replay`, is enough."
            });
            checkpoints.advise(found);
        }
        let is_missing = checkpoints.is_missing(found);
        return Ok(if is_missing { Outcome::Corrupt } else { Outcome::Clean });
    }
    if args.yes {
        if args.cut_at.is_none()
            && let Some(newest) = checkpoints.replacing_damage(found)
        {
            return Err(Error::NeedsNoRepair { newest });
        }
        return cut(args, &options, plan, out);
    }
    let preview = preview_repair(&args.dir, &options, plan)?;
    let left = usable_checkpoints_after(&preview, &inspection, &checkpoints.files)?;
    let after = AfterCut::new(&checkpoints, &left, found, out);
    let tokens = tokens_at_stake(args, &options, &inspection, &preview);
    if out.is_table() {
        out.report(&Plan::new(&preview, tokens.as_ref(), after))?;
        out.flush()?;
        checkpoints.advise(found);
        if opens(&checkpoints.usable, found) && !opens(&left, found) {
            terminal::warn(NO_STORE_THEN);
        }
        let all_the_same = match checkpoints.replacing_damage(found) {
            Some(_) if args.cut_at.is_none() => format!("--cut-at {} ", preview.cut_at),
            _ => String::new(),
        };
        terminal::note(format_args!(
            "Nothing was changed. To cut the log as shown, add {all_the_same}--yes."
        ));
    } else {
        out.report(&ExactPlan::new(&preview, tokens.as_ref(), after))?;
    }
    Ok(report::outcome(&preview.before.status))
}

/// Returns what the repair would do to the tokens of a store of them.
fn tokens_at_stake(
    args: &Args,
    options: &Options,
    inspection: &Inspection,
    preview: &RepairPreview,
) -> Option<RecordsAtStake> {
    if preview.before.content != content_of::<Token>() {
        return None;
    }
    match records_at_stake::<Token>(&args.dir, options, inspection, preview) {
        Ok(tokens) => Some(tokens),
        Err(error) => {
            terminal::warn(format_args!("could not count the tokens: {error}"));
            None
        }
    }
}

const NO_STORE_THEN: &str = "a store can't be opened here after this cut: no checkpoint can be \
                             used then, and the log does not begin with its first entry";

/// What a repair did.
#[derive(Serialize)]
struct Repaired {
    repaired: bool,
    status_before: &'static str,
    cut_at: u64,
    epoch_begun: u32,
    copies: Vec<String>,
    removed_segments: Vec<u64>,
    #[serde(flatten)]
    before: LogDetails,
    #[serde(flatten)]
    after: Option<AfterCut>,
}

/// Repairs, and reports what was done.
fn cut(args: &Args, options: &Options, plan: RepairPlan, out: &mut Out) -> Result<Outcome> {
    let done = repair(&args.dir, options, plan)?;
    // The repair is done, even if this inspection fails.
    let inspected = inspect(&args.dir, options, Depth::Log);
    let after = inspected.as_ref().ok().and_then(|(inspection, checkpoints)| {
        AfterCut::new(checkpoints, &checkpoints.usable, inspection.report(), out)
    });
    out.report(&Repaired {
        repaired: true,
        status_before: done.before.status.name(),
        cut_at: done.cut_at.0,
        epoch_begun: done.epoch.0,
        copies: done.copies.iter().map(|path| path.display().to_string()).collect(),
        removed_segments: done.removed.iter().map(|number| number.0).collect(),
        before: LogDetails::new(&done.before),
        after,
    })?;
    if out.is_table() {
        out.flush()?;
        terminal::note(format_args!(
            "Repaired: the log ends at LSN {} and can be opened. Copies of what was cut are kept: \
             `bulla repair --undo {} --yes` brings it back, as long as no entry is written.",
            done.cut_at,
            args.dir.display()
        ));
    }
    match inspected {
        Ok((inspection, checkpoints)) if out.is_table() => {
            checkpoints.advise(inspection.report());
        }
        Ok(_) => {}
        Err(error) => terminal::warn(format_args!("could not inspect the checkpoints: {error}")),
    }
    Ok(Outcome::Clean)
}

/// What an undo does, or would do.
#[derive(Serialize)]
struct Undone {
    undone: bool,
    epoch_ended: u32,
    was_cut_at: u64,
    restored_segments: Vec<u64>,
    removed_segments: Vec<u64>,
}

impl Undone {
    fn new(undo: &UndoReport, undone: bool) -> Self {
        let numbers =
            |numbers: &[bulla_wal::SegmentNumber]| numbers.iter().map(|number| number.0).collect();
        Self {
            undone,
            epoch_ended: undo.epoch.0,
            was_cut_at: undo.cut_at.0,
            restored_segments: numbers(&undo.restored),
            removed_segments: numbers(&undo.removed),
        }
    }
}

/// Undoes the last repair, or shows what that would do.
fn undo(args: &Args, options: &Options, out: &mut Out) -> Result<Outcome> {
    let done = match args.yes {
        true => undo_repair(&args.dir, options)?,
        false => preview_undo(&args.dir, options)?,
    };
    out.report(&Undone::new(&done, args.yes))?;
    if out.is_table() {
        out.flush()?;
        terminal::note(if args.yes {
            "Undone: every file is as it was before the repair, so the log may be refused again. \
             `bulla verify DIR` tells."
        } else {
            "Nothing was changed. No entry was written since the repair, so that nothing would be \
             lost. To undo it, add --yes."
        });
    }
    Ok(Outcome::Clean)
}

/// The checkpoints after a cut. People get lines, programs rows.
#[derive(Serialize)]
struct AfterCut {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checkpoints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checkpoint_list: Vec<RowAfterCut>,
    store_opens_after: bool,
}

#[derive(Serialize)]
struct RowAfterCut {
    #[serde(flatten)]
    row: CheckpointRow,
    usable_after: bool,
}

impl AfterCut {
    /// Returns which checkpoints can be used after the cut: `left`. `None` where there are none.
    fn new(checkpoints: &Checkpoints, left: &[u64], found: &Report, out: &Out) -> Option<Self> {
        if checkpoints.files.is_empty() {
            return None;
        }
        let store_opens_after = opens(left, found);
        if out.is_table() {
            let checkpoints = checkpoints.lines_after_cut(left);
            return Some(Self { checkpoints, checkpoint_list: Vec::new(), store_opens_after });
        }
        let rows = checkpoints.files.iter().zip(checkpoints.rows());
        let checkpoint_list = rows
            .map(|(file, row)| RowAfterCut { row, usable_after: left.contains(&file.number) })
            .collect();
        Some(Self { checkpoints: Vec::new(), checkpoint_list, store_opens_after })
    }
}

/// What would be kept, cut and lost, in words.
#[derive(Serialize)]
struct Plan {
    repaired: bool,
    #[serde(flatten)]
    log: LogReport,
    cut_at: u64,
    would_keep: Vec<String>,
    would_lose: Vec<String>,
    would_cut: Vec<String>,
    would_replace_or_remove: Vec<String>,
    copies_in: String,
    #[serde(flatten)]
    after: Option<AfterCut>,
}

/// The same, for programs.
#[derive(Serialize)]
struct ExactPlan {
    repaired: bool,
    #[serde(flatten)]
    log: LogReport,
    cut_at: u64,
    would_keep: u64,
    would_lose: u64,
    would_lose_intact: u64,
    /// More entries before those, unless they were purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    perhaps_lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_keep_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_revert_tokens: Option<u64>,
    /// Damaged entries that are lost may hold others.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_lose_tokens: Option<u64>,
    first_lost_seq: u64,
    lost_to_lsn: u64,
    would_cut: Vec<CutRow>,
    would_replace_or_remove: Vec<u64>,
    copies_in: String,
    #[serde(flatten)]
    after: Option<AfterCut>,
}

#[derive(Serialize)]
struct CutRow {
    segment: u64,
    from_bytes: u64,
    to_bytes: u64,
}

impl ExactPlan {
    fn new(
        preview: &RepairPreview,
        tokens: Option<&RecordsAtStake>,
        after: Option<AfterCut>,
    ) -> Self {
        let cut = preview.cut.iter().map(|file| CutRow {
            segment: file.number.0,
            from_bytes: file.from_len,
            to_bytes: file.to_len,
        });
        Self {
            repaired: false,
            log: LogReport::new(&preview.before),
            cut_at: preview.cut_at.0,
            would_keep: preview.kept_entries,
            would_lose: preview.lost_entries,
            would_lose_intact: preview.lost_intact,
            perhaps_lost: Some(preview.perhaps_lost).filter(|entries| *entries > 0),
            would_keep_tokens: tokens.map(|tokens| tokens.kept),
            would_revert_tokens: tokens.map(|tokens| tokens.reverted),
            would_lose_tokens: tokens.map(|tokens| tokens.lost),
            first_lost_seq: preview.first_lost.0,
            lost_to_lsn: preview.lost_to.0,
            would_cut: cut.collect(),
            would_replace_or_remove: preview.removed.iter().map(|number| number.0).collect(),
            copies_in: copies_in(),
            after,
        }
    }
}

impl Plan {
    fn new(
        preview: &RepairPreview,
        tokens: Option<&RecordsAtStake>,
        after: Option<AfterCut>,
    ) -> Self {
        let at = preview.cut_at;
        Self {
            repaired: false,
            log: LogReport::new(&preview.before),
            cut_at: at.0,
            would_keep: kept(preview, tokens),
            would_lose: lost(preview, tokens),
            would_cut: cuts(preview),
            would_replace_or_remove: (preview.removed.iter())
                .map(|number| format!("segment {number}"))
                .collect(),
            copies_in: copies_in(),
            after,
        }
    }
}

fn copies_in() -> String {
    format!("{}/", dir::QUARANTINE)
}

/// Returns a line for everything that a cut would keep.
fn kept(preview: &RepairPreview, tokens: Option<&RecordsAtStake>) -> Vec<String> {
    let (entries, at) = (grouped(preview.kept_entries), preview.cut_at);
    let mut lines = vec![format!("{entries} entries of the log, up to LSN {at}")];
    if let Some(tokens) = tokens {
        let (kept, reverted) = (grouped(tokens.kept), grouped(tokens.reverted));
        lines.push(match tokens.reverted {
            0 => format!("{kept} tokens"),
            _ => format!("{kept} tokens, {reverted} of them as they were before"),
        });
    }
    lines
}

/// Returns a line for everything that a cut would lose.
fn lost(preview: &RepairPreview, tokens: Option<&RecordsAtStake>) -> Vec<String> {
    let (at, to) = (preview.cut_at, preview.lost_to);
    let (lost, intact) = (preview.lost_entries, preview.lost_intact);
    let is_known = preview.removed.is_empty() && preview.before.last_lsn >= to;
    let at_least = if is_known { "" } else { " at least" };
    let mut lines = vec![format!("{} entries{at_least}", grouped(lost))];
    if lost > 0 {
        lines.push(format!("{} of them are intact; the copies hold them", grouped(intact)));
    }
    if preview.perhaps_lost > 0 {
        let before = grouped(preview.perhaps_lost);
        lines.push(format!("{before} more before them, unless they were purged"));
    }
    if let Some(tokens) = tokens {
        let and_more = if lost > intact || !is_known { " at least" } else { "" };
        lines.push(format!("{} tokens{and_more}", grouped(tokens.lost)));
    }
    let bytes = to.distance_from(at);
    if bytes > 0 {
        lines.push(format!("LSN {at} to {to}{at_least}, {}", size(bytes)));
    }
    lines
}

/// Returns a line for every segment file that a cut would shorten. A segment that ends below
/// the cut loses the mark that ended it, and no data.
fn cuts(preview: &RepairPreview) -> Vec<String> {
    let segments = &preview.before.segments;
    let loses_only_its_end_mark = |number| {
        segments.iter().any(|segment| {
            segment.number == number
                && segment.seal == Some(Seal::Rotated)
                && segment.live.is_some_and(|(_, end)| end <= preview.cut_at)
        })
    };
    let line = |file: &CutFile| {
        let (number, from, to) = (file.number, size(file.from_len), size(file.to_len));
        if loses_only_its_end_mark(number) {
            format!("the end mark of segment {number} (no data)")
        } else {
            format!("segment {number} from {from} to {to}")
        }
    };
    preview.cut.iter().map(line).collect()
}
