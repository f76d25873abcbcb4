//! What a log's leader publishes, and what everybody else asks of it.
//!
//! Owns the watermarks, the requests of those who wait, the poison, the ring and the lists of
//! waiters: all that a thread may use without the driver's lock. Readers hold this alone, and
//! may do so longer than the log lives. Every wait here ends by an advance, by the poison, or
//! when the log is closed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::core::Watermarks;
use super::spare::SpareRequest;
use super::waiters::Watermark;
use super::worker::Worker;
use crate::faults::{Ring, Waiters};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock, park};
use bulla_storage::{Error, Lsn, PoisonCause, Result, Visibility};

#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) ring: Ring,
    pub(crate) waiters: Waiters,
    balanced: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    /// Somebody waits for positions below these.
    requested_written: AtomicU64,
    requested_synced: AtomicU64,
    poisoned: AtomicBool,
    cause: Mutex<Option<Arc<PoisonCause>>>,
    /// The background threads end.
    stop: AtomicBool,
    pub(crate) flusher: Arc<Worker>,
    pub(crate) spare_maker: Arc<Worker>,
    spare_request: Mutex<Option<SpareRequest>>,
}

impl Published {
    /// Returns the state of a log whose bytes below `durable` are all durable.
    pub(crate) fn new(ring: Ring, durable: Lsn) -> Self {
        Self {
            ring,
            waiters: Waiters::new(),
            balanced: AtomicU64::new(durable.0),
            written: AtomicU64::new(durable.0),
            synced: AtomicU64::new(durable.0),
            requested_written: AtomicU64::new(0),
            requested_synced: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            cause: Mutex::new(None),
            stop: AtomicBool::new(false),
            flusher: Worker::new("bulla-flush"),
            spare_maker: Worker::new("bulla-prepare"),
            spare_request: Mutex::new(None),
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

    /// Returns whether `lsn` is below its watermark; an error when it never will be.
    pub(crate) fn check(&self, watermark: Watermark, lsn: Lsn) -> Result<bool> {
        let published = match watermark {
            Watermark::Balanced => &self.balanced,
            Watermark::Synced => &self.synced,
        };
        // Acquire pairs with the Release in `publish`.
        if lsn.0 < published.load(Ordering::Acquire) {
            return Ok(true);
        }
        // Acquire pairs with the Release in `poison`.
        if self.poisoned.load(Ordering::Acquire) {
            return Err(self.poison_error());
        }
        Ok(false)
    }

    /// Publishes watermarks and wakes threads; returns whether async waiters must be woken.
    pub(crate) fn publish(&self, marks: Watermarks) -> bool {
        assert!(marks.synced <= marks.written && marks.balanced <= marks.written, "{marks:?}");
        assert!(marks.written >= self.written() && marks.synced >= self.synced(), "{marks:?}");
        if self.ring.free(marks.written) {
            // Only to populate it ahead: without a thread appends do that.
            let _ = self.spare_maker.rouse();
        }
        // Release pairs with the Acquire in `check`: who sees a watermark also sees
        // whatever the driver did before it moved.
        self.written.store(marks.written.0, Ordering::Release);
        self.balanced.store(marks.balanced.0, Ordering::Release);
        self.synced.store(marks.synced.0, Ordering::Release);
        let ready = self.waiters.release(&marks);
        self.waiters.release_room();
        ready
    }

    /// Returns what waiters want to be written and synced.
    pub(crate) fn requested(&self) -> (Lsn, Lsn) {
        // Acquire pairs with the Release in `request`.
        (
            Lsn(self.requested_written.load(Ordering::Acquire)),
            Lsn(self.requested_synced.load(Ordering::Acquire)),
        )
    }

    /// Takes note that somebody waits for `lsn`.
    pub(crate) fn request(&self, watermark: Watermark, lsn: Lsn) {
        let requested = match watermark {
            Watermark::Balanced => &self.requested_written,
            Watermark::Synced => &self.requested_synced,
        };
        // Release pairs with the Acquire in `requested`.
        requested.fetch_max(lsn.0.saturating_add(1), Ordering::AcqRel);
    }

    /// Waits until entries at `lsn` may be read, or never more will be (the log is
    /// poisoned or closed), or `timeout` has passed; may return early.
    pub(crate) fn wait_to_read(&self, visibility: Visibility, lsn: Lsn, timeout: Duration) {
        self.waiters.register_reader(visibility, lsn);
        // Registered before this check: either we see the change, or it sees us.
        if !self.may_read(visibility, lsn) {
            park(Some(timeout));
        }
        self.waiters.cancel_reader();
    }

    /// Returns whether entries at `lsn` may be read, or certainly never will be.
    pub(crate) fn may_read(&self, visibility: Visibility, lsn: Lsn) -> bool {
        let published = match visibility {
            Visibility::Durable => self.synced(),
            Visibility::Written => self.written(),
        };
        lsn < published || self.is_poisoned() || self.is_stopped()
    }

    // Poison.

    /// Poisons the log and wakes threads; returns whether async waiters must be woken.
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
        self.waiters.release_all()
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        // Acquire pairs with the Release in `poison`.
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn poison_error(&self) -> Error {
        let cause = lock(&self.cause).clone().unwrap_or_else(|| Arc::new(PoisonCause::Panic));
        Error::Poisoned { durable: self.synced(), cause }
    }

    // The background threads.

    /// # Errors
    /// When there is no thread to make it.
    pub(crate) fn request_spare(&self, request: SpareRequest) -> io::Result<()> {
        *lock(&self.spare_request) = Some(request);
        self.spare_maker.rouse().inspect_err(|_| *lock(&self.spare_request) = None)
    }

    pub(crate) fn take_spare_request(&self) -> Option<SpareRequest> {
        lock(&self.spare_request).take()
    }

    /// Ends the background threads, and the waits of readers. Nothing may be locked.
    pub(crate) fn stop(&self) {
        // Release pairs with the Acquire in `is_stopped`.
        self.stop.store(true, Ordering::Release);
        self.waiters.release_all_readers();
        self.waiters.wake_async_waiters();
        for worker in [&self.flusher, &self.spare_maker] {
            worker.stop();
        }
    }

    /// Waits for the end of the background threads, after [`stop`](Self::stop).
    pub(crate) fn join(&self) {
        self.flusher.join();
        self.spare_maker.join();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Acquire pairs with the Release in `stop`.
        self.stop.load(Ordering::Acquire)
    }
}
