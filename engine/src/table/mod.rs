//! The records in memory, by id.
//!
//! Owns where a record is: an id says slab, page and place. A *page* of 64 records (4 KiB)
//! is the unit of lock and version, a *slab* of 512 pages that of allocation. A function of
//! the changes applied: reads no clock, runs no policy, knows nothing of the log.

mod ahead;
mod memory;
mod slab;
mod version;

use std::io;
use std::sync::OnceLock;

pub(crate) use memory::{PAGE_LEN, PAGE_RECORDS, SLAB_PAGES, SLAB_RECORDS};
pub(crate) use slab::{Bytes, Copied, Found, PageGuard, PageImage, Slab};

use self::ahead::Ahead;
use crate::steps::{Step, pass};

/// Slabs of a chunk of the directory, and chunks.
const CHUNK_SLABS: usize = 256;
const CHUNKS: usize = (1 << 32) / (CHUNK_SLABS * SLAB_PAGES * PAGE_RECORDS);

/// Slabs that there can be.
pub(crate) const SLABS: usize = CHUNKS * CHUNK_SLABS;

/// An id without these bits is its page's.
const PAGE_SHIFT: u32 = PAGE_RECORDS.trailing_zeros();

/// One change of one record, its id told apart from its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) id: u32,
    pub(crate) what: What<'a>,
}

/// What an [`Edit`] does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What<'a> {
    /// Insert or replace; the record never expires.
    Put(&'a Bytes),
    /// Remove, if it is there.
    Delete,
    /// If it is there: let it expire at this time in ms since 1970, 0 for never.
    Expire(u64),
}

/// A page of 64 records: the number of its first id, divided by 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PageId(u32);

impl PageId {
    /// The page of an id.
    pub(crate) const fn of(id: u32) -> Self {
        Self(id >> PAGE_SHIFT)
    }

    pub(crate) const fn first_id(self) -> u32 {
        self.0 << PAGE_SHIFT
    }

    const fn slab(self) -> usize {
        self.0 as usize / SLAB_PAGES
    }

    /// The number of its slab.
    pub(crate) const fn slab_number(self) -> u32 {
        self.0 >> SLAB_PAGES.trailing_zeros()
    }

    pub(crate) const fn in_slab(self) -> usize {
        self.0 as usize % SLAB_PAGES
    }

    /// The page after this one, if there is one.
    pub(crate) fn next(self) -> Option<Self> {
        let next = Self(self.0 + 1);
        (next <= Self::of(u32::MAX)).then_some(next)
    }

    /// Are they in the same slab?
    pub(crate) const fn is_beside(self, other: Self) -> bool {
        self.slab() == other.slab()
    }

    /// The page `count` after this one in the same slab, counted around its end.
    #[expect(clippy::cast_possible_truncation, reason = "below 512")]
    pub(crate) const fn around(self, count: u64) -> Self {
        let page = (self.in_slab() as u64 + count) % SLAB_PAGES as u64;
        Self((self.slab() * SLAB_PAGES) as u32 + page as u32)
    }
}

/// The id in place `slot` of a slab.
#[expect(clippy::cast_possible_truncation, reason = "below 32,768")]
pub(crate) const fn id_in_slab(slab: u32, slot: usize) -> u32 {
    slab << SLAB_RECORDS.trailing_zeros() | slot as u32
}

/// Where in its page an id is.
pub(crate) const fn index(id: u32) -> usize {
    id as usize % PAGE_RECORDS
}

/// The records.
pub(crate) struct Table {
    chunks: Box<[OnceLock<Chunk>]>,
    /// None where no thread may work in the background.
    ahead: Option<Ahead>,
}

/// Slabs are boxed: most places of a chunk are empty when ids are sparse.
type Chunk = Box<[OnceLock<Box<Slab>>]>;

impl Table {
    /// `ahead`: may a thread make slabs before they are needed?
    pub(crate) fn new(ahead: bool) -> Self {
        let chunks = std::iter::repeat_with(OnceLock::new).take(CHUNKS).collect();
        Self { chunks, ahead: ahead.then(Ahead::default) }
    }

    /// A record, and where in the log the last change of its page is (0: nowhere).
    #[inline(always)]
    pub(crate) fn read(&self, id: u32) -> (Option<Copied>, u64) {
        let page = PageId::of(id);
        match self.slab(page.slab()) {
            Some(slab) => slab.read(page.in_slab(), index(id)),
            None => (None, 0),
        }
    }

    /// Is there a slab with this number?
    pub(crate) fn has(&self, slab: u32) -> bool {
        self.slab(slab as usize).is_some()
    }

    /// Puts a slab where there is none; `false` when there is one.
    pub(crate) fn install(&self, number: u32, slab: Slab) -> bool {
        self.cell(number as usize).set(Box::new(slab)).is_ok()
    }

    /// Locks a page for writing. Whoever locks several does so in order.
    ///
    /// # Errors
    /// When the system has no memory for its slab.
    #[inline]
    pub(crate) fn lock(&self, page: PageId) -> io::Result<PageGuard<'_>> {
        let slab = match self.slab(page.slab()) {
            Some(slab) => slab,
            None => self.make_slab(page.slab())?,
        };
        Ok(slab.lock(page.in_slab()))
    }

    /// Locks a page if it can hold anything.
    pub(crate) fn lock_existing(&self, page: PageId) -> Option<PageGuard<'_>> {
        Some(self.slab(page.slab())?.lock(page.in_slab()))
    }

    /// Gives back what a page need not have any more. The caller has no page locked.
    pub(crate) fn tidy(&self, page: PageId) {
        if let Some(slab) = self.slab(page.slab()) {
            slab.tidy(page.in_slab());
        }
    }

    /// Copies the first page at or after `from` with a record in it, as of one moment.
    /// `None` when there is none.
    pub(crate) fn copy_from(&self, from: PageId, copies: &mut Vec<Found>) -> Option<PageId> {
        copies.clear();
        let mut page = from.in_slab();
        for (number, slab) in self.slabs_from(from.slab()) {
            if number != from.slab() {
                page = 0;
            }
            while page < SLAB_PAGES && !slab.is_empty() {
                if !slab.looks_empty(page) {
                    let found = page_id(number, page);
                    slab.copy(page, found.first_id(), copies);
                    if !copies.is_empty() {
                        return Some(found);
                    }
                }
                page += 1;
            }
        }
        None
    }

    /// Copies a page as [`copy_from`](Self::copy_from) does, with every change of it that was
    /// logged before this call, if its last change is before `lsn` in the log; else `false`.
    pub(crate) fn copy_before(&self, page: PageId, lsn: u64, copies: &mut Vec<Found>) -> bool {
        copies.clear();
        let slab = self.slab(page.slab());
        slab.is_none_or(|slab| slab.copy_before(page.in_slab(), page.first_id(), lsn, copies))
    }

    /// As [`copy_before`](Self::copy_before), of one record; `None` where that is `false`.
    pub(crate) fn find_before(&self, id: u32, lsn: u64) -> Option<Option<Found>> {
        let page = PageId::of(id);
        self.slab(page.slab()).map_or(Some(None), |slab| slab.find_before(page.in_slab(), id, lsn))
    }

    /// The first page at or after `from` that was ever written, or that is beside one.
    pub(crate) fn existing_from(&self, from: PageId) -> Option<PageId> {
        if self.slab(from.slab()).is_some() {
            return Some(from);
        }
        self.slabs_from(from.slab()).next().map(|(number, _)| page_id(number, 0))
    }

    /// The first pages of the slabs that there are, in order; of those only that may hold
    /// something that expires, if `expiring`.
    pub(crate) fn slabs(&self, expiring: bool) -> Vec<PageId> {
        self.slabs_from(0)
            .filter(|(_, slab)| !slab.is_empty() && (!expiring || slab.has_expiries()))
            .map(|(number, _)| page_id(number, 0))
            .collect()
    }

    fn slabs_from(&self, first: usize) -> impl Iterator<Item = (usize, &Slab)> {
        let chunks = self.chunks.iter().enumerate().skip(first / CHUNK_SLABS);
        chunks
            .filter_map(|(number, chunk)| Some((number, chunk.get()?)))
            .flat_map(|(number, chunk)| {
                let slabs = chunk.iter().enumerate();
                slabs.filter_map(move |(at, slab)| {
                    Some((number * CHUNK_SLABS + at, slab.get()?.as_ref()))
                })
            })
            .skip_while(move |(number, _)| *number < first)
    }

    #[inline]
    fn slab(&self, number: usize) -> Option<&Slab> {
        let chunk = self.chunks[number / CHUNK_SLABS].get()?;
        chunk[number % CHUNK_SLABS].get().map(Box::as_ref)
    }

    fn cell(&self, number: usize) -> &OnceLock<Box<Slab>> {
        let chunk = self.chunks[number / CHUNK_SLABS]
            .get_or_init(|| std::iter::repeat_with(OnceLock::new).take(CHUNK_SLABS).collect());
        &chunk[number % CHUNK_SLABS]
    }

    #[cold]
    fn make_slab(&self, number: usize) -> io::Result<&Slab> {
        let before = number.checked_sub(1).and_then(|before| self.slab(before));
        let dense = before.is_some_and(Slab::is_dense);
        let ahead = self.ahead.as_ref().filter(|_| dense).and_then(Ahead::next);
        let slab = Box::new(ahead.map_or_else(|| Slab::new(dense), Ok)?);
        pass(Step::SlabMade);
        // Another thread may have made one meanwhile: then this one is unmapped again.
        Ok(self.cell(number).get_or_init(|| slab))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are 2^26 pages")]
const fn page_id(slab: usize, page: usize) -> PageId {
    PageId((slab * SLAB_PAGES + page) as u32)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Applies changes to pages that are locked, in order, and begins to write there.
/// `guards` are the pages of all of them, sorted by `pages`. After a panic it can be done
/// again, from the first change on.
#[inline]
pub(crate) fn apply(pages: &[PageId], guards: &mut [PageGuard<'_>], edits: &[Edit<'_>], lsn: u64) {
    // Readers wait from here until the guards are dropped, after the last change: whoever
    // sees one of these changes will see all.
    for guard in guards.iter_mut() {
        guard.begin(lsn);
    }
    pass(Step::Begun);
    for edit in edits {
        guard_of(pages, guards, edit.id).edit(*edit);
        pass(Step::Edited);
    }
}

/// What the changes will add to records and pages in use.
#[inline]
pub(crate) fn plan(
    pages: &[PageId],
    guards: &mut [PageGuard<'_>],
    edits: &[Edit<'_>],
) -> (i64, i64) {
    for edit in edits {
        let guard = guard_of(pages, guards, edit.id);
        match edit.what {
            What::Put(_) => guard.plan(index(edit.id), true),
            What::Delete => guard.plan(index(edit.id), false),
            What::Expire(_) => {}
        }
    }
    guards.iter().map(PageGuard::growth).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[inline]
fn guard_of<'g, 't>(
    pages: &[PageId],
    guards: &'g mut [PageGuard<'t>],
    id: u32,
) -> &'g mut PageGuard<'t> {
    // Most changes are on one page.
    if let [guard] = guards {
        return guard;
    }
    let at = pages.binary_search(&PageId::of(id)).expect("all pages are locked");
    &mut guards[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_counted_around_its_slab_stays_in_it() {
        let pages = SLAB_PAGES as u64;
        let slab = u32::try_from(pages).expect("few");
        let page = |number: u32| PageId(3 * slab + number);
        assert_eq!(page(5).around(0), page(5));
        assert_eq!(page(5).around(pages - 6), page(slab - 1));
        assert_eq!(page(5).around(pages - 5), page(0));
        assert_eq!(page(5).around(2 * pages + 7), page(12));
    }
}
