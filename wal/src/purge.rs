//! Purging: the log's start moves up, and whole segments below it are removed.
//!
//! Owns CONTROL while the log is open. CONTROL says that segments are dead, durably, before the
//! first of them is removed; what a crash leaves of them recovery removes.

use crate::commit::leader::Leadership;
use crate::faults;
use crate::sync::{Mutex, lock};
use crate::trace;
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::{Directory, segment_name};
use bulla_storage::format::{Control, LowWater};
use bulla_storage::{Error, Lsn, PoisonCause, Result, SegmentNumber};

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

    /// Removes segments before the last one that starts at or before `keep_from`, and that is
    /// not after the segment `last`. Returns the new low-water mark.
    pub(crate) fn purge(
        &self,
        leadership: &Leadership,
        keep_from: Lsn,
        last: SegmentNumber,
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
        let keep_from = faults::purge::capped(keep_from, keep_from.min(published.synced()));
        let start = {
            let leader = leadership.lead();
            let fits = |start: &LowWater| start.lsn <= keep_from && start.segment <= last;
            leader.live.iter().rev().map(|live| live.start).find(fits)
        };
        let Some(low_water) = start.filter(|start| start.segment > current.segment) else {
            return Ok(current.lsn);
        };
        let next = Control { low_water, ..*control.current() };
        if let Err(source) = faults::purge::store(control, dir, next) {
            let mut leader = leadership.lead();
            leader.fail(PoisonCause::Control(source));
            // Nobody stores to it any more. Wakers, which may ask for it, run when the
            // driver's lock is given back.
            drop(held);
            drop(leader);
            return Err(published.poison_error());
        }
        *purged = low_water.lsn;
        unlink_segments(dir, current.segment, low_water.segment)?;
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

fn unlink_segments(dir: &Directory, from: SegmentNumber, to: SegmentNumber) -> Result<()> {
    let mut number = from;
    while number < to {
        dir.remove(&segment_name(number))?;
        number = number.next();
    }
    Ok(())
}
