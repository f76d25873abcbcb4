//! The operating system's files: blocking calls, one operation at a time.
//!
//! Buffered files are synced by `fdatasync`; direct ones are written with `O_DIRECT`,
//! and with `RWF_DSYNC` where the write itself must be durable.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid,
};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    Access, Completion, Dir, DirEntry, Fallback, File, FileKind, Io, Lock, Queue, Request, Ticket,
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
        match rustix::fs::mkdir(path, DIR_MODE) {
            Err(Errno::EXIST) if path.is_dir() => Ok(()),
            result => Ok(result?),
        }
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(StdDir::new(rustix::fs::open(path, DIR_FLAGS, Mode::empty())?)))
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(StdQueue::new(depth)))
    }

    fn usual_depth(&self) -> usize {
        USUAL_DEPTH
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

/// Rights of a directory that is created: nobody but its owner enters it.
const DIR_MODE: Mode = Mode::RWXU;
const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Debug)]
struct StdDir {
    fd: OwnedFd,
    /// Whose files are created.
    owner: OnceLock<Owner>,
}

/// To whom new files are given, if that is not this process, and their rights.
#[derive(Clone, Copy, Debug)]
struct Owner {
    ids: Option<(Uid, Gid)>,
    mode: Mode,
}

impl Owner {
    fn give(self, fd: &OwnedFd, mode: Mode) -> Result<(), Errno> {
        if let Some((user, group)) = self.ids {
            rustix::fs::fchown(fd, Some(user), Some(group))?;
        }
        rustix::fs::fchmod(fd, mode)
    }
}

impl StdDir {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, owner: OnceLock::new() }
    }

    /// Creates a file that must not exist.
    fn create_file(&self, name: &str, direct: OFlags) -> Result<OwnedFd, Errno> {
        let fd = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | direct)?;
        self.give_or_remove(&fd, name)?;
        Ok(fd)
    }

    /// Gives a new file to the owner; removes it where that fails, since the owner could not
    /// open it.
    fn give_or_remove(&self, fd: &OwnedFd, name: &str) -> Result<(), Errno> {
        let Some(owner) = self.owner.get() else { return Ok(()) };
        owner.give(fd, owner.mode).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
        })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // O_NONBLOCK keeps a FIFO from blocking the open.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
    }

    fn stat(&self, name: &CStr) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl Dir for StdDir {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, DIR_MODE) {
            Err(Errno::EXIST) => return self.open_dir(name).map(drop),
            made => made?,
        }
        if let Some(owner) = self.owner.get() {
            let flags = DIR_FLAGS | OFlags::NOFOLLOW;
            let dir = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
            // Who may read files may enter their directory.
            let enters = Mode::from_raw_mode((owner.mode.as_raw_mode() & 0o444) >> 2);
            owner.give(&dir, owner.mode | enters).inspect_err(|_| {
                let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
            })?;
        }
        Ok(())
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let flags = DIR_FLAGS | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Arc::new(Self { fd, owner: self.owner.clone() }))
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        // It opens the directory anew: the position in a descriptor is shared.
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") {
                continue;
            }
            let stat = match self.stat(entry.file_name()) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => FileKind::Regular,
                FileType::Directory => FileKind::Directory,
                _ => FileKind::Other,
            };
            let len = u64::try_from(stat.st_size).unwrap_or(0);
            let is_linked = kind == FileKind::Regular && stat.st_nlink > 1;
            entries.push(DirEntry { name: name.to_owned(), kind, len, is_linked });
        }
        Ok(entries)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags) {
            // Not every file system knows the flag. The writer's lock keeps others away
            // between the two calls.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::statat(&self.fd, to, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => self.rename(from, to),
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) => Err(error.into()),
                }
            }
            result => Ok(result?),
        }
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<Arc<dyn File>> {
        if direct {
            match self.create_file(name, OFlags::DIRECT) {
                // Some file systems create the name before they refuse the flag.
                Err(Errno::INVAL) => match self.open_file(name, OFlags::RDWR) {
                    Ok(fd) => {
                        self.give_or_remove(&fd, name)?;
                        return Ok(created(fd, false)?);
                    }
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                },
                Ok(fd) => return Ok(created(fd, true)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(created(self.create_file(name, OFlags::empty())?, false)?)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let flags = if access.write { OFlags::RDWR } else { OFlags::RDONLY };
        let mut direct = access.direct;
        let direct_flag = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let mut opened = self.open_file(name, flags | direct_flag);
        if direct && matches!(opened, Err(Errno::INVAL)) {
            direct = false;
            opened = self.open_file(name, flags);
        }
        let fd = opened.map_err(|error| match error {
            // A link, a directory opened for writing, a socket.
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => not_regular(),
            error => error.into(),
        })?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(not_regular());
        }
        blocking(&fd)?;
        Ok(Arc::new(StdFile { fd, direct }))
    }

    fn create_as(&self, name: &str) -> io::Result<()> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let process = (rustix::process::geteuid(), rustix::process::getegid());
        if user != process.0 && !process.0.is_root() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it belongs to user {}, this is user {}", stat.st_uid, process.0.as_raw()),
            ));
        }
        // Only root can give files away; a user's own get the group that the directory says.
        let ids = (process.0.is_root() && (user, group) != process).then_some((user, group));
        if ids.is_some() {
            // A root without that right is told so before anything is made.
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.fd, name, Some(user), Some(group), flags)?;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        // Once set it stays: it is the same file's.
        let _ = self.owner.set(Owner { ids, mode });
        Ok(())
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        // A lock belongs to an open file description: a second one of the same directory is
        // refused, in this process, too.
        let dir = rustix::fs::openat(&self.fd, c".", DIR_FLAGS, Mode::empty())?;
        let dir = match flock(&dir) {
            Ok(true) => Some(dir),
            Ok(false) => return Ok(None),
            // NFS locks only what is open for writing, which a directory never is.
            Err(Errno::BADF | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => None,
            Err(error) => return Err(error.into()),
        };
        let file = match self.open_file(name, OFlags::RDWR) {
            Err(Errno::NOENT) => match self.create_file(name, OFlags::empty()) {
                // Another process was quicker.
                Err(Errno::EXIST) => self.open_file(name, OFlags::RDWR)?,
                created => created?,
            },
            opened => opened?,
        };
        if !flock(&file)? {
            return Ok(None);
        }
        Ok(Some(Box::new(StdLock { file, dir })))
    }

    fn try_lock_file(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        // NFS locks only what is open for writing.
        let file = self.open_file(name, OFlags::RDWR)?;
        let is_locked = flock(&file)?;
        Ok(is_locked.then(|| -> Box<dyn Lock> { Box::new(StdLock { file, dir: None }) }))
    }

    fn physical_sector(&self) -> Option<u32> {
        let device = rustix::fs::fstat(&self.fd).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let block = format!("/sys/dev/block/{major}:{minor}");
        // A partition has no queue of its own; its disk, the parent folder, has one.
        [format!("{block}/queue"), format!("{block}/../queue")].iter().find_map(|queue| {
            let text = fs::read_to_string(format!("{queue}/physical_block_size")).ok()?;
            text.trim().parse().ok()
        })
    }
}

/// Tries to lock an open file description; returns whether it did.
fn flock(fd: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
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
    file: OwnedFd,
    /// Where the file system can't lock a directory, `file` alone is locked.
    dir: Option<OwnedFd>,
}

impl Lock for StdLock {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        // Either keeps every other writer away; nobody can replace the directory's.
        Some(self.dir.as_ref().unwrap_or(&self.file).as_fd())
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
