//! What passes between the queue of `io_uring` and the kernel, changed on its way.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::failpoints::{Failpoint, skip};
use super::mutants::{Mutant, either, planted};

/// Returns the slot that gets the next write, of the first that is free.
#[inline]
pub(crate) fn next_slot(free: Option<usize>) -> Option<usize> {
    either(free, Mutant::UringSlotReusedEarly, Some(0))
}

/// Returns the pieces of a write in the order in which the kernel gets them.
#[inline]
pub(crate) fn pieces(pieces: [&[u8]; 2]) -> [&[u8]; 2] {
    let [first, second] = pieces;
    either(pieces, Mutant::UringPiecesSwapped, [second, first])
}

/// Returns the slot whose write has ended.
#[inline]
pub(crate) fn completed_slot(slot: usize) -> usize {
    either(slot, Mutant::UringIndexIgnored, 0)
}

/// Returns the kernel's result of a write of `len` bytes: a count, or a negative error.
#[inline]
pub(crate) fn result(result: i32, len: usize) -> i32 {
    let is_cancelled = result == -Errno::CANCELED.raw_os_error();
    let is_taken_for_whole = (planted(Mutant::UringCancelledIsDone) && is_cancelled)
        || (skip(Failpoint::UringErrorCheck) && result < 0)
        || (skip(Failpoint::UringShortCheck) && result >= 0);
    if is_taken_for_whole { i32::try_from(len).unwrap_or(i32::MAX) } else { result }
}

/// Returns whether the kernel has memory of the queue that is dropped.
#[inline]
pub(crate) fn is_kernels(is_kernels: bool) -> bool {
    is_kernels && !planted(Mutant::UringDropDoesNotWait)
}

/// Returns the lock that the ring holds.
#[inline]
pub(crate) fn lock(fd: Option<BorrowedFd<'_>>) -> Option<BorrowedFd<'_>> {
    fd.filter(|_| !planted(Mutant::UringLockNotKept))
}
