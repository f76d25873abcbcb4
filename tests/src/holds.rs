//! Holds: through power losses at every step, and beside purges of other threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulla_recovery::{Inspection, Status};
use bulla_storage::files::control;
use bulla_storage::files::dir::{CONTROL, Directory};
use bulla_storage::files::holds::{self, Hold, Holds, Place};
use bulla_storage::files::purge::Floor;
use bulla_storage::io::Io;
use bulla_storage::io::sim::{CrashKind, SimDisk};
use bulla_storage::io::std::StdIo;
use bulla_wal::{Error, Level, Log, Lsn, Options, Position};

use crate::temp_dir;

const DIR: &str = "/log";
/// Ends of each crash that are tried.
const OUTCOMES: u64 = 8;
/// More than any log here has.
const PLENTY: u64 = u64::MAX;
/// Less than one segment.
const LITTLE: u64 = 4096;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What an owner knows of a hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// It is at this position.
    At(Lsn),
    /// It is at one of these positions, and perhaps not there at all.
    Between(Option<Lsn>, Option<Lsn>),
    Gone,
}

impl Known {
    fn fits(self, found: Option<Lsn>) -> bool {
        match self {
            Self::At(lsn) => found == Some(lsn),
            Self::Between(before, after) => found == before || found == after,
            Self::Gone => found.is_none(),
        }
    }
}

/// The names of the holds, and what their owners know.
type Owners = [(&'static str, Known); 2];

/// Appends durable entries, which fill several segments; returns the position of the middle one.
fn fill(log: &Log) -> Result<Lsn, String> {
    let mut middle = Lsn(0);
    for entry in 0..60_u8 {
        let receipt = log.append_with(1, &[entry; 900], Level::Strict).map_err(text)?;
        log.wait(receipt).map_err(text)?;
        if entry == 30 {
            middle = receipt.lsn;
        }
    }
    Ok(middle)
}

fn new_log(seed: u64) -> Result<(SimDisk, Log, Lsn), String> {
    let disk = SimDisk::new(seed);
    let log = Log::create(Path::new(DIR), &Options::simulated(&disk)).map_err(text)?;
    let middle = fill(&log)?;
    Ok((disk, log, middle))
}

/// Takes, advances, breaks and releases holds between purges, until a crash strikes.
fn owner_works(disk: &SimDisk, known: &mut Owners) -> Result<(), String> {
    let (log, _) = Log::open(Path::new(DIR), &Options::simulated(disk)).map_err(text)?;
    let middle = log.durable().0 / 2;
    let (first, second) = (Lsn(middle), Lsn(middle + middle / 2));
    known[0].1 = Known::Between(None, Some(first));
    log.hold_named("first", first, PLENTY).map_err(text)?;
    known[0].1 = Known::At(first);
    log.purge(Lsn::MAX).map_err(text)?;
    // The next purge breaks it.
    log.hold_named("small", first, LITTLE).map_err(text)?;
    known[1].1 = Known::Between(None, Some(second));
    log.hold_named("second", second, PLENTY).map_err(text)?;
    known[1].1 = Known::At(second);
    known[0].1 = Known::Between(Some(first), Some(second));
    log.advance_hold("first", second).map_err(text)?;
    known[0].1 = Known::At(second);
    log.purge(Lsn::MAX).map_err(text)?;
    known[0].1 = Known::Between(Some(second), None);
    log.release_hold("first").map_err(text)?;
    known[0].1 = Known::Gone;
    log.purge(Lsn::MAX).map_err(text)?;
    log.close().map_err(text)
}

/// Checks that every hold that its owner knows of is there, and everything that it keeps.
fn check(disk: &SimDisk, known: &Owners) -> Result<(), String> {
    let (log, report) = Log::open(Path::new(DIR), &Options::simulated(disk)).map_err(text)?;
    let found = log.holds().map_err(text)?;
    let at = |name: &str| -> Result<Option<Lsn>, String> {
        let Some(file) = found.iter().find(|file| file.name == name) else { return Ok(None) };
        let hold: &Hold = file.hold.as_ref().map_err(|why| format!("{name}: {why}"))?;
        Ok(Some(hold.floor.lsn))
    };
    for (name, known) in known {
        let found = at(name)?;
        if !known.fits(found) {
            return Err(format!(
                "I43: {name} is {known:?} to its owner, and {found:?} after the crash"
            ));
        }
        if let Some(lsn) = found.filter(|lsn| *lsn < report.first_lsn) {
            return Err(format!(
                "I43: {name} keeps LSN {lsn}, the log begins at {}",
                report.first_lsn
            ));
        }
    }
    // One that was broken tells its owner so, whatever of that has reached the disk.
    match log.advance_hold("small", Lsn(0)) {
        Ok(hold) if hold.floor.lsn >= report.first_lsn => {}
        Err(Error::HoldBroken { .. } | Error::NoHold { .. }) => {}
        told => return Err(format!("I43: a hold below LSN {}: {told:?}", report.first_lsn)),
    }
    let low_water = log.purge(Lsn::MAX).map_err(text)?;
    let kept = known.iter().filter_map(|(name, _)| at(name).ok().flatten()).min();
    if kept.is_some_and(|lsn| lsn < low_water) {
        return Err(format!("I43: LSN {kept:?} is held, and purged up to {low_water}"));
    }
    log.close().map_err(text)
}

/// Cuts the power at every step of taking, advancing and releasing holds and of purges between
/// them.
///
/// # Errors
/// When a hold that its owner knows of is not there, or does not keep its place.
pub fn holds_keep_their_place_through_every_power_loss() -> Result<(), String> {
    let (base, log, _) = new_log(1)?;
    log.close().map_err(text)?;
    drop(log);
    for step in 0.. {
        let mut struck = false;
        for outcome in 0..OUTCOMES {
            let disk = base.fork(step * OUTCOMES + outcome);
            disk.crash_after(step, CrashKind::PowerLoss);
            let mut known = [("first", Known::Gone), ("second", Known::Gone)];
            let worked = owner_works(&disk, &mut known);
            struck |= disk.is_crashed();
            if !disk.is_crashed() {
                worked?;
                disk.power_loss();
            }
            disk.disarm();
            check(&disk, &known).map_err(|error| format!("power loss at step {step}: {error}"))?;
        }
        if !struck {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes holds where there is no place for them, damages one, lets one keep too much.
///
/// # Errors
/// When a purge or the owner of a hold is not told.
pub fn purges_and_owners_are_told() -> Result<(), String> {
    let (disk, log, middle) = new_log(2)?;
    let expect = |right: bool, what: &str| if right { Ok(()) } else { Err(format!("I43: {what}")) };

    // One of a guard, which is not durable.
    let guard = log.hold(middle).map_err(text)?;
    let low_water = log.purge(Lsn::MAX).map_err(text)?;
    expect(Lsn(0) < low_water && low_water < middle, "a guard keeps its place, and no more")?;
    drop(guard);

    let purged = log.hold_named("late", Lsn(0), PLENTY);
    expect(matches!(purged, Err(Error::Purged { .. })), "a hold of what was purged is refused")?;
    let purged = log.hold(Lsn(0));
    expect(matches!(purged, Err(Error::Purged { .. })), "a guard of what was purged is refused")?;

    // While another process takes one, nothing is purged; while one is purged, none is taken.
    let io = disk.process();
    let dir = Directory::open(io.as_ref(), Path::new(DIR)).map_err(text)?;
    let lock = dir.lock_file(io.as_ref(), CONTROL, Duration::ZERO).map_err(text)?;
    expect(matches!(log.purge(Lsn::MAX), Err(Error::Locked { .. })), "a purge waits for a taker")?;
    let taken = log.hold_named("second", middle, PLENTY);
    expect(matches!(taken, Err(Error::Locked { .. })), "a taker waits for a purge")?;
    drop(lock);

    // By another process.
    let holds = Holds::lock(&dir, io.as_ref(), Duration::ZERO).map_err(text)?;
    let place = |quota_bytes| Place { floor: Floor::at(middle), quota_bytes };
    holds.take("beside", place(LITTLE)).map_err(text)?;
    let below = Place { floor: Floor::at(low_water), quota_bytes: LITTLE };
    holds.take("small", below).map_err(text)?;
    holds.take("large", place(PLENTY)).map_err(text)?;
    let again = holds.take("large", place(PLENTY));
    expect(matches!(again, Err(Error::HoldExists { .. })), "a name is taken once")?;
    for name in ["", "Large", "a/b", "..", &"x".repeat(65)] {
        let named = holds.take(name, place(PLENTY));
        expect(matches!(named, Err(Error::HoldName { .. })), "a name is no path")?;
    }
    drop(holds);

    // The file of one can't be read.
    let path = Path::new(DIR).join(holds::FOLDER).join("large.hold");
    let whole = disk.read_file(&path);
    disk.flip(&path, 40, 1);
    let before = log.low_water();
    let purged = log.purge(Lsn::MAX);
    let is_told = matches!(purged, Err(Error::HoldDamaged { .. }));
    expect(is_told && log.low_water() == before, "a damaged hold stops a purge")?;
    disk.write_file(&path, &whole);

    // One keeps too much, the other one does not.
    let low_water = log.purge(Lsn::MAX).map_err(text)?;
    expect(low_water <= middle, "the large hold keeps its place")?;
    let advanced = log.advance_hold("small", log.durable());
    expect(matches!(advanced, Err(Error::HoldBroken { .. })), "the owner is told")?;
    log.advance_hold("beside", log.durable()).map_err(|error| {
        format!("I43: a hold is broken where another one stops the purge: {error}")
    })?;
    log.release_hold("beside").map_err(text)?;
    log.advance_hold("large", log.durable()).map_err(text)?;
    let low_water = log.purge(Lsn::MAX).map_err(text)?;
    expect(low_water > middle, "a broken hold keeps nothing")?;
    let found = log.holds().map_err(text)?;
    let is_broken = |file: &&holds::HoldFile| {
        file.hold.as_ref().is_ok_and(|hold| hold.broken_ns.is_some() && hold.name == "small")
    };
    expect(found.iter().filter(is_broken).count() == 1 && found.len() == 2, "both are shown")?;
    log.release_hold("small").map_err(text)?;
    let again = log.release_hold("small");
    expect(matches!(again, Err(Error::NoHold { .. })), "it is gone")?;
    expect(matches!(log.advance_hold("small", middle), Err(Error::NoHold { .. })), "it is gone")?;

    // A purge of a log that is not open keeps the same.
    let low_water = log.low_water();
    fill(&log)?;
    log.close().map_err(text)?;
    drop(log);
    let options = Options::simulated(&disk);
    let purge = || bulla_recovery::purge(DIR, Position::End, &options).map_err(text);
    let holds = || Holds::lock(&dir, io.as_ref(), Duration::ZERO).map_err(text);
    let held = holds()?.get("large").map_err(text)?.floor.lsn;
    let first = purge()?.first_lsn;
    expect(low_water <= first && first <= held, "the hold keeps its place")?;
    holds()?.release("large").map_err(text)?;
    let place = Place { floor: Floor::at(first), quota_bytes: LITTLE };
    holds()?.take("small", place).map_err(text)?;
    expect(purge()?.first_lsn > held, "it is released, and the other one keeps too much")?;
    let broken = holds()?.get("small");
    expect(matches!(broken, Err(Error::HoldBroken { .. })), "its owner is told")
}

/// Takes holds in another thread while purges go on.
///
/// # Errors
/// When the log is purged past one that was taken.
pub fn hold_taken_beside_a_purge_keeps_its_place() -> Result<(), String> {
    const ROUNDS: u32 = 40;
    let temp = temp_dir("holds");
    let options = Options::new().segment_len(16 * 1024).ring_len(16 * 1024);
    let (log, _) = Log::open(temp.path(), &options).map_err(text)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<(), String> {
            while !done.load(Ordering::Relaxed) {
                let _ = log.append_with(1, &[7; 4000], Level::Relaxed).map_err(text)?;
                log.sync().map_err(text)?;
                log.purge(Lsn::MAX).map_err(text)?;
            }
            Ok(())
        });
        let taken = take_beside(temp.path(), ROUNDS);
        done.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked".to_owned())??;
        taken
    })
}

fn take_beside(path: &Path, rounds: u32) -> Result<(), String> {
    let io = StdIo::new();
    let dir = Directory::open(&io, path).map_err(text)?;
    let lock = || Holds::lock(&dir, &io, Duration::from_secs(60)).map_err(text);
    let mut taken = 0;
    for _ in 0..rounds * 50 {
        if taken == rounds {
            break;
        }
        let at = control::read(&dir).map_err(text)?.low_water.lsn;
        let place = Place { floor: Floor::at(at), quota_bytes: PLENTY };
        match lock()?.take("beside", place) {
            // It was purged since.
            Err(Error::Purged { .. }) => continue,
            hold => hold.map_err(text)?,
        };
        taken += 1;
        io.sleep_ns(2_000_000);
        let now = control::read(&dir).map_err(text)?.low_water.lsn;
        if now > at {
            return Err(format!("I43: LSN {at} is held, and purged up to {now}"));
        }
        lock()?.release("beside").map_err(text)?;
    }
    if taken == 0 {
        return Err("every place was purged before it was held".to_owned());
    }
    let inspection = Inspection::read(path, &Options::new()).map_err(text)?;
    match &inspection.report().status {
        Status::Corrupt(fault) => Err(fault.to_string()),
        _ => Ok(()),
    }
}
