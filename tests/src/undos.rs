//! Repairs and their undo, cut short at every step: in the end every byte is as it was before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_recovery::{
    Inspection, Range, RepairError, RepairPlan, Status, UndoRefused, repair, undo_repair,
};
use bulla_storage::io::sim::{CrashKind, Lie, SimConfig, SimDisk};
use bulla_wal::{Level, Log, Lsn, Options};

const DIR: &str = "/log";
const ENTRIES: u64 = 60;
/// Ends of each crash that are tried.
const OUTCOMES: u64 = 16;

/// How many entries a repair gives up that goes back a little: more than a segment holds.
const LATE: u64 = 18;

/// What is done to a log before it is repaired.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Header,
    Missing,
    /// Nothing: the repair goes back in time.
    None,
    /// Nothing, and it goes back a little: few files change, so that every subset of the changes
    /// is met.
    Late,
}

const DAMAGES: [Damage; 5] =
    [Damage::Flip, Damage::Header, Damage::Missing, Damage::None, Damage::Late];

fn options(disk: &SimDisk) -> Options {
    Options::simulated(disk)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The files of the log, but for its lock and what was set aside.
fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = disk.paths().into_iter();
    let paths = paths.filter(|path| {
        !path.starts_with(Path::new(DIR).join("quarantine")) && !path.ends_with("LOCK")
    });
    paths.map(|path| (path.clone(), disk.read_file(&path))).collect()
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let paths = disk.paths().into_iter();
    paths.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
}

/// A log of several segments, some of them after an open, damaged; and where to cut it.
fn damaged(damage: Damage) -> Result<(SimDisk, RepairPlan), String> {
    let config = SimConfig { shorn_sector_ppm: 900_000, ..SimConfig::default() };
    let disk = SimDisk::with_config(3, config);
    let (mut middle, mut late) = (Lsn(0), Lsn(0));
    for half in 0..2 {
        let log = Log::open(Path::new(DIR), &options(&disk)).map_err(text)?.0;
        for entry in 0..ENTRIES / 2 {
            let payload = [(half * ENTRIES / 2 + entry) as u8; 600];
            let receipt = log.append_with(1, &payload, Level::Strict).map_err(text)?;
            log.wait(receipt).map_err(text)?;
            let frame = Lsn(receipt.lsn.0 / 512 * 512);
            match (half, entry) {
                (0, at) if at == ENTRIES / 4 => middle = frame,
                (1, at) if at == ENTRIES / 2 - LATE => late = frame,
                _ => {}
            }
        }
        log.close().map_err(text)?;
    }
    disk.settle();
    let found = segments(&disk);
    if found.len() < 5 {
        return Err(format!("the log has only {} segments", found.len()));
    }
    let path = &found[1];
    match damage {
        Damage::Flip => disk.flip(path, 512 + 80, 8),
        Damage::Header => disk.flip(path, 40, 8),
        Damage::Missing => disk.remove_file(path),
        Damage::None | Damage::Late => {}
    }
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).map_err(text)?;
    let plan = match damage {
        Damage::None => RepairPlan { cut_at: middle },
        Damage::Late => RepairPlan { cut_at: late },
        _ => RepairPlan::keep_readable(inspection.report()),
    };
    Ok((disk, plan))
}

/// Returns the entries that a reader sees, or `None` when it is refused.
fn entries(disk: &SimDisk) -> Option<u64> {
    let inspection = Inspection::read(Path::new(DIR), &options(disk)).ok()?;
    if matches!(inspection.report().status, Status::Corrupt(_)) {
        return None;
    }
    let each = |_: &bulla_recovery::EntryView<'_>| ControlFlow::Continue(());
    Some(inspection.replay(Range::ALL, each).ok()?.entries)
}

/// Cuts an undo short at every step: the log is then as the repair left it, or as it was before, or
/// it is refused; and the undo, run again, brings every byte back.
///
/// # Errors
/// The first violation.
pub fn undo_brings_every_byte_back_through_every_power_loss() -> Result<(), String> {
    for damage in DAMAGES {
        let (disk, plan) = damaged(damage)?;
        let (before, shown_before) = (files(&disk), entries(&disk));
        repair(Path::new(DIR), &options(&disk), plan).map_err(text)?;
        // All of it must be durable, what is needed to undo it included.
        disk.power_loss();
        let shown = entries(&disk);
        if files(&disk) == before {
            return Err(format!("{damage:?}: the repair changed nothing"));
        }
        let mut steps = 0;
        loop {
            let mut struck = false;
            let outcomes = if matches!(damage, Damage::Late) { 8 * OUTCOMES } else { OUTCOMES };
            for outcome in 0..outcomes {
                let victim = disk.fork(steps * outcomes + outcome);
                victim.crash_after(steps, CrashKind::PowerLoss);
                let undone = undo_repair(Path::new(DIR), &options(&victim));
                struck |= victim.is_crashed();
                if !victim.is_crashed() {
                    undone.map_err(text)?;
                    victim.disarm();
                    victim.power_loss();
                }
                victim.disarm();
                let context = format!("{damage:?}, step {steps}, outcome {outcome}");
                check_undone(&victim, &before, [shown, shown_before], &context)?;
            }
            if !struck {
                break;
            }
            steps += 1;
        }
        if steps < 15 {
            return Err(format!("{damage:?}: an undo of only {steps} steps"));
        }
    }
    Ok(())
}

/// Checks what an undo left that was cut short, or was not; then runs it again.
fn check_undone(
    disk: &SimDisk,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    may_show: [Option<u64>; 2],
    context: &str,
) -> Result<(), String> {
    let shown = entries(disk);
    if shown.is_some() && !may_show.contains(&shown) {
        return Err(format!("{context}: {shown:?} entries are neither {may_show:?}"));
    }
    match undo_repair(Path::new(DIR), &options(disk)) {
        Ok(_) => {}
        // It was done.
        Err(RepairError::Undo(UndoRefused::NoRepair(_))) => {}
        Err(error) => return Err(format!("{context}: not undone when it is run again: {error}")),
    }
    disk.power_loss();
    same(before, &files(disk)).map_err(|differs| format!("{context}: {differs}"))?;
    let left = disk.paths().into_iter().find(|path| path.to_string_lossy().contains(".undo"));
    left.map_or(Ok(()), |path| Err(format!("{context}: {} is left", path.display())))
}

fn same(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<(), String> {
    let all = before.keys().chain(after.keys());
    match all.into_iter().find(|path| before.get(*path) != after.get(*path)) {
        Some(path) => Err(format!("{} is not as it was", path.display())),
        None => Ok(()),
    }
}

/// Cuts a repair short at every step: either it can be undone, or it changed nothing yet.
///
/// # Errors
/// The first violation.
pub fn repair_that_was_cut_short_can_be_undone() -> Result<(), String> {
    for damage in DAMAGES {
        let (disk, plan) = damaged(damage)?;
        let before = files(&disk);
        let mut undone = 0_u64;
        let mut steps = 0;
        loop {
            let mut struck = false;
            for outcome in 0..OUTCOMES {
                let victim = disk.fork(steps * OUTCOMES + outcome);
                victim.crash_after(steps, CrashKind::PowerLoss);
                let _ = repair(Path::new(DIR), &options(&victim), plan);
                struck |= victim.is_crashed();
                if !victim.is_crashed() {
                    victim.power_loss();
                }
                victim.disarm();
                let context = format!("{damage:?}, step {steps}, outcome {outcome}");
                let changed = segments_of(&files(&victim)) != segments_of(&before);
                match undo_repair(Path::new(DIR), &options(&victim)) {
                    Ok(_) => undone += 1,
                    Err(RepairError::Undo(UndoRefused::NoRepair(_))) if !changed => continue,
                    Err(error) => return Err(format!("{context}: {error}")),
                }
                let after = files(&victim);
                let no_temporaries = |files: &BTreeMap<PathBuf, Vec<u8>>| {
                    let files = files
                        .iter()
                        .filter(|(path, _)| path.extension().is_none_or(|end| end != "tmp"));
                    files.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
                };
                let (before, after) = (no_temporaries(&before), no_temporaries(&after));
                same(&before, &after).map_err(|differs| format!("{context}: {differs}"))?;
            }
            if !struck {
                break;
            }
            steps += 1;
        }
        if undone < OUTCOMES * 3 {
            return Err(format!("{damage:?}: only {undone} of the repairs were undone"));
        }
    }
    Ok(())
}

fn segments_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<(&PathBuf, &Vec<u8>)> {
    files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "seg")).collect()
}

/// Undoes a repair after which the log was opened, and another after which an entry was appended.
///
/// # Errors
/// When the first is refused, or the second is not.
pub fn undo_is_refused_where_it_would_lose_an_entry() -> Result<(), String> {
    for damage in DAMAGES {
        for entries in 0..2 {
            let (disk, plan) = damaged(damage)?;
            let before = files(&disk);
            repair(Path::new(DIR), &options(&disk), plan).map_err(text)?;
            for _ in 0..2 {
                let log = Log::open(Path::new(DIR), &options(&disk)).map_err(text)?.0;
                for _ in 0..entries {
                    let receipt = log.append_with(1, b"since", Level::Strict).map_err(text)?;
                    log.wait(receipt).map_err(text)?;
                }
                log.close().map_err(text)?;
            }
            let as_left = files(&disk);
            let undone = undo_repair(Path::new(DIR), &options(&disk));
            match undone {
                Ok(_) if entries == 0 => same(&before, &files(&disk))?,
                Err(RepairError::Undo(UndoRefused::Written { .. })) if entries > 0 => {
                    same(&as_left, &files(&disk))?;
                }
                other => return Err(format!("{damage:?}, {entries} entries: {other:?}")),
            }
        }
    }
    Ok(())
}

/// Repairs a log among others' folders and undoes it, which is refused where a checkpoint or a hold
/// was made in between, and nowhere else.
///
/// # Errors
/// The first violation.
pub fn only_checkpoints_and_holds_of_later_stop_an_undo() -> Result<(), String> {
    let made_later = [
        ("lost+found/of another", false),
        ("elsewhere/grows", false),
        ("checkpoints/RESERVE", false),
        ("checkpoints/00000000000000000001.ckpt", true),
        ("holds/one.hold", true),
    ];
    for (name, stops) in made_later {
        let (disk, plan) = damaged(Damage::Flip)?;
        disk.write_file(Path::new(DIR).join("elsewhere/grows"), b"before");
        disk.write_file(Path::new(DIR).join("lost+found/before"), b"");
        repair(Path::new(DIR), &options(&disk), plan).map_err(text)?;
        disk.write_file(Path::new(DIR).join(name), b"longer than before");
        let undone = undo_repair(Path::new(DIR), &options(&disk));
        match undone {
            Ok(_) if !stops => {}
            Err(RepairError::Undo(UndoRefused::Folders(_))) if stops => {}
            other => return Err(format!("{name}: {other:?}")),
        }
    }
    Ok(())
}

/// Returns a wrong bit from each read of what a repair set aside, one at a time: an undo puts back
/// only what the repair noted, or it changes nothing, and the next one succeeds.
///
/// # Errors
/// The first violation.
pub fn undo_puts_back_nothing_that_was_read_wrongly() -> Result<(), String> {
    let (disk, plan) = damaged(Damage::Header)?;
    let before = files(&disk);
    repair(Path::new(DIR), &options(&disk), plan).map_err(text)?;
    disk.settle();
    let as_left = files(&disk);
    let mut refused = 0;
    for after in 0.. {
        let victim = disk.fork(after);
        victim.lie_next(Lie::RottenRead, "quarantine", after);
        let undone = undo_repair(Path::new(DIR), &options(&victim));
        if !victim.is_honest() {
            break;
        }
        match undone {
            Ok(_) => {}
            Err(RepairError::Undo(UndoRefused::Copy(_) | UndoRefused::NoRepair(_))) => {
                refused += 1;
                same(&as_left, &files(&victim)).map_err(|differs| format!("{after}: {differs}"))?;
                victim.clear_faults();
                undo_repair(Path::new(DIR), &options(&victim)).map_err(text)?;
            }
            Err(error) => return Err(format!("read {after}: {error}")),
        }
        same(&before, &files(&victim)).map_err(|differs| format!("read {after}: {differs}"))?;
    }
    // Each copy is read to check it, and to put it back.
    if refused < 8 { Err(format!("only {refused} wrong reads were noticed")) } else { Ok(()) }
}
