//! Opens a log for writing: lock, verdict, and the order of every write that a recovery makes.
//!
//! Before the verdict it writes nothing but what CONTROL already says. Then it removes what is
//! dead, and takes all the space that it needs before it changes anything else. The rename of the
//! segment that opens the new epoch is the only commit point (`tail_rewrite`): before it the
//! log is the old one, after it bytes of lower epochs from the durable end on are ignored. All
//! that follows can be done again. Tested by `recovery/tests/files/crashes.rs`, and by
//! `tests/tests/opening.rs` for pairs of crashes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::{Directory, QUARANTINE};
use bulla_storage::files::recovered::{begin, check_device, create};
use bulla_storage::format::{Content, Control};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::Lock;
use bulla_storage::{Options, Recovered};

use crate::analysis::Analysis;
use crate::faults::order::{commit, keep_cut_bytes};
use crate::log_dir::{LogDir, Piece, open_dir, read_control};
use crate::replay::{self, EntryView, Live, ReplayStats};
use crate::report::{Report, Status};
use crate::scan::Bodies;
use crate::tail_rewrite::{Committed, Tail};
use crate::trim::{remove_dead, trim};
use crate::verdict::Case;
use bulla_storage::frames::reader::Cursor;
use bulla_storage::frames::timeline::Timeline;
use bulla_storage::{Entry, Error, Range, Result};

/// A log that was recovered and is locked. What it shows is durable.
#[derive(Debug)]
pub struct Recovery {
    log: LogDir,
    recovered: Recovered,
    report: Report,
    pieces: Vec<Piece>,
    start: Cursor,
    anchor: Option<Anchor>,
    standing: Vec<Anchor>,
}

impl Recovery {
    /// Recovers the log in `dir` for writing, and begins a new epoch in it.
    ///
    /// On return everything up to [`Report::last_lsn`] is durable, what was cut off is in
    /// quarantine, and the lock is held. It can crash anywhere and run again.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt): then nothing was changed; examine it with
    /// [`Inspection`](crate::Inspection), restore a copy, or [`repair`](crate::repair).
    /// [`NotALog`](Error::NotALog), [`Locked`](Error::Locked),
    /// [`Unsupported`](Error::Unsupported), [`OtherContent`](Error::OtherContent),
    /// [`SectorTooSmall`](Error::SectorTooSmall), [`Options`](Error::Options);
    /// [`NoSpaceToOpen`](Error::NoSpaceToOpen): then free space or
    /// [`purge`](crate::purge()) the log, and try again; [`NotCreated`](Error::NotCreated): a
    /// creation was cut short, and there is no space to end it; [`Io`](Error::Io): mend the device,
    /// and try again.
    pub fn run(dir: &Path, options: &Options) -> Result<Self> {
        Self::run_above(dir, options, |_| Ok(Vec::new()))
    }

    /// Does what [`run`](Self::run) does, but reads no frame below the first anchor that
    /// still stands: then entries below it can't be replayed, and the report counts none.
    /// Calls `anchors` with the log's directory once the lock is held.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and those of `anchors`.
    pub fn run_above(
        dir: &Path,
        options: &Options,
        anchors: impl FnOnce(&Directory) -> Result<Vec<Anchor>>,
    ) -> Result<Self> {
        Self::prepare_above(dir, options, anchors)?.commit()
    }

    /// Does what [`run_above`](Self::run_above) does up to the verdict: locks the log and reads it.
    /// Nothing of the log's contents was changed yet, and a caller who finds that it can't use the
    /// log drops the result. CONTROL was written anew as it was, and unfinished files are removed.
    ///
    /// # Errors
    /// Those of [`run_above`](Self::run_above).
    pub fn prepare_above(
        dir: &Path,
        options: &Options,
        anchors: impl FnOnce(&Directory) -> Result<Vec<Anchor>>,
    ) -> Result<Prepared> {
        let out_of_space = out_of_space(dir);
        let locked = LockedLog::read_above(dir, options, options.content, anchors);
        let locked = locked.map_err(out_of_space)?;
        if let Status::Corrupt(corruption) = locked.analysis.status() {
            return Err(corruption.into());
        }
        let report = locked.analysis.report();
        Ok(Prepared { path: dir.to_owned(), locked, report })
    }

    fn commit(prepared: Prepared) -> Result<Self> {
        let Prepared { locked, mut report, .. } = prepared;
        let LockedLog { log, lock, control, analysis, anchor, standing } = locked;
        if analysis.is_new() {
            let recovered = begin(log.dir.clone(), log.options.clone(), lock, control)?;
            let start = analysis.start();
            let pieces = Vec::new();
            return Ok(Self { log, recovered, report, pieces, start, anchor, standing });
        }
        let start = durable_boundary(&analysis, &log)?;
        let tail = Tail { start, end: analysis.chain.valid_end };
        // It may be the space that the new epoch needs.
        remove_dead(&log, &analysis)?;
        let Committed { recovered, pieces } = commit(&log, lock, control, &analysis, tail)?;
        let copies = match keep_cut_bytes(&log, &analysis, &pieces) {
            // A full disk does not stop an open: the bytes stay where they are, ignored, and
            // the next open tries again.
            Err(error) if error.is_out_of_space() => Vec::new(),
            kept => {
                let copies = kept?;
                trim(&log, &analysis, &pieces)?;
                copies
            }
        };
        report.epoch = recovered.header.epoch;
        report.wall_ns = recovered.wall_ns;
        report.timeline.push(report.epoch, tail.end.lsn);
        report.rewritten =
            (tail.start.lsn < tail.end.lsn).then_some((tail.start.lsn, tail.end.lsn));
        report.quarantine = (!copies.is_empty()).then(|| log.dir.path_of(QUARANTINE));
        let start = analysis.start();
        Ok(Self { log, recovered, report, pieces, start, anchor, standing })
    }

    /// Returns the log's directory, open.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.log.dir
    }

    /// Returns what was found and done.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the anchor below which nothing was read.
    #[must_use]
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// Returns the anchors that stand, that one first.
    #[must_use]
    pub fn standing(&self) -> &[Anchor] {
        &self.standing
    }

    /// Passes the entries in `range` to `visitor`, which may stop the replay.
    ///
    /// # Errors
    /// [`Purged`](crate::Error::Purged) when the range starts below the log;
    /// [`Diverged`](crate::Error::Diverged) when one of its positions was cut off under the
    /// epoch that it names; [`Io`](Error::Io); [`Corrupt`](Error::Corrupt) when the log has
    /// changed.
    pub fn replay(
        &self,
        range: impl Into<Range>,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        replay::replay(&self.live(), range.into(), visitor)
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
    }

    fn live(&self) -> Live<'_> {
        let Self { log, pieces, start, .. } = self;
        Live { log, pieces, start: *start, timeline: &self.report.timeline }
    }

    /// Returns the log, ready to be started.
    #[must_use]
    pub fn into_recovered(self) -> Recovered {
        self.recovered
    }
}

/// A log that is locked, was found to be whole or torn, and can be recovered. Nothing was changed.
#[derive(Debug)]
pub struct Prepared {
    path: PathBuf,
    locked: LockedLog,
    report: Report,
}

impl Prepared {
    /// Returns what was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the anchors that stand.
    #[must_use]
    pub fn standing(&self) -> &[Anchor] {
        &self.locked.standing
    }

    /// Recovers the log, and begins a new epoch in it, as [`Recovery::run`] does.
    ///
    /// # Errors
    /// [`NoSpaceToOpen`](Error::NoSpaceToOpen), [`Io`](Error::Io), as [`Recovery::run`].
    pub fn commit(self) -> Result<Recovery> {
        let path = self.path.clone();
        Recovery::commit(self).map_err(out_of_space(&path))
    }
}

fn out_of_space(dir: &Path) -> impl FnOnce(Error) -> Error {
    let path = dir.to_owned();
    move |error| match error {
        error @ (Error::NotCreated { .. } | Error::NoSpaceToOpen { .. }) => error,
        error if error.is_out_of_space() => Error::NoSpaceToOpen { path, cause: Arc::new(error) },
        error => error,
    }
}

/// Opens the log in `dir` for writing: recovers it, or creates it when there is none.
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
            Err(Error::NotALog { .. }) => {}
            Err(error) => return Err(error),
        }
        match create(dir, options) {
            Ok(recovered) => {
                let report = created_report(&recovered);
                return Ok((recovered, report));
            }
            // Another process was quicker: its log is recovered once that process unlocks it.
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn created_report(recovered: &Recovered) -> Report {
    let control = recovered.control.current();
    let low_water = control.low_water;
    let mut timeline = Timeline::new(low_water, [&recovered.header]);
    timeline.push(control.epoch, low_water.lsn);
    Report {
        status: Status::Clean,
        case: Case::NewLog,
        log_id: control.log_id,
        content: control.content,
        sector: control.sector,
        epoch: control.epoch,
        first_lsn: low_water.lsn,
        scanned_from: low_water.lsn,
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
        rewritten: None,
        quarantine: None,
        timeline,
    }
}

/// A log that is locked and was analysed. Nothing was changed yet.
#[derive(Debug)]
pub(crate) struct LockedLog {
    pub(crate) log: LogDir,
    pub(crate) lock: Box<dyn Lock>,
    pub(crate) control: ControlFile,
    pub(crate) analysis: Analysis,
    /// The anchor that the scan started at.
    pub(crate) anchor: Option<Anchor>,
    /// The anchors that stand, that one first.
    pub(crate) standing: Vec<Anchor>,
}

impl LockedLog {
    pub(crate) fn read(path: &Path, options: &Options) -> Result<Self> {
        Self::read_whole(path, options, None, |_| Ok(Vec::new()))
    }

    /// Reads the whole log; `standing` has those of the anchors that stand.
    pub(crate) fn read_whole(
        path: &Path,
        options: &Options,
        expected: Option<Content>,
        anchors: impl FnOnce(&Directory) -> Result<Vec<Anchor>>,
    ) -> Result<Self> {
        let (mut log, lock, control) = lock_log(path, options, expected)?;
        let anchors = anchors(&log.dir)?;
        let analysis = Analysis::read(&mut log, *control.current())?;
        let standing = analysis.standing(&log, &anchors)?;
        Ok(Self { log, lock, control, analysis, anchor: None, standing })
    }

    fn read_above(
        path: &Path,
        options: &Options,
        expected: Option<Content>,
        anchors: impl FnOnce(&Directory) -> Result<Vec<Anchor>>,
    ) -> Result<Self> {
        let (mut log, lock, control) = lock_log(path, options, expected)?;
        let control_now = *control.current();
        let anchors = anchors(&log.dir)?;
        let mut left = &anchors[..];
        while let [anchor, older @ ..] = left {
            let analysis = Analysis::read_from(&mut log, control_now, left, Bodies::Checked)?;
            // What contradicts it, an analysis of the whole log will name.
            if analysis.is_sound_above(&log, anchor)? {
                let standing = analysis.standing(&log, left)?;
                let anchor = Some(*anchor);
                return Ok(Self { log, lock, control, analysis, anchor, standing });
            }
            left = older;
        }
        let analysis = Analysis::read(&mut log, control_now)?;
        let standing = analysis.standing(&log, &anchors)?;
        Ok(Self { log, lock, control, analysis, anchor: None, standing })
    }
}

/// Locks a log that holds what is expected, and makes CONTROL and the names of its files durable
/// as they are.
fn lock_log(
    path: &Path,
    options: &Options,
    expected: Option<Content>,
) -> Result<(LogDir, Box<dyn Lock>, ControlFile)> {
    let dir = open_dir(path, options)?;
    // CONTROL comes first: the lock would leave a file behind where there is no log.
    let Control { sector, content: found, .. } = read_control(&dir)?;
    // That never changes: no lock is needed.
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(Error::OtherContent { path: path.to_owned(), found, expected });
    }
    let options = options.checked(sector)?;
    // A creation that failed meanwhile has removed CONTROL.
    let is_gone = |error: Error| {
        if error.is_not_found() { Error::NotALog { path: path.to_owned() } } else { error }
    };
    dir.create_as_owner().map_err(is_gone)?;
    check_device(&dir, &options)?;
    let lock = dir.lock_for(&options)?;
    // Now that no writer can change that.
    let listing = dir.list()?;
    if !listing.has_control && listing.segments.is_empty() {
        return Err(Error::NotALog { path: path.to_owned() });
    }
    if let Some(name) = listing.linked {
        return Err(Error::Linked { path: dir.path_of(&name) });
    }
    let control = ControlFile::open(&dir)?;
    let control_damage = control.damage();
    let log = LogDir { control_damage, ..LogDir::locked(&dir, &options) };
    // What a listing shows after a kill may not be on disk. Nothing may be built on
    // it, or removed because of it, before it is.
    if !skip(Failpoint::OpenDirSync) {
        dir.sync()?;
    }
    Ok((log, lock, control))
}

/// Returns the durable end as a frame boundary, which the verdict has shown it to be.
fn durable_boundary(analysis: &Analysis, log: &LogDir) -> Result<Cursor> {
    match analysis.boundary_at(log, analysis.chain.durable_end)? {
        Ok(cursor) | Err(cursor) => Ok(cursor),
    }
}
