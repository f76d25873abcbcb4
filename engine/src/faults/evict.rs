//! Evictions of what must stay, expiries that are forgotten, deletions that evict.

use bulla_storage::faults::mutants::{Mutant, either, planted};
use bulla_wal::Receipt;

use crate::error::Result;
use crate::record::Record;
use crate::store::Store;
use crate::store::commit::WriteRequest;
use crate::table::{PageGuard, PageId};

/// Returns whether a record may be evicted, by its flags.
#[inline]
pub(crate) fn may_go(may_go: bool) -> bool {
    may_go || planted(Mutant::ReclaimTakesPersistent)
}

/// Returns the expiry time that is noted for the next pass.
#[inline]
pub(crate) fn later_expiry(expiry: u64) -> u64 {
    either(expiry, Mutant::LaterExpiryForgotten, 0)
}

/// Makes a deletion; see [`Store::change_only`].
#[inline]
pub(crate) fn delete<R: Record>(
    store: &Store<R>,
    pages: &[PageId],
    request: WriteRequest<'_>,
    admit: impl FnMut(&[PageGuard<'_>]) -> bool,
) -> Result<Option<Receipt>> {
    if planted(Mutant::DeletionsMakeWay) {
        store.change(pages, request, admit)
    } else {
        store.change_only(pages, request, admit)
    }
}
