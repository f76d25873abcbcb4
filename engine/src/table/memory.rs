//! The memory of one slab: 32,768 records, the headers of their pages, their expiry times.
//!
//! Owns the only `unsafe` of the engine. What makes it sound: the memory is anonymous
//! (zeros at first, never a SIGBUS), is never moved or unmapped while the slab lives, and
//! is touched as atomics only. So a race yields a wrong value at worst, which the version
//! of the page detects; it is never undefined behaviour.

#![expect(unsafe_code, reason = "records live in mapped memory")]

use std::fmt;
use std::io;
use std::mem::size_of;

use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};

use super::version::Version;
use crate::record::RECORD_LEN;
use crate::sync::AtomicU64;

/// Records in a page.
pub(crate) const PAGE_RECORDS: usize = 64;
/// Bytes of a page's records: also the length of a page on most machines.
pub(crate) const PAGE_LEN: usize = PAGE_RECORDS * RECORD_LEN;
/// Pages in a slab.
pub(crate) const SLAB_PAGES: usize = 512;
/// Pages whose expiry times share one page of memory.
pub(crate) const SHARED_PAGES: usize = PAGE_LEN / (PAGE_RECORDS * size_of::<AtomicU64>());
/// Records in a slab.
pub(crate) const SLAB_RECORDS: usize = SLAB_PAGES * PAGE_RECORDS;

/// Bytes of a slab's records: a huge page.
const RECORDS_LEN: usize = SLAB_PAGES * PAGE_LEN;
const HEADERS_LEN: usize = SLAB_PAGES * size_of::<PageHeader>();
const EXPIRIES_LEN: usize = SLAB_RECORDS * size_of::<AtomicU64>();
const HEADERS_AT: usize = RECORDS_LEN;
const EXPIRIES_AT: usize = HEADERS_AT + HEADERS_LEN;
const LEN: usize = EXPIRIES_AT + EXPIRIES_LEN;

/// The words of a record.
pub(crate) type Words = [AtomicU64; RECORD_LEN / size_of::<u64>()];

/// The header of a page. The holder of the page's lock changes it; readers read it under its
/// version.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PageHeader {
    pub(super) version: Version,
    /// One bit for each record that is there.
    pub(super) occupied: AtomicU64,
    /// The log position of the page's last change; 0 for one that was replayed.
    pub(super) lsn: AtomicU64,
}

const _: () = {
    assert!(size_of::<Words>() == RECORD_LEN);
    assert!(RECORDS_LEN == 2 << 20);
    // Offsets keep what is mapped at a page's start aligned.
    assert!(HEADERS_AT.is_multiple_of(align_of::<PageHeader>()));
    assert!(EXPIRIES_AT.is_multiple_of(PAGE_LEN));
    // One word has a bit for each page of expiry times.
    assert!(SLAB_PAGES == SHARED_PAGES * u64::BITS as usize);
};

/// The memory of one slab.
pub(crate) struct SlabMemory {
    map: MmapRaw,
    /// The offset of the slab in the map: its address is a multiple of its records' length.
    start: usize,
    /// The length of the machine's pages.
    machine_page: usize,
}

impl SlabMemory {
    /// Maps the memory; the system provides none before it is written.
    ///
    /// # Errors
    /// When the system has no memory, or no more mappings, for it.
    pub(crate) fn new(dense: bool) -> io::Result<Self> {
        let map = MmapRaw::from(MmapMut::map_anon(LEN + RECORDS_LEN)?);
        let start = map.as_ptr().align_offset(RECORDS_LEN);
        // Never for headers and expiry times: with sparse ids few of them are used.
        let _ = map.advise(Advice::NoHugePage);
        let memory = Self { map, start, machine_page: rustix::param::page_size() };
        if dense {
            memory.ask_for_huge_pages(true);
        }
        Ok(memory)
    }

    /// Asks for a huge page for the records, or for small ones: the first record in a huge page
    /// uses all of it. The answer is ignored: a kernel without huge pages refuses.
    pub(crate) fn ask_for_huge_pages(&self, huge: bool) {
        let advice = if huge { Advice::HugePage } else { Advice::NoHugePage };
        let _ = self.map.advise_range(advice, self.start, RECORDS_LEN);
    }

    /// Asks the system to provide memory for all records and headers now. The answer is ignored.
    pub(crate) fn populate(&self) {
        let _ = self.map.advise_range(Advice::PopulateWrite, self.start, EXPIRIES_AT);
    }

    /// Returns the words of a record, `slot` below [`SLAB_RECORDS`].
    #[inline]
    pub(crate) fn record(&self, slot: usize) -> &Words {
        assert!(slot < SLAB_RECORDS);
        // SAFETY: slots fill the first `RECORDS_LEN` bytes, which the map has from
        // `start` on and keeps as long as `self`; they are aligned to 64. Anonymous memory
        // is initialised, every pattern of bits is a valid atomic, and the map is private
        // and touched as these atomics only (module's documentation).
        unsafe { &*self.at(slot * RECORD_LEN).cast() }
    }

    /// Returns the bytes of all records, for the only owner of the slab.
    pub(crate) fn records_mut(&mut self) -> &mut [u8] {
        let start = self.map.as_mut_ptr();
        // SAFETY: as for `record`: the map has `RECORDS_LEN` bytes from `start` on, which
        // hold bytes as well as atomics, and `&mut self` proves that nobody else has a reference.
        unsafe { std::slice::from_raw_parts_mut(start.add(self.start), RECORDS_LEN) }
    }

    /// Returns the header of a page, `page` below [`SLAB_PAGES`].
    #[inline]
    pub(crate) fn header(&self, page: usize) -> &PageHeader {
        assert!(page < SLAB_PAGES);
        // SAFETY: as for `record`: headers fill `HEADERS_LEN` bytes from `HEADERS_AT` on,
        // aligned to 8, and a header is nothing but atomics, valid as zeros.
        unsafe { &*self.at(HEADERS_AT + page * size_of::<PageHeader>()).cast() }
    }

    /// Returns when a record expires, `slot` below [`SLAB_RECORDS`]: ms since 1970, 0 for never.
    #[inline]
    pub(crate) fn expiry(&self, slot: usize) -> &AtomicU64 {
        assert!(slot < SLAB_RECORDS);
        // SAFETY: as for `record`: expiries fill `EXPIRIES_LEN` bytes from `EXPIRIES_AT`
        // on, aligned to 8.
        unsafe { &*self.at(EXPIRIES_AT + slot * size_of::<AtomicU64>()).cast() }
    }

    /// Returns the memory of a page's records to the system, unless the machine's pages are
    /// longer; none of the records may be in use.
    pub(crate) fn release_page(&self, page: usize) {
        assert!(page < SLAB_PAGES);
        self.release(page * PAGE_LEN, PAGE_LEN);
    }

    /// Returns the memory of a page's expiry times to the system, with those of the pages that
    /// share it, unless the machine's pages are longer; all of them must be 0.
    pub(crate) fn release_expiries(&self, page: usize) {
        assert!(page < SLAB_PAGES);
        self.release(EXPIRIES_AT + page / SHARED_PAGES * PAGE_LEN, PAGE_LEN);
    }

    fn release(&self, at: usize, len: usize) {
        assert!(at + len <= LEN);
        // The system takes back whole pages, with everything in them.
        if !at.is_multiple_of(self.machine_page) || !len.is_multiple_of(self.machine_page) {
            return;
        }
        // SAFETY: the range is inside the map. It becomes zeros, as if another thread had
        // stored zeros into its atomics: references to them stay valid, and only
        // atomics lie there. An error leaves the bytes as they are, which is as good:
        // memory that the process has locked stays with it.
        let _ = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.start + at, len)
        };
    }

    /// Returns the address of byte `at`, below `LEN`.
    #[inline]
    fn at(&self, at: usize) -> *const u8 {
        // SAFETY: the map has `LEN` bytes from `start` on, which is below `RECORDS_LEN`.
        unsafe { self.map.as_ptr().add(self.start + at) }
    }
}

impl fmt::Debug for SlabMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabMemory").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn nothing_is_given_back_where_a_page_of_the_machine_holds_more() {
        let mut memory = SlabMemory::new(false).expect("memory");
        let word = |memory: &SlabMemory| memory.record(0)[0].load(Ordering::Relaxed);
        let expiry = |memory: &SlabMemory| memory.expiry(0).load(Ordering::Relaxed);
        memory.record(0)[0].store(1, Ordering::Relaxed);
        memory.expiry(0).store(2, Ordering::Relaxed);
        for machine_page in [PAGE_LEN << 2, PAGE_LEN << 4] {
            memory.machine_page = machine_page;
            memory.release_page(0);
            memory.release_expiries(0);
            assert_eq!((word(&memory), expiry(&memory)), (1, 2), "{machine_page}");
        }
        if rustix::param::page_size() == PAGE_LEN {
            memory.machine_page = PAGE_LEN;
            memory.release_page(0);
            memory.release_expiries(0);
            assert_eq!((word(&memory), expiry(&memory)), (0, 0));
        }
    }
}
