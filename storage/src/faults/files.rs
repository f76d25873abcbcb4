//! Contents of CONTROL, and results of syncs and reads, that are changed on their way.

use std::io;

use super::mutants::{Mutant, planted};
use crate::format::Control;

/// Returns the slots of CONTROL from which the newest is chosen.
#[inline]
pub(crate) fn intact_slots(mut slots: Vec<Control>) -> Vec<Control> {
    if planted(Mutant::ControlOlderSlot) {
        slots.sort_by_key(|slot| slot.counter);
        slots.truncate(1);
    }
    slots
}

/// Returns the contents that CONTROL gets.
#[inline]
pub(crate) fn next_contents(mut next: Control) -> Control {
    if planted(Mutant::ControlInOneSlot) {
        next.counter += 1;
    }
    next
}

/// Returns the directory in which an operation takes place; `found` is what has its path now.
#[cfg(feature = "sim")]
#[inline]
pub(crate) fn directory<T>(opened: T, found: impl FnOnce() -> Option<T>) -> T {
    if planted(Mutant::DirectoryByPath) { found().unwrap_or(opened) } else { opened }
}

/// Returns whether a directory's lock counts as held.
#[cfg(feature = "sim")]
#[inline]
pub(crate) fn is_locked(held: bool) -> bool {
    held && !planted(Mutant::LockOnFileAlone)
}

/// Returns how the sync of a new segment ended.
#[inline]
pub(crate) fn segment_synced<E>(synced: Result<(), E>) -> Result<(), E> {
    if planted(Mutant::SegmentSyncErrorIgnored) { Ok(()) } else { synced }
}

/// Returns how the sync of a new segment's name ended.
#[inline]
pub(crate) fn segment_named<E>(synced: Result<(), E>) -> Result<(), E> {
    if planted(Mutant::SegmentDirSyncErrorIgnored) { Ok(()) } else { synced }
}

/// Returns how a read into a read buffer ended.
#[inline]
pub(crate) fn read(count: io::Result<usize>) -> io::Result<usize> {
    if planted(Mutant::ReadErrorIsEnd) { Ok(count.unwrap_or(0)) } else { count }
}
