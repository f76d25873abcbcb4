//! The ring's memory: written by appenders, read by writes in flight.
//!
//! Owns the only `unsafe` of the append path. What makes it sound is one rule that
//! `ring` keeps: a byte between `freed` and `sealed` is never written, one from
//! `sealed` on is written by the one appender that reserved it and never read through
//! [`RingBytes`], and one is reused only after the write of its frame was reaped. Tested
//! by `ring`, by the loom models (which see every access), and by the simulator.

use std::fmt;
use std::io::IoSlice;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use bytes::Buf;
use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};

use crate::fork::Process;
use crate::position::Lsn;

/// Bytes of the ring that are populated at a time: a huge page.
pub const POPULATED: u64 = 2 * 1024 * 1024;

/// A circular buffer addressed by LSN.
pub struct RingMemory {
    /// Dropped where it was mapped.
    map: ManuallyDrop<MmapRaw>,
    process: Process,
    len: u64,
    shadow: Shadow,
}

impl RingMemory {
    /// # Errors
    /// When the system has no memory for it.
    pub fn new(len: u64) -> std::io::Result<Arc<Self>> {
        assert!(len.is_power_of_two(), "checked with the options");
        let bytes = usize::try_from(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let map = ManuallyDrop::new(MmapRaw::from(MmapMut::map_anon(bytes)?));
        // A child of a fork must not copy pages that a write in flight reads.
        map.advise(Advice::DontFork)?;
        let memory = Self { map, process: Process::current(), len, shadow: Shadow::new() };
        // A log with a few entries touches a few pages.
        memory.use_huge_pages(false);
        Ok(Arc::new(memory))
    }

    /// Asks for huge pages where the ring gets memory from now on, or for small ones. Huge ones
    /// are fewer page faults, and fewer pages to pin for each direct write. Only a hint: a kernel
    /// without huge pages refuses it, and a shorter ring has none.
    pub fn use_huge_pages(&self, huge: bool) {
        let _ = self.map.advise(if huge { Advice::HugePage } else { Advice::NoHugePage });
    }

    /// Gives the ring's memory back to the system. The ring is all zeros then, in small pages.
    ///
    /// # Safety
    /// Nobody else reads or writes any byte of the ring meanwhile.
    pub unsafe fn discard(&self) {
        self.use_huge_pages(false);
        self.shadow.written(0, usize::try_from(self.len).unwrap_or(usize::MAX));
        // SAFETY: the pages are private and anonymous, so they are zeros when they are touched
        // again; the caller has them to itself, and nothing borrows them.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// Returns the ring's length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns the address of the ring, whose pages are small from now on, so that a test can
    /// count those that are populated.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn in_small_pages(&self) -> *const u8 {
        // A kernel that refuses has no huge pages.
        let _ = self.map.advise(Advice::NoHugePage);
        self.map.as_ptr()
    }

    /// Makes the system allocate the memory for [`POPULATED`] bytes around `at` now, so that
    /// no append waits for it: a huge page takes as long as dozens of commits. The contents
    /// stay as they are, and others may be writing them. Only a hint: a kernel before Linux
    /// 5.14 refuses it.
    pub fn populate(&self, at: Lsn) {
        let start = at.0 & (self.len - 1) & !(POPULATED - 1);
        let len = POPULATED.min(self.len);
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the map's length")]
        let (start, len) = (start as usize, len as usize);
        let _ = self.map.advise_range(Advice::PopulateWrite, start, len);
    }

    /// Returns index and length of the first part of `len` bytes at `at`; the second part, if
    /// any, starts at index 0.
    fn split(&self, at: Lsn, len: usize) -> (usize, usize) {
        assert!(len as u64 <= self.len, "a range longer than the ring");
        // The length is a power of two: a mask, not a division.
        let start = at.0 & (self.len - 1);
        let first = (self.len - start).min(len as u64);
        // Both are below the map's length, which is a usize.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the map's length")]
        (start as usize, first as usize)
    }

    /// Writes an entry at `at`: header, payload, and zeros up to `len` bytes in all.
    ///
    /// # Safety
    /// Nobody else reads or writes `at .. at + len` meanwhile.
    pub unsafe fn write_entry(&self, at: Lsn, header: &[u8], payload: &[u8], len: usize) {
        let (start, first) = self.split(at, len);
        let body = header.len();
        let padding = len - body - payload.len();
        if first < len {
            // SAFETY: the parts are within the range that the caller has to itself.
            unsafe {
                self.write(at, header);
                self.write(at.plus(body as u64), payload);
                self.zero(at.plus((body + payload.len()) as u64), padding);
            }
            return;
        }
        self.shadow.written(start, len);
        // SAFETY: `split` found `len` bytes from `start` on inside the map, and the three
        // parts fill exactly those; the caller has them to itself, so that no source
        // overlaps them.
        unsafe {
            let target = self.map.as_mut_ptr().add(start);
            std::ptr::copy_nonoverlapping(header.as_ptr(), target, body);
            std::ptr::copy_nonoverlapping(payload.as_ptr(), target.add(body), payload.len());
            std::ptr::write_bytes(target.add(body + payload.len()), 0, padding);
        }
    }

    /// Copies `bytes` to position `at`.
    ///
    /// # Safety
    /// Nobody else reads or writes `at .. at + bytes.len()` meanwhile.
    pub unsafe fn write(&self, at: Lsn, bytes: &[u8]) {
        let (start, first) = self.split(at, bytes.len());
        let base = self.map.as_mut_ptr();
        self.shadow.written(start, first);
        // SAFETY: `split` keeps both parts inside the map, the map outlives the call (we
        // borrow it), and the caller guarantees that nobody else touches the range. The
        // source is a shared slice and cannot overlap a range that nobody else has.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(start), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), base, bytes.len() - first);
        }
    }

    /// Fills `len` bytes at `at` with zeros.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    pub unsafe fn zero(&self, at: Lsn, len: usize) {
        let (start, first) = self.split(at, len);
        let base = self.map.as_mut_ptr();
        self.shadow.written(start, first);
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::write_bytes(base.add(start), 0, first);
            std::ptr::write_bytes(base, 0, len - first);
        }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // A child of a fork has no such mapping, and may have another one at its address.
        if !self.process.is_left() {
            // SAFETY: it is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

/// Lets loom see which thread touches which bytes: the first KiB of the ring, where its
/// models stay.
#[cfg(loom)]
struct Shadow(Vec<loom::cell::UnsafeCell<()>>);

// SAFETY: loom's cells check each access themselves; there is nothing in them.
#[cfg(loom)]
unsafe impl Sync for Shadow {}

#[cfg(loom)]
impl Shadow {
    /// Entries, headers and padding begin and end at multiples of it.
    const UNIT: usize = 8;

    fn new() -> Self {
        Self((0..1024 / Self::UNIT).map(|_| loom::cell::UnsafeCell::new(())).collect())
    }

    fn cells(&self, start: usize, len: usize) -> impl Iterator<Item = &loom::cell::UnsafeCell<()>> {
        let units = start / Self::UNIT..(start + len).div_ceil(Self::UNIT);
        self.0.iter().skip(units.start).take(units.len())
    }

    fn written(&self, start: usize, len: usize) {
        self.cells(start, len).for_each(|cell| cell.with_mut(|_| ()));
    }

    fn read(&self, start: usize, len: usize) {
        self.cells(start, len).for_each(|cell| cell.with(|_| ()));
    }
}

#[cfg(not(loom))]
struct Shadow;

#[cfg(not(loom))]
impl Shadow {
    const fn new() -> Self {
        Self
    }

    #[inline]
    const fn written(&self, _start: usize, _len: usize) {}

    #[inline]
    const fn read(&self, _start: usize, _len: usize) {}
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingMemory({} bytes)", self.len)
    }
}

/// A range of the ring that nobody writes while this exists, or heap bytes.
///
/// A write in flight holds one: it keeps the memory alive, however the log ends.
#[derive(Clone, Debug)]
pub struct RingBytes(Source);

#[derive(Clone, Debug)]
enum Source {
    Ring { memory: Arc<RingMemory>, at: Lsn, len: usize },
    Heap { bytes: Arc<crate::io::AlignedBuf>, from: usize },
}

impl RingBytes {
    /// Wraps bytes on the heap.
    #[must_use]
    pub fn from_heap(bytes: crate::io::AlignedBuf) -> Self {
        Self(Source::Heap { bytes: Arc::new(bytes), from: 0 })
    }

    /// Returns a sealed range of the ring.
    ///
    /// # Safety
    /// Once it is passed to others, nobody writes the range while it, or a clone of it,
    /// exists.
    pub unsafe fn from_ring(memory: Arc<RingMemory>, at: Lsn, len: usize) -> Self {
        Self(Source::Ring { memory, at, len })
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Ring { len, .. } => *len,
            Source::Heap { bytes, from } => bytes.len() - from,
        }
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes in order: two pieces where the range wraps, else the second is
    /// empty.
    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 2] {
        match &self.0 {
            Source::Heap { bytes, from } => [bytes.get(*from..).unwrap_or(&[]), &[]],
            Source::Ring { memory, at, len } => {
                let (start, first) = memory.split(*at, *len);
                let base = memory.map.as_ptr();
                memory.shadow.read(start, first);
                // SAFETY: `split` keeps both parts inside the map, which `memory` keeps alive
                // as long as `self`; by the contract of `from_ring` nobody writes them. The
                // pages are anonymous: always initialised, never a SIGBUS.
                unsafe {
                    [
                        std::slice::from_raw_parts(base.add(start), first),
                        std::slice::from_raw_parts(base, len - first),
                    ]
                }
            }
        }
    }

    /// Returns what is left after the first `count` bytes.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.advance(count.min(self.len()));
        self
    }
}

impl Buf for RingBytes {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        let [first, second] = self.pieces();
        if first.is_empty() { second } else { first }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.pieces().into_iter().filter(|piece| !piece.is_empty());
        let pairs = slices.iter_mut().zip(pieces);
        pairs.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// # Panics
    /// When there are fewer bytes.
    fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} of {} bytes", self.len());
        match &mut self.0 {
            Source::Ring { at, len, .. } => {
                *at = at.plus(count as u64);
                *len -= count;
            }
            Source::Heap { from, .. } => *from += count,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn range_that_wraps_is_read_in_order_as_a_buf() {
        let memory = RingMemory::new(16 * 1024).unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        let at = Lsn(3 * 16 * 1024 - 70);
        // SAFETY: nobody else has the ring.
        unsafe { memory.write(at, &bytes) };
        // SAFETY: nobody writes it from here on.
        let ring = unsafe { RingBytes::from_ring(memory, at, bytes.len()) };
        let heap = RingBytes::from_heap(crate::io::AlignedBuf::copy_of(&bytes));
        for (source, pieces) in [(ring, 2), (heap, 1)] {
            let mut slices = [IoSlice::new(&[]); 3];
            assert_eq!(source.chunks_vectored(&mut slices), pieces);
            let joined: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(joined, bytes);
            for skipped in 0..=bytes.len() {
                let mut rest = source.clone();
                rest.advance(skipped);
                assert_eq!(rest.remaining(), bytes.len() - skipped);
                assert_eq!(rest.copy_to_bytes(rest.remaining()), bytes[skipped..]);
            }
        }
    }
}
