//! Suites that span the crates: the simulator's campaign and its oracle.
//!
//! [`campaign::run`] plays one seed: a random workload on a simulated disk, crashes and
//! faults at random steps, recoveries that crash themselves, and after each recovery
//! every rule of the durability contract is checked. [`store::run`] does so for a store: against
//! a plain map, and against what its log says; [`reading::run`] for readers of a log. A failure
//! names the command that plays its seed again.

#[macro_use]
mod tally;

pub mod backups;
pub mod campaign;
pub mod checkpoints;
pub mod clock;
pub mod counting;
pub mod cuts;
pub mod defects;
pub mod enumeration;
pub mod full_disk;
pub mod fuzzing;
pub mod holds;
pub mod image;
pub mod instructions;
pub mod kills;
pub mod layer;
pub mod legacy;
pub mod live_backups;
mod model;
pub mod opening;
pub mod page_cache;
pub mod reading;
pub mod real_threads;
mod rng;
pub mod seccomp;
pub mod seeds;
mod shrink;
pub mod store;
pub mod suites;
pub mod times;
pub mod undos;
pub mod uring;
pub mod wrap;

use std::fmt::Display;
use std::io::Write;

pub use rng::{LEFT_OUT, Rng};
use tempfile::TempDir;

/// Creates a directory below the system's temporary one. It is removed when it is dropped.
///
/// # Panics
/// If it can't be created.
#[must_use]
pub fn temp_dir(name: &str) -> TempDir {
    TempDir::with_prefix(format!("bulla-{name}-")).expect("a new temporary directory")
}

/// Says that a test, or a part of one, can't run on this machine. It goes past the test harness,
/// which shows what is printed only when the test fails.
pub fn skipped(reason: impl Display) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
