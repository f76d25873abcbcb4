//! Workloads of the log, and what each of their ends must show.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use bulla_recovery::Recovery;
use bulla_storage::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{Level, Log as WalLog, Method, Options, Receipt};

use super::{Decoy, Halt, Life, Meddle, SEED_OF_ENDS, meddling, place};
use crate::model::{Model, Opened, Violation, open};

const DIR: &str = "/log";
const RING_LEN: u64 = 64 * 1024;
const BALANCED_MAX_UNSYNCED: u64 = 32 * 1024;
/// Leaves two sectors of the first segment.
const NEARLY_A_SEGMENT: usize = 14_200;

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
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
pub(super) enum Size {
    /// One entry in one sector.
    Small,
    /// Three entries in one sector.
    Batch,
    /// One entry over three sectors.
    Spanning,
}

/// Every operation, and its name.
pub(super) const OPERATIONS: [(Operation, &str); 18] = {
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
pub(super) struct Base {
    method: Method,
    /// The first segment has room for two more sectors, so that the next frames rotate it.
    full: bool,
}

/// Every base, and its name.
pub(super) const BASES: [(Base, &str); 4] = [
    (Base { method: Method::Direct, full: false }, "direct"),
    (Base { method: Method::Direct, full: true }, "direct-full"),
    (Base { method: Method::Buffered, full: false }, "buffered"),
    (Base { method: Method::Buffered, full: true }, "buffered-full"),
];

/// A machine with a log, what was acknowledged of it, and where it is halted.
pub(super) struct Log {
    disk: SimDisk,
    options: Options,
    model: Model,
    receipts: Vec<Receipt>,
    /// Set once a log was created: from then on there is one.
    exists: bool,
    /// The step at which the last operation began.
    last_began: u64,
    halt: (u64, bool),
    meddle: Option<Meddle>,
    /// The log into whose place it is moved, if it is.
    decoy: Decoy,
}

impl Log {
    /// Plays a workload up to its halt, which comes at its end at the latest.
    pub(super) fn play(halt: &Halt) -> Result<Self, Violation> {
        let config = SimConfig { late_completion_ppm: 0, ..SimConfig::default() };
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(RING_LEN)
            .method(BASES[halt.base].0.method)
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
            halt: (if halt.meddle.is_some() { u64::MAX } else { halt.steps }, halt.done),
            meddle: halt.meddle,
            decoy: Decoy::default(),
        };
        if halt.meddle.is_some() {
            life.decoy = Decoy::new(&life.disk)?;
        }
        life.begin(halt)?;
        life.disk.halt();
        Ok(life)
    }

    fn begin(&mut self, halt: &Halt) -> Result<(), Violation> {
        let Some(mut log) = self.open(None)? else { return Ok(()) };
        if BASES[halt.base].0.full {
            self.append(&log, &[NEARLY_A_SEGMENT], Level::Strict)?;
            if self.is_over(&log)? {
                return Ok(());
            }
        }
        if let Some(meddle) = self.meddle {
            let steps = halt.steps.saturating_sub(self.disk.steps());
            self.disk.meddle_after(steps, meddling(DIR, meddle));
        }
        for operation in &halt.operations {
            self.last_began = self.disk.steps();
            match self.operate(OPERATIONS[*operation].0, log)? {
                Some(goes_on) => log = goes_on,
                None => return Ok(()),
            }
        }
        if self.meddle == Some(Meddle::RemoveLock) && !self.disk.is_crashed() {
            let second =
                Recovery::run(Path::new(DIR), &self.options.clone().io(self.disk.process()));
            if !matches!(second, Err(bulla_wal::Error::Locked { .. })) {
                return Err(format!("a second writer was let in: {second:?}"));
            }
        }
        Ok(())
    }

    /// Opens the log; `None` when the halt came.
    fn open(&mut self, killed: Option<u64>) -> Result<Option<WalLog>, Violation> {
        self.receipts.clear();
        let options = self.options.clone().io(self.disk.process());
        let (steps, done) = self.halt;
        if steps < u64::MAX {
            self.disk.halt_after(steps.saturating_sub(self.disk.steps()), done);
        }
        match open(place(&self.disk, DIR, self.meddle), &options) {
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

    /// Returns the log with which the workload goes on, unless the halt came.
    fn operate(&mut self, operation: Operation, log: WalLog) -> Result<Option<WalLog>, Violation> {
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

    fn reopen(&mut self, operation: Operation, log: WalLog) -> Result<Option<WalLog>, Violation> {
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

    fn append(&mut self, log: &WalLog, lens: &[usize], level: Level) -> Result<(), Violation> {
        let receipt = self.post(log, lens, level)?;
        self.done(receipt.map_or(Ok(()), |receipt| log.wait(receipt)))
    }

    fn post(
        &mut self,
        log: &WalLog,
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
                let receipt = receipt.last();
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
    fn is_over(&mut self, log: &WalLog) -> Result<bool, Violation> {
        self.model.watermarks(log.written(), log.durable())?;
        for receipt in std::mem::take(&mut self.receipts) {
            match log.is_ready(receipt) {
                Ok(true) => self.model.ready(receipt, log.durable(), BALANCED_MAX_UNSYNCED)?,
                _ => self.receipts.push(receipt),
            }
        }
        Ok(self.disk.is_crashed())
    }
}

impl Life for Log {
    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn last_began(&self) -> u64 {
        self.last_began
    }

    fn fingerprint(&self, kind: Option<CrashKind>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let kind = kind.map(|kind| kind == CrashKind::Kill);
        (self.disk.fingerprint(), &self.model, self.exists, kind).hash(&mut hasher);
        // A log that is opened again is opened as it was.
        self.options.is_direct().hash(&mut hasher);
        hasher.finish()
    }

    fn decoy(&self, disk: &SimDisk) -> Result<(), Violation> {
        if self.meddle != Some(Meddle::Swap) || self.decoy.is_intact(disk, DIR) {
            return Ok(());
        }
        Err("the log that was moved into its place is not as it was".to_owned())
    }

    fn end(&self, kind: CrashKind, ends: &[usize]) -> Box<dyn Life> {
        let mut model = self.model.clone();
        if kind == CrashKind::PowerLoss {
            model.power_lost();
        }
        Box::new(Self {
            disk: self.disk.end(SEED_OF_ENDS, kind, ends),
            options: self.options.clone(),
            model,
            receipts: Vec::new(),
            exists: self.exists,
            last_began: 0,
            halt: (u64::MAX, true),
            meddle: self.meddle,
            decoy: Decoy::default(),
        })
    }

    /// Opens the log after a crash, compares, writes on; then all that is not durable is lost,
    /// and the log is opened and compared again. Returns what was shown.
    fn check(mut self: Box<Self>, kind: CrashKind) -> Result<String, Violation> {
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
