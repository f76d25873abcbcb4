//! What all threads of a log share, and who drives when.
//!
//! Whoever waits drives: a waiter that finds the driver's lock free leads until its
//! receipt is ready, then hands over; the others park. Owns the published watermarks,
//! the waiters' wishes and the poison. Every wait here ends by an advance, by a
//! hand-over, or by the poison.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::core::Watermarks;
use super::driver::{Driver, WantedSpare};
use super::wait::{Left, Mark, Waiters};
use crate::ring::Ring;
use crate::sync::{
    AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Thread, lock, park, try_lock,
};
use bulla_storage::Lsn;
use bulla_storage::Visibility;
use bulla_storage::faults::mutants::{Bug, planted};
use bulla_storage::io::Completion;
use bulla_storage::{Error, PoisonCause, Result};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ring: Ring,
    pub(crate) waiters: Waiters,
    driver: Mutex<Driver>,
    balanced: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    /// Somebody waits for positions below these.
    wanted_written: AtomicU64,
    wanted_synced: AtomicU64,
    poisoned: AtomicBool,
    cause: Mutex<Option<Arc<PoisonCause>>>,
    /// The background threads end.
    stop: AtomicBool,
    flusher: OnceLock<Thread>,
    preparer: OnceLock<Thread>,
    /// The segment that the preparer is to make.
    spare_wanted: Mutex<Option<WantedSpare>>,
}

/// Turns after which the flusher lets others at the driver for a moment.
const MAX_TURNS: usize = 64;
/// How long a thread that can do nothing itself sleeps before it looks again; only ever
/// reached when a wake-up was missed.
const SAFETY_NET: Duration = Duration::from_millis(100);

impl Shared {
    pub(crate) fn new(ring: Ring, driver: Driver, durable: Lsn) -> Self {
        Self {
            ring,
            waiters: Waiters::new(),
            driver: Mutex::new(driver),
            balanced: AtomicU64::new(durable.0),
            written: AtomicU64::new(durable.0),
            synced: AtomicU64::new(durable.0),
            wanted_written: AtomicU64::new(0),
            wanted_synced: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            cause: Mutex::new(None),
            stop: AtomicBool::new(false),
            flusher: OnceLock::new(),
            preparer: OnceLock::new(),
            spare_wanted: Mutex::new(None),
        }
    }

    // Watermarks.

    pub(crate) fn written(&self) -> Lsn {
        // Acquire pairs with the Release in `publish`.
        Lsn(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn synced(&self) -> Lsn {
        // Acquire pairs with the Release in `publish`.
        Lsn(self.synced.load(Ordering::Acquire))
    }

    /// Is `lsn` below its watermark? An error when it never will be.
    pub(crate) fn check(&self, mark: Mark, lsn: Lsn) -> Result<bool> {
        let watermark = match mark {
            Mark::Balanced => &self.balanced,
            Mark::Synced => &self.synced,
        };
        // Acquire pairs with the Release in `publish`.
        if lsn.0 < watermark.load(Ordering::Acquire) {
            return Ok(true);
        }
        // Acquire pairs with the Release in `poison`.
        if self.poisoned.load(Ordering::Acquire) {
            return Err(self.poison_error());
        }
        Ok(false)
    }

    /// Publishes watermarks and wakes threads; gives whether tasks are to be woken.
    pub(crate) fn publish(&self, marks: Watermarks) -> bool {
        self.ring.free(marks.written);
        // Release pairs with the Acquire in `check`: who sees a watermark also sees
        // whatever the driver did before it moved.
        self.written.store(marks.written.0, Ordering::Release);
        self.balanced.store(marks.balanced.0, Ordering::Release);
        self.synced.store(marks.synced.0, Ordering::Release);
        let tasks = self.waiters.release(&marks);
        self.waiters.release_room();
        tasks
    }

    /// What waiters want written and synced.
    pub(crate) fn wanted(&self) -> (Lsn, Lsn) {
        // Acquire pairs with the Release in `want`.
        (
            Lsn(self.wanted_written.load(Ordering::Acquire)),
            Lsn(self.wanted_synced.load(Ordering::Acquire)),
        )
    }

    /// Says that somebody waits for `lsn`.
    pub(crate) fn want(&self, mark: Mark, lsn: Lsn) {
        let wanted = match mark {
            Mark::Balanced => &self.wanted_written,
            Mark::Synced => &self.wanted_synced,
        };
        // Release pairs with the Acquire in `wanted`.
        wanted.fetch_max(lsn.0.saturating_add(1), Ordering::AcqRel);
    }

    // Poison.

    /// Poisons the log and wakes threads; gives whether tasks are to be woken.
    pub(crate) fn poison(&self, cause: PoisonCause) -> bool {
        {
            let mut slot = lock(&self.cause);
            if slot.is_none() {
                *slot = Some(Arc::new(cause));
            }
        }
        // Release pairs with the Acquire in `check`: who sees the flag finds the cause.
        self.poisoned.store(true, Ordering::Release);
        self.ring.shut();
        let asleep = planted(Bug::PoisonWakesNobody);
        let tasks = !asleep && self.waiters.release_all();
        self.wake_flusher();
        tasks
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        // Acquire pairs with the Release in `poison`.
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn poison_error(&self) -> Error {
        let cause = lock(&self.cause).clone().unwrap_or_else(|| Arc::new(PoisonCause::Panic));
        Error::Poisoned { durable: self.synced(), cause }
    }

    // Driving.

    /// Waits for the driver's lock.
    pub(crate) fn driver(&self) -> Driving<'_> {
        Driving::new(self, lock(&self.driver))
    }

    /// Takes the driver's lock if it is free.
    pub(crate) fn try_driver(&self) -> Option<Driving<'_>> {
        try_lock(&self.driver).map(|guard| Driving::new(self, guard))
    }

    /// As [`try_driver`](Self::try_driver), for an append: its caller may hold locks that a
    /// waker wants, so tasks are left to the flusher (if there is one).
    pub(crate) fn try_driver_to_append(&self) -> Option<Driving<'_>> {
        let mut driver = self.try_driver()?;
        driver.leaves_tasks = self.flusher.get().is_some();
        Some(driver)
    }

    /// Waits until `lsn` is below its watermark, driving if nobody else does. `false`
    /// when `deadline` (of the log's clock, asked by `now`) came first.
    pub(crate) fn wait(
        &self,
        mark: Mark,
        lsn: Lsn,
        deadline: Option<Deadline<'_>>,
    ) -> Result<bool> {
        if self.check(mark, lsn)? {
            return Ok(true);
        }
        self.want(mark, lsn);
        loop {
            if let Some(mut driver) = self.try_driver()
                && let Some(ready) = driver.lead(mark, lsn, deadline)?
            {
                return Ok(ready);
            }
            let entered = self.waiters.enter(mark, lsn);
            // Who held the lock just now may have left before we entered: look again.
            // From here on a driver that leaves finds us.
            match self.check(mark, lsn) {
                Ok(false) => {}
                result => {
                    drop(entered);
                    // Who left in between may have handed the lead to us.
                    self.waiters.wake_next_driver();
                    return result;
                }
            }
            if let Some(mut driver) = self.try_driver()
                && let Some(ready) = driver.lead(mark, lsn, deadline)?
            {
                return Ok(ready);
            }
            // Another thread has the driver, or does the operation that we wait for and
            // will drive on. It finds us. What we wait for may have come about while we
            // tried: that saves a sleep.
            if let Ok(false) = self.check(mark, lsn) {
                entered.sleep(deadline.map(Deadline::left));
            }
            drop(entered);
            if self.check(mark, lsn)? {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| deadline.left().is_zero()) {
                // We may have been the one that was woken to drive.
                self.waiters.wake_next_driver();
                return Ok(false);
            }
        }
    }

    /// Waits until there may be room in the ring. The caller tries again.
    pub(crate) fn wait_for_room(&self, still_full: impl Fn() -> bool) {
        let end = self.ring.end();
        self.want(Mark::Balanced, Lsn(end.0.saturating_sub(1)));
        if let Some(mut driver) = self.try_driver_to_append()
            && driver.turn()
        {
            return;
        }
        self.waiters.register_for_room();
        if still_full() && !self.is_poisoned() {
            self.wake_flusher();
            park(Some(SAFETY_NET));
        }
        self.waiters.cancel_for_room();
    }

    /// Waits until entries at `lsn` may be read, or never more will be (the log is
    /// poisoned or closed), or `timeout` has passed; may come back early.
    pub(crate) fn wait_to_read(&self, visibility: Visibility, lsn: Lsn, timeout: Duration) {
        self.waiters.register_reader(visibility, lsn);
        // Registered before this look: either we see the change, or it sees us.
        let mark = match visibility {
            Visibility::Durable => self.synced(),
            Visibility::Written => self.written(),
        };
        if lsn >= mark && !self.is_poisoned() && !self.is_stopped() {
            park(Some(timeout));
        }
        self.waiters.cancel_reader();
    }

    // The background threads.

    pub(crate) fn set_threads(&self, flusher: Thread, preparer: Thread) {
        let _ = self.flusher.set(flusher);
        let _ = self.preparer.set(preparer);
    }

    pub(crate) fn wake_flusher(&self) {
        if let Some(flusher) = self.flusher.get() {
            flusher.unpark();
        }
    }

    pub(crate) fn ask_for_spare(&self, wanted: WantedSpare) {
        *lock(&self.spare_wanted) = Some(wanted);
        if let Some(preparer) = self.preparer.get() {
            preparer.unpark();
        }
    }

    pub(crate) fn take_spare_wanted(&self) -> Option<WantedSpare> {
        lock(&self.spare_wanted).take()
    }

    pub(crate) fn stop(&self) {
        // Release pairs with the Acquire in `is_stopped`.
        self.stop.store(true, Ordering::Release);
        self.waiters.release_all_readers();
        for thread in [self.flusher.get(), self.preparer.get()].into_iter().flatten() {
            thread.unpark();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Acquire pairs with the Release in `stop`.
        self.stop.load(Ordering::Acquire)
    }
}

/// A point in time on the log's clock.
#[derive(Clone, Copy)]
pub(crate) struct Deadline<'a> {
    pub(crate) at_ns: u64,
    pub(crate) now_ns: &'a dyn Fn() -> u64,
}

impl Deadline<'_> {
    fn left(self) -> Duration {
        Duration::from_nanos(self.at_ns.saturating_sub((self.now_ns)()))
    }
}

/// The right to drive. A panic while it is held poisons the log.
pub(crate) struct Driving<'a> {
    shared: &'a Shared,
    /// There until this is dropped, but for the moments in which tasks are woken.
    guard: Option<MutexGuard<'a, Driver>>,
    /// The thread was unwinding before: that panic is not the driver's.
    unwinding: bool,
    /// Tasks that are ready are left to the flusher.
    leaves_tasks: bool,
}

impl<'a> Driving<'a> {
    fn new(shared: &'a Shared, guard: MutexGuard<'a, Driver>) -> Self {
        let unwinding = std::thread::panicking();
        Self { shared, guard: Some(guard), unwinding, leaves_tasks: false }
    }
}

impl Driving<'_> {
    /// Drives until `lsn` is below its watermark, the log is poisoned, or time is up.
    /// `None` when all that is left to do is being done by other threads.
    fn lead(
        &mut self,
        mark: Mark,
        lsn: Lsn,
        deadline: Option<Deadline<'_>>,
    ) -> Result<Option<bool>> {
        loop {
            if self.shared.check(mark, lsn)? {
                return Ok(Some(true));
            }
            if deadline.is_some_and(|deadline| deadline.left().is_zero()) {
                return Ok(Some(false));
            }
            if self.turn() {
                continue;
            }
            if self.has_workers() {
                return Ok(None);
            }
            if !self.shared.check(mark, lsn)? {
                // Whatever was appended has a place, so the core always has a next step.
                debug_assert!(false, "the core is stuck below LSN {lsn}: {:?}", self.core);
                park(Some(SAFETY_NET));
            }
        }
    }

    /// Does what can be done, and an operation that blocks (or waits for a completion) if
    /// there was nothing else; then wakes the tasks that are ready by now.
    pub(crate) fn turn(&mut self) -> bool {
        let shared = self.shared;
        let progress = self.pump(shared) || self.work() || self.reap(shared);
        if !self.leaves_tasks && std::mem::take(&mut self.tasks_ready) {
            // Wakers are others' code: not under the lock, and not only when we leave.
            self.guard = None;
            shared.waiters.wake_tasks();
            self.guard = Some(lock(&shared.driver));
        }
        progress
    }

    /// Does an operation that blocks. The lock is free meanwhile, so that others can
    /// start the next one: several synced writes at once are the disk's pace.
    pub(crate) fn work(&mut self) -> bool {
        let shared = self.shared;
        let Some((ticket, request)) = self.take_out() else { return false };
        self.guard = None;
        // Those who wait for it must hear of it in any case.
        let result = catch_unwind(AssertUnwindSafe(|| request.perform()))
            .unwrap_or_else(|_| Err(io::Error::other("an operation panicked")));
        // Its bytes are the ring's, and free for others once it is reported.
        drop(request);
        self.guard = Some(lock(&shared.driver));
        self.returned(shared, Completion { ticket, result });
        true
    }

    /// Drives until nothing is left to do before the next event, or for some turns.
    pub(crate) fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            if !self.turn() {
                break;
            }
        }
    }
}

impl std::ops::Deref for Driving<'_> {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.guard.as_ref().expect("held while it is used")
    }
}

impl std::ops::DerefMut for Driving<'_> {
    fn deref_mut(&mut self) -> &mut Driver {
        self.guard.as_mut().expect("held while it is used")
    }
}

impl Drop for Driving<'_> {
    /// Gives the lock back, and the duty to drive to somebody who waits: whoever found
    /// the lock taken, for whatever it was taken, counts on that.
    fn drop(&mut self) {
        let shared = self.shared;
        if !self.unwinding && std::thread::panicking() && !shared.is_poisoned() {
            self.fail(shared, PoisonCause::Panic);
        }
        let tasks = std::mem::take(&mut self.tasks_ready);
        // A pump breaks off for the tasks: there may be more to do.
        let busy = tasks || self.is_busy();
        let has_workers = !tasks && self.has_workers();
        self.guard = None;
        if has_workers {
            // They drive on when they are done, and leave the lead to others then.
            return;
        }
        match shared.waiters.wake_next_driver() {
            Left::Woken => {}
            Left::Nobody if !busy => {}
            Left::Others | Left::Nobody => shared.wake_flusher(),
        }
        match tasks {
            true if self.leaves_tasks => shared.wake_flusher(),
            true => shared.waiters.wake_tasks(),
            false => {}
        }
    }
}
