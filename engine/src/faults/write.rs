//! Writes that leave something out, or retain pages too late.

use bulla_storage::faults::mutants::{Mutant, either, planted};
use bulla_wal::Lsn;

use crate::record::Record;
use crate::state::State;
use crate::table::{PageGuard, PageId, TableOp, apply};

/// Returns when the record expires that a swap puts.
#[inline]
pub(crate) fn swapped_expiry(expiry: u64) -> u64 {
    either(expiry, Mutant::SwapForgetsExpiry, 0)
}

/// Returns the pages that are faulted in before a write.
#[inline]
pub(crate) fn written(pages: &[PageId]) -> &[PageId] {
    if planted(Mutant::WriteDoesNotTouch) { &[] } else { pages }
}

/// Retains pages for snapshots; see [`State::retain`]. The write at `lsn` is not applied yet.
#[inline]
pub(crate) fn retain<R: Record>(
    state: &State<R>,
    pages: &[PageId],
    guards: &mut [PageGuard<'_>],
    ops: &[TableOp<'_>],
    lsn: Lsn,
) {
    if planted(Mutant::SnapshotAfterChange) {
        apply(pages, guards, ops, lsn.0);
    }
    state.retain(pages, guards, lsn);
}
