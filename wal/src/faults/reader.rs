//! Readers that are told too much, or too little.

use bulla_storage::Lsn;
use bulla_storage::faults::mutants::{Mutant, planted};

/// Returns the end of what a reader in the log's process takes for durable.
#[inline]
pub(crate) fn durable(synced: Lsn, written: impl FnOnce() -> Lsn) -> Lsn {
    if planted(Mutant::ReaderShowsWritten) { written() } else { synced }
}

/// Returns the durable mark of a frame that ends at `end`.
#[inline]
pub(crate) fn mark(durable_lsn: Lsn, end: Lsn) -> Lsn {
    if planted(Mutant::ProbeTrustsHeaders) { end } else { durable_lsn }
}

/// Returns whether everything that a reader has read is still in the log.
#[inline]
pub(crate) fn check_read<E>(checked: Result<(), E>) -> Result<(), E> {
    if planted(Mutant::ReaderNeverDiverges) { Ok(()) } else { checked }
}
