//! The records of a store, read without opening it for writing.
//!
//! Owns nothing on disk: takes no lock and changes no byte.

use std::path::Path;
use std::sync::Arc;

use bulla_recovery::{Inspection, Position, Report};
use bulla_storage::files::control;
use bulla_storage::files::dir::Directory;
use bulla_wal::{Lsn, Options, Seq};

use crate::checkpoint::{
    Candidates, CheckpointDir, CheckpointError, CheckpointSource, Choice, OpenReport,
};
use crate::error::{Error, Result};
use crate::quota::Quota;
use crate::record::{Record, content_of};
use crate::replay::replay;
use crate::state::{LOAD_THREADS, State, decode};
use crate::store::scan::Records;
use crate::token::Token;

/// How often a store that is open is read, and purged meanwhile, before an error is returned.
const MAX_READS: u32 = 100;

/// A read-only inspection of a store.
///
/// What lies above [`Report::durable_lsn`] may not be durable yet: only opening the store makes
/// it so. Of a store that is open it shows a state that the store had.
#[derive(Debug)]
pub struct StoreInspection<R: Record = Token> {
    state: State<R>,
    report: Report,
    opened: OpenReport,
}

impl StoreInspection {
    /// Reads the store of tokens in `dir` as an open would: its newest checkpoint and the log
    /// after it. Of a log that is corrupt there it reads everything up to the damage: check
    /// [`report`](Self::report) before relying on it.
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log) when there is no log, it holds something other than
    /// tokens, or it can't be read; [`Error::Entry`](crate::Error::Entry)
    /// when it holds something other than changes of tokens;
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) when the log was purged, and no
    /// checkpoint can be read that replaces what is gone;
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn read(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::read_records(dir, options)
    }
}

impl<R: Record> StoreInspection<R> {
    /// Reads the store of records of any type in `dir`, as [`read`](StoreInspection::read)
    /// does for tokens.
    ///
    /// # Errors
    /// As [`read`](StoreInspection::read).
    pub fn read_records(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let dir = Directory::of_log(options.io.as_ref(), dir.as_ref())?;
        let (mut before, mut start) = (None, Lsn::ZERO);
        for _ in 0..MAX_READS {
            match Self::read_once(&dir, options) {
                Err(error) if is_of_purge(&error) => {
                    let newest = Candidates::read(&CheckpointDir::of(&dir))?.highest;
                    let low_water = control::read(&dir)?.low_water.lsn;
                    // A running store has purged what this read had not reached yet, unless it
                    // is as it was.
                    if before.replace((newest, low_water)) == Some((newest, low_water)) {
                        return Err(error);
                    }
                    start = low_water;
                }
                read => return read,
            }
        }
        Err(bulla_wal::Error::Changed { lsn: start }.into())
    }

    /// Reads the log alone, from the first entry that is left: without what was purged, and
    /// without any checkpoint. Reads any log whose entries are changes of such records, whatever
    /// it says of them.
    ///
    /// # Errors
    /// As [`read`](StoreInspection::read), but for those of checkpoints.
    pub fn read_log(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let inspection = Inspection::read(dir.as_ref(), options)?;
        let state = State::new(Quota::unlimited(), !options.is_manual());
        let replayed = replay(&state, inspection.report(), Position::Start, options, |visitor| {
            inspection.replay(.., visitor)
        })?;
        let opened = OpenReport { replayed, ..OpenReport::default() };
        Ok(Self { state, report: inspection.report().clone(), opened })
    }

    fn read_once(dir: &Directory, options: &Options) -> Result<Self> {
        let io = &options.io;
        let candidates = Candidates::read(&CheckpointDir::of(dir))?;
        let anchors = candidates.anchors();
        let inspection = Inspection::read_in(dir, options, &anchors)?;
        let (found, expected) = (inspection.report().content, content_of::<R>());
        if found != expected {
            let path = dir.path().to_owned();
            return Err(bulla_wal::Error::OtherContent { path, found, expected }.into());
        }
        let standing = inspection.standing(&anchors)?;
        let report = inspection.report().clone();
        let from_start = report.first_seq == Seq(1);
        let choice = candidates.choose(&standing, report.first_lsn, from_start)?;
        let Choice { newest, fallback, report: mut opened, .. } = choice;
        let state = State::new(Quota::unlimited(), !options.is_manual());
        let mut from = Position::Start;
        if let Some(newest) = newest {
            from = newest.head.anchor.upto.into();
            let (io, store) = (Arc::clone(io), dir.clone());
            state.begin(CheckpointSource { newest, fallback, io, store });
            state.load_all(LOAD_THREADS)?;
        }
        opened.replayed =
            replay(&state, &report, from, options, |visitor| inspection.replay(from, visitor))?;
        Ok(Self { state, report, opened })
    }

    /// Returns what the records were read from: the checkpoint, and how much of the log.
    #[must_use]
    pub fn opened_from(&self) -> &OpenReport {
        &self.opened
    }

    /// Returns what was found of the log, from the checkpoint on.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns the record with this id, if there is one.
    #[must_use]
    pub fn get(&self, id: R::Id) -> Option<R> {
        // Everything is in the table.
        self.state.table.read(id.into()).0.and_then(decode)
    }

    /// Returns how many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Iterates over the records in order of their ids.
    pub fn iter(&self) -> Records<'_, R> {
        self.state.iter()
    }
}

impl<'a, R: Record> IntoIterator for &'a StoreInspection<R> {
    type Item = R;
    type IntoIter = Records<'a, R>;

    fn into_iter(self) -> Records<'a, R> {
        self.iter()
    }
}

fn is_of_purge(error: &Error) -> bool {
    match error {
        Error::Checkpoint(CheckpointError::Missing { .. })
        | Error::Log(bulla_wal::Error::Purged { .. }) => true,
        Error::Log(error @ bulla_wal::Error::Io { .. }) => error.is_not_found(),
        _ => false,
    }
}
