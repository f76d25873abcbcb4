//! `bulla stress`: stores millions of tokens, part by part, then crashes.
//!
//! Owns the course: the checks before it, rounds and order, and that nothing is left behind. Parts are in `parts.rs`, the crash in `crash.rs`.

mod args;
pub(crate) mod child;
mod crash;
mod parts;
mod report;
mod work;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) use self::args::Args;
use self::crash::Crash;
use self::parts::{Measured, Part};
use self::report::Results;
use self::work::{Watch, Work};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::progress;
use crate::signals::Interrupt;

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
