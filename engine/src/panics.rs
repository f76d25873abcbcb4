//! Panics of the user's code, or of ours, during operations: they are counted.
//!
//! Owns the count. The code that locks, reserves and applies sees to it itself that a panic
//! leaves nothing locked, reserved or half done. Tested by `tests/tests/panics.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sync::{AtomicU64, Ordering};

/// The number of panics in operations.
#[derive(Debug)]
pub(crate) struct Panics(AtomicU64);

impl Panics {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Runs an operation. A panic is counted, and propagates to the caller.
    #[inline]
    pub(crate) fn watch<T>(&self, operation: impl FnOnce() -> T) -> T {
        let watched = self.watched();
        let done = operation();
        watched.ended();
        done
    }

    /// Begins an operation: a panic is counted unless [`Watched::ended`] is called.
    #[inline]
    pub(crate) fn watched(&self) -> Watched<'_> {
        Watched(self)
    }

    /// Runs work that follows an operation and is not part of it. A panic is counted, and ends
    /// here.
    pub(crate) fn contain(&self, work: impl FnOnce()) {
        // Like an operation it leaves everything consistent when it panics.
        let _ = catch_unwind(AssertUnwindSafe(|| self.watch(work)));
    }
}

/// An operation that is running.
pub(crate) struct Watched<'a>(&'a Panics);

impl Watched<'_> {
    #[inline]
    pub(crate) fn ended(self) {
        // Only a panic drops it.
        std::mem::forget(self);
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}
