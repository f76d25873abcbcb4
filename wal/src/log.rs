//! The log's public face: append, wait, sync, purge, close.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::commit::core::{Config, Core};
use crate::commit::driver::{Driver, Parts, SpareMaker};
use crate::commit::shared::{Deadline, Shared};
use crate::commit::wait::{Mark, Registration};
use crate::reader::Reader;
use crate::ring::{Refused, Ring, Start};
use crate::stats::{Counters, Stats};
use crate::sync::{Mutex, lock, park, thread};
use bulla_recovery::Report;
use bulla_storage::faults::failpoints::Point;
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::dir;
use bulla_storage::files::recovered::{self, Recovered};
use bulla_storage::format::{Control, FIRST_INTERNAL_KIND, LogId, LowWater, entry_len};
use bulla_storage::frames::anchor::{self, Landmark};
use bulla_storage::io::Io;
use bulla_storage::{Background, Method, Options, Overflow};
use bulla_storage::{Epoch, Level, Lsn, Receipt, SegmentNumber, Seq};
use bulla_storage::{Error, PoisonCause, Result};
use bulla_storage::{ReadFrom, Visibility};

/// A log that is open for appending. Share it between threads by reference or `Arc`.
///
/// Dropping it closes it as [`close`](Self::close) does, but says nothing of errors.
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
    shared: Arc<Shared>,
    control: Mutex<ControlFile>,
    io: Arc<dyn Io>,
    dir: PathBuf,
    level: Level,
    overflow: Overflow,
    epoch: Epoch,
    log_id: LogId,
    direct: bool,
    threads: Vec<thread::JoinHandle<()>>,
    closed: bool,
}

/// The flusher looks no more often than this.
const SHORTEST_TICK: Duration = Duration::from_micros(100);
/// Turns in which a promise comes to be durable: of its frame, or of one that is on its way.
const SECURE_ROUNDS: usize = 8;
/// Spare segments kept ready.
const SPARES: usize = 1;

impl Log {
    /// Opens the log in `dir` for appending: creates it where there is none, recovers it
    /// where there is one. Returns the log, and a report of what recovery found and did.
    ///
    /// On return everything that the report counts is durable, and the log is locked for
    /// other writers. Any number of readers may have it open.
    ///
    /// # Errors
    /// Those of [`bulla_recovery::open`]: [`Error::Locked`], [`Error::Corrupt`] (then nothing
    /// was changed; `bulla verify` and `bulla repair` go on from there), [`Error::Io`] and
    /// the others of [`create`](Self::create) and [`start`](Self::start).
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
    /// # Ok::<(), bulla_wal::recovery::Error>(())
    /// ```
    pub fn open(
        dir: impl AsRef<Path>,
        options: &Options,
    ) -> bulla_recovery::Result<(Self, Report)> {
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
    /// [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::start(recovered::create(dir.as_ref(), options)?)
    }

    /// Starts a log that was recovered.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no memory for the ring, or no thread. A kernel that gives no
    /// `io_uring` is no error: see [`Stats::fallback`].
    pub fn start(recovered: Recovered) -> Result<Self> {
        let Recovered { options, dir, lock, control, header, file, file_len, .. } = recovered;
        let io = Arc::clone(&options.io);
        let sector = u64::from(header.sector);
        let base = header.opening.as_ref().map_or(Lsn::ZERO, |opening| opening.base);
        let room = file_len - 2 * sector;
        let start = Start {
            lsn: recovered.next_lsn,
            seq: recovered.next_seq,
            segment: header.number,
            base,
            room,
        };
        let ring = Ring::new(&options, start).map_err(Error::io("map memory for", &dir))?;
        let fua = file.is_direct();
        let mut queue =
            io.queue(options.wanted_depth()).map_err(Error::io("make a queue for", &dir))?;
        queue.keep(lock.as_ref()).map_err(Error::io("keep the lock of", &dir))?;
        let depth = options.wanted_depth().min(queue.depth());
        let config = config(&options, fua, depth);
        let core = Core::new(config, start.lsn, start.segment, io.now_ns());
        let method = (options.method == Method::Direct && !fua)
            .then_some("the file system refuses O_DIRECT");
        let backend = queue.fallback();
        let reasons: Vec<_> = backend.map(|f| f.reason).into_iter().chain(method).collect();
        let stats = Stats {
            backend: backend.map_or(io.name(), |fallback| fallback.backend),
            method: if fua { Method::Direct } else { Method::Buffered }.name(),
            fallback: (!reasons.is_empty()).then(|| reasons.join("; ")),
            depth,
            ..Stats::default()
        };
        let maker = SpareMaker {
            io: Arc::clone(&io),
            dir: dir.clone(),
            opening: header.clone(),
            len: options.segment_len,
            direct: fua,
        };
        let (epoch, log_id) = (header.epoch, header.log_id);
        let driver = Driver::new(Parts {
            core,
            counters: Counters::new(stats),
            live: recovered.live,
            queue,
            io: Arc::clone(&io),
            maker: maker.clone(),
            header,
            file,
            room,
            chain: recovered.chain,
            wall_ns: recovered.wall_ns,
            inline_spares: options.background == Background::Manual,
            zeros_pay_below: options.zeros_pay_below,
            lock,
        });
        let shared = Arc::new(Shared::new(ring, driver, start.lsn));
        let threads = match options.background {
            Background::Manual => Vec::new(),
            Background::Threads => start_threads(&shared, &io, &options, maker)
                .map_err(Error::io("start threads for", &dir))?,
        };
        Ok(Self {
            shared,
            control: Mutex::new(control),
            io,
            dir,
            level: options.level,
            overflow: options.overflow,
            epoch,
            log_id,
            direct: fua,
            threads,
            closed: false,
        })
    }

    /// Appends an entry of kind 0 at the log's default level.
    ///
    /// Never waits for the disk, only (with [`Overflow::Block`]) for room in the ring.
    /// On return the entry has its place in the log and is in memory; give the receipt
    /// to [`wait`](Self::wait) to learn when its level holds.
    ///
    /// The payload is copied after the entry has its place, and whoever writes the frame
    /// waits for the copy. So a payload whose pages must be fetched first (a mapped file,
    /// swapped memory) holds up all whose entries are in the same frame, or after it: copy
    /// such bytes before.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::NoSpace`]: nothing was appended.
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn append(&self, payload: &[u8]) -> Result<Receipt> {
        self.append_with(0, payload, self.level)
    }

    /// Appends an entry of a kind (below 0xFF00; what it means is yours) at a level.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Error::ReservedKind`].
    pub fn append_with(&self, kind: u16, payload: &[u8], level: Level) -> Result<Receipt> {
        self.append_batch(&[(kind, payload)], level)
    }

    /// Appends several entries that are recovered together or not at all.
    ///
    /// Gives the receipt of the last one; the others have the numbers before its.
    ///
    /// # Errors
    /// As [`append`](Self::append), [`Error::ReservedKind`], [`Error::EmptyBatch`].
    pub fn append_batch(&self, entries: &[(u16, &[u8])], level: Level) -> Result<Receipt> {
        self.check(entries)?;
        if planted(Bug::BatchSplit) && entries.len() > 1 {
            let one = |entry| self.append_batch(std::slice::from_ref(entry), level);
            return entries.iter().map(one).last().unwrap_or(Err(Error::EmptyBatch));
        }
        loop {
            match self.append_once(entries, level) {
                Ok(place) => return Ok(self.receipt(place, level)),
                Err(refused) => self.make_room(refused)?,
            }
        }
    }

    /// As [`append_batch`](Self::append_batch), but never waits, not even for room in the
    /// ring: for callers that hold a lock of their own.
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch), with [`Error::Full`] whatever
    /// [`Overflow`] says: give the lock back, then
    /// [`wait_for_room`](Self::wait_for_room) and try again.
    pub fn try_append_batch(&self, entries: &[(u16, &[u8])], level: Level) -> Result<Receipt> {
        self.check(entries)?;
        loop {
            match self.append_once(entries, level) {
                Ok(place) => return Ok(self.receipt(place, level)),
                Err(Refused::Full | Refused::NoSegment) => {
                    self.shared.wake_flusher();
                    return Err(Error::Full);
                }
                Err(refused) => self.make_room(refused)?,
            }
        }
    }

    /// Waits until an append that was refused as [`Error::Full`] may fit. It can return
    /// early: append in a loop.
    ///
    /// # Errors
    /// [`Error::Full`] where [`Overflow::Full`] says not to wait.
    pub fn wait_for_room(&self) -> Result<()> {
        let ring = &self.shared.ring;
        let lacked_segment = ring.lacks_segment() && !ring.is_full();
        self.make_room(if lacked_segment { Refused::NoSegment } else { Refused::Full })
    }

    fn append_once(&self, entries: &[(u16, &[u8])], level: Level) -> Result<(Lsn, Seq), Refused> {
        let appended = self.shared.ring.append(entries, level)?;
        if appended.wake_flusher {
            self.shared.wake_flusher();
        }
        Ok((appended.lsn, appended.seq))
    }

    /// Made where it is given out: one that is moved first is stored in parts and loaded as a
    /// whole, which costs a tenth of an append.
    fn receipt(&self, (lsn, seq): (Lsn, Seq), level: Level) -> Receipt {
        Receipt { epoch: self.epoch, lsn, seq, level }
    }

    /// Can the entries be appended at all?
    fn check(&self, entries: &[(u16, &[u8])]) -> Result<()> {
        let mut len = 0_u64;
        for (kind, payload) in entries {
            if *kind >= FIRST_INTERNAL_KIND {
                return Err(Error::ReservedKind(*kind));
            }
            len = len.saturating_add(entry_len(payload.len() as u64));
        }
        if entries.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let max = self.shared.ring.max_entries_len();
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        Ok(())
    }

    /// Waits for what an append lacked, or says why it can't be had.
    fn make_room(&self, refused: Refused) -> Result<()> {
        match refused {
            Refused::Full | Refused::NoSegment if self.overflow == Overflow::Full => {
                self.shared.wake_flusher();
                Err(Error::Full)
            }
            Refused::Full => {
                self.shared.wait_for_room(|| self.shared.ring.is_full());
                Ok(())
            }
            Refused::NoSegment => {
                self.shared.wait_for_room(|| self.shared.ring.lacks_segment());
                Ok(())
            }
            Refused::NoSpace(error) => {
                // There may be space by now: the next append will know.
                if let Some(mut driver) = self.shared.try_driver_to_append() {
                    driver.core.space();
                    driver.pump(&self.shared);
                }
                if self.shared.ring.spares() > 0 { Ok(()) } else { Err(Error::NoSpace(error)) }
            }
            Refused::Shut if self.shared.is_poisoned() => Err(self.shared.poison_error()),
            Refused::Shut => Err(Error::Closed),
        }
    }

    /// Waits until the receipt's level holds. The thread that waits does the work that
    /// nobody else is doing.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: whether the entry is durable is unknown.
    /// [`Error::ForeignReceipt`].
    pub fn wait(&self, receipt: Receipt) -> Result<()> {
        match self.mark(receipt)? {
            None => Ok(()),
            Some(mark) => self.shared.wait(mark, receipt.lsn, None).map(drop),
        }
    }

    /// Waits until the receipt's level holds, but not longer than `timeout` (and the
    /// disk operation that this thread may be in when it ends). `false` when it was not
    /// ready by then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, receipt: Receipt, timeout: Duration) -> Result<bool> {
        let Some(mark) = self.mark(receipt)? else { return Ok(true) };
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = || self.io.now_ns();
        let deadline = Deadline { at_ns: now_ns().saturating_add(timeout), now_ns: &now_ns };
        self.shared.wait(mark, receipt.lsn, Some(deadline))
    }

    /// Does the receipt's level hold? Never blocks, never does I/O.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self, receipt: Receipt) -> Result<bool> {
        match self.mark(receipt)? {
            None => Ok(true),
            Some(mark) => self.shared.check(mark, receipt.lsn),
        }
    }

    /// A future of the receipt's level, for any executor. The log's own thread does the
    /// work, from the first poll on.
    ///
    /// Its waker is called by whichever thread finds the level to hold, but for one that
    /// appends, and with no lock of the log held: it may run the task at once, wait for
    /// this log, or drop it. One that panics affects nobody else.
    pub fn ready(&self, receipt: Receipt) -> Ready<'_> {
        Ready { log: self, receipt, registration: None }
    }

    /// Makes everything appended so far durable; gives the durable watermark.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn> {
        let end = self.shared.ring.end();
        let early = planted(Bug::SyncStopsAtWritten) && end <= self.shared.written();
        if end > self.shared.synced() && !early {
            self.shared.wait(Mark::Synced, Lsn(end.0 - 1), None)?;
        }
        Ok(self.shared.synced())
    }

    /// Makes everything appended so far durable, and then a promise of what is below `upto`:
    /// no recovery moves a frame below the position that it gives. That is below `upto` only
    /// where the last segment has no room for a promise, and nobody appends.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    #[doc(hidden)]
    pub fn secure(&self, upto: Lsn) -> Result<Lsn> {
        if planted(Bug::PromiseInMemoryOnly) {
            return self.sync();
        }
        for _ in 0..SECURE_ROUNDS {
            self.sync()?;
            let mut driver = self.shared.driver();
            if driver.core.secured() >= upto {
                break;
            }
            // Either others append, and their next frame promises it, or nobody does, and
            // there is a frame for the promise alone.
            driver.core.want_promise();
            driver.pump(&self.shared);
        }
        self.sync()?;
        Ok(self.shared.driver().core.secured())
    }

    /// The landmark of a position of this epoch that is [secured](Self::secure). Reads the
    /// headers of the frames before it in its segment.
    ///
    /// # Errors
    /// [`Error::Purged`] when its segment is not there any more; [`Error::Corrupt`],
    /// [`Error::Io`].
    #[doc(hidden)]
    pub fn landmark(&self, upto: Lsn) -> Result<Landmark> {
        let starts: Vec<_> = {
            let driver = self.shared.driver();
            let ours = driver.live.iter().filter(|live| live.start.epoch == self.epoch);
            ours.map(|live| live.start).take_while(|start| start.lsn <= upto).collect()
        };
        let find = |segment, ceiling| {
            anchor::find(self.io.as_ref(), &self.dir, segment, ceiling, upto, self.direct)
        };
        // A boundary at a segment's start is the end of the one before it, too, and that one
        // has a frame that ends there.
        match starts[..] {
            [] => {
                let position = ReadFrom::Lsn { epoch: Some(self.epoch), lsn: upto };
                Err(Error::Purged { position, low_water: self.low_water() })
            }
            [first] => find(first, upto),
            [.., before, last] if last.lsn == upto => find(before, last.lsn),
            [.., before, last] => match find(last, upto)? {
                Landmark { last: None, .. } => find(before, last.lsn),
                found => Ok(found),
            },
        }
    }

    /// Gives up entries below `keep_from`: removes whole segments that hold nothing at or
    /// above it and nothing that is not durable. Gives the new low-water mark; positions
    /// below it are purged. On return that mark is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when CONTROL could not be written, [`Error::Io`] when a file
    /// could not be removed (recovery will).
    pub fn purge(&self, keep_from: Lsn) -> Result<Lsn> {
        self.purge_to(keep_from, SegmentNumber::MAX)
    }

    /// As [`purge`](Self::purge), of what comes before the segment of a landmark. That may be
    /// empty, so that the next one starts at the same position: without it the landmark would
    /// not stand.
    ///
    /// # Errors
    /// As [`purge`](Self::purge).
    #[doc(hidden)]
    pub fn purge_before(&self, landmark: &Landmark) -> Result<Lsn> {
        self.purge_to(landmark.segment.lsn, landmark.segment.segment)
    }

    /// Removes segments before the last one that starts at or before `keep_from`, and that is
    /// not after the segment `last`.
    fn purge_to(&self, keep_from: Lsn, last: SegmentNumber) -> Result<Lsn> {
        let mut control = lock(&self.control);
        if self.shared.is_poisoned() {
            return Err(self.shared.poison_error());
        }
        let current = control.current().low_water;
        let keep_from =
            keep_from.min(either(self.shared.synced(), Bug::PurgeAboveDurable, Lsn::MAX));
        let start = {
            let driver = self.shared.driver();
            let keep_from = either(keep_from, Bug::PurgeTooFar, Lsn::MAX);
            let fits = |start: &LowWater| start.lsn <= keep_from && start.segment <= last;
            driver.live.iter().rev().map(|live| live.start).find(fits)
        };
        let Some(low_water) = start.filter(|start| start.segment > current.segment) else {
            return Ok(current.lsn);
        };
        let next = Control { low_water, ..*control.current() };
        if planted(Bug::PurgeUnlinksFirst) {
            self.unlink_segments(current.segment, low_water.segment)?;
        }
        if let Err(source) = control.store(next, Point::ControlPurgeSync) {
            let mut driver = self.shared.driver();
            driver.fail(&self.shared, PoisonCause::Control(source));
            // Nobody stores to it any more. Wakers, which may ask for it, run when the
            // driver's lock is given back.
            drop(control);
            drop(driver);
            return Err(self.shared.poison_error());
        }
        self.unlink_segments(current.segment, low_water.segment)?;
        let mut driver = self.shared.driver();
        driver.live.retain(|live| live.start.segment >= low_water.segment);
        driver.core.space();
        driver.pump(&self.shared);
        // As above.
        drop(control);
        drop(driver);
        Ok(low_water.lsn)
    }

    /// A reader of this log's entries, also while it is written.
    ///
    /// Its bound is the log's own watermark: nothing above it is read. It holds no lock and
    /// may outlive the log, which can be opened again meanwhile; only the ring's memory is
    /// kept as long.
    ///
    /// # Errors
    /// [`Error::Purged`] when `from` is below the log's start; [`Error::Diverged`] when
    /// what lies before it was cut off by a later epoch than the one given;
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn reader(&self, from: ReadFrom, visibility: Visibility) -> Result<Reader> {
        let (shared, io) = (Arc::clone(&self.shared), Arc::clone(&self.io));
        Reader::of_log(shared, io, &self.dir, self.direct, from, visibility)
    }

    fn unlink_segments(&self, from: SegmentNumber, to: SegmentNumber) -> Result<()> {
        let mut number = from;
        while number < to {
            let path = dir::segment_path(&self.dir, number);
            match self.io.unlink(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => number = number.next(),
            }
        }
        Ok(())
    }

    /// Drains, makes everything durable, seals the log and gives it up.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn close(mut self) -> Result<()> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.shared.ring.shut();
        self.shared.waiters.release_room();
        let mut driver = self.shared.driver();
        driver.core.close();
        while !driver.core.is_closed() && !self.shared.is_poisoned() {
            if planted(Bug::CloseDoesNotDrain) {
                break;
            }
            if driver.turn() || driver.core.is_closed() {
                continue;
            }
            if driver.has_workers() {
                // The flusher ends what it has begun.
                drop(driver);
                park(Some(SHORTEST_TICK));
                driver = self.shared.driver();
            } else {
                debug_assert!(false, "the core can't close: {:?}", driver.core);
                break;
            }
        }
        let closed = driver.core.is_closed() || planted(Bug::CloseDoesNotDrain);
        drop(driver);
        self.shared.stop();
        let this = thread::current().id();
        for thread in self.threads.drain(..) {
            // A task that this thread woke may have held the last handle of the log: the
            // thread ends by itself. A panic of another poisoned the log, which is
            // reported below.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
        }
        let mut driver = self.shared.driver();
        if closed {
            driver.trim(self.shared.ring.end());
        }
        driver.let_go();
        drop(driver);
        if closed { Ok(()) } else { Err(self.shared.poison_error()) }
    }

    /// Everything below it is written: a crash of the process can't take it.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.shared.written()
    }

    /// Everything below it is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.shared.synced()
    }

    /// The end of what was appended, in whole frames.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.shared.ring.end()
    }

    /// Ends the frame that is being filled, and gives its end: every entry so far is below
    /// it, every later one at or after it. Nothing is written, and no append waits for more
    /// than the moment it takes.
    ///
    /// A thread whose append is at or after the cut sees all that this one did before it;
    /// this one then sees all that threads did before their appends below it.
    pub fn cut(&self) -> Lsn {
        self.shared.ring.cut()
    }

    /// The first position that is not purged.
    #[must_use]
    pub fn low_water(&self) -> Lsn {
        lock(&self.control).current().low_water.lsn
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
        self.shared.ring.len()
    }

    /// The most bytes of payload that one entry can have.
    #[must_use]
    pub fn max_entry_len(&self) -> u64 {
        self.shared.ring.max_payload()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let driver = self.shared.driver();
        let mut stats = driver.counters.snapshot();
        drop(driver);
        let appended = self.shared.ring.counts();
        stats.entries = appended.entries;
        stats.payload_bytes = appended.bytes;
        stats
    }

    /// Does what the background threads would do now; `true` if there was something.
    #[doc(hidden)]
    pub fn step(&self) -> bool {
        let mut driver = self.shared.driver();
        let progress = driver.pump(&self.shared) || driver.work();
        drop(driver);
        progress
    }

    fn mark(&self, receipt: Receipt) -> Result<Option<Mark>> {
        if receipt.epoch != self.epoch {
            return Err(Error::ForeignReceipt { receipt: receipt.epoch, log: self.epoch });
        }
        // Another log's epoch may have the same number. Nothing would ever make such a
        // receipt ready, and its waiter would hold the driver's lock for good.
        if receipt.lsn >= self.shared.synced() && receipt.lsn >= self.shared.ring.end() {
            return Err(Error::ForeignReceipt { receipt: receipt.epoch, log: self.epoch });
        }
        Ok(match receipt.level {
            Level::Relaxed => None,
            Level::Balanced => Some(Mark::Balanced),
            Level::Strict => Some(Mark::Synced),
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Errors can't be told here; `close` tells them.
        let _ = self.shut_down();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("log_id", &self.log_id)
            .field("epoch", &self.epoch)
            .field("written", &self.written())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

/// A future that is ready when a receipt's level holds. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ready<'a> {
    log: &'a Log,
    receipt: Receipt,
    registration: Option<Registration>,
}

impl Future for Ready<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let shared = &this.log.shared;
        let (mark, lsn) = match this.log.mark(this.receipt) {
            Ok(Some(mark)) => (mark, this.receipt.lsn),
            Ok(None) => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(error)),
        };
        let ready = || match shared.check(mark, lsn) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        };
        if let done @ Poll::Ready(_) = ready() {
            return done;
        }
        let first = this.registration.is_none();
        this.registration =
            Some(shared.waiters.register_task(mark, lsn, context.waker(), this.registration));
        if first {
            shared.want(mark, lsn);
            shared.wake_flusher();
        }
        // Registered before this look: either we see the advance, or it sees us.
        ready()
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if let Some(registration) = self.registration {
            self.log.shared.waiters.cancel(registration);
        }
    }
}

fn config(options: &Options, fua: bool, depth: usize) -> Config {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Config {
        fua,
        depth,
        flush_interval: ns(options.flush_interval),
        sync_interval: ns(options.sync_interval),
        balanced_interval: ns(options.balanced_interval),
        balanced_entries: options.balanced_entries,
        balanced_max_unsynced: options.balanced_max_unsynced,
        idle_promise: ns(options.idle_promise),
        spares: SPARES,
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    io: &Arc<dyn Io>,
    options: &Options,
    maker: SpareMaker,
) -> std::io::Result<Vec<thread::JoinHandle<()>>> {
    let flusher = {
        let (shared, io) = (Arc::clone(shared), Arc::clone(io));
        let tick = (options.flush_interval / 2).max(SHORTEST_TICK);
        thread::Builder::new()
            .name("bulla-flush".to_owned())
            .spawn(move || run_flusher(&shared, io.as_ref(), tick))?
    };
    let preparer = {
        let worker = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("bulla-prepare".to_owned())
            .spawn(move || run_preparer(&worker, &maker));
        match spawned {
            Ok(preparer) => preparer,
            Err(error) => {
                shared.stop();
                flusher.thread().unpark();
                return Err(error);
            }
        }
    };
    shared.set_threads(flusher.thread().clone(), preparer.thread().clone());
    // Both may have gone to sleep before they could be found.
    flusher.thread().unpark();
    preparer.thread().unpark();
    Ok(vec![flusher, preparer])
}

/// Drives the time bounds, futures and promises; sleeps when there is nothing to do.
fn run_flusher(shared: &Shared, io: &dyn Io, tick: Duration) {
    let mut deadline = Some(0);
    while !shared.is_stopped() {
        // Those that an append has left to us.
        shared.waiters.wake_tasks();
        if shared.is_poisoned() {
            park(None);
            continue;
        }
        // Whoever drives now keeps the bounds itself. To stand in its way would cost a
        // lone writer a hand-over; only a bound that is due is worth that.
        let is_due = deadline.is_none_or(|at_ns| at_ns <= io.now_ns());
        let driver = if is_due { Some(shared.driver()) } else { shared.try_driver() };
        let Some(mut driver) = driver else {
            park(Some(tick));
            continue;
        };
        driver.settle();
        deadline = driver.core.deadline();
        // What others have begun, they go on with; but they may leave what follows to us.
        let busy = driver.is_busy();
        // Decided while nobody else can take an entry out of the ring and leave the rest
        // of its way to us.
        let asleep = !busy && deadline.is_none() && shared.ring.flusher_sleeps();
        drop(driver);
        match deadline {
            _ if busy => park(Some(tick)),
            Some(at_ns) => {
                let left = Duration::from_nanos(at_ns.saturating_sub(io.now_ns()));
                park(Some(left.min(tick)));
            }
            None if asleep => park(None),
            None => {}
        }
    }
}

/// Makes spare segments and the ring's memory, so that nobody waits for them.
fn run_preparer(shared: &Shared, maker: &SpareMaker) {
    // Both are for a log that is appended to, which wants a segment first.
    let mut populate = None;
    while !shared.is_stopped() {
        match shared.take_spare_wanted() {
            None => {
                if populate.as_mut().and_then(Iterator::next).is_none() {
                    park(None);
                }
            }
            Some(wanted) => {
                populate.get_or_insert_with(|| shared.ring.populate());
                // Appends that need the segment must not wait for a thread that is gone.
                let made =
                    catch_unwind(AssertUnwindSafe(|| maker.make(wanted, &|| !shared.is_stopped())))
                        .unwrap_or_else(|_| {
                            Err(std::io::Error::other("making a segment panicked"))
                        });
                let mut driver = shared.driver();
                driver.prepared(shared, made);
                driver.pump(shared);
            }
        }
    }
}

#[cfg(all(test, feature = "sim", not(loom)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use bulla_storage::io::sim::SimDisk;

    const A_MOMENT: Duration = Duration::from_millis(100);

    /// A log without threads of its own, and one durable entry in it.
    fn log() -> Log {
        let disk = SimDisk::new(1);
        let options = Options::new().io(disk.process()).sector(512).segment_len(16 * 1024);
        let options = options.ring_len(16 * 1024).idle_promise(Duration::from_secs(3600)).manual();
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
        log.shared.driver().fail(&log.shared, PoisonCause::Panic);
    }

    #[test]
    fn reader_sleeps_only_while_nothing_can_be_read_and_more_may_come() {
        let reads = |log: &Log, visibility, lsn| {
            sleeps(|| log.shared.wait_to_read(visibility, lsn, A_MOMENT))
        };
        let log = self::log();
        let end = log.durable();
        for visibility in [Visibility::Durable, Visibility::Written] {
            assert!(reads(&log, visibility, end), "{visibility:?}: nothing is there yet");
            assert!(!reads(&log, visibility, Lsn(end.0 - 1)), "{visibility:?}: something is");
        }
        log.shared.stop();
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
        assert!(sleeps(|| log.shared.wait_for_room(|| true)));
        assert!(!sleeps(|| log.shared.wait_for_room(|| false)), "there is room by now");
        poison(&log);
        assert!(!sleeps(|| log.shared.wait_for_room(|| true)), "there will be none");
    }
}
