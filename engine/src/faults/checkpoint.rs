//! What a checkpoint says, and what is believed of it, changed on its way.

use std::borrow::Cow;

use bulla_storage::faults::mutants::{Mutant, either, planted};

/// Returns when a record expires, as the checkpoint stores it.
#[inline]
pub(crate) fn expiry(expiry: u64) -> u64 {
    either(expiry, Mutant::CheckpointForgetsExpiry, 0)
}

/// Returns the position below which the checkpoint says that it holds everything.
#[inline]
pub(crate) fn upto<T>(upto: T, durable: impl FnOnce() -> T) -> T {
    if planted(Mutant::CheckpointClaimsMore) { durable() } else { upto }
}

/// Returns the length of a checkpoint's file, which is to become `needed` bytes long.
#[inline]
pub(crate) fn file_len(len: u64, needed: u64) -> u64 {
    either(len, Mutant::ReserveNotCutOff, needed)
}

/// Returns whether the file of a checkpoint that failed goes back to the reserve.
#[inline]
pub(crate) fn is_of_reserve(from_reserve: bool) -> bool {
    from_reserve && !planted(Mutant::ReserveLostOnFailure)
}

/// Returns the CRC of a slab that was read, which should be `expected`.
#[inline]
pub(crate) fn slab_crc(crc: u32, expected: u32) -> u32 {
    either(crc, Mutant::SlabCrcUnchecked, expected)
}

/// Returns whether a slab that was read is the first that the table gets.
#[inline]
pub(crate) fn is_new(is_new: bool) -> bool {
    is_new || planted(Mutant::LazyCountedTwice)
}

/// Returns whether a change in the log is one of the slab that is rebuilt.
#[inline]
pub(crate) fn is_rebuilt(is_of_slab: bool) -> bool {
    is_of_slab && !planted(Mutant::RebuildWithoutLog)
}

/// Returns the checkpoints in use after which what they do not need is removed.
#[inline]
pub(crate) fn in_use<T: Copy>(in_use: &[T]) -> Cow<'_, [T]> {
    match in_use {
        [newest] if planted(Mutant::FirstCheckpointPurges) => Cow::Owned(vec![*newest; 2]),
        in_use => Cow::Borrowed(in_use),
    }
}

/// Returns the checkpoint from which on the log is needed.
#[inline]
pub(crate) fn needed<'a, T>(newest: &'a T, older: &'a T) -> &'a T {
    either(older, Mutant::PurgeForNewestOnly, newest)
}
