//! The operating system's files: blocking calls, one operation at a time.
//!
//! Buffered files are synced by `fdatasync`; direct ones are written with `O_DIRECT`,
//! and with `RWF_DSYNC` where the write itself must be durable.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    Access, Completion, DirEntry, Fallback, File, FileKind, Io, Lock, Queue, Request, Ticket,
};

/// The operating system's files and clock.
#[derive(Debug)]
pub struct StdIo {
    start: Instant,
}

impl StdIo {
    /// Creates a handle; its only state is the origin of its clock.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for StdIo {
    fn default() -> Self {
        Self::new()
    }
}

impl Io for StdIo {
    fn name(&self) -> &'static str {
        "std"
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // `DirEntry::metadata` does not follow links.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let kind = if metadata.is_file() {
                FileKind::Regular
            } else if metadata.is_dir() {
                FileKind::Directory
            } else {
                FileKind::Other
            };
            entries.push(DirEntry { name, kind, len: metadata.len() });
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(rustix::fs::fsync(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        if direct {
            match open(path, flags | OFlags::DIRECT) {
                // Some file systems create the name before they refuse the flag.
                Err(Errno::INVAL) => match open(path, OFlags::RDWR) {
                    Ok(fd) => return Ok(created(fd, false)?),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                },
                Ok(fd) => return Ok(created(fd, true)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(created(open(path, flags)?, false)?)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let flags = if access.write { OFlags::RDWR } else { OFlags::RDONLY };
        let mut direct = access.direct;
        let mut opened = open(path, flags | if direct { OFlags::DIRECT } else { OFlags::empty() });
        if direct && matches!(opened, Err(Errno::INVAL)) {
            direct = false;
            opened = open(path, flags);
        }
        let fd = opened.map_err(|error| match error {
            // A link, a directory opened for writing, a socket.
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => not_regular(),
            error => error.into(),
        })?;
        let stat = rustix::fs::fstat(&fd)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(not_regular());
        }
        blocking(&fd)?;
        Ok(Arc::new(StdFile { fd, direct }))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let fd = open(path, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(StdLock { fd }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(StdQueue::new(depth)))
    }

    fn usual_depth(&self) -> usize {
        USUAL_DEPTH
    }

    fn physical_sector(&self, path: &Path) -> Option<u32> {
        let device = fs::metadata(path).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let block = format!("/sys/dev/block/{major}:{minor}");
        // A partition has no queue of its own; its disk, the parent folder, has one.
        [format!("{block}/queue"), format!("{block}/../queue")].iter().find_map(|queue| {
            let text = fs::read_to_string(format!("{queue}/physical_block_size")).ok()?;
            text.trim().parse().ok()
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wall_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_ns(&self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            done += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    // O_NONBLOCK keeps a FIFO from blocking the open.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
}

fn created(fd: OwnedFd, direct: bool) -> Result<Arc<dyn File>, Errno> {
    blocking(&fd)?;
    Ok(Arc::new(StdFile { fd, direct }))
}

/// Clears `O_NONBLOCK`: it means nothing to `pwrite` on a regular file, but older kernels'
/// `io_uring` answers EAGAIN for it where a write would have to wait.
fn blocking(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK)
}

#[derive(Debug)]
struct StdLock {
    /// Closing it releases the lock.
    fd: OwnedFd,
}

impl Lock for StdLock {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

#[derive(Debug)]
struct StdFile {
    fd: OwnedFd,
    direct: bool,
}

impl File for StdFile {
    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.fd)?;
        u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.fd, bytes, offset)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.fd, bytes, offset)?)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        let flags = if dsync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let pieces = pieces.map(IoSlice::new);
        loop {
            match rustix::io::pwritev2(self.fd.as_fd(), &pieces, offset, flags) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.fd)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, len)?)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                result => return Ok(result?),
            }
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

/// Writes in flight by default: each takes a thread that waits.
const USUAL_DEPTH: usize = 2;

/// Operations that wait for a thread to perform them: the thread that takes them, or the
/// thread that waits for their completion.
#[derive(Debug)]
pub(super) struct StdQueue {
    waiting: VecDeque<(Ticket, Request)>,
    depth: usize,
    fallback: Option<Fallback>,
}

impl StdQueue {
    /// Creates a queue that stands in for another backend's.
    #[cfg(feature = "uring")]
    pub(super) fn instead(depth: usize, reason: &'static str) -> Self {
        let mut queue = Self::new(depth.min(USUAL_DEPTH));
        queue.fallback = Some(Fallback { backend: "std", reason });
        queue
    }

    fn new(depth: usize) -> Self {
        Self { waiting: VecDeque::new(), depth: depth.max(1), fallback: None }
    }
}

impl Drop for StdQueue {
    fn drop(&mut self) {
        while self.complete(true).is_some() {}
    }
}

// SAFETY: `take` returns a request to the caller, or `complete` performs it by a call that
// has returned, and drops it there; no other one is ever reported.
unsafe impl Queue for StdQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn fallback(&self) -> Option<Fallback> {
        self.fallback
    }

    fn submit(&mut self, ticket: Ticket, request: Request) {
        self.waiting.push_back((ticket, request));
    }

    fn take(&mut self) -> Option<(Ticket, Request)> {
        self.waiting.pop_front()
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        let (ticket, request) = if wait { self.waiting.pop_front()? } else { return None };
        Some(Completion { ticket, result: request.perform() })
    }
}
