//! Waiting for a receipt's level without a thread of one's own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::commit::published::Published;
use crate::commit::waiters::{Registration, Watermark};
use bulla_storage::{Lsn, Result};

/// A future that is ready when a receipt's level holds. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ready<'a> {
    published: &'a Published,
    /// The one that must pass `lsn`, or why none ever will; `None` when there is nothing to wait
    /// for.
    watermark: Option<Result<Watermark>>,
    lsn: Lsn,
    registration: Option<Registration>,
}

impl<'a> Ready<'a> {
    /// Returns a future that is ready when the watermark has passed `lsn`; at once, when there
    /// is none.
    pub(crate) fn new(
        published: &'a Published,
        watermark: Result<Option<Watermark>>,
        lsn: Lsn,
    ) -> Self {
        Self { published, watermark: watermark.transpose(), lsn, registration: None }
    }
}

impl Future for Ready<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (published, lsn) = (this.published, this.lsn);
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
            published.wake_flusher();
        }
        // Registered before this check: either we see the advance, or it sees us.
        ready()
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if let Some(registration) = self.registration {
            self.published.waiters.cancel(registration);
        }
    }
}
