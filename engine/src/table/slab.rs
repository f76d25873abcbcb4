//! A slab and its pages: how records are read while others write.
//!
//! Owns the use of the slab's memory: who may touch what, and when memory is given back.
//! A page whose last record goes gives its 4 KiB back at once (where the machine's own pages
//! are no longer), so that what the quota counts is what is in use. Tested by
//! `engine/tests/threads.rs`, and what it takes of memory by `engine/tests/memory.rs`.

use std::array;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32};

use super::memory::{PAGE_RECORDS, PageHeader, SHARED_PAGES, SLAB_PAGES, SlabMemory, Words};
use super::{Edit, PAGE_SHIFT, What, index};
use crate::record::RECORD_LEN;
use crate::steps::{Step, pass};
use crate::sync::{AtomicU64, Ordering};

/// The bytes of a record.
pub(crate) type Bytes = [u8; RECORD_LEN];

/// A copy of a record's bytes, as the words that they were read in. Bytes would be moved in
/// odd pieces on their way through options and tuples, and what is read back across such
/// pieces waits for the memory: then gets don't overlap.
pub(crate) type Copied = [u64; RECORD_LEN / size_of::<u64>()];

/// A copy of a record that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: u32,
    pub(crate) record: Copied,
    /// When it expires, in ms since 1970; 0 for never.
    pub(crate) expiry: u64,
}

/// A slab of which so many pages are in use is dense: huge pages are asked for.
const DENSE_PAGES: u32 = 256;
#[expect(clippy::cast_possible_truncation, reason = "512")]
const ALL_PAGES: u32 = SLAB_PAGES as u32;

/// Memory for 32,768 records with consecutive ids.
#[derive(Debug)]
pub(crate) struct Slab {
    memory: SlabMemory,
    /// Pages with a record in them. Records are not counted: every insertion would pay.
    in_use: AtomicU32,
    is_dense: AtomicBool,
    /// Pages share the memory of their expiries by eight. A bit for each eight: was any expiry
    /// of theirs set since that memory was last given back?
    expiring: AtomicU64,
}

impl Slab {
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

    /// An empty slab that is expected to fill, with all of its memory found.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn populated() -> io::Result<Self> {
        let slab = Self::new(true)?;
        slab.memory.populate();
        Ok(slab)
    }

    /// A slab with the records that a checkpoint has of it: of each page those with a bit in
    /// `occupied`, one after the other, and when each expires (nothing if none does).
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
        // Nobody else has the slab yet: whoever gets it sees all of this.
        slab.in_use.store(in_use, Ordering::Relaxed);
        Ok(slab)
    }

    /// A slab with every record that it can have, none of which expires; `fill` gives the
    /// bytes of all of them.
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

    /// How many records are there, while nobody changes them. Looks at every page.
    pub(crate) fn records(&self) -> u32 {
        let header = |page| self.memory.header(page);
        (0..SLAB_PAGES).map(|page| header(page).occupied.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Is so much of it in use that the next slab will likely fill, too?
    pub(super) fn is_dense(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) >= DENSE_PAGES
    }

    pub(super) fn has_expiries(&self) -> bool {
        self.expiring.load(Ordering::Relaxed) != 0
    }

    /// May a record of this page expire?
    fn may_expire(&self, page: usize) -> bool {
        self.expiring.load(Ordering::Relaxed) & sharing_bit(page) != 0
    }

    /// From now on a record of this page may expire. The caller has the page locked, or the slab
    /// to itself.
    fn begin_expiring(&self, page: usize) {
        if !self.may_expire(page) {
            self.expiring.fetch_or(sharing_bit(page), Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) == 0
    }

    /// Is there nothing in the page right now? Only a hint.
    pub(super) fn looks_empty(&self, page: usize) -> bool {
        self.memory.header(page).occupied.load(Ordering::Relaxed) == 0
    }

    /// A record, and where in the log the last change of its page is.
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

    /// Copies the records of a page that are there, as of one moment, in order. `first` is
    /// the id of the page's first place.
    pub(super) fn copy(&self, page: usize, first: u32, copies: &mut Vec<Found>) {
        self.memory.header(page).version.read(|| self.copy_now(page, first, copies));
    }

    /// As [`copy`](Self::copy), with every change that was logged before this call, if the
    /// page's last change is before `lsn` in the log; else `false`.
    pub(super) fn copy_before(
        &self,
        page: usize,
        first: u32,
        lsn: u64,
        copies: &mut Vec<Found>,
    ) -> bool {
        self.before(page, lsn, || self.copy_now(page, first, copies)).is_some()
    }

    /// As [`copy_before`](Self::copy_before), of one record; `None` where that is `false`.
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

    /// Copies what is there right now, torn if others change it.
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

    /// Gives back the memory of a page's expiries, if no page that shares it has a record. The
    /// caller has no page of the slab locked.
    pub(super) fn tidy(&self, page: usize) {
        let first = page - page % SHARED_PAGES;
        let is_unused = || (first..first + SHARED_PAGES).all(|page| self.looks_empty(page));
        if !self.may_expire(page) || !is_unused() {
            return;
        }
        // With all of them locked nobody sets an expiry; writers lock in this order, too.
        let _guards: [_; SHARED_PAGES] = array::from_fn(|at| self.lock(first + at));
        pass(Step::SharedLocked);
        if is_unused() {
            // Release pairs with the fence of readers: who sees the bit gone sees the versions
            // of the pages whose last records went before.
            self.expiring.fetch_and(!sharing_bit(page), Ordering::Release);
            self.memory.give_back_expiries(page);
        }
    }

    /// A page got its first record.
    fn page_filled(&self) {
        let in_use = self.in_use.fetch_add(1, Ordering::Relaxed) + 1;
        if in_use == DENSE_PAGES && !self.is_dense.swap(true, Ordering::Relaxed) {
            self.memory.ask_for_huge_pages(true);
        }
    }

    /// A page lost its last record.
    fn page_emptied(&self) {
        let in_use = self.in_use.fetch_sub(1, Ordering::Relaxed) - 1;
        if in_use == 0 && self.is_dense.swap(false, Ordering::Relaxed) {
            self.memory.ask_for_huge_pages(false);
        }
    }
}

/// A page that nobody else writes to. Readers go on until [`begin`](Self::begin), and
/// wait from then on until it is dropped.
#[derive(Debug)]
pub(crate) struct PageGuard<'a> {
    slab: &'a Slab,
    page: usize,
    header: &'a PageHeader,
    /// The records that were there when it was locked.
    before: u64,
    /// The records that will be there.
    planned: u64,
    has_begun: bool,
}

impl PageGuard<'_> {
    fn occupied(&self) -> u64 {
        self.header.occupied.load(Ordering::Relaxed)
    }

    /// A record, if it is there.
    pub(crate) fn read(&self, index: usize) -> Option<Copied> {
        (self.occupied() & bit(index) != 0).then(|| load(self.words(index)))
    }

    /// When it expires; 0 for never, and where there is no record.
    pub(crate) fn expiry(&self, index: usize) -> u64 {
        let expires = self.slab.may_expire(self.page);
        if expires { self.expiry_of(index).load(Ordering::Relaxed) } else { 0 }
    }

    /// Where in the log the page's last change is; 0 for one that was replayed.
    pub(crate) fn lsn(&self) -> u64 {
        self.header.lsn.load(Ordering::Relaxed)
    }

    /// Is no record there?
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied() == 0
    }

    /// A copy of the page, if there is memory for it.
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

    /// Says that a record will be there, or not.
    #[inline]
    pub(crate) fn plan(&mut self, index: usize, there: bool) {
        self.planned = if there { self.planned | bit(index) } else { self.planned & !bit(index) };
    }

    /// What the plan adds to the records and to the pages that are in use.
    #[inline]
    pub(crate) fn growth(&self) -> (i64, i64) {
        growth(self.before, self.planned)
    }

    /// What was added since it was locked to the records and to the pages that are in use.
    pub(crate) fn grown(&self) -> (i64, i64) {
        growth(self.before, self.occupied())
    }

    /// Makes a change of a record of this page, after [`begin`](Self::begin).
    #[inline]
    pub(crate) fn edit(&mut self, edit: Edit<'_>) {
        match edit.what {
            What::Put(bytes) => self.put(index(edit.id), bytes),
            What::Delete => self.delete(index(edit.id)),
            What::Expire(at) => self.expire_at(index(edit.id), at),
        }
    }

    /// From now on the page is changed, and readers wait. `lsn` is where the log says so.
    #[inline]
    pub(crate) fn begin(&mut self, lsn: u64) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.header.version.begin();
        }
        self.header.lsn.store(lsn, Ordering::Relaxed);
    }

    /// Inserts or replaces a record, which will never expire.
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

    /// Says when a record expires, if it is there: in ms since 1970, 0 for never.
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
        // Under the lock: nobody else can have put a record there.
        if self.is_empty() {
            self.slab.memory.give_back_page(self.page);
        }
        self.header.version.finish();
    }
}

/// A copy of a page: of the records that are there, in order.
#[derive(Debug)]
pub(crate) struct PageImage {
    occupied: u64,
    records: Vec<Copied>,
    /// When they expire; empty if none does.
    expiries: Vec<u64>,
}

impl PageImage {
    /// A record of it, if it is there.
    pub(crate) fn find(&self, id: u32) -> Option<Found> {
        let bit = bit(index(id));
        let before = (self.occupied & (bit - 1)).count_ones() as usize;
        (self.occupied & bit != 0).then(|| self.found(id, before))
    }

    /// Copies its records, of which `first` is the first place's id.
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

/// The ids of the page with this first one; the last page ends with the last id.
const fn ids(first: u32) -> std::ops::RangeInclusive<u32> {
    first..=first | ((1 << PAGE_SHIFT) - 1)
}

/// What pages with these records have more than those had: records, and pages in use.
#[inline]
fn growth(before: u64, after: u64) -> (i64, i64) {
    let records = i64::from(after.count_ones()) - i64::from(before.count_ones());
    (records, i64::from(after != 0) - i64::from(before != 0))
}

const fn bit(index: usize) -> u64 {
    1 << index
}

/// The bit of a page among those that share the memory of their expiries.
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
