//! Purges that go too far, or remove segments too early.

use std::io;

use super::failpoints::Failpoint;
use super::mutants::{Mutant, either, planted};
use crate::files::control::ControlFile;
use crate::files::dir::Directory;
use crate::files::purge::{self, Floor};
use crate::format::Control;
use crate::position::Lsn;

/// Returns the position from which on a purge keeps everything: the one that the caller
/// requested, capped by the durable end.
#[inline]
pub(crate) fn keep_from(requested: Lsn, capped: Lsn) -> Lsn {
    if planted(Mutant::PurgeTooFar) {
        Lsn::MAX
    } else {
        either(capped, Mutant::PurgeAboveDurable, requested)
    }
}

/// Returns the places that a purge keeps.
#[inline]
pub(crate) fn floors(floors: &[Floor]) -> &[Floor] {
    if planted(Mutant::PurgeIgnoresFloors) { &[] } else { floors }
}

/// Stores a new low-water mark in CONTROL.
///
/// # Errors
/// Those of [`ControlFile::store`].
#[inline]
pub(crate) fn store(control: &mut ControlFile, dir: &Directory, next: Control) -> io::Result<()> {
    if planted(Mutant::PurgeUnlinksFirst) {
        let dead = control.current().low_water.segment;
        let _ = purge::unlink(dir, dead, next.low_water.segment);
    }
    control.store(next, Failpoint::ControlPurgeSync)
}
