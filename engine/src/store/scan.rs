//! Scans of all records, while others change them.
//!
//! Owns no lock: a page is copied as of one moment, and a scan works on the copies.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Store;
use crate::error::Result;
use crate::record::Record;
use crate::state::{State, decode};
use crate::sync::lock;
use crate::table::{Found, PageId};
use crate::token::Token;

/// The most threads of one scan.
const MAX_THREADS: usize = 64;

impl<R: Record> Store<R> {
    /// Reads now what is still only in the checkpoint that the store opened from, with `threads`
    /// threads (1 to 64). Without this call each part is read on first access.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) when a part of it is damaged and can't be
    /// rebuilt: the others can still be read. [`Error::Memory`](crate::Error::Memory).
    pub fn load(&self, threads: usize) -> Result<()> {
        let load = || self.state.load_all(threads.clamp(1, MAX_THREADS));
        self.state.panics.watch(load)
    }

    /// Iterates over the records in order of their ids, while others change them: each record is
    /// shown as it was at some moment of the iteration, and none twice.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn iter(&self) -> Result<Records<'_, R>> {
        self.load(1)?;
        Ok(self.state.iter())
    }

    /// Returns the records for which `fits` returns `true`, in order of their ids, with `threads`
    /// threads (1 to 64). Concurrent changes appear as in [`iter`](Self::iter).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn scan(&self, threads: usize, fits: impl Fn(&R) -> bool + Sync) -> Result<Vec<R>> {
        self.load(threads)?;
        let fits = |record: &R| self.state.panics.watch(|| fits(record));
        let found =
            self.state.each_slab(threads, |records| records.filter(fits).collect::<Vec<_>>());
        Ok(found.into_iter().flatten().collect())
    }

    /// Counts the records for which `fits` returns `true`; see [`scan`](Self::scan).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn count(&self, threads: usize, fits: impl Fn(&R) -> bool + Sync) -> Result<u64> {
        self.load(threads)?;
        let fits = |record: &R| self.state.panics.watch(|| fits(record));
        let counts = self.state.each_slab(threads, |records| records.filter(fits).count() as u64);
        Ok(counts.into_iter().sum())
    }
}

impl<R: Record> State<R> {
    pub(crate) fn iter(&self) -> Records<'_, R> {
        self.records_from(PageId::FIRST, false)
    }

    fn records_from(&self, from: PageId, only_slab: bool) -> Records<'_, R> {
        let bound = only_slab.then_some(from);
        Records { state: self, next: Some(from), bound, page: Vec::new(), at: 0 }
    }

    /// Returns what `work` makes of the records of each slab, in order of their ids.
    fn each_slab<T: Send>(
        &self,
        threads: usize,
        work: impl Fn(Records<'_, R>) -> T + Sync,
    ) -> Vec<T> {
        let slabs = self.table.slabs(false);
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(slabs.len()));
        let run = || {
            // One thread takes each slab; the counter shares nothing else.
            while let Some(slab) = slabs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let made = work(self.records_from(*slab, true));
                lock(&done).push((*slab, made));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(MAX_THREADS).min(slabs.len()) {
                scope.spawn(run);
            }
            run();
        });
        let mut done = std::mem::take(&mut *lock(&done));
        done.sort_unstable_by_key(|(slab, _)| *slab);
        done.into_iter().map(|(_, made)| made).collect()
    }
}

/// An iterator over the records of a store; see [`Store::iter`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless they are consumed"]
pub struct Records<'a, R = Token> {
    state: &'a State<R>,
    /// The page to continue with.
    next: Option<PageId>,
    /// Stays within the slab of this page.
    bound: Option<PageId>,
    page: Vec<Found>,
    /// Records of `page` that were returned.
    at: usize,
}

impl<R: Record> Iterator for Records<'_, R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        while self.at == self.page.len() {
            let from = self.next.take()?;
            let page = self.state.table.copy_from(from, &mut self.page)?;
            if self.bound.is_some_and(|bound| !bound.shares_slab_with(page)) {
                self.page.clear();
                self.at = 0;
                return None;
            }
            self.at = 0;
            self.next = page.next();
        }
        let found = self.page[self.at];
        self.at += 1;
        self.state.panics.watch(|| decode(found.record))
    }
}
