//! A simulated machine: a disk that outlives processes, and processes that crash.
//!
//! [`SimDisk`] is the machine, [`SimIo`] one process on it. Deterministic: the same seed and
//! the same calls produce the same bytes, faults and crashes. Sectors, lengths and names that
//! were not synced are lost one by one at a power loss; a kill loses only what was in flight.
//! Never does real I/O and starts no thread. Tested by `storage/tests/sim_disk.rs`.
//!
//! # For other programs
//!
//! Any program that does its I/O through [`Io`](crate::io::Io) can be run on it; nothing here
//! knows about logs. Start a [`process`](SimDisk::process), crash it, start another and check
//! what it finds. There are two ways to crash:
//!
//! - [`crash_after`](SimDisk::crash_after) a number of steps, whose end is drawn from the seed:
//!   many seeds, each with a long run.
//! - [`halt_after`](SimDisk::halt_after) a number of steps, after which every
//!   [`end`](SimDisk::end) can be enumerated: a short run, halted at each of its steps.
//!
//! [`SimConfig`] says what the disk is like, [`fail_next`](SimDisk::fail_next) makes operations
//! fail, and [`lie_next`](SimDisk::lie_next) makes the device deceive. The example `naive_log`
//! finds the sync that a small program lacks:
//! `cargo run -p bulla --features sim --example naive_log`.
//!
//! # Examples
//! ```
//! use std::path::Path;
//!
//! use bulla_storage::io::Io;
//! use bulla_storage::io::sim::{CrashKind, SimDisk};
//!
//! let disk = SimDisk::new(7);
//! let io = disk.process();
//! let file = io.open_dir(Path::new("/"))?.create("file", false)?;
//! file.write_at(b"hello", 0)?;
//! file.sync()?;
//! disk.halt();
//! // The bytes are durable. The name is not: it is there or not.
//! assert_eq!(disk.open_ends(CrashKind::PowerLoss), [2]);
//! assert!(disk.end(1, CrashKind::PowerLoss, &[0]).paths().is_empty());
//! let kept = disk.end(1, CrashKind::PowerLoss, &[1]);
//! assert_eq!(kept.read_file("/file"), b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```

mod by_path;
mod config;
mod contents;
mod disk;
mod ends;
mod faults;
mod inode;
mod names;
mod process;
mod rng;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use by_path::ByPath;
pub use config::{CrashKind, FaultOp, Lie, Meddling, SimConfig, SimCounts};
pub use process::SimIo;

use disk::{Disk, FlightBody, Strike};
use rng::Rng;

/// A simulated machine with one disk. Clones are the same machine.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Disk>>);

impl SimDisk {
    /// Creates an empty disk without faults: only "/" exists.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_config(seed, SimConfig::default())
    }

    /// Creates an empty disk.
    ///
    /// # Panics
    /// When the sector is not a power of two.
    #[must_use]
    pub fn with_config(seed: u64, config: SimConfig) -> Self {
        Self(Arc::new(Mutex::new(Disk::new(seed, config))))
    }

    /// Returns a deep copy of the machine with a new seed, to try several ends of one
    /// beginning.
    ///
    /// Handles stay with the original. What is in flight there is in flight here too,
    /// without anyone to reap it, so crash the copy before starting a process.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let mut disk = self.lock().clone();
        disk.rng = Rng::new(seed);
        disk.open.clear();
        disk.open_dirs.clear();
        for operation in disk.queues.values_mut().flatten() {
            if let FlightBody::Write { held, .. } = &mut operation.body {
                *held = None;
            }
        }
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Starts a process. Other live processes continue.
    #[must_use]
    pub fn process(&self) -> Arc<SimIo> {
        let mut disk = self.lock();
        disk.crashed = false;
        SimIo::new(Arc::clone(&self.0), disk.generation)
    }

    /// Kills all processes; the kernel lives on.
    ///
    /// Completed writes stay visible and stay pending; of a write in flight any subset of
    /// its sectors was done.
    pub fn kill(&self) {
        self.lock().crash(CrashKind::Kill);
    }

    /// Cuts the power: all processes die, and everything that is not durable is kept or lost
    /// piece by piece.
    pub fn power_loss(&self) {
        self.lock().crash(CrashKind::PowerLoss);
    }

    /// Cuts the power, so that only durable contents survive.
    pub fn drop_pending(&self) {
        self.lock().drop_pending();
    }

    /// Makes everything that is visible durable.
    pub fn settle(&self) {
        self.lock().settle();
    }

    /// Arms a crash: `steps` more steps succeed, and the next one is struck.
    ///
    /// Any subset of a struck write's sectors is done; any other operation is done or not.
    /// Its caller gets the error of a dead process. Any crash disarms it.
    pub fn crash_after(&self, steps: u64, kind: CrashKind) {
        let mut disk = self.lock();
        disk.arm(steps, Strike::Crash(kind));
    }

    /// Arms a halt: as [`crash_after`](Self::crash_after), but nothing is left to chance.
    ///
    /// The struck operation was `done` or not, unless it is a write. All else stays open:
    /// [`open_ends`](Self::open_ends) lists it, [`end`](Self::end) decides it. Start no
    /// process before that.
    pub fn halt_after(&self, steps: u64, done: bool) {
        self.lock().arm(steps, Strike::Halt { done });
    }

    /// Kills all processes now, as at a halt.
    pub fn halt(&self) {
        self.lock().strike(Strike::Halt { done: true });
    }

    /// Returns the pieces that a halt has left open, as the number of ends of each, two or
    /// more.
    ///
    /// After a kill these are the sectors of the writes in flight: skipped (0) or done. After
    /// a power loss also every sector, change of a length and change of a name that is not
    /// durable: lost (0), or one of the contents or lengths that were pending, in order.
    #[must_use]
    pub fn open_ends(&self, kind: CrashKind) -> Vec<usize> {
        let mut ends = Vec::new();
        self.lock().clone().end(kind, &mut |count| {
            ends.push(count);
            0
        });
        ends
    }

    /// Returns a copy of the halted machine, as [`fork`](Self::fork) makes it, in which each
    /// open piece has the chosen end: one for each of [`open_ends`](Self::open_ends), in that
    /// order; 0 for those that are missing.
    #[must_use]
    pub fn end(&self, seed: u64, kind: CrashKind, ends: &[usize]) -> Self {
        let copy = self.fork(seed);
        let mut ends = ends.iter();
        copy.lock().end(kind, &mut |_| ends.next().copied().unwrap_or(0));
        copy
    }

    /// Returns a hash of everything that can still be observed of the files: what processes
    /// see, what is durable, what is pending, what a halt has left open. It excludes clocks,
    /// chance and counts.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.lock().fingerprint()
    }

    /// Cancels [`crash_after`](Self::crash_after).
    pub fn disarm(&self) {
        self.lock().armed = None;
    }

    /// Returns how many steps all processes took: calls that touch the disk. Lengths, clocks,
    /// randomness and polls that find nothing do not count.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Returns whether there was a crash since the last [`process`](Self::process).
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Makes one operation fail: of the operations of this kind on a path that contains
    /// `path_contains`, `after` more succeed and the next one fails. A rename matches by
    /// either path. Several may be armed; one fires once, and crashes do not disarm it.
    pub fn fail_next(&self, op: FaultOp, kind: io::ErrorKind, path_contains: &str, after: u64) {
        self.lock().add_script(op, kind, path_contains, after);
    }

    /// Makes the device lie once: of the operations that this lie applies to, on a path that
    /// contains `path_contains`, `after` more are honest and the next one is not.
    pub fn lie_next(&self, lie: Lie, path_contains: &str, after: u64) {
        self.lock().add_lie(lie, path_contains, after);
    }

    /// Returns whether every lie was told; true when none was armed.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        self.lock().lies.is_empty()
    }

    /// Cancels every [`fail_next`](Self::fail_next) and [`lie_next`](Self::lie_next) that has
    /// not fired.
    pub fn clear_faults(&self) {
        self.lock().clear_scripts();
    }

    /// Changes the configuration, except the sector.
    pub fn configure(&self, change: impl FnOnce(&mut SimConfig)) {
        let mut disk = self.lock();
        let sector = disk.config.sector;
        change(&mut disk.config);
        disk.config.sector = sector;
    }

    /// Sets how many bytes files can allocate together.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().config.capacity = capacity;
    }

    /// Lets time pass.
    pub fn advance(&self, ns: u64) {
        self.lock().clock_ns += ns;
    }

    /// Sets how far the wall clock is off; it may go back.
    pub fn set_wall_offset(&self, ns: i64) {
        self.lock().wall_offset_ns = ns;
    }

    /// Returns what the disk has done so far.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        self.lock().counts
    }

    /// Returns the files as processes see them, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().paths()
    }

    /// Returns a file's bytes as processes see them.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let disk = self.lock();
        let node = disk.lookup_file(path.as_ref());
        node.and_then(|node| Ok(disk.file(node)?.cached().to_vec()))
            .unwrap_or_else(|error| panic!("read {}: {error}", path.as_ref().display()))
    }

    /// Stores a file durably, with its name and the directories above it.
    ///
    /// # Panics
    /// When the path leads through a file or to a directory.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let stored = self.lock().store(path.as_ref(), bytes);
        stored.unwrap_or_else(|error| panic!("store {}: {error}", path.as_ref().display()));
    }

    /// Removes a file durably, whatever was pending of it.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn remove_file(&self, path: impl AsRef<Path>) {
        let erased = self.lock().erase(path.as_ref());
        erased.unwrap_or_else(|error| panic!("remove {}: {error}", path.as_ref().display()));
    }

    /// Does what an operator may do, beside processes that run.
    ///
    /// # Panics
    /// When it is not possible: there is no such file or directory, or the target exists.
    pub fn meddle(&self, meddling: &Meddling) {
        let done = self.lock().meddle(meddling);
        done.unwrap_or_else(|error| panic!("{meddling:?}: {error}"));
    }

    /// Arms it: `steps` more steps come before, and it is done with the next one.
    pub fn meddle_after(&self, steps: u64, meddling: Meddling) {
        let mut disk = self.lock();
        disk.meddling = Some((disk.steps.saturating_add(steps).saturating_add(1), meddling));
    }

    /// Returns whether what was armed was done.
    #[must_use]
    pub fn is_meddled(&self) -> bool {
        self.lock().meddled
    }

    /// Damages one byte wherever it is stored: durable, visible and pending. Beyond the
    /// end of the file it does nothing.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let flipped = self.lock().flip(path.as_ref(), offset, mask);
        flipped.unwrap_or_else(|error| panic!("flip {}: {error}", path.as_ref().display()));
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.lock();
        write!(f, "SimDisk(step {}, generation {})", disk.steps, disk.generation)
    }
}

/// Returns the error of every operation of a dead process.
fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

/// Converts to an offset or length in memory.
fn index(value: u64) -> usize {
    // The user of a value that is not a valid index refuses it.
    usize::try_from(value).unwrap_or(usize::MAX)
}
