//! A look at a whole log: list, headers, plan, scans in parallel, chain, verdict.
//!
//! Owns the order of reading. Changes nothing, takes no lock: its callers do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bulla_storage::Corruption;
use bulla_storage::CorruptionKind;
use bulla_storage::Epoch;
use bulla_storage::Error as LogError;
use bulla_storage::FrameDamage;
use bulla_storage::Lsn;
use bulla_storage::Options;
use bulla_storage::SegmentNumber;
use bulla_storage::faults::mutants::{Bug, planted};
use bulla_storage::files::dir::{self, Listing, SegmentFile};
use bulla_storage::format::{Control, FormatError, Frame, FrameKind, Header, LowWater, MAX_SECTOR};
use bulla_storage::frames::anchor::Landmark;
use bulla_storage::io::{FileKind, Io};

use crate::chain::{self, Chain, Plan, Segment, Span};
use crate::error::Result;
use crate::replay::{damage, not_there_any_more};
use crate::report::{Evidence, Report, Seal, SegmentReport, SegmentState, Status};
use crate::scan::{Bodies, LongFrames, Scan, scan};
use crate::verdict::{Rest, Verdict, decide};
use bulla_storage::frames::read_buffer::Window;
use bulla_storage::frames::reader::{Cursor, End, Start, Walk};
use bulla_storage::frames::timeline::History;

/// At most so many segments are scanned at once, each with a window of its own.
const MAX_SCAN_THREADS: usize = 8;
/// A running log writes, or has still to sync, at most so many of its last segments: the
/// spare one, the one that is being filled, and the one before it.
const WRITTEN_SEGMENTS: u64 = 3;

/// A log's directory, and how it is read.
#[derive(Debug)]
pub(crate) struct LogDir {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    /// Segments of the newest epoch from here on may be written meanwhile. Of a log with
    /// direct access they are read with it, too: a page that is cached while it is written
    /// would fail the writer's next sync. The others come from the page cache.
    pub(crate) written_from: SegmentNumber,
}

/// Live frames of one segment, with all that is needed to read them again.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) header: Header,
    /// LSN of the segment's first byte after the header.
    pub(crate) base: Lsn,
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
    /// Does the segment end without a seal? Then it may still be written, or have been
    /// when the log failed: the disk knows it, and the page cache perhaps not.
    pub(crate) open: bool,
}

impl Piece {
    /// File offset after the last live frame.
    pub(crate) fn end_offset(&self) -> u64 {
        u64::from(self.header.sector).saturating_add(self.end.lsn.distance_from(self.base))
    }
}

impl LogDir {
    pub(crate) fn new(path: &Path, options: &Options) -> Self {
        let io = Arc::clone(&options.io);
        let written_from = SegmentNumber::ZERO;
        Self { io, path: path.to_owned(), options: options.clone(), written_from }
    }

    /// A log whose lock is held: nobody writes to it.
    pub(crate) fn locked(path: &Path, options: &Options) -> Self {
        Self { written_from: SegmentNumber::MAX, ..Self::new(path, options) }
    }

    /// A window on a segment's file.
    pub(crate) fn segment(&self, number: SegmentNumber, direct: bool) -> Result<Window> {
        let path = dir::segment_path(&self.path, number);
        Ok(Window::open(self.io.as_ref(), &path, direct)?)
    }

    /// A walk over the live frames of one segment.
    pub(crate) fn walk(&self, piece: &Piece) -> Result<Walk> {
        let start = Start::At { base: piece.base, cursor: piece.start };
        let direct = piece.open && self.options.is_direct();
        let window = self.segment(piece.header.number, direct)?;
        Ok(Walk::new(window, &piece.header, start, piece.end.lsn))
    }

    /// How many threads may read at once: one in a simulation, for determinism.
    pub(crate) fn threads(&self) -> usize {
        if self.io.name() == "sim" {
            return 1;
        }
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// What a log's directory holds, and what that means.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// CONTROL; its epoch is raised to the highest that a segment has.
    pub(crate) control: Control,
    pub(crate) listing: Listing,
    pub(crate) plan: Plan,
    pub(crate) scans: Vec<Option<Scan>>,
    pub(crate) chain: Chain,
    pub(crate) status: Status,
    /// The creation of the log was cut short before its first segment.
    pub(crate) unfinished: bool,
}

impl Analysis {
    /// Looks at everything.
    pub(crate) fn read(log: &mut LogDir, control: Control) -> Result<Self> {
        Self::read_from(log, control, None, Bodies::Checked)
    }

    /// Looks at everything from a landmark on; at everything when it does not stand. With
    /// bodies unread, those that a promise covers are not looked at: what is wrong with one
    /// is corruption, whatever else the log holds, and so it may be found later.
    pub(crate) fn read_from(
        log: &mut LogDir,
        mut control: Control,
        landmark: Option<&Landmark>,
        bodies: Bodies,
    ) -> Result<Self> {
        let listing = dir::list(log.io.as_ref(), &log.path)?;
        if log.written_from < SegmentNumber::MAX {
            let next = listing.segments.last().map_or(0, |last| last.number.next().0);
            log.written_from = SegmentNumber(next.saturating_sub(WRITTEN_SEGMENTS));
        }
        let low_water = control.low_water;
        let live: Vec<SegmentFile> = listing
            .segments
            .iter()
            .filter(|file| file.number >= low_water.segment)
            .copied()
            .collect();
        let headers = live.iter().map(|file| read_header(log, file)).collect::<Result<Vec<_>>>()?;
        if log.written_from < SegmentNumber::MAX && is_closed(log, &live, &headers)? {
            log.written_from = SegmentNumber::MAX;
        }
        let log = &*log;
        // A damaged newest slot leaves CONTROL behind its segments. That is a fault, but
        // no reason to call what they hold unreadable.
        let behind = epoch_ahead(&control, &live, &headers);
        if let Some((epoch, nonce, _)) = &behind {
            (control.epoch, control.nonce) = (*epoch, *nonce);
        }
        let mut plan = chain::plan(&control, &live, headers);
        if let Some((_, _, fault)) = behind {
            plan.fault.get_or_insert(fault);
        }
        let unfinished = listing.segments.is_empty()
            && control.counter == bulla_storage::files::control::CREATED
            && control.epoch == Epoch(1)
            && low_water == LowWater::START;
        if live.is_empty() && !unfinished {
            plan.fault.get_or_insert(whole_segment(low_water, CorruptionKind::SegmentMissing));
        }
        if let Some(landmark) = landmark
            && let Some(index) = stands(log, &plan, landmark)?
        {
            plan.start_at(index, landmark);
        }
        let mut scans = scan_all(log, &plan, bodies, |_| true)?;
        let mut chain = chain::join(&plan, &scans, control.sector);
        if bodies == Bodies::Unread && !planted(Bug::UnpromisedBodiesUnread) {
            let is_unsure = |index: usize| is_unsure(&plan, &scans, index, chain.durable);
            let checked = scan_all(log, &plan, Bodies::Checked, is_unsure)?;
            for (scan, checked) in scans.iter_mut().zip(checked) {
                *scan = checked.or(scan.take());
            }
            chain = chain::join(&plan, &scans, control.sector);
        }
        let mut analysis =
            Self { control, listing, plan, scans, chain, status: Status::Clean, unfinished };
        analysis.status = analysis.judge(log)?;
        Ok(analysis)
    }

    fn judge(&self, log: &LogDir) -> Result<Status> {
        let chain = &self.chain;
        if let Some(fault) = &chain.fault {
            return Ok(Status::Corrupt(fault.clone()));
        }
        match decide(chain.end.lsn, chain.durable, chain.rest) {
            Verdict::Corrupt => Ok(Status::Corrupt(chain::frame_fault(&self.plan, chain))),
            verdict => {
                // Whatever was promised ended with a frame.
                if self.cursor_at(log, chain.durable)?.is_err() {
                    let mut fault = chain::frame_fault(&self.plan, chain);
                    fault.lsn = Some(chain.durable);
                    fault.kind = CorruptionKind::Frame(FrameDamage::Boundary);
                    return Ok(Status::Corrupt(fault));
                }
                Ok(if verdict == Verdict::Clean { Status::Clean } else { Status::TornTail })
            }
        }
    }

    /// A successor that a seal speaks of, and that was not listed, may have been made
    /// since. It was made before the seal, so it is there now, or it is missing.
    pub(crate) fn look_again_for_successor(&mut self, log: &LogDir) -> Result<()> {
        let behind_a_seal = |fault: &Corruption| {
            fault.kind == CorruptionKind::SegmentMissing
                && fault.lsn == Some(self.chain.end.lsn)
                && self.plan.segments.last().map(|last| last.number.next()) == fault.segment
        };
        let Some(fault) = self.chain.fault.clone().filter(behind_a_seal) else { return Ok(()) };
        let listing = dir::list(log.io.as_ref(), &log.path)?;
        let appeared = |file: &SegmentFile| Some(file.number) == fault.segment;
        if listing.segments.iter().any(appeared) && !self.listing.segments.iter().any(appeared) {
            self.chain.fault = None;
            self.status = self.judge(log)?;
        }
        Ok(())
    }

    /// Counts only promises that an earlier look found, when this one has read past them:
    /// the others were made while it was reading.
    pub(crate) fn disregard_later_promises(&mut self, before: &Self) {
        let chain = &mut self.chain;
        if chain.fault.is_some() || chain.end.lsn >= chain.durable {
            return;
        }
        if chain.end.lsn >= before.chain.durable {
            (chain.durable, chain.proof) = (before.chain.durable, before.chain.proof);
            self.status = match chain.rest {
                Rest::Zeros => Status::Clean,
                Rest::Something => Status::TornTail,
            };
        }
    }

    /// What a frame at `lsn`, at most X, continues; the last boundary before it when none
    /// starts there.
    pub(crate) fn cursor_at(&self, log: &LogDir, lsn: Lsn) -> Result<Result<Cursor, Cursor>> {
        let chain = &self.chain;
        if lsn == chain.end.lsn {
            return Ok(Ok(chain.end));
        }
        let span = chain.spans.iter().find(|span| span.start.lsn <= lsn && lsn < span.end.lsn);
        let Some((span, mut piece)) = span.and_then(|span| Some((span, self.piece(span)?))) else {
            return Ok(Err(self.start()));
        };
        let scan = self.scans.get(span.index).and_then(Option::as_ref);
        let marks = scan.map_or(&[][..], |scan| &scan.marks);
        if let Some(mark) = marks.iter().rfind(|mark| mark.lsn <= lsn) {
            // A walk that began in the middle of the log knows no earlier times.
            piece.start = Cursor { wall_ns: mark.wall_ns.max(span.start.wall_ns), ..*mark };
        }
        let mut at = piece.start;
        let mut walk = log.walk(&piece)?;
        while at.lsn < lsn {
            let offset = walk.offset();
            match walk.skip()? {
                Ok(located) if located.after.lsn > lsn => break,
                Ok(located) => at = located.after,
                Err(end) => return Err(not_there_any_more(&piece, offset, at.lsn, damage(end))),
            }
        }
        Ok(if at.lsn == lsn { Ok(at) } else { Err(at) })
    }

    fn piece(&self, span: &Span) -> Option<Piece> {
        let segment = self.plan.segments.get(span.index)?;
        let scan = self.scans.get(span.index)?.as_ref()?;
        Some(Piece {
            header: segment.header.clone(),
            base: span.base,
            start: span.start,
            end: span.end,
            open: matches!(scan.stop, End::Damage(_)),
        })
    }

    /// All live frames, in order.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        self.chain.spans.iter().filter_map(|span| self.piece(span)).collect()
    }

    /// Where the frames that were looked at start.
    pub(crate) fn start(&self) -> Cursor {
        self.plan.start
    }

    /// Is the landmark in this log, and everything up to what it was made for?
    pub(crate) fn holds(&self, log: &LogDir, landmark: &Landmark) -> Result<bool> {
        Ok(self.chain.end.lsn >= landmark.upto && stands(log, &self.plan, landmark)?.is_some())
    }

    /// Would an open go by this landmark? `self` looked at nothing below it: then it stands,
    /// and nothing above it contradicts it.
    pub(crate) fn is_sound_above(&self, log: &LogDir, landmark: &Landmark) -> Result<bool> {
        let is_sound = !matches!(self.status, Status::Corrupt(_)) && self.start() == landmark.at;
        Ok(is_sound && self.holds(log, landmark)?)
    }

    /// Those of the landmarks that stand.
    pub(crate) fn sift(&self, log: &LogDir, landmarks: &[Landmark]) -> Result<Vec<Landmark>> {
        let mut standing = Vec::new();
        for landmark in landmarks {
            if self.holds(log, landmark)? {
                standing.push(*landmark);
            }
        }
        Ok(standing)
    }

    pub(crate) fn history(&self) -> History {
        History::new(self.plan.low_water, self.plan.segments.iter().map(|segment| &segment.header))
    }

    /// Offset in a segment's file from which on its bytes are cut, when this look finds
    /// that: behind X in the newest epoch.
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

    /// Has this look read all of a segment's file from `from` on, on the disk, and found
    /// nothing there?
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

    /// The bytes behind X: segment index, offset, length.
    fn tail(&self) -> Vec<(usize, u64, u64)> {
        let Some(place) = self.chain.place else { return Vec::new() };
        let scans = self.scans.iter().enumerate().skip(place.index);
        scans
            .filter_map(|(index, scan)| {
                let scan = scan.as_ref()?;
                let from = self.cut_from(index)?;
                let end = scan.nonzero_end.unwrap_or(0).max(scan.stop_offset);
                (end > from).then(|| (index, from, end - from))
            })
            .collect()
    }

    /// The report of this look.
    pub(crate) fn report(&self) -> Report {
        let chain = &self.chain;
        let connected = chain.spans.iter().filter_map(|span| self.scans.get(span.index)?.as_ref());
        let tail = self.tail();
        Report {
            status: self.status.clone(),
            log_id: self.control.log_id,
            sector: self.control.sector,
            epoch: self.control.epoch,
            first_lsn: self.plan.low_water.lsn,
            looked_from: self.plan.start.lsn,
            last_lsn: chain.end.lsn,
            durable_lsn: chain.durable,
            first_seq: self.plan.low_water.seq,
            next_seq: chain.end.seq,
            last_entry: connected.clone().filter_map(|scan| scan.last_entry).next_back(),
            entries: connected.map(|scan| scan.entries).sum(),
            wall_ns: chain.end.wall_ns,
            segments: self.segment_reports(),
            evidence: self.evidence(&tail),
            bytes_cut: tail.iter().map(|(_, _, len)| len).sum(),
            rehomed: None,
            quarantine: None,
            history: self.history(),
        }
    }

    fn evidence(&self, tail: &[(usize, u64, u64)]) -> Vec<Evidence> {
        let chain = &self.chain;
        let mut evidence = Vec::new();
        if self.unfinished {
            evidence.push(Evidence::CreationUnfinished);
            return evidence;
        }
        evidence.push(Evidence::Promise { durable: chain.durable, proof: chain.proof });
        if let Status::Corrupt(corruption) = &self.status {
            evidence.push(Evidence::Fault(corruption.clone()));
        }
        for (place, damage) in &chain.ignored {
            if let Some(segment) = self.plan.segments.get(place.index) {
                let (segment, offset) = (segment.number, place.offset);
                evidence.push(Evidence::Ignored { segment, offset, damage: *damage });
            }
        }
        let Some(place) = chain.place else { return evidence };
        if chain.closed {
            evidence.push(Evidence::Closed { at: chain.end.lsn });
        }
        let below = chain.end.lsn < chain.durable;
        if chain.rest == Rest::Zeros && !below {
            evidence.push(Evidence::OnlyZeros { after: chain.end.lsn });
        } else if let Some(segment) = self.plan.segments.get(place.index) {
            evidence.push(Evidence::Damaged {
                segment: segment.number,
                offset: place.offset,
                lsn: chain.end.lsn,
                damage: chain.damage,
            });
        }
        for (index, offset, bytes) in tail.iter().filter(|_| !below) {
            if let Some(segment) = self.plan.segments.get(*index) {
                let (segment, offset, bytes) = (segment.number, *offset, *bytes);
                evidence.push(Evidence::Tail { segment, offset, bytes });
            }
        }
        evidence
    }

    fn segment_reports(&self) -> Vec<SegmentReport> {
        let first = self.plan.low_water.segment;
        let (dead, live): (Vec<&SegmentFile>, Vec<&SegmentFile>) =
            self.listing.segments.iter().partition(|file| file.number < first);
        let unknown = |file: &SegmentFile, state| SegmentReport {
            number: file.number,
            epoch: None,
            base: None,
            live: None,
            frames: 0,
            entries: 0,
            seal: None,
            file_len: file.len,
            state,
        };
        let mut reports: Vec<SegmentReport> =
            dead.into_iter().map(|file| unknown(file, SegmentState::Dead)).collect();
        for (index, file) in live.into_iter().enumerate() {
            reports.push(match self.plan.segments.get(index) {
                Some(segment) => self.segment_report(index, segment),
                None => unknown(file, SegmentState::Unread),
            });
        }
        reports
    }

    fn segment_report(&self, index: usize, segment: &Segment) -> SegmentReport {
        let scan = self.scans.get(index).and_then(Option::as_ref);
        let span = self.chain.spans.iter().find(|span| span.index == index);
        let active = self.chain.place.is_some_and(|place| place.index == index);
        let state = match span {
            _ if index < self.plan.first => SegmentState::Covered,
            Some(span) if span.start.lsn < span.end.lsn => SegmentState::Live,
            _ if segment.newest && active => SegmentState::Live,
            _ if segment.newest => SegmentState::Spare,
            _ => SegmentState::Superseded,
        };
        SegmentReport {
            number: segment.number,
            epoch: Some(segment.header.epoch),
            base: span
                .map(|span| span.base)
                .or_else(|| segment.header.opening.as_ref().map(|opening| opening.base)),
            live: span.map(|span| (span.start.lsn, span.end.lsn)),
            frames: scan.map_or(0, |scan| scan.frames),
            entries: scan.map_or(0, |scan| scan.entries),
            seal: scan.filter(|_| span.is_some()).and_then(|scan| match scan.stop {
                End::Rotated => Some(Seal::Rotated),
                End::Closed => Some(Seal::Closed),
                End::Damage(_) | End::Ceiling => None,
            }),
            file_len: segment.file_len,
            state,
        }
    }
}

fn whole_segment(low_water: LowWater, kind: CorruptionKind) -> Corruption {
    Corruption {
        segment: Some(low_water.segment),
        offset: None,
        lsn: Some(low_water.lsn),
        durable: Some(low_water.lsn),
        kind,
    }
}

/// The first segment of the highest epoch above CONTROL's, with its epoch and nonce.
fn epoch_ahead(
    control: &Control,
    files: &[SegmentFile],
    headers: &[Result<Header, CorruptionKind>],
) -> Option<(Epoch, u64, Corruption)> {
    let ours = files.iter().zip(headers).filter_map(|(file, header)| {
        let header = header.as_ref().ok()?;
        let ours = header.log_id == control.log_id
            && header.number == file.number
            && header.epoch > control.epoch;
        ours.then_some(header)
    });
    let highest = ours.clone().map(|header| header.epoch).max()?;
    let header = ours.into_iter().find(|header| header.epoch == highest)?;
    let fault = Corruption {
        segment: Some(header.number),
        offset: Some(0),
        lsn: None,
        durable: None,
        kind: CorruptionKind::Epoch,
    };
    Some((highest, header.nonce, fault))
}

/// A window for one sector of a segment, as the disk has it.
fn short_window(log: &LogDir, number: SegmentNumber) -> Result<Window> {
    Ok(log.segment(number, log.options.is_direct())?.with_chunk(u64::from(MAX_SECTOR)))
}

/// Was the log closed? Then nobody writes to these segments any more: whoever opens it goes
/// on in a new one.
fn is_closed(
    log: &LogDir,
    files: &[SegmentFile],
    headers: &[Result<Header, CorruptionKind>],
) -> Result<bool> {
    // Behind the last frames there are spares at most, cut down to their headers.
    let is_longer = |(file, header): &(&SegmentFile, &Header)| file.len > header.sector.into();
    let readable = files.iter().zip(headers).rev().map_while(|(f, h)| Some((f, h.as_ref().ok()?)));
    let Some((file, header)) = readable.clone().find(is_longer) else { return Ok(false) };
    let sector = u64::from(header.sector);
    let mut window = short_window(log, file.number)?;
    let last = window.bytes(file.len.saturating_sub(sector), sector)?;
    let last = Frame::decode(last, header.seed(), header.epoch, header.sector);
    Ok(last.is_ok_and(|(frame, _)| frame.kind == FrameKind::SealClosed))
}

/// A segment's header, or what is wrong with it.
fn read_header(log: &LogDir, file: &SegmentFile) -> Result<Result<Header, CorruptionKind>> {
    if file.kind != FileKind::Regular {
        return Ok(Err(CorruptionKind::NotAFile));
    }
    let mut window = short_window(log, file.number)?;
    // As long as the largest sector, so that a foreign one is told from damage.
    match Header::decode(window.bytes(0, u64::from(MAX_SECTOR))?) {
        Ok(header) => Ok(Ok(header)),
        Err(reason @ (FormatError::Version(_) | FormatError::Features(_))) => {
            let path = dir::segment_path(&log.path, file.number);
            Err(LogError::Unsupported { path, reason }.into())
        }
        Err(reason) => Ok(Err(CorruptionKind::SegmentHeader(reason))),
    }
}

/// The index of a landmark's segment, if it is still what it was.
fn stands(log: &LogDir, plan: &Plan, landmark: &Landmark) -> Result<Option<usize>> {
    let Some((index, segment)) = plan.place_of(landmark) else { return Ok(None) };
    // It may lie in the segment that was written last: the disk knows it.
    let mut window = match short_window(log, segment.number) {
        // A running log has purged it since it was listed.
        Err(error) if error.is_not_found() => return Ok(None),
        window => window?,
    };
    Ok(landmark.is_in(&segment.header, &mut window)?.then_some(index))
}

/// Do frames of a segment count by their bodies, too? Those that no promise covers, of the
/// newest epoch: where the log ends depends on them.
fn is_unsure(plan: &Plan, scans: &[Option<Scan>], index: usize, durable: Lsn) -> bool {
    let scan = scans.get(index).and_then(Option::as_ref);
    let newest = plan.segments.get(index).is_some_and(|segment| segment.newest);
    newest && scan.and_then(|scan| scan.data_end).is_some_and(|end| end > durable)
}

/// Scans the segments of these indices that are not superseded.
fn scan_all(
    log: &LogDir,
    plan: &Plan,
    bodies: Bodies,
    which: impl Fn(usize) -> bool + Sync,
) -> Result<Vec<Option<Scan>>> {
    let segments = &plan.segments;
    let threads = log.threads().min(MAX_SCAN_THREADS).min(segments.len());
    let long_frames = LongFrames::default();
    let one = |(index, segment): (usize, &Segment)| -> Result<Option<Scan>> {
        if segment.superseded || index < plan.first || !which(index) {
            return Ok(None);
        }
        let Segment { number, newest, .. } = *segment;
        let read = |direct, trusted| {
            let window = log.segment(number, direct)?;
            Ok(scan(window, segment, bodies, trusted, &long_frames)?)
        };
        let direct = log.options.is_direct() && newest && number >= log.written_from;
        // A page may be stale where a write failed to replace it. Then the sync after it
        // failed, too, and no seal was written: what ends without one is for the disk to tell.
        match read(direct, direct || !log.options.is_direct())? {
            None => read(true, true),
            scan => Ok(scan),
        }
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
    // In order, so that of several errors the first segment's is given.
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, result)| result).collect()
}
