//! What a panic of the user's code, or of ours, does to a store: it is counted.
//!
//! Owns the count. That nothing is left locked, reserved or half done is the business of
//! those who lock, reserve and do. Tested by `tests/tests/panics.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sync::{AtomicU64, Ordering};

/// How many panics there were in operations.
#[derive(Debug)]
pub(crate) struct Panics(AtomicU64);

impl Panics {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Does an operation. A panic is counted, and goes on to the caller.
    #[inline]
    pub(crate) fn watch<T>(&self, operation: impl FnOnce() -> T) -> T {
        let watched = self.watched();
        let done = operation();
        watched.ended();
        done
    }

    /// Begins an operation: it is counted unless [`Watched::ended`] is called.
    #[inline]
    pub(crate) fn watched(&self) -> Watched<'_> {
        Watched(self)
    }

    /// Does what is no part of an operation that is made. A panic is counted, and ends
    /// here.
    pub(crate) fn contain(&self, work: impl FnOnce()) {
        // What it leaves behind is whole also when it panics: so is `watch`'s.
        let _ = catch_unwind(AssertUnwindSafe(|| self.watch(work)));
    }
}

/// An operation that has not ended.
pub(crate) struct Watched<'a>(&'a Panics);

impl Watched<'_> {
    #[inline]
    pub(crate) fn ended(self) {
        // It is dropped by a panic only.
        std::mem::forget(self);
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}
