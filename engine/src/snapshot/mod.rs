//! Snapshots: the store as of one position in its log, while others change it.
//!
//! Owns how a snapshot is read; `views.rs` owns which page versions it retains, `retained.rs`
//! their share of the quota. The writer that first changes a page after the snapshot was taken
//! copies it, under the lock that it holds anyway. No write ever fails because of a snapshot:
//! where the quota has no room for both, the snapshot expires. Tested by
//! `engine/tests/snapshot.rs`.

pub(crate) mod retained;
pub(crate) mod views;

use std::sync::Arc;
use std::time::SystemTime;

use bulla_wal::{Log, Lsn};

use crate::error::{Error, Expired, Result};
use crate::record::Record;
use crate::state::{State, decode};
use crate::table::{Found, PageGuard, PageId};
use crate::time::from_ms;
use crate::token::Token;
use retained::RetainedPage;
use views::{MAX_VIEWS, View};

impl<R: Record> State<R> {
    /// Takes a snapshot as of now. All records are in the table.
    pub(crate) fn snapshot(self: &Arc<Self>, log: &Log) -> Result<Snapshot<R>> {
        debug_assert!(self.unloaded.is_empty(), "a snapshot shows what is in the table");
        let view = self.views.take(|| log.cut().0);
        let view = view.ok_or(Error::TooManySnapshots { max: MAX_VIEWS })?;
        Ok(Snapshot { state: Arc::clone(self), view })
    }

    /// Retains pages for the snapshots that come before the change at `lsn`, which is logged and
    /// not yet applied.
    pub(crate) fn retain(&self, pages: &[PageId], guards: &[PageGuard<'_>], lsn: Lsn) {
        for (page, guard) in pages.iter().zip(guards) {
            // A page without a copy was empty.
            if self.views.may_need(guard.lsn()) && !guard.is_empty() {
                let image = || RetainedPage::copy(&self.usage, guard).map(Arc::new);
                self.views.retain(page.first_id(), guard.lsn(), lsn.0, image);
            }
        }
    }
}

/// A store as of one position in its log; see [`Store::snapshot`](crate::Store::snapshot).
/// Threads may share it, and it may outlive the store: it keeps the records in memory as long.
#[derive(Debug)]
#[must_use = "a snapshot that is dropped at once shows nothing"]
pub struct Snapshot<R: Record = Token> {
    state: Arc<State<R>>,
    view: Arc<View<RetainedPage>>,
}

impl<R: Record> Snapshot<R> {
    /// Returns its position in the log: it shows all changes below, and none at or after.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn(self.view.lsn())
    }

    /// Returns the record with this id, if there is one.
    ///
    /// # Errors
    /// [`Expired`]; take a new snapshot.
    pub fn get(&self, id: R::Id) -> Result<Option<R>, Expired> {
        self.state.panics.watch(|| Ok(self.find(id)?.and_then(|found| decode(found.record))))
    }

    /// Returns when the record with this id expires; `None` for never, and where there is no
    /// record.
    ///
    /// # Errors
    /// [`Expired`]; take a new snapshot.
    pub fn expires_at(&self, id: R::Id) -> Result<Option<SystemTime>, Expired> {
        let found = self.state.panics.watch(|| self.find(id))?;
        Ok(found.and_then(|found| from_ms(found.expiry)))
    }

    /// Iterates over the records in order of their ids. An error is the last item.
    pub fn iter(&self) -> SnapshotRecords<'_, R> {
        SnapshotRecords { snapshot: self, next: Some(PageId::FIRST), page: Vec::new(), at: 0 }
    }

    /// Counts the records for which `fits` returns `true`.
    ///
    /// # Errors
    /// [`Expired`]; take a new snapshot.
    pub fn count(&self, fits: impl Fn(&R) -> bool) -> Result<u64, Expired> {
        let fits = |record| self.state.panics.watch(|| fits(&record));
        self.iter().map(|record| record.map(|record| u64::from(fits(record)))).sum()
    }

    /// Copies the first page at or after `from` that has a record, and returns it; `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`Expired`]; take a new snapshot.
    pub(crate) fn copy_from(
        &self,
        from: PageId,
        copies: &mut Vec<Found>,
    ) -> Result<Option<PageId>, Expired> {
        let mut next = Some(from);
        while let Some(page) = next.and_then(|next| self.state.table.existing_from(next)) {
            self.copy(page, copies)?;
            if !copies.is_empty() {
                return Ok(Some(page));
            }
            next = page.next();
        }
        Ok(None)
    }

    fn copy(&self, page: PageId, copies: &mut Vec<Found>) -> Result<(), Expired> {
        if !self.state.table.copy_before(page, self.view.lsn(), copies) {
            match self.retained(page)? {
                Some(retained) => retained.image.copy(page.first_id(), copies),
                None => copies.clear(),
            }
        }
        self.check()
    }

    fn find(&self, id: R::Id) -> Result<Option<Found>, Expired> {
        let id = id.into();
        let found = match self.state.table.find_before(id, self.view.lsn()) {
            Some(found) => found,
            None => self.retained(PageId::of(id))?.and_then(|page| page.image.find(id)),
        };
        self.check().map(|()| found)
    }

    /// Returns the retained version of a page that has changed; `None` if it was empty.
    fn retained(&self, page: PageId) -> Result<Option<Arc<RetainedPage>>, Expired> {
        let retained = self.view.retained(page.first_id());
        self.check().map(|()| retained)
    }

    fn check(&self) -> Result<(), Expired> {
        if self.view.has_expired() {
            self.view.clear();
            return Err(Expired { lsn: self.lsn() });
        }
        Ok(())
    }
}

impl<R: Record> Drop for Snapshot<R> {
    fn drop(&mut self) {
        self.state.panics.watch(|| self.state.views.end(&self.view));
    }
}

impl<'a, R: Record> IntoIterator for &'a Snapshot<R> {
    type Item = Result<R, Expired>;
    type IntoIter = SnapshotRecords<'a, R>;

    fn into_iter(self) -> SnapshotRecords<'a, R> {
        self.iter()
    }
}

/// An iterator over the records of a snapshot; see [`Snapshot::iter`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless they are consumed"]
pub struct SnapshotRecords<'a, R: Record = Token> {
    snapshot: &'a Snapshot<R>,
    /// The page to continue with.
    next: Option<PageId>,
    page: Vec<Found>,
    /// Records of `page` that were returned.
    at: usize,
}

impl<R: Record> Iterator for SnapshotRecords<'_, R> {
    type Item = Result<R, Expired>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at == self.page.len() {
            self.at = 0;
            let from = self.next.take()?;
            match self.snapshot.copy_from(from, &mut self.page) {
                Ok(page) => self.next = page?.next(),
                Err(expired) => {
                    self.page.clear();
                    return Some(Err(expired));
                }
            }
        }
        let found = self.page[self.at];
        self.at += 1;
        self.snapshot.state.panics.watch(|| decode(found.record)).map(Ok)
    }
}
