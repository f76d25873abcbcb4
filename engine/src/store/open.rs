//! Opening: the log is recovered or created, and the state follows from it and a checkpoint.

use std::path::Path;
use std::sync::Arc;

use bulla_recovery::{Position, Recovery, Report};
use bulla_storage::files::dir::Directory;
use bulla_wal::{Log, Options, Seq};

use crate::checkpoint::{
    Candidates, CheckpointDir, CheckpointError, CheckpointSource, Choice, Found, OpenReport,
};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::replay::replay;
use crate::state::State;

/// A store's log, open, after its state was replayed.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) recovered: Option<Report>,
    pub(super) report: OpenReport,
    pub(super) found: Found,
}

/// Recovers the log as [`recover`] does, or creates it where there is none.
pub(super) fn recover_or_create<R: Record>(
    dir: &Path,
    options: &Options,
    state: &State<R>,
) -> Result<Opened> {
    loop {
        match recover(dir, options, state) {
            Err(Error::Log(bulla_wal::Error::NotALog { .. })) => {}
            recovered => return recovered,
        }
        match create(dir, options) {
            // Another process was quicker: its log is recovered once that process unlocks it.
            Err(Error::Log(bulla_wal::Error::AlreadyExists { .. })) => {}
            created => return created,
        }
    }
}

/// Recovers the log, and brings `state` to what it and a checkpoint describe.
pub(super) fn recover<R: Record>(
    dir: &Path,
    options: &Options,
    state: &State<R>,
) -> Result<Opened> {
    let mut candidates = Candidates::default();
    let prepared = Recovery::prepare_above(dir, options, |dir| {
        candidates = Candidates::recover(&CheckpointDir::of(dir))?;
        Ok(candidates.anchors())
    })?;
    let Report { first_lsn: first, first_seq, .. } = *prepared.report();
    // A store that can't be opened is refused before its log is changed.
    let choice = candidates.choose(prepared.standing(), first, first_seq == Seq(1))?;
    let recovery = prepared.commit()?;
    let log_report = recovery.report().clone();
    let from = choice.newest.as_ref().map(|newest| newest.head.anchor.upto);
    let found = Found::new(&choice, first);
    let Choice { newest, fallback, mut report, .. } = choice;
    if let Some(newest) = newest {
        let (io, store) = (Arc::clone(&options.io), recovery.directory().clone());
        state.begin(CheckpointSource { newest, fallback, io, store });
    }
    let from = from.map_or(Position::Start, Position::from);
    report.replayed =
        replay(state, &log_report, from, options, |visitor| recovery.replay(from, visitor))?;
    let found = Found { replayed: report.replayed > 0, ..found };
    let log = Log::start(recovery.into_recovered())?;
    Ok(Opened { log, recovered: Some(log_report), report, found })
}

/// Creates the log of a new store.
fn create(dir: &Path, options: &Options) -> Result<Opened> {
    match Directory::open(options.io.as_ref(), dir) {
        Err(error) if error.is_not_found() => {}
        opened => check_is_new(&opened?)?,
    }
    let log = Log::create(dir, options)?;
    Ok(Opened { log, recovered: None, report: OpenReport::default(), found: Found::nothing() })
}

/// Refuses a directory that holds files among which no store is created.
fn check_is_new(dir: &Directory) -> Result<()> {
    let checkpoints = CheckpointDir::of(dir);
    let has_checkpoints = Candidates::read(&checkpoints)?.highest > 0;
    let foreign = dir.first_foreign()?;
    // Listed last: another process that creates a store here makes CONTROL before any file that
    // was found above. Of a log, also of one without CONTROL, the log itself says what it is.
    let listing = dir.list()?;
    if listing.has_control || !(has_checkpoints || listing.segments.is_empty()) {
        return Ok(());
    }
    if has_checkpoints {
        return Err(CheckpointError::WithoutLog { path: checkpoints.path }.into());
    }
    match foreign {
        Some(name) => Err(Error::NotEmpty { path: dir.path().to_owned(), name }),
        None => Ok(()),
    }
}
