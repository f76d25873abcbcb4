//! The thread that takes checkpoints when they are due.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use bulla_storage::fork::Process;

use super::take::Checkpoints;
use crate::record::Record;
use crate::sync::lock;

/// How often the thread checks whether a checkpoint is due.
const TICK: Duration = Duration::from_millis(100);

/// The thread that takes checkpoints. It ends when this is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Background(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    /// Nothing is ever sent: dropping it ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<()>,
    /// The process that has the thread.
    process: Process,
}

impl Background {
    /// Starts the thread, unless the caller does its work (`manual`) or no checkpoint is ever
    /// due.
    pub(crate) fn start<R: Record>(
        checkpoints: &Arc<Checkpoints<R>>,
        manual: bool,
    ) -> io::Result<Self> {
        if manual || !checkpoints.are_ever_due() {
            return Ok(Self(Mutex::new(None)));
        }
        let checkpoints = Arc::clone(checkpoints);
        let (stop, stopped) = bounded(0);
        let run = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                checkpoints.step();
            }
        };
        let builder = std::thread::Builder::new().name("bulla-checkpoint".to_owned());
        let thread = builder.spawn(run)?;
        Ok(Self(Mutex::new(Some(Running { stop, thread, process: Process::current() }))))
    }

    /// Ends the thread, after the checkpoint that it is taking.
    pub(crate) fn stop(&self) {
        let running = lock(&self.0).take();
        if let Some(Running { stop, thread, process }) = running {
            if process.is_left() {
                // A child of a fork has no such thread to wait for.
                std::mem::forget((stop, thread));
                return;
            }
            drop(stop);
            // A task that this thread woke may have closed the store: the thread ends by itself.
            // A panic in it was reported when it happened.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
