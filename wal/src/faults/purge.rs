//! Purges that go too far, or remove segments too early.

use std::io;

use bulla_storage::faults::failpoints::Failpoint;
use bulla_storage::faults::mutants::{Mutant, either, planted};
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::{Directory, segment_name};
use bulla_storage::format::Control;
use bulla_storage::{Lsn, SegmentNumber};

/// Returns the position from which on a purge keeps everything: the one that the caller
/// requested, capped by the durable end.
#[inline]
pub(crate) fn capped(requested: Lsn, capped: Lsn) -> Lsn {
    if planted(Mutant::PurgeTooFar) {
        Lsn::MAX
    } else {
        either(capped, Mutant::PurgeAboveDurable, requested)
    }
}

/// Stores a new low-water mark in CONTROL.
///
/// # Errors
/// Those of [`ControlFile::store`].
#[inline]
pub(crate) fn store(control: &mut ControlFile, dir: &Directory, next: Control) -> io::Result<()> {
    if planted(Mutant::PurgeUnlinksFirst) {
        let dead = control.current().low_water.segment.0..next.low_water.segment.0;
        for number in dead.map(SegmentNumber) {
            let _ = dir.remove(&segment_name(number));
        }
    }
    control.store(next, Failpoint::ControlPurgeSync)
}
