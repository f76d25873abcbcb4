//! The analysis of a whole log: list, headers, plan, scans in parallel, chain, verdict.
//!
//! Owns the order of reading, and what is asked of the result afterwards. Gathers the facts;
//! `verdict` decides. Changes nothing and takes no lock: its callers do.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bulla_storage::files::dir::{Listing, SegmentFile, segment_name};
use bulla_storage::format::{Control, FormatError, Frame, FrameKind, Header, LowWater, MAX_SECTOR};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::FileKind;
use bulla_storage::{CorruptionKind, Epoch, Lsn, Range, SegmentNumber};

use crate::chain::{self, Chain, Span};
use crate::faults;
use crate::frame_runs::FrameRuns;
use crate::log_dir::{LogDir, Piece, damage, no_longer_valid};
use crate::plan::{self, Plan, PlannedSegment, ReadHeader};
use crate::replay::{self, EntryView, Live, ReplayStats};
use crate::report::Proof;
use crate::scan::{Bodies, LongFrames, Scan, scan};
use crate::verdict::{Case, Decision, DurableEnd, Facts, Headers, Successor, Verdict, decide};
use bulla_storage::frames::reader::{Cursor, End};
use bulla_storage::frames::timeline::Timeline;
use bulla_storage::progress::{Meter, Phase, Stretch};
use bulla_storage::{Error, Result};

/// At most this many segments are scanned at once, each with a read buffer of its own.
const MAX_SCAN_THREADS: usize = 8;
/// A running log writes, or has still to sync, at most this many of its last segments: the
/// spare one, the one that is being filled, and the one before it.
const WRITTEN_SEGMENTS: u64 = 3;

/// What a log's directory holds, and what that means.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// CONTROL; its epoch is raised to the highest that a segment has.
    pub(crate) control: Control,
    /// What is wrong with one of its slots.
    pub(crate) control_damage: Option<FormatError>,
    pub(crate) listing: Listing,
    pub(crate) plan: Plan,
    pub(crate) scans: Vec<Option<Scan>>,
    pub(crate) chain: Chain,
    pub(crate) facts: Facts,
    pub(crate) decision: Decision,
}

impl Analysis {
    /// Reads everything.
    pub(crate) fn read(log: &mut LogDir, control: Control) -> Result<Self> {
        Self::read_from(log, control, &[], Bodies::Checked)
    }

    /// Reads everything above the first of the anchors, or everything when that does not stand. With
    /// bodies unread, those that a durable mark covers are left to the replay: damage to one
    /// is corruption, whatever else the log holds.
    pub(crate) fn read_from(
        log: &mut LogDir,
        control: Control,
        anchors: &[Anchor],
        bodies: Bodies,
    ) -> Result<Self> {
        let listing = log.dir.list()?;
        Self::read_listed(log, (listing, control), anchors, bodies, None)
    }

    /// Does what [`read_from`](Self::read_from) does with what [`read_listing`] returned, and notes
    /// in `sealed` what a next attempt need not scan again.
    ///
    /// [`read_listing`]: crate::log_dir::read_listing
    pub(crate) fn read_listed(
        log: &mut LogDir,
        (listing, mut control): (Listing, Control),
        anchors: &[Anchor],
        bodies: Bodies,
        sealed: Option<&SealedScans>,
    ) -> Result<Self> {
        let plan = read_plan(log, &mut control, &listing, anchors)?;
        let log = &*log;
        let mut scans = scan_all(log, &plan, bodies, sealed, |_| true)?;
        let mut chain = chain::join(&plan, &scans, control.sector);
        if bodies == Bodies::Unread {
            let is_unsure = |index: usize| is_unsure(&plan, &scans, index, chain.durable_end);
            let checked = scan_all(log, &plan, Bodies::Checked, sealed, is_unsure)?;
            for (scan, checked) in scans.iter_mut().zip(checked) {
                *scan = checked.or(scan.take());
            }
            chain = chain::join(&plan, &scans, control.sector);
        }
        let boundary = boundary_at(log, &plan, &scans, &chain, chain.durable_end)?;
        let facts = facts(&plan, &chain, boundary.is_ok());
        let decision = decide(&facts);
        let control_damage = log.control_damage;
        Ok(Self { control, control_damage, listing, plan, scans, chain, facts, decision })
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self.decision.verdict, Verdict::Corrupt(_))
    }

    /// Returns whether the log's creation was cut short before its first segment.
    pub(crate) fn is_new(&self) -> bool {
        self.decision.verdict == Verdict::New
    }

    /// Looks once more for a missing successor: a running log may have made it after the
    /// listing, and it made it before the seal, so it is there now, or it is missing.
    pub(crate) fn list_successor_again(&mut self, log: &LogDir) -> Result<()> {
        let missing = self.chain.successor_fault.as_ref().and_then(|fault| fault.segment);
        let Some(missing) = missing.filter(|_| self.decision.case == Case::SuccessorMissing) else {
            return Ok(());
        };
        let listing = log.dir.list()?;
        let lists = |listing: &Listing| listing.segments.iter().any(|file| file.number == missing);
        if lists(&listing) && !lists(&self.listing) {
            self.facts.successor = Successor::MadeDuringScan;
            self.decision = decide(&self.facts);
        }
        Ok(())
    }

    /// Compares with an earlier scan of a log that may be running. Where this scan has read
    /// everything that was marked durable then, the higher marks were made since.
    pub(crate) fn compare_with_earlier(&mut self, earlier: &Self) {
        let lost_frames = [Case::DurableFramesLost, Case::DurableFramesLostBeforeMark]
            .contains(&self.decision.case);
        if lost_frames && self.chain.valid_end.lsn >= earlier.chain.durable_end {
            self.chain.durable_end = earlier.chain.durable_end;
            self.chain.proof = earlier.chain.proof;
            self.facts.durable_end = DurableEnd::MarkedDuringScan;
            self.decision = decide(&self.facts);
        }
    }

    /// Finds the frame boundary at `lsn`, at most the valid end; otherwise the last boundary
    /// before it.
    pub(crate) fn boundary_at(&self, log: &LogDir, lsn: Lsn) -> Result<Result<Cursor, Cursor>> {
        boundary_at(log, &self.plan, &self.scans, &self.chain, lsn)
    }

    /// Returns all live frames, in order.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let spans = self.chain.spans.iter();
        spans.filter_map(|span| piece(&self.plan, &self.scans, span)).collect()
    }

    /// Passes the live entries in `range` to `visitor`.
    pub(crate) fn replay(
        &self,
        log: &LogDir,
        range: Range,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        let (pieces, timeline) = (self.pieces(), self.timeline());
        let live = Live { log, pieces: &pieces, start: self.start(), timeline: &timeline };
        replay::replay(&live, range, visitor)
    }

    /// Returns where the scan started.
    pub(crate) fn start(&self) -> Cursor {
        self.plan.start
    }

    /// Returns whether the anchor is in this log, and everything up to the position that it
    /// was made for.
    pub(crate) fn holds(&self, log: &LogDir, anchor: &Anchor) -> Result<bool> {
        let reaches = self.chain.valid_end.lsn >= anchor.upto;
        Ok(reaches && index_of(log, &self.plan, anchor)?.is_some())
    }

    /// Returns whether an open may rely on this anchor. `self` read nothing below it: it
    /// must stand, and nothing above may contradict it.
    pub(crate) fn is_sound_above(&self, log: &LogDir, anchor: &Anchor) -> Result<bool> {
        Ok(!self.is_corrupt() && self.start() == anchor.at && self.holds(log, anchor)?)
    }

    /// Returns those of the anchors that stand.
    pub(crate) fn standing(&self, log: &LogDir, anchors: &[Anchor]) -> Result<Vec<Anchor>> {
        let mut standing = Vec::new();
        for anchor in anchors {
            if self.holds(log, anchor)? {
                standing.push(*anchor);
            }
        }
        Ok(standing)
    }

    pub(crate) fn timeline(&self) -> Timeline {
        self.plan.timeline()
    }

    /// Returns the offset in a segment's file from which on its bytes are cut, if the end of
    /// the valid frames decides that: in the newest epoch.
    pub(crate) fn cut_from(&self, index: usize) -> Option<u64> {
        let place = self.chain.place?;
        let segment = self.plan.segments.get(index)?;
        if !segment.newest {
            return None;
        }
        Some(match index.cmp(&place.index) {
            std::cmp::Ordering::Less => self.scans.get(index)?.as_ref()?.stop_offset,
            std::cmp::Ordering::Equal => place.offset,
            std::cmp::Ordering::Greater => u64::from(self.control.sector),
        })
    }

    /// Returns whether the scan has read all of a segment's file from `from` on, from the
    /// disk, and found only zeros.
    pub(crate) fn is_zero_from(&self, index: usize, from: u64) -> bool {
        let probed = self.plan.segments.get(index).is_some_and(|segment| segment.newest);
        let scan = self.scans.get(index).and_then(Option::as_ref).filter(|_| probed);
        // What ends with a seal may have been read from the page cache.
        scan.is_some_and(|scan| {
            matches!(scan.stop, End::Damage(_))
                && from >= scan.stop_offset
                && scan.nonzero_end.is_none()
        })
    }
}

/// Collects what the headers and the frames tell. `at_boundary` says that a frame ends at the
/// durable end.
fn facts(plan: &Plan, chain: &Chain, at_boundary: bool) -> Facts {
    let durable_end = if chain.valid_end.lsn < chain.durable_end {
        match chain.proof {
            Proof::Frame { torn: true, .. } => DurableEnd::BeyondByLaterHeader,
            _ => DurableEnd::Beyond,
        }
    } else if at_boundary {
        DurableEnd::FrameEnd
    } else {
        DurableEnd::InsideFrame
    };
    Facts {
        control: plan.control(),
        headers: plan.headers(),
        epochs: chain.epochs,
        successor: chain.successor,
        durable_end,
        rest: chain.rest,
        last_frame: chain.last_frame,
    }
}

/// Reads the headers and plans the scan.
fn read_plan(
    log: &mut LogDir,
    control: &mut Control,
    listing: &Listing,
    anchors: &[Anchor],
) -> Result<Plan> {
    let anchor = anchors.first();
    let is_locked = log.written_from == SegmentNumber::MAX;
    if !is_locked {
        let next = listing.segments.last().map_or(0, |last| last.number.next().0);
        log.written_from = SegmentNumber(next.saturating_sub(WRITTEN_SEGMENTS));
    }
    let first = control.low_water.segment;
    let live = listing.segments.iter().filter(|file| file.number >= first);
    let live: Vec<SegmentFile> = live.copied().collect();
    let is_below =
        |file: &SegmentFile| anchor.is_some_and(|anchor| file.number < anchor.segment.segment);
    let headers = live.iter().map(|file| match read_header(log, file) {
        // Nothing else is read of it if the anchor stands; if not, the whole log is read.
        Err(Error::Io { .. }) if is_below(file) => {
            Ok(Err((Headers::Damaged, CorruptionKind::SegmentHeader(FormatError::TooShort))))
        }
        header => header,
    });
    let headers = headers.collect::<Result<Vec<_>>>()?;
    if !is_locked && is_closed(log, &live, &headers)? {
        log.written_from = SegmentNumber::MAX;
    }
    let mut plan = plan::plan(control, &live, &headers, anchors);
    if live.is_empty() {
        plan.note_empty(
            listing.segments.is_empty()
                && control.counter == bulla_storage::files::control::CREATED
                && control.epoch == Epoch(1)
                && control.low_water == LowWater::START,
        );
    }
    if let Some(anchor) = anchor
        && let Some(index) = index_of(log, &plan, anchor)?
    {
        plan.start_at(index, anchor);
    }
    Ok(plan)
}

/// Finds the frame boundary at `lsn`, at most the valid end; otherwise the last boundary before
/// it.
fn boundary_at(
    log: &LogDir,
    plan: &Plan,
    scans: &[Option<Scan>],
    chain: &Chain,
    lsn: Lsn,
) -> Result<Result<Cursor, Cursor>> {
    if lsn == chain.valid_end.lsn {
        return Ok(Ok(chain.valid_end));
    }
    let span = chain.spans.iter().find(|span| span.start.lsn <= lsn && lsn < span.end.lsn);
    let Some((span, mut piece)) = span.and_then(|span| Some((span, piece(plan, scans, span)?)))
    else {
        return Ok(Err(plan.start));
    };
    let scan = scans.get(span.index).and_then(Option::as_ref);
    let waypoints = scan.map_or(&[][..], |scan| &scan.waypoints);
    // The scan of one segment knows nothing of the frame before its first one.
    let is_inside = |waypoint: &&Cursor| span.start.lsn < waypoint.lsn && waypoint.lsn <= lsn;
    if let Some(waypoint) = waypoints.iter().rfind(is_inside) {
        piece.start = *waypoint;
    }
    let mut at = piece.start;
    let mut frames = log.frames_of(&piece)?;
    while at.lsn < lsn {
        let offset = frames.offset();
        match frames.skip()? {
            Ok(located) if located.after.lsn > lsn => break,
            Ok(located) => at = located.after,
            Err(end) => return Err(no_longer_valid(&piece, offset, at.lsn, damage(end))),
        }
    }
    Ok(if at.lsn == lsn { Ok(at) } else { Err(at) })
}

fn piece(plan: &Plan, scans: &[Option<Scan>], span: &Span) -> Option<Piece> {
    let segment = plan.segments.get(span.index)?;
    let scan = scans.get(span.index)?.as_ref()?;
    Some(Piece {
        header: segment.header.clone(),
        base: span.base,
        start: span.start,
        end: span.end,
        unsealed: matches!(scan.stop, End::Damage(_)),
    })
}

/// Returns whether the log was closed. Then nobody writes to these segments any more: the next
/// open starts a new one.
fn is_closed(log: &LogDir, files: &[SegmentFile], headers: &[ReadHeader]) -> Result<bool> {
    // Behind the last frames there are spares at most, cut down to their headers.
    let is_longer = |(file, header): &(&SegmentFile, &Header)| file.len > header.sector.into();
    let readable = files.iter().zip(headers).rev().map_while(|(f, h)| Some((f, h.as_ref().ok()?)));
    let Some((file, header)) = readable.clone().find(is_longer) else { return Ok(false) };
    let sector = u64::from(header.sector);
    let mut read_buffer = log.one_sector(file.number)?;
    let last = read_buffer.bytes(file.len.saturating_sub(sector), sector)?;
    let last = Frame::decode(last, header.seed(), header.epoch, header.sector);
    Ok(last.is_ok_and(|(frame, _)| frame.kind == FrameKind::CleanShutdown))
}

/// Reads a segment's header, or says what is wrong with it.
fn read_header(log: &LogDir, file: &SegmentFile) -> Result<ReadHeader> {
    if file.kind != FileKind::Regular {
        return Ok(Err((Headers::NotAFile, CorruptionKind::NotAFile)));
    }
    let mut read_buffer = log.one_sector(file.number)?;
    // As long as the largest sector, so that a foreign one is told from damage.
    match Header::decode(read_buffer.bytes(0, u64::from(MAX_SECTOR))?) {
        Ok(header) => Ok(Ok(header)),
        Err(reason @ (FormatError::Version(_) | FormatError::Features(_))) => {
            let path = log.dir.path_of(&segment_name(file.number));
            Err(Error::Unsupported { path, reason })
        }
        Err(reason) => Ok(Err((Headers::Damaged, CorruptionKind::SegmentHeader(reason)))),
    }
}

/// Returns the index of an anchor's segment, if the anchor is still in it.
fn index_of(log: &LogDir, plan: &Plan, anchor: &Anchor) -> Result<Option<usize>> {
    let Some((index, segment)) = plan.place_of(anchor) else { return Ok(None) };
    let mut read_buffer = match log.one_sector(segment.number) {
        // A running log has purged it since it was listed.
        Err(error) if error.is_not_found() => return Ok(None),
        read_buffer => read_buffer?,
    };
    let is_in = anchor.is_in(&segment.header, &mut read_buffer)?;
    Ok(faults::read::is_in(is_in).then_some(index))
}

/// Returns whether the valid end depends on bodies of a segment's frames: on those of the
/// newest epoch that no durable mark covers.
fn is_unsure(plan: &Plan, scans: &[Option<Scan>], index: usize, durable: Lsn) -> bool {
    let scan = scans.get(index).and_then(Option::as_ref);
    let newest = plan.segments.get(index).is_some_and(|segment| segment.newest);
    let ends_above = scan.and_then(|scan| scan.data_end).is_some_and(|end| end > durable);
    faults::read::is_unsure(newest && ends_above)
}

/// Scans of segments that ended with a seal: nobody writes to those any more. They let an attempt
/// that a purge disturbed be repeated at the cost of what is new.
#[derive(Debug, Default)]
pub(crate) struct SealedScans(Mutex<Vec<(PlannedSegment, Bodies, Scan)>>);

impl SealedScans {
    fn get(&self, segment: &PlannedSegment, bodies: Bodies) -> Option<Scan> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.binary_search_by_key(&segment.number, |(known, ..)| known.number).ok()?;
        let (known, known_bodies, scan) = known.get(index)?;
        (known == segment && *known_bodies == bodies).then(|| scan.clone())
    }

    fn note(&self, segment: &PlannedSegment, bodies: Bodies, scan: &Scan) {
        if scan.stop != End::Rotated {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = (segment.clone(), bodies, scan.clone());
        match known.binary_search_by_key(&segment.number, |(known, ..)| known.number) {
            Ok(index) => known.splice(index..=index, [noted]).for_each(drop),
            Err(index) => known.insert(index, noted),
        }
    }

    /// Forgets them: damage counts only if it is found twice on the disk.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Scans the segments with these indices that no later epoch replaces.
fn scan_all(
    log: &LogDir,
    plan: &Plan,
    bodies: Bodies,
    sealed: Option<&SealedScans>,
    which: impl Fn(usize) -> bool + Sync,
) -> Result<Vec<Option<Scan>>> {
    let segments = &plan.segments;
    let threads = log.threads().min(MAX_SCAN_THREADS).min(segments.len());
    let long_frames = LongFrames::default();
    let is_read = |index: usize, segment: &PlannedSegment| {
        !segment.replaced && index >= plan.first && which(index)
    };
    let read = segments.iter().enumerate().filter(|(index, segment)| is_read(*index, segment));
    let total = read.map(|(_, segment)| segment.file_len).sum();
    let meter = Meter::new(log.options.on_progress.as_ref(), Phase::Scan, total);
    let one = |(index, segment): (usize, &PlannedSegment)| -> Result<Option<Scan>> {
        if !is_read(index, segment) {
            return Ok(None);
        }
        let mut progress = Stretch::new(&meter, 0);
        if let Some(mut scan) = sealed.and_then(|sealed| sealed.get(segment, bodies)) {
            scan.frame_runs.reduce_to_log_with(segments.len());
            progress.end(segment.file_len)?;
            return Ok(Some(scan));
        }
        let PlannedSegment { number, newest, .. } = *segment;
        let mut read = |direct, trusted| {
            let read_buffer = log.segment(number, direct)?;
            let shared = (&long_frames, FrameRuns::of_log_with(segments.len()));
            scan(read_buffer, segment, bodies, trusted, shared, &mut progress)
        };
        let direct = log.options.is_direct() && newest && number >= log.written_from;
        // A page may be stale where a write failed to replace it. Then the sync after it
        // failed, too, and no seal was written: what ends without one is read from the disk.
        let scan = match read(direct, direct || !log.options.is_direct())? {
            None => read(true, true)?,
            scan => scan,
        };
        if let Some((sealed, scan)) = sealed.zip(scan.as_ref()) {
            sealed.note(segment, bodies, scan);
        }
        progress.end(segment.file_len)?;
        Ok(scan)
    };
    if threads <= 1 {
        return segments.iter().enumerate().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // The counter only deals out work; the mutex publishes the results.
                while let Some((index, segment)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    segments.get(index).map(|segment| (index, segment))
                } {
                    let result = one((index, segment));
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // In order, so that of several errors the first segment's is returned.
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, result)| result).collect()
}
