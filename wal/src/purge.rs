//! Purging: the log's start moves up, and whole segments below it are removed.
//!
//! Owns CONTROL while the log is open. The rule, and the order of the steps, are in
//! `bulla_storage::files::purge`.

use crate::commit::leader::Leadership;
use crate::sync::{Mutex, lock};
use crate::trace;
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::purge::{self, Floor};
use bulla_storage::format::LowWater;
use bulla_storage::{Error, Lsn, PoisonCause, Result};

pub(crate) struct Purger {
    held: Mutex<Held>,
}

struct Held {
    /// `None` once the log has released its files.
    files: Option<(ControlFile, Directory)>,
    low_water: Lsn,
}

impl Purger {
    pub(crate) fn new(control: ControlFile, dir: Directory) -> Self {
        let low_water = control.current().low_water.lsn;
        Self { held: Mutex::new(Held { files: Some((control, dir)), low_water }) }
    }

    /// Returns the first position that is not purged.
    pub(crate) fn low_water(&self) -> Lsn {
        lock(&self.held).low_water
    }

    /// Removes segments before the one that holds `keep_from` or the lowest floor. Returns the new
    /// low-water mark.
    pub(crate) fn purge(
        &self,
        leadership: &Leadership,
        keep_from: Lsn,
        floors: &[Floor],
    ) -> Result<Lsn> {
        let published = leadership.published();
        let mut held = lock(&self.held);
        if published.is_poisoned() {
            return Err(published.poison_error());
        }
        // Another writer may have the log by now.
        let Held { files: Some((control, dir)), low_water: purged } = &mut *held else {
            return Err(Error::Closed);
        };
        if published.is_stopped() {
            return Err(Error::Closed);
        }
        let current = control.current().low_water;
        let start = {
            let leader = leadership.lead();
            let starts: Vec<LowWater> = leader.live.iter().map(|live| live.start).collect();
            purge::first_kept(&starts, keep_from, published.synced(), floors)
        };
        let Some(low_water) = start.filter(|start| start.segment > current.segment) else {
            return Ok(current.lsn);
        };
        if let Err(source) = purge::mark(control, dir, low_water) {
            let mut leader = leadership.lead();
            leader.fail(PoisonCause::Control(source));
            // Nobody stores to it any more. Wakers, which may ask for it, run when the
            // driver's lock is given back.
            drop(held);
            drop(leader);
            return Err(published.poison_error());
        }
        *purged = low_water.lsn;
        purge::unlink(dir, current.segment, low_water.segment)?;
        let mut leader = leadership.lead();
        leader.live.retain(|live| live.start.segment >= low_water.segment);
        leader.core.space();
        leader.pump();
        trace::purged(dir.path(), low_water.lsn);
        // As above.
        drop(held);
        drop(leader);
        Ok(low_water.lsn)
    }

    /// Waits until no purge goes on, and releases CONTROL: no purge begins after that.
    pub(crate) fn release(&self) {
        let files = lock(&self.held).files.take();
        drop(files);
    }
}
