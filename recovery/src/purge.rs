//! Purge of a log that is not open: its start moves up, and whole segments below it are removed.
//!
//! Owns what can be purged of a log as a crash left it. Reads all of it, also what it will remove:
//! a corrupt log is refused (I46), and damage in an entry shows only where its bytes are read. What
//! lies before the damage is all that a repair could keep, and a purge keeps no copy of it.
//! Begins no epoch and creates no file, so
//! that a log purges on a full disk. The rule, and the order of its steps, are in
//! `bulla_storage::files::purge`. Tested by `recovery/tests/files/purges.rs`, and at every step by
//! `tests/tests/full_disk.rs`.

use std::path::Path;
use std::sync::Arc;

use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::holds::{self, Floors, Hold, Holds};
use bulla_storage::files::purge::{self, Floor};
use bulla_storage::format::LowWater;
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::{FileKind, Lock};
use bulla_storage::{Error, Lsn, Options, Position, Result, SegmentNumber, Seq};

use crate::analysis::Analysis;
use crate::log_dir::LogDir;
use crate::open::LockedLog;
use crate::report::{Report, Status};
use crate::tail_rewrite::live_segment;
use crate::trim::remove_dead;

/// What a purge did, or would do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PurgeReport {
    /// What was found before.
    pub before: Report,
    /// Where the log starts after it.
    pub first_lsn: Lsn,
    /// Number of the first entry that it keeps, or of the next one.
    pub first_seq: Seq,
    /// Entries that it purges.
    pub entries: u64,
    /// Segments that it removes.
    pub segments: Vec<SegmentNumber>,
    /// Bytes of their files.
    pub bytes: u64,
    /// Holds that are in its way and keep more than their quota: it breaks them.
    pub broken: Vec<Hold>,
}

/// A log that is locked, was found intact, and can be purged.
#[derive(Debug)]
pub struct Purge {
    log: LogDir,
    /// Held until the purge ends.
    _lock: Box<dyn Lock>,
    control: ControlFile,
    analysis: Analysis,
    standing: Vec<Anchor>,
}

impl Purge {
    /// Locks the log in `dir` and reads it. Calls `anchors` with its directory once the lock is
    /// held.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt), [`NotALog`](Error::NotALog), [`Locked`](Error::Locked),
    /// [`Unsupported`](Error::Unsupported), [`OtherContent`](Error::OtherContent),
    /// [`Options`](Error::Options), [`Io`](Error::Io), and those of `anchors`. Nothing was purged.
    pub fn prepare(
        dir: &Path,
        options: &Options,
        anchors: impl FnOnce(&Directory) -> Result<Vec<Anchor>>,
    ) -> Result<Self> {
        let LockedLog { log, lock, control, analysis, standing, .. } =
            LockedLog::read_whole(dir, options, options.content, anchors)?;
        if let Status::Corrupt(corruption) = analysis.status() {
            return Err(corruption.into());
        }
        Ok(Self { log, _lock: lock, control, analysis, standing })
    }

    /// Returns those of the anchors that stand.
    #[must_use]
    pub fn standing(&self) -> &[Anchor] {
        &self.standing
    }

    /// Returns what was found.
    #[must_use]
    pub fn report(&self) -> Report {
        self.analysis.report()
    }

    /// Returns what [`run`](Self::run) would do if the log had no holds.
    ///
    /// # Errors
    /// [`Diverged`](Error::Diverged) when `keep_from` names an epoch, and what was below it then is
    /// not in the log any more.
    pub fn preview(&self, keep_from: Position, floors: &[Floor]) -> Result<PurgeReport> {
        preview(&self.log, &self.analysis, keep_from, floors)
    }

    /// Removes whole segments that hold nothing at or above `keep_from`, nothing that is not known
    /// to be durable, and nothing that a floor or a hold keeps. On return the log's new start is
    /// durable.
    ///
    /// # Errors
    /// Those of [`preview`](Self::preview); [`Locked`](Error::Locked) while another process takes
    /// a hold; [`Io`](Error::Io): then the log starts where it did, or
    /// where it should, and the next open or purge removes what is left below that.
    pub fn run(mut self, keep_from: Position, floors: &[Floor]) -> Result<PurgeReport> {
        let Self { log, control, analysis, .. } = &mut self;
        // Before a hold is broken for it.
        check_position(analysis, keep_from)?;
        let (dir, io) = (log.dir.clone(), Arc::clone(&log.io));
        // From here to the mark in CONTROL no other process takes a hold.
        let holds = Holds::lock(&dir, io.as_ref(), log.options.lock_timeout)?;
        let found = match new_start(analysis, keep_from, floors) {
            Some(start) => holds.floors(start.lsn, analysis.chain.valid_end.lsn)?,
            None => Floors::default(),
        };
        let floors = [floors, &found.floors].concat();
        let report = report(analysis, keep_from, &floors, found.broken)?;
        if let Some(low_water) = new_start(analysis, keep_from, &floors) {
            let marked = purge::mark(control, &dir, low_water);
            marked.map_err(Error::io("write", control.path()))?;
            analysis.plan.low_water = low_water;
        }
        drop(holds);
        remove_dead(log, analysis)?;
        Ok(report)
    }
}

/// Purges the log in `dir`: removes whole segments that hold nothing at or above `keep_from`, and
/// nothing that is not known to be durable. On return the log's new start is durable.
///
/// It begins no epoch and creates no file, so that it works where [`open`](crate::open) lacks
/// space. The default options refuse a store's log: `bulla_engine::purge` keeps what the
/// checkpoints need.
///
/// # Errors
/// [`Corrupt`](Error::Corrupt): then nothing was purged; those of
/// [`Purge::prepare`] and [`Purge::run`].
pub fn purge(
    dir: impl AsRef<Path>,
    keep_from: impl Into<Position>,
    options: &Options,
) -> Result<PurgeReport> {
    Purge::prepare(dir.as_ref(), options, |_| Ok(Vec::new()))?.run(keep_from.into(), &[])
}

/// Returns what a purge would do.
pub(crate) fn preview(
    log: &LogDir,
    analysis: &Analysis,
    keep_from: Position,
    floors: &[Floor],
) -> Result<PurgeReport> {
    let end = analysis.chain.valid_end.lsn;
    let found = match new_start(analysis, keep_from, floors) {
        Some(start) => holds::planned_floors(&log.dir, &analysis.control, start.lsn, end)?,
        None => Floors::default(),
    };
    report(analysis, keep_from, &[floors, &found.floors].concat(), found.broken)
}

/// Checks that a position was not cut off under the epoch that it names.
fn check_position(analysis: &Analysis, keep_from: Position) -> Result<()> {
    if let Position::Lsn { epoch: Some(epoch), lsn } = keep_from {
        analysis.timeline().check_read(epoch, lsn)?;
    }
    Ok(())
}

fn report(
    analysis: &Analysis,
    keep_from: Position,
    floors: &[Floor],
    broken: Vec<Hold>,
) -> Result<PurgeReport> {
    check_position(analysis, keep_from)?;
    let old = analysis.plan.low_water;
    let new = new_start(analysis, keep_from, floors).unwrap_or(old);
    let dead = analysis.listing.segments.iter().filter(|file| file.number < new.segment);
    let dead: Vec<_> = dead.filter(|file| file.kind == FileKind::Regular).collect();
    Ok(PurgeReport {
        before: analysis.report(),
        first_lsn: new.lsn,
        first_seq: new.seq,
        entries: new.seq.0.saturating_sub(old.seq.0),
        segments: dead.iter().map(|file| file.number).collect(),
        bytes: dead.iter().map(|file| file.len).sum(),
        broken,
    })
}

/// Returns the new low-water mark, if it is another one.
fn new_start(analysis: &Analysis, keep_from: Position, floors: &[Floor]) -> Option<LowWater> {
    let pieces = analysis.pieces();
    let live = pieces.iter().filter(|piece| piece.start.lsn < piece.end.lsn);
    let starts: Vec<_> = live.map(|piece| live_segment(piece, &analysis.plan).start).collect();
    let keep_from = purge::keep_from(&starts, keep_from);
    let new = purge::first_kept(&starts, keep_from, analysis.chain.durable_end, floors);
    new.filter(|new| new.segment > analysis.plan.low_water.segment)
}
