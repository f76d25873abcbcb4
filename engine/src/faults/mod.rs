//! Where tests make the engine fail: every hook of the crate comes from here.
//!
//! Owns nothing but names. [`planted`] and [`either`] select a planted bug, [`skip`] leaves out
//! a sync, [`pass`] marks a step at which a test can raise a panic. In an ordinary build all of
//! them are constants that the compiler removes.

pub mod steps;

pub(crate) use bulla_storage::faults::failpoints::{Point, skip};
pub(crate) use bulla_storage::faults::mutants::{Mutant, either, planted};
pub(crate) use steps::{Step, pass};
