//! The operations in flight, between the driver and the backend's queue.
//!
//! Counts them, and knows which of them threads do without the driver's lock because the
//! backend would block. Decides nothing.

use super::core::Op;
use bulla_storage::io::{Completion, Queue, Request, Ticket};

#[derive(Debug)]
pub(crate) struct InFlight {
    /// There until the log is given up.
    queue: Option<Box<dyn Queue>>,
    /// Operations whose completion the driver has not handled.
    count: usize,
    /// Of these, the ones that threads do without the driver's lock.
    outside: usize,
}

impl InFlight {
    pub(crate) fn new(queue: Box<dyn Queue>) -> Self {
        Self { queue: Some(queue), count: 0, outside: 0 }
    }

    pub(crate) fn submit(&mut self, op: Op, request: Request) {
        let Some(queue) = &mut self.queue else { return };
        self.count += 1;
        queue.submit(Ticket(op.0), request);
    }

    /// Returns the next completion; with `wait`, blocks while the queue has an operation in
    /// flight.
    pub(crate) fn complete(&mut self, wait: bool) -> Option<Completion> {
        let completion = self.queue.as_mut()?.complete(wait)?;
        self.count_completion();
        Some(completion)
    }

    /// Takes an operation that blocks out of the queue, to be done without the driver's lock.
    /// Its completion must be given to [`returned`](Self::returned).
    pub(crate) fn take_out(&mut self) -> Option<(Ticket, Request)> {
        let taken = self.queue.as_mut()?.take();
        self.outside += usize::from(taken.is_some());
        taken
    }

    /// Takes back an operation that was done without the driver's lock.
    pub(crate) fn returned(&mut self, completion: Completion) -> Completion {
        assert!(self.outside > 0, "{:?} was not taken out", completion.ticket);
        self.outside -= 1;
        self.count_completion();
        completion
    }

    fn count_completion(&mut self) {
        assert!(self.count > self.outside, "more completions than operations");
        self.count -= 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns whether threads that will lead afterwards are doing all the operations.
    pub(crate) fn is_all_outside(&self) -> bool {
        self.outside > 0 && self.count == self.outside
    }

    /// Returns whether a thread is doing an operation.
    pub(crate) fn is_any_outside(&self) -> bool {
        self.outside > 0
    }

    /// Drops the queue, which waits for what the backend has begun.
    pub(crate) fn give_up(&mut self) {
        self.queue = None;
    }
}
