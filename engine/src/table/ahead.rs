//! The next slab, allocated before it is needed.
//!
//! Owns the thread that allocates it: the system finds and clears the memory of a slab in the
//! time of thousands of puts. A slab that waits here is not in use, so no quota counts it; at
//! most one waits.

use std::sync::OnceLock;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use bulla_storage::fork::Process;

use super::slab::Slab;

/// Allocates one slab ahead of a table.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Started with the first request; `None` where it could not be started.
    worker: OnceLock<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    /// Without capacity: a request that meets a busy worker is dropped, as one is on its way.
    requests: Sender<()>,
    slabs: Receiver<Slab>,
    thread: JoinHandle<()>,
    /// The process that has the thread.
    process: Process,
}

impl Ahead {
    /// Returns the slab that was allocated ahead, if it is ready, and requests the next one.
    pub(super) fn next(&self) -> Option<Slab> {
        let worker = self.worker.get_or_init(Worker::start).as_ref()?;
        let slab = worker.slabs.try_recv().ok();
        // Full means that the worker is allocating one already.
        let _ = worker.requests.try_send(());
        slab
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(Some(Worker { requests, slabs, thread, process })) = self.worker.take() {
            if process.is_left() {
                // A child of a fork has no such thread to wait for.
                std::mem::forget((requests, slabs, thread));
                return;
            }
            drop(requests);
            // A panic in it was reported when it happened, and costs nobody a slab.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start() -> Option<Self> {
        let (requests, requested) = bounded(0);
        let (ready, slabs) = bounded(1);
        let builder = std::thread::Builder::new().name("bulla-slab".to_owned());
        let thread = builder.spawn(move || run(&requested, &ready)).ok()?;
        Some(Self { requests, slabs, thread, process: Process::current() })
    }
}

/// Allocates the first slab at once, and another for each request, until no more can come.
fn run(requested: &Receiver<()>, ready: &Sender<Slab>) {
    loop {
        // Without memory the table meets the error itself.
        if let Ok(slab) = Slab::populated() {
            // It is dropped if one is waiting.
            let _ = ready.try_send(slab);
        }
        if requested.recv().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn slab_is_made_once_one_was_wanted_and_is_given_once() {
        let ahead = Ahead::default();
        let next = || {
            let start = Instant::now();
            loop {
                if let Some(slab) = ahead.next() {
                    return slab;
                }
                assert!(start.elapsed() < Duration::from_secs(20), "no slab was made");
                std::thread::yield_now();
            }
        };
        for _ in 0..3 {
            assert!(next().is_empty());
            let worker = ahead.worker.get().and_then(Option::as_ref).expect("a thread");
            assert!(worker.slabs.len() <= 1, "one is ahead at most");
        }
    }
}
