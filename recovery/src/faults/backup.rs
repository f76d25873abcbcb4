//! Backups and restores that leave something out.

use bulla_storage::faults::mutants::{Mutant, either, planted};

/// Returns whether a durable mark covers all that was written when a backup began.
#[inline]
pub(crate) fn is_covered(is_covered: bool) -> bool {
    is_covered || planted(Mutant::BackupEndsAtOldMark)
}

/// Returns whether a backup takes no hold.
#[inline]
pub(crate) fn takes_no_hold() -> bool {
    planted(Mutant::BackupTakesNoHold)
}

/// Returns the CRC of a file of a backup.
#[inline]
pub(crate) fn part_crc(found: u32, expected: u32) -> u32 {
    either(found, Mutant::BackupCrcUnchecked, expected)
}

/// Returns whether a frame is below the target of a restore. `begins_below` says so of its start.
#[inline]
pub(crate) fn is_below(is_below: bool, begins_below: bool) -> bool {
    either(is_below, Mutant::RestoreEndsPastTarget, begins_below)
}

/// Returns whether a restore writes CONTROL before the segments.
#[inline]
pub(crate) fn writes_control_first() -> bool {
    planted(Mutant::RestoreWritesControlFirst)
}

/// Returns whether a restored log begins no new epoch.
#[inline]
pub(crate) fn keeps_epoch() -> bool {
    planted(Mutant::RestoreKeepsEpoch)
}
