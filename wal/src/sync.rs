//! Locks, atomics and parking, switched to loom's by `--cfg loom`.
//!
//! All synchronisation of the log goes through here, so that loom sees it.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, Thread},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, Thread},
};

#[cfg(not(loom))]
pub(crate) use futex::Futex;
#[cfg(loom)]
pub(crate) use loom_futex::Futex;

use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

/// Locks; a panic of an earlier holder is not ours to report here (the driver's own
/// guard poisons the log, and every other critical section leaves its data whole).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks if nobody has the lock.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Gives the lock back until the condition is notified or the time has passed; may wake early.
#[cfg(not(loom))]
pub(crate) fn wait<'a, T>(
    condition: &Condvar,
    _mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, T> {
    match timeout {
        None => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            condition.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

/// The same for loom, in whose models time has passed when others have had their turn.
#[cfg(loom)]
pub(crate) fn wait<'a, T>(
    condition: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, T> {
    if timeout.is_none() {
        return condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    drop(guard);
    thread::yield_now();
    lock(mutex)
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

/// Lets others go on, who will soon have done what is waited for.
#[cfg(not(loom))]
pub(crate) fn pause(round: &mut u32) {
    /// Rounds that take less time than giving the processor away.
    const SPINS: u32 = 64;
    /// Rounds after which we sleep: a yield never passes the processor to a thread of a lower
    /// priority, and we may be waiting for such a thread.
    const YIELDS: u32 = SPINS + 64;
    const NAP: Duration = Duration::from_micros(50);
    match *round {
        ..SPINS => std::hint::spin_loop(),
        SPINS..YIELDS => thread::yield_now(),
        YIELDS.. => return thread::sleep(NAP),
    }
    *round += 1;
}

#[cfg(loom)]
pub(crate) fn pause(_round: &mut u32) {
    thread::yield_now();
}

/// A word that threads sleep on: `futex(2)`. Unlike with parking, one system call wakes any
/// number of them.
#[cfg(not(loom))]
mod futex {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use rustix::thread::futex::{Flags, wait_bitset, wake_bitset};
    use rustix::time::{ClockId, Timespec, clock_gettime};

    use super::{AtomicU32, Ordering};

    #[derive(Debug)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) const fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        pub(crate) fn load(&self) -> u32 {
            // Acquire pairs with the Release in `bump`.
            self.0.load(Ordering::Acquire)
        }

        /// Keeps those from sleeping who have seen the word, but do not sleep yet.
        pub(crate) fn bump(&self) {
            self.0.fetch_add(1, Ordering::Release);
        }

        /// Sleeps until it is woken by one of these bits or the time has passed; not at all
        /// when the word is no longer as it was seen. May wake early.
        pub(crate) fn sleep(&self, seen: u32, bits: NonZeroU32, timeout: Option<Duration>) {
            let until = timeout.map(after);
            // Whatever it says, the caller looks again.
            let _ = wait_bitset(&self.0, Flags::PRIVATE, seen, until.as_ref(), bits);
        }

        /// Wakes at most `most` threads that sleep with one of these bits; returns how many.
        pub(crate) fn wake(&self, most: u32, bits: NonZeroU32) -> usize {
            wake_bitset(&self.0, Flags::PRIVATE, most, bits).unwrap_or(0)
        }
    }

    fn after(timeout: Duration) -> Timespec {
        let now = clock_gettime(ClockId::Monotonic);
        let timeout = Timespec::try_from(timeout).unwrap_or(NEVER);
        now.checked_add(timeout).unwrap_or(NEVER)
    }

    const NEVER: Timespec = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
}

/// The same for loom, which knows no system calls.
#[cfg(loom)]
mod loom_futex {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use loom::sync::Condvar;

    use super::{AtomicU32, Mutex, Ordering, lock, thread};

    #[derive(Debug)]
    pub(crate) struct Futex {
        word: AtomicU32,
        /// Number and bits of those that sleep, in the order in which they came.
        sleepers: Mutex<(u32, Vec<(u32, u32)>)>,
        woken: Condvar,
    }

    impl Futex {
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                sleepers: Mutex::new((0, Vec::new())),
                woken: Condvar::new(),
            }
        }

        pub(crate) fn load(&self) -> u32 {
            self.word.load(Ordering::Acquire)
        }

        pub(crate) fn bump(&self) {
            self.word.fetch_add(1, Ordering::Release);
        }

        pub(crate) fn sleep(&self, seen: u32, bits: NonZeroU32, timeout: Option<Duration>) {
            if timeout.is_some() {
                return thread::yield_now();
            }
            let mut sleepers = lock(&self.sleepers);
            if self.word.load(Ordering::Acquire) != seen {
                return;
            }
            sleepers.0 += 1;
            let number = sleepers.0;
            sleepers.1.push((number, bits.get()));
            while sleepers.1.iter().any(|sleeper| sleeper.0 == number) {
                sleepers = self.woken.wait(sleepers).expect("no model panics");
            }
        }

        pub(crate) fn wake(&self, most: u32, bits: NonZeroU32) -> usize {
            let mut sleepers = lock(&self.sleepers);
            let mut woken = 0;
            sleepers.1.retain(|(_, mask)| {
                let wakes = woken < most && mask & bits.get() != 0;
                woken += u32::from(wakes);
                !wakes
            });
            self.woken.notify_all();
            woken as usize
        }
    }
}

#[cfg(loom)]
pub(crate) use loom_slots::{slot_of_thread, slots_used};
#[cfg(not(loom))]
pub(crate) use slots::{slot_of_thread, slots_used};

/// A small number for each thread of the process that lives, as long as it lives.
#[cfg(not(loom))]
mod slots {
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::lock;

    const UNKNOWN: usize = usize::MAX;
    /// For a thread that is about to end, and has given its number back.
    const NONE: usize = usize::MAX - 1;

    /// The lowest first: once there were many threads, the few that come later are to have
    /// small numbers again.
    static FREE: Mutex<BinaryHeap<Reverse<usize>>> = Mutex::new(BinaryHeap::new());
    static USED: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        static SLOT: Cell<usize> = const { Cell::new(UNKNOWN) };
        static GUARD: Guard = const { Guard };
    }

    struct Guard;

    impl Drop for Guard {
        fn drop(&mut self) {
            let slot = SLOT.replace(NONE);
            if slot < NONE {
                lock(&FREE).push(Reverse(slot));
            }
        }
    }

    #[inline]
    pub(crate) fn slot_of_thread() -> usize {
        let slot = SLOT.get();
        if slot == UNKNOWN { register() } else { slot }
    }

    #[cold]
    fn register() -> usize {
        // A thread that is ending can't be told of its end again.
        let slot = match GUARD.try_with(|_| ()) {
            // Release pairs with the Acquire in `slots_used`, by way of what the thread
            // does next. Numbers are below the most threads that lived at once.
            Ok(()) => match lock(&FREE).pop() {
                Some(Reverse(slot)) => slot,
                None => USED.fetch_add(1, Ordering::AcqRel),
            },
            Err(_) => NONE,
        };
        SLOT.set(slot);
        slot
    }

    /// Numbers given out so far are below it.
    pub(crate) fn slots_used() -> usize {
        USED.load(Ordering::Acquire)
    }
}

#[cfg(loom)]
mod loom_slots {
    use std::cell::Cell;

    use loom::sync::atomic::{AtomicUsize, Ordering};

    loom::lazy_static! {
        static ref USED: AtomicUsize = AtomicUsize::new(0);
    }

    loom::thread_local! {
        static SLOT: Cell<Option<usize>> = Cell::new(None);
    }

    pub(crate) fn slot_of_thread() -> usize {
        SLOT.with(|slot| {
            let index = slot.get().unwrap_or_else(|| USED.fetch_add(1, Ordering::AcqRel));
            slot.set(Some(index));
            index
        })
    }

    /// More than any model has threads.
    pub(crate) fn slots_used() -> usize {
        3
    }
}
