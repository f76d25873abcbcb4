//! Backups and restores on the simulated disk: power losses at every step, every target, every
//! damaged byte of a file, and logs that change meanwhile.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bulla_recovery::backup::{
    BackupError, BackupOptions, BackupReport, CheckpointCopy, PartDamage, RestoreOptions,
    RestoreReport, backup, restore,
};
use bulla_recovery::{Range, Recovery};
use bulla_storage::files::dir::CONTROL;
use bulla_storage::format::{BaseBackup, Manifest};
use bulla_storage::io::Access;
use bulla_storage::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{CorruptionKind, Error, Level, Log, Lsn, Options, Position, Seq};

const DIR: &str = "/log";
const FULL: &str = "/full";
const NEXT: &str = "/next";
const TARGET: &str = "/target";
/// Ends of each crash that are tried.
const OUTCOMES: u64 = 4;
const SECTOR: u64 = 512;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// How far ahead a wrong clock is.
const YEAR_NS: i64 = 365 * 24 * 3_600_000_000_000;

fn expect(right: bool, what: impl std::fmt::Display) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("I44: {what}")) }
}

/// An entry of a log, and its frame, which has no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Written {
    lsn: Lsn,
    seq: Seq,
    wall_ns: u64,
    byte: u8,
}

fn open(disk: &SimDisk, dir: &str) -> Result<Log, Error> {
    Ok(Log::open(Path::new(dir), &Options::simulated(disk))?.0)
}

/// Appends durable entries, each in a frame of its own.
fn append(log: &Log, count: u8) -> Result<(), String> {
    for entry in 0..count {
        let receipt = log.append_with(1, &[entry; 700], Level::Strict).map_err(text)?;
        log.wait(receipt).map_err(text)?;
    }
    Ok(())
}

/// Recovers a log, which must be clean and wholly durable; returns its entries.
fn entries(disk: &SimDisk, dir: &str) -> Result<Vec<Written>, Error> {
    let mut found = Vec::new();
    let recovery = Recovery::run(Path::new(dir), &Options::simulated(disk))?;
    recovery.replay(Range::ALL, |entry| {
        let byte = entry.payload.first().copied().unwrap_or(0);
        found.push(Written { lsn: entry.lsn, seq: entry.seq, wall_ns: entry.wall_ns, byte });
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn take(disk: &SimDisk, dest: &str, since: Option<&str>) -> Result<BackupReport, BackupError> {
    let mut options = BackupOptions::new().log(Options::simulated(disk));
    if let Some(since) = since {
        options = options.since(since);
    }
    backup(Path::new(DIR), Path::new(dest), &options, |_| Ok(Vec::new()))
}

fn restore_to(
    disk: &SimDisk,
    from: &str,
    dir: &str,
    to: impl Into<Position>,
) -> Result<RestoreReport, BackupError> {
    let options = RestoreOptions::new().log(Options::simulated(disk)).to(to);
    restore(Path::new(from), Path::new(dir), &options)
}

/// A log of several segments and epochs, which was purged and closed.
fn closed_log(seed: u64) -> Result<(SimDisk, Vec<Written>), String> {
    // Each frame has a time of its own.
    let config = SimConfig { step_ns: 1_000, ..SimConfig::default() };
    let disk = SimDisk::with_config(seed, config);
    let log = open(&disk, DIR).map_err(text)?;
    append(&log, 30)?;
    // The clock is wrong for a while.
    disk.set_wall_offset(YEAR_NS);
    append(&log, 10)?;
    let low_water = log.purge(Lsn(log.durable().0 / 2)).map_err(text)?;
    expect(low_water > Lsn(0), "the log is purged")?;
    log.close().map_err(text)?;
    drop(log);
    disk.set_wall_offset(0);
    let log = open(&disk, DIR).map_err(text)?;
    append(&log, 20)?;
    log.close().map_err(text)?;
    drop(log);
    let all = entries(&disk, DIR).map_err(text)?;
    disk.settle();
    Ok((disk, all))
}

/// Appends to the log of [`closed_log`] in another epoch.
fn continue_log(disk: &SimDisk) -> Result<Vec<Written>, String> {
    let log = open(disk, DIR).map_err(text)?;
    append(&log, 25)?;
    log.close().map_err(text)?;
    drop(log);
    let all = entries(disk, DIR).map_err(text)?;
    disk.settle();
    Ok(all)
}

/// Checks that a backup can be restored, to the same entries.
fn check_restores(disk: &SimDisk, from: &str, all: &[Written]) -> Result<(), String> {
    let report = restore_to(disk, from, TARGET, Position::End).map_err(text)?;
    expect(!report.is_cut, "all is restored")?;
    expect(report.epoch.0 > 1 << 16, "no epoch that the original may have begun since")?;
    check_log(disk, all)
}

fn check_log(disk: &SimDisk, all: &[Written]) -> Result<(), String> {
    let options = Options::simulated(disk);
    let found = bulla_recovery::Inspection::read(Path::new(TARGET), &options).map_err(text)?;
    let report = found.report();
    expect(report.durable_lsn == report.last_lsn, "all that is restored counts as durable")?;
    expect(report.bytes_cut == 0, "a restored log is clean")?;
    let found = entries(disk, TARGET).map_err(text)?;
    expect(found == all, format_args!("{} of {} entries are restored", found.len(), all.len()))
}

/// Cuts the power at every step of a full and of an incremental backup.
///
/// # Errors
/// When a backup that has ended can't be restored, or one that has not ended can, or can't be
/// taken again.
pub fn backups_survive_every_power_loss() -> Result<(), String> {
    let (base, all) = closed_log(1)?;
    every_power_loss(&base, |disk| interrupted_backup(disk, FULL, None, &all))?;
    take(&base, FULL, None).map_err(text)?;
    let all = continue_log(&base)?;
    every_power_loss(&base, |disk| interrupted_backup(disk, NEXT, Some(FULL), &all))
}

/// Calls `each` with a disk whose power is cut after more and more steps, until it returns that it
/// was not.
fn every_power_loss(
    base: &SimDisk,
    each: impl Fn(&SimDisk) -> Result<bool, String>,
) -> Result<(), String> {
    for step in 0.. {
        let mut struck = false;
        for outcome in 0..OUTCOMES {
            let disk = base.fork(step * OUTCOMES + outcome);
            disk.crash_after(step, CrashKind::PowerLoss);
            struck |= each(&disk).map_err(|error| format!("power loss at step {step}: {error}"))?;
        }
        if !struck {
            return Ok(());
        }
    }
    Ok(())
}

/// Ends the machine's power loss, which has struck or comes now; returns whether it had.
fn power_is_back(disk: &SimDisk) -> bool {
    let struck = disk.is_crashed();
    if !struck {
        disk.power_loss();
    }
    disk.disarm();
    struck
}

fn interrupted_backup(
    disk: &SimDisk,
    dest: &str,
    since: Option<&str>,
    all: &[Written],
) -> Result<bool, String> {
    let taken = take(disk, dest, since);
    let struck = power_is_back(disk);
    if !struck {
        taken.as_ref().map_err(text)?;
    }
    let is_whole = match restore_to(disk, dest, "/first", Position::End) {
        Ok(_) => true,
        Err(BackupError::NotABackup { .. }) if taken.is_err() => false,
        Err(error) => return Err(format!("I44: {error}")),
    };
    match take(disk, dest, since) {
        Ok(_) if !is_whole => {}
        Err(BackupError::Exists { .. }) if is_whole => {}
        Ok(_) => return Err("I44: a whole backup is taken again".to_owned()),
        Err(error) => return Err(format!("I44: again: {error}")),
    }
    disk.drop_pending();
    check_restores(disk, dest, all)?;
    let log = open(disk, DIR).map_err(text)?;
    let holds = log.holds().map_err(text)?;
    expect(holds.is_empty(), format_args!("a backup that has ended leaves {holds:?}"))?;
    Ok(struck)
}

/// Cuts the power at every step of a restore from two backups, of all and of a part.
///
/// # Errors
/// When a restore that has ended has not restored, or one that has not ended leaves a log, or
/// can't be done again.
pub fn restores_survive_every_power_loss() -> Result<(), String> {
    let (base, _) = closed_log(2)?;
    take(&base, FULL, None).map_err(text)?;
    let all = continue_log(&base)?;
    take(&base, NEXT, Some(FULL)).map_err(text)?;
    base.settle();
    every_power_loss(&base, |disk| interrupted_restore(disk, Position::End, &all))?;
    let middle = all.len() / 2;
    let (to, part) = (all[middle].seq, &all[..middle]);
    every_power_loss(&base, |disk| interrupted_restore(disk, to.into(), part))
}

fn interrupted_restore(disk: &SimDisk, to: Position, all: &[Written]) -> Result<bool, String> {
    let restored = restore_to(disk, NEXT, TARGET, to);
    let struck = power_is_back(disk);
    if !struck {
        restored.as_ref().map_err(text)?;
    }
    let is_log = match entries(disk, TARGET) {
        Ok(found) => {
            expect(found == all, "a directory that opens as a log has all")?;
            true
        }
        Err(error) if restored.is_err() && is_no_log(&error) => false,
        Err(error) => return Err(format!("I44: {error}")),
    };
    match restore_to(disk, NEXT, TARGET, to) {
        Ok(_) if !is_log => {}
        Err(BackupError::Log(Error::AlreadyExists { .. })) if is_log => {}
        Ok(_) => return Err("I44: a log is restored over".to_owned()),
        Err(error) => return Err(format!("I44: again: {error}")),
    }
    disk.drop_pending();
    check_log(disk, all)?;
    Ok(struck)
}

fn is_no_log(error: &Error) -> bool {
    let is_missing = |kind| matches!(kind, CorruptionKind::ControlMissing);
    matches!(error, Error::NotALog { .. } | Error::OfBackup { .. })
        || error.corruption().is_some_and(|fault| is_missing(fault.kind))
}

/// Restores two backups that build on one another, to every point in them; damages each file.
///
/// # Errors
/// When a restore ends past its target, or before the last whole frame that fits, or restores
/// what is damaged.
pub fn restores_end_where_they_should_and_refuse_damage() -> Result<(), String> {
    let (disk, before) = closed_log(3)?;
    let full = take(&disk, FULL, None).map_err(text)?;
    let all = continue_log(&disk)?;
    let next = take(&disk, NEXT, Some(FULL)).map_err(text)?;
    let new = next.end_lsn.0 - full.end_lsn.0;
    expect(
        next.copied_bytes <= new + SECTOR * next.copied_segments && full.copied_bytes > new,
        format_args!("{} bytes are copied, of {new} new ones", next.copied_bytes),
    )?;
    expect(before.len() < all.len(), "there is something new")?;
    disk.settle();

    let check = |to: Position, is_below: &dyn Fn(&Written) -> bool| {
        let disk = disk.fork(1);
        let report =
            restore_to(&disk, NEXT, TARGET, to).map_err(|error| format!("{to}: {error}"))?;
        let part: Vec<Written> = all.iter().copied().filter(is_below).collect();
        expect(report.is_cut || part.len() == all.len(), format_args!("{to} is cut"))?;
        check_log(&disk, &part).map_err(|error| format!("{to}: {error}"))
    };
    for Written { lsn, seq, wall_ns, .. } in &all {
        check((*seq).into(), &|entry| entry.seq < *seq)?;
        // The frame's header comes before the entry: nothing of this frame is below it.
        check((*lsn).into(), &|entry| entry.lsn < *lsn)?;
        let last = all.iter().rfind(|entry| entry.wall_ns < *wall_ns).map(|entry| entry.seq);
        check(Position::at_wall_ns(*wall_ns), &|entry| Some(entry.seq) <= last).or_else(
            |error| {
                // Whether anything was written before the first frame that is left, nobody knows.
                if last.is_none() { Ok(()) } else { Err(error) }
            },
        )?;
    }
    for to in [Position::from(next.end_lsn), next.next_seq.into(), Position::at_wall_ns(u64::MAX)] {
        check(to, &|_| true)?;
    }
    for to in [Position::from(Lsn(next.end_lsn.0 + 1)), Lsn(0).into(), Seq(1).into()] {
        let refused = restore_to(&disk.fork(1), NEXT, TARGET, to);
        let is_told = matches!(refused, Err(BackupError::OutOfRange { .. }));
        expect(is_told, format_args!("{to} is not in the backup"))?;
    }

    for path in disk.paths() {
        let is_of_backup = path.starts_with(FULL) || path.starts_with(NEXT);
        let len = disk.read_file(&path).len() as u64;
        if !is_of_backup || len == 0 {
            continue;
        }
        for offset in [0, len / 2, len - 1] {
            damage(&disk, &path, offset)?;
        }
    }
    Ok(())
}

fn damage(disk: &SimDisk, path: &Path, offset: u64) -> Result<(), String> {
    let disk = disk.fork(offset);
    disk.flip(path, offset, 1);
    let restored = restore_to(&disk, NEXT, TARGET, Position::End);
    let is_told = matches!(restored, Err(BackupError::Part { .. } | BackupError::Manifest { .. }));
    expect(is_told, format_args!("{} is damaged: {restored:?}", path.display()))?;
    let opened = entries(&disk, TARGET);
    expect(opened.is_err_and(|error| is_no_log(&error)), "what is damaged leaves no log")
}

/// Backs up logs that are written, purged, cut or of somebody else.
///
/// # Errors
/// When a backup lacks what was acknowledged before it, or builds on what does not fit.
pub fn backups_of_changing_logs_are_whole_or_refused() -> Result<(), String> {
    let (disk, _) = closed_log(4)?;
    let log = open(&disk, DIR).map_err(text)?;
    append(&log, 5)?;
    // It is durable, and no durable mark says so: the log's threads are not there to write one.
    let early = take(&disk, FULL, None);
    let is_told = matches!(early, Err(BackupError::NotDurable { .. }));
    expect(is_told, format_args!("a backup without a durable mark: {early:?}"))?;
    log.persist_durable_mark(log.durable()).map_err(text)?;
    append(&log, 1)?;
    let durable = log.persist_durable_mark(log.durable()).map_err(text)?;

    // It is purged during the backup.
    let first = log.low_water();
    let mut purged = Ok(first);
    let options = BackupOptions::new().log(Options::simulated(&disk)).keep_hold("nightly");
    let report = backup(Path::new(DIR), Path::new(FULL), &options, |_| {
        purged = log.purge(Lsn::MAX).map_err(text);
        Ok(Vec::new())
    })
    .map_err(text)?;
    expect(purged? == first, "a log is purged during its backup")?;
    expect(report.end_lsn >= durable && report.first_lsn == first, "the backup has all of it")?;
    let low_water = log.purge(Lsn::MAX).map_err(text)?;
    expect(low_water > first && low_water <= report.end_lsn, "the hold is at the backup's end")?;
    append(&log, 30)?;
    log.purge(Lsn::MAX).map_err(text)?;
    log.close().map_err(text)?;
    drop(log);
    let all = entries(&disk, DIR).map_err(text)?;
    take(&disk, NEXT, Some(FULL)).map_err(text)?;
    let restored = restore_to(&disk, NEXT, TARGET, Position::End).map_err(text)?;
    expect(restored.first_lsn == first, "a chain of backups begins with the first one")?;
    let found = entries(&disk, TARGET).map_err(text)?;
    expect(found.ends_with(&all) && found.len() > all.len(), "it has what was purged since")?;

    // Nobody holds what comes after the backup.
    let log = open(&disk, DIR).map_err(text)?;
    log.release_hold("nightly").map_err(text)?;
    append(&log, 40)?;
    log.purge(Lsn::MAX).map_err(text)?;
    log.close().map_err(text)?;
    drop(log);
    let late = take(&disk, "/late", Some(NEXT));
    let is_told = matches!(late, Err(BackupError::Log(Error::Purged { .. })));
    expect(is_told, format_args!("a gap between backups: {late:?}"))?;

    // A log that was restored to an earlier point, and went on.
    let middle = found[found.len() / 2].seq;
    restore_to(&disk, NEXT, "/other", middle).map_err(text)?;
    let log = open(&disk, "/other").map_err(text)?;
    append(&log, 60)?;
    log.close().map_err(text)?;
    drop(log);
    let options = BackupOptions::new().log(Options::simulated(&disk)).since(NEXT);
    let of = |dir: &str| {
        backup(&PathBuf::from(dir), Path::new("/foreign"), &options, |_| Ok(Vec::new()))
    };
    let other = of("/other");
    let is_told = matches!(other, Err(BackupError::NotContinued { .. }));
    expect(is_told, format_args!("another history: {other:?}"))?;
    drop(open(&disk, "/third").map_err(text)?);
    let third = of("/third");
    let is_told = matches!(third, Err(BackupError::OtherLog { .. }));
    expect(is_told, format_args!("another log: {third:?}"))?;

    // Directories with something in them.
    let onto_log = take(&disk, DIR, None);
    expect(matches!(onto_log, Err(BackupError::NotEmpty { .. } | BackupError::Log(_))), "a log")?;
    let onto_log = restore_to(&disk, NEXT, DIR, Position::End);
    let is_told = matches!(onto_log, Err(BackupError::Log(Error::AlreadyExists { .. })));
    expect(is_told, format_args!("a restore onto a log: {onto_log:?}"))
}

/// Takes backups that build on one another while purges go as far as they can.
///
/// # Errors
/// When one has a gap that is not refused.
pub fn chains_of_backups_have_no_gap() -> Result<(), String> {
    let (disk, before) = closed_log(6)?;
    let options = BackupOptions::new().log(Options::simulated(&disk)).keep_hold("nightly");
    let take_next = |options: &BackupOptions| {
        backup(Path::new(DIR), Path::new(NEXT), options, |_| Ok(Vec::new()))
    };
    backup(Path::new(DIR), Path::new(FULL), &options, |_| Ok(Vec::new())).map_err(text)?;
    // This one dies before its first frame: its segment begins where the next one does.
    let log = open(&disk, DIR).map_err(text)?;
    disk.kill();
    drop(log);
    let log = open(&disk, DIR).map_err(text)?;
    append(&log, 5)?;
    log.purge(Lsn::MAX).map_err(text)?;
    log.close().map_err(text)?;
    drop(log);
    disk.settle();
    let fork = disk.fork(1);
    let on_fork = BackupOptions::new().log(Options::simulated(&fork)).since(FULL);
    let on_fork = on_fork.keep_hold("nightly");
    take_next(&on_fork).map_err(text)?;
    let restored = restore_to(&fork, NEXT, TARGET, Position::End).map_err(text)?;
    let found = entries(&fork, TARGET).map_err(text)?;
    expect(found.starts_with(&before) && found.len() == before.len() + 5, "all is restored")?;
    expect(!restored.is_cut, "nothing is cut")?;

    // Somebody releases the hold that a backup has taken for itself.
    let log = open(&disk, DIR).map_err(text)?;
    log.release_hold("nightly").map_err(text)?;
    append(&log, 60)?;
    log.persist_durable_mark(log.durable()).map_err(text)?;
    append(&log, 1)?;
    log.persist_durable_mark(log.durable()).map_err(text)?;
    let options = BackupOptions::new().log(Options::simulated(&disk)).since(FULL);
    let late = backup(Path::new(DIR), Path::new(NEXT), &options, |_| {
        for hold in log.holds()? {
            log.release_hold(&hold.name)?;
        }
        log.purge(Lsn::MAX)?;
        Ok(Vec::new())
    });
    let is_told = matches!(late, Err(BackupError::Log(Error::Purged { .. })));
    expect(is_told, format_args!("a purge during a backup: {late:?}"))
}

/// Backs up a purged log whose only checkpoint is in a segment that has no frame yet, and restores a
/// backup that builds on itself.
///
/// # Errors
/// When one of them is not refused.
pub fn backups_that_cannot_be_restored_are_refused() -> Result<(), String> {
    let (disk, _) = closed_log(7)?;
    let log = open(&disk, DIR).map_err(text)?;
    let anchor = log.anchor(log.durable()).map_err(text)?;
    let options = BackupOptions::new().log(Options::simulated(&disk));
    let refused = backup(Path::new(DIR), Path::new(FULL), &options, |dir| {
        let file = dir.file(CONTROL, Access::READ)?;
        Ok(vec![CheckpointCopy { number: 1, file, len: 8, anchor, is_whole: Box::new(|| true) }])
    });
    let is_told = matches!(refused, Err(BackupError::NoCheckpoint { .. }));
    expect(is_told, format_args!("a checkpoint without its segment: {refused:?}"))?;
    log.close().map_err(text)?;
    drop(log);

    take(&disk, FULL, None).map_err(text)?;
    take(&disk, NEXT, Some(FULL)).map_err(text)?;
    let path = Path::new(NEXT).join("MANIFEST");
    let mut manifest = Manifest::decode(&disk.read_file(&path)).map_err(text)?;
    manifest.base = Some(BaseBackup { id: manifest.id, path: format!("..{NEXT}") });
    disk.write_file(&path, &manifest.encode());
    let refused = restore_to(&disk, NEXT, TARGET, Position::End);
    let is_told = matches!(refused, Err(BackupError::Part { damage: PartDamage::Chain, .. }));
    expect(is_told, format_args!("a backup that builds on itself: {refused:?}"))
}

/// Backs up a log that a program opens during the scan, after a kill of the one before: the open
/// moves acknowledged entries to a segment that the scan has not listed.
///
/// # Errors
/// When the backup lacks them.
pub fn backups_that_race_an_open_are_whole() -> Result<(), String> {
    let (disk, _) = closed_log(5)?;
    let log = open(&disk, DIR).map_err(text)?;
    append(&log, 3)?;
    log.persist_durable_mark(log.durable()).map_err(text)?;
    for entry in 0..5 {
        let receipt = log.append_with(1, &[entry; 700], Level::Balanced).map_err(text)?;
        log.wait(receipt).map_err(text)?;
    }
    disk.kill();
    drop(log);
    let (other, is_open) = (disk.clone(), AtomicBool::new(false));
    let scanned = Options::simulated(&disk).on_progress(move |_| {
        if !is_open.swap(true, Ordering::Relaxed) {
            drop(open(&other, DIR));
        }
        ControlFlow::Continue(())
    });
    let options = BackupOptions::new().log(scanned);
    backup(Path::new(DIR), Path::new(FULL), &options, |_| Ok(Vec::new())).map_err(text)?;
    let all = entries(&disk, DIR).map_err(text)?;
    expect(all.last().is_some_and(|last| last.byte == 4), "nothing acknowledged is lost")?;
    check_restores(&disk, FULL, &all)
}
