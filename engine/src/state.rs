//! What a log says: the records, and how much of the quota they use.
//!
//! Owns replay, for a store that is opened and for one that is only looked at. A pure
//! function of the log: no clock, no policy, and no quota refuses what was logged.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

use bulla_recovery::{EntryView, ReplayStats};
use bulla_storage::faults::mutants::{Bug, planted};

use crate::checkpoint::{Base, Lazy};
use crate::entries::{self, EntryError};
use crate::error::{Error, Result};
use crate::panics::Panics;
use crate::quota::{Growth, Quota, Usage};
use crate::record::Record;
use crate::snapshot::Kept;
use crate::table::{Copied, Edit, PageGuard, PageId, Table, What, index};
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
    /// `ahead`: may a thread find memory for records before they come?
    pub(crate) fn new(quota: Quota, ahead: bool) -> Self {
        let usage = Arc::new(Usage::new(quota));
        let (table, views, lazy) = (Table::new(ahead), Views::new(), Lazy::default());
        Self { table, usage, views, lazy, panics: Panics::new(), records: PhantomData }
    }

    /// A state that begins with what a checkpoint holds, and with none of it in the table.
    pub(crate) fn begin(&self, base: Base) {
        let head = &base.newest.head;
        // Bounded by the number of ids.
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (records, pages) = (count(head.records), count(head.pages));
        if !planted(Bug::QuotaForgetsCheckpoint) {
            self.usage.replayed(Growth { records, pages });
        }
        self.lazy.begin(base);
    }

    /// A record, and where in the log the last change of its page is (0: nowhere).
    #[inline(always)]
    pub(crate) fn read(&self, id: u32) -> Result<(Option<Copied>, u64)> {
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
    #[inline]
    pub(crate) fn touch(&self, page: PageId) -> Result<()> {
        if self.lazy.is_done() { Ok(()) } else { self.lazy.touch::<R>(&self.table, page) }
    }

    /// Sees to it that everything is in the table; so many threads read.
    pub(crate) fn load_all(&self, threads: usize) -> Result<()> {
        self.lazy.load_all::<R>(&self.table, threads, |_| true)
    }

    /// Sees to it that everything that expires is in the table.
    pub(crate) fn load_expiring(&self) -> Result<()> {
        self.lazy
            .load_all::<R>(&self.table, 1, |place| place.expires && !planted(Bug::ExpiryNotLoaded))
    }

    /// Applies every entry that `replay` gives to its visitor; gives how many.
    pub(crate) fn replay(
        &self,
        replay: impl FnOnce(
            &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
        ) -> bulla_recovery::Result<ReplayStats>,
    ) -> Result<u64> {
        let mut replayer = Replayer::new(self);
        let mut refused = None;
        let stats = replay(&mut |entry| match replayer.entry(entry) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        })?;
        self.usage.replayed(replayer.end());
        refused.map_or(Ok(stats.entries), Err)
    }
}

/// Makes the changes of a log in a table that nobody else has yet. A page stays locked as
/// long as the changes are on it.
struct Replayer<'a, R> {
    state: &'a State<R>,
    page: Option<(PageId, PageGuard<'a>)>,
    growth: Growth,
}

impl<'a, R: Record> Replayer<'a, R> {
    fn new(state: &'a State<R>) -> Self {
        Self { state, page: None, growth: Growth { records: 0, pages: 0 } }
    }

    #[inline]
    fn entry(&mut self, entry: &EntryView<'_>) -> Result<()> {
        entries::for_each_edit::<R, _>(entry.kind, entry.payload, |edit| self.edit(edit)).map_err(
            |refused| match refused {
                Refused::Entry(source) => Error::Entry { lsn: entry.lsn, seq: entry.seq, source },
                Refused::State(error) => error,
            },
        )
    }

    #[inline]
    fn edit(&mut self, edit: Edit<'_>) -> Result<(), Refused> {
        let page = PageId::of(edit.id);
        if self.page.as_ref().is_none_or(|(locked, _)| *locked != page) {
            self.turn_to(page, matches!(edit.what, What::Put(_)))?;
        }
        if let Some((_, guard)) = &mut self.page {
            guard.edit(edit);
        }
        Ok(())
    }

    /// Locks the page instead of the one before, with what a checkpoint has of it; if it
    /// can't hold anything yet, only when there is something to `put`.
    fn turn_to(&mut self, page: PageId, put: bool) -> Result<(), Refused> {
        self.leave();
        // It may wait for the disk: no page is locked now.
        if !planted(Bug::ReplayDoesNotTouch) {
            self.state.touch(page).map_err(Refused::State)?;
        }
        let table = &self.state.table;
        let guard = if put {
            Some(table.lock(page).map_err(|error| Refused::State(Error::Memory(error)))?)
        } else {
            table.lock_existing(page)
        };
        self.page = guard.map(|mut guard| {
            guard.begin(REPLAYED);
            (page, guard)
        });
        Ok(())
    }

    fn leave(&mut self) {
        let Some((page, guard)) = self.page.take() else { return };
        let (records, pages) = guard.grown();
        self.growth.records += records;
        self.growth.pages += pages;
        let is_empty = guard.is_empty();
        drop(guard);
        if is_empty {
            self.state.table.tidy(page);
        }
    }

    /// What all changes added.
    fn end(mut self) -> Growth {
        self.leave();
        self.growth
    }
}

/// Why an entry is not replayed.
enum Refused {
    Entry(EntryError),
    State(Error),
}

impl From<EntryError> for Refused {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}
