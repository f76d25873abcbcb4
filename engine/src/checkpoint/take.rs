//! Taking checkpoints: when one is due, and the order of its steps.
//!
//! Owns that order: the pages of a snapshot, a durable mark of its position in the log, the name,
//! then the purge of what neither this checkpoint nor the one before needs.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::ThreadId;
use std::time::Duration;

use bulla_storage::files::dir::Directory;
use bulla_storage::io::Io;
use bulla_wal::{Log, Lsn};

use super::error::CheckpointError;
use super::files::{CheckpointDir, name_of, remove, temporary_name_of};
use super::format::Head;
use super::open::{CheckpointInfo, Choice};
use super::reserve::set_reserve;
use super::write::{Writer, Written};
use crate::error::{Error, Result};
use crate::faults::publish::publish;
use crate::faults::{self, Failpoint, skip};
use crate::options::Triggers;
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::state::{LOAD_THREADS, State};
use crate::sync::lock;
use crate::table::PageId;

/// Checkpoints in use: the newest, and one in case it is damaged.
const MAX_IN_USE: usize = 2;
/// How long after a failed checkpoint the next one is due at the earliest.
const RETRY_NS: u64 = 5_000_000_000;

/// Statistics of a store's checkpoints since it opened.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CheckpointStats {
    /// Checkpoints that were taken.
    pub taken: u64,
    /// Checkpoints that failed.
    pub failed: u64,
    /// Why the last one failed, or what failed after it; `None` after a success.
    pub last_error: Option<String>,
    /// The newest, which may be older than the open.
    pub newest: Option<CheckpointInfo>,
    /// How long the last success took; `None` before the first.
    pub last_duration: Option<Duration>,
    /// Bytes of disk that are reserved for a checkpoint on a full disk.
    pub reserved_bytes: u64,
    /// Slabs (of 32,768 ids) that are still only in the checkpoint: nothing has accessed them.
    pub waiting_slabs: u64,
    /// Slabs that were damaged and rebuilt from the older checkpoint and the log.
    pub rebuilt_slabs: u64,
}

/// Takes checkpoints of a store.
#[derive(Debug)]
pub(crate) struct Checkpoints<R: Record> {
    state: Arc<State<R>>,
    log: Arc<Log>,
    io: Arc<dyn Io>,
    /// `None` once the store is closed.
    dir: Mutex<Option<CheckpointDir>>,
    direct: bool,
    triggers: Triggers,
    /// Locked while one is taken.
    taken: Mutex<Taken>,
    /// The thread that takes one.
    taker: Mutex<Option<ThreadId>>,
    schedule: Mutex<Schedule>,
}

/// The checkpoints that were taken.
#[derive(Debug)]
struct Taken {
    /// The newest first; at most [`MAX_IN_USE`].
    in_use: Vec<Head>,
    next_number: u64,
    /// The store's directory could not be synced. That is not tried again: a second sync may
    /// report success for a name that is lost.
    unsynced: bool,
}

/// What decides whether a checkpoint is due, and the statistics.
#[derive(Debug)]
struct Schedule {
    /// The log below it needs no replay.
    lsn: Lsn,
    /// Entries that had been appended when the last one was taken; `None` if changes from before
    /// the open are in no checkpoint.
    entries: Option<u64>,
    at_ns: u64,
    not_before_ns: u64,
    stats: CheckpointStats,
}

/// Says which thread takes a checkpoint, until it is dropped.
struct Taker<'a>(&'a Mutex<Option<ThreadId>>);

impl<'a> Taker<'a> {
    fn new(taker: &'a Mutex<Option<ThreadId>>) -> Self {
        *lock(taker) = Some(std::thread::current().id());
        Self(taker)
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

/// What a store found when it opened.
pub(crate) struct Found {
    pub(crate) in_use: Vec<Head>,
    pub(crate) highest: u64,
    /// Where the log begins.
    pub(crate) first: Lsn,
    /// Whether anything was replayed.
    pub(crate) replayed: bool,
}

impl Found {
    pub(crate) fn new(choice: &Choice, first: Lsn) -> Self {
        Self { in_use: choice.in_use(), highest: choice.highest, first, replayed: false }
    }

    /// Returns what a store that was just created finds.
    pub(crate) fn nothing() -> Self {
        Self { in_use: Vec::new(), highest: 0, first: Lsn::ZERO, replayed: false }
    }
}

impl<R: Record> Checkpoints<R> {
    pub(crate) fn new(
        (state, log): (&Arc<State<R>>, &Arc<Log>),
        (io, store): (&Arc<dyn Io>, &Directory),
        direct: bool,
        triggers: Triggers,
        found: Found,
    ) -> Self {
        let newest = found.in_use.first();
        let schedule = Schedule {
            lsn: newest.map_or(found.first, |head| head.anchor.upto),
            entries: (!found.replayed).then_some(0),
            at_ns: io.now_ns(),
            not_before_ns: 0,
            stats: CheckpointStats { newest: newest.map(Into::into), ..Default::default() },
        };
        let checkpoints = Self {
            state: Arc::clone(state),
            log: Arc::clone(log),
            io: Arc::clone(io),
            dir: Mutex::new(Some(CheckpointDir::of(store))),
            direct,
            triggers,
            taken: Mutex::new(Taken {
                in_use: found.in_use,
                next_number: found.highest + 1,
                unsynced: false,
            }),
            taker: Mutex::new(None),
            schedule: Mutex::new(schedule),
        };
        let dir = CheckpointDir::of(store);
        // A crash may have undone their removal. They cost nothing but space.
        let _ = checkpoints.remove_old(&dir);
        checkpoints.update_reserve(&dir);
        checkpoints
    }

    /// Takes no checkpoint from here on, and releases the directory. On return no other thread
    /// takes one: the lock of the log, which keeps other writers away, may go.
    pub(crate) fn release(&self) {
        *lock(&self.dir) = None;
        // A task that this thread woke while it takes one may close the store. Then it touches
        // no file of a checkpoint any more.
        if *lock(&self.taker) != Some(std::thread::current().id()) {
            drop(lock(&self.taken));
        }
    }

    /// Fails once the log has released its lock: another writer may have the directory.
    fn check_open(&self) -> Result<()> {
        self.log.directory().map(drop).map_err(|_| Error::Closed)
    }

    /// Takes a checkpoint now; returns the newest one if nothing has changed since.
    ///
    /// # Errors
    /// [`Error::Closed`], and those of a checkpoint that fails.
    pub(crate) fn take(&self) -> Result<CheckpointInfo> {
        self.take_next(lock(&self.taken))
    }

    /// Takes a checkpoint unless one is being taken. An error is in the statistics.
    fn try_take(&self) {
        let taken = match self.taken.try_lock() {
            Ok(taken) => taken,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Perhaps by this thread, if a task that it woke closes the store.
            Err(TryLockError::WouldBlock) => return,
        };
        let _ = self.take_next(taken);
    }

    fn take_next(&self, mut taken: MutexGuard<'_, Taken>) -> Result<CheckpointInfo> {
        let dir = lock(&self.dir).clone().ok_or(Error::Closed)?;
        // The entry of a change that returned before this call is counted.
        let entries = self.log.stats().entries;
        if lock(&self.schedule).entries == Some(entries)
            && let Some(newest) = taken.in_use.first()
        {
            return Ok(newest.into());
        }
        let _taker = Taker::new(&self.taker);
        let begun = self.io.now_ns();
        let result = self.state.panics.watch(|| self.take_one(&dir, &mut taken));
        // A log that closes meanwhile marks nothing any more.
        let result = result.map_err(|error| self.check_open().err().unwrap_or(error));
        let mut schedule = lock(&self.schedule);
        (schedule.at_ns, schedule.not_before_ns) = (self.io.now_ns(), 0);
        let duration = Duration::from_nanos(schedule.at_ns.saturating_sub(begun));
        match &result {
            Ok(head) => {
                (schedule.lsn, schedule.entries) = (head.anchor.upto, Some(entries));
                schedule.stats.taken += 1;
                schedule.stats.last_error = None;
                schedule.stats.last_duration = Some(duration);
                schedule.stats.newest = Some(head.into());
            }
            Err(error) => {
                schedule.not_before_ns = schedule.at_ns.saturating_add(RETRY_NS);
                schedule.stats.failed += 1;
                schedule.stats.last_error = Some(chain_of(error));
            }
        }
        drop(schedule);
        let head = result?;
        if let Err(error) = self.remove_superseded(&dir, &taken.in_use) {
            lock(&self.schedule).stats.last_error = Some(chain_of(&error));
            return Err(error);
        }
        self.update_reserve(&dir);
        Ok((&head).into())
    }

    fn take_one(&self, dir: &CheckpointDir, taken: &mut Taken) -> Result<Head> {
        self.create_dir(dir, taken)?;
        self.state.load_all(LOAD_THREADS)?;
        let snapshot = self.state.snapshot(&self.log)?;
        self.check_open()?;
        let number = taken.next_number;
        let written = match self.write(dir, Writer::create, number, &snapshot) {
            Err(error) if is_out_of_space(&error) => {
                self.write_in_reserve(dir, number, &snapshot)?.ok_or(error)?
            }
            written => written?,
        };
        drop(snapshot);
        // No name is used twice, not even that of a checkpoint whose rename may have failed.
        taken.next_number += 1;
        let path = dir.path_of(number);
        let head =
            publish(written, dir, &taken.in_use).map_err(CheckpointError::io("publish", path))?;
        taken.in_use.insert(0, head);
        taken.in_use.truncate(MAX_IN_USE);
        Ok(head)
    }

    /// Creates the directory, durably in that of the store.
    fn create_dir(&self, dir: &CheckpointDir, taken: &mut Taken) -> Result<()> {
        if lock(&self.schedule).stats.newest.is_none() {
            if taken.unsynced {
                return Err(
                    CheckpointError::Unsynced { path: dir.store().path().to_owned() }.into()
                );
            }
            dir.create().map_err(CheckpointError::io("create", &dir.path))?;
            if !skip(Failpoint::CheckpointFolderSync) {
                dir.store().sync().inspect_err(|_| taken.unsynced = true)?;
            }
        }
        Ok(())
    }

    /// Writes a snapshot. On return the file is durable, and so is a mark in the log that its
    /// position is durable, but it has no name yet.
    fn write(
        &self,
        dir: &CheckpointDir,
        create: impl FnOnce(&CheckpointDir, u64, bool) -> io::Result<Writer>,
        number: u64,
        snapshot: &Snapshot<R>,
    ) -> Result<Written> {
        let path = dir.path.join(temporary_name_of(number));
        let mut writer =
            create(dir, number, self.direct).map_err(CheckpointError::io("create", &path))?;
        let written = self.fill(&mut writer, &path, snapshot);
        if written.is_err() && self.check_open().is_ok() {
            // The first error is returned; the next open removes the file.
            let _ = writer.abandon();
        }
        written
    }

    fn write_in_reserve(
        &self,
        dir: &CheckpointDir,
        number: u64,
        snapshot: &Snapshot<R>,
    ) -> Result<Option<Written>> {
        let path = dir.path.join(temporary_name_of(number));
        let writer = Writer::in_reserve(dir, number, self.direct)
            .map_err(CheckpointError::io("create", &path))?;
        let write = |writer| self.write(dir, |_, _, _| Ok(writer), number, snapshot);
        writer.map(write).transpose()
    }

    fn fill(&self, writer: &mut Writer, path: &Path, snapshot: &Snapshot<R>) -> Result<Written> {
        let mut records = Vec::new();
        let mut next = Some(PageId::FIRST);
        while let Some(from) = next {
            let Some(page) = snapshot.copy_from(from, &mut records)? else { break };
            writer.push(page, &records).map_err(CheckpointError::io("write", path))?;
            next = page.next();
        }
        let lsn = snapshot.lsn();
        if !skip(Failpoint::CheckpointMark) {
            let durable_mark = self.log.persist_durable_mark(lsn)?;
            if durable_mark < lsn {
                return Err(CheckpointError::NotMarked { lsn, durable_mark }.into());
            }
        }
        let upto = faults::checkpoint::upto(lsn, || self.log.durable());
        let anchor = self.log.anchor(upto)?;
        self.check_open()?;
        let written = writer.finish(self.io.wall_ns(), anchor);
        Ok(written.map_err(CheckpointError::io("write", path))?)
    }

    /// Removes what the checkpoints in use do not need: others, and the log before both.
    fn remove_superseded(&self, dir: &CheckpointDir, in_use: &[Head]) -> Result<()> {
        let in_use = faults::checkpoint::in_use(in_use);
        let [newest, older] = &*in_use else { return Ok(()) };
        let purged = match self.triggers.keep_log {
            true => Ok(self.log.low_water()),
            false => self.log.purge_before(&faults::checkpoint::needed(newest, older).anchor),
        };
        self.check_open()?;
        // Whatever keeps the log from being purged: they would fill the disk.
        self.remove(dir, |number| in_use.iter().all(|head| head.number != number))?;
        Ok(purged.map(drop)?)
    }

    /// Removes checkpoints older than the two in use.
    fn remove_old(&self, dir: &CheckpointDir) -> Result<()> {
        let taken = lock(&self.taken);
        let [_, older] = &taken.in_use[..] else { return Ok(()) };
        self.remove(dir, |number| number < older.number)
    }

    fn remove(&self, dir: &CheckpointDir, is_superseded: impl Fn(u64) -> bool) -> Result<()> {
        let listing = dir.list().map_err(CheckpointError::io("list", &dir.path))?;
        for number in listing.numbers.into_iter().filter(|number| is_superseded(*number)) {
            let removed = dir.open().and_then(|open| remove(open.as_ref(), &name_of(number)));
            removed.map_err(CheckpointError::io("remove", dir.path_of(number)))?;
        }
        Ok(())
    }

    /// Reserves the space that the options ask for, if there is room, and notes how much that is.
    fn update_reserve(&self, dir: &CheckpointDir) {
        let wanted = self.triggers.reserve_bytes;
        let reserved = set_reserve(dir, wanted, self.direct);
        let mut schedule = lock(&self.schedule);
        schedule.stats.reserved_bytes = if reserved.is_ok() { wanted.unwrap_or(0) } else { 0 };
        if let Err(error) = reserved {
            schedule.stats.last_error = Some(chain_of(&error));
        }
    }

    /// Takes a checkpoint if one is due. An error is in the statistics.
    pub(crate) fn step(&self) -> bool {
        let due = self.is_due();
        if due {
            self.try_take();
        }
        due
    }

    /// Returns whether the options ever make one due before the store closes.
    pub(crate) const fn are_ever_due(&self) -> bool {
        self.triggers.bytes.is_some() || self.triggers.interval.is_some()
    }

    fn is_due(&self) -> bool {
        if !self.are_ever_due() {
            return false;
        }
        let Triggers { bytes, interval, .. } = self.triggers;
        let entries = self.log.stats().entries;
        let now_ns = self.io.now_ns();
        let schedule = lock(&self.schedule);
        let interval = interval.map(|interval| interval.as_nanos());
        schedule.entries != Some(entries)
            && now_ns >= schedule.not_before_ns
            && (bytes.is_some_and(|bytes| self.behind(&schedule) >= bytes)
                || interval
                    .is_some_and(|ns| u128::from(now_ns.saturating_sub(schedule.at_ns)) >= ns))
    }

    /// Returns how many bytes of log an open would have to replay.
    fn behind(&self, schedule: &Schedule) -> u64 {
        self.log.end().0.saturating_sub(schedule.lsn.0)
    }

    /// Takes a checkpoint before the store closes, if the next open would replay a long log.
    pub(crate) fn closing(&self) {
        let entries = self.log.stats().entries;
        let schedule = lock(&self.schedule);
        let due = schedule.entries != Some(entries)
            && self.triggers.close_bytes.is_some_and(|bytes| self.behind(&schedule) >= bytes);
        drop(schedule);
        if due {
            // Without it the next open merely takes longer.
            self.try_take();
        }
    }

    pub(crate) fn stats(&self) -> CheckpointStats {
        let stats = lock(&self.schedule).stats.clone();
        let unloaded = &self.state.unloaded;
        let (waiting_slabs, rebuilt_slabs) = (unloaded.waiting(), unloaded.rebuilt());
        CheckpointStats { waiting_slabs, rebuilt_slabs, ..stats }
    }
}

fn is_out_of_space(error: &Error) -> bool {
    let Error::Checkpoint(CheckpointError::Io { source, .. }) = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns an error with its sources, in one line.
fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        // Some say their own cause.
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
