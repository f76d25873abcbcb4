//! How a log is opened: every option with its unit, range and default.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::{self, FRAME_HEADER_LEN};
use crate::io::{Io, std::StdIo};
use crate::position::Level;

/// What `append` does when the ring has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// Wait until there is room.
    #[default]
    Block,
    /// Return [`Error::Full`] at once.
    Full,
}

/// How the log's data reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Method {
    /// `O_DIRECT`, with `RWF_DSYNC` on the writes that must be durable. Falls back to
    /// `Buffered` where the file system refuses, and says so in the statistics.
    #[default]
    Direct,
    /// Through the page cache, with `fdatasync`. The faster one for threads that wait for each
    /// of their Balanced appends: a write is a copy to the kernel, and none waits for the
    /// device.
    Buffered,
}

impl Method {
    /// The lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

/// Who does the work that no waiting thread does: time bounds, futures, spares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[doc(hidden)]
pub enum Background {
    /// Two threads of the log's own.
    #[default]
    Threads,
    /// The caller, by `Log::step`: single-threaded and deterministic, for simulation.
    Manual,
}

/// Options of a log; see each setter for unit, range and default.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) method: Method,
    pub(crate) level: Level,
    pub(crate) overflow: Overflow,
    pub(crate) sector: u32,
    pub(crate) segment_len: u64,
    pub(crate) ring_len: u64,
    pub(crate) max_frame_len: Option<u64>,
    pub(crate) depth: Option<usize>,
    pub(crate) flush_interval: Duration,
    pub(crate) sync_interval: Duration,
    pub(crate) balanced_interval: Duration,
    pub(crate) balanced_entries: u64,
    pub(crate) balanced_max_unsynced: u64,
    pub(crate) idle_promise: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) background: Background,
    pub(crate) zeros_pay_below: u64,
}

/// Frames are closed at this length when their entries allow it.
pub(crate) const SOFT_FRAME_LEN: u64 = 1024 * 1024;
/// Room in an opening segment beyond what it takes over.
const OPENING_ROOM: u64 = 4 * 1024 * 1024;
const MIN_SEGMENT: u64 = 16 * 1024;
const MIN_RING: u64 = 16 * 1024;
const MAX_RING: u64 = 4 * format::MAX_FRAME_LEN;
/// About what a disk writes in the time that a sync into reserved space takes longer.
const ZEROS_PAY_BELOW: u64 = 256 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            io: Arc::new(StdIo::new()),
            method: Method::default(),
            level: Level::default(),
            overflow: Overflow::default(),
            sector: 4096,
            segment_len: 64 * 1024 * 1024,
            ring_len: 32 * 1024 * 1024,
            max_frame_len: None,
            depth: None,
            flush_interval: Duration::from_millis(10),
            sync_interval: Duration::from_secs(1),
            balanced_interval: Duration::from_millis(100),
            balanced_entries: 10_000,
            balanced_max_unsynced: 64 * 1024 * 1024,
            idle_promise: Duration::from_millis(50),
            lock_timeout: Duration::from_secs(5),
            background: Background::default(),
            zeros_pay_below: ZEROS_PAY_BELOW,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty),* $(,)?) => {
        impl Options {
            $($(#[$doc])*
            pub fn $name(mut self, $name: $ty) -> Self {
                self.$name = $name;
                self
            })*
        }
    };
}

setters! {
    /// The file system to work on, and the backend: [`StdIo`] or
    /// [`UringIo`](crate::io::uring::UringIo). Default: `StdIo`.
    io: Arc<dyn Io>,
    /// How data reach the disk. Default: [`Method::Direct`].
    method: Method,
    /// The level of an append that names none. Default: [`Level::Balanced`].
    level: Level,
    /// What an append does when the ring has no room. Default: [`Overflow::Block`].
    overflow: Overflow,
    /// Sector size in bytes of a log that is created: a power of two from 512 to 16384,
    /// at least the device's physical sector. A log that exists keeps its own.
    /// Default: 4096.
    sector: u32,
    /// Length in bytes of segment files: at least 16 KiB, a multiple of the sector.
    /// Default: 64 MiB.
    segment_len: u64,
    /// Bytes of the ring in memory: a power of two from 16 KiB to 256 MiB.
    /// It bounds what a crash of the process can take from Relaxed entries. All of it is
    /// taken from the system in the background, soon after the log is started.
    /// Default: 32 MiB.
    ring_len: u64,
    /// A write starts so long after the first unwritten entry. Default: 10 ms.
    flush_interval: Duration,
    /// A sync starts so long after the first unsynced Relaxed entry. Default: 1 s.
    sync_interval: Duration,
    /// A sync starts so long after the first unsynced Balanced (or unwaited Strict)
    /// entry. Default: 100 ms.
    balanced_interval: Duration,
    /// A sync starts when so many entries are unsynced, those of frames that hold only
    /// Relaxed ones not counted. Default: 10,000.
    balanced_entries: u64,
    /// Balanced receipts wait while more than so many bytes are written and not synced: at
    /// least the largest frame. A value above what two segments hold is no bound of its
    /// own: a third segment is not written to before the first of three is synced.
    /// Default: 64 MiB.
    balanced_max_unsynced: u64,
    /// After so long without work the log writes down that all is durable.
    /// Default: 50 ms.
    idle_promise: Duration,
    /// How long an open waits for another writer to go away. Default: 5 s.
    lock_timeout: Duration,
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest frame in bytes, header and padding included; the largest entry is a
    /// little smaller. At most a quarter of the ring, and what a segment holds.
    /// Default: that much.
    pub fn max_frame_len(mut self, max_frame_len: u64) -> Self {
        self.max_frame_len = Some(max_frame_len);
        self
    }

    /// Writes in flight at once, from 1 to 1024; a backend may do fewer. Default: what
    /// suits the backend, 2 for `std`, 8 for `io_uring`.
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// The depth to ask the backend for.
    pub(crate) fn wanted_depth(&self) -> usize {
        self.depth.unwrap_or_else(|| self.io.usual_depth())
    }

    /// Work is done by `Log::step` alone.
    #[doc(hidden)]
    pub fn manual(mut self) -> Self {
        self.background = Background::Manual;
        self
    }

    /// Zeros are written ahead, into the next segment, while a sync makes at most so many
    /// bytes durable on average: short segments never see more, and tests want both.
    #[doc(hidden)]
    pub fn zeros_pay_below(mut self, zeros_pay_below: u64) -> Self {
        self.zeros_pay_below = zeros_pay_below;
        self
    }

    /// Is work done by `Log::step` alone?
    #[doc(hidden)]
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.background == Background::Manual
    }

    /// The file system.
    #[must_use]
    pub fn file_system(&self) -> &Arc<dyn Io> {
        &self.io
    }

    /// How long an open waits for the lock.
    #[must_use]
    pub fn lock_wait(&self) -> Duration {
        self.lock_timeout
    }

    /// Is direct I/O asked for?
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.method == Method::Direct
    }

    /// The sector of a log to be created.
    #[must_use]
    pub fn sector_len(&self) -> u32 {
        self.sector
    }

    /// These options for a log whose sector is fixed already.
    ///
    /// # Errors
    /// [`Error::Options`] when an option is out of its range.
    pub fn checked(&self, sector: u32) -> Result<Self> {
        let mut options = self.clone();
        options.sector = sector;
        options.check()?;
        Ok(options)
    }

    /// Length in bytes of the segment that opens an epoch and takes over `tail_len` bytes
    /// of frames: what they need and a little more, so that an open is not kept waiting
    /// for a whole segment of zeros. The next one, made meanwhile, has the full length.
    #[must_use]
    pub fn opening_len(&self, tail_len: u64) -> u64 {
        let sector = u64::from(self.sector);
        let fresh = OPENING_ROOM.max(self.frame_limit()) / sector * sector;
        2 * sector + tail_len + fresh.min(self.segment_len - 2 * sector)
    }

    /// The longest frame in bytes that these options allow.
    #[must_use]
    pub fn frame_limit(&self) -> u64 {
        let sector = u64::from(self.sector);
        let bound = (self.ring_len / 4)
            .min(self.segment_len.saturating_sub(2 * sector))
            .min(format::MAX_FRAME_LEN);
        self.max_frame_len.unwrap_or(bound).min(bound) / sector * sector
    }

    fn check(&self) -> Result<()> {
        let sector = u64::from(self.sector);
        let fail = |option, reason: String| Err(Error::Options { option, reason });
        if !format::is_valid_sector(self.sector) {
            return fail("sector", format!("{sector} is not a power of two from 512 to 16384"));
        }
        if self.segment_len < MIN_SEGMENT || !self.segment_len.is_multiple_of(sector) {
            return fail(
                "segment_len",
                format!("{} is below 16 KiB or no multiple of the sector", self.segment_len),
            );
        }
        if !(MIN_RING..=MAX_RING).contains(&self.ring_len) || !self.ring_len.is_power_of_two() {
            return fail(
                "ring_len",
                format!("{} is no power of two from 16 KiB to 256 MiB", self.ring_len),
            );
        }
        if self.frame_limit() < FRAME_HEADER_LEN + format::entry_len(1) {
            return fail("max_frame_len", "no entry fits into a frame".to_owned());
        }
        if let Some(depth) = self.depth.filter(|depth| !(1..=1024).contains(depth)) {
            return fail("depth", format!("{depth} is not within 1 and 1024"));
        }
        if self.flush_interval.is_zero() || self.flush_interval > self.balanced_interval {
            return fail("flush_interval", "must be above 0, at most balanced_interval".to_owned());
        }
        if self.balanced_entries == 0 {
            return fail("balanced_entries", "must be above 0".to_owned());
        }
        if self.balanced_max_unsynced < self.frame_limit() {
            return fail(
                "balanced_max_unsynced",
                format!("must hold the largest frame, {} bytes", self.frame_limit()),
            );
        }
        Ok(())
    }
}
