//! What a store does not take from its checkpoint or its log.

use bulla_storage::faults::mutants::{Mutant, either, planted};

use crate::entries::PUT;
use crate::record::RECORD_LEN;

/// Returns what the records of the checkpoint use.
#[inline]
pub(crate) fn of_checkpoint<T: Default>(growth: T) -> T {
    either(growth, Mutant::QuotaForgetsCheckpoint, T::default())
}

/// Returns whether a slab of the checkpoint has a record that expires.
#[inline]
pub(crate) fn expires(expires: bool) -> bool {
    expires && !planted(Mutant::ExpiryNotLoaded)
}

/// Returns the payload of an entry that is replayed.
#[inline]
pub(crate) fn payload(kind: u16, payload: &[u8]) -> &[u8] {
    if planted(Mutant::BatchReplayedByHalf) && kind == PUT {
        let records = payload.len() / RECORD_LEN;
        payload.split_at(records / 2 * RECORD_LEN).1
    } else {
        payload
    }
}

/// Returns the pages that are faulted in before a change is replayed.
#[inline]
pub(crate) fn replayed<T>(pages: &[T]) -> &[T] {
    if planted(Mutant::ReplayDoesNotTouch) { &[] } else { pages }
}
