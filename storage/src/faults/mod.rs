//! Deliberate faults, for builds that must show that a test notices them. In an ordinary
//! build all of them are constants that the compiler removes.

pub mod failpoints;
pub mod mutants;
