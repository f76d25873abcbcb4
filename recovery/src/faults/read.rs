//! Headers, scans and marks that are changed between the modules that read a log.

use bulla_storage::Lsn;
use bulla_storage::faults::mutants::{Mutant, either, planted};
use bulla_storage::format::EpochStart;

/// Returns whether the frame that an anchor names is still there.
#[inline]
pub(crate) fn is_in(is_in: bool) -> bool {
    is_in || planted(Mutant::AnchorNotVerified)
}

/// Returns whether a segment's epoch fits CONTROL and the segment before.
#[inline]
pub(crate) fn epoch_fits(fits: bool) -> bool {
    fits || planted(Mutant::StaleEpochAccepted)
}

/// Returns whether the scan of a segment probes what follows its frames.
#[inline]
pub(crate) fn is_probed(is_newest: bool) -> bool {
    is_newest && !planted(Mutant::ProbeSkipped)
}

/// Returns whether a segment is scanned again with the bodies of its frames.
#[inline]
pub(crate) fn is_unsure(is_unsure: bool) -> bool {
    is_unsure && !planted(Mutant::UnmarkedBodiesUnread)
}

/// Returns the durable mark that the header of an epoch-start segment carries.
#[inline]
pub(crate) fn epoch_start_mark(epoch_start: &EpochStart) -> Lsn {
    either(epoch_start.truncated_at, Mutant::EpochStartMarksNothing, epoch_start.base)
}
