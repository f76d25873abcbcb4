//! Locks, atomics and parking, switched to loom's by `--cfg loom`.
//!
//! All synchronisation of the log goes through here, so that loom sees it.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Mutex, MutexGuard},
    thread::{self, Thread},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    sync::{Mutex, MutexGuard},
    thread::{self, Thread},
};

use std::sync::TryLockError;
use std::time::Duration;

/// Locks; a panic of an earlier holder is not ours to report here (the driver's own
/// guard poisons the log, and every other critical section leaves its data whole).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks if nobody has the lock.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Parks this thread until it is unparked or the time has passed; may wake early.
pub(crate) fn park(timeout: Option<Duration>) {
    match timeout {
        None => thread::park(),
        #[cfg(not(loom))]
        Some(timeout) => thread::park_timeout(timeout),
        #[cfg(loom)]
        Some(_) => thread::yield_now(),
    }
}
