//! Atomics, locks, and how a thread yields to others. The loom models bring their own.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use std::sync::PoisonError;

/// Locks a mutex. A thread that panicked with the lock left its data consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading; see [`lock`].
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing; see [`lock`].
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other threads proceed, which will soon have done what this one waits for.
pub(crate) fn pause(round: &mut u32) {
    /// Rounds that take less time than yielding the processor.
    const SPINS: u32 = 64;
    if *round < SPINS {
        *round += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
