//! Where tests make the engine fail: every hook of the crate comes from here.
//!
//! [`skip`] leaves out a sync, [`pass`] marks a step at which a test can raise a panic. The
//! other files are the seam of this crate: each function changes a value where it passes from
//! one module to another, or puts a step before a step, if a
//! [mutant](bulla_storage::faults::mutants) is switched on. In an ordinary build all of them
//! return their argument, and the compiler removes them. So the modules hold no wrong code.

pub(crate) mod checkpoint;
pub(crate) mod evict;
pub(crate) mod publish;
pub(crate) mod quota;
pub(crate) mod state;
pub mod steps;
pub(crate) mod write;

pub(crate) use bulla_storage::faults::failpoints::{Failpoint, skip};
pub(crate) use steps::{Step, pass};
