//! Waiting for a receipt's level without a thread of one's own.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::commit::waiters::{Registration, Watermark};
use crate::log::Log;
use bulla_storage::{Receipt, Result};

/// A future that is ready when a receipt's level holds. Dropping it cancels nothing.
///
/// `L` is how it reaches the log: `&Log` ([`Log::ready`]), `Arc<Log>`
/// ([`Log::ready_owned`]), or any other pointer that a program shares its log by.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ready<L: Deref<Target = Log>> {
    log: L,
    receipt: Receipt,
    /// The one that must pass the receipt, or why none ever will; `None` when there is nothing
    /// to wait for.
    watermark: Option<Result<Watermark>>,
    registration: Option<Registration>,
}

impl<L: Deref<Target = Log>> Ready<L> {
    /// Returns the future of a receipt of `log`.
    pub fn new(log: L, receipt: Receipt) -> Self {
        let watermark = log.watermark(receipt).transpose();
        Self { log, receipt, watermark, registration: None }
    }

    /// Returns the receipt.
    pub fn receipt(&self) -> Receipt {
        self.receipt
    }
}

impl Log {
    /// Returns a future of the receipt's level, for any executor. The log's own thread does the
    /// work, from the first poll on.
    ///
    /// Its waker is called by whichever thread finds the level to hold, but for one that
    /// appends, and with no lock of the log held: it may run the task at once, wait for
    /// this log, or drop it. One that panics affects nobody else.
    pub fn ready(&self, receipt: Receipt) -> Ready<&Self> {
        Ready::new(self, receipt)
    }

    /// As [`ready`](Self::ready), but the future keeps the log open and borrows nothing,
    /// so that it can be given to an executor that wants `'static` tasks.
    pub fn ready_owned(self: &Arc<Self>, receipt: Receipt) -> Ready<Arc<Self>> {
        Ready::new(Arc::clone(self), receipt)
    }
}

impl<L: Deref<Target = Log> + Unpin> Future for Ready<L> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (published, lsn) = (&this.log.published, this.receipt.lsn);
        let Some(Ok(watermark)) = this.watermark else {
            let never = this.watermark.take();
            return Poll::Ready(never.map_or(Ok(()), |never| never.map(drop)));
        };
        let ready = || match published.check(watermark, lsn) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        };
        if let done @ Poll::Ready(_) = ready() {
            return done;
        }
        let first = this.registration.is_none();
        this.registration = Some(published.waiters.register_async(
            watermark,
            lsn,
            context.waker(),
            this.registration,
        ));
        if first {
            published.request(watermark, lsn);
            this.log.leadership.wake_flusher();
        }
        // Registered before this check: either we see the advance, or it sees us.
        ready()
    }
}

impl<L: Deref<Target = Log>> Drop for Ready<L> {
    fn drop(&mut self) {
        if let Some(registration) = self.registration {
            self.log.published.waiters.cancel(registration);
        }
    }
}
