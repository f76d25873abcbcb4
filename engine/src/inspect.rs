//! The records of a store as its log tells them, without opening it for writing.
//!
//! Owns nothing on disk: takes no lock and changes no byte.

use std::path::Path;

use bulla_recovery::{Inspection, Range, Report};
use bulla_wal::Options;

use crate::error::Result;
use crate::quota::Quota;
use crate::record::Record;
use crate::scan::Records;
use crate::state::State;
use crate::token::Token;

/// A read-only look at a store.
///
/// What lies above [`Report::durable_lsn`] may not be durable yet: only opening the
/// store makes it so. Of a store that is open it shows a state that it had.
#[derive(Debug)]
pub struct StoreInspection<R: Record = Token> {
    state: State<R>,
    report: Report,
}

impl StoreInspection {
    /// Reads the store of tokens in `dir`. Of a corrupt log everything up to the damage counts:
    /// look at [`report`](Self::report) before relying on it.
    ///
    /// # Errors
    /// [`Error::Recovery`](crate::Error::Recovery) when there is no log, or it can't be
    /// read; [`Error::Entry`](crate::Error::Entry)
    /// when it holds something else than changes of tokens;
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn read(dir: &Path, options: &Options) -> Result<Self> {
        Self::read_records(dir, options)
    }
}

impl<R: Record> StoreInspection<R> {
    /// Reads the store of records of any type in `dir`, as [`read`](StoreInspection::read)
    /// does for tokens.
    ///
    /// # Errors
    /// As [`read`](StoreInspection::read).
    pub fn read_records(dir: &Path, options: &Options) -> Result<Self> {
        let inspection = Inspection::read(dir, options)?;
        let state = State::new(Quota::unlimited());
        state.replay(|visitor| inspection.replay(Range::ALL, visitor))?;
        Ok(Self { state, report: inspection.report().clone() })
    }

    /// What was found of the log.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The record with this id, if there is one.
    #[must_use]
    pub fn get(&self, id: R::Id) -> Option<R> {
        self.state.get(id.into())
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        // An address space that holds the records holds their number.
        usize::try_from(self.state.usage.records()).unwrap_or(usize::MAX)
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records in order of their ids.
    #[must_use]
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
