//! Checkpoints: the records as of a position in the log, so that an open need not replay what
//! came before, and the log need not keep it.
//!
//! Owns when one is taken, and the order: pages of a snapshot, a durable promise of its
//! position, the name, then the purge of what neither this one nor the one before needs. At
//! every moment two checkpoints stand, or one and the log from its beginning; so any one
//! damaged file costs nothing. A checkpoint that fails changes nothing. Tested by
//! `engine/tests/checkpoint.rs`, and on the simulated disk by `tests/tests/store.rs`.
//!
//! ```text
//! format   every byte of one       write    pages to a file, by a temporary name
//! files    names, reading          open     which one a store is opened from
//! lazy     slabs on first touch, and damaged ones built again
//! look     at each of them, changing nothing
//! ```

mod error;
mod files;
mod format;
#[cfg(test)]
mod format_tests;
mod lazy;
mod look;
mod open;
mod write;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bulla_storage::faults::failpoints::{Point, skip};
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::io::Io;
use bulla_wal::{Log, Lsn};

pub use error::{CheckpointError, CheckpointFault, Refusal, RefusedCheckpoint};
pub(crate) use files::Folder;
pub use format::CheckpointDamage;
use format::Head;
pub(crate) use lazy::{Base, Lazy};
pub use look::{
    CheckpointFile, checkpoints, standing_checkpoints, usable_checkpoints, usable_checkpoints_after,
};
pub(crate) use open::{Candidates, Choice};
pub use open::{CheckpointInfo, OpenReport};
use write::{Writer, Written};

use crate::error::{Error, Result};
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::store::LOAD_THREADS;
use crate::table::PageId;

/// Checkpoints that are kept: the newest, and one for when it is damaged.
const KEPT: usize = 2;
/// The background thread looks so often whether one is due.
const TICK: Duration = Duration::from_millis(100);
/// After one that failed, the next is tried no earlier than this.
const RETRY_NS: u64 = 5_000_000_000;
/// Zeros are written so many at a time, where space can't be reserved.
const ZEROS: usize = 1024 * 1024;

/// When checkpoints are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Triggers {
    pub(crate) bytes: Option<u64>,
    pub(crate) interval: Option<Duration>,
    pub(crate) close_bytes: Option<u64>,
    pub(crate) reserve_bytes: u64,
    pub(crate) keep_log: bool,
}

/// Numbers of a store's checkpoints, since it was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckpointStats {
    /// Those that were taken.
    pub taken: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why the last one failed, or what failed after it; `None` once one has not.
    pub last_error: Option<String>,
    /// The newest, from before the open perhaps.
    pub newest: Option<CheckpointInfo>,
    /// How long the last one took.
    pub last_duration: Duration,
    /// Bytes on disk that are kept for a checkpoint on a full disk.
    pub reserved_bytes: u64,
    /// Slabs (of 32,768 ids) that were not touched since the open, and not read.
    pub waiting_slabs: u64,
    /// Slabs that were damaged, and built again from the older checkpoint and the log.
    pub rebuilt_slabs: u64,
}

/// Takes checkpoints of a store.
#[derive(Debug)]
pub(crate) struct Checkpoints<R: Record> {
    pub(crate) state: Arc<State<R>>,
    log: Arc<Log>,
    io: Arc<dyn Io>,
    folder: Folder,
    direct: bool,
    triggers: Triggers,
    /// Held while one is taken.
    taking: Mutex<Taken>,
    now: Mutex<Now>,
    stop: Condvar,
}

/// What was taken.
#[derive(Debug)]
struct Taken {
    /// What the store rests on, the newest first; at most [`KEPT`].
    kept: Vec<Head>,
    next_number: u64,
}

/// What is looked at to see whether one is due.
#[derive(Debug)]
struct Now {
    stopped: bool,
    /// Log below it needs no replay.
    lsn: Lsn,
    /// Entries that had been appended when the last one was taken; none if there is
    /// something older that no checkpoint has.
    entries: Option<u64>,
    at_ns: u64,
    not_before_ns: u64,
    stats: CheckpointStats,
}

/// What a store has found when it was opened.
pub(crate) struct Found {
    pub(crate) kept: Vec<Head>,
    pub(crate) highest: u64,
    /// Where the log begins, if there is no checkpoint.
    pub(crate) first: Lsn,
    /// Was anything replayed?
    pub(crate) replayed: bool,
}

impl Found {
    pub(crate) fn new(choice: &Choice, first: Lsn) -> Self {
        Self { kept: choice.kept(), highest: choice.highest, first, replayed: false }
    }

    /// That of a store that was just created.
    pub(crate) fn nothing() -> Self {
        Self { kept: Vec::new(), highest: 0, first: Lsn::ZERO, replayed: false }
    }
}

impl<R: Record> Checkpoints<R> {
    pub(crate) fn new(
        (state, log): (&Arc<State<R>>, &Arc<Log>),
        (io, store): (&Arc<dyn Io>, &Path),
        direct: bool,
        triggers: Triggers,
        found: Found,
    ) -> Self {
        let newest = found.kept.first();
        let now = Now {
            stopped: false,
            lsn: newest.map_or(found.first, |head| head.landmark.upto),
            entries: (!found.replayed).then_some(0),
            at_ns: io.now_ns(),
            not_before_ns: 0,
            stats: CheckpointStats { newest: newest.map(Into::into), ..Default::default() },
        };
        let checkpoints = Self {
            state: Arc::clone(state),
            log: Arc::clone(log),
            io: Arc::clone(io),
            folder: Folder::of(io, store),
            direct,
            triggers,
            taking: Mutex::new(Taken { kept: found.kept, next_number: found.highest + 1 }),
            now: Mutex::new(now),
            stop: Condvar::new(),
        };
        // Removing them again may be all that a crash has undone. They cost nothing but space.
        let _ = checkpoints.remove_old();
        checkpoints.note_reserve();
        checkpoints
    }

    /// Takes a checkpoint now; the newest one if nothing has changed since.
    pub(crate) fn take(&self) -> Result<CheckpointInfo> {
        let mut taken = lock(&self.taking);
        // Whoever asks after a change has its entry counted.
        let entries = self.log.stats().entries;
        if lock(&self.now).entries == Some(entries)
            && let Some(newest) = taken.kept.first()
        {
            return Ok(newest.into());
        }
        let begun = self.io.now_ns();
        let result = self.state.panics.watch(|| self.take_one(&mut taken));
        let mut now = lock(&self.now);
        (now.at_ns, now.not_before_ns) = (self.io.now_ns(), 0);
        let duration = Duration::from_nanos(now.at_ns.saturating_sub(begun));
        match &result {
            Ok(head) => {
                (now.lsn, now.entries) = (head.landmark.upto, Some(entries));
                now.stats.taken += 1;
                now.stats.last_error = None;
                now.stats.last_duration = duration;
                now.stats.newest = Some(head.into());
            }
            Err(error) => {
                now.not_before_ns = now.at_ns.saturating_add(RETRY_NS);
                now.stats.failed += 1;
                now.stats.last_error = Some(chain_of(error));
            }
        }
        drop(now);
        let head = result?;
        if let Err(error) = self.let_go(&taken.kept) {
            lock(&self.now).stats.last_error = Some(chain_of(&error));
            return Err(error);
        }
        self.note_reserve();
        Ok((&head).into())
    }

    fn take_one(&self, taken: &mut Taken) -> Result<Head> {
        self.make_folder()?;
        self.state.load_all(LOAD_THREADS)?;
        let snapshot = self.state.snapshot(&self.log)?;
        let number = taken.next_number;
        let written = match self.write(Writer::create, number, &snapshot) {
            Err(error) if is_out_of_space(&error) => {
                self.write_in_reserve(number, &snapshot)?.ok_or(error)?
            }
            written => written?,
        };
        drop(snapshot);
        // Names are never used twice, also not that of one whose rename may have been done.
        taken.next_number += 1;
        let path = self.folder.path_of(number);
        if planted(Bug::OlderGoesFirst) {
            let older = taken.kept.get(1).map(|head| head.number);
            self.remove(|number| Some(number) == older)?;
        }
        let head = written.publish().map_err(CheckpointError::io("publish", path))?;
        taken.kept.insert(0, head);
        taken.kept.truncate(KEPT);
        Ok(head)
    }

    /// Makes the folder, durable in the store's.
    fn make_folder(&self) -> Result<()> {
        let path = &self.folder.path;
        if lock(&self.now).stats.newest.is_none() {
            self.io.create_dir(path).map_err(CheckpointError::io("create", path))?;
            if let Some(store) = path.parent().filter(|_| !skip(Point::CheckpointFolderSync)) {
                self.io.sync_dir(store).map_err(CheckpointError::io("sync", store))?;
            }
        }
        Ok(())
    }

    /// Writes what a snapshot shows; on return it is durable, and so is a promise of its
    /// position, but it has no name yet.
    fn write(
        &self,
        create: impl FnOnce(&Folder, u64, bool) -> io::Result<Writer>,
        number: u64,
        snapshot: &Snapshot<'_, R>,
    ) -> Result<Written> {
        let path = self.folder.temporary_path_of(number);
        let mut writer = create(&self.folder, number, self.direct)
            .map_err(CheckpointError::io("create", &path))?;
        let written = self.fill(&mut writer, snapshot);
        if written.is_err() {
            // The error is what counts; the next open removes what is left.
            let _ = writer.abandon();
        }
        written
    }

    fn write_in_reserve(&self, number: u64, snapshot: &Snapshot<'_, R>) -> Result<Option<Written>> {
        let path = self.folder.temporary_path_of(number);
        let writer = Writer::in_reserve(&self.folder, number, self.direct)
            .map_err(CheckpointError::io("create", &path))?;
        let write = |writer| self.write(|_, _, _| Ok(writer), number, snapshot);
        writer.map(write).transpose()
    }

    fn fill(&self, writer: &mut Writer, snapshot: &Snapshot<'_, R>) -> Result<Written> {
        let path = writer.path().to_owned();
        let mut records = Vec::new();
        let mut next = Some(PageId::of(0));
        while let Some(from) = next {
            let Some(page) = snapshot.copy_from(from, &mut records)? else { break };
            writer.push(page, &records).map_err(CheckpointError::io("write", &path))?;
            next = page.next();
        }
        let lsn = snapshot.lsn();
        if !skip(Point::CheckpointPromise) {
            let promised = self.log.secure(lsn)?;
            if promised < lsn {
                return Err(CheckpointError::NotPromised { lsn, promised }.into());
            }
        }
        let upto = either(lsn, Bug::CheckpointClaimsMore, self.log.durable());
        let landmark = self.log.landmark(upto)?;
        let written = writer.finish(self.io.wall_ns(), landmark);
        Ok(written.map_err(CheckpointError::io("write", &path))?)
    }

    /// Removes what the kept checkpoints do not need: others, and log before both.
    fn let_go(&self, kept: &[Head]) -> Result<()> {
        let (newest, older) = match kept {
            [newest, older] => (newest, older),
            [newest] if planted(Bug::FirstCheckpointPurges) => (newest, newest),
            _ => return Ok(()),
        };
        if !self.triggers.keep_log {
            let needed = either(older, Bug::PurgeForNewestOnly, newest).landmark;
            self.log.purge_before(&needed)?;
        }
        self.remove(|number| kept.iter().all(|head| head.number != number))
    }

    /// Removes checkpoints before the two that the store rests on.
    fn remove_old(&self) -> Result<()> {
        let taken = lock(&self.taking);
        let [_, older] = &taken.kept[..] else { return Ok(()) };
        self.remove(|number| number < older.number)
    }

    fn remove(&self, is_spare: impl Fn(u64) -> bool) -> Result<()> {
        let path = &self.folder.path;
        let listing = self.folder.list().map_err(CheckpointError::io("list", path))?;
        for number in listing.numbers.into_iter().filter(|number| is_spare(*number)) {
            let path = self.folder.path_of(number);
            self.folder.remove(&path).map_err(CheckpointError::io("remove", path))?;
        }
        Ok(())
    }

    /// Keeps as much space as is asked for, if it can be had, and notes how much that is.
    fn note_reserve(&self) {
        let wanted = self.triggers.reserve_bytes;
        let kept = self.keep_reserve(wanted);
        let mut now = lock(&self.now);
        now.stats.reserved_bytes = if kept.is_ok() { wanted } else { 0 };
        if let Err(error) = kept {
            now.stats.last_error = Some(chain_of(&error));
        }
    }

    fn keep_reserve(&self, wanted: u64) -> Result<()> {
        let path = self.folder.reserve_path();
        let listing = self.folder.list().map_err(CheckpointError::io("list", &self.folder.path))?;
        if listing.reserve.unwrap_or(0) == wanted {
            return Ok(());
        }
        self.io
            .create_dir(&self.folder.path)
            .map_err(CheckpointError::io("create", &self.folder.path))?;
        self.folder.remove(&path).map_err(CheckpointError::io("remove", &path))?;
        if wanted > 0
            && let Err(error) = reserve(self.io.as_ref(), &path, wanted, self.direct)
        {
            // Part of it is of no use.
            let _ = self.folder.remove(&path);
            return Err(CheckpointError::io("reserve space in", path)(error).into());
        }
        Ok(())
    }

    /// Takes one if it is due. An error is in the statistics.
    pub(crate) fn step(&self) -> bool {
        let due = self.is_due();
        if due {
            let _ = self.take();
        }
        due
    }

    fn is_due(&self) -> bool {
        let Triggers { bytes, interval, .. } = self.triggers;
        if bytes.is_none() && interval.is_none() {
            return false;
        }
        let entries = self.log.stats().entries;
        let now_ns = self.io.now_ns();
        let now = lock(&self.now);
        let interval = interval.map(|interval| interval.as_nanos());
        now.entries != Some(entries)
            && now_ns >= now.not_before_ns
            && (bytes.is_some_and(|bytes| self.behind(&now) >= bytes)
                || interval.is_some_and(|ns| u128::from(now_ns.saturating_sub(now.at_ns)) >= ns))
    }

    /// Bytes of log that an open would have to replay.
    fn behind(&self, now: &Now) -> u64 {
        self.log.end().0.saturating_sub(now.lsn.0)
    }

    /// Takes one before the store is closed, if so much would have to be replayed.
    pub(crate) fn closing(&self) {
        let entries = self.log.stats().entries;
        let now = lock(&self.now);
        let due = now.entries != Some(entries)
            && self.triggers.close_bytes.is_some_and(|bytes| self.behind(&now) >= bytes);
        drop(now);
        if due {
            // Without it the next open takes longer, and that is all.
            let _ = self.take();
        }
    }

    pub(crate) fn stats(&self) -> CheckpointStats {
        let stats = lock(&self.now).stats.clone();
        let lazy = &self.state.lazy;
        CheckpointStats { waiting_slabs: lazy.waiting(), rebuilt_slabs: lazy.rebuilt(), ..stats }
    }

    /// What the background thread does, until it is stopped.
    fn run(&self) {
        let mut now = lock(&self.now);
        while !now.stopped {
            drop(now);
            self.step();
            now = lock(&self.now);
            if !now.stopped {
                now = self.stop.wait_timeout(now, TICK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// The thread that takes checkpoints. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Background<R: Record> {
    checkpoints: Arc<Checkpoints<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Record> Background<R> {
    /// Starts it, unless the caller is to do its work.
    pub(crate) fn start(checkpoints: &Arc<Checkpoints<R>>, manual: bool) -> io::Result<Self> {
        let Triggers { bytes, interval, .. } = checkpoints.triggers;
        let checkpoints = Arc::clone(checkpoints);
        let thread = if manual || (bytes.is_none() && interval.is_none()) {
            None
        } else {
            let checkpoints = Arc::clone(&checkpoints);
            let builder = std::thread::Builder::new().name("bulla-checkpoint".to_owned());
            Some(builder.spawn(move || checkpoints.run())?)
        };
        Ok(Self { checkpoints, thread })
    }
}

impl<R: Record> Drop for Background<R> {
    fn drop(&mut self) {
        lock(&self.checkpoints.now).stopped = true;
        self.checkpoints.stop.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Makes a file that takes so much space.
fn reserve(io: &dyn Io, path: &Path, len: u64, direct: bool) -> io::Result<()> {
    let file = io.create(path, direct)?;
    match file.preallocate(len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        reserved => return reserved,
    }
    let zeros = bulla_storage::io::AlignedBuf::zeroed(ZEROS);
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
        bulla_storage::io::write_full(file.as_ref(), &zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

fn is_out_of_space(error: &Error) -> bool {
    let Error::Checkpoint(CheckpointError::Io { source, .. }) = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error with its sources, in one line.
fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
