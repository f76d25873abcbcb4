//! A background thread that exists only while there is something for it to do.
//!
//! Owns whether the thread runs or sleeps, and whether it was roused meanwhile, all under one
//! lock. So a thread that was roused sees it before it sleeps or ends, and one that has decided
//! to end is not taken for one that will see it: the next rouse starts another one (loom checks
//! this, in [`model`]).

#[cfg(test)]
#[cfg(loom)]
mod model;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::faults;
use crate::sync::{Condvar, Mutex, lock, thread, wait};

/// What the thread does. It returns when the worker is stopped, or after [`Worker::end`].
type Job = Arc<dyn Fn(&Worker) + Send + Sync>;

pub(crate) struct Worker {
    name: &'static str,
    state: Mutex<State>,
    roused: Condvar,
}

#[derive(Default)]
struct State {
    /// `None` before there is one, and when the worker is stopped.
    job: Option<Job>,
    /// The thread, until it ends by itself.
    thread: Option<thread::JoinHandle<()>>,
    /// The thread must do its job before it sleeps or ends.
    is_roused: bool,
    is_asleep: bool,
}

impl Worker {
    /// Returns a worker without a job, whose thread will have this name.
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, state: Mutex::new(State::default()), roused: Condvar::new() })
    }

    /// Gives the worker its job. No thread is started yet.
    pub(crate) fn employ(&self, job: impl Fn(&Self) + Send + Sync + 'static) {
        lock(&self.state).job = Some(Arc::new(job));
    }

    /// Returns whether there is a thread, or will be one when it is roused.
    pub(crate) fn is_employed(&self) -> bool {
        lock(&self.state).job.is_some()
    }

    /// Has the thread do its job: wakes it, or starts it if there is none. Does nothing without
    /// a job.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn rouse(self: &Arc<Self>) -> io::Result<()> {
        let mut state = lock(&self.state);
        let Some(job) = &state.job else { return Ok(()) };
        if state.thread.is_some() {
            state.is_roused = true;
            if std::mem::take(&mut state.is_asleep) {
                drop(state);
                self.roused.notify_one();
            }
            return Ok(());
        }
        let (worker, job) = (Arc::clone(self), Arc::clone(job));
        let run = move || {
            let presence = Presence(worker);
            job(&presence.0);
        };
        // It begins its job after this rouse.
        state.is_roused = false;
        state.thread = Some(thread::Builder::new().name(self.name.to_owned()).spawn(run)?);
        Ok(())
    }

    // For the thread itself.

    /// Sleeps until it is roused, the worker is stopped, or the time has passed; may wake early.
    /// Returns whether it was roused.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut state = lock(&self.state);
        if !state.is_roused && state.job.is_some() {
            state.is_asleep = true;
            state = wait(&self.roused, &self.state, state, timeout);
            state.is_asleep = false;
        }
        std::mem::take(&mut state.is_roused)
    }

    /// Returns whether the thread may end, which it then must. Not when it was roused: then it
    /// does its job again.
    #[must_use]
    pub(crate) fn end(&self) -> bool {
        let mut state = lock(&self.state);
        let ends = !std::mem::take(&mut state.is_roused);
        // Who has stopped it waits for it.
        if ends && state.job.is_some() && faults::worker::is_end_told() {
            state.thread = None;
        }
        ends
    }

    // For the one that stops it.

    /// Takes the job away: the thread wakes, and none is started any more.
    pub(crate) fn stop(&self) {
        // Others' code is dropped when nothing is locked.
        let job = lock(&self.state).job.take();
        self.roused.notify_one();
        drop(job);
    }

    /// Waits for the end of the thread, once it is stopped. A thread does not wait for itself: a
    /// task that it woke may have closed the log.
    pub(crate) fn join(&self) {
        let thread = lock(&self.state).thread.take();
        let this = thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != this) {
            // A panic of it poisoned the log, which `close` reports.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A thread that does its job. If it panics there is none: the next rouse starts another one.
struct Presence(Arc<Worker>);

impl Drop for Presence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = lock(&self.0.state);
            if state.job.is_some() {
                state.thread = None;
            }
        }
    }
}
