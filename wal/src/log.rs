//! The log's public face: open, wait, sync, purge, read, close.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::Commit;
use crate::commit::background::SHORTEST_TICK;
use crate::commit::leader::{Deadline, Leadership};
use crate::commit::published::Published;
use crate::commit::waiters::Watermark;
use crate::faults;
use crate::purge::Purger;
use crate::reader::Reader;
use crate::stats::Stats;
use crate::sync::{AtomicBool, Mutex, Ordering, lock, park};
use crate::trace;
use bulla_recovery::Report;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::recovered::{self, Recovered};
use bulla_storage::fork::Process;
use bulla_storage::format::LogId;
use bulla_storage::frames::anchor::{self, Anchor};
use bulla_storage::io::Io;
use bulla_storage::{
    Epoch, Error, Level, Lsn, Options, Overflow, Position, Range, Receipt, Result, Visibility,
};

/// A log that is open for appending. Share it between threads by reference or `Arc`.
///
/// Dropping it closes it as [`close`](Self::close) does, but says nothing of errors.
///
/// A child of a `fork` can't use the log of its parent: it gets [`Error::Forked`], and must open the
/// log itself, once the parent has closed it. A child that only calls `exec` or `_exit` is no problem.
///
/// # Examples
/// ```
/// # let temp = tempfile::tempdir().unwrap();
/// # let dir = temp.path().join("log");
/// use bulla_wal::{Level, Log, Options};
///
/// let log = Log::create(&dir, &Options::new().segment_len(1 << 20))?;
/// let receipt = log.append_with(7, b"a fact", Level::Strict)?;
/// log.wait(receipt)?; // from here on no crash loses it
/// log.close()?;
/// # Ok::<(), bulla_wal::Error>(())
/// ```
pub struct Log {
    pub(crate) published: Arc<Published>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) purger: Purger,
    io: Arc<dyn Io>,
    /// For messages: it may mean another directory by now.
    path: PathBuf,
    /// `None` once the log has released its files.
    dir: Mutex<Option<Directory>>,
    pub(crate) level: Level,
    pub(crate) overflow: Overflow,
    pub(crate) epoch: Epoch,
    log_id: LogId,
    /// The one that opened it.
    process: Process,
    direct: bool,
    /// A thread is releasing the lock and the files, or has released them.
    closed: AtomicBool,
}

/// Rounds in which a durable mark becomes durable itself: in a frame of its own, or in one that
/// is on its way.
const PERSIST_ROUNDS: usize = 8;

impl Log {
    /// Opens the log in `dir` for appending: creates it where there is none, recovers it
    /// where there is one. Returns the log, and a report of what recovery found and did.
    ///
    /// On return everything that the report counts is durable, and the log is locked for
    /// other writers. Any number of readers may have it open.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::Corrupt`] (nothing was changed; `bulla verify` and
    /// `bulla repair` continue from there); [`Error::NoSpaceToOpen`] (nothing is lost, and `bulla
    /// purge` makes room); [`Error::Io`]; the others of
    /// [`create`](Self::create) and [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("bulla-open-doc-{}", std::process::id()));
    /// # let _ = std::fs::remove_dir_all(&dir);
    /// use bulla_wal::{Level, Log, Options};
    ///
    /// let (log, report) = Log::open(&dir, &Options::new().segment_len(1 << 20))?;
    /// println!("{} entries survived ({})", report.entries, report.status);
    /// log.wait(log.append_with(1, b"a fact", Level::Strict)?)?;
    /// log.close()?;
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// # Ok::<(), bulla_wal::Error>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<(Self, Report)> {
        let (recovered, report) = bulla_recovery::open(dir.as_ref(), options)?;
        Ok((Self::start(recovered)?, report))
    }

    /// Creates a log in a directory that has none; the directory is made if need be.
    ///
    /// On return the empty log is durable. [`open`](Self::open) also opens one that exists.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Locked`], [`Error::Options`],
    /// [`Error::SectorTooSmall`], [`Error::Corrupt`] (segments without CONTROL),
    /// [`Error::NotCreated`] (there is no space, and nothing stops another try), [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::start(recovered::create(dir.as_ref(), options)?)
    }

    /// Starts a log that was recovered.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no memory for the ring. A kernel without
    /// `io_uring` is no error: see [`Stats::fallback`].
    pub fn start(recovered: Recovered) -> Result<Self> {
        let (options, dir) = (recovered.options.clone(), recovered.dir.clone());
        let (epoch, log_id) = (recovered.header.epoch, recovered.header.log_id);
        let direct = recovered.file.is_direct();
        let (Commit { published, leadership }, control) = Commit::start(recovered)?;
        trace::opened(dir.path(), epoch, published.written());
        Ok(Self {
            published,
            leadership,
            purger: Purger::new(
                control,
                dir.clone(),
                Arc::clone(&options.io),
                options.lock_timeout,
            ),
            io: options.io,
            path: dir.path().to_owned(),
            dir: Mutex::new(Some(dir)),
            level: options.level,
            overflow: options.overflow,
            epoch,
            log_id,
            process: Process::current(),
            direct,
            closed: AtomicBool::new(false),
        })
    }

    /// Waits until the receipt's level holds. The thread that waits does the work that
    /// nobody else is doing.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: whether the entry is durable is unknown.
    /// [`Error::ForeignReceipt`].
    pub fn wait(&self, receipt: Receipt) -> Result<()> {
        match self.watermark(receipt)? {
            None => Ok(()),
            Some(watermark) => self.leadership.wait(watermark, receipt.lsn, None).map(drop),
        }
    }

    /// Waits until the receipt's level holds, but not longer than `timeout` (and the
    /// disk operation that this thread may be in when it ends). `false` when it was not
    /// ready by then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, receipt: Receipt, timeout: Duration) -> Result<bool> {
        let Some(watermark) = self.watermark(receipt)? else { return Ok(true) };
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = || self.io.now_ns();
        let deadline = Deadline { at_ns: now_ns().saturating_add(timeout), now_ns: &now_ns };
        self.leadership.wait(watermark, receipt.lsn, Some(deadline))
    }

    /// Returns whether the receipt's level holds. Never blocks, never does I/O.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self, receipt: Receipt) -> Result<bool> {
        match self.watermark(receipt)? {
            None => Ok(true),
            Some(watermark) => self.published.check(watermark, receipt.lsn),
        }
    }

    /// Makes everything appended so far durable; returns the durable watermark.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn> {
        self.check_process()?;
        let end = faults::log::sync_end(self.published.ring.end(), || self.published.written());
        if end > self.published.synced() {
            self.leadership.wait(Watermark::Synced, Lsn(end.0 - 1), None)?;
        }
        Ok(self.published.synced())
    }

    /// Makes everything appended so far durable, and then a durable mark of what is below `upto`:
    /// no recovery moves a frame below the position that it returns. That is below `upto` only
    /// where the last segment has no room for the mark, and nobody appends.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn persist_durable_mark(&self, upto: Lsn) -> Result<Lsn> {
        for _ in 0..PERSIST_ROUNDS {
            self.sync()?;
            let mut leader = self.leadership.lead();
            if leader.core.persisted_mark() >= upto {
                break;
            }
            // Either others append, and their next frame holds the mark, or nobody does, and
            // the mark gets a frame of its own.
            leader.core.request_mark();
            leader.pump();
        }
        self.sync()?;
        Ok(self.leadership.lead().core.persisted_mark())
    }

    /// The anchor of a position of this epoch that is [persisted](Self::persist_durable_mark). Reads the
    /// headers of the frames before it in its segment.
    ///
    /// # Errors
    /// [`Error::Purged`] when its segment is not there any more; [`Error::Corrupt`],
    /// [`Error::Io`], [`Error::Closed`].
    pub fn anchor(&self, upto: Lsn) -> Result<Anchor> {
        self.check_process()?;
        let starts: Vec<_> = {
            let leader = self.leadership.lead();
            let ours = leader.live.iter().filter(|live| live.start.epoch == self.epoch);
            ours.map(|live| live.start).take_while(|start| start.lsn <= upto).collect()
        };
        let dir = self.directory()?;
        let find = |segment, end_lsn| anchor::find(&dir, segment, end_lsn, upto, self.direct);
        // A boundary at a segment's start is the end of the one before it, too, and that one
        // has a frame that ends there.
        match starts[..] {
            [] => {
                let position = Position::Lsn { epoch: Some(self.epoch), lsn: upto };
                Err(Error::Purged { position, low_water: self.low_water() })
            }
            [first] => find(first, upto),
            [.., before, last] if last.lsn == upto => find(before, last.lsn),
            [.., before, last] => match find(last, upto)? {
                Anchor { last: None, .. } => find(before, last.lsn),
                found => Ok(found),
            },
        }
    }

    /// Purges entries below `keep_from`: removes whole segments that hold nothing at or
    /// above it, nothing that is not durable, and nothing that a hold keeps. Returns the new
    /// low-water mark; positions below it are purged. On return that mark is durable.
    ///
    /// A hold that is in the way and keeps more than its quota is broken first.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when CONTROL could not be written, [`Error::Io`] when a file
    /// could not be removed (recovery will), [`Error::Closed`]. Nothing was purged with
    /// [`Error::HoldDamaged`], and with [`Error::Locked`] when another process has the holds.
    pub fn purge(&self, keep_from: Lsn) -> Result<Lsn> {
        self.check_process()?;
        self.purger.purge(&self.leadership, keep_from, &[])
    }

    /// As [`purge`](Self::purge), of what comes before the segment of an anchor. That may be
    /// empty, so that the next one starts at the same position: without it the anchor would
    /// not stand.
    ///
    /// # Errors
    /// As [`purge`](Self::purge).
    pub fn purge_before(&self, anchor: &Anchor) -> Result<Lsn> {
        self.check_process()?;
        self.purger.purge(&self.leadership, anchor.segment.lsn, &[anchor.floor()])
    }

    /// A reader of this log's entries, also while it is written.
    ///
    /// Its bound is the log's own watermark: nothing above it is read. It holds no lock and
    /// may outlive the log, which can be opened again meanwhile; only the ring's memory is
    /// kept as long.
    ///
    /// `range` is a [`Range`], or what becomes one: the [`Position`] to begin at, `lsn..`,
    /// `seq..seq`, or `..`. A reader whose range has an end shows nothing from there on.
    ///
    /// # Errors
    /// [`Error::Purged`] when the range begins below the log's start; [`Error::Gap`] when it
    /// begins below damage above which the log is whole; [`Error::Diverged`] when what lies
    /// before one of its ends was cut off by a later epoch than the one given; [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    pub fn reader(&self, range: impl Into<Range>, visibility: Visibility) -> Result<Reader> {
        let (published, io) = (Arc::clone(&self.published), Arc::clone(&self.io));
        let dir = self.directory()?;
        Reader::of_log(published, io, dir, self.direct, range.into(), visibility)
    }

    /// The log's directory, open, for files that belong to the log. It stays the same one when
    /// its path is moved or replaced.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn directory(&self) -> Result<Directory> {
        self.check_process()?;
        lock(&self.dir).clone().ok_or(Error::Closed)
    }

    /// Makes everything durable, marks the log as shut down cleanly, and releases its lock and
    /// files. Every owner of an `Arc` of the log may call it.
    ///
    /// From the call on appends return [`Error::Closed`]; those that wait for receipts get
    /// their answer, readers read to the end. A call after the first one does nothing. One
    /// that comes while another thread closes the log returns when everything is durable,
    /// perhaps before the other one has released the lock.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; lock and files are released all the same.
    pub fn close(&self) -> Result<()> {
        self.check_process()?;
        let drained = self.drain();
        // The caller may be a task that is woken while another thread closes the log: so
        // no caller waits for another one here.
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.release(drained);
        }
        if drained { Ok(()) } else { Err(self.published.poison_error()) }
    }

    /// Makes everything durable and marks the log as shut down cleanly; returns whether it is.
    fn drain(&self) -> bool {
        self.published.ring.shut();
        self.published.waiters.release_room();
        let mut leader = self.leadership.lead();
        leader.core.close();
        while !leader.core.is_closed() && !self.published.is_poisoned() {
            if leader.turn() || leader.core.is_closed() {
                continue;
            }
            if leader.has_workers() {
                // They end what they have begun.
                drop(leader);
                park(Some(SHORTEST_TICK));
                leader = self.leadership.lead();
            } else {
                debug_assert!(false, "the core can't close: {:?}", leader.core);
                break;
            }
        }
        leader.core.is_closed()
    }

    /// Ends the threads, and releases lock and files.
    fn release(&self, drained: bool) {
        self.published.stop();
        self.published.join();
        self.purger.release();
        let mut leader = self.leadership.lead();
        while leader.is_worked_on() {
            // A thread writes, of a log that is poisoned: not without the lock.
            drop(leader);
            park(Some(SHORTEST_TICK));
            leader = self.leadership.lead();
        }
        if drained {
            leader.trim(self.published.ring.end());
        }
        leader.release();
        drop(leader);
        *lock(&self.dir) = None;
        trace::closed(&self.path, self.published.synced(), drained);
    }

    /// Everything below it is written: a crash of the process can't take it.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.published.written()
    }

    /// Everything below it is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.published.synced()
    }

    /// The end of what was appended, in whole frames.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.published.ring.end()
    }

    /// Ends the frame that is being filled, and returns its end: every entry so far is below
    /// it, every later one at or after it. Nothing is written, and no append waits for more
    /// than the moment it takes.
    ///
    /// A thread whose append is at or after the cut sees all that this one did before it;
    /// this one then sees all that threads did before their appends below it.
    pub fn cut(&self) -> Lsn {
        // A child has no ring.
        if self.is_inherited() { self.end() } else { self.published.ring.cut() }
    }

    /// The first position that is not purged.
    #[must_use]
    pub fn low_water(&self) -> Lsn {
        self.purger.low_water()
    }

    /// The epoch of this opening.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Which log this is.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Bytes of the ring: what a crash of the process can take at most.
    #[must_use]
    pub fn ring_len(&self) -> u64 {
        self.published.ring.len()
    }

    /// The most bytes of payload that one entry can have.
    #[must_use]
    pub fn max_entry_len(&self) -> u64 {
        self.published.ring.max_payload()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let leader = self.leadership.lead();
        let mut stats = leader.counters.snapshot();
        drop(leader);
        let appended = self.published.ring.counts();
        stats.entries = appended.entries;
        stats.payload_bytes = appended.bytes;
        stats
    }

    /// Does what the background threads would do now; `true` if there was something.
    #[doc(hidden)]
    pub fn step(&self) -> bool {
        let mut leader = self.leadership.lead();
        let progress = leader.pump() || leader.work();
        drop(leader);
        progress
    }

    /// Returns whether this process is a child, by `fork`, of the one that opened the log. Then
    /// everything that returns a [`Result`] returns [`Error::Forked`], and nothing else may be
    /// called: locks may be held by threads that are not there.
    #[inline]
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.process.is_left()
    }

    /// Refuses a child of the process that opened the log.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_inherited() { Err(Error::Forked) } else { Ok(()) }
    }

    pub(crate) fn watermark(&self, receipt: Receipt) -> Result<Option<Watermark>> {
        self.check_process()?;
        if receipt.epoch != self.epoch {
            return Err(Error::ForeignReceipt { receipt: receipt.epoch, log: self.epoch });
        }
        // Another log's epoch may have the same number. Nothing would ever make such a
        // receipt ready, and its waiter would hold the driver's lock for good.
        if receipt.lsn >= self.published.synced() && receipt.lsn >= self.published.ring.end() {
            return Err(Error::ForeignReceipt { receipt: receipt.epoch, log: self.epoch });
        }
        Ok(match receipt.level {
            Level::Relaxed => None,
            Level::Balanced => Some(Watermark::Balanced),
            Level::Strict => Some(Watermark::Synced),
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.is_inherited() {
            // In a child: what would end here is the parent's. It stays as it is until the child ends.
            std::mem::forget(Arc::clone(&self.published));
            std::mem::forget(Arc::clone(&self.leadership));
            return;
        }
        // Errors can't be told here; `close` tells them.
        let _ = self.close();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.path)
            .field("log_id", &self.log_id)
            .field("epoch", &self.epoch)
            .field("written", &self.written())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "sim", not(loom)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use bulla_storage::PoisonCause;
    use bulla_storage::io::sim::SimDisk;

    const A_MOMENT: Duration = Duration::from_millis(100);

    /// A log without threads of its own, and one durable entry in it.
    fn log() -> Log {
        let disk = SimDisk::new(1);
        let options = Options::new().io(disk.process()).sector(512).segment_len(16 * 1024);
        let options = options.ring_len(16 * 1024).idle_mark(Duration::from_secs(3600)).manual();
        let log = Log::create(Path::new("/log"), &options).expect("a new log");
        let receipt = log.append_with(1, b"entry", Level::Strict).expect("room");
        log.wait(receipt).expect("a disk that works");
        log
    }

    /// A thread that was held up takes long as well, and one may wake too early, but hardly
    /// most times.
    fn sleeps(wait: impl Fn()) -> bool {
        let lasts = |_: &u32| {
            let start = Instant::now();
            wait();
            start.elapsed() >= A_MOMENT
        };
        (0..5).filter(lasts).count() >= 3
    }

    fn poison(log: &Log) {
        log.leadership.lead().fail(PoisonCause::Panic);
    }

    #[test]
    fn reader_sleeps_only_while_nothing_can_be_read_and_more_may_come() {
        let reads = |log: &Log, visibility, lsn| {
            sleeps(|| log.published.wait_to_read(visibility, lsn, A_MOMENT))
        };
        let log = self::log();
        let end = log.durable();
        for visibility in [Visibility::Durable, Visibility::Written] {
            assert!(reads(&log, visibility, end), "{visibility:?}: nothing is there yet");
            assert!(!reads(&log, visibility, Lsn(end.0 - 1)), "{visibility:?}: something is");
        }
        log.published.stop();
        assert!(!reads(&log, Visibility::Durable, end), "the log is closed");
        let log = self::log();
        poison(&log);
        assert!(!reads(&log, Visibility::Durable, end), "the log is poisoned");
    }

    #[test]
    fn appender_sleeps_only_while_there_is_no_room_and_may_be_some() {
        let log = log();
        // Makes the spare segment, so that there is nothing else to do.
        while log.step() {}
        assert!(sleeps(|| log.leadership.wait_for_room(|| true)));
        assert!(!sleeps(|| log.leadership.wait_for_room(|| false)), "there is room by now");
        poison(&log);
        assert!(!sleeps(|| log.leadership.wait_for_room(|| true)), "there will be none");
    }
}
