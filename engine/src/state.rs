//! What a log says: the records, and how much of the quota they use.
//!
//! Owns replay, for a store that is opened and for one that is only looked at. A pure
//! function of the log: no clock, no policy, and no quota refuses what was logged.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

use bulla_recovery::{EntryView, ReplayStats};

use crate::batch::edit;
use crate::entries::Changes;
use crate::error::{Error, Result};
use crate::quota::{Growth, Quota, Usage};
use crate::record::Record;
use crate::snapshot::Kept;
use crate::store::decode;
use crate::table::{Edit, PageId, Table, What, apply, plan};
use crate::views::Views;

/// Replay's changes have no position of their own: all of them are durable.
const REPLAYED: u64 = 0;

#[derive(Debug)]
pub(crate) struct State<R> {
    pub(crate) table: Table,
    pub(crate) usage: Arc<Usage>,
    pub(crate) views: Views<Kept>,
    records: PhantomData<R>,
}

impl<R: Record> State<R> {
    pub(crate) fn new(quota: Quota) -> Self {
        let usage = Arc::new(Usage::new(quota));
        Self { table: Table::new(), usage, views: Views::new(), records: PhantomData }
    }

    pub(crate) fn get(&self, id: u32) -> Option<R> {
        self.table.read(id).0.and_then(decode)
    }

    /// Applies every entry that `replay` gives to its visitor.
    pub(crate) fn replay(
        &self,
        replay: impl FnOnce(
            &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
        ) -> bulla_recovery::Result<ReplayStats>,
    ) -> Result<()> {
        let mut refused = None;
        replay(&mut |entry| match self.replay_entry(entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        })?;
        self.usage.replayed();
        refused.map_or(Ok(()), Err)
    }

    fn replay_entry(&self, entry: &EntryView<'_>) -> Result<()> {
        let changes = Changes::<R>::decode(entry.kind, entry.payload)
            .map_err(|source| Error::Entry { lsn: entry.lsn, seq: entry.seq, source })?;
        changes.iter().try_for_each(|change| self.replay_edit(edit(&change)))
    }

    /// Nobody else has the table yet: one change after the other.
    fn replay_edit(&self, edit: Edit<'_>) -> Result<()> {
        let page = PageId::of(edit.id);
        let guard = match edit.what {
            What::Put(_) => Some(self.table.lock(page).map_err(Error::Memory)?),
            // There is nothing to delete where there is no slab.
            What::Delete | What::Expire(_) => self.table.lock_existing(page),
        };
        let Some(guard) = guard else { return Ok(()) };
        let mut guards = [guard];
        let (records, pages) = plan(&[page], &mut guards, &[edit]);
        apply(&[page], &mut guards, &[edit], REPLAYED);
        self.usage.replay(Growth { records, pages });
        drop(guards);
        if matches!(edit.what, What::Delete) {
            self.table.tidy(page);
        }
        Ok(())
    }
}
