//! Recovery that is cut short twice, at every pair of its steps; and what it cuts off.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{Range, Recovery};
use bulla_storage::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{Level, Log, Options};

const DIR: &str = "/log";
/// Ends of each pair of crashes that are tried.
const OUTCOMES: u64 = 16;
/// Ends of the kill.
const KILLS: u64 = 3;

/// A log with entries that are durable and some below no durable mark, killed.
fn killed_log(seed: u64) -> Result<(SimDisk, usize), String> {
    // Devices guarantee whole sectors; CONTROL holds even where they don't.
    let config = SimConfig { shorn_sector_ppm: 900_000, ..SimConfig::default() };
    let disk = SimDisk::with_config(seed, config);
    let log = Log::create(Path::new(DIR), &Options::simulated(&disk)).map_err(text)?;
    let mut count = 0;
    for entry in 0..40_u8 {
        let receipt = log.append_with(1, &[entry; 600], Level::Strict).map_err(text)?;
        log.wait(receipt).map_err(text)?;
        count += 1;
    }
    log.purge(log.durable()).map_err(text)?;
    disk.kill();
    drop(log);
    Ok((disk, count))
}

/// Opens and checks that the log ends with entry `count`.
fn open(disk: &SimDisk, count: usize) -> Result<(), String> {
    let recovery = Recovery::run(Path::new(DIR), &Options::simulated(disk)).map_err(text)?;
    let mut last = 0;
    recovery
        .replay(Range::ALL, |entry| {
            last = entry.seq.0;
            ControlFlow::Continue(())
        })
        .map_err(text)?;
    if last != count as u64 {
        return Err(format!("{count} entries were durable, the last one shown is {last}"));
    }
    drop(Log::start(recovery.into_recovered()).map_err(text)?);
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Kills the first recovery at every step, cuts the power of the second at every step,
/// and lets the third one through.
///
/// # Errors
/// What the third one shows wrongly.
pub fn every_pair_of_crashes() -> Result<(), String> {
    let (base, count) = killed_log(1)?;
    for first in 0.. {
        let mut struck = false;
        for kill in 0..KILLS {
            struck |= crashes_after_a_kill(&base, count, first, kill)?;
        }
        if !struck {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns whether the kill struck.
fn crashes_after_a_kill(
    base: &SimDisk,
    count: usize,
    first: u64,
    kill: u64,
) -> Result<bool, String> {
    let killed = base.fork(first * KILLS + kill);
    killed.crash_after(first, CrashKind::Kill);
    let _ = open(&killed, count);
    if !killed.is_crashed() {
        return Ok(false);
    }
    for second in 0.. {
        let mut struck = false;
        for outcome in 0..OUTCOMES {
            let cut = killed.fork(outcome + second * OUTCOMES);
            cut.crash_after(second, CrashKind::PowerLoss);
            let _ = open(&cut, count);
            struck |= cut.is_crashed();
            cut.disarm();
            open(&cut, count).map_err(|error| {
                format!("kill at step {first}, power loss at step {second}: {error}")
            })?;
        }
        if !struck {
            break;
        }
    }
    Ok(true)
}

const GARBAGE: &[u8] = b"bytes below no durable mark";

/// A log with garbage behind its last frame.
fn torn_log() -> Result<(SimDisk, usize), String> {
    let (disk, count) = killed_log(2)?;
    disk.settle();
    let path = newest_segment(&disk)?;
    let mut bytes = disk.read_file(&path);
    let end = bytes.len() - 1024;
    bytes[end..end + GARBAGE.len()].copy_from_slice(GARBAGE);
    disk.write_file(&path, &bytes);
    Ok((disk, count))
}

fn is_kept(disk: &SimDisk) -> bool {
    let found = |bytes: &[u8]| bytes.windows(GARBAGE.len()).any(|bytes| bytes == GARBAGE);
    disk.paths().into_iter().any(|path| found(&disk.read_file(path)))
}

/// Damages the tail of a log, recovers it with power losses at every step, and looks for
/// the damaged bytes: they must be in the quarantine or still in place.
///
/// # Errors
/// When they are lost.
pub fn cut_bytes_are_kept() -> Result<(), String> {
    let (base, count) = torn_log()?;
    for step in 0.. {
        let mut struck = false;
        for outcome in 0..OUTCOMES {
            let disk = base.fork(step * OUTCOMES + outcome);
            disk.crash_after(step, CrashKind::PowerLoss);
            let opened = open(&disk, count);
            struck |= disk.is_crashed();
            if !disk.is_crashed() {
                opened?;
                disk.power_loss();
            }
            disk.disarm();
            open(&disk, count)?;
            if !is_kept(&disk) {
                return Err(format!("power loss at step {step}: cut bytes are nowhere"));
            }
        }
        if !struck {
            return Ok(());
        }
    }
    Ok(())
}

/// Opens a torn log on a disk with less and less space: as long as the new segment fits
/// it opens, and in no case is anything lost.
///
/// # Errors
/// When it is.
pub fn full_disk_loses_nothing() -> Result<(), String> {
    const SPACES: u64 = 160;
    let (base, count) = torn_log()?;
    let used: u64 = base.paths().iter().map(|path| base.read_file(path).len() as u64).sum();
    let (mut opened, mut opened_without_copy) = (0_u64, 0_u64);
    for sectors in 0..SPACES {
        let disk = base.fork(sectors);
        disk.set_capacity(Some((used + sectors * 512).saturating_sub(SPACES / 2 * 512)));
        let outcome = Recovery::run(Path::new(DIR), &Options::simulated(&disk));
        if let Ok(recovery) = outcome {
            opened += 1;
            opened_without_copy += u64::from(recovery.report().quarantine.is_none());
        }
        disk.kill();
        disk.set_capacity(None);
        open(&disk, count)?;
        if !is_kept(&disk) {
            return Err(format!("in case {sectors} cut bytes are nowhere"));
        }
    }
    if opened_without_copy == 0 || opened_without_copy == opened || opened == SPACES {
        return Err(format!("{opened} of {SPACES} opened, {opened_without_copy} without a copy"));
    }
    Ok(())
}

fn newest_segment(disk: &SimDisk) -> Result<std::path::PathBuf, String> {
    // The newest segment is the spare: what is in it is behind the last frame, too.
    let segments =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "seg"));
    segments.max().ok_or_else(|| "no segment".to_owned())
}
