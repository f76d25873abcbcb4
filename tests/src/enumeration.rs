//! Every short workload, halted at every step, in every way in which that can end.
//!
//! Where the campaign draws, this goes through all there is: each sequence of up to so many
//! [`Operation`]s on each of the [`BASES`], a halt at each step of the last one (those before
//! belong to the shorter sequences), the struck operation done or not, a kill and a power loss,
//! and of these every end: each sector, length and name that is not durable lost or kept. More
//! than [`MOST_ENDS`] of them are sampled. States that are alike, on disk and in what was
//! promised, are checked once. A [`Case`] is one of them; its text plays it again.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulla_wal::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{Level, Log, Method, Options, Receipt};

use crate::model::{Model, Opened, Violation, open};
use crate::rng::Rng;

const DIR: &str = "/log";
const RING_LEN: u64 = 64 * 1024;
const BALANCED_MAX_UNSYNCED: u64 = 32 * 1024;
/// Of a halt with no more ends than ten open sectors have, every one is tried.
pub const MOST_ENDS: usize = 1 << 10;
/// Ends that are drawn of a halt with more of them, besides the extremes.
const DRAWN_ENDS: usize = 64;
/// Leaves two sectors of the first segment.
const NEARLY_A_SEGMENT: usize = 14_200;
/// Recoveries of a state draw nonces of their own.
const SEED_OF_ENDS: u64 = 1 << 32;

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Appends and waits for the level.
    Append(Size, Level),
    /// Appends, and takes one step of the background's work.
    Post(Level),
    /// Syncs the log.
    Sync,
    /// Lets two seconds pass, and all that is due be done.
    Idle,
    /// Fills the segment, and writes on in the next.
    Rotate,
    /// Gives up all that is durable, as far as whole segments allow.
    Purge,
    /// Closes the log and opens it.
    Close,
    /// Kills the process and opens the log.
    Kill,
    /// Cuts the power, so that only what is durable is left, and opens the log.
    PowerLoss,
}

/// What is appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// One entry in one sector.
    Small,
    /// Three entries in one sector.
    Batch,
    /// One entry over three sectors.
    Spanning,
}

/// Every operation, and its name.
pub const OPERATIONS: [(Operation, &str); 18] = {
    use Level::{Balanced, Relaxed, Strict};
    use Operation::{Append, Close, Idle, Kill, Post, PowerLoss, Purge, Rotate, Sync};
    use Size::{Batch, Small, Spanning};
    [
        (Append(Small, Relaxed), "small-relaxed"),
        (Append(Small, Balanced), "small-balanced"),
        (Append(Small, Strict), "small-strict"),
        (Append(Batch, Relaxed), "batch-relaxed"),
        (Append(Batch, Balanced), "batch-balanced"),
        (Append(Batch, Strict), "batch-strict"),
        (Append(Spanning, Relaxed), "spanning-relaxed"),
        (Append(Spanning, Balanced), "spanning-balanced"),
        (Append(Spanning, Strict), "spanning-strict"),
        (Post(Balanced), "post-balanced"),
        (Post(Strict), "post-strict"),
        (Sync, "sync"),
        (Idle, "idle"),
        (Rotate, "rotate"),
        (Purge, "purge"),
        (Close, "close"),
        (Kill, "kill"),
        (PowerLoss, "power-loss"),
    ]
};

/// What a workload starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    method: Method,
    /// The first segment has room for two more sectors, so that the next frames rotate it.
    full: bool,
}

/// Every base, and its name.
pub const BASES: [(Base, &str); 4] = [
    (Base { method: Method::Direct, full: false }, "direct"),
    (Base { method: Method::Direct, full: true }, "direct-full"),
    (Base { method: Method::Buffered, full: false }, "buffered"),
    (Base { method: Method::Buffered, full: true }, "buffered-full"),
];

/// A workload and where it is halted.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Halt {
    base: Base,
    operations: Vec<Operation>,
    /// Steps that succeed.
    steps: u64,
    /// Was the step that was struck done?
    done: bool,
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
        let Halt { base, operations, steps, done } = &self.halt;
        let names = |operation| OPERATIONS.iter().find(|(other, _)| other == operation);
        let base = BASES.iter().find(|(other, _)| other == base).map_or("", |(_, name)| name);
        let operations: Vec<_> = operations.iter().filter_map(names).map(|(_, n)| *n).collect();
        let done = if *done { "done" } else { "not" };
        let kind = if self.kind == CrashKind::Kill { "killed" } else { "unpowered" };
        let ends: Vec<_> = self.ends.iter().map(ToString::to_string).collect();
        write!(f, "{base}:{}:{steps}:{done}:{kind}:{}", operations.join(","), ends.join("."))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [base, operations, steps, done, kind, ends] = parts[..] else {
            return Err("a case is BASE:OPERATIONS:STEPS:done|not:killed|unpowered:ENDS".into());
        };
        let named = |name: &str| {
            let found = OPERATIONS.iter().find(|(_, other)| *other == name);
            found.map(|(operation, _)| *operation).ok_or_else(|| format!("no operation {name}"))
        };
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        let base = BASES.iter().find(|(_, name)| *name == base).ok_or("no such base")?.0;
        let listed = |part: &&str| !part.is_empty();
        let halt = Halt {
            base,
            operations: operations
                .split(',')
                .filter(listed)
                .map(named)
                .collect::<Result<_, _>>()?,
            steps: steps.parse().map_err(|error| format!("{steps}: {error}"))?,
            done: done == "done",
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

/// A state that breaks a promise.
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
    operations: u32,
    most_failures: usize,
    next: AtomicUsize,
    seen: Seen,
    stopped: AtomicBool,
    totals: Mutex<Totals>,
    failures: Mutex<Vec<Failure>>,
    states: AtomicU64,
}

impl Enumeration {
    /// All sequences of up to so many operations; ends after so many failures.
    #[must_use]
    pub fn new(operations: u32, most_failures: usize) -> Self {
        Self {
            operations,
            most_failures,
            next: AtomicUsize::new(0),
            seen: Seen::new(),
            stopped: AtomicBool::new(false),
            totals: Mutex::default(),
            failures: Mutex::default(),
            states: AtomicU64::new(0),
        }
    }

    /// How many workloads there are.
    #[must_use]
    pub fn workloads(&self) -> usize {
        (0..=self.operations).map(|length| OPERATIONS.len().pow(length)).sum::<usize>()
            * BASES.len()
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
            let (base, operations) = workload(number);
            totals.workloads += 1;
            if let Err(failure) = self.workload(base, operations, &mut totals) {
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

    fn workload(
        &self,
        base: Base,
        operations: Vec<Operation>,
        totals: &mut Totals,
    ) -> Result<(), Box<Failure>> {
        let mut halt = Halt { base, operations, steps: u64::MAX, done: true };
        let failed = |halt: &Halt, violation| {
            let case = Case { halt: halt.clone(), kind: CrashKind::Kill, ends: Vec::new() };
            Box::new(Failure { case, violation })
        };
        let whole = Life::play(&halt).map_err(|violation| failed(&halt, violation))?;
        for steps in whole.last_began..=whole.disk.steps() {
            for done in [true, false] {
                (halt.steps, halt.done) = (steps, done);
                let life = Life::play(&halt).map_err(|violation| failed(&halt, violation))?;
                totals.halts += 1;
                if self.seen.is_new(life.fingerprint(None)) {
                    self.halted(&halt, &life, totals)?;
                }
            }
        }
        Ok(())
    }

    /// Goes through the ends of a halt.
    fn halted(&self, halt: &Halt, life: &Life, totals: &mut Totals) -> Result<(), Box<Failure>> {
        for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
            let open = life.disk.open_ends(kind);
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
                end.check(kind).map_err(|violation| {
                    let case = Case { halt: halt.clone(), kind, ends };
                    Box::new(Failure { case, violation })
                })?;
            }
        }
        Ok(())
    }
}

/// Plays one case; gives what it shows.
///
/// # Errors
/// The promise that it breaks.
pub fn play(case: &Case) -> Result<String, String> {
    let life = Life::play(&case.halt)?;
    let end = life.end(case.kind, &case.ends);
    let files: Vec<String> = end
        .disk
        .paths()
        .iter()
        .map(|path| format!("{} {} B\n", path.display(), end.disk.read_file(path).len()))
        .collect();
    let shown = end.check(case.kind).map_err(|violation| format!("{}{violation}", files.concat()));
    Ok(format!("{}{}", files.concat(), shown?))
}

/// The workload with a number: the shorter ones first.
fn workload(number: usize) -> (Base, Vec<Operation>) {
    let mut rest = number / BASES.len();
    let mut operations = Vec::new();
    let mut length = 0;
    while rest >= OPERATIONS.len().pow(length) {
        rest -= OPERATIONS.len().pow(length);
        length += 1;
    }
    for _ in 0..length {
        operations.push(OPERATIONS[rest % OPERATIONS.len()].0);
        rest /= OPERATIONS.len();
    }
    (BASES[number % BASES.len()].0, operations)
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

/// A machine with a log, what was promised of it, and where it is halted.
struct Life {
    disk: SimDisk,
    options: Options,
    model: Model,
    receipts: Vec<Receipt>,
    /// Set once a log was created: from then on there is one.
    exists: bool,
    /// The step at which the last operation began.
    last_began: u64,
    halt: (u64, bool),
}

impl Life {
    /// Plays a workload up to its halt, which comes at its end at the latest.
    fn play(halt: &Halt) -> Result<Self, Violation> {
        let config = SimConfig { late_completion_ppm: 0, ..SimConfig::default() };
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(RING_LEN)
            .method(halt.base.method)
            .depth(2)
            .balanced_max_unsynced(BALANCED_MAX_UNSYNCED)
            .lock_timeout(Duration::ZERO)
            .manual();
        let mut life = Self {
            disk: SimDisk::with_config(1, config),
            options,
            model: Model::default(),
            receipts: Vec::new(),
            exists: false,
            last_began: 0,
            halt: (halt.steps, halt.done),
        };
        life.begin(halt)?;
        life.disk.halt();
        Ok(life)
    }

    fn begin(&mut self, halt: &Halt) -> Result<(), Violation> {
        let Some(mut log) = self.open(None)? else { return Ok(()) };
        if halt.base.full {
            self.append(&log, &[NEARLY_A_SEGMENT], Level::Strict)?;
            if self.is_over(&log)? {
                return Ok(());
            }
        }
        for operation in &halt.operations {
            self.last_began = self.disk.steps();
            match self.operate(*operation, log)? {
                Some(goes_on) => log = goes_on,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Opens the log; `None` when the halt came.
    fn open(&mut self, killed: Option<u64>) -> Result<Option<Log>, Violation> {
        self.receipts.clear();
        let options = self.options.clone().io(self.disk.process());
        let (steps, done) = self.halt;
        if steps < u64::MAX {
            self.disk.halt_after(steps.saturating_sub(self.disk.steps()), done);
        }
        match open(Path::new(DIR), &options) {
            Ok(Opened { log, shown, report }) => {
                if self.exists && report.is_none() {
                    return Err("a log that was created is gone".to_owned());
                }
                self.exists = true;
                self.model.recovered(&shown, killed)?;
                Ok(Some(log))
            }
            Err(_) if self.disk.is_crashed() => Ok(None),
            Err(error) => Err(format!("open failed: {error}")),
        }
    }

    /// Gives the log with which the workload goes on, unless the halt came.
    fn operate(&mut self, operation: Operation, log: Log) -> Result<Option<Log>, Violation> {
        match operation {
            Operation::Append(size, level) => self.append(&log, size.lens(), level)?,
            Operation::Post(level) => {
                self.post(&log, Size::Small.lens(), level)?;
                log.step();
            }
            Operation::Sync => {
                let end = log.end();
                match log.sync() {
                    Ok(_) => self.model.all_durable(end),
                    Err(error) => self.done(Err(error))?,
                }
            }
            Operation::Idle => {
                self.disk.advance(2_000_000_000);
                while log.step() {}
                self.disk.advance(2_000_000_000);
                while log.step() {}
            }
            Operation::Rotate => {
                self.post(&log, &[NEARLY_A_SEGMENT], Level::Relaxed)?;
                self.append(&log, Size::Small.lens(), Level::Strict)?;
            }
            Operation::Purge => {
                self.model.purge_allowed(self.model.first_at_or_after(log.durable()));
                self.done(log.purge(log.durable()).map(drop))?;
            }
            Operation::Close | Operation::Kill | Operation::PowerLoss => {
                return self.reopen(operation, log);
            }
        }
        Ok(if self.is_over(&log)? { None } else { Some(log) })
    }

    fn reopen(&mut self, operation: Operation, log: Log) -> Result<Option<Log>, Violation> {
        let mut killed = None;
        match operation {
            Operation::Close => {
                let end = log.end();
                let closed = log.close();
                let is_closed = closed.is_ok();
                self.done(closed)?;
                if is_closed {
                    self.model.all_durable(end);
                }
            }
            Operation::Kill => {
                self.disk.kill();
                killed = Some(RING_LEN);
            }
            _ => {
                self.disk.drop_pending();
                self.model.power_lost();
            }
        }
        if operation == Operation::Close && self.disk.is_crashed() {
            return Ok(None);
        }
        self.open(killed)
    }

    fn append(&mut self, log: &Log, lens: &[usize], level: Level) -> Result<(), Violation> {
        let receipt = self.post(log, lens, level)?;
        self.done(receipt.map_or(Ok(()), |receipt| log.wait(receipt)))
    }

    fn post(
        &mut self,
        log: &Log,
        lens: &[usize],
        level: Level,
    ) -> Result<Option<Receipt>, Violation> {
        let first = self.model.entries.len();
        let batch: Vec<(u16, Vec<u8>)> = lens
            .iter()
            .enumerate()
            .map(|(index, len)| (1, vec![(first + index) as u8 ^ 0xA5; *len]))
            .collect();
        let entries: Vec<(u16, &[u8])> =
            batch.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        match log.append_batch(&entries, level) {
            Ok(receipt) => {
                self.model.appended(batch, receipt)?;
                self.receipts.push(receipt);
                Ok(Some(receipt))
            }
            Err(error) => self.done(Err(error)).map(|()| None),
        }
    }

    /// An error is only right when the halt came.
    fn done(&self, result: bulla_wal::Result<()>) -> Result<(), Violation> {
        match result {
            Err(error) if !self.disk.is_crashed() => Err(format!("unexpected error: {error:?}")),
            _ => Ok(()),
        }
    }

    /// Takes down what the log shows now; has the halt come?
    fn is_over(&mut self, log: &Log) -> Result<bool, Violation> {
        self.model.watermarks(log.written(), log.durable())?;
        for receipt in std::mem::take(&mut self.receipts) {
            match log.is_ready(receipt) {
                Ok(true) => self.model.ready(receipt, log.durable(), BALANCED_MAX_UNSYNCED)?,
                _ => self.receipts.push(receipt),
            }
        }
        Ok(self.disk.is_crashed())
    }

    /// Of the files, and of what was promised; the kind of crash decides what of that counts.
    fn fingerprint(&self, kind: Option<CrashKind>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let kind = kind.map(|kind| kind == CrashKind::Kill);
        (self.disk.fingerprint(), &self.model, self.exists, kind).hash(&mut hasher);
        // A log that is opened again is opened as it was.
        self.options.is_direct().hash(&mut hasher);
        hasher.finish()
    }

    /// One end of the halt.
    fn end(&self, kind: CrashKind, ends: &[usize]) -> Self {
        let mut model = self.model.clone();
        if kind == CrashKind::PowerLoss {
            model.power_lost();
        }
        Self {
            disk: self.disk.end(SEED_OF_ENDS, kind, ends),
            options: self.options.clone(),
            model,
            receipts: Vec::new(),
            exists: self.exists,
            last_began: 0,
            halt: (u64::MAX, true),
        }
    }

    /// Opens the log after a crash, compares, writes on; then all that is not durable is lost,
    /// and the log is opened and compared again. Gives what was shown.
    fn check(mut self, kind: CrashKind) -> Result<String, Violation> {
        let killed = (kind == CrashKind::Kill).then_some(RING_LEN);
        let log = self.open(killed)?.ok_or("there was no halt")?;
        let shown = format!("{} entries, end {}\n", self.model.entries.len(), log.end());
        self.append(&log, Size::Small.lens(), Level::Strict)?;
        self.is_over(&log)?;
        self.disk.drop_pending();
        self.model.power_lost();
        drop(log);
        self.open(None).map_err(|violation| format!("opened, and after that: {violation}"))?;
        Ok(shown)
    }
}

impl Size {
    /// Bytes of each entry.
    const fn lens(self) -> &'static [usize] {
        match self {
            Self::Small => &[100],
            Self::Batch => &[60, 60, 60],
            Self::Spanning => &[1_200],
        }
    }
}

/// Hashes of what was checked.
#[derive(Debug)]
struct Seen(Vec<Mutex<HashSet<u64>>>);

/// So many locks, so that threads seldom meet.
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
