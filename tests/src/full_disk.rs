//! Full disks: a log and a store lack space at every step of what they do, once or until space is
//! freed. Every refusal is typed, nothing acknowledged is lost, the log can be read, purged and
//! closed, and all goes on once there is space. And purges without an open, cut short at every step.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_engine::{CheckpointError, Store, StoreOptions, Token, TokenId};
use bulla_recovery::Inspection;
use bulla_storage::io::sim::{CrashKind, FaultOp, SimCounts, SimDisk};
use bulla_wal::{Error, Level, Log, Lsn, Options, Position, Range, Seq};

const DIR: &str = "/log";
const PAYLOAD_LEN: usize = 600;
/// Entries that fill a few segments.
const ENTRIES: u64 = 40;
/// Capacities that are tried, a sector apart.
const SPACES: u64 = 200;
/// An operation is tried so often once there is space.
const MAX_TRIES: u32 = 5;
/// Ends of each crash.
const OUTCOMES: u64 = 4;
/// Entries that no durable mark covers: they fill another segment.
const UNMARKED: u64 = 20;
/// After this many appends the log is purged.
const PURGE_AFTER: u64 = 30;
/// Tokens that fill a few segments.
const TOKENS: u32 = 100;
/// After these many puts a checkpoint is taken; after the second one the log is purged.
const CHECKPOINT_AFTER: u32 = 20;
const PURGE_AFTER_TOKENS: u32 = 70;

type Count = fn(&SimCounts) -> u64;

/// Operations that may lack space, and how many there were.
const OPS: [(FaultOp, Count); 7] = [
    (FaultOp::Create, |counts| counts.creates),
    (FaultOp::Preallocate, |counts| counts.preallocates),
    (FaultOp::Write, |counts| counts.writes + counts.dsync_writes),
    (FaultOp::Sync, |counts| counts.syncs),
    (FaultOp::Rename, |counts| counts.renames),
    (FaultOp::SyncDir, |counts| counts.dir_syncs),
    (FaultOp::Unlink, |counts| counts.unlinks),
];

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.read_file(&path))).collect()
}

/// What was refused, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Refused {
    opens: u32,
    operations: u32,
    poisoned: u32,
}

impl Refused {
    fn add(&mut self, other: &Self) {
        self.opens += other.opens;
        self.operations += other.operations;
        self.poisoned += other.poisoned;
    }

    /// Fails when one of them was never met: then the suite shows less than it says.
    fn check(&self) -> Result<(), String> {
        if self.opens == 0 || self.operations == 0 || self.poisoned == 0 {
            return Err(format!("not everything was refused: {self:?}"));
        }
        Ok(())
    }
}

/// A log on a disk.
struct LogWorld {
    disk: SimDisk,
    /// Number of the next entry.
    next: u64,
    /// Entries that were acknowledged as durable.
    acknowledged: u64,
    refused: Refused,
}

fn payload(seq: u64) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_LEN];
    payload[..8].copy_from_slice(&seq.to_le_bytes());
    payload
}

impl LogWorld {
    /// A log that was killed. No durable mark covers its last entries.
    fn new(seed: u64) -> Result<Self, String> {
        let disk = SimDisk::new(seed);
        let mut world = Self { disk, next: 1, acknowledged: 0, refused: Refused::default() };
        let log = Log::create(DIR, &world.options()).map_err(text)?;
        for _ in 0..ENTRIES {
            world.append(&log).map_err(text)?;
        }
        for seq in world.next..world.next + UNMARKED {
            let receipt = log.append_with(1, &payload(seq), Level::Balanced).map_err(text)?;
            log.wait(receipt).map_err(text)?;
        }
        world.disk.kill();
        drop(log);
        Ok(world)
    }

    fn fork(&self, seed: u64) -> Self {
        let disk = self.disk.fork(seed);
        disk.kill();
        Self { disk, ..*self }
    }

    fn options(&self) -> Options {
        Options::simulated(&self.disk)
    }

    /// Appends one entry and waits until it is durable.
    fn append(&mut self, log: &Log) -> Result<(), Error> {
        let receipt = log.append_with(1, &payload(self.next), Level::Strict)?;
        self.next += 1;
        log.wait(receipt)?;
        self.acknowledged = receipt.seq.0;
        Ok(())
    }

    /// Opens the log; where that is refused, it checks what the refusal says, and calls `make_room`.
    fn open(&mut self, make_room: impl Fn(&SimDisk)) -> Result<Log, String> {
        for _ in 0..MAX_TRIES {
            let before = files(&self.disk);
            match Log::open(DIR, &self.options()) {
                Ok((log, report)) => {
                    self.next = report.next_seq.0;
                    if report.next_seq.0 <= self.acknowledged {
                        return Err(format!("entry {} is lost", report.next_seq));
                    }
                    return Ok(log);
                }
                Err(Error::NoSpaceToOpen { .. }) => {
                    self.refused.opens += 1;
                    self.read()?;
                    is_unchanged(&before, &files(&self.disk))?;
                    make_room(&self.disk);
                }
                Err(error) => return Err(format!("an open is refused with {error:?}")),
            }
        }
        Err("no open succeeds".to_owned())
    }

    /// Reads the log without its lock: nothing acknowledged is missing.
    fn read(&self) -> Result<(), String> {
        let inspection = Inspection::read(Path::new(DIR), &self.options()).map_err(text)?;
        let mut next = inspection.report().first_seq.0;
        let stats = inspection
            .replay(Range::ALL, |entry| {
                if entry.seq != Seq(next) || entry.payload != payload(next) {
                    return ControlFlow::Break(());
                }
                next += 1;
                ControlFlow::Continue(())
            })
            .map_err(text)?;
        if stats.stopped {
            Err(format!("something else is in the place of entry {next}"))
        } else if next <= self.acknowledged {
            Err(format!("{} entries were acknowledged, {} are left", self.acknowledged, next - 1))
        } else {
            Ok(())
        }
    }

    /// Appends until the log lacks space; returns whether that happened within `count` entries.
    fn fill(&mut self, log: &Log, count: u64) -> Result<bool, String> {
        for _ in 0..count {
            match self.append(log) {
                Ok(()) => {}
                Err(Error::NoSpace(_)) => {
                    self.refused.operations += 1;
                    return Ok(true);
                }
                Err(error) => return Err(format!("an append is refused with {error:?}")),
            }
        }
        Ok(false)
    }

    /// Does everything that a log does. What fails for lack of space is typed, and works when it
    /// is tried again: in the same log, unless that is poisoned.
    fn live(&mut self) -> Result<(), String> {
        let mut log = self.open(|_| {})?;
        let (mut done, mut tries) = (0, 0);
        while done < ENTRIES {
            let failed = match done {
                PURGE_AFTER => log.purge(log.durable()).map(drop),
                _ => self.append(&log),
            };
            match failed {
                Ok(()) => done += 1,
                Err(error) if error.is_out_of_space() => {
                    self.refused.operations += 1;
                }
                Err(Error::Poisoned { cause, .. }) if is_space(cause.as_ref()) => {
                    self.refused.poisoned += 1;
                    drop(log);
                    log = self.open(|_| {})?;
                }
                Err(error) => return Err(format!("operation {done} fails with {error:?}")),
            }
            tries += 1;
            if tries > ENTRIES + u64::from(MAX_TRIES) {
                return Err("it does not go on although there is space".to_owned());
            }
        }
        match log.close() {
            Ok(()) => Ok(()),
            Err(Error::Poisoned { cause, .. }) if is_space(cause.as_ref()) => {
                self.refused.poisoned += 1;
                Ok(())
            }
            Err(error) => Err(format!("a close fails with {error:?}")),
        }
    }

    /// Cuts the power, and opens once more: all that was acknowledged is there.
    fn end(&mut self) -> Result<(), String> {
        self.disk.power_loss();
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        drop(self.open(|_| {})?);
        self.read()
    }
}

/// Returns whether an error has a lack of space among its sources.
fn is_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == ErrorKind::StorageFull) {
            return true;
        }
        at = error.source();
    }
    false
}

/// An open that is refused has changed no segment, and leaves none half made.
fn is_unchanged(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<(), String> {
    let is = |path: &Path, end| path.extension().is_some_and(|extension| extension == end);
    let mut segments = before.iter().filter(|(path, _)| is(path, "seg"));
    if let Some((path, _)) = segments.find(|(path, bytes)| after.get(*path) != Some(bytes)) {
        return Err(format!("a refused open changed {}", path.display()));
    }
    match after.keys().find(|path| is(path, "tmp")) {
        Some(path) => Err(format!("a refused open left {}", path.display())),
        None => Ok(()),
    }
}

/// One operation at a time lacks space, each once: while a log is opened, appends, purges, and
/// closes.
///
/// # Errors
/// What is refused without saying so, lost, or does not go on.
pub fn log_lacks_space_at_any_step() -> Result<(), String> {
    let base = LogWorld::new(1)?;
    let mut seen = Refused::default();
    for (op, count) in OPS {
        let mut whole = base.fork(1);
        let before = count(&whole.disk.counts());
        whole.live()?;
        let steps = count(&whole.disk.counts()) - before;
        for step in 0..steps {
            let mut world = base.fork(step);
            world.disk.fail_next(op, ErrorKind::StorageFull, "", step);
            let life = world.live().and_then(|()| world.end());
            life.map_err(|error| format!("I45: {op:?} {step} lacks space: {error}"))?;
            seen.add(&world.refused);
        }
    }
    seen.check()
}

/// A disk of every size from full to roomy, until space is freed: the log can be read and purged
/// whether it opens or not, and closed if it does.
///
/// # Errors
/// What can't be done, is refused without saying so, or is lost.
pub fn log_on_a_full_disk_is_read_purged_and_closed() -> Result<(), String> {
    let base = LogWorld::new(2)?;
    let used: usize = files(&base.disk).values().map(Vec::len).sum();
    let mut seen = Refused::default();
    let mut opened_after_purge = 0;
    for sectors in 0..SPACES {
        let mut world = base.fork(sectors);
        let capacity = used as u64 + sectors * 512;
        world.disk.set_capacity(Some(capacity.saturating_sub(SPACES / 2 * 512)));
        let life = live_on_full_disk(&mut world).and_then(|()| world.end());
        life.map_err(|error| format!("I45: {sectors} sectors are free: {error}"))?;
        seen.opens += world.refused.opens;
        seen.operations += world.refused.operations;
        opened_after_purge += u32::from(world.refused.opens == 1);
    }
    if seen.opens == 0 || seen.operations == 0 || opened_after_purge == 0 {
        return Err(format!("not everything was seen: {seen:?}, {opened_after_purge}"));
    }
    Ok(())
}

fn live_on_full_disk(world: &mut LogWorld) -> Result<(), String> {
    let tries = std::cell::Cell::new(0);
    let options = world.options();
    let log = world.open(|disk| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            let purged = bulla_recovery::purge(DIR, Position::End, &options);
            assert!(!purged.expect("a full disk stops no purge").segments.is_empty());
        } else {
            disk.set_capacity(None);
        }
    })?;
    // The disk is never so large.
    const MANY: u64 = 2 * SPACES;
    if tries.get() < 2 {
        for purges in [true, false] {
            if !world.fill(&log, MANY)? {
                return Err("the disk is never full".to_owned());
            }
            world.read()?;
            let before = log.low_water();
            if purges && log.purge(log.durable()).map_err(text)? <= before {
                return Err("a purge on a full disk removes nothing".to_owned());
            }
        }
    }
    log.close().map_err(|error| format!("a close on a full disk fails with {error:?}"))
}

/// A purge of a log that is not open is cut short at every step. What it was to keep stays, and it
/// keeps what is not known to be durable.
///
/// # Errors
/// What it took.
pub fn purge_of_a_log_is_cut_short_at_every_step() -> Result<(), String> {
    let base = LogWorld::new(3)?;
    for keep_from in [Position::from(Seq(20)), Position::End] {
        each_crash(|step, outcome, kind| {
            let mut world = base.fork(outcome);
            let look =
                |world: &LogWorld| Inspection::read(Path::new(DIR), &world.options()).map_err(text);
            let expected = look(&world)?.preview_purge(keep_from, &[]).map_err(text)?.first_seq;
            world.disk.crash_after(step, kind);
            let purged = bulla_recovery::purge(DIR, keep_from, &world.options());
            let is_struck = world.disk.is_crashed();
            world.disk.disarm();
            world.disk.power_loss();
            let failed = |error: String| format!("I46: {kind:?} at step {step}: {error}");
            drop(world.open(|_| {}).map_err(failed)?);
            world.read().map_err(failed)?;
            let found = look(&world)?.report().first_seq;
            if let Position::Seq(kept) = keep_from
                && found > kept
            {
                return Err(failed(format!("the log starts with entry {found}")));
            }
            if found != expected && (purged.is_ok() || found != Seq(1)) {
                let purged = format!("the log starts with entry {found}, not {expected}");
                return Err(failed(purged));
            }
            Ok(is_struck)
        })?;
    }
    Ok(())
}

/// Calls `at` with each step, each of its outcomes, and each kind of crash, until none is struck.
fn each_crash(
    mut at: impl FnMut(u64, u64, CrashKind) -> Result<bool, String>,
) -> Result<(), String> {
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        for step in 0.. {
            let mut is_struck = false;
            for outcome in 0..OUTCOMES {
                is_struck |= at(step, outcome, kind)?;
            }
            if !is_struck {
                break;
            }
        }
    }
    Ok(())
}

/// A store on a disk.
struct StoreWorld {
    disk: SimDisk,
    /// Tokens with a lower id were acknowledged as durable; the next one has this id.
    next: u32,
    refused: Refused,
}

fn token(id: u32) -> Token {
    Token::builder(TokenId(id)).weight((id % 100) as f32).build().expect("in range")
}

impl StoreWorld {
    /// A store that was killed, with some checkpoints and its whole log.
    fn new(seed: u64, checkpoints: u32) -> Result<Self, String> {
        let disk = SimDisk::new(seed);
        let mut world = Self { disk, next: 1, refused: Refused::default() };
        let store = Store::open(DIR, &world.options().keep_log(true)).map_err(text)?;
        world.fill(&store)?;
        for _ in 0..checkpoints {
            store.checkpoint().map_err(text)?;
            world.fill(&store)?;
        }
        world.disk.kill();
        drop(store);
        Ok(world)
    }

    fn fork(&self, seed: u64) -> Self {
        let disk = self.disk.fork(seed);
        disk.kill();
        Self { disk, ..*self }
    }

    fn log_options(&self) -> Options {
        Options::simulated(&self.disk)
    }

    fn options(&self) -> StoreOptions {
        StoreOptions::new().log(self.log_options()).checkpoint_close_bytes(None)
    }

    fn put(&mut self, store: &Store) -> bulla_engine::Result<()> {
        store.at(Level::Strict).put(&token(self.next))?;
        self.next += 1;
        Ok(())
    }

    fn fill(&mut self, store: &Store) -> Result<(), String> {
        (0..TOKENS).try_for_each(|_| self.put(store)).map_err(text)
    }

    fn check(&self, store: &Store) -> Result<(), String> {
        let mut next = 1;
        for found in store.iter().map_err(text)? {
            if found != token(next) {
                return Err(format!("{found:?} is in the place of token {next}"));
            }
            next += 1;
        }
        if next < self.next {
            return Err(format!("tokens below {} were acknowledged, {next} is lost", self.next));
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Store, String> {
        for _ in 0..MAX_TRIES {
            match Store::open(DIR, &self.options()) {
                Ok(store) => {
                    self.check(&store)?;
                    return Ok(store);
                }
                Err(bulla_engine::Error::Log(Error::NoSpaceToOpen { .. })) => {
                    self.refused.opens += 1;
                }
                Err(error) => return Err(format!("an open is refused with {error:?}")),
            }
        }
        Err("no open succeeds".to_owned())
    }

    /// Does everything that a store does, and purges its log once it is closed.
    fn live(&mut self) -> Result<(), String> {
        let mut store = self.open()?;
        let (mut done, mut tries) = (0, 0);
        while done < TOKENS {
            let result = match done {
                PURGE_AFTER_TOKENS | CHECKPOINT_AFTER => store.checkpoint().map(drop),
                _ => self.put(&store),
            };
            match result {
                Ok(()) => done += 1,
                Err(error) if is_poison(&error) => {
                    self.refused.poisoned += 1;
                    drop(store);
                    store = self.open()?;
                }
                Err(error) if is_space(&error) => self.refused.operations += 1,
                Err(bulla_engine::Error::Checkpoint(CheckpointError::Unsynced { .. })) => {
                    drop(store);
                    store = self.open()?;
                }
                Err(error) => return Err(format!("operation {done} fails with {error:?}")),
            }
            tries += 1;
            if tries > TOKENS + MAX_TRIES {
                return Err("it does not go on although there is space".to_owned());
            }
        }
        match store.close() {
            Err(error) if !is_poison(&error) => {
                return Err(format!("a close fails with {error:?}"));
            }
            closed => self.refused.poisoned += u32::from(closed.is_err()),
        }
        drop(store);
        for _ in 0..MAX_TRIES {
            match bulla_engine::purge(DIR, Position::End, &self.log_options()) {
                Ok(_) => return Ok(()),
                Err(bulla_engine::Error::Log(error)) if error.is_out_of_space() => {
                    self.refused.operations += 1;
                }
                Err(error) => return Err(format!("a purge is refused with {error:?}")),
            }
        }
        Err("no purge succeeds".to_owned())
    }

    /// The store opens, and shows everything, whichever one of its checkpoints is damaged.
    fn check_each_checkpoint_spared(&self) -> Result<(), String> {
        let is_checkpoint =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ckpt");
        for path in self.disk.paths().into_iter().filter(is_checkpoint) {
            let mut world = self.fork(1);
            world.disk.flip(&path, 60, 1);
            drop(world.open().map_err(|error| format!("without {}: {error}", path.display()))?);
        }
        Ok(())
    }
}

fn is_poison(error: &bulla_engine::Error) -> bool {
    matches!(error, bulla_engine::Error::Log(Error::Poisoned { cause, .. })
        if is_space(cause.as_ref()))
}

/// One operation at a time lacks space, each once: while a store is opened, changed, checkpointed,
/// purged and closed, and while its log is purged after that.
///
/// # Errors
/// What is refused without saying so, lost, or does not go on.
pub fn store_lacks_space_at_any_step() -> Result<(), String> {
    let base = StoreWorld::new(4, 1)?;
    let mut seen = Refused::default();
    for (op, count) in OPS {
        let mut whole = base.fork(1);
        let before = count(&whole.disk.counts());
        whole.live()?;
        let steps = count(&whole.disk.counts()) - before;
        for step in 0..steps {
            let mut world = base.fork(step);
            world.disk.fail_next(op, ErrorKind::StorageFull, "", step);
            let failed = |error| format!("I45: {op:?} {step} lacks space: {error}");
            world.live().map_err(failed)?;
            world.disk.clear_faults();
            world.disk.power_loss();
            drop(world.open().map_err(failed)?);
            world.disk.power_loss();
            world.check_each_checkpoint_spared().map_err(failed)?;
            seen.add(&world.refused);
        }
    }
    seen.check()
}

/// A purge of a store that is not open is cut short at every step: the store opens from either of
/// its checkpoints.
///
/// # Errors
/// What it took.
pub fn purge_of_a_store_is_cut_short_at_every_step() -> Result<(), String> {
    let base = StoreWorld::new(5, 3)?;
    let first = |world: &StoreWorld| -> Result<Lsn, String> {
        let look = Inspection::read(Path::new(DIR), &world.log_options()).map_err(text)?;
        Ok(look.report().first_lsn)
    };
    each_crash(|step, outcome, kind| {
        let world = base.fork(outcome);
        world.disk.crash_after(step, kind);
        let purged = bulla_engine::purge(DIR, Position::End, &world.log_options());
        let is_struck = world.disk.is_crashed();
        world.disk.disarm();
        world.disk.power_loss();
        let failed = |error: String| format!("I46: {kind:?} at step {step}: {error}");
        if purged.is_ok() && first(&world)? == Lsn(0) {
            return Err(failed("nothing was purged".to_owned()));
        }
        world.check_each_checkpoint_spared().map_err(failed)?;
        drop(world.fork(1).open().map_err(failed)?);
        Ok(is_struck)
    })
}
