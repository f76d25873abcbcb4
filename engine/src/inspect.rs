//! The tokens of a store as its log tells them, without opening it for writing.
//!
//! Owns nothing on disk: takes no lock and changes no byte.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{EntryView, Inspection, Range, ReplayStats, Report};
use bulla_wal::Options;

use crate::entries::Changes;
use crate::error::{Error, Result};
use crate::table::Table;
use crate::token::{Token, TokenId};

/// A read-only look at a store.
///
/// What lies above [`Report::durable_lsn`] may not be durable yet: only opening the
/// store makes it so. Of a store that is open it shows a state that it had.
#[derive(Debug)]
pub struct StoreInspection {
    table: Table,
    report: Report,
}

impl StoreInspection {
    /// Reads the store in `dir`. Of a corrupt log everything up to the damage counts:
    /// look at [`report`](Self::report) before relying on it.
    ///
    /// # Errors
    /// [`Error::Recovery`] when there is no log, or it can't be read; [`Error::Entry`]
    /// when it holds something else than changes of tokens.
    pub fn read(dir: &Path, options: &Options) -> Result<Self> {
        let inspection = Inspection::read(dir, options)?;
        let mut table = Table::default();
        table.replay(|visitor| inspection.replay(Range::ALL, visitor))?;
        Ok(Self { table, report: inspection.report().clone() })
    }

    /// What was found of the log.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The token with this id, if there is one.
    #[must_use]
    pub fn get(&self, id: TokenId) -> Option<Token> {
        self.table.token(id)
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.table.iter()
    }
}

impl Table {
    /// Applies every entry that `replay` gives to its visitor.
    pub(crate) fn replay(
        &mut self,
        replay: impl FnOnce(
            &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
        ) -> bulla_recovery::Result<ReplayStats>,
    ) -> Result<()> {
        let mut refused = None;
        replay(&mut |entry| match Changes::decode(entry.kind, entry.payload) {
            Ok(changes) => {
                self.apply(&changes);
                ControlFlow::Continue(())
            }
            Err(source) => {
                refused = Some(Error::Entry { lsn: entry.lsn, seq: entry.seq, source });
                ControlFlow::Break(())
            }
        })?;
        refused.map_or(Ok(()), Err)
    }
}
