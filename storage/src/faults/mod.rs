//! Deliberate faults, for builds that prove that a test notices them. In an ordinary build
//! they are constants that the compiler removes.

pub mod failpoints;
pub mod mutants;
