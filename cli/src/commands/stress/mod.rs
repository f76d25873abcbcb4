//! `bulla stress`: millions of stored tokens, part by part, then a crash.
//!
//! Owns the course: what is looked at first, rounds, order, and what is left behind
//! (nothing). Parts are in `parts.rs`, the crash in `crash.rs`.

pub(crate) mod child;
mod crash;
mod parts;
mod report;
mod work;

use std::path::{Path, PathBuf};

use self::crash::Crash;
use self::parts::{Measured, Part};
use self::report::Results;
use self::work::{Watch, Work};
use crate::Outcome;
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::input::progress;
use crate::output::Out;
use crate::signals::Interrupt;

/// Store millions of tokens: in memory alone, by each part of a store, and by all of it;
/// then kill a process that does so, and check what it left.
///
/// Every token is made from the seed and stored, and every one of them is logged where
/// there is a log. First, the baseline: a Vec in memory. Then puts that a full store
/// refuses, appends to a log of each level, and puts into a store (table, quota and log)
/// of each level. Time runs until every record is acknowledged as its level says; up to
/// 10,000 of a thread are under way. The ratio is the time to that of the baseline.
///
/// Memory is what the process grew by (`VmRSS`), from when all of the log's ring is in use.
/// The crash is a SIGKILL of a child process in the second half of its work: then its
/// store is opened, and every record that was acknowledged must be there as it was put.
/// Relaxed ones may be lost, but no more than the ring holds.
///
/// Works in a folder of its own in the directory, which is removed also on Ctrl-C. Exits
/// with 1 if a record was lost that must not be; the store is then kept.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla stress /var/lib --records 1000000\n  bulla stress /var/lib --level strict --threads 4 --rounds 5 --format json"
)]
pub(crate) struct Args {
    /// The directory, on the disk that is meant.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Tokens that each part stores.
    #[arg(long, default_value_t = 9_500_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000), value_name = "N")]
    records: u64,
    /// Determines the tokens, and when the child is killed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Threads that store them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), value_name = "N")]
    threads: u64,
    /// Levels of logs, stores and crashes.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "relaxed,balanced,strict",
        value_name = "LEVEL"
    )]
    level: Vec<LevelArg>,
    /// How often each part is run, in turn; medians are shown.
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
/// Bytes of disk beside the records: segments made ahead, and what touches the ring.
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
    let kept = (outcome != Outcome::Clean).then_some(place.0.as_path());
    report::print(args, &facts, &results, kept, out)?;
    if kept.is_some() {
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
        .map_err(|source| Error::file("look at the space of", &facts.dir)(source.into()))?;
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
            let bar =
                progress(args.records, &format!("{}{}", part.name(), level.unwrap_or_default()));
            let watch = Watch { bar: &bar, interrupt };
            runs.push(place.with_dir(|dir| part.run(work, &args.log, dir, watch))?);
            bar.finish_and_clear();
        }
    }
    let mut crashes = Vec::new();
    for level in &args.level {
        let bar = progress(args.records, &format!("put until kill 9, {}", level.name()));
        let watch = Watch { bar: &bar, interrupt };
        let crash = Crash::run(work, &args.log, *level, &place.store(), watch)?;
        bar.finish_and_clear();
        crashes.push(crash);
        if !crash.is_ok() {
            break;
        }
        place.clear()?;
    }
    Ok(Results { measured, crashes })
}

/// A folder for logs and stores, removed with all that is in it when dropped.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn make(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("bulla-stress-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Runs something in a directory that it makes, and removes that.
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
        std::mem::forget(self);
    }

    /// Removes it, and says so if it can't.
    fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).map_err(Error::file("remove", &self.0))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
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
