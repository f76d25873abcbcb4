//! The rounds: every log once per round and workload, in an order that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::log::{Result, Unsupported};
use crate::machine::{self, FileSystem};
use crate::subjects::{Group, Subject};
use crate::workload::{Kind, Sample, Workload, xorshift};

/// At least so much must be free: the largest log, its segments ahead, and a reserve.
const FREE_BYTES: u64 = 4 << 30;

/// A comparison that is about to run.
pub(crate) struct Comparison {
    dir: WorkDir,
    subjects: Vec<Subject>,
    workloads: Vec<Workload>,
    file_system: FileSystem,
}

/// All that was measured.
pub(crate) struct Outcome {
    /// Machine, file system, build and versions.
    pub(crate) fingerprint: Value,
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    /// Less work than the workloads say: nothing was measured.
    pub(crate) quick: bool,
    /// On a busy machine figures mean little.
    pub(crate) load_at_end: String,
    /// In the order of the workloads, then of the logs; those that can't do it left out.
    pub(crate) results: Vec<(Workload, Vec<Measured>)>,
}

/// What a log did with a workload.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    /// One per round, in order.
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failure: Option<String>,
}

impl Outcome {
    /// Did a log fail, or acknowledge before it synced where it should not?
    pub(crate) fn has_failed(&self) -> bool {
        self.results.iter().flat_map(|(_, logs)| logs).any(|log| log.failure.is_some())
    }
}

impl Comparison {
    /// Looks at the disk; nothing is measured yet.
    ///
    /// # Errors
    /// A file system in memory that was not allowed, too little space, no such directory.
    pub(crate) fn new(
        parent: &Path,
        subjects: Vec<Subject>,
        workloads: Vec<Workload>,
        allow_memory: bool,
    ) -> Result<Self> {
        let file_system = FileSystem::of(parent)?;
        if file_system.is_memory() && !allow_memory {
            let kind = &file_system.kind;
            return Err(format!(
                "{} is on {kind}, where nothing is durable; give another --dir, or --allow-tmpfs",
                parent.display()
            )
            .into());
        }
        let free = machine::free_bytes(parent)?;
        if free < FREE_BYTES {
            return Err(format!("{free} bytes are free, {FREE_BYTES} are needed").into());
        }
        Ok(Self { dir: WorkDir::new(parent)?, subjects, workloads, file_system })
    }

    /// Runs all rounds of each workload. A log that fails is not run again in it.
    ///
    /// # Errors
    /// Those of the directory; a log's errors are part of the outcome.
    pub(crate) fn run(&self, rounds: u32, seed: u64, quick: bool) -> Result<Outcome> {
        let fingerprint = machine::fingerprint(&self.dir.0, &self.file_system)?;
        let mut results = Vec::new();
        for workload in &self.workloads {
            results.push((*workload, self.run_workload(workload, rounds, seed)?));
        }
        let load_at_end = machine::load();
        Ok(Outcome { fingerprint, rounds, seed, quick, load_at_end, results })
    }

    fn run_workload(&self, workload: &Workload, rounds: u32, seed: u64) -> Result<Vec<Measured>> {
        let mut measured: Vec<Option<Measured>> = self
            .subjects
            .iter()
            .map(|subject| {
                subject.takes(workload).then(|| Measured {
                    name: subject.name,
                    group: subject.group,
                    samples: Vec::new(),
                    failure: None,
                })
            })
            .collect();
        for round in 0..rounds {
            for index in shuffled(self.subjects.len(), seed, round) {
                let (Some(subject), Some(slot)) =
                    (self.subjects.get(index), measured.get_mut(index))
                else {
                    continue;
                };
                let Some(log) = slot.as_mut().filter(|log| log.failure.is_none()) else { continue };
                eprint!("{} round {} of {rounds}: {} ... ", workload.name, round + 1, subject.name);
                let start = Instant::now();
                let sample = self.dir.with_empty(|dir| subject.run(workload, dir))?;
                eprintln!(
                    "{:.1} s, setting up and removing included",
                    start.elapsed().as_secs_f64()
                );
                match sample {
                    Ok(sample) => {
                        log.failure = broken_promise(workload, subject.group, &sample);
                        log.samples.push(sample);
                    }
                    Err(error) if error.is::<Unsupported>() => *slot = None,
                    Err(error) => log.failure = Some(error.to_string()),
                }
            }
        }
        Ok(measured.into_iter().flatten().collect())
    }
}

/// A thread that waits for each of its commits needs a sync for each.
fn broken_promise(workload: &Workload, group: Group, sample: &Sample) -> Option<String> {
    let is_alone = workload.kind == Kind::Strict && workload.threads == 1;
    let per_commit = sample.syncs_per_record();
    (is_alone && group != Group::AcksBeforeSync && per_commit < 1.0)
        .then(|| format!("acknowledges before it syncs: {per_commit:.3} syncs per commit"))
}

/// The numbers below `len` in an order that seed and round decide.
fn shuffled(len: usize, seed: u64, round: u32) -> Vec<usize> {
    let mut state = (seed << 32 | u64::from(round)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut order: Vec<usize> = (0..len).collect();
    for end in (1..len).rev() {
        // The first numbers of a small state are small; high bits are taken.
        let other = (xorshift(&mut state) >> 33) as usize % (end + 1);
        order.swap(end, other);
    }
    order
}

/// A directory of our own that is removed in the end.
struct WorkDir(PathBuf);

impl WorkDir {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.canonicalize()?.join(format!("bulla-peers-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Runs something in an empty directory, which is removed after it.
    fn with_empty<T>(&self, run: impl FnOnce(&Path) -> T) -> Result<T> {
        let dir = self.0.join("log");
        fs::create_dir(&dir)?;
        let done = run(&dir);
        fs::remove_dir_all(&dir)?;
        Ok(done)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} was not removed: {error}", self.0.display());
        }
    }
}
