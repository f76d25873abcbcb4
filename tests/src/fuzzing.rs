//! What must hold for any bytes: the bodies of the fuzz targets, callable without a fuzzer.
//!
//! Owns the meaning of an input: the first bytes choose, and what is missing reads as
//! zeros, so that every input is one. A broken property panics; nothing else may. The
//! targets are in `fuzz/`, their committed corpus is replayed by `tests/tests/corpus.rs`.

mod backups;
mod checkpoint;
mod damage;
mod decode;
mod directory;
mod legacy;
mod logs;
mod mapping;
mod repair;
mod segment;
mod settings;

pub use backups::{Believed, backup_file, backup_seeds, mend_backup};
pub use checkpoint::{Loaded, checkpoint};
pub use decode::{Decoded, decode, mend_decoded};
pub use directory::{directory, directory_seeds, disturb, mend_directory};
pub use legacy::{Read, legacy, mend_legacy};
pub use mapping::mapping;
pub use segment::{Outcome, segment};
pub use settings::{Settings, Taken, settings};

use crate::campaign::{self, Tally};
use crate::store;

/// A life of the log with every choice read from the input: appends, waits, syncs,
/// purges, time, faults, crashes and recoveries, checked against the model.
///
/// # Panics
/// When the contract is violated, with the steps that led to it.
pub fn operations(input: &[u8]) -> Tally {
    campaign::run_script(input).unwrap_or_else(|failure| panic!("{failure}"))
}

/// A life of a store with every choice read from the input, checked against a plain map.
///
/// # Panics
/// When an invariant of the store is violated, with the steps that led to it.
pub fn store_operations(input: &[u8]) -> store::Tally {
    store::run_script(input).unwrap_or_else(|violation| panic!("{violation}"))
}
