//! The tests of this package in one program, which is linked once.

#[cfg(feature = "sim")]
mod common;
mod format_doc;
mod format_golden;
#[cfg(feature = "sim")]
mod io_conformance;
#[cfg(feature = "sim")]
mod sim_disk;
