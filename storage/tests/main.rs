//! The tests of this package in one program, which is linked once.

mod backup_golden;
#[cfg(feature = "sim")]
mod common;
mod format_doc;
mod format_golden;
#[cfg(all(feature = "sim", feature = "uring"))]
mod io_conformance;
mod names;
#[cfg(feature = "sim")]
mod sim_disk;
