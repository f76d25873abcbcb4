//! The one seam of this crate at which a test build can be wrong on purpose.
//!
//! The commit path takes its parts from here. In an ordinary build they are the real ones, and
//! nothing of this folder is left. In a build with `--cfg bulla_broken` or `--cfg loom` each is
//! the real one with an interposer before it, which changes what passes between the parts when
//! a [mutant](bulla_storage::faults::mutants) or a [failpoint](bulla_storage::faults::failpoints) is switched on: actions and events
//! of the core, requests and completions, frames, spares, wake-ups. Readers and the log's face call functions of this folder, which in an ordinary build return their argument.
//! So core, driver, ring and readers hold no wrong code.

#[cfg(any(bulla_broken, loom))]
mod core;
#[cfg(any(bulla_broken, loom))]
mod in_flight;
pub(crate) mod log;
pub(crate) mod reader;
#[cfg(any(bulla_broken, loom))]
mod ring;
pub(crate) mod slots;
#[cfg(any(bulla_broken, loom))]
mod spare;
#[cfg(any(bulla_broken, loom))]
mod waiters;
pub(crate) mod worker;

#[cfg(any(bulla_broken, loom))]
pub(crate) use self::{
    core::Core, in_flight::InFlight, ring::Ring, spare::SpareMaker, waiters::Waiters,
};
#[cfg(not(any(bulla_broken, loom)))]
pub(crate) use crate::{
    commit::{core::Core, in_flight::InFlight, spare::SpareMaker, waiters::Waiters},
    ring::Ring,
};
