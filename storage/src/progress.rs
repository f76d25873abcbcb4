//! What an open tells its caller while it reads, and how the caller ends it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// How far the reading of a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done, at most `total`; in the phase [`Wait`](Phase::Wait) milliseconds.
    pub done: u64,
    /// Bytes to do. A segment that ends early counts in full. In the phase [`Wait`](Phase::Wait)
    /// milliseconds until the open fails with [`Error::Locked`].
    pub total: u64,
}

/// What is done with a log that is opened, inspected, backed up or restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// Somebody has it open for writing, in this process or another, and the open waits.
    Wait,
    /// Its segments are read and checked. That can be repeated, and begins at 0 then: where a
    /// checkpoint does not stand, and where another process writes the log.
    Scan,
    /// Its entries are applied to a store.
    Replay,
    /// It is copied, for a backup or by a restore.
    Copy,
    /// The copy is read back.
    Verify,
}

/// A function that is called while a log is read.
#[derive(Clone)]
pub struct OnProgress(Arc<Callback>);

type Callback = dyn Fn(Progress) -> ControlFlow<()> + Send + Sync;

impl OnProgress {
    /// Wraps a function.
    #[must_use]
    pub fn new(callback: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }
}

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// Counts what is done in one phase, for the caller's function if there is one.
#[derive(Debug)]
pub struct Meter<'a> {
    callback: Option<&'a OnProgress>,
    phase: Phase,
    total: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: u64,
    cancelled: bool,
}

impl<'a> Meter<'a> {
    /// Bytes between two calls of the function.
    pub const STEP: u64 = 1024 * 1024;

    /// Begins a phase.
    #[must_use]
    pub fn new(callback: Option<&'a OnProgress>, phase: Phase, total: u64) -> Self {
        Self { callback, phase, total, state: Mutex::default() }
    }

    /// Adds bytes, and tells the caller. No two calls overlap, and `done` never falls.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the caller wants no more; from then on always.
    pub fn add(&self, bytes: u64) -> Result<()> {
        let Some(OnProgress(callback)) = self.callback else { return Ok(()) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.cancelled {
            state.done = state.done.saturating_add(bytes).min(self.total);
            let progress = Progress { phase: self.phase, done: state.done, total: self.total };
            state.cancelled = callback(progress).is_break();
        }
        if state.cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// How far one reader is, which tells its [`Meter`] in steps.
#[derive(Debug)]
pub struct Stretch<'a> {
    meter: &'a Meter<'a>,
    told: u64,
}

impl<'a> Stretch<'a> {
    /// Begins at a position in bytes: an offset or an LSN.
    #[must_use]
    pub fn new(meter: &'a Meter<'a>, start: u64) -> Self {
        Self { meter, told: start }
    }

    /// Notes that everything before `at` is done; tells the meter after each
    /// [step](Meter::STEP).
    ///
    /// # Errors
    /// As [`Meter::add`].
    pub fn reach(&mut self, at: u64) -> Result<()> {
        if at.saturating_sub(self.told) < Meter::STEP { Ok(()) } else { self.end(at) }
    }

    /// Tells the meter that everything before `at` is done.
    ///
    /// # Errors
    /// As [`Meter::add`].
    pub fn end(&mut self, at: u64) -> Result<()> {
        let bytes = at.saturating_sub(self.told);
        self.told += bytes;
        self.meter.add(bytes)
    }
}
