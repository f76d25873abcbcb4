//! A background thread that has ended and is still taken for one that sleeps.

use bulla_storage::faults::mutants::{Mutant, planted};

/// Returns whether a thread that ends says so.
#[inline]
pub(crate) fn is_end_told() -> bool {
    !planted(Mutant::ThreadEndsUntold)
}
