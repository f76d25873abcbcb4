//! Readers: the log's entries in order, from any position, also while it is written.
//!
//! A reader never takes the lock, never changes anything, and shows what is durable
//! unless it is asked for more. It holds one frame (the longest that it met, 64 MiB at
//! most) and an index of bounded size. In the writer's process its bound is the log's own
//! watermark ([`Log::reader`](crate::Log::reader)); in another one it is the frames' durable
//! marks ([`Reader::open`]). Bytes below the bound that are not intact are corruption,
//! never an end. Tested by `tests/tests/readers.rs` and by the program's tests.
//!
//! ```text
//! index          segments by their headers   cursor       reads from segment to segment
//! durable_probe  durable marks ahead         by_position  one entry, found by `lookup`
//! begin          where a range begins        current      the frame that is shown
//! ```

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod begin;
mod by_position;
mod current;
mod cursor;
mod durable_probe;
mod index;
mod lookup;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::begin::{begin, is_after, purged};
use self::current::{Current, body, damaged};
use self::cursor::ReadCursor;
use self::durable_probe::DurableProbe;
use self::index::{Disk, SegmentIndex};
use self::lookup::Lookup;
use crate::commit::published::Published;
use crate::faults;
use bulla_storage::files::dir::Directory;
use bulla_storage::format::{ENTRY_HEADER_LEN, Entries, EntriesAt, Frame, FrameKind};
use bulla_storage::frames::read_buffer::READ_LEN;
use bulla_storage::frames::reader::{End, Found, Step};
use bulla_storage::io::Io;
use bulla_storage::{
    Entry, EntryView, Epoch, Error, FrameDamage, Limit, Lsn, Position, Range, Result,
    SegmentNumber, Seq, Visibility,
};

/// Reads a log's entries in order, and any entry by its position.
///
/// After an error the reader is where it was: the call can be made again.
///
/// # Examples
/// ```
/// # let temp = tempfile::tempdir().unwrap();
/// # let dir = temp.path().join("log");
/// use bulla_wal::{Level, Log, Options, Position, Visibility};
///
/// let log = Log::create(&dir, &Options::new().segment_len(1 << 20))?;
/// let mut reader = log.reader(Position::Start, Visibility::Durable)?;
/// let receipt = log.append_with(7, b"a fact", Level::Strict)?;
/// assert_eq!(reader.next()?, None); // it is not durable yet
/// log.wait(receipt)?;
/// let entry = reader.next()?.expect("it is now");
/// assert_eq!((entry.lsn, entry.payload), (receipt.lsn, &b"a fact"[..]));
/// log.close()?;
/// # Ok::<(), bulla_wal::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    disk: Disk,
    index: SegmentIndex,
    /// The generation of the index that `cursor` knows.
    generation: u64,
    cursor: ReadCursor,
    bound: Bound,
    visibility: Visibility,
    /// What lies before is passed over.
    skip: Limit,
    /// What lies at it or after is not shown.
    until: Limit,
    /// The last segment known to have frames from before the time at which the range ends.
    earlier_until: Option<SegmentNumber>,
    /// The range's end was reached.
    finished: bool,
    /// The number of the next entry, once one was read.
    next_seq: Option<Seq>,
    current: Option<Current>,
    /// Of damage that was found the bytes were read a second time.
    doubted: bool,
    lookup: Lookup,
}

/// How a reader knows how far it may go.
#[derive(Debug)]
enum Bound {
    /// By the watermarks of the log in this process.
    Log(Arc<Published>),
    /// By the durable marks of another process's log.
    DurableMarks(Option<Box<DurableProbe>>),
}

/// A reader in another process looks again after so long, at first and at most.
const FIRST_WAIT_NS: u64 = 1_000_000;
const LONGEST_WAIT_NS: u64 = 50_000_000;

impl Reader {
    /// Reads the log in `dir`, which another process may have open for writing.
    ///
    /// Takes no lock and changes nothing. What is durable it learns from the log's frames:
    /// with `Visibility::Durable` an entry appears once a later frame says that it is
    /// durable, at the latest the one that an idle log writes after
    /// [`idle_mark`](crate::Options::idle_mark). Entries that a killed writer had not
    /// marked as durable appear after its recovery.
    ///
    /// `range` is a [`Range`], or what becomes one: the [`Position`] to begin at, `lsn..`,
    /// `seq..seq`, or `..`. A reader whose range has an end shows nothing from there on.
    ///
    /// # Errors
    /// [`Error::NotALog`], [`Error::Unsupported`], [`Error::Corrupt`], [`Error::Io`];
    /// [`Error::Purged`] when the range begins below the log's start, [`Error::Gap`] when it
    /// begins below damage above which the log is whole, [`Error::Diverged`] when what lies
    /// before one of its ends was cut off by a later epoch.
    pub fn open(
        io: Arc<dyn Io>,
        dir: impl AsRef<Path>,
        range: impl Into<Range>,
        visibility: Visibility,
    ) -> Result<Self> {
        let dir = Directory::of_log(io.as_ref(), dir.as_ref())?;
        Self::open_in(io, dir, range, visibility)
    }

    /// Does what [`open`](Self::open) does, in a directory that is open.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_in(
        io: Arc<dyn Io>,
        dir: Directory,
        range: impl Into<Range>,
        visibility: Visibility,
    ) -> Result<Self> {
        let disk = Disk { io, dir, direct: true };
        Self::new(disk, Bound::DurableMarks(None), range.into(), visibility)
    }

    /// Reads the log that `published` writes.
    pub(crate) fn of_log(
        published: Arc<Published>,
        io: Arc<dyn Io>,
        dir: Directory,
        direct: bool,
        range: Range,
        visibility: Visibility,
    ) -> Result<Self> {
        let disk = Disk { io, dir, direct };
        Self::new(disk, Bound::Log(published), range, visibility)
    }

    fn new(disk: Disk, bound: Bound, range: Range, visibility: Visibility) -> Result<Self> {
        // Only what is not durable may be unconnected to what is before it.
        let unsure = visibility == Visibility::Written && matches!(bound, Bound::DurableMarks(_));
        let (index, cursor, skip) = begin(&disk, range, unsure)?;
        let mut reader = Self {
            generation: index.generation,
            lookup: Lookup::default(),
            next_seq: None,
            current: None,
            doubted: false,
            disk,
            index,
            cursor,
            bound,
            visibility,
            skip,
            until: range.to.upper_limit(),
            earlier_until: None,
            finished: false,
        };
        if range.from == Position::End {
            let lsn = reader.mark(Lsn::MAX)?;
            reader.skip = Position::from(lsn).lower_limit();
        }
        Ok(reader)
    }

    /// The next entry; `None` when there is none (yet) that may be shown, or the range's
    /// end was reached ([`is_finished`](Self::is_finished)). Never waits for the writer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when what was durable is damaged; [`Error::Purged`] when the
    /// next entry was purged; [`Error::Diverged`] when what was read last was cut off by a
    /// later epoch; [`Error::Io`], after which the call may be made again.
    /// [`Error::Poisoned`] of a log in this process, once all that is durable was read.
    #[expect(clippy::should_implement_trait, reason = "it lends its buffer")]
    pub fn next(&mut self) -> Result<Option<EntryView<'_>>> {
        if self.find()? { self.take() } else { Ok(None) }
    }

    /// As [`next`](Self::next), but the entry owns what it needs of its frame: it can be
    /// kept, and sent to other threads. Its payload is not copied; [`Entry`] says what
    /// memory it keeps alive.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_owned(&mut self) -> Result<Option<Entry>> {
        if self.find()? { self.take_owned() } else { Ok(None) }
    }

    /// Iterates over the entries that may be shown now, as [`next_owned`](Self::next_owned)
    /// returns them. Ends where that returns `None`; there may be more entries later.
    pub fn entries(&mut self) -> impl Iterator<Item = Result<Entry>> {
        std::iter::from_fn(|| self.next_owned().transpose())
    }

    /// The next entry, waiting for it until `timeout` has passed (`None`). Does not wait at
    /// the range's end.
    ///
    /// In the writer's process the thread sleeps until the watermark moves. Elsewhere it
    /// looks at the files again after 1 ms, then ever less often, at last every 50 ms.
    ///
    /// # Errors
    /// As [`next`](Self::next), and [`Error::Closed`] when the log in this process was
    /// closed and everything was read.
    pub fn wait_next(&mut self, timeout: Duration) -> Result<Option<EntryView<'_>>> {
        if self.wait_to_find(timeout)? { self.take() } else { Ok(None) }
    }

    /// As [`wait_next`](Self::wait_next), but the entry is as from
    /// [`next_owned`](Self::next_owned).
    ///
    /// # Errors
    /// As [`wait_next`](Self::wait_next).
    pub fn wait_next_owned(&mut self, timeout: Duration) -> Result<Option<Entry>> {
        if self.wait_to_find(timeout)? { self.take_owned() } else { Ok(None) }
    }

    /// What the reader waits for when there is nothing to show: that this may be shown.
    pub(crate) fn waits_for(&self) -> (Visibility, Lsn) {
        (self.visibility, self.cursor.lsn())
    }

    /// As [`find`](Self::find), until `timeout` has passed.
    fn wait_to_find(&mut self, timeout: Duration) -> Result<bool> {
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline = self.disk.io.now_ns().saturating_add(timeout);
        let mut wait = FIRST_WAIT_NS;
        loop {
            // Asked before the scan, so that nothing is missed that was read then.
            let closed = matches!(&self.bound, Bound::Log(published) if published.is_stopped());
            if self.find()? {
                return Ok(true);
            }
            if self.finished {
                return Ok(false);
            }
            if closed {
                return Err(Error::Closed);
            }
            let left = deadline.saturating_sub(self.disk.io.now_ns());
            if left == 0 {
                return Ok(false);
            }
            match &self.bound {
                Bound::Log(published) => {
                    let left = Duration::from_nanos(left);
                    published.wait_to_read(self.visibility, self.cursor.lsn(), left);
                }
                Bound::DurableMarks(_) => {
                    self.disk.io.sleep_ns(wait.min(left));
                    wait = (2 * wait).min(LONGEST_WAIT_NS);
                }
            }
        }
    }

    /// Returns whether the end of the reader's range was reached: no entry will follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Where reading goes on: keep it, and give it to [`Position::Lsn`] later.
    #[must_use]
    pub fn position(&self) -> (Epoch, Lsn) {
        let next = self.current.as_ref().map_or(self.cursor.lsn(), |current| current.at.lsn);
        (self.cursor.epoch, next.max(self.skip.lsn))
    }

    /// The first position that is not purged, as far as the reader has noticed.
    #[must_use]
    pub fn low_water(&self) -> Lsn {
        self.index.low_water()
    }

    /// Makes sure that `current` is at an entry that the reader may show; returns false
    /// when there is none.
    fn find(&mut self) -> Result<bool> {
        loop {
            if !self.finished && self.current.is_some() && self.find_in_frame()? {
                return Ok(true);
            }
            let at = self.cursor.at();
            self.finished = self.finished
                || self.until.is_reached(at.lsn, at.seq)
                // A segment's first frame need not be as late as the one before it.
                || (!self.cursor.is_at_first() && self.is_time_reached(at.wall_ns)?);
            if self.finished {
                return Ok(false);
            }
            if self.generation != self.index.generation {
                self.renew()?;
            }
            let lsn = self.cursor.lsn();
            let mark = self.mark(lsn)?;
            if lsn >= mark {
                // A new epoch says what became of the old one.
                if self.generation != self.index.generation {
                    continue;
                }
                return self.check_poison().map(|()| false);
            }
            self.cursor.raise(mark);
            if !self.step()? {
                return Ok(false);
            }
        }
    }

    /// Goes to the next entry of the current frame. At the range's end it stays there.
    fn find_in_frame(&mut self) -> Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        let (skip, until) = (&self.skip, &self.until);
        if let Bound::Log(published) = &self.bound
            && published.is_poisoned()
            && current.frame.end(self.index.sector()) > published.synced()
        {
            return Err(published.poison_error());
        }
        let body = body(&mut self.cursor, current)?;
        let mut entries = Entries::resume(body, current.at);
        loop {
            current.at = entries.at();
            match entries.next() {
                Some(Ok(entry)) if entry.lsn < skip.lsn || entry.seq < skip.seq => {}
                Some(Ok(entry)) => {
                    self.finished = until.is_reached(entry.lsn, entry.seq);
                    return Ok(!self.finished);
                }
                // The walk has gone through them before.
                Some(Err(_)) | None => break,
            }
        }
        self.current = None;
        Ok(false)
    }

    /// Returns the entry that was found.
    fn take(&mut self) -> Result<Option<EntryView<'_>>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let body = body(&mut self.cursor, current)?;
        Ok(current.next(body))
    }

    /// As [`take`](Self::take), without a borrow of the frame.
    fn take_owned(&mut self) -> Result<Option<Entry>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let (offset, start) = (current.offset, current.frame.lsn);
        let body = body(&mut self.cursor, current)?;
        let Some(view) = current.next(body) else { return Ok(None) };
        let EntryView { lsn, seq, kind, payload, epoch, wall_ns } = view;
        let (at, len) = (lsn.distance_from(start) + ENTRY_HEADER_LEN, payload.len() as u64);
        let payload = self.cursor.frame_reader.read_buffer.share(offset + at, len)?;
        Ok(Some(Entry { lsn, seq, kind, payload, epoch, wall_ns }))
    }

    /// Goes past the next frame, or to where the frames go on; false when there is none.
    fn step(&mut self) -> Result<bool> {
        let (sector, intact) = (self.index.sector(), self.intact());
        let next = self.cursor.frame_reader.peek()?;
        if let Ok(frame) = &next
            && frame.kind == FrameKind::Data
            && !is_after(&self.skip, frame, sector)
        {
            // Asked before the frame is passed: after an error it is the next one still.
            self.finished = self.is_time_reached(frame.wall_ns)?;
            if self.finished || self.generation != self.index.generation {
                return Ok(true);
            }
        }
        let frame_reader = &mut self.cursor.frame_reader;
        let end = match next {
            Ok(frame) if is_after(&self.skip, &frame, sector) && frame.end(sector) <= intact => {
                return Ok(frame_reader.skip()?.is_ok());
            }
            Ok(_) => match frame_reader.step()? {
                Step::Frame(Found { frame, .. })
                    if frame.kind != FrameKind::Data || is_after(&self.skip, &frame, sector) =>
                {
                    return Ok(true);
                }
                Step::Frame(Found { frame, offset, .. }) => {
                    return self.begin_frame(frame, offset).map(|()| true);
                }
                Step::End(end) => end,
            },
            Err(end) => end,
        };
        self.go_on(end)
    }

    /// Returns whether the range ends at this time: as the log is now, no later segment has frames
    /// from before its end.
    fn is_time_reached(&mut self, wall_ns: u64) -> Result<bool> {
        let Some(limit) = self.until.wall_ns.filter(|limit| wall_ns >= *limit) else {
            return Ok(false);
        };
        let here = self.cursor.number();
        if self.earlier_until.is_none_or(|last| last <= here) {
            self.index.refresh(&self.disk)?;
            let last = self.index.locate(&self.disk, false, |first| first.wall_ns < limit)?;
            self.earlier_until = Some(last.number);
        }
        Ok(self.earlier_until.is_none_or(|last| last <= here))
    }

    /// Below it no frame's body can be torn: what is passed over there need not be read.
    fn intact(&self) -> Lsn {
        match (&self.bound, self.visibility) {
            (Bound::DurableMarks(durable_probe), Visibility::Written) => durable_probe
                .as_deref()
                .map_or(Lsn::ZERO, DurableProbe::durable)
                .max(self.index.durable()),
            _ => Lsn::MAX,
        }
    }

    fn begin_frame(&mut self, frame: Frame, offset: u64) -> Result<()> {
        // Where one epoch takes over from another, only this shows that nothing is missing.
        if self.next_seq.is_some_and(|next| next != frame.first_seq) {
            let end = End::Damage(FrameDamage::Seq);
            return Err(damaged(&self.cursor, frame.lsn, end));
        }
        self.next_seq = Some(frame.next_seq());
        self.doubted = false;
        // From here on the range leaves nothing out, whatever the time of a later segment.
        self.skip.wall_ns = None;
        self.current = Some(Current { frame, offset, at: EntriesAt::start(&frame) });
        Ok(())
    }

    /// No frame is here though one must be: finds where it is, or says what is wrong.
    /// False when it may not be there yet.
    fn go_on(&mut self, end: End) -> Result<bool> {
        if self.cursor.cross(&self.disk, &self.index)? || self.index.refresh(&self.disk)? {
            return Ok(true);
        }
        let lsn = self.cursor.lsn();
        if lsn < self.index.low_water() {
            return self.locate().map(|()| true);
        }
        let durable = self.durable(lsn)?;
        if self.generation != self.index.generation {
            return Ok(true);
        }
        // What is in memory may have been read before it was written.
        self.cursor.frame_reader.read_buffer.forget();
        if lsn >= durable {
            return Ok(false);
        }
        self.doubted = !self.doubted;
        if self.doubted {
            return Ok(true);
        }
        Err(damaged(&self.cursor, durable, end))
    }

    /// There may be later epochs: goes on in them, if they took over what was read.
    fn renew(&mut self) -> Result<()> {
        let (epoch, lsn) = self.position();
        faults::reader::check_read(self.index.timeline().check_read(epoch, lsn))?;
        self.earlier_until = None;
        if let Bound::DurableMarks(durable_probe) = &mut self.bound {
            *durable_probe = None;
        }
        if !self.cursor.renew(&self.index) {
            self.locate()?;
        }
        self.generation = self.index.generation;
        Ok(())
    }

    /// Goes on from the same position in the segment where it is now.
    fn locate(&mut self) -> Result<()> {
        let (_, lsn) = self.position();
        if lsn < self.index.low_water() || self.index.gap_at(lsn.into()).is_some() {
            return Err(purged(&self.index, lsn.into()));
        }
        let begin = self.index.locate(&self.disk, false, |first| first.lsn <= lsn)?;
        let cursor = ReadCursor::open(&self.disk, &self.index, begin, READ_LEN)?;
        self.cursor = cursor.ok_or_else(|| purged(&self.index, lsn.into()))?;
        self.skip.lsn = lsn;
        Ok(())
    }

    /// Entries below it may be shown; looks further only when `lsn` is not below it.
    fn mark(&mut self, lsn: Lsn) -> Result<Lsn> {
        match (&self.bound, self.visibility) {
            (Bound::Log(published), Visibility::Written) if !published.is_poisoned() => {
                Ok(published.written())
            }
            (Bound::Log(published), _) => {
                Ok(faults::reader::durable(published.synced(), || published.written()))
            }
            (Bound::DurableMarks(_), visibility) => self.durable_probe(lsn, visibility),
        }
    }

    /// Everything below it is durable; looks further only when `lsn` is not below it.
    fn durable(&mut self, lsn: Lsn) -> Result<Lsn> {
        match &self.bound {
            // Of a log in this process what is written is there, too.
            Bound::Log(_) => self.mark(lsn),
            Bound::DurableMarks(_) => self.durable_probe(lsn, Visibility::Durable),
        }
    }

    fn durable_probe(&mut self, lsn: Lsn, visibility: Visibility) -> Result<Lsn> {
        let Self { disk, index, bound: Bound::DurableMarks(durable_probe), .. } = self else {
            return Ok(Lsn::ZERO);
        };
        let known = |durable_probe: &DurableProbe| match visibility {
            Visibility::Durable => durable_probe.durable(),
            Visibility::Written => durable_probe.durable().max(durable_probe.seen()),
        };
        let before = durable_probe.as_deref().map_or(Lsn::ZERO, known).max(index.durable());
        if before > lsn {
            return Ok(before);
        }
        if durable_probe.is_none() {
            let unsure = visibility == Visibility::Written;
            let begin = index.locate(disk, unsure, |first| first.lsn <= lsn)?;
            *durable_probe = DurableProbe::open(disk, index, begin)?.map(Box::new);
        }
        match durable_probe {
            Some(durable_probe) => {
                durable_probe.look(disk, index, |durable_probe| known(durable_probe) > lsn)?;
                Ok(known(durable_probe).max(index.durable()))
            }
            // The segment was purged just now.
            None => {
                index.refresh(disk)?;
                Ok(index.durable())
            }
        }
    }

    /// Nothing more may be shown now. Returns an error if that is for good.
    fn check_poison(&self) -> Result<()> {
        match &self.bound {
            Bound::Log(published) if published.is_poisoned() => Err(published.poison_error()),
            _ => Ok(()),
        }
    }
}
