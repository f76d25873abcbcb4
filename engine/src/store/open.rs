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
pub(super) fn create(dir: &Path, options: &Options) -> Result<Opened> {
    match Directory::open(options.io.as_ref(), dir) {
        Err(error) if error.is_not_found() => {}
        opened => {
            let opened = opened?;
            let checkpoints = CheckpointDir::of(&opened);
            if Candidates::read(&checkpoints)?.highest > 0 {
                return Err(CheckpointError::WithoutLog { path: checkpoints.path }.into());
            }
            // Of segments without CONTROL the log itself says what they are.
            let is_a_log = !opened.list()?.segments.is_empty();
            if let Some(name) = opened.first_foreign()?.filter(|_| !is_a_log) {
                return Err(Error::NotEmpty { path: opened.path().to_owned(), name });
            }
        }
    }
    let log = Log::create(dir, options)?;
    Ok(Opened { log, recovered: None, report: OpenReport::default(), found: Found::nothing() })
}

/// Returns whether an error says that the directory holds no log.
pub(super) fn is_not_there(error: &Error) -> bool {
    matches!(error, Error::Log(bulla_wal::Error::NotALog { .. }))
}
