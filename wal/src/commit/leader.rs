//! Who drives when: one leader at a time, and its followers.
//!
//! Waiters lead: a waiter that finds the driver's lock free does the work of all until its own
//! receipt is ready, then passes the lead on; the others sleep. Owns the driver and its lock.
//! Every wait here ends by an advance, by a passed lead, or by the poison.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::driver::Driver;
use super::published::Published;
use super::waiters::{Handoff, Watermark};
use crate::sync::{Mutex, MutexGuard, lock, park, try_lock};
use bulla_storage::io::Completion;
use bulla_storage::{Lsn, PoisonCause, Result};

/// Turns after which the flusher lets others at the driver for a moment.
const MAX_TURNS: usize = 64;
/// How long a thread that can do nothing itself sleeps before it tries again; only ever
/// reached when a wake-up was missed.
const SAFETY_NET: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Leadership {
    published: Arc<Published>,
    driver: Mutex<Driver>,
}

impl Leadership {
    pub(crate) fn new(published: Arc<Published>, driver: Driver) -> Self {
        Self { published, driver: Mutex::new(driver) }
    }

    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// Waits for the driver's lock.
    pub(crate) fn lead(&self) -> Leader<'_> {
        Leader::new(self, lock(&self.driver))
    }

    /// Takes the driver's lock if it is free.
    pub(crate) fn try_lead(&self) -> Option<Leader<'_>> {
        try_lock(&self.driver).map(|guard| Leader::new(self, guard))
    }

    /// As [`try_lead`](Self::try_lead), for an append: its caller may hold locks that a
    /// waker wants, so async waiters are left to the flusher (if there is one).
    pub(crate) fn try_lead_to_append(&self) -> Option<Leader<'_>> {
        let mut leader = self.try_lead()?;
        leader.leaves_async_waiters = self.published.flusher.is_employed();
        Some(leader)
    }

    /// Waits until `lsn` is below its watermark, as the leader if nobody else is. Returns
    /// `false` when `deadline` came first.
    pub(crate) fn wait(
        &self,
        watermark: Watermark,
        lsn: Lsn,
        deadline: Option<Deadline<'_>>,
    ) -> Result<bool> {
        let published = self.published();
        if published.check(watermark, lsn)? {
            return Ok(true);
        }
        published.request(watermark, lsn);
        loop {
            if let Some(mut leader) = self.try_lead()
                && let Some(ready) = leader.run_until(watermark, lsn, deadline)?
            {
                return Ok(ready);
            }
            let follower = published.waiters.enter(watermark, lsn);
            // Who held the lock just now may have left before we entered: check again.
            // From here on a leader that leaves finds us.
            match published.check(watermark, lsn) {
                Ok(false) => {}
                result => {
                    drop(follower);
                    // Who left in between may have handed the lead to us.
                    published.waiters.wake_next_leader();
                    return result;
                }
            }
            if let Some(mut leader) = self.try_lead()
                && let Some(ready) = leader.run_until(watermark, lsn, deadline)?
            {
                return Ok(ready);
            }
            // Another thread leads, or does the operation that we wait for and will lead
            // then. It finds us. What we wait for may have come about while we tried: that
            // saves a sleep.
            if let Ok(false) = published.check(watermark, lsn) {
                follower.sleep(deadline.map(Deadline::left));
            }
            drop(follower);
            if published.check(watermark, lsn)? {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| deadline.left().is_zero()) {
                // We may have been the one that was woken to lead.
                published.waiters.wake_next_leader();
                return Ok(false);
            }
        }
    }

    /// Leaves work to the flusher: wakes it, or starts it if it has ended.
    ///
    /// Without it the log could not keep its time bounds, and nobody would notice: so a log
    /// that can't start it is poisoned.
    // Once per frame at most: kept out of the way of the other appends.
    #[cold]
    pub(crate) fn wake_flusher(&self) {
        if let Err(source) = self.published.flusher.rouse() {
            self.fail_without_flusher(source);
        }
    }

    #[cold]
    fn fail_without_flusher(&self, source: io::Error) {
        if !self.published.is_poisoned() {
            self.lead().fail(PoisonCause::Thread(source));
        }
        // There is no other thread to do it.
        self.published.waiters.wake_async_waiters();
    }

    /// Waits until there may be room in the ring. The caller tries again.
    pub(crate) fn wait_for_room(&self, still_full: impl Fn() -> bool) {
        let published = self.published();
        let end = published.ring.end();
        published.request(Watermark::Balanced, Lsn(end.0.saturating_sub(1)));
        if let Some(mut leader) = self.try_lead_to_append()
            && leader.turn()
        {
            return;
        }
        published.waiters.register_for_room();
        if still_full() && !published.is_poisoned() {
            self.wake_flusher();
            park(Some(SAFETY_NET));
        }
        published.waiters.cancel_for_room();
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
pub(crate) struct Leader<'a> {
    leadership: &'a Leadership,
    /// There until this is dropped, except while async waiters are woken or an operation
    /// blocks.
    guard: Option<MutexGuard<'a, Driver>>,
    /// The thread was unwinding before: that panic is not the driver's.
    unwinding: bool,
    /// Async waiters that are ready are left to the flusher.
    leaves_async_waiters: bool,
}

impl<'a> Leader<'a> {
    fn new(leadership: &'a Leadership, guard: MutexGuard<'a, Driver>) -> Self {
        let unwinding = std::thread::panicking();
        Self { leadership, guard: Some(guard), unwinding, leaves_async_waiters: false }
    }
}

impl Leader<'_> {
    /// Drives until `lsn` is below its watermark, the log is poisoned, or time is up. Returns
    /// `None` when all that is left to do is being done by other threads.
    fn run_until(
        &mut self,
        watermark: Watermark,
        lsn: Lsn,
        deadline: Option<Deadline<'_>>,
    ) -> Result<Option<bool>> {
        let published = self.leadership.published();
        loop {
            if published.check(watermark, lsn)? {
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
            if !published.check(watermark, lsn)? {
                // Whatever was appended has a place, so the core always has a next step.
                debug_assert!(false, "the core is stuck below LSN {lsn}: {:?}", self.core);
                park(Some(SAFETY_NET));
            }
        }
    }

    /// Drives until nothing is left to do before the next event, or for some turns.
    pub(crate) fn run_until_idle(&mut self) {
        for _ in 0..MAX_TURNS {
            if !self.turn() {
                break;
            }
        }
    }

    /// Does what can be done, and an operation that blocks (or waits for a completion) if
    /// there was nothing else; then wakes the async waiters that are ready by now.
    pub(crate) fn turn(&mut self) -> bool {
        let progress = self.pump() || self.work() || self.reap();
        if !self.leaves_async_waiters && std::mem::take(&mut self.async_waiters_ready) {
            // Wakers are others' code: not under the lock, and not only when we leave.
            self.guard = None;
            self.leadership.published().waiters.wake_async_waiters();
            self.guard = Some(lock(&self.leadership.driver));
        }
        progress
    }

    /// Does an operation that blocks. The lock is free meanwhile, so that others can
    /// start the next one: several synced writes at once are the disk's pace.
    pub(crate) fn work(&mut self) -> bool {
        let Some((ticket, request)) = self.take_out() else { return false };
        self.guard = None;
        // Those who wait for it must hear of it in any case.
        let result = catch_unwind(AssertUnwindSafe(|| request.perform()))
            .unwrap_or_else(|_| Err(io::Error::other("an operation panicked")));
        // Its bytes are the ring's, and free for others once it is reported.
        drop(request);
        self.guard = Some(lock(&self.leadership.driver));
        self.returned(Completion { ticket, result });
        true
    }
}

impl std::ops::Deref for Leader<'_> {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.guard.as_ref().expect("held while it is used")
    }
}

impl std::ops::DerefMut for Leader<'_> {
    fn deref_mut(&mut self) -> &mut Driver {
        self.guard.as_mut().expect("held while it is used")
    }
}

impl Drop for Leader<'_> {
    /// Releases the lock, and passes the lead to a waiter: every thread that found the lock
    /// taken, whatever it was taken for, counts on that.
    fn drop(&mut self) {
        let published = self.leadership.published();
        if !self.unwinding && std::thread::panicking() && !published.is_poisoned() {
            self.fail(PoisonCause::Panic);
        }
        let ready = std::mem::take(&mut self.async_waiters_ready);
        // A pump breaks off for async waiters: there may be more to do.
        let busy = ready || self.is_busy();
        let has_workers = !ready && self.has_workers();
        self.guard = None;
        if has_workers {
            // They drive on when they are done, and leave the lead to others then.
            return;
        }
        match published.waiters.wake_next_leader() {
            Handoff::Woken => {}
            Handoff::Nobody if !busy => {}
            Handoff::Others | Handoff::Nobody => self.leadership.wake_flusher(),
        }
        match ready {
            true if self.leaves_async_waiters => self.leadership.wake_flusher(),
            true => published.waiters.wake_async_waiters(),
            false => {}
        }
    }
}
