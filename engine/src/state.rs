//! What a log says: the records, and how much of the quota they use.
//!
//! Owns replay, for a store that is opened and for one that is only looked at. A pure
//! function of the log: no clock, no policy, and no quota refuses what was logged.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

use bulla_recovery::{EntryView, ReplayStats};
use bulla_wal::planted::{Bug, either};

use crate::batch::edit;
use crate::checkpoint::{Base, Lazy};
use crate::entries::Changes;
use crate::error::{Error, Result};
use crate::panics::Panics;
use crate::quota::{Growth, Quota, Usage};
use crate::record::Record;
use crate::snapshot::Kept;
use crate::table::{Bytes, Edit, PageId, Table, What, apply, index, plan};
use crate::views::Views;

/// Replay's changes have no position of their own: all of them are durable.
const REPLAYED: u64 = 0;

#[derive(Debug)]
pub(crate) struct State<R> {
    pub(crate) table: Table,
    pub(crate) usage: Arc<Usage>,
    pub(crate) views: Views<Kept>,
    /// What is not in the table yet.
    pub(crate) lazy: Lazy,
    pub(crate) panics: Panics,
    records: PhantomData<R>,
}

impl<R: Record> State<R> {
    pub(crate) fn new(quota: Quota) -> Self {
        let usage = Arc::new(Usage::new(quota));
        let (table, views, lazy) = (Table::new(), Views::new(), Lazy::default());
        Self { table, usage, views, lazy, panics: Panics::new(), records: PhantomData }
    }

    /// A state that begins with what a checkpoint holds, and with none of it in the table.
    pub(crate) fn begin(&self, base: Base) {
        let head = &base.newest.head;
        // Bounded by the number of ids.
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.usage.replay(Growth { records: count(head.records), pages: count(head.pages) });
        self.lazy.begin(base);
    }

    /// A record, and where in the log the last change of its page is (0: nowhere).
    pub(crate) fn read(&self, id: u32) -> Result<(Option<Bytes>, u64)> {
        self.touch(PageId::of(id))?;
        Ok(self.table.read(id))
    }

    /// When a record expires; 0 for never, and where there is none.
    pub(crate) fn expiry(&self, id: u32) -> Result<u64> {
        self.touch(PageId::of(id))?;
        let guard = self.table.lock_existing(PageId::of(id));
        Ok(guard.map_or(0, |guard| guard.expiry(index(id))))
    }

    /// Sees to it that what there is of a page's slab is in the table. The caller has no
    /// page locked.
    pub(crate) fn touch(&self, page: PageId) -> Result<()> {
        if self.lazy.is_done() { Ok(()) } else { self.lazy.touch::<R>(&self.table, page) }
    }

    /// Sees to it that everything is in the table; so many threads read.
    pub(crate) fn load_all(&self, threads: usize) -> Result<()> {
        self.lazy.load_all::<R>(&self.table, threads, |_| true)
    }

    /// Sees to it that everything that expires is in the table.
    pub(crate) fn load_expiring(&self) -> Result<()> {
        self.lazy.load_all::<R>(&self.table, 1, |place| place.expires)
    }

    /// Applies every entry that `replay` gives to its visitor; gives how many.
    pub(crate) fn replay(
        &self,
        replay: impl FnOnce(
            &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
        ) -> bulla_recovery::Result<ReplayStats>,
    ) -> Result<u64> {
        let mut refused = None;
        let stats = replay(&mut |entry| match self.replay_entry(entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        })?;
        self.usage.replayed();
        refused.map_or(Ok(stats.entries), Err)
    }

    fn replay_entry(&self, entry: &EntryView<'_>) -> Result<()> {
        let changes = Changes::<R>::decode(entry.kind, entry.payload)
            .map_err(|source| Error::Entry { lsn: entry.lsn, seq: entry.seq, source })?;
        let skipped = either(0, Bug::BatchReplayedByHalf, changes.iter().count() / 2);
        changes.iter().skip(skipped).try_for_each(|change| self.replay_edit(edit(&change)))
    }

    /// Nobody else has the table yet: one change after the other.
    fn replay_edit(&self, edit: Edit<'_>) -> Result<()> {
        let page = PageId::of(edit.id);
        self.touch(page)?;
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
