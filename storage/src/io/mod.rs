//! Every access to a disk goes through these traits, so that the simulator sees it.
//!
//! [`Io`] is a file system with a clock and randomness, [`Dir`] an open directory, [`File`] an
//! open file, [`Queue`] carries the log's data: several writes and syncs in flight, whose completions may arrive
//! in any order. Backends: [`mod@std`] and `uring` for Linux, and the simulated disk `sim`.
//! One conformance suite tests all of them (`storage/tests/io_conformance.rs`).

mod buffer;
pub mod ring_memory;
#[cfg(feature = "sim")]
pub mod sim;
pub mod std;
#[cfg(feature = "uring")]
pub mod uring;

use ::std::fmt;
use ::std::io;
use ::std::os::fd::BorrowedFd;
use ::std::path::Path;
use ::std::sync::Arc;

pub use buffer::AlignedBuf;
pub use ring_memory::RingBytes;

/// Alignment of memory, offsets and lengths that suits direct I/O on every device
/// whose sector a log accepts.
pub const DIRECT_ALIGN: usize = 4096;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// For writing as well as reading.
    pub write: bool,
    /// Bypass the page cache where the file system can (`O_DIRECT`). Then memory must
    /// be aligned to [`DIRECT_ALIGN`], and offsets and lengths to the log's sector.
    pub direct: bool,
}

impl Access {
    /// Reading through the page cache.
    pub const READ: Self = Self { write: false, direct: false };
    /// Reading and writing through the page cache.
    pub const WRITE: Self = Self { write: true, direct: false };
}

/// What a directory entry is, without following links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// Anything else: a link, a FIFO, a device, a socket.
    Other,
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name; entries whose names are not UTF-8 are not ours and are skipped.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes of a regular file.
    pub len: u64,
    /// A regular file has more than one name.
    pub is_linked: bool,
}

/// A file system, a clock and a source of randomness.
///
/// A path is used once, to open a directory: everything after that goes through the open
/// [`Dir`], whatever the path comes to mean.
pub trait Io: fmt::Debug + Send + Sync + 'static {
    /// Returns the backend's name, for statistics and messages.
    fn name(&self) -> &'static str;

    /// Returns whether a run must be reproducible: then one thread does all reads of a
    /// recovery, in an order that only the files determine.
    fn is_deterministic(&self) -> bool {
        false
    }

    /// Creates a directory, mode 0700. One that exists is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a directory (`NotADirectory` when it is none).
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;

    /// Returns a queue for at most `depth` operations in flight; a backend may have a lower
    /// depth of its own.
    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>>;

    /// Returns the depth that suits the backend, used when no other is requested.
    fn usual_depth(&self) -> usize {
        1
    }

    /// Returns the nanoseconds of a clock that never goes back.
    fn now_ns(&self) -> u64;

    /// Returns the wall time in nanoseconds since 1970.
    fn wall_ns(&self) -> u64;

    /// Blocks the thread for `ns` nanoseconds.
    fn sleep_ns(&self, ns: u64);

    /// Fills `bytes` with randomness that no one can predict.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// An open directory. It stays the same one when its path is moved, removed or mounted over.
/// A name is one component, without a slash.
pub trait Dir: fmt::Debug + Send + Sync {
    /// Creates a directory in this one, mode 0700. One that exists is fine.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Opens a directory in this one; never follows a link (`NotADirectory`).
    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Dir>>;

    /// Lists the entries, in no particular order.
    fn list(&self) -> io::Result<Vec<DirEntry>>;

    /// Makes the entries durable: creations, renames and unlinks. After a failure it must not
    /// be retried.
    fn sync(&self) -> io::Result<()>;

    /// Renames a file, replacing the target atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Renames a file to a name that nothing has (`AlreadyExists`).
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Creates a file, mode 0600, that must not exist (`AlreadyExists`). Where the file
    /// system refuses direct access, the file is opened without it; [`File::is_direct`] tells
    /// which.
    fn create(&self, name: &str, direct: bool) -> io::Result<Arc<dyn File>>;

    /// Opens a regular file that exists; never follows a link, never blocks on a FIFO
    /// (`InvalidInput` when it is not a regular file).
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>>;

    /// Makes every file and directory that is created from now on, here and below, belong to the
    /// owner and the group of the file `name` and have its rights. A log that another user
    /// opens stays its owner's.
    ///
    /// Fails with `PermissionDenied` where this process may not do so.
    fn create_as(&self, name: &str) -> io::Result<()>;

    /// Tries to take the writer's lock, on the directory itself and on the file `name`, which
    /// it creates; `None` when another handle has either. Removing or replacing that file does
    /// not release it. The lock is held until the returned guard is dropped or the process
    /// ends.
    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;

    /// Tries to lock the file `name` alone, which exists; `None` when another handle has it. It
    /// keeps away only others that lock the same file. The lock is held until the returned guard
    /// is dropped or the process ends.
    fn try_lock_file(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>>;

    /// Returns the physical sector in bytes of the device below it, if it is known.
    fn physical_sector(&self) -> Option<u32>;
}

/// A held lock; dropping it releases it.
pub trait Lock: fmt::Debug + Send + Sync {
    /// Returns the descriptor that holds the lock, for a queue that must keep it held; `None`
    /// where there is none.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An open file. Its operations block; a count may be short, as in `pread` and `pwrite`.
pub trait File: fmt::Debug + Send + Sync {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Returns whether direct access was requested and granted.
    fn is_direct(&self) -> bool;

    /// Reads at an offset; 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset; the file grows as needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes two pieces, one after the other, at an offset; with `dsync`, the bytes counted,
    /// and only they, are durable on return.
    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize>;

    /// Makes data and length durable (`fdatasync`). After a failure it must not be retried.
    fn sync(&self) -> io::Result<()>;

    /// Truncates or extends the file to a length.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves blocks for the first `len` bytes and makes the file that long, reading
    /// as zeros where it was not written. `Unsupported` where the file system can't.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Returns the descriptor, for a queue that passes operations to the kernel; `None` where
    /// there is none. A write by the kernel must have the effect of
    /// [`write_pieces_at`](Self::write_pieces_at).
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Identifies one operation in flight; chosen by the submitter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// An operation for a [`Queue`].
#[derive(Debug)]
pub enum Request {
    /// Write `bytes` at `offset`; with `dsync`, complete only once *these* bytes (and no
    /// others) are durable.
    Write {
        /// The file.
        file: Arc<dyn File>,
        /// Where in it.
        offset: u64,
        /// Sealed bytes of the ring: nobody changes them before the completion.
        bytes: RingBytes,
        /// Write through to the medium (`RWF_DSYNC`).
        dsync: bool,
    },
    /// Make everything written to the file by operations *completed before this was
    /// submitted* durable.
    Sync {
        /// The file.
        file: Arc<dyn File>,
    },
}

impl Request {
    /// Performs the operation now, and blocks until it is done; returns the bytes written.
    pub fn perform(&self) -> io::Result<u64> {
        match self {
            Self::Write { file, offset, bytes, dsync } => {
                file.write_pieces_at(bytes.pieces(), *offset, *dsync).map(|count| count as u64)
            }
            Self::Sync { file } => file.sync().map(|()| 0),
        }
    }
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Which operation.
    pub ticket: Ticket,
    /// Bytes written (perhaps fewer than asked), 0 for a sync; or the error.
    pub result: io::Result<u64>,
}

/// The queue that a backend falls back to when it can't have its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fallback {
    /// The backend that does the work.
    pub backend: &'static str,
    /// Why it is not the one asked for.
    pub reason: &'static str,
}

/// Operations in flight. Dropping it waits for them (a simulated crash does not wait).
///
/// # Safety
/// The bytes of a write lie in the ring, where an appender writes again once the write is
/// reported. So before [`complete`](Self::complete) reports that a write was done, all of its
/// [`RingBytes`] are dropped, and nobody else (a kernel, a device, another thread) reads what
/// they point to. Only after an error may that go on: the log then uses none of it again.
pub unsafe trait Queue: fmt::Debug + Send {
    /// Returns how many operations may be in flight.
    fn depth(&self) -> usize;

    /// Returns the fallback, if the queue is not the requested backend's.
    fn fallback(&self) -> Option<Fallback> {
        None
    }

    /// Keeps a lock held as long as any submitted operation can still reach the disk, even
    /// when the process dies meanwhile. Needed where operations can outlive the process.
    fn keep(&mut self, lock: &dyn Lock) -> io::Result<()> {
        let _ = lock;
        Ok(())
    }

    /// Starts an operation. May block, and may complete it at once.
    fn submit(&mut self, ticket: Ticket, request: Request);

    /// Takes out a blocking operation for the caller to perform itself, so that others can
    /// use the queue meanwhile. [`complete`](Self::complete) does not report it.
    fn take(&mut self) -> Option<(Ticket, Request)> {
        None
    }

    /// Returns the next completion, in any order; with `wait`, blocks while something is in
    /// flight. `None` when nothing has completed (with `wait`: nothing is in flight).
    fn complete(&mut self, wait: bool) -> Option<Completion>;
}

/// Reads exactly `bytes.len()` bytes, or fewer at the end of the file; returns the count.
///
/// # Errors
/// Those of [`File::read_at`].
pub fn read_full(file: &dyn File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes.
///
/// # Errors
/// Those of [`File::write_at`]; `WriteZero` when the file takes no more.
pub fn write_full(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
