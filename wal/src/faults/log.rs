//! A `sync` that returns too early.

use bulla_storage::Lsn;
use bulla_storage::faults::mutants::{Mutant, planted};

/// Returns the end of what `sync` makes durable.
#[inline]
pub(crate) fn sync_end(end: Lsn, written: impl FnOnce() -> Lsn) -> Lsn {
    if planted(Mutant::SyncStopsAtWritten) && end <= written() { Lsn::ZERO } else { end }
}
