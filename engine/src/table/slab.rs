//! A slab and its pages: how records are read while others write.
//!
//! Owns the use of the slab's memory: who may access what, and when memory returns to the
//! system. A page returns its 4 KiB as soon as its last record is deleted (unless the machine's
//! own pages are longer), so that the quota counts what is in use. Tested by
//! `engine/tests/threads.rs`, and its use of memory by `engine/tests/memory.rs`.

use std::array;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32};

use super::memory::{PAGE_RECORDS, PageHeader, SHARED_PAGES, SLAB_PAGES, SlabMemory, Words};
use super::op::{Bytes, TableOp};
use super::page_id::{PAGE_SHIFT, index};
use crate::faults::{Step, pass};
use crate::record::RECORD_LEN;
use crate::sync::{AtomicU64, Ordering};

/// A copy of a record, as the words in which it was read. The compiler would move bytes in odd
/// pieces through options and tuples, and a load across such pieces waits for memory, so that
/// reads do not overlap.
pub(crate) type Copied = [u64; RECORD_LEN / size_of::<u64>()];

/// A copy of a record, with its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: u32,
    pub(crate) record: Copied,
    /// When it expires, in ms since 1970; 0 for never.
    pub(crate) expiry: u64,
}

/// A slab with this many pages in use is dense: it asks for huge pages.
const DENSE_PAGES: u32 = 256;
#[expect(clippy::cast_possible_truncation, reason = "512")]
const ALL_PAGES: u32 = SLAB_PAGES as u32;

/// Memory for 32,768 records with consecutive ids.
#[derive(Debug)]
pub(crate) struct Slab {
    memory: SlabMemory,
    /// Pages that have a record. Records are not counted: every insertion would pay for it.
    in_use: AtomicU32,
    is_dense: AtomicBool,
    /// Eight pages share the memory of their expiry times. One bit for each eight: whether any of
    /// the times was set since that memory was last released.
    expiring: AtomicU64,
}

impl Slab {
    /// Creates an empty slab.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn new(dense: bool) -> io::Result<Self> {
        Ok(Self {
            memory: SlabMemory::new(dense)?,
            in_use: AtomicU32::new(0),
            is_dense: AtomicBool::new(dense),
            expiring: AtomicU64::new(0),
        })
    }

    /// Creates an empty slab that is expected to fill, with all of its memory provided.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn populated() -> io::Result<Self> {
        let slab = Self::new(true)?;
        slab.memory.populate();
        Ok(slab)
    }

    /// Creates a slab with the records of a checkpoint: of each page those with a bit in
    /// `occupied`, in order, and the time at which each expires (nothing if none does).
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn restore<'a>(
        occupied: impl Fn(usize) -> u64,
        records: impl IntoIterator<Item = &'a Bytes>,
        expiries: impl IntoIterator<Item = u64>,
    ) -> io::Result<Self> {
        let in_use: u32 = (0..SLAB_PAGES).map(|page| u32::from(occupied(page) != 0)).sum();
        let slab = Self::new(in_use >= DENSE_PAGES)?;
        let (mut records, mut expiries) = (records.into_iter(), expiries.into_iter());
        for page in 0..SLAB_PAGES {
            let occupied = occupied(page);
            slab.memory.header(page).occupied.store(occupied, Ordering::Relaxed);
            let mut left = occupied;
            while left != 0 {
                let slot = page * PAGE_RECORDS + left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(bytes) = records.next() {
                    store(slab.memory.record(slot), bytes);
                }
                if let Some(expiry) = expiries.next().filter(|expiry| *expiry != 0) {
                    slab.begin_expiring(page);
                    slab.memory.expiry(slot).store(expiry, Ordering::Relaxed);
                }
            }
        }
        // No other thread has the slab yet: publishing it publishes all of this.
        slab.in_use.store(in_use, Ordering::Relaxed);
        Ok(slab)
    }

    /// Creates a slab with every record that it can have, none of which expires; `fill` writes
    /// the bytes of all of them.
    ///
    /// # Errors
    /// When the system has no memory for it, and those of `fill`.
    pub(crate) fn filled<E: From<io::Error>>(
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut slab = Self::new(true)?;
        fill(slab.memory.records_mut())?;
        for page in 0..SLAB_PAGES {
            slab.memory.header(page).occupied.store(u64::MAX, Ordering::Relaxed);
        }
        slab.in_use = AtomicU32::new(ALL_PAGES);
        Ok(slab)
    }

    /// Counts the records, page by page, while nobody changes them.
    pub(crate) fn records(&self) -> u32 {
        let header = |page| self.memory.header(page);
        (0..SLAB_PAGES).map(|page| header(page).occupied.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Returns whether enough pages are in use that the next slab will probably fill, too.
    pub(super) fn is_dense(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) >= DENSE_PAGES
    }

    pub(super) fn has_expiries(&self) -> bool {
        self.expiring.load(Ordering::Relaxed) != 0
    }

    /// Returns whether a record of this page may expire.
    fn may_expire(&self, page: usize) -> bool {
        self.expiring.load(Ordering::Relaxed) & sharing_bit(page) != 0
    }

    /// Notes that a record of this page may expire. The caller has locked the page, or is the
    /// only owner of the slab.
    fn begin_expiring(&self, page: usize) {
        if !self.may_expire(page) {
            self.expiring.fetch_or(sharing_bit(page), Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) == 0
    }

    /// Returns whether the page has no record right now. Only a hint.
    pub(super) fn looks_empty(&self, page: usize) -> bool {
        self.memory.header(page).occupied.load(Ordering::Relaxed) == 0
    }

    /// Returns a record and the log position of the last change of its page.
    #[inline(always)]
    pub(super) fn read(&self, page: usize, index: usize) -> (Option<Copied>, u64) {
        let header = self.memory.header(page);
        let words = self.memory.record(page * PAGE_RECORDS + index);
        header.version.read(|| {
            let there = header.occupied.load(Ordering::Relaxed) & bit(index) != 0;
            let record = if there { Some(load(words)) } else { None };
            (record, header.lsn.load(Ordering::Relaxed))
        })
    }

    /// Copies the records of a page, as of one moment, in order. `first` is the page's first id.
    pub(super) fn copy(&self, page: usize, first: u32, copies: &mut Vec<Found>) {
        self.memory.header(page).version.read(|| self.copy_now(page, first, copies));
    }

    /// Copies as [`copy`](Self::copy) does, with every change that was logged before this call,
    /// if the page's last change is before `lsn` in the log; returns `false` if it is not.
    pub(super) fn copy_before(
        &self,
        page: usize,
        first: u32,
        lsn: u64,
        copies: &mut Vec<Found>,
    ) -> bool {
        self.before(page, lsn, || self.copy_now(page, first, copies)).is_some()
    }

    /// Copies one record as [`copy_before`](Self::copy_before) does; returns `None` where that
    /// returns `false`.
    pub(super) fn find_before(&self, page: usize, id: u32, lsn: u64) -> Option<Option<Found>> {
        let occupied = &self.memory.header(page).occupied;
        let slot = page * PAGE_RECORDS + index(id);
        self.before(page, lsn, || {
            let there = occupied.load(Ordering::Relaxed) & bit(index(id)) != 0;
            there.then(|| self.found(slot, id, self.may_expire(page)))
        })
    }

    fn before<T>(&self, page: usize, lsn: u64, copy: impl FnMut() -> T) -> Option<T> {
        let header = self.memory.header(page);
        header.version.read_before(&header.lsn, lsn, copy)
    }

    /// Copies the records as they are right now; the copy is torn if others change them.
    fn copy_now(&self, page: usize, first: u32, copies: &mut Vec<Found>) {
        copies.clear();
        let occupied = self.memory.header(page).occupied.load(Ordering::Relaxed);
        let expires = self.may_expire(page);
        for (index, id) in ids(first).enumerate() {
            if occupied & bit(index) != 0 {
                copies.push(self.found(page * PAGE_RECORDS + index, id, expires));
            }
        }
    }

    fn found(&self, slot: usize, id: u32, expires: bool) -> Found {
        let expiry = if expires { self.memory.expiry(slot).load(Ordering::Relaxed) } else { 0 };
        Found { id, record: load(self.memory.record(slot)), expiry }
    }

    /// Locks a page for writing.
    #[inline]
    pub(crate) fn lock(&self, page: usize) -> PageGuard<'_> {
        let header = self.memory.header(page);
        header.version.lock();
        let occupied = header.occupied.load(Ordering::Relaxed);
        PageGuard {
            slab: self,
            page,
            header,
            before: occupied,
            planned: occupied,
            has_begun: false,
        }
    }

    /// Releases the memory of a page's expiry times if no page that shares it has a record. The
    /// caller has locked no page of the slab.
    pub(super) fn tidy(&self, page: usize) {
        let first = page - page % SHARED_PAGES;
        let is_unused = || (first..first + SHARED_PAGES).all(|page| self.looks_empty(page));
        if !self.may_expire(page) || !is_unused() {
            return;
        }
        // With all of them locked nobody sets an expiry time; writers lock in this order, too.
        let _guards: [_; SHARED_PAGES] = array::from_fn(|at| self.lock(first + at));
        pass(Step::SharedLocked);
        if is_unused() {
            // Release pairs with the fence of readers: a reader that sees the bit cleared sees
            // the versions of the pages whose last records were deleted before.
            self.expiring.fetch_and(!sharing_bit(page), Ordering::Release);
            self.memory.release_expiries(page);
        }
    }

    /// Notes that a page got its first record.
    fn page_filled(&self) {
        let in_use = self.in_use.fetch_add(1, Ordering::Relaxed) + 1;
        if in_use == DENSE_PAGES && !self.is_dense.swap(true, Ordering::Relaxed) {
            self.memory.ask_for_huge_pages(true);
        }
    }

    /// Notes that a page lost its last record.
    fn page_emptied(&self) {
        let in_use = self.in_use.fetch_sub(1, Ordering::Relaxed) - 1;
        if in_use == 0 && self.is_dense.swap(false, Ordering::Relaxed) {
            self.memory.ask_for_huge_pages(false);
        }
    }
}

/// The exclusive right to write to a page. Readers proceed until [`begin`](Self::begin), and wait
/// from then on until the guard is dropped.
#[derive(Debug)]
pub(crate) struct PageGuard<'a> {
    slab: &'a Slab,
    page: usize,
    header: &'a PageHeader,
    /// The records that the page had when it was locked.
    before: u64,
    /// The records that the page will have.
    planned: u64,
    has_begun: bool,
}

impl PageGuard<'_> {
    fn occupied(&self) -> u64 {
        self.header.occupied.load(Ordering::Relaxed)
    }

    /// Returns a record, if it is there.
    pub(crate) fn read(&self, index: usize) -> Option<Copied> {
        (self.occupied() & bit(index) != 0).then(|| load(self.words(index)))
    }

    /// Returns when a record expires; 0 for never, and where there is no record.
    pub(crate) fn expiry(&self, index: usize) -> u64 {
        let expires = self.slab.may_expire(self.page);
        if expires { self.expiry_of(index).load(Ordering::Relaxed) } else { 0 }
    }

    /// Returns the log position of the page's last change; 0 for one that was replayed.
    pub(crate) fn lsn(&self) -> u64 {
        self.header.lsn.load(Ordering::Relaxed)
    }

    /// Returns whether the page has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied() == 0
    }

    /// Returns a copy of the page, if there is memory for it.
    pub(crate) fn image(&self) -> Option<PageImage> {
        let occupied = self.occupied();
        let mut image = PageImage { occupied, records: Vec::new(), expiries: Vec::new() };
        let count = occupied.count_ones() as usize;
        image.records.try_reserve_exact(count).ok()?;
        let there = || (0..PAGE_RECORDS).filter(|index| occupied & bit(*index) != 0);
        image.records.extend(there().map(|index| load(self.words(index))));
        if self.slab.may_expire(self.page) {
            image.expiries.try_reserve_exact(count).ok()?;
            image.expiries.extend(there().map(|index| self.expiry(index)));
        }
        Some(image)
    }

    /// Plans that a record will be there, or not.
    #[inline]
    pub(crate) fn plan(&mut self, index: usize, there: bool) {
        self.planned = if there { self.planned | bit(index) } else { self.planned & !bit(index) };
    }

    /// Returns how many records and pages in use the plan adds.
    #[inline]
    pub(crate) fn growth(&self) -> (i64, i64) {
        growth(self.before, self.planned)
    }

    /// Returns how many records and pages in use were added since the page was locked.
    pub(crate) fn grown(&self) -> (i64, i64) {
        growth(self.before, self.occupied())
    }

    /// Applies a change to a record of this page, after [`begin`](Self::begin).
    #[inline]
    pub(crate) fn apply(&mut self, op: TableOp<'_>) {
        match op {
            TableOp::Put(id, bytes) => self.put(index(id), bytes),
            TableOp::Delete(id) => self.delete(index(id)),
            TableOp::Expire(id, at) => self.expire_at(index(id), at),
        }
    }

    /// Begins to change the page: from here on readers wait. `lsn` is the change's log position.
    #[inline]
    pub(crate) fn begin(&mut self, lsn: u64) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.header.version.begin();
        }
        self.header.lsn.store(lsn, Ordering::Relaxed);
    }

    /// Inserts or replaces a record; it never expires.
    #[inline]
    fn put(&mut self, index: usize, bytes: &Bytes) {
        let occupied = self.occupied();
        store(self.words(index), bytes);
        if occupied & bit(index) == 0 {
            self.header.occupied.store(occupied | bit(index), Ordering::Relaxed);
            if occupied == 0 {
                self.slab.page_filled();
            }
        } else {
            self.never_expires(index);
        }
    }

    /// Removes a record, if it is there.
    fn delete(&mut self, index: usize) {
        let occupied = self.occupied();
        if occupied & bit(index) == 0 {
            return;
        }
        self.never_expires(index);
        self.header.occupied.store(occupied & !bit(index), Ordering::Relaxed);
        if self.is_empty() {
            self.slab.page_emptied();
        }
    }

    /// Sets when a record expires, if it is there: in ms since 1970, 0 for never.
    fn expire_at(&mut self, index: usize, expiry: u64) {
        let may_expire = expiry != 0 || self.slab.may_expire(self.page);
        if self.occupied() & bit(index) == 0 || !may_expire {
            return;
        }
        self.slab.begin_expiring(self.page);
        self.expiry_of(index).store(expiry, Ordering::Relaxed);
    }

    fn never_expires(&self, index: usize) {
        if self.expiry(index) != 0 {
            self.expiry_of(index).store(0, Ordering::Relaxed);
        }
    }

    fn words(&self, index: usize) -> &Words {
        self.slab.memory.record(self.page * PAGE_RECORDS + index)
    }

    fn expiry_of(&self, index: usize) -> &AtomicU64 {
        self.slab.memory.expiry(self.page * PAGE_RECORDS + index)
    }
}

impl Drop for PageGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.has_begun {
            self.header.version.unlock();
            return;
        }
        // Under the lock nobody else can have put a record there.
        if self.is_empty() {
            self.slab.memory.release_page(self.page);
        }
        self.header.version.finish();
    }
}

/// A copy of the records of a page, in order.
#[derive(Debug)]
pub(crate) struct PageImage {
    occupied: u64,
    records: Vec<Copied>,
    /// The times at which they expire; empty if none does.
    expiries: Vec<u64>,
}

impl PageImage {
    /// Returns a record, if it is there.
    pub(crate) fn find(&self, id: u32) -> Option<Found> {
        let bit = bit(index(id));
        let before = (self.occupied & (bit - 1)).count_ones() as usize;
        (self.occupied & bit != 0).then(|| self.found(id, before))
    }

    /// Copies the records; `first` is the page's first id.
    pub(crate) fn copy(&self, first: u32, copies: &mut Vec<Found>) {
        copies.clear();
        let ids = ids(first).filter(|id| self.occupied & bit(index(*id)) != 0);
        copies.extend(ids.enumerate().map(|(at, id)| self.found(id, at)));
    }

    fn found(&self, id: u32, at: usize) -> Found {
        let expiry = self.expiries.get(at).copied().unwrap_or(0);
        Found { id, record: self.records[at], expiry }
    }
}

/// Returns the ids of the page that begins with `first`; the last page ends with the last id.
const fn ids(first: u32) -> std::ops::RangeInclusive<u32> {
    first..=first | ((1 << PAGE_SHIFT) - 1)
}

/// Returns how many records and pages in use a page gains from `before` to `after`.
#[inline]
fn growth(before: u64, after: u64) -> (i64, i64) {
    let records = i64::from(after.count_ones()) - i64::from(before.count_ones());
    (records, i64::from(after != 0) - i64::from(before != 0))
}

const fn bit(index: usize) -> u64 {
    1 << index
}

/// Returns the bit of the pages that share the memory of their expiry times with this one.
const fn sharing_bit(page: usize) -> u64 {
    bit(page / SHARED_PAGES)
}

#[inline]
fn store(words: &Words, bytes: &Bytes) {
    for (word, bytes) in words.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

#[inline]
fn load(words: &Words) -> Copied {
    words.each_ref().map(|word| word.load(Ordering::Relaxed))
}
