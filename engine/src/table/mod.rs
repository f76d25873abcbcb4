//! The records in memory, by id.
//!
//! Owns the directory of slabs and how changes apply to them. A *page* of 64 records (4 KiB) is
//! the unit of locking and versioning, a *slab* of 512 pages the unit of allocation. The table is
//! a function of the changes applied to it: it reads no clock, runs no policy and knows nothing
//! of the log.

mod ahead;
mod locked;
mod memory;
mod op;
mod page_id;
mod slab;
mod version;

use std::io;
use std::sync::OnceLock;

pub(crate) use locked::LockedPages;
pub(crate) use memory::{PAGE_LEN, PAGE_RECORDS, SLAB_PAGES, SLAB_RECORDS};
pub(crate) use op::{Bytes, TableOp};
pub(crate) use page_id::{PageId, id_in_slab, index};
pub(crate) use slab::{Copied, Found, PageGuard, PageImage, Slab};

use self::ahead::Ahead;
use crate::faults::{Step, pass};
use crate::sync::{RwLock, RwLockReadGuard, read, write};

/// Slabs in a chunk of the directory. The next constant is the number of chunks.
const CHUNK_SLABS: usize = 256;
const CHUNKS: usize = (1 << 32) / (CHUNK_SLABS * SLAB_PAGES * PAGE_RECORDS);

/// The number of slabs that cover all ids.
pub(crate) const SLABS: usize = CHUNKS * CHUNK_SLABS;

/// All records of a store.
pub(crate) struct Table {
    chunks: Box<[OnceLock<Chunk>]>,
    /// `None` where the table may not start a thread.
    ahead: Option<Ahead>,
    /// Held exclusively by a thread that adds a slab, and shared by those that rely on the absence
    /// of one.
    absence: RwLock<()>,
}

/// Slabs are boxed: most places of a chunk are empty when ids are sparse.
type Chunk = Box<[OnceLock<Box<Slab>>]>;

impl Table {
    /// Creates an empty table. With `ahead` a thread allocates slabs before they are needed.
    pub(crate) fn new(ahead: bool) -> Self {
        let chunks = std::iter::repeat_with(OnceLock::new).take(CHUNKS).collect();
        Self { chunks, ahead: ahead.then(Ahead::default), absence: RwLock::new(()) }
    }

    /// Returns a record and the log position of the last change of its page (0: none).
    #[inline(always)]
    pub(crate) fn read(&self, id: u32) -> (Option<Copied>, u64) {
        let page = PageId::of(id);
        match self.slab(page.slab()) {
            Some(slab) => slab.read(page.in_slab(), index(id)),
            None => (None, 0),
        }
    }

    /// Returns whether the slab with this number is in memory.
    pub(crate) fn has(&self, slab: u32) -> bool {
        self.slab(slab as usize).is_some()
    }

    /// Installs a slab; returns `false`, and drops it, if there is one with its number.
    pub(crate) fn install(&self, number: u32, slab: Slab) -> bool {
        self.cell(number as usize).set(Box::new(slab)).is_ok()
    }

    /// Locks a page for writing. A caller that locks several locks them in order.
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

    /// Locks a page if its slab is in memory.
    pub(crate) fn lock_existing(&self, page: PageId) -> Option<PageGuard<'_>> {
        Some(self.slab(page.slab())?.lock(page.in_slab()))
    }

    /// Keeps slabs that are not in memory from being made for a write. A thread that holds this
    /// waits for no page.
    fn lock_absence(&self) -> RwLockReadGuard<'_, ()> {
        read(&self.absence)
    }

    /// Returns the memory that a page no longer needs to the system. The caller holds no page
    /// lock.
    pub(crate) fn tidy(&self, page: PageId) {
        if let Some(slab) = self.slab(page.slab()) {
            slab.tidy(page.in_slab());
        }
    }

    /// Copies the first page at or after `from` that has a record, as of one moment, and returns
    /// it; `None` when there is none.
    pub(crate) fn copy_from(&self, from: PageId, copies: &mut Vec<Found>) -> Option<PageId> {
        copies.clear();
        let mut page = from.in_slab();
        for (number, slab) in self.slabs_from(from.slab()) {
            if number != from.slab() {
                page = 0;
            }
            while page < SLAB_PAGES && !slab.is_empty() {
                if !slab.looks_empty(page) {
                    let found = PageId::at(number, page);
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

    /// Copies a page, with every change of it that was logged before this call, if its last
    /// change is before `lsn` in the log; returns `false` if it is not.
    pub(crate) fn copy_before(&self, page: PageId, lsn: u64, copies: &mut Vec<Found>) -> bool {
        copies.clear();
        let slab = self.slab(page.slab());
        slab.is_none_or(|slab| slab.copy_before(page.in_slab(), page.first_id(), lsn, copies))
    }

    /// Copies one record as [`copy_before`](Self::copy_before) does; returns `None` where that
    /// returns `false`.
    pub(crate) fn find_before(&self, id: u32, lsn: u64) -> Option<Option<Found>> {
        let page = PageId::of(id);
        self.slab(page.slab()).map_or(Some(None), |slab| slab.find_before(page.in_slab(), id, lsn))
    }

    /// Returns the first page at or after `from` whose slab is in memory.
    pub(crate) fn existing_from(&self, from: PageId) -> Option<PageId> {
        if self.slab(from.slab()).is_some() {
            return Some(from);
        }
        self.slabs_from(from.slab()).next().map(|(number, _)| PageId::at(number, 0))
    }

    /// Returns the first page of each slab that is not empty, in order; with `expiring` only of
    /// slabs that may hold a record that expires.
    pub(crate) fn slabs(&self, expiring: bool) -> Vec<PageId> {
        self.slabs_from(0)
            .filter(|(_, slab)| !slab.is_empty() && (!expiring || slab.has_expiries()))
            .map(|(number, _)| PageId::at(number, 0))
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
        let _absence = write(&self.absence);
        // Another thread may have made one in the meantime: then this one is unmapped.
        Ok(self.cell(number).get_or_init(|| slab))
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Applies changes in order to locked pages. `guards` are the pages of all changes, in the order
/// of `pages`. After a panic the caller may apply all of them again.
#[inline]
pub(crate) fn apply(pages: &[PageId], guards: &mut [PageGuard<'_>], ops: &[TableOp<'_>], lsn: u64) {
    // Readers wait from here until the guards are dropped, after the last change: a reader
    // that sees one of these changes sees all of them.
    for guard in guards.iter_mut() {
        guard.begin(lsn);
    }
    pass(Step::Begun);
    for op in ops {
        guard_of(pages, guards, op.id()).apply(*op);
        pass(Step::Edited);
    }
}

/// Notes what the changes will do, and returns how many records and pages in use they add.
#[inline]
pub(crate) fn plan(
    pages: &[PageId],
    guards: &mut [PageGuard<'_>],
    ops: &[TableOp<'_>],
) -> (i64, i64) {
    for op in ops {
        let guard = guard_of(pages, guards, op.id());
        match op {
            TableOp::Put(id, _) => guard.plan(index(*id), true),
            TableOp::Delete(id) => guard.plan(index(*id), false),
            TableOp::Expire(..) => {}
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
