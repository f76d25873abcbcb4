//! Snapshots: the store as of one position in its log, while others change it.
//!
//! Owns how a snapshot is read and what is kept for it within the quota; which pages are
//! kept is in `views.rs`. A page is copied when it is first changed after the snapshot was
//! taken, by the writer, under the lock that it has anyhow. No write ever fails because of
//! a snapshot: where the quota has no room for both, the snapshot expires. Tested by
//! `engine/tests/snapshot.rs`.

use std::sync::Arc;

use bulla_wal::{Log, Lsn};

use crate::error::{Error, Result};
use crate::quota::{QuotaError, Usage};
use crate::record::Record;
use crate::state::State;
use crate::store::{LOAD_THREADS, Store, decode};
use crate::table::{Found, PageGuard, PageId, PageImage};
use crate::token::Token;
use crate::views::{MAX_VIEWS, View};

/// A snapshot had to make way: there was no room in the quota for a page that it had and
/// for changes of records. What was read of it before was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the snapshot at LSN {lsn} has expired: what it kept made way for changes")]
#[non_exhaustive]
pub struct Expired {
    /// The position of the snapshot.
    pub lsn: Lsn,
}

impl<R: Record> Store<R> {
    /// The store as of now, to be read while others change it: every change that is logged
    /// before a position, and none that is logged at or after it.
    ///
    /// Takes no copy: a page (of 64 consecutive ids) is copied when it is first changed
    /// afterwards. The copies count as bytes of the [`Quota`](crate::Quota) until the
    /// snapshot is dropped; when there is no room for one, the snapshot expires, and no
    /// write fails. At most 16 live at once.
    ///
    /// It can show changes that a crash can still undo: after a [`sync`](Self::sync) that
    /// begins after it was taken, it shows none.
    ///
    /// Reads what is still in the checkpoint that the store was opened from.
    ///
    /// # Errors
    /// [`Error::TooManySnapshots`], and as [`load`](Self::load).
    pub fn snapshot(&self) -> Result<Snapshot<'_, R>> {
        self.state.panics.watch(|| {
            self.state.load_all(LOAD_THREADS)?;
            self.state.snapshot(&self.log)
        })
    }
}

impl<R: Record> State<R> {
    /// The state as of now in this log. Everything is in the table.
    pub(crate) fn snapshot(&self, log: &Log) -> Result<Snapshot<'_, R>> {
        debug_assert!(self.lazy.is_done(), "a snapshot shows what is in the table");
        let view = self.views.take(|| log.cut().0);
        let view = view.ok_or(Error::TooManySnapshots { max: MAX_VIEWS })?;
        Ok(Snapshot { state: self, view })
    }
}

/// A store as of one position in its log; see [`Store::snapshot`]. Threads may share it.
#[derive(Debug)]
pub struct Snapshot<'a, R: Record = Token> {
    state: &'a State<R>,
    view: Arc<View<Kept>>,
}

impl<R: Record> Snapshot<'_, R> {
    /// Where in the log it is: all changes below are in it, none at or after.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn(self.view.lsn())
    }

    /// The record with this id, if there is one.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn get(&self, id: R::Id) -> Result<Option<R>, Expired> {
        self.state.panics.watch(|| Ok(self.find(id)?.and_then(|found| decode(found.record))))
    }

    /// When the record with this id expires, in ms since 1970; `None` for never, and where
    /// there is no record.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn expires_at(&self, id: R::Id) -> Result<Option<u64>, Expired> {
        let found = self.state.panics.watch(|| self.find(id))?;
        Ok(found.map(|found| found.expiry).filter(|at| *at != 0))
    }

    /// The records in order of their ids. An error is the last item.
    #[must_use]
    pub fn iter(&self) -> SnapshotRecords<'_, R> {
        SnapshotRecords { snapshot: self, next: Some(PageId::of(0)), page: Vec::new(), at: 0 }
    }

    /// How many records `fits` says fit.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn count(&self, fits: impl Fn(&R) -> bool) -> Result<u64, Expired> {
        let fits = |record| self.state.panics.watch(|| fits(&record));
        self.iter().map(|record| record.map(|record| u64::from(fits(record)))).sum()
    }

    /// Copies the first page at or after `from` with a record in it. `None` when there is
    /// none.
    ///
    /// # Errors
    /// [`Expired`].
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
            match self.kept(page)? {
                Some(kept) => kept.image.copy(page.first_id(), copies),
                None => copies.clear(),
            }
        }
        self.check()
    }

    fn find(&self, id: R::Id) -> Result<Option<Found>, Expired> {
        let id = id.into();
        let found = match self.state.table.find_before(id, self.view.lsn()) {
            Some(found) => found,
            None => self.kept(PageId::of(id))?.and_then(|kept| kept.image.find(id)),
        };
        self.check().map(|()| found)
    }

    /// What was kept of a page that has changed; `None` if nothing was in it.
    fn kept(&self, page: PageId) -> Result<Option<Arc<Kept>>, Expired> {
        let kept = self.view.kept(page.first_id());
        self.check().map(|()| kept)
    }

    fn check(&self) -> Result<(), Expired> {
        if self.view.has_expired() {
            self.view.clear();
            return Err(Expired { lsn: self.lsn() });
        }
        Ok(())
    }
}

impl<R: Record> Drop for Snapshot<'_, R> {
    fn drop(&mut self) {
        self.state.panics.watch(|| self.state.views.end(&self.view));
    }
}

impl<'a, R: Record> IntoIterator for &'a Snapshot<'_, R> {
    type Item = Result<R, Expired>;
    type IntoIter = SnapshotRecords<'a, R>;

    fn into_iter(self) -> SnapshotRecords<'a, R> {
        self.iter()
    }
}

/// Iterates over the records of a snapshot; see [`Snapshot::iter`].
#[derive(Debug)]
pub struct SnapshotRecords<'a, R: Record = Token> {
    snapshot: &'a Snapshot<'a, R>,
    /// The page to go on with.
    next: Option<PageId>,
    page: Vec<Found>,
    /// Records of `page` that were given.
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

impl<R: Record> State<R> {
    /// Keeps what pages hold for the snapshots that come before the change at `lsn`, which
    /// is logged and not yet made there.
    pub(crate) fn keep(&self, pages: &[PageId], guards: &[PageGuard<'_>], lsn: Lsn) {
        for (page, guard) in pages.iter().zip(guards) {
            // A page without a copy was empty.
            if self.views.want(guard.lsn()) && !guard.is_empty() {
                let image = || Kept::new(&self.usage, guard).map(Arc::new);
                self.views.keep(page.first_id(), guard.lsn(), lsn.0, image);
            }
        }
    }

    /// After a write that did not fit: does what is kept for snapshots make way for it?
    /// The caller has no page locked.
    pub(crate) fn make_way(&self, refused: &QuotaError) -> bool {
        let may_fit = self.usage.may_fit(refused);
        if may_fit && !self.views.give_way() {
            // Another thread is just about to keep a page, or to drop one.
            std::thread::yield_now();
        }
        may_fit
    }
}

/// A page that is kept, and counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    image: PageImage,
    usage: Arc<Usage>,
}

impl Kept {
    fn new(usage: &Arc<Usage>, guard: &PageGuard<'_>) -> Option<Self> {
        if !usage.keep() {
            return None;
        }
        let Some(image) = guard.image() else {
            usage.unkeep();
            return None;
        };
        Some(Self { image, usage: Arc::clone(usage) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.usage.unkeep();
    }
}
