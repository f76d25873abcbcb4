//! Repair: cuts a log where an operator says, when recovery refuses it. Always keeps a copy.
//!
//! Owns the copies of whole files and the cut. Everything behind the cut stays in
//! `quarantine/`, byte for byte; everything before it is recovered as usual. A segment that
//! does not fit into the log (a damaged header, a gap) ends it: the segment that opens the new
//! epoch takes the number of the first that does not fit, and the rename that is the commit
//! point replaces that one. Those after it are removed, the highest first. A crash in between
//! leaves a log that is refused again, and can be repaired again. `undo` brings all of it back.
//! Tested by `recovery/tests/files/repairs.rs`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_storage::files::dir::{SegmentFile, segment_name};
use bulla_storage::files::recovered::begin;
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::{CorruptionKind, Epoch, Lsn, Options, Range, SegmentNumber, Seq};

use crate::analysis::Analysis;
use crate::behind::behind;
use crate::error::{CutRefused, RepairError};
use crate::inspect::{Inspection, undisturbed};
use crate::log_dir::{LogDir, open_dir};
use crate::open::LockedLog;
use crate::replay::EntryView;
use crate::report::{Report, Status};
use crate::scan::Bodies;
use crate::tail_rewrite::{Tail, clip, commit};
use crate::trim::{keep_len, trim};
use crate::undo;
use bulla_storage::Result;

/// What to repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairPlan {
    /// Everything from here on is cut off. A frame boundary, at most
    /// [`Report::last_lsn`], at least [`Report::first_lsn`].
    pub cut_at: Lsn,
}

impl RepairPlan {
    /// Plans to keep everything that can be read in order.
    #[must_use]
    pub fn keep_readable(report: &Report) -> Self {
        Self { cut_at: report.last_lsn }
    }
}

/// What a repair did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was found before.
    pub before: Report,
    /// Where the log was cut.
    pub cut_at: Lsn,
    /// The epoch that begins there.
    pub epoch: Epoch,
    /// Copies of the files that were changed or removed, made before.
    pub copies: Vec<PathBuf>,
    /// Segments that did not fit into the log: replaced or removed.
    pub removed: Vec<SegmentNumber>,
}

/// What a repair would do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepairPreview {
    /// What was found.
    pub before: Report,
    /// Where the log would be cut.
    pub cut_at: Lsn,
    /// Entries before the cut, which stay.
    pub kept_entries: u64,
    /// Entries behind the cut, which would be lost to the log: at least this many, as the numbers in
    /// intact headers tell.
    pub lost_entries: u64,
    /// Those of them that are intact, also where damage before them keeps them from being read
    /// in order. The repair's copies hold them.
    pub lost_intact: u64,
    /// Entries before those, and behind the cut, of which nothing is left: they were purged, or they
    /// are lost, too. CONTROL is damaged, and can't tell.
    pub perhaps_lost: u64,
    /// Number of the first entry that is lost. The next entry gets the same number.
    pub first_lost: Seq,
    /// The end of the positions that are lost, as far as it is known.
    pub lost_to: Lsn,
    /// Segment files that would be copied and cut.
    pub cut: Vec<CutFile>,
    /// Segments that don't fit into the log: copied, then replaced or removed.
    pub removed: Vec<SegmentNumber>,
    /// Frames from here to the cut are rewritten.
    renewed_from: Lsn,
}

impl RepairPreview {
    /// Returns whether an anchor that stands now would stand after the repair.
    #[must_use]
    pub fn keeps(&self, anchor: &Anchor) -> bool {
        anchor.upto <= self.cut_at && anchor.at.lsn <= self.renewed_from
    }

    /// Passes the entries that would be lost and are intact to `visitor`, in the order of their
    /// segments, until that stops. `inspection` is of the same directory as it is now.
    ///
    /// # Errors
    /// [`Io`](bulla_storage::Error::Io).
    pub fn each_lost(
        &self,
        inspection: &Inspection,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        inspection.each_behind(self.cut_at, visitor)
    }
}

/// A segment file that a repair cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CutFile {
    /// The segment.
    pub number: SegmentNumber,
    /// Its length in bytes before.
    pub from_len: u64,
    /// And after.
    pub to_len: u64,
}

/// Returns what [`repair`] would do. Takes no lock, changes nothing.
///
/// # Errors
/// Those of [`repair`].
pub fn preview_repair(
    path: &Path,
    options: &Options,
    plan: RepairPlan,
) -> Result<RepairPreview, RepairError> {
    let (log, analysis) = undisturbed(&open_dir(path, options)?, options, Bodies::Checked)?;
    let tail = checked_tail(&log, &analysis, plan.cut_at)?;
    let before = analysis.report();
    let each = |_: &EntryView<'_>| ControlFlow::Continue(());
    let kept = analysis.replay(&log, Range::from(..plan.cut_at), each)?;
    let behind = behind(&log, &analysis, tail.end, |_| ControlFlow::Continue(()))?;
    // Where the first segment is missing and CONTROL may be older than the last purge, what was before
    // the first that is left was perhaps purged, and is not there to be lost.
    let first_lost = match (&before.status, behind.first_seq) {
        (Status::Corrupt(fault), Some(first))
            if analysis.plan.segments.is_empty() && is_of_control(fault.kind) =>
        {
            first.max(tail.end.seq)
        }
        _ => tail.end.seq,
    };
    Ok(RepairPreview {
        cut_at: plan.cut_at,
        kept_entries: kept.entries,
        lost_entries: behind.end_seq.max(before.next_seq).0.saturating_sub(first_lost.0),
        lost_intact: behind.intact_entries,
        perhaps_lost: first_lost.0 - tail.end.seq.0,
        first_lost: tail.end.seq,
        lost_to: before.last_lsn.max(before.durable_lsn).max(behind.end_lsn),
        cut: if analysis.is_new() { Vec::new() } else { cut_files(&analysis, tail) },
        removed: unread(&analysis).iter().map(|file| file.number).collect(),
        renewed_from: tail.start.lsn,
        before,
    })
}

/// Cuts a log at a position that the caller chose, and begins a new epoch there.
///
/// On return the cut is durable and the next open is clean. Entries at or above
/// `cut_at` are lost to the log, durable ones too; copies of the files that held them
/// are in `quarantine/`.
///
/// # Errors
/// [`Cut`](RepairError::Cut) when the log can't be cut there: nothing was changed. Those of
/// [`Recovery::run`](crate::Recovery::run), but for corruption of segments.
pub fn repair(
    path: &Path,
    options: &Options,
    plan: RepairPlan,
) -> Result<RepairReport, RepairError> {
    let LockedLog { log, lock, control, analysis, .. } = LockedLog::read(path, options)?;
    let tail = checked_tail(&log, &analysis, plan.cut_at)?;
    let before = analysis.report();
    if analysis.is_new() {
        let recovered = begin(log.dir.clone(), log.options.clone(), lock, control)?;
        let epoch = recovered.header.epoch;
        let (copies, removed) = (Vec::new(), Vec::new());
        return Ok(RepairReport { before, cut_at: plan.cut_at, epoch, copies, removed });
    }
    let unread = unread(&analysis);
    let cut = cut_files(&analysis, tail).into_iter().map(|file| (file.number, file.to_len));
    let copies = undo::set_aside(&log, &analysis, tail, &cut.collect::<Vec<_>>(), &unread)?;
    let committed = commit(&log, lock, control, &analysis, tail)?;
    let epoch_start = committed.recovered.header.number;
    for file in unread.iter().rev().filter(|file| file.number != epoch_start) {
        log.dir.remove(&segment_name(file.number))?;
    }
    // One that came back after a power loss would make the log be refused again.
    if !unread.is_empty() {
        log.dir.sync()?;
    }
    // What else there is, the next open removes: it is not the repair's.
    trim(&log, &analysis, &committed.pieces)?;
    Ok(RepairReport {
        before,
        cut_at: plan.cut_at,
        epoch: committed.recovered.header.epoch,
        copies,
        removed: unread.iter().map(|file| file.number).collect(),
    })
}

/// Returns whether CONTROL may be older than the last purge.
fn is_of_control(kind: CorruptionKind) -> bool {
    matches!(kind, CorruptionKind::ControlSlot(_) | CorruptionKind::ControlOrSegment(_))
}

/// Returns the tail that is rewritten when the log is cut at a position, if it can be.
fn checked_tail(log: &LogDir, analysis: &Analysis, cut_at: Lsn) -> Result<Tail, RepairError> {
    let refuse = |reason| Err(RepairError::Cut { cut_at, reason });
    let (start, end) = (analysis.start(), analysis.chain.valid_end);
    if cut_at < start.lsn {
        return refuse(CutRefused::BelowStart(start.lsn));
    }
    if cut_at > end.lsn {
        return refuse(CutRefused::PastEnd(end.lsn));
    }
    let end = match analysis.boundary_at(log, cut_at)? {
        Ok(end) => end,
        Err(before) => return refuse(CutRefused::InsideFrame(before.lsn)),
    };
    // Frames that no durable mark covers may only be in the page cache: they are rewritten, as
    // in a recovery. Where the mark is inside a frame, the boundary before it does as well.
    let durable = analysis.chain.durable_end.min(cut_at);
    let (Ok(start) | Err(start)) = analysis.boundary_at(log, durable)?;
    Ok(Tail { start, end })
}

/// Returns the files of segments that do not fit into the log, in order.
fn unread(analysis: &Analysis) -> Vec<SegmentFile> {
    let first = analysis.plan.low_water.segment;
    let live = analysis.listing.segments.iter().filter(|file| file.number >= first);
    live.skip(analysis.plan.segments.len()).copied().collect()
}

/// Returns the segments that fit into the log and hold something behind the cut.
fn cut_files(analysis: &Analysis, tail: Tail) -> Vec<CutFile> {
    let pieces = clip(&analysis.pieces(), analysis.start(), tail.start);
    let segments = analysis.plan.segments.iter().map(|segment| CutFile {
        number: segment.number,
        from_len: segment.file_len,
        to_len: keep_len(&pieces, segment.number, analysis.control.sector),
    });
    segments.filter(|file| file.from_len > file.to_len).collect()
}
