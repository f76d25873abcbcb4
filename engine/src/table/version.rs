//! The lock and the version of a page: who may write, and whether a copy is consistent.
//!
//! A sequence lock (Boehm, "Can seqlocks get along with programming language memory
//! models?", 2012) whose readers do not wait for a writer that only holds the lock: a
//! writer holds it while it appends to the log, and marks separately when it begins to change
//! the page. Readers copy atomics, which are read and written `Relaxed`. Tested by the loom models in `engine/tests/loom.rs`.

use crate::sync::{AtomicU64, Ordering, fence, pause};

/// A writer holds the page.
const LOCKED: u64 = 1;
/// The writer is changing the page: copies taken now may be torn.
const WRITING: u64 = 2;
/// What the next version adds.
const STEP: u64 = 4;

/// Attempts of a reader to copy a page that keeps changing before it takes the lock.
const MAX_ATTEMPTS: u32 = 256;

/// The lock and the version of a page, in one word that starts as 0.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Version(AtomicU64);

impl Version {
    /// Returns what `copy` returned while the page did not change. `copy` may run several times,
    /// and all results but the last may be torn.
    #[inline(always)]
    pub(crate) fn read<T>(&self, copy: impl FnMut() -> T) -> T {
        self.read_without(WRITING, copy)
    }

    /// Copies as [`read`](Self::read) does if the page's last change, whose position is in
    /// `last`, is before `lsn` in the log. The copy has everything that was logged before `lsn`,
    /// provided the caller obtained `lsn` from the log after that was logged.
    pub(crate) fn read_before<T>(
        &self,
        last: &AtomicU64,
        lsn: u64,
        mut copy: impl FnMut() -> T,
    ) -> Option<T> {
        // Acquire pairs with the fence of `begin`, after which `last` is stored: a reader
        // that sees a change sees what its writer did before: it retained a copy.
        let is_before = || last.load(Ordering::Acquire) < lsn;
        // Without this a reader could wait for a page that never stops changing.
        if !is_before() {
            return None;
        }
        // A writer that only holds the lock may have logged its change without applying it.
        self.read_without(LOCKED | WRITING, || is_before().then(&mut copy))
    }

    #[inline(always)]
    fn read_without<T>(&self, busy: u64, mut copy: impl FnMut() -> T) -> T {
        let mut attempts = 0;
        loop {
            // Acquire pairs with the Release of `finish`: that version's words are seen.
            let before = self.0.load(Ordering::Acquire);
            if before & busy == 0 {
                let copied = copy();
                // Pairs with the fence of `begin`: a reader that saw a word of a later
                // version sees here that its writer had begun.
                fence(Ordering::Acquire);
                let after = self.0.load(Ordering::Relaxed);
                if after & !LOCKED == before & !LOCKED {
                    return copied;
                }
            }
            if self.must_lock(&mut attempts) {
                let copied = copy();
                self.unlock();
                return copied;
            }
        }
    }

    /// Waits a little for the writer; after [`MAX_ATTEMPTS`] takes the lock and returns `true`.
    #[cold]
    #[inline(never)]
    fn must_lock(&self, attempts: &mut u32) -> bool {
        *attempts += 1;
        if *attempts == MAX_ATTEMPTS {
            self.lock();
            return true;
        }
        let mut round = *attempts;
        pause(&mut round);
        false
    }

    /// Locks the page, once no other writer holds it. Writers never wait for a disk while they
    /// hold one.
    #[inline]
    pub(crate) fn lock(&self) {
        let mut round = 0;
        loop {
            let now = self.0.load(Ordering::Relaxed);
            // Acquire pairs with the Release of `unlock` and `finish`.
            if now & LOCKED == 0
                && self
                    .0
                    .compare_exchange_weak(now, now | LOCKED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            pause(&mut round);
        }
    }

    /// Marks that the holder of the lock is about to change the page.
    #[inline]
    pub(crate) fn begin(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED, "locked, and not yet begun");
        self.0.store(now | WRITING, Ordering::Relaxed);
        // Pairs with the fence of `read`.
        fence(Ordering::Release);
    }

    /// Publishes what the holder of the lock has changed, and unlocks the page.
    #[inline]
    pub(crate) fn finish(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED | WRITING, "begun");
        // Wraps after 2^62 changes of one page, which no machine will reach.
        self.0.store((now & !(LOCKED | WRITING)).wrapping_add(STEP), Ordering::Release);
    }

    /// Unlocks a page that the holder of the lock has not changed.
    #[inline]
    pub(crate) fn unlock(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED, "locked, and nothing changed");
        self.0.store(now & !LOCKED, Ordering::Release);
    }
}
