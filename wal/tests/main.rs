//! The tests of this package in one program, which is linked once. The loom models are apart: they
//! need another build of everything.

#[cfg(feature = "sim")]
mod appends;
#[cfg(feature = "sim")]
mod common;
#[cfg(feature = "sim")]
mod public;
#[cfg(feature = "sim")]
mod written;
