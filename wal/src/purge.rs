//! Purging: the log's start moves up, and whole segments below it are removed.
//!
//! Owns CONTROL while the log is open, and the holds of guards. The rule, and the order of the
//! steps, are in `bulla_storage::files::purge`; holds with names are in `bulla_storage::files::holds`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::commit::leader::Leadership;
use crate::sync::{Mutex, lock};
use crate::trace;
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::holds::Holds;
use bulla_storage::files::purge::{self, Floor};
use bulla_storage::format::LowWater;
use bulla_storage::io::Io;
use bulla_storage::{Error, Lsn, PoisonCause, Position, Result};

pub(crate) struct Purger {
    held: Mutex<Held>,
    guarded: Arc<Guarded>,
    io: Arc<dyn Io>,
    lock_timeout: Duration,
}

/// The places that guards keep, by their numbers. Locked after [`Held`], never before it.
#[derive(Default)]
struct Guarded(Mutex<(u64, BTreeMap<u64, Lsn>)>);

/// Keeps a purge from removing entries at or above a position, until it is dropped.
///
/// Made by [`Log::hold`](crate::Log::hold). It costs no I/O, and ends with the process; a hold
/// [with a name](crate::Log::hold_named) outlives it.
#[must_use = "the hold ends when the guard is dropped"]
pub struct HoldGuard {
    guarded: Arc<Guarded>,
    number: u64,
}

impl HoldGuard {
    /// Returns the first position that it keeps.
    #[must_use]
    pub fn position(&self) -> Lsn {
        lock(&self.guarded.0).1.get(&self.number).copied().unwrap_or(Lsn::MAX)
    }

    /// Moves it up to `to`; leaves it where it is above that.
    pub fn advance(&self, to: Lsn) {
        if let Some(at) = lock(&self.guarded.0).1.get_mut(&self.number) {
            *at = to.max(*at);
        }
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        lock(&self.guarded.0).1.remove(&self.number);
    }
}

impl fmt::Debug for HoldGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldGuard").field("position", &self.position()).finish()
    }
}

struct Held {
    /// `None` once the log has released its files.
    files: Option<(ControlFile, Directory)>,
    low_water: Lsn,
}

impl Purger {
    pub(crate) fn new(
        control: ControlFile,
        dir: Directory,
        io: Arc<dyn Io>,
        lock_timeout: Duration,
    ) -> Self {
        let low_water = control.current().low_water.lsn;
        let held = Mutex::new(Held { files: Some((control, dir)), low_water });
        Self { held, guarded: Arc::default(), io, lock_timeout }
    }

    /// Keeps everything from a position on, as long as the guard lives.
    pub(crate) fn hold(&self, from: Lsn) -> Result<HoldGuard> {
        let held = lock(&self.held);
        if held.files.is_none() {
            return Err(Error::Closed);
        }
        if from < held.low_water {
            let position = Position::Lsn { epoch: None, lsn: from };
            return Err(Error::Purged { position, low_water: held.low_water });
        }
        let mut guarded = lock(&self.guarded.0);
        let number = guarded.0;
        guarded.0 += 1;
        guarded.1.insert(number, from);
        drop(guarded);
        Ok(HoldGuard { guarded: Arc::clone(&self.guarded), number })
    }

    /// Locks the holds that have names.
    pub(crate) fn named<'a>(&'a self, dir: &'a Directory) -> Result<Holds<'a>> {
        Holds::lock(dir, self.io.as_ref(), self.lock_timeout)
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
        let durable = published.synced();
        let starts: Vec<LowWater> = {
            let leader = leadership.lead();
            leader.live.iter().map(|live| live.start).collect()
        };
        let first = |floors: &[Floor]| {
            let start = purge::first_kept(&starts, keep_from, durable, floors);
            start.filter(|start| start.segment > current.segment)
        };
        let mut floors = floors.to_vec();
        floors.extend(lock(&self.guarded.0).1.values().copied().map(Floor::at));
        // Holds cost I/O: only where there is something to purge.
        let Some(start) = first(&floors) else { return Ok(current.lsn) };
        // From here to the mark in CONTROL no other process takes a hold.
        let holds = Holds::lock(dir, self.io.as_ref(), self.lock_timeout)?;
        let found = holds.floors(start.lsn, published.ring.end())?;
        for broken in &found.broken {
            trace::hold_broken(dir.path(), broken);
        }
        floors.extend(found.floors);
        let Some(low_water) = first(&floors) else { return Ok(current.lsn) };
        if let Err(source) = purge::mark(control, dir, low_water) {
            let mut leader = leadership.lead();
            leader.fail(PoisonCause::Control(source));
            // Nobody stores to it any more. Wakers, which may ask for it, run when the
            // driver's lock is given back.
            drop(held);
            drop(leader);
            return Err(published.poison_error());
        }
        drop(holds);
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
