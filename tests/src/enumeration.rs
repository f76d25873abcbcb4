//! Every short workload, halted at every step, in every way in which that can end.
//!
//! Where the campaigns draw, this goes through all there is: each sequence of up to `most`
//! operations of a [`Subject`] on each of its bases, a halt at each step of the last one (those
//! before belong to the shorter sequences), the struck operation done or not, a kill and a power
//! loss, and of these every end: each sector, length and name that is not durable lost or kept.
//! More than [`MOST_ENDS`] of them are sampled. States that are alike, on disk and in what was
//! acknowledged, are checked once. A [`Case`] is one of them; its text plays it again.

mod log;
mod store;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bulla_storage::files::dir::LOCK;
use bulla_storage::io::sim::{CrashKind, Meddling, SimDisk};
use bulla_wal::{Level, Method, Options};

use crate::model::Violation;
use crate::rng::Rng;
use crate::seeds::caught;

/// Of a halt with no more ends than ten open sectors have, every one is tried.
pub const MOST_ENDS: usize = 1 << 10;
/// Ends that are drawn of a halt with more of them, besides the extremes.
const DRAWN_ENDS: usize = 64;
/// Recoveries of a state draw nonces of their own.
const SEED_OF_ENDS: u64 = 1 << 32;

/// What workloads are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A log, against the model of the contract.
    Log,
    /// A store with its checkpoints, against a plain map.
    Store,
}

impl Subject {
    const ALL: [Self; 2] = [Self::Log, Self::Store];

    /// What it starts from, by name.
    fn bases(self) -> Vec<&'static str> {
        match self {
            Self::Log => log::BASES.iter().map(|(_, name)| *name).collect(),
            Self::Store => store::BASES.iter().map(|(_, name)| *name).collect(),
        }
    }

    /// What its workloads are made of, by name.
    fn operations(self) -> Vec<&'static str> {
        match self {
            Self::Log => log::OPERATIONS.iter().map(|(_, name)| *name).collect(),
            Self::Store => store::OPERATIONS.iter().map(|(_, name)| *name).collect(),
        }
    }

    fn play(self, halt: &Halt) -> Result<Box<dyn Life>, Violation> {
        match self {
            Self::Log => Ok(Box::new(log::Log::play(halt)?)),
            Self::Store => Ok(Box::new(store::Store::play(halt)?)),
        }
    }
}

/// A machine on which a workload was played up to its halt, and what was acknowledged.
trait Life {
    fn disk(&self) -> &SimDisk;

    /// The step at which the last operation began.
    fn last_began(&self) -> u64;

    /// Of the files, and of what was acknowledged; the kind of crash decides what of that counts.
    fn fingerprint(&self, kind: Option<CrashKind>) -> u64;

    /// One end of the halt.
    fn end(&self, kind: CrashKind, ends: &[usize]) -> Box<dyn Life>;

    /// Returns the error of a log that is not as it was, and that nobody has touched.
    fn decoy(&self, disk: &SimDisk) -> Result<(), Violation>;

    /// Opens what is there after a crash, compares it with what was acknowledged, and goes on.
    /// Returns what was shown.
    fn check(self: Box<Self>, kind: CrashKind) -> Result<String, Violation>;
}

/// A workload and where it is halted.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Halt {
    subject: Subject,
    /// Its place among the subject's.
    base: usize,
    operations: Vec<usize>,
    /// Steps that succeed.
    steps: u64,
    /// Was the step that was struck done?
    done: bool,
    /// It is not halted at that step: an operator does this then, and the workload goes on.
    meddle: Option<Meddle>,
}

/// What an operator does beside a program that has a log open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meddle {
    /// Moves its directory away, and another log into its place.
    Swap,
    /// Removes its lock file.
    RemoveLock,
}

/// Where the other log is until they are swapped.
const DECOY: &str = "/decoy";

/// A log that nobody has open: none of its bytes may change.
#[derive(Clone, Debug, Default)]
struct Decoy(Vec<(PathBuf, Vec<u8>)>);

impl Decoy {
    fn new(disk: &SimDisk) -> Result<Self, Violation> {
        let options = Options::new().io(disk.process()).segment_len(64 * 1024);
        let options = options.sector(4096).method(Method::Buffered);
        let made = || {
            let log = bulla_wal::Log::create(Path::new(DECOY), &options.manual())?;
            log.wait(log.append_with(1, b"another log", Level::Strict)?)?;
            log.close()
        };
        made().map_err(|error| format!("the other log: {error}"))?;
        disk.settle();
        Ok(Self::read(disk, DECOY))
    }

    fn read(disk: &SimDisk, dir: &str) -> Self {
        let named = |path: &PathBuf| path.strip_prefix(dir).ok().map(Path::to_path_buf);
        let read = |path: &PathBuf| Some((named(path)?, disk.read_file(path)));
        Self(disk.paths().iter().filter_map(read).collect())
    }

    /// It lies in the directory where the program's log was.
    fn is_intact(&self, disk: &SimDisk, dir: &str) -> bool {
        Self::read(disk, dir).0 == self.0
    }
}

/// Where a program's log is that was opened in `dir`.
fn place(disk: &SimDisk, dir: &'static str, meddle: Option<Meddle>) -> &'static Path {
    let is_moved = meddle == Some(Meddle::Swap) && disk.is_meddled();
    Path::new(if is_moved { DECOY } else { dir })
}

/// What an operator does to the log in `dir`.
fn meddling(dir: &str, meddle: Meddle) -> Meddling {
    match meddle {
        Meddle::Swap => Meddling::Swap(dir.into(), DECOY.into()),
        Meddle::RemoveLock => Meddling::Remove(Path::new(dir).join(LOCK)),
    }
}

/// One state after a crash. Its text is that of `--case`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    halt: Halt,
    kind: CrashKind,
    /// As [`SimDisk::end`] takes them.
    ends: Vec<usize>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Halt { subject, base, operations, steps, done, meddle } = &self.halt;
        let (base, names) = (subject.bases()[*base], subject.operations());
        let operations: Vec<_> = operations.iter().map(|operation| names[*operation]).collect();
        let done = if *done { "done" } else { "not" };
        let kind = if self.kind == CrashKind::Kill { "killed" } else { "unpowered" };
        let ends: Vec<_> = self.ends.iter().map(ToString::to_string).collect();
        let operations = operations.join(",");
        if let Some(meddle) = meddle {
            return write!(f, "{base}:{operations}:{steps}:{meddle:?}");
        }
        write!(f, "{base}:{operations}:{steps}:{done}:{kind}:{}", ends.join("."))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [base, operations, steps, done, kind, ends] = parts[..] else {
            return Err("a case is BASE:OPERATIONS:STEPS:done|not:killed|unpowered:ENDS".into());
        };
        let place = |names: Vec<&str>| names.iter().position(|name| *name == base);
        let of = |subject: Subject| Some((subject, place(subject.bases())?));
        let (subject, base) = Subject::ALL.into_iter().find_map(of).ok_or("no such base")?;
        let named = |name: &str| {
            let found = subject.operations().iter().position(|other| *other == name);
            found.ok_or_else(|| format!("no operation {name}"))
        };
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        let listed = |part: &&str| !part.is_empty();
        let halt = Halt {
            subject,
            base,
            operations: operations
                .split(',')
                .filter(listed)
                .map(named)
                .collect::<Result<_, _>>()?,
            steps: steps.parse().map_err(|error| format!("{steps}: {error}"))?,
            done: done == "done",
            meddle: None,
        };
        let kind = if kind == "killed" { CrashKind::Kill } else { CrashKind::PowerLoss };
        let ends = ends.split('.').filter(listed).map(number).collect::<Result<_, _>>()?;
        Ok(Self { halt, kind, ends })
    }
}

/// What an enumeration went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Sequences of operations, on each base.
    pub workloads: u64,
    /// Halts, at each step, done and not.
    pub halts: u64,
    /// Of these, the ones that had more than [`MOST_ENDS`] ends.
    pub sampled: u64,
    /// Ends of all halts.
    pub ends: u64,
    /// Of these, the states that differ: each was opened, checked, written to and opened again.
    pub states: u64,
}

/// A state that violates an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Plays it again; without one the workload itself failed.
    pub case: Case,
    /// What is broken.
    pub violation: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, violation } = self;
        write!(
            f,
            "{case}: {violation}\nplay it again: \
             cargo run -p bulla-tests --bin enumerate -- --case {case}"
        )
    }
}

/// An enumeration that several threads work at.
#[derive(Debug)]
pub struct Enumeration {
    subject: Subject,
    operations: u32,
    meddle: Option<Meddle>,
    most_failures: usize,
    next: AtomicUsize,
    seen: Seen,
    stopped: AtomicBool,
    totals: Mutex<Totals>,
    failures: Mutex<Vec<Failure>>,
    states: AtomicU64,
}

impl Enumeration {
    /// Plays all sequences up to a length; ends after a number of failures.
    #[must_use]
    pub fn new(subject: Subject, operations: u32, most_failures: usize) -> Self {
        Self {
            subject,
            operations,
            meddle: None,
            most_failures,
            next: AtomicUsize::new(0),
            seen: Seen::new(),
            stopped: AtomicBool::new(false),
            totals: Mutex::default(),
            failures: Mutex::default(),
            states: AtomicU64::new(0),
        }
    }

    /// Instead of halting each workload at each step of its last operation, lets an operator
    /// meddle there.
    #[must_use]
    pub fn meddle(mut self, meddle: Meddle) -> Self {
        self.meddle = Some(meddle);
        self
    }

    /// How many workloads there are.
    #[must_use]
    pub fn workloads(&self) -> usize {
        let operations = self.subject.operations().len();
        (0..=self.operations).map(|length| operations.pow(length)).sum::<usize>()
            * self.subject.bases().len()
    }

    /// Works until nothing is left; every thread calls it. The short workloads come first, so
    /// that what fails first is as short as can be.
    pub fn work(&self) {
        let mut totals = Totals::default();
        while !self.stopped.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.workloads() {
                break;
            }
            totals.workloads += 1;
            if let Err(failure) = self.workload(workload(self.subject, number), &mut totals) {
                let mut failures = lock(&self.failures);
                failures.push(*failure);
                if failures.len() >= self.most_failures {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut all = lock(&self.totals);
        all.workloads += totals.workloads;
        all.halts += totals.halts;
        all.sampled += totals.sampled;
        all.ends += totals.ends;
        all.states += totals.states;
    }

    /// Workloads that were begun, and states that were checked, so far.
    #[must_use]
    pub fn progress(&self) -> (usize, u64) {
        let begun = self.next.load(Ordering::Relaxed).min(self.workloads());
        (begun, self.states.load(Ordering::Relaxed))
    }

    /// What all threads went through, and what they found.
    #[must_use]
    pub fn result(&self) -> (Totals, Vec<Failure>) {
        (*lock(&self.totals), lock(&self.failures).clone())
    }

    fn workload(&self, mut halt: Halt, totals: &mut Totals) -> Result<(), Box<Failure>> {
        let failed = |halt: &Halt, violation| {
            let case = Case { halt: halt.clone(), kind: CrashKind::Kill, ends: Vec::new() };
            Box::new(Failure { case, violation })
        };
        let play = |halt: &Halt| {
            caught(|| self.subject.play(halt)).map_err(|violation| failed(halt, violation))
        };
        if self.meddle.is_some() {
            return self.meddled(halt, totals);
        }
        let whole = play(&halt)?;
        for steps in whole.last_began()..=whole.disk().steps() {
            for done in [true, false] {
                (halt.steps, halt.done) = (steps, done);
                let life = play(&halt)?;
                totals.halts += 1;
                if self.seen.is_new(life.fingerprint(None)) {
                    self.halted(&halt, life.as_ref(), totals)?;
                }
            }
        }
        Ok(())
    }

    /// Plays a workload during whose last operation an operator meddles, at each step.
    fn meddled(&self, mut halt: Halt, totals: &mut Totals) -> Result<(), Box<Failure>> {
        halt.meddle = self.meddle;
        let failed = |halt: &Halt, kind, violation| {
            let case = Case { halt: halt.clone(), kind, ends: Vec::new() };
            Box::new(Failure { case, violation })
        };
        let play = |halt: &Halt| {
            caught(|| self.subject.play(halt))
                .map_err(|violation| failed(halt, CrashKind::Kill, violation))
        };
        let whole = play(&halt)?;
        for steps in whole.last_began()..=whole.disk().steps() {
            halt.steps = steps;
            let life = play(&halt)?;
            totals.halts += 1;
            for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
                // Of what is not durable nothing survives.
                let end = life.end(kind, &[]);
                totals.ends += 1;
                if !self.seen.is_new(end.fingerprint(Some(kind))) {
                    continue;
                }
                totals.states += 1;
                let disk = end.disk().clone();
                let checked = caught(|| end.check(kind)).and_then(|_| life.decoy(&disk));
                checked.map_err(|violation| failed(&halt, kind, violation))?;
            }
        }
        Ok(())
    }

    /// Goes through the ends of a halt.
    fn halted(
        &self,
        halt: &Halt,
        life: &dyn Life,
        totals: &mut Totals,
    ) -> Result<(), Box<Failure>> {
        for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
            let open = life.disk().open_ends(kind);
            let count = open.iter().try_fold(1_usize, |all, count| all.checked_mul(*count));
            let count = count.filter(|count| *count <= MOST_ENDS);
            totals.sampled += u64::from(count.is_none());
            let ends = match count {
                Some(count) => (0..count).map(|number| numbered(&open, number)).collect(),
                None => sampled(&open, life.fingerprint(None)),
            };
            for ends in ends {
                totals.ends += 1;
                let end = life.end(kind, &ends);
                if !self.seen.is_new(end.fingerprint(Some(kind))) {
                    continue;
                }
                totals.states += 1;
                self.states.fetch_add(1, Ordering::Relaxed);
                caught(|| end.check(kind)).map_err(|violation| {
                    let case = Case { halt: halt.clone(), kind, ends };
                    Box::new(Failure { case, violation })
                })?;
            }
        }
        Ok(())
    }
}

/// Plays one case; returns what it shows.
///
/// # Errors
/// The violation.
pub fn play(case: &Case) -> Result<String, String> {
    let life = case.halt.subject.play(&case.halt)?;
    let end = life.end(case.kind, &case.ends);
    let files: Vec<String> = end
        .disk()
        .paths()
        .iter()
        .map(|path| format!("{} {} B\n", path.display(), end.disk().read_file(path).len()))
        .collect();
    let shown = end.check(case.kind).map_err(|violation| format!("{}{violation}", files.concat()));
    Ok(format!("{}{}", files.concat(), shown?))
}

/// The workload with a number, to its end: the shorter ones first.
fn workload(subject: Subject, number: usize) -> Halt {
    let (bases, of) = (subject.bases().len(), subject.operations().len());
    let mut rest = number / bases;
    let mut operations = Vec::new();
    let mut length = 0;
    while rest >= of.pow(length) {
        rest -= of.pow(length);
        length += 1;
    }
    for _ in 0..length {
        operations.push(rest % of);
        rest /= of;
    }
    Halt { subject, base: number % bases, operations, steps: u64::MAX, done: true, meddle: None }
}

/// The ends with a number, of all combinations.
fn numbered(open: &[usize], mut number: usize) -> Vec<usize> {
    open.iter()
        .map(|count| {
            let end = number % count;
            number /= count;
            end
        })
        .collect()
}

/// Some of the combinations: nothing, everything, one piece alone kept, one alone lost, and
/// some that are drawn.
fn sampled(open: &[usize], seed: u64) -> Vec<Vec<usize>> {
    let all: Vec<usize> = open.iter().map(|count| count - 1).collect();
    let none = vec![0; open.len()];
    let mut ends = vec![none.clone(), all.clone()];
    for (at, last) in all.iter().enumerate() {
        let (mut kept, mut lost) = (none.clone(), all.clone());
        (kept[at], lost[at]) = (*last, 0);
        ends.extend([kept, lost]);
    }
    let mut rng = Rng::new(seed);
    for _ in 0..DRAWN_ENDS {
        ends.push(open.iter().map(|count| rng.below(*count as u64) as usize).collect());
    }
    ends
}

/// Hashes of what was checked.
#[derive(Debug)]
struct Seen(Vec<Mutex<HashSet<u64>>>);

/// Enough locks that threads seldom meet.
const SHARDS: usize = 64;

impl Seen {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    fn is_new(&self, hash: u64) -> bool {
        lock(&self.0[hash as usize % SHARDS]).insert(hash)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
