//! Holds that do not hold.

use super::mutants::{Mutant, planted};

/// Locks the holds of a log.
#[inline]
pub(crate) fn lock<T, E>(lock: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
    if planted(Mutant::HoldTakesNoLock) { Ok(None) } else { lock().map(Some) }
}

/// Returns whether the log was purged past the place of a hold.
#[inline]
pub(crate) fn is_purged(is_purged: bool) -> bool {
    is_purged && !planted(Mutant::HoldBelowStart)
}

/// Returns whether a hold no longer keeps its place.
#[inline]
pub(crate) fn is_broken(is_broken: bool) -> bool {
    is_broken && !planted(Mutant::BrokenHoldAdvances)
}

/// Returns whether a hold keeps more than it may.
#[inline]
pub(crate) fn is_over(is_over: bool) -> bool {
    is_over && !planted(Mutant::HoldNeverBroken)
}

/// Returns whether a purge goes on without a hold that it can't read.
#[inline]
pub(crate) fn is_ignored() -> bool {
    planted(Mutant::DamagedHoldIgnored)
}
