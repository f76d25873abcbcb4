//! Read-only inspection of a log: takes no lock, changes nothing.
//!
//! Owns how a log that may be running is told from a corrupt one: by scanning again. Tested by
//! `recovery/tests/files/hostile.rs` and by the campaigns of readers and of the simulator.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_storage::Options;
use bulla_storage::files::dir::{Directory, parse_segment_name};
use bulla_storage::files::holds;
use bulla_storage::files::purge::Floor;
use bulla_storage::frames::anchor::Anchor;

use crate::analysis::{Analysis, SealedScans};
use crate::behind::behind;
use crate::error::proved_durable;
use crate::frame_runs::FrameRun;
use crate::log_dir::{LogDir, Piece, open_dir, read_control, read_listing};
use crate::map::{self, SegmentBytes};
use crate::plan::PlannedSegment;
use crate::purge::{self, PurgeReport};
use crate::replay::{self, EntryView, Live, ReplayStats, is_reached};
use crate::report::{Report, SegmentReport, Status};
use crate::scan::Bodies;
use bulla_storage::frames::reader::Cursor;
use bulla_storage::{Entry, Error, Lsn, Position, Range, Result};

/// At most this many times a log that is being written is scanned.
const MAX_SCANS: u32 = 8;
/// At most this many times it is read again because a purge has removed what was to be read.
const MAX_PURGES: u32 = 100;

/// What a read-only scan of a log found.
///
/// What it shows may not be durable yet: a power loss can take back what lies above
/// [`Report::durable_lsn`]. Only [`Recovery`](crate::Recovery) makes it durable. Of a log
/// that is open for writing it shows a state that the log had, or the beginning of one.
#[derive(Debug)]
pub struct Inspection {
    log: LogDir,
    analysis: Analysis,
    report: Report,
    pieces: Vec<Piece>,
    start: Cursor,
}

impl Inspection {
    /// Scans the log in `dir`. A corrupt log is no error: the report says so.
    ///
    /// # Errors
    /// [`NotALog`](bulla_storage::Error::NotALog), [`Unsupported`](bulla_storage::Error::Unsupported)
    /// for a newer format, [`Corrupt`](bulla_storage::Error::Corrupt) when CONTROL can't be read,
    /// [`Io`](bulla_storage::Error::Io), which is never taken for the log's end.
    pub fn read(dir: &Path, options: &Options) -> Result<Self> {
        Self::read_above(dir, options, &[])
    }

    /// Does what [`read`](Self::read) does, but reads no frame below the first anchor that
    /// still stands, as [`Recovery::run_above`](crate::Recovery::run_above) does: then entries
    /// below it can't be replayed, and the report counts none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_above(dir: &Path, options: &Options, anchors: &[Anchor]) -> Result<Self> {
        Self::read_in(&open_dir(dir, options)?, options, anchors)
    }

    /// Does what [`read_above`](Self::read_above) does, in a directory that is open.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_in(dir: &Directory, options: &Options, anchors: &[Anchor]) -> Result<Self> {
        let mut left = anchors;
        while let [anchor, older @ ..] = left {
            let (log, analysis) = undisturbed_above(dir, options, left, Bodies::Checked)?;
            if analysis.is_sound_above(&log, anchor)? {
                return Ok(Self::of(log, analysis));
            }
            left = older;
        }
        let (log, analysis) = undisturbed(dir, options, Bodies::Checked)?;
        Ok(Self::of(log, analysis))
    }

    /// Does what [`read`](Self::read) does, but reads the headers of frames, and no bodies but those
    /// on which the end of the log depends. It costs little where frames are long, as those of a
    /// busy log are. Damage in a body that a durable mark covers shows when a replay reads it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_headers(dir: &Path, options: &Options) -> Result<Self> {
        let (log, analysis) = undisturbed(&open_dir(dir, options)?, options, Bodies::Unread)?;
        Ok(Self::of(log, analysis))
    }

    fn of(log: LogDir, analysis: Analysis) -> Self {
        let (report, pieces) = (analysis.report(), analysis.pieces());
        Self { report, pieces, start: analysis.start(), log, analysis }
    }

    /// Returns what was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the segments, in order of number.
    #[must_use]
    pub fn segments(&self) -> &[SegmentReport] {
        &self.report.segments
    }

    /// Reads the segments' files again, and returns what their bytes are, in the order of
    /// [`segments`](Self::segments); `None` for one that was purged since.
    ///
    /// # Errors
    /// [`Io`](bulla_storage::Error::Io).
    pub fn measure(&self) -> Result<Vec<Option<SegmentBytes>>> {
        let segments = self.segments();
        // The log ends in this segment; those behind it are spares.
        let last = self.pieces.last().map(|piece| piece.header.number);
        segments
            .iter()
            .map(|segment| {
                let mut pieces = self.pieces.iter();
                let piece = pieces.find(|piece| piece.header.number == segment.number);
                let open = last.is_none_or(|last| segment.number >= last);
                map::measure(&self.log, &self.report.status, open, segment, piece)
            })
            .collect()
    }

    /// Returns the frames that the scan found valid in each segment, summed up in runs, in the
    /// order of [`segments`](Self::segments); nothing of a segment that was not read. Each frame is
    /// a run of its own in a log with few of them: a log has at most 2,048 runs, or one per
    /// segment, and a segment at most 256.
    ///
    /// Frames behind damage are among them, where they are valid in themselves.
    pub fn frame_runs(&self) -> impl Iterator<Item = &[FrameRun]> {
        let (plan, scans) = (&self.analysis.plan, &self.analysis.scans);
        let of_number = move |number| {
            let index =
                plan.segments.binary_search_by_key(&number, |planned| planned.number).ok()?;
            Some(scans.get(index)?.as_ref()?.frame_runs.runs())
        };
        self.segments().iter().map(move |segment| of_number(segment.number).unwrap_or_default())
    }

    /// Returns those of the anchors that are in this log, with everything up to the
    /// position that they were made for, in their order.
    ///
    /// # Errors
    /// [`Io`](bulla_storage::Error::Io).
    pub fn standing(&self, anchors: &[Anchor]) -> Result<Vec<Anchor>> {
        self.analysis.standing(&self.log, anchors)
    }

    /// Passes the entries in `range` that can be read in order (of a corrupt log: up to the
    /// damage) to `visitor`, which may stop the replay.
    ///
    /// # Errors
    /// [`Purged`](crate::Error::Purged) when the range starts below the log, or when a program has
    /// purged what comes next; [`Diverged`](crate::Error::Diverged) when one of its positions was
    /// cut off under the epoch that it names; [`Io`](bulla_storage::Error::Io);
    /// [`Corrupt`](bulla_storage::Error::Corrupt) when entries that were marked durable can no longer be read; [`Changed`](crate::Error::Changed) when
    /// others can't.
    pub fn replay(
        &self,
        range: impl Into<Range>,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        replay::replay(&self.live(), range.into(), visitor)
            .map_err(|error| explained(&self.log, &self.analysis, error))
    }

    /// Does what [`replay`](Self::replay) does, with entries that own their payloads: they can be
    /// kept, or sent to other threads. The payloads of a frame are slices of one copy of it, which
    /// each of them keeps alive.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub fn replay_owned(
        &self,
        range: impl Into<Range>,
        visitor: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        replay::replay_owned(&self.live(), range.into(), visitor)
            .map_err(|error| explained(&self.log, &self.analysis, error))
    }

    /// Passes the intact entries behind a cut to `visitor`.
    pub(crate) fn each_behind(
        &self,
        cut_at: Lsn,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let cut = match self.analysis.boundary_at(&self.log, cut_at)? {
            Ok(cut) | Err(cut) => cut,
        };
        behind(&self.log, &self.analysis, cut, visitor).map(drop)
    }

    /// Returns what holds keep from a purge that wants to remove everything below `keep_from`.
    ///
    /// # Errors
    /// [`HoldDamaged`](bulla_storage::Error::HoldDamaged), [`Io`](bulla_storage::Error::Io).
    pub fn held(&self, keep_from: Lsn) -> Result<Vec<Floor>> {
        let end = self.analysis.chain.valid_end.lsn;
        let control = &self.analysis.control;
        Ok(holds::planned_floors(&self.log.dir, control, keep_from, end)?.floors)
    }

    /// Returns what a [purge](crate::purge) would do now if the log had no other floors than these;
    /// [`held`](Self::held) returns those of holds.
    ///
    /// # Errors
    /// [`Corrupt`](bulla_storage::Error::Corrupt), and those of
    /// [`Purge::preview`](crate::Purge::preview).
    pub fn preview_purge(
        &self,
        keep_from: impl Into<Position>,
        floors: &[Floor],
    ) -> Result<PurgeReport> {
        match self.analysis.status() {
            Status::Corrupt(corruption) => Err(corruption.into()),
            Status::Clean | Status::TornTail => {
                purge::preview(&self.log, &self.analysis, keep_from.into(), floors)
            }
        }
    }

    fn live(&self) -> Live<'_> {
        let Self { log, pieces, start, .. } = self;
        Live { log, pieces, start: *start, timeline: &self.report.timeline }
    }
}

/// Passes the entries of the log in `dir` that are in `range`, in order, to `visitor`, which
/// may stop the replay. Takes no lock, changes nothing.
///
/// From [`Position::Start`] this is the fastest way to read a log: it scans the headers, then reads
/// and verifies every frame once, just before it passes on the frame's entries. [`Inspection`]
/// verifies all frames before it shows the first one, and then again. So does this function
/// from any other position, because it passes nothing on from behind damage. It reports
/// corruption in its place, as an error after the entries before it. Entries may not be
/// durable yet, as with [`Inspection`].
///
/// # Errors
/// [`Corrupt`](bulla_storage::Error::Corrupt) after everything that can be read in order, unless
/// the visitor stops or the range ends before; otherwise as [`Inspection::read`] and
/// [`Inspection::replay`].
pub fn replay(
    dir: &Path,
    options: &Options,
    range: impl Into<Range>,
    mut visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    let range = range.into();
    let bodies = match range.from {
        Position::Start => Bodies::Unread,
        _ => Bodies::Checked,
    };
    let dir = open_dir(dir, options)?;
    let mut purges = 0;
    loop {
        let (log, analysis) = undisturbed(&dir, options, bodies)?;
        let mut is_begun = false;
        let replayed = analysis.replay(&log, range, |entry| {
            is_begun = true;
            visitor(entry)
        });
        let stats = match replayed.map_err(|error| explained(&log, &analysis, error)) {
            // The log starts elsewhere now, and nothing was passed on yet.
            Err(Error::Purged { position, .. })
                if !is_begun && position != range.from && purges < MAX_PURGES =>
            {
                purges += 1;
                continue;
            }
            stats => stats?,
        };
        // What lies behind the range was not asked for. Behind a time there may be earlier ones.
        let ended = stats.stopped || is_reached(&range.to.upper_limit(), &analysis.chain.valid_end);
        return match analysis.status() {
            Status::Corrupt(fault) if !ended => Err(fault.into()),
            _ => Ok(stats),
        };
    }
}

/// Returns the error of a replay whose segment is gone, or whose frame is no longer valid. A
/// segment below the log's start was purged. A frame that was marked durable, as all of the older
/// epochs are, is corruption. The others were valid in the scan, so the log has changed: another
/// open rewrites them under its own epoch, or cuts them off.
fn explained(log: &LogDir, analysis: &Analysis, error: Error) -> Error {
    if error.is_not_found() {
        return purged(log, analysis, &error).unwrap_or(error);
    }
    let Some((segment, lsn)) = error.corruption().and_then(|found| found.segment.zip(found.lsn))
    else {
        return error;
    };
    let durable = analysis.chain.durable_end;
    let is_newest = |newest: &PlannedSegment| newest.newest && newest.number == segment;
    if lsn < durable {
        proved_durable(error, durable)
    } else if analysis.plan.segments.iter().any(is_newest) {
        Error::Changed { lsn }
    } else {
        error
    }
}

/// Returns that what a segment's file held was purged, if it was.
fn purged(log: &LogDir, analysis: &Analysis, error: &Error) -> Option<Error> {
    let Error::Io { path, .. } = error else { return None };
    let number = parse_segment_name(path.file_name()?.to_str()?)?;
    let low_water = read_control(&log.dir).ok()?.low_water;
    let piece = analysis.pieces().into_iter().find(|piece| piece.header.number == number)?;
    let position = Position::Lsn { epoch: None, lsn: piece.start.lsn };
    (number < low_water.segment).then_some(Error::Purged { position, low_water: low_water.lsn })
}

/// Scans a log until no writer disturbs the result.
///
/// A log that is open for writing changes while it is read: a durable mark that is read late
/// covers frames that were not there when their place was read early. So a corruption counts
/// only when two scans find it; frames that the second scan finds at or above the first one's
/// durable marks show that nothing was lost. A segment that is gone when its turn comes was purged
/// since it was listed, or it is missing: the next listing tells.
pub(crate) fn undisturbed(
    dir: &Directory,
    options: &Options,
    bodies: Bodies,
) -> Result<(LogDir, Analysis)> {
    undisturbed_above(dir, options, &[], bodies)
}

/// Does what [`undisturbed`] does, above the first of the anchors if it stands.
fn undisturbed_above(
    dir: &Directory,
    options: &Options,
    anchors: &[Anchor],
    bodies: Bodies,
) -> Result<(LogDir, Analysis)> {
    let mut earlier: Option<Analysis> = None;
    let sealed = SealedScans::default();
    let (mut scans, mut purges) = (0, 0);
    loop {
        let (listing, control, control_damage) = read_listing(dir)?;
        let log = LogDir::new(dir, &options.clone().sector(control.sector));
        let mut log = LogDir { control_damage, ..log };
        let listed = (listing, control);
        let read = Analysis::read_listed(&mut log, listed, anchors, bodies, Some(&sealed));
        // What is missing below an anchor was perhaps purged after CONTROL was read.
        let is_purged = match &read {
            Err(error) => error.is_not_found(),
            Ok(now) => now.plan.restart.is_some() && read_control(dir)? != control,
        };
        if is_purged {
            purges += 1;
            if purges < MAX_PURGES {
                continue;
            }
            return Err(Error::Changed { lsn: control.low_water.lsn });
        }
        let mut now = read?;
        scans += 1;
        now.list_successor_again(&log)?;
        if let Some(earlier) = &earlier {
            now.compare_with_earlier(earlier);
        }
        let confirmed = earlier.as_ref().is_some_and(|earlier| earlier.status() == now.status());
        if !now.is_corrupt() || confirmed || scans == MAX_SCANS {
            return Ok((log, now));
        }
        earlier = Some(now);
        sealed.forget();
    }
}
