//! Amounts that the quota counts wrong.

use std::ops::Add;

use bulla_storage::faults::mutants::{Mutant, either};

/// Returns what a change that was made took away.
#[inline]
pub(crate) fn taken_away<T: Default>(used: T) -> T {
    either(used, Mutant::QuotaNotGivenBack, T::default())
}

/// Returns what a change that was not made had reserved.
#[inline]
pub(crate) fn refused<T: Copy + Add<Output = T>>(reserved: T) -> T {
    either(reserved, Mutant::QuotaReleasedTwice, reserved + reserved)
}

/// Returns the page that no snapshot retains any longer.
#[inline]
pub(crate) fn released_page<T: Default>(page: T) -> T {
    either(page, Mutant::KeptNotGivenBack, T::default())
}

/// Returns the most records that fit.
#[inline]
pub(crate) fn max_records(max: u64) -> u64 {
    either(max, Mutant::QuotaOffByOne, max.saturating_add(1))
}
