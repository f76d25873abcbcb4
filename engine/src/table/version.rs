//! The lock and the version of a page: who may write, and whether a copy is whole.
//!
//! A sequence lock (Boehm, "Can seqlocks get along with programming language memory
//! models?", 2012) whose readers are not kept waiting by a writer that only holds the
//! lock: a writer holds it while it appends to the log, and says separately when it
//! begins to change the page. What is read under it is atomics, read and written
//! `Relaxed`. Tested by the loom models in `engine/tests/loom.rs`.

use crate::sync::{AtomicU64, Ordering, fence, pause};

/// A writer has the page.
const LOCKED: u64 = 1;
/// It is changing the page: copies taken now may be torn.
const WRITING: u64 = 2;
/// One version more.
const STEP: u64 = 4;

/// Looks at a page that was being changed during each before a reader takes the lock.
const MAX_LOOKS: u32 = 256;

/// Lock and version of a page, in one word that starts as 0.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Version(AtomicU64);

impl Version {
    /// Gives what `copy` gave while the page did not change. It may run several times, and
    /// what it reads in vain may be torn.
    #[inline(always)]
    pub(crate) fn read<T>(&self, copy: impl FnMut() -> T) -> T {
        self.read_without(WRITING, copy)
    }

    /// As [`read`](Self::read), if the page's last change, which is where `last` says, is
    /// before `lsn` in the log. What was logged before `lsn` is in the copy if the caller
    /// came to know `lsn` when it was logged.
    pub(crate) fn read_before<T>(
        &self,
        last: &AtomicU64,
        lsn: u64,
        mut copy: impl FnMut() -> T,
    ) -> Option<T> {
        // Acquire pairs with the fence of `begin`, after which `last` is stored: who sees a
        // change sees what its writer did before, which is to keep a copy.
        let is_before = || last.load(Ordering::Acquire) < lsn;
        // So that nobody waits for a page that is changed all the time.
        if !is_before() {
            return None;
        }
        // A writer that only holds the lock may have logged its change, and not made it.
        self.read_without(LOCKED | WRITING, || is_before().then(&mut copy))
    }

    #[inline(always)]
    fn read_without<T>(&self, busy: u64, mut copy: impl FnMut() -> T) -> T {
        let mut looks = 0;
        loop {
            // Acquire pairs with the Release of `finish`: that version's words are seen.
            let before = self.0.load(Ordering::Acquire);
            if before & busy == 0 {
                let copied = copy();
                // Pairs with the fence of `begin`: whoever saw a word of a later version
                // sees here that its writing had begun.
                fence(Ordering::Acquire);
                let after = self.0.load(Ordering::Relaxed);
                if after & !LOCKED == before & !LOCKED {
                    return copied;
                }
            }
            if self.looked_in_vain(&mut looks) {
                let copied = copy();
                self.unlock();
                return copied;
            }
        }
    }

    /// Waits a little for the writer; at last takes the lock, and says so.
    #[cold]
    #[inline(never)]
    fn looked_in_vain(&self, looks: &mut u32) -> bool {
        *looks += 1;
        if *looks == MAX_LOOKS {
            self.lock();
            return true;
        }
        let mut round = *looks;
        pause(&mut round);
        false
    }

    /// Waits until no other writer has the page. Writers never wait for a disk while they
    /// have one.
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

    /// The holder of the lock is about to change the page.
    #[inline]
    pub(crate) fn begin(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED, "locked, and not yet begun");
        self.0.store(now | WRITING, Ordering::Relaxed);
        // Pairs with the fence of `read`.
        fence(Ordering::Release);
    }

    /// The holder of the lock has changed the page, and gives the lock back.
    #[inline]
    pub(crate) fn finish(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED | WRITING, "begun");
        // Wraps after 2^62 changes of one page, which no one lives to see.
        self.0.store((now & !(LOCKED | WRITING)).wrapping_add(STEP), Ordering::Release);
    }

    /// The holder of the lock has changed nothing, and gives it back.
    #[inline]
    pub(crate) fn unlock(&self) {
        let now = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(now & (LOCKED | WRITING), LOCKED, "locked, and nothing changed");
        self.0.store(now & !LOCKED, Ordering::Release);
    }
}
