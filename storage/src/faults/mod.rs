//! Deliberate faults, for builds that prove that a test notices them. In an ordinary build
//! they are constants that the compiler removes.
//!
//! [`failpoints`] and [`mutants`] are switched on by name, for all crates. The other files are
//! the seam of this crate: functions that change a value where it passes from one module to
//! another, and return it as it is unless a mutant is switched on. So the modules themselves
//! hold no wrong code.

pub mod failpoints;
pub mod mutants;

pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod holds;
pub(crate) mod purge;
#[cfg(feature = "uring")]
pub(crate) mod uring;
