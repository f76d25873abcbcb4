//! `bulla stress`: stores millions of tokens, part by part, then crashes.
//!
//! Owns the course: the checks before it, rounds and order, and that nothing is left behind. Parts are in `parts.rs`, the crash in `crash.rs`.

pub(crate) mod child;
mod crash;
mod parts;
mod report;
mod work;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::crash::Crash;
use self::parts::{Measured, Part};
use self::report::Results;
use self::work::{Watch, Work};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::progress;
use crate::signals::Interrupt;

/// Store millions of tokens: in memory alone, by each part of a store, and by all of it;
/// then kill a process that does so, and check what it left.
///
/// Every token is made from the seed and stored, and each one is logged where there is a log.
/// First comes the baseline: a Vec in memory. Then puts that a full store refuses, appends to
/// a log of each level, and puts into a store (table, quota and log) of each level. Time runs
/// until every record is acknowledged as its level says; each thread has up to 10,000 in
/// flight. The ratio compares the time with that of the baseline.
///
/// Memory is the growth of the process (`VmRSS`) once all of the log's ring is in use.
/// The crash is a SIGKILL of a child process in the second half of its work: then its
/// store is opened, and every record that was acknowledged must be there as it was put.
/// Relaxed ones may be lost, but no more than the ring holds.
///
/// Works in a temporary directory inside the directory, which is removed also on Ctrl-C.
/// Exits with 1 if a record was lost that must not be lost; the store is then kept.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla stress /var/lib --records 1000000\n  bulla stress /var/lib --level strict --threads 4 --rounds 5 --format json"
)]
pub(crate) struct Args {
    /// The directory, on the disk to be tested.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Tokens that each part stores.
    #[arg(long, default_value_t = 9_500_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000), value_name = "N")]
    records: u64,
    /// Determines the tokens, and the moment of the kill.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads that store them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), value_name = "N")]
    threads: u64,
    /// Levels of the logs, stores and crashes.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "relaxed,balanced,strict",
        value_name = "LEVEL"
    )]
    level: Vec<LevelArg>,
    /// How often each part is run, in turn; the report shows medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    rounds: u32,
    /// Work also on a file system in memory.
    #[arg(long)]
    allow_tmpfs: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// Bytes of disk for a record: its entry, its part of a frame, and two checkpoints.
const DISK_PER_RECORD: u64 = 96 + 2 * 65;
/// Bytes of disk beside the records: segments created ahead, and what fills the ring.
const DISK_EXTRA: u64 = 512 << 20;
/// Bytes of memory for a record.
const MEMORY_PER_RECORD: u64 = 68;
/// Bytes of memory beside the records.
const MEMORY_EXTRA: u64 = 128 << 20;

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let facts = Facts::read(&args.dir)?;
    check_place(args, &facts)?;
    let work = Work { records: args.records, threads: args.threads, seed: args.seed };
    let place = Place::make(&facts.dir)?;
    let results = stress(args, &work, &place, &interrupt)?;
    let outcome = results.outcome();
    let is_kept = outcome != Outcome::Clean;
    report::print(args, &facts, &results, is_kept.then(|| place.0.path()), out)?;
    if is_kept {
        place.keep();
    } else {
        place.remove()?;
    }
    Ok(outcome)
}

/// Refuses a place where the figures would mean nothing, or the work would not fit.
fn check_place(args: &Args, facts: &Facts) -> Result<()> {
    if let Some(mount) = facts.mount.as_ref().filter(|_| facts.is_in_memory() && !args.allow_tmpfs)
    {
        return Err(Error::InMemory { path: facts.dir.clone(), kind: mount.kind.clone() });
    }
    let stat = rustix::fs::statvfs(&facts.dir)
        .map_err(|source| Error::file("find the free space of", &facts.dir)(source.into()))?;
    let disk = stat.f_bavail.saturating_mul(stat.f_frsize);
    check_room(args.records, disk, parts::available()?)
}

/// Refuses work that does not fit into what is free.
fn check_room(records: u64, disk: u64, memory: u64) -> Result<()> {
    let needs = |per_record: u64, extra: u64| records.saturating_mul(per_record) + extra;
    for (what, needed, free) in [
        ("disk space", needs(DISK_PER_RECORD, DISK_EXTRA), disk),
        ("memory", needs(MEMORY_PER_RECORD, MEMORY_EXTRA), memory),
    ] {
        if free < needed {
            return Err(Error::TooLittle { what, needed, free });
        }
    }
    Ok(())
}

fn stress(args: &Args, work: &Work, place: &Place, interrupt: &Interrupt) -> Result<Results> {
    let parts = Part::all(&args.level);
    let mut measured: Vec<(Part, Vec<Measured>)> =
        parts.into_iter().map(|part| (part, Vec::new())).collect();
    for _ in 0..args.rounds {
        for (part, runs) in &mut measured {
            let level = part.level().map(|level| format!(", {}", level.name()));
            let bar = progress::count(
                args.records,
                &format!("{}{}", part.name(), level.unwrap_or_default()),
            );
            let watch = Watch { bar: &bar, interrupt };
            runs.push(place.with_dir(|dir| part.run(work, &args.log, dir, watch))?);
            drop(bar);
        }
    }
    let mut crashes = Vec::new();
    for level in &args.level {
        let bar = progress::count(args.records, &format!("put until kill -9, {}", level.name()));
        let watch = Watch { bar: &bar, interrupt };
        let crash = Crash::run(work, &args.log, *level, &place.store(), watch)?;
        drop(bar);
        crashes.push(crash);
        if !crash.is_ok() {
            break;
        }
        place.clear()?;
    }
    Ok(Results { measured, crashes })
}

/// A directory for logs and stores, removed with everything in it when dropped.
#[derive(Debug)]
struct Place(TempDir);

impl Place {
    fn make(dir: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("bulla-stress-").tempdir_in(dir);
        made.map(Self).map_err(Error::file("create a directory in", dir))
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// Runs something in a directory that it creates, and removes that.
    fn with_dir<T>(&self, run: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let ran = run(&self.store())?;
        self.clear()?;
        Ok(ran)
    }

    fn clear(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.store()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", self.store())(error))
            }
            _ => Ok(()),
        }
    }

    fn keep(self) {
        let _ = self.0.keep();
    }

    /// Removes the directory, and reports a failure.
    fn remove(self) -> Result<()> {
        let path = self.0.path().to_owned();
        self.0.close().map_err(Error::file("remove", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_fit_is_refused_before_anything_is_made() {
        let (records, disk, memory) =
            (1_000_000, 226_000_000 + DISK_EXTRA, 68_000_000 + MEMORY_EXTRA);
        assert!(check_room(records, disk, memory).is_ok());
        for (disk, memory, lacks) in
            [(disk - 1, memory, "disk space"), (disk, memory - 1, "memory")]
        {
            let refused = check_room(records, disk, memory);
            assert!(
                matches!(refused, Err(Error::TooLittle { what, .. }) if what == lacks),
                "{refused:?}"
            );
        }
    }
}
