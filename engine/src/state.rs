//! The state that a log describes: the records, and how much of the quota they use.
//!
//! Owns replay, both for a store that opens and for one that is only inspected. State is a pure
//! function of the log: replay reads no clock and runs no policy, and no quota refuses what was
//! logged.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::Arc;

use bulla_recovery::{EntryView, ReplayStats};

use crate::checkpoint::fault_in::Unloaded;
use crate::checkpoint::source::CheckpointSource;
use crate::entries::{self, EntryError};
use crate::error::{Error, Result};
use crate::faults;
use crate::panics::Panics;
use crate::quota::{Growth, Quota, Usage};
use crate::record::Record;
use crate::snapshot::retained::RetainedPage;
use crate::snapshot::views::Views;
use crate::table::{Bytes, Copied, PageGuard, PageId, Table, TableOp, index};

/// Threads that read a checkpoint where the caller does not say how many.
pub(crate) const LOAD_THREADS: usize = 2;
/// The log position of replayed changes: they are durable, so their own does not matter.
const REPLAYED: u64 = 0;

#[derive(Debug)]
pub(crate) struct State<R> {
    pub(crate) table: Table,
    pub(crate) usage: Arc<Usage>,
    pub(crate) views: Views<RetainedPage>,
    pub(crate) unloaded: Unloaded,
    pub(crate) panics: Panics,
    records: PhantomData<R>,
}

/// Returns a record of the table, which checks all bytes before it stores them.
#[inline]
pub(crate) fn decode<R: Record>(record: Copied) -> Option<R> {
    let bytes: Bytes = zerocopy::transmute!(record);
    let record = R::from_bytes(&bytes);
    debug_assert!(record.is_ok(), "the table holds valid records only");
    record.ok()
}

impl<R: Record> State<R> {
    /// Creates an empty state. With `ahead` a thread allocates memory before records need it.
    pub(crate) fn new(quota: Quota, ahead: bool) -> Self {
        let usage = Arc::new(Usage::new(quota));
        let (table, views, unloaded) = (Table::new(ahead), Views::new(), Unloaded::default());
        Self { table, usage, views, unloaded, panics: Panics::new(), records: PhantomData }
    }

    /// Begins with the records of a checkpoint, none of which is in the table yet.
    pub(crate) fn begin(&self, source: CheckpointSource) {
        let head = &source.newest.head;
        // Bounded by the number of ids.
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (records, pages) = (count(head.records), count(head.pages));
        self.usage.replayed(faults::state::of_checkpoint(Growth { records, pages }));
        self.unloaded.begin(source);
    }

    /// Returns a record and the log position of the last change of its page (0: none).
    #[inline(always)]
    pub(crate) fn read(&self, id: u32) -> Result<(Option<Copied>, u64)> {
        self.fault_in(PageId::of(id))?;
        Ok(self.table.read(id))
    }

    /// Returns how many records there are, including those of writes in progress.
    pub(crate) fn len(&self) -> usize {
        // An address space that holds the records holds their number.
        usize::try_from(self.usage.records()).unwrap_or(usize::MAX)
    }

    /// Returns a record, and when it expires (0: never).
    pub(crate) fn read_with_expiry(&self, id: u32) -> Result<(Option<Copied>, u64)> {
        self.fault_in(PageId::of(id))?;
        let guard = self.table.lock_existing(PageId::of(id));
        Ok(guard.map_or((None, 0), |guard| (guard.read(index(id)), guard.expiry(index(id)))))
    }

    /// Returns when a record expires; 0 for never, and where there is none.
    pub(crate) fn expiry(&self, id: u32) -> Result<u64> {
        self.fault_in(PageId::of(id))?;
        let guard = self.table.lock_existing(PageId::of(id));
        Ok(guard.map_or(0, |guard| guard.expiry(index(id))))
    }

    /// Faults in the slab of a page: reads it from the checkpoint if it is still only there. The
    /// caller has locked no page.
    #[inline]
    pub(crate) fn fault_in(&self, page: PageId) -> Result<()> {
        if self.unloaded.is_empty() {
            Ok(())
        } else {
            self.unloaded.fault_in::<R>(&self.table, page)
        }
    }

    /// Faults in all slabs, with `threads` threads.
    pub(crate) fn load_all(&self, threads: usize) -> Result<()> {
        self.unloaded.load_all::<R>(&self.table, threads, |_| true)
    }

    /// Faults in all slabs that have a record that expires.
    pub(crate) fn load_expiring(&self) -> Result<()> {
        let expires = faults::state::expires;
        self.unloaded.load_all::<R>(&self.table, 1, |place| expires(place.expires))
    }

    /// Applies every entry that `replay` passes to its visitor; returns how many there were.
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

/// Applies the changes of a log to a table that no other thread has yet. A page stays locked
/// while consecutive changes are on it.
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
        let payload = faults::state::payload(entry.kind, entry.payload);
        let applied = entries::for_each_op::<R, _>(entry.kind, payload, |op| self.apply(op));
        applied.map_err(|refused| match refused {
            Refused::Entry(source) => Error::Entry { lsn: entry.lsn, seq: entry.seq, source },
            Refused::State(error) => error,
        })
    }

    #[inline]
    fn apply(&mut self, op: TableOp<'_>) -> Result<(), Refused> {
        let page = PageId::of(op.id());
        if self.page.as_ref().is_none_or(|(locked, _)| *locked != page) {
            self.turn_to(page, matches!(op, TableOp::Put(..)))?;
        }
        if let Some((_, guard)) = &mut self.page {
            guard.apply(op);
        }
        Ok(())
    }

    /// Locks a page instead of the one before, after faulting in its slab. A slab that is not in
    /// memory is created only for a `put`.
    fn turn_to(&mut self, page: PageId, put: bool) -> Result<(), Refused> {
        self.leave();
        // It may wait for the disk: no page is locked now.
        for page in faults::state::replayed(&[page]) {
            self.state.fault_in(*page).map_err(Refused::State)?;
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

    /// Returns what all changes added.
    fn end(mut self) -> Growth {
        self.leave();
        self.growth
    }
}

/// Why an entry was not replayed.
enum Refused {
    Entry(EntryError),
    State(Error),
}

impl From<EntryError> for Refused {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}
