//! How a log is opened: every option with its unit, range and default.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::{self, Content, FRAME_HEADER_LEN};
#[cfg(feature = "sim")]
use crate::io::sim::SimDisk;
use crate::io::{Io, std::StdIo};
use crate::parse::ParseError;
use crate::position::Level;
use crate::progress::{OnProgress, Progress};

/// What `append` does when the ring has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Overflow {
    /// Wait until there is room.
    #[default]
    Block,
    /// Return [`Error::Full`] at once.
    Full,
}

/// How the log's data reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Method {
    /// `O_DIRECT`, with `RWF_DSYNC` on the writes that must be durable. Falls back to
    /// `Buffered` where the file system refuses it; the statistics say so.
    #[default]
    Direct,
    /// Through the page cache, with `fdatasync`. The faster method for threads that wait for
    /// each of their Balanced appends: a write is a copy to the kernel and does not wait for
    /// the device.
    Buffered,
}

impl Method {
    /// Returns the lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

impl Overflow {
    /// Returns the lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = [Self::Direct, Self::Buffered].into_iter().find(|it| it.name() == text);
        found.ok_or_else(|| ParseError::new(text, "direct or buffered"))
    }
}

impl FromStr for Overflow {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = [Self::Block, Self::Full].into_iter().find(|it| it.name() == text);
        found.ok_or_else(|| ParseError::new(text, "block or full"))
    }
}

/// Who does the work that no waiting thread does: time bounds, futures, spare segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Background {
    /// Two threads that the log starts.
    #[default]
    Threads,
    /// The caller, by `Log::step`: single-threaded and deterministic, for simulation.
    Manual,
}

/// Frames are sealed at this length when their entries allow it.
pub const SOFT_FRAME_LEN: u64 = 1024 * 1024;
/// Room in an epoch-start segment beyond the tail that it takes over.
const EPOCH_START_ROOM: u64 = 4 * 1024 * 1024;
const MIN_SEGMENT: u64 = 16 * 1024;
const MIN_RING: u64 = 16 * 1024;
const MAX_RING: u64 = 4 * format::MAX_FRAME_LEN;
/// About the number of bytes that a disk writes in the extra time of a sync into reserved
/// space.
const ZEROS_PAY_BELOW: u64 = 256 * 1024;

/// Declares the options once: a public field, and a setter of the same name.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $default:expr),* $(,)?) => {
        /// How to open a log. Every option has a field to read and a setter of the same name.
        ///
        /// ```
        /// use bulla_storage::{Level, Options};
        ///
        /// let options = Options::new().level(Level::Strict).segment_len(1 << 20);
        /// assert_eq!(options.level, Level::Strict);
        /// ```
        #[derive(Clone, Debug)]
        #[must_use]
        #[non_exhaustive]
        pub struct Options {
            $($(#[$doc])* pub $name: $ty,)*
            /// The longest frame in bytes, header and padding included; the largest entry is
            /// slightly smaller. `None` (the default) allows as much as the ring and the
            /// segment do: a quarter of the ring, and what one segment holds.
            pub max_frame_len: Option<u64>,
            /// Writes in flight at once, from 1 to 1024; a backend may allow fewer. `None`
            /// (the default) takes what suits the backend: 2 for `std`, 8 for `io_uring`.
            pub depth: Option<usize>,
            /// What the entries of the log are: a log that is created says so for good, and one
            /// that says otherwise is not opened for writing
            /// ([`Error::OtherContent`]). `None` opens any; a log that is created is then of
            /// plain entries. Default: [`Content::PLAIN`].
            pub content: Option<Content>,
            /// Called while an open or an inspection reads the log. Set it with
            /// [`on_progress`](Self::on_progress).
            pub on_progress: Option<OnProgress>,
        }

        impl Default for Options {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                    max_frame_len: None,
                    depth: None,
                    content: Some(Content::PLAIN),
                    on_progress: None,
                }
            }
        }

        impl Options {
            $($(#[$doc])*
            pub fn $name(mut self, $name: $ty) -> Self {
                self.$name = $name;
                self
            })*
        }
    };
}

options! {
    /// The file system to work on, and the backend: [`StdIo`] or
    /// [`UringIo`](crate::io::uring::UringIo). Default: `StdIo`.
    io: Arc<dyn Io> = Arc::new(StdIo::new()),
    /// How data reach the disk. Default: [`Method::Direct`].
    method: Method = Method::default(),
    /// The level of an append that names none. Default: [`Level::Balanced`].
    level: Level = Level::default(),
    /// What an append does when the ring has no room. Default: [`Overflow::Block`].
    overflow: Overflow = Overflow::default(),
    /// Sector size in bytes of a new log: a power of two from 512 to 16384, at least the
    /// device's physical sector. An existing log keeps its own. Default: 4096.
    sector: u32 = 4096,
    /// Length in bytes of segment files: at least 16 KiB, a multiple of the sector.
    /// Default: 64 MiB.
    segment_len: u64 = 64 * 1024 * 1024,
    /// Bytes of the ring in memory: a power of two from 16 KiB to 256 MiB. It bounds how many
    /// bytes of Relaxed entries a crash of the process can lose. The first appends take
    /// small pages; a log that is used more has all of it populated in the background, and one
    /// that becomes idle gives it back. Default: 32 MiB.
    ring_len: u64 = 32 * 1024 * 1024,
    /// How long after the first unwritten entry a write starts. Default: 10 ms.
    flush_interval: Duration = Duration::from_millis(10),
    /// How long after the first unsynced Relaxed entry a sync starts. Default: 1 s.
    sync_interval: Duration = Duration::from_secs(1),
    /// How long after the first unsynced Balanced (or unwaited Strict) entry a sync starts.
    /// Default: 100 ms.
    balanced_interval: Duration = Duration::from_millis(100),
    /// How many unsynced entries start a sync, not counting frames that hold only Relaxed
    /// ones. Default: 10,000.
    balanced_entries: u64 = 10_000,
    /// Balanced receipts wait while more than this many bytes are written and not synced: at
    /// least the largest frame. A value above what two segments hold adds no bound: the log
    /// writes to a third segment only when the first of the three is synced. Default: 64 MiB.
    balanced_max_unsynced: u64 = 64 * 1024 * 1024,
    /// How long the log is idle before it writes a durable mark for everything. Default: 50
    /// ms.
    idle_mark: Duration = Duration::from_millis(50),
    /// How long an open waits for another writer to close the log. Default: 5 s.
    lock_timeout: Duration = Duration::from_secs(5),
    /// Who does the background work. Default: [`Background::Threads`].
    background: Background = Background::default(),
    /// The log fills the next segment with zeros in advance while a sync covers at most this
    /// many bytes on average: zeros spare each sync a metadata change and cost one write of
    /// the segment. Default: 256 KiB.
    zeros_pay_below: u64 = ZEROS_PAY_BELOW,
}

#[cfg(feature = "sim")]
impl Options {
    /// Returns options for a log on a simulated disk: a few entries fill several of its segments,
    /// it starts no thread, and an open does not wait for the lock.
    pub fn simulated(disk: &SimDisk) -> Self {
        Self::new()
            .io(disk.process())
            .sector(512)
            .segment_len(MIN_SEGMENT)
            .ring_len(MIN_RING)
            .lock_timeout(Duration::ZERO)
            .manual()
    }
}

impl Options {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the longest frame in bytes. See the field.
    pub fn max_frame_len(mut self, max_frame_len: u64) -> Self {
        self.max_frame_len = Some(max_frame_len);
        self
    }

    /// Sets the number of writes in flight. See the field.
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// Sets what the entries of the log are. See the field.
    pub fn content(mut self, content: Content) -> Self {
        self.content = Some(content);
        self
    }

    /// Opens a log for writing whatever its entries are. See [`content`](Self::content).
    pub fn any_content(mut self) -> Self {
        self.content = None;
        self
    }

    /// Calls `callback` while an open or an inspection reads the log: about once per MiB, from any
    /// of the threads that read, never from two at once; and every 10 ms while an open waits for
    /// another writer (the phase [`Wait`](crate::progress::Phase::Wait)). When it returns `Break`, the open ends
    /// with [`Error::Cancelled`] and has changed nothing; in the phase
    /// [`Replay`](crate::progress::Phase::Replay) of a store it has only recovered the log. The
    /// callback should be quick, since the reading waits for it.
    pub fn on_progress(
        mut self,
        callback: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.on_progress = Some(OnProgress::new(callback));
        self
    }

    /// Leaves all background work to `Log::step`, for simulation.
    pub fn manual(self) -> Self {
        self.background(Background::Manual)
    }

    /// Returns whether `Log::step` does the background work.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.background == Background::Manual
    }

    /// Returns the depth to request from the backend.
    #[must_use]
    pub fn wanted_depth(&self) -> usize {
        self.depth.unwrap_or_else(|| self.io.usual_depth())
    }

    /// Returns whether the data bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.method == Method::Direct
    }

    /// Returns these options for a log whose sector size is already fixed.
    ///
    /// # Errors
    /// [`Error::Options`] when an option is out of its range.
    pub fn checked(&self, sector: u32) -> Result<Self> {
        let mut options = self.clone();
        options.sector = sector;
        options.check()?;
        Ok(options)
    }

    /// Returns the length in bytes of an epoch-start segment that takes over `tail_len` bytes
    /// of frames: what they need and a few MiB more, so that an open does not wait for a
    /// whole segment of zeros. The next segment, made meanwhile, has the full length.
    #[must_use]
    pub fn epoch_start_len(&self, tail_len: u64) -> u64 {
        let sector = u64::from(self.sector);
        let fresh = EPOCH_START_ROOM.max(self.frame_limit()) / sector * sector;
        2 * sector + tail_len + fresh.min(self.segment_len - 2 * sector)
    }

    /// Returns the longest frame in bytes that these options allow.
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
                format!("{} is below 16 KiB or not a multiple of the sector", self.segment_len),
            );
        }
        if !(MIN_RING..=MAX_RING).contains(&self.ring_len) || !self.ring_len.is_power_of_two() {
            return fail(
                "ring_len",
                format!("{} is not a power of two from 16 KiB to 256 MiB", self.ring_len),
            );
        }
        if self.frame_limit() < FRAME_HEADER_LEN + format::entry_len(1) {
            return fail("max_frame_len", "no entry fits into a frame".to_owned());
        }
        if let Some(depth) = self.depth.filter(|depth| !(1..=1024).contains(depth)) {
            return fail("depth", format!("{depth} is not from 1 to 1024"));
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
