//! Recovery for writing: from the lock to the commit point, and the trim after it.
//!
//! Owns the order of every write that a recovery makes. Before the verdict it writes
//! nothing but what CONTROL already says. The rename of the segment that opens the new
//! epoch is the only commit point: before it the log is the old one, after it bytes of
//! lower epochs from D on are ignored. All that follows can be done again.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_storage::Epoch;
use bulla_storage::Error as LogError;
use bulla_storage::Lsn;
use bulla_storage::Options;
use bulla_storage::Recovered;
use bulla_storage::SegmentNumber;
use bulla_storage::faults::failpoints::{Point, skip};
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir;
use bulla_storage::files::recovered::{LiveSegment, begin, check_device, create, random_nonce};
use bulla_storage::files::segment::{self, NewSegment};
use bulla_storage::format::{Control, Frame, FrameKind, Header, LowWater, Opening, Seed};
use bulla_storage::frames::anchor::Landmark;
use bulla_storage::io::{Access, AlignedBuf, File, FileKind, Lock, write_full};

use crate::analysis::{Analysis, LogDir, Piece};
use crate::chain::{Plan, Segment};
use crate::error::{Error, Result};
use crate::inspect::read_control;
use crate::quarantine::Quarantine;
use crate::replay::{self, EntryView, Range, ReplayStats};
use crate::report::{Report, Status};
use crate::scan::Bodies;
use bulla_storage::frames::read_buffer::to_usize;
use bulla_storage::frames::reader::{Cursor, Found};

/// Re-homed frames are written so many bytes at once.
const CHUNK_LEN: u64 = 1024 * 1024;

/// A log that was recovered and is locked; what it shows is durable.
#[derive(Debug)]
pub struct Recovery {
    log: LogDir,
    recovered: Recovered,
    report: Report,
    pieces: Vec<Piece>,
    start: Cursor,
    landmark: Option<Landmark>,
    standing: Vec<Landmark>,
}

impl Recovery {
    /// Recovers the log in `dir` for writing, and begins a new epoch in it.
    ///
    /// On return everything up to [`Report::last_lsn`] is durable, what was cut is in
    /// quarantine, and the lock is held. It can crash anywhere and be run again.
    ///
    /// # Errors
    /// [`Corrupt`](LogError::Corrupt): then nothing was changed; look at it with
    /// [`Inspection`](crate::Inspection), restore a copy, or [`repair`](crate::repair).
    /// [`NotALog`](LogError::NotALog), [`Locked`](LogError::Locked),
    /// [`Unsupported`](LogError::Unsupported), [`SectorTooSmall`](LogError::SectorTooSmall),
    /// [`Options`](LogError::Options), [`Io`](LogError::Io) (free space or mend the device,
    /// and try again).
    pub fn run(dir: &Path, options: &Options) -> Result<Self> {
        Self::run_above(dir, options, || Ok(Vec::new()))
    }

    /// As [`run`](Self::run), but looks at no frame below the first landmark that still
    /// stands: then entries below it can't be replayed, and the report counts none.
    /// `landmarks` is asked once the lock is held.
    ///
    /// # Errors
    /// As [`run`](Self::run), and those of `landmarks`.
    #[doc(hidden)]
    pub fn run_above(
        dir: &Path,
        options: &Options,
        landmarks: impl FnOnce() -> Result<Vec<Landmark>>,
    ) -> Result<Self> {
        let entered = Entered::enter_above(dir, options, landmarks)?;
        let Entered { log, lock, control, analysis, landmark, standing } = entered;
        if let Status::Corrupt(corruption) = &analysis.status {
            return Err(corruption.clone().into());
        }
        let mut report = analysis.report();
        if analysis.unfinished {
            let recovered = begin(&log.path, log.options.clone(), lock, control)?;
            let start = analysis.start();
            let pieces = Vec::new();
            return Ok(Self { log, recovered, report, pieces, start, landmark, standing });
        }
        let durable = cursor_at(&analysis, &log, analysis.chain.durable)?;
        let cut = Cut { durable, end: analysis.chain.end };
        if planted(Bug::TrimBeforeCommit) {
            trim(&log, &analysis, &clip(&analysis.pieces(), analysis.start(), cut.durable))?;
        }
        let Committed { recovered, pieces } = commit(&log, lock, control, &analysis, cut)?;
        remove_dead(&log, &analysis)?;
        if planted(Bug::TrimBeforeQuarantine) {
            trim(&log, &analysis, &pieces)?;
        }
        let copies = match keep_cut_bytes(&log, &analysis, &pieces) {
            // A full disk does not stop an open: what was cut stays where it is, ignored,
            // and the next open tries again.
            Err(error) if is_out_of_space(&error) => Vec::new(),
            kept => {
                let copies = kept?;
                trim(&log, &analysis, &pieces)?;
                copies
            }
        };
        report.epoch = recovered.header.epoch;
        report.history.push(report.epoch, cut.end.lsn);
        report.rehomed = (durable.lsn < cut.end.lsn).then_some((durable.lsn, cut.end.lsn));
        report.quarantine = (!copies.is_empty()).then(|| log.path.join(dir::QUARANTINE));
        let start = analysis.start();
        Ok(Self { log, recovered, report, pieces, start, landmark, standing })
    }

    /// What was found, and done.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The landmark below which nothing was looked at.
    #[doc(hidden)]
    #[must_use]
    pub fn landmark(&self) -> Option<&Landmark> {
        self.landmark.as_ref()
    }

    /// The landmarks that stand, that one first.
    #[doc(hidden)]
    #[must_use]
    pub fn standing(&self) -> &[Landmark] {
        &self.standing
    }

    /// Gives the entries in `range` to `visitor`, which may break off.
    ///
    /// # Errors
    /// [`Purged`](crate::Error::Purged) when the range starts below the log;
    /// [`Io`](LogError::Io); [`Corrupt`](LogError::Corrupt) when the log has changed.
    pub fn replay(
        &self,
        range: Range,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        replay::replay(&self.log, &self.pieces, self.start, range, visitor)
    }

    /// The log, ready to be started and appended to.
    #[must_use]
    pub fn into_recovered(self) -> Recovered {
        self.recovered
    }
}

/// Opens the log in `dir` for writing: creates it when there is none, recovers it when
/// there is one.
///
/// # Errors
/// Those of [`Recovery::run`] and of [`create`].
pub fn open(dir: &Path, options: &Options) -> Result<(Recovered, Report)> {
    loop {
        match Recovery::run(dir, options) {
            Ok(recovery) => {
                let report = recovery.report.clone();
                return Ok((recovery.into_recovered(), report));
            }
            Err(Error::Log(LogError::NotALog { .. })) => {}
            Err(error) => return Err(error),
        }
        match create(dir, options) {
            Ok(recovered) => {
                let report = created_report(&recovered);
                return Ok((recovered, report));
            }
            // Another process was quicker: its log is recovered when it lets go of it.
            Err(LogError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn created_report(recovered: &Recovered) -> Report {
    let control = recovered.control.current();
    let low_water = control.low_water;
    let mut history = crate::History::new(low_water, [&recovered.header]);
    history.push(control.epoch, low_water.lsn);
    Report {
        status: Status::Clean,
        log_id: control.log_id,
        sector: control.sector,
        epoch: control.epoch,
        first_lsn: low_water.lsn,
        looked_from: low_water.lsn,
        last_lsn: low_water.lsn,
        durable_lsn: low_water.lsn,
        first_seq: low_water.seq,
        next_seq: low_water.seq,
        last_entry: None,
        entries: 0,
        wall_ns: 0,
        segments: Vec::new(),
        evidence: Vec::new(),
        bytes_cut: 0,
        rehomed: None,
        quarantine: None,
        history,
    }
}

/// A log that is locked and was looked at; nothing was changed yet.
pub(crate) struct Entered {
    pub(crate) log: LogDir,
    pub(crate) lock: Box<dyn Lock>,
    pub(crate) control: ControlFile,
    pub(crate) analysis: Analysis,
    /// The landmark that the look began at.
    pub(crate) landmark: Option<Landmark>,
    /// The landmarks that stand, that one first.
    pub(crate) standing: Vec<Landmark>,
}

impl Entered {
    pub(crate) fn enter(path: &Path, options: &Options) -> Result<Self> {
        Self::enter_above(path, options, || Ok(Vec::new()))
    }

    fn enter_above(
        path: &Path,
        options: &Options,
        landmarks: impl FnOnce() -> Result<Vec<Landmark>>,
    ) -> Result<Self> {
        // Looked for before the lock, which leaves a file behind.
        let sector = read_control(path, options)?.sector;
        let options = options.checked(sector)?;
        check_device(path, &options)?;
        let io = options.io.as_ref();
        let lock = dir::lock(io, path, options.lock_timeout)?;
        let mut log = LogDir::locked(path, &options);
        let control = ControlFile::open(io, path)?;
        // What a listing shows after a kill may not be on disk. Nothing may be built on
        // it, or removed because of it, before it is.
        if !skip(Point::OpenDirSync) {
            io.sync_dir(path).map_err(LogError::io("sync", path))?;
        }
        let control_now = *control.current();
        let landmarks = landmarks()?;
        let mut left = &landmarks[..];
        while let [landmark, older @ ..] = left {
            let analysis =
                Analysis::read_from(&mut log, control_now, Some(landmark), Bodies::Checked)?;
            // What contradicts it is for a look at the whole log to name.
            if analysis.is_sound_above(&log, landmark)? {
                let standing = analysis.sift(&log, left)?;
                let landmark = Some(*landmark);
                return Ok(Self { log, lock, control, analysis, landmark, standing });
            }
            left = older;
        }
        let analysis = Analysis::read(&mut log, control_now)?;
        let standing = analysis.sift(&log, &landmarks)?;
        Ok(Self { log, lock, control, analysis, landmark: None, standing })
    }
}

fn is_out_of_space(error: &Error) -> bool {
    let Error::Log(LogError::Io { source, .. }) = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The frame boundary at `lsn`, which the verdict has shown to be one.
fn cursor_at(analysis: &Analysis, log: &LogDir, lsn: Lsn) -> Result<Cursor> {
    match analysis.cursor_at(log, lsn)? {
        Ok(cursor) | Err(cursor) => Ok(cursor),
    }
}

/// Where the new epoch begins (D), and the end of what it keeps (X).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) durable: Cursor,
    pub(crate) end: Cursor,
}

/// A new epoch, durable.
pub(crate) struct Committed {
    pub(crate) recovered: Recovered,
    /// The live frames: those of older segments below D, then the new segment's.
    pub(crate) pieces: Vec<Piece>,
}

/// Begins a new epoch: CONTROL, then a segment with the frames in [D, X).
pub(crate) fn commit(
    log: &LogDir,
    lock: Box<dyn Lock>,
    mut control: ControlFile,
    analysis: &Analysis,
    cut: Cut,
) -> Result<Committed> {
    let mut pieces = analysis.pieces();
    let mut tail = clip(&pieces, cut.durable, cut.end);
    if planted(Bug::RehomeDropsLastFrame) {
        tail.pop();
    }
    pieces = clip(&pieces, analysis.start(), cut.durable);
    let header = new_header(log, analysis, cut)?;
    let low_water = LowWater {
        // Only a repair replaces the low-water mark's own segment.
        epoch: if analysis.plan.segments.is_empty() {
            header.epoch
        } else {
            analysis.plan.low_water.epoch
        },
        ..analysis.plan.low_water
    };
    let next = Control { epoch: header.epoch, nonce: header.nonce, low_water, ..analysis.control };
    control.store(next, Point::ControlEpochSync).map_err(LogError::io("write", control.path()))?;
    let new = NewSegment {
        header: &header,
        len: log.options.opening_len(cut.end.lsn.distance_from(cut.durable.lsn)),
        direct: log.options.is_direct(),
        zeroed: true,
        is_wanted: &|| true,
    };
    let (file, chain) = create_segment(log, &new, &tail, cut)?;
    let end = Cursor { chain, ..cut.end };
    let base = cut.durable.lsn;
    pieces.push(Piece { header: header.clone(), base, start: cut.durable, end, open: true });
    let recovered = Recovered {
        options: log.options.clone(),
        dir: log.path.clone(),
        lock,
        control,
        file,
        file_len: new.len,
        next_lsn: either(end.lsn, Bug::PositionsReused, base),
        next_seq: either(end.seq, Bug::NumbersReused, cut.durable.seq),
        chain: end.chain,
        wall_ns: end.wall_ns,
        live: live_segments(&pieces, &analysis.plan),
        header,
    };
    Ok(Committed { recovered, pieces })
}

/// The parts of `pieces` between two boundaries; empty ones are left out.
fn clip(pieces: &[Piece], from: Cursor, to: Cursor) -> Vec<Piece> {
    pieces
        .iter()
        .filter(|piece| piece.end.lsn > from.lsn && piece.start.lsn < to.lsn)
        .map(|piece| Piece {
            start: if piece.start.lsn < from.lsn { from } else { piece.start },
            end: if piece.end.lsn > to.lsn { to } else { piece.end },
            ..piece.clone()
        })
        .filter(|piece| piece.start.lsn < piece.end.lsn)
        .collect()
}

/// The segments of the pieces; and that of the landmark, though there may be nothing in it
/// behind the landmark: it is what the log can be purged to.
fn live_segments(pieces: &[Piece], plan: &Plan) -> Vec<LiveSegment> {
    let first = LiveSegment { start: plan.first_start };
    let is_left_out = pieces.first().is_some_and(|piece| piece.start.lsn >= plan.first_start.lsn)
        && pieces.iter().all(|piece| piece.header.number != plan.first_start.segment);
    let first = is_left_out.then_some(first);
    first.into_iter().chain(pieces.iter().map(|piece| live_segment(piece, plan))).collect()
}

fn live_segment(piece: &Piece, plan: &Plan) -> LiveSegment {
    if piece.header.number == plan.first_start.segment {
        // It is looked at from the middle, perhaps.
        return LiveSegment { start: plan.first_start };
    }
    let start = piece.start;
    LiveSegment {
        start: LowWater {
            segment: piece.header.number,
            lsn: start.lsn,
            seq: start.seq,
            chain: start.chain,
            epoch: piece.header.epoch,
            wall_ns: start.wall_ns,
        },
    }
}

fn new_header(log: &LogDir, analysis: &Analysis, cut: Cut) -> Result<Header> {
    let last = analysis.plan.segments.last();
    let control = &analysis.control;
    let one = either(1, Bug::EpochNotRaised, 0);
    let epoch = control.epoch.0.checked_add(one).ok_or(Error::EpochsExhausted)?;
    Ok(Header {
        log_id: control.log_id,
        number: last.map_or(control.low_water.segment, |last| last.number.next()),
        epoch: Epoch(epoch),
        nonce: random_nonce(&log.options, &log.path)?,
        previous_nonce: last.map_or(0, |last| last.header.nonce),
        sector: control.sector,
        wall_ns: log.io.wall_ns().max(cut.end.wall_ns),
        opening: Some(Opening {
            base: cut.durable.lsn,
            first_seq: cut.durable.seq,
            supersedes_from: either(cut.durable, Bug::SupersedesFromEnd, cut.end).lsn,
            cut_at: cut.end.lsn,
            cuts: either(analysis.history().cuts(), Bug::CutsForgotten, Vec::new()),
        }),
    })
}

/// Makes the segment; gives it and the CRC of the last frame's header.
fn create_segment(
    log: &LogDir,
    new: &NewSegment<'_>,
    tail: &[Piece],
    cut: Cut,
) -> Result<(Arc<dyn File>, u32)> {
    let sector = new.header.sector;
    let seed = new.header.seed();
    let mut chain = cut.durable.chain;
    // An error of reading the tail is not one of writing the segment.
    let mut failure = None;
    let created = segment::create(log.io.as_ref(), &log.path, new, |file| {
        let mut writer = TailWriter::new(file, u64::from(sector), cut);
        let rehomed = rehome(log, tail, |found| {
            let (frame, body_len) = renewed(found, new.header.epoch, cut.durable.lsn, chain, seed);
            let (bytes, crc) = frame.encode(seed);
            chain = either(crc, Bug::RehomeForgetsChain, chain);
            writer.push(&bytes)?;
            writer.push(found.body.get(..body_len).unwrap_or(&[]))
        });
        match rehomed.and_then(|()| Ok(writer.finish()?)) {
            Ok(end) => Ok(end),
            Err(RehomeError::Write(error)) => Err(error),
            Err(RehomeError::Read(error)) => {
                failure = Some(error);
                Err(io::Error::other("the tail can't be read"))
            }
        }
    });
    match (created, failure) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(file), None) => Ok((file, chain)),
    }
}

enum RehomeError {
    Read(Error),
    Write(io::Error),
}

impl From<io::Error> for RehomeError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn rehome(
    log: &LogDir,
    tail: &[Piece],
    mut write: impl FnMut(&Found<'_>) -> io::Result<()>,
) -> Result<(), RehomeError> {
    for piece in tail {
        let mut failure = None;
        let read = replay::frames(log, piece, |_, found| {
            Ok(match write(found) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            })
        });
        if let Some(error) = failure {
            return Err(RehomeError::Write(error));
        }
        let _ = read.map_err(RehomeError::Read)?;
    }
    Ok(())
}

/// The frame at the same position in the new epoch, and the bytes of its body.
///
/// A seal of a closed log keeps its position, so that it is not given out again, and
/// becomes a promise: the log goes on after it.
fn renewed(
    found: &Found<'_>,
    epoch: Epoch,
    durable: Lsn,
    chain: u32,
    seed: Seed,
) -> (Frame, usize) {
    let kind = match found.frame.kind {
        FrameKind::SealClosed => FrameKind::Promise,
        kind => kind,
    };
    let body_crc = seed.body_crc(&[found.body]);
    let frame = Frame { kind, epoch, promise: durable, chain, body_crc, ..found.frame };
    (frame, found.body.len())
}

/// Writes re-homed frames one after the other, in bounded and aligned chunks.
struct TailWriter<'a> {
    file: &'a dyn File,
    buf: AlignedBuf,
    used: usize,
    offset: u64,
}

impl<'a> TailWriter<'a> {
    fn new(file: &'a dyn File, offset: u64, cut: Cut) -> Self {
        let len = cut.end.lsn.distance_from(cut.durable.lsn).min(CHUNK_LEN);
        Self { file, buf: AlignedBuf::zeroed(to_usize(len)), used: 0, offset }
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.buf.get_mut(self.used..).unwrap_or(&mut []);
            let len = room.len().min(bytes.len());
            if len == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let (now, later) = bytes.split_at(len);
            if let Some(room) = room.get_mut(..len) {
                room.copy_from_slice(now);
            }
            self.used += len;
            bytes = later;
            if self.used == self.buf.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, self.buf.get(..self.used).unwrap_or(&[]), self.offset)?;
        self.offset += self.used as u64;
        self.used = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.offset)
    }
}

/// File offset after what the segment with this index in the plan keeps: all of it below
/// what was looked at.
fn kept_len(analysis: &Analysis, pieces: &[Piece], index: usize, segment: &Segment) -> u64 {
    let (plan, sector) = (&analysis.plan, analysis.control.sector);
    let keep = keep_len(pieces, segment.number, sector);
    match index.cmp(&plan.first) {
        std::cmp::Ordering::Less => segment.file_len,
        std::cmp::Ordering::Equal => {
            let unseen = plan.start.lsn.distance_from(plan.first_start.lsn);
            keep.max(u64::from(sector).saturating_add(unseen))
        }
        std::cmp::Ordering::Greater => keep,
    }
}

/// File offset after what a segment keeps: at least its header.
pub(crate) fn keep_len(pieces: &[Piece], number: SegmentNumber, sector: u32) -> u64 {
    pieces
        .iter()
        .find(|piece| piece.header.number == number)
        .map_or(u64::from(sector), Piece::end_offset)
}

/// Copies what is cut off, before [`trim`] takes it away. Of a recovery that a crash
/// cut short, more is kept than was cut: it is not known any more which is which.
fn keep_cut_bytes(log: &LogDir, analysis: &Analysis, pieces: &[Piece]) -> Result<Vec<PathBuf>> {
    let mut quarantine = Quarantine::new(log);
    for (index, segment) in analysis.plan.segments.iter().enumerate() {
        let keep = kept_len(analysis, pieces, index, segment);
        let from = analysis.cut_from(index).map_or(keep, |from| from.max(keep));
        if segment.file_len > from && !analysis.is_zero_from(index, from) {
            let path = dir::segment_path(&log.path, segment.number);
            let (epoch, number) = (segment.header.epoch, segment.number);
            quarantine.keep_rest(&path, from, &format!("{epoch}-{number}-{from}.bin"))?;
        }
    }
    quarantine.finish()
}

/// Cuts older segments down to what counts of them. Only purge removes one: a
/// superseded segment keeps its number in the chain.
pub(crate) fn trim(log: &LogDir, analysis: &Analysis, pieces: &[Piece]) -> Result<()> {
    for (index, segment) in analysis.plan.segments.iter().enumerate() {
        let keep = kept_len(analysis, pieces, index, segment);
        if segment.file_len > keep {
            let path = dir::segment_path(&log.path, segment.number);
            let file = log.io.open(&path, Access::WRITE).map_err(LogError::io("open", &path))?;
            file.set_len(keep).map_err(LogError::io("truncate", &path))?;
        }
    }
    Ok(())
}

/// Removes segments below the low-water mark, and what unfinished work left behind.
/// CONTROL, which says that they are dead, is durable.
pub(crate) fn remove_dead(log: &LogDir, analysis: &Analysis) -> Result<()> {
    let first = analysis.plan.low_water.segment;
    let dead = analysis.listing.segments.iter();
    let dead = dead
        .filter(|file| file.number < first && file.kind == FileKind::Regular)
        .map(|file| dir::segment_path(&log.path, file.number));
    for path in dead.chain(analysis.listing.temporaries.iter().cloned()) {
        match log.io.unlink(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::io("remove", path)(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}
