//! An I/O backend over another one, whose queue can be slow and can fail: for tests of
//! real threads.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bulla_storage::io::sim::ByPath;
use bulla_storage::io::{
    Access, Completion, Dir, DirEntry, Fallback, File, Io, Lock, Queue, Request, Ticket,
};

use crate::layer::{Layer, Layered};

/// What the queue does besides its work.
#[derive(Debug, Default)]
pub struct Knobs {
    /// Every operation of the queue takes so much longer, in microseconds.
    pub delay_us: AtomicU64,
    /// Every operation of the queue fails.
    pub fail: AtomicBool,
    /// No write of the queue takes a byte, and none fails.
    pub stall: AtomicBool,
    /// The next operation of the queue panics.
    pub panic: AtomicBool,
    /// No operation of the queue makes anything durable, whatever it says.
    pub lie: AtomicBool,
    /// No segment can be created.
    pub no_space: AtomicBool,
    /// Clocks stand, and randomness is a sequence: what is done twice is done the same.
    pub still: AtomicBool,
    drawn: AtomicU64,
    /// How often the clock was read.
    pub looks: AtomicU64,
    read_cached: Mutex<BTreeSet<PathBuf>>,
    /// Read through the page cache, the first file is like the second.
    pub stale: Mutex<Option<(PathBuf, PathBuf)>>,
    /// What takes the place of each new file.
    pub replace: Replace,
    /// What is done before each operation on a name or a directory, before each read of a file
    /// that was opened to be read, and before each change and sync of a checkpoint's file.
    pub meddle: Meddle,
}

/// Makes a file that stands before another.
pub type ReplaceFile = dyn Fn(Arc<dyn File>) -> Arc<dyn File> + Send + Sync;

/// Nothing, until it is set.
#[derive(Default)]
pub struct Replace(OnceLock<Box<ReplaceFile>>);

impl Replace {
    /// Replaces every file that is created from now on. Only the first call counts.
    pub fn by(&self, replace: Box<ReplaceFile>) {
        let _ = self.0.set(replace);
    }
}

impl fmt::Debug for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replace({})", self.0.get().is_some())
    }
}

/// Does something with a path.
pub type MeddleWith = dyn Fn(&Path) + Send + Sync;

/// Nothing, until it is set.
#[derive(Default)]
pub struct Meddle(Mutex<Option<Arc<MeddleWith>>>);

impl Meddle {
    /// From now on this is done before each operation; it may use the backend itself.
    pub fn by(&self, meddle: Option<Arc<MeddleWith>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = meddle;
    }

    fn with(&self, path: &Path) {
        let meddle = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(meddle) = meddle {
            meddle(path);
        }
    }
}

impl fmt::Debug for Meddle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddle")
    }
}

impl Knobs {
    /// The files that were opened since the last call to be read through the page cache.
    pub fn read_cached(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.read_cached.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Another backend with [`Knobs`].
#[derive(Debug)]
pub struct WrapIo {
    inner: Arc<dyn Io>,
    knobs: Arc<Knobs>,
}

impl WrapIo {
    /// Wraps a backend.
    pub fn new(inner: impl Io) -> (Arc<Self>, Arc<Knobs>) {
        Self::over(Arc::new(inner))
    }

    /// Wraps a backend that may have other users.
    pub fn over(inner: Arc<dyn Io>) -> (Arc<Self>, Arc<Knobs>) {
        let knobs = Arc::new(Knobs::default());
        (Arc::new(Self { inner, knobs: Arc::clone(&knobs) }), knobs)
    }

    fn is_still(&self) -> bool {
        self.knobs.still.load(Ordering::Relaxed)
    }
}

impl Io for WrapIo {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn is_deterministic(&self) -> bool {
        self.inner.is_deterministic()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.knobs.meddle.with(path);
        self.inner.create_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let dir = self.inner.open_dir(path)?;
        let (io, knobs) = (Arc::clone(&self.inner), Arc::clone(&self.knobs));
        Ok(Arc::new(WrapDir { io, dir, path: path.to_owned(), knobs }))
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        let inner = self.inner.queue(depth)?;
        Ok(Box::new(WrapQueue { inner, knobs: Arc::clone(&self.knobs), ready: Vec::new() }))
    }

    fn usual_depth(&self) -> usize {
        self.inner.usual_depth()
    }

    fn now_ns(&self) -> u64 {
        self.knobs.looks.fetch_add(1, Ordering::Relaxed);
        if self.is_still() { 1 } else { self.inner.now_ns() }
    }

    fn wall_ns(&self) -> u64 {
        if self.is_still() { 1 } else { self.inner.wall_ns() }
    }

    fn sleep_ns(&self, ns: u64) {
        self.inner.sleep_ns(ns);
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        if !self.is_still() {
            return self.inner.random(bytes);
        }
        let draw = self.knobs.drawn.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        bytes.iter_mut().zip(draw.iter().cycle()).for_each(|(byte, drawn)| *byte = *drawn);
        Ok(())
    }
}

#[derive(Debug)]
struct WrapDir {
    io: Arc<dyn Io>,
    dir: Arc<dyn Dir>,
    path: PathBuf,
    knobs: Arc<Knobs>,
}

impl WrapDir {
    fn watched(&self, file: Arc<dyn File>, path: PathBuf) -> Arc<dyn File> {
        Arc::new(Layered(WatchedFile { file, path, knobs: Arc::clone(&self.knobs) }))
    }

    fn meddle(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        self.knobs.meddle.with(&path);
        path
    }
}

impl Dir for WrapDir {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.meddle(name);
        self.dir.create_dir(name)
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let (dir, path) = (self.dir.open_dir(name)?, self.path.join(name));
        let (io, knobs) = (Arc::clone(&self.io), Arc::clone(&self.knobs));
        Ok(Arc::new(Self { io, dir, path, knobs }))
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.knobs.meddle.with(&self.path);
        self.dir.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.knobs.meddle.with(&self.path);
        self.dir.sync()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.meddle(from);
        self.dir.rename(from, to)
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.meddle(from);
        self.dir.rename_new(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.meddle(name);
        self.dir.unlink(name)
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<Arc<dyn File>> {
        if self.knobs.no_space.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = self.meddle(name);
        let file = self.dir.create(name, direct)?;
        Ok(match self.knobs.replace.0.get() {
            Some(replace) => replace(file),
            None if is_of_checkpoint(&path) => self.watched(file, path),
            None => file,
        })
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        if access == Access::READ {
            let mut cached = self.knobs.read_cached.lock().unwrap_or_else(PoisonError::into_inner);
            cached.insert(path.clone());
            let stale = self.knobs.stale.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, other)) = stale.as_ref().filter(|(stale, _)| *stale == path) {
                return self.io.open(other, access);
            }
        }
        let file = self.dir.open(name, access)?;
        let is_watched = access == Access::READ || is_of_checkpoint(&path);
        Ok(if is_watched { self.watched(file, path) } else { file })
    }

    fn create_as(&self, name: &str) -> io::Result<()> {
        self.dir.create_as(name)
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.dir.try_lock(name)
    }

    fn try_lock_file(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.dir.try_lock_file(name)
    }

    fn physical_sector(&self) -> Option<u32> {
        self.dir.physical_sector()
    }
}

/// Is it in the folder of the checkpoints? The queue writes none of these files.
fn is_of_checkpoint(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("checkpoints"))
}

/// A file that the queue does not get.
#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    knobs: Arc<Knobs>,
}

impl Layer for WatchedFile {
    fn file(&self) -> &dyn File {
        &*self.file
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.knobs.meddle.with(&self.path);
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.knobs.meddle.with(&self.path);
        self.file.write_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.knobs.meddle.with(&self.path);
        self.file.write_pieces_at(pieces, offset, dsync)
    }

    fn sync(&self) -> io::Result<()> {
        self.knobs.meddle.with(&self.path);
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.knobs.meddle.with(&self.path);
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.knobs.meddle.with(&self.path);
        self.file.preallocate(len)
    }
}

#[derive(Debug)]
struct WrapQueue {
    inner: Box<dyn Queue>,
    knobs: Arc<Knobs>,
    /// Completions that the other backend knows nothing of.
    ready: Vec<Completion>,
}

// SAFETY: it keeps no bytes; what it reports as done is what the inner queue does.
unsafe impl Queue for WrapQueue {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn fallback(&self) -> Option<Fallback> {
        self.inner.fallback()
    }

    fn keep(&mut self, lock: &dyn Lock) -> io::Result<()> {
        self.inner.keep(lock)
    }

    fn submit(&mut self, ticket: Ticket, request: Request) {
        let delay = self.knobs.delay_us.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
        assert!(!self.knobs.panic.swap(false, Ordering::Relaxed), "injected panic");
        if self.knobs.fail.load(Ordering::Relaxed) {
            let result = Err(io::Error::other("injected failure"));
            self.ready.push(Completion { ticket, result });
        } else if self.knobs.stall.load(Ordering::Relaxed)
            && matches!(request, Request::Write { .. })
        {
            self.ready.push(Completion { ticket, result: Ok(0) });
        } else if self.knobs.lie.load(Ordering::Relaxed) {
            match request {
                Request::Sync { .. } => self.ready.push(Completion { ticket, result: Ok(0) }),
                Request::Write { file, offset, bytes, .. } => {
                    let request = Request::Write { file, offset, bytes, dsync: false };
                    self.inner.submit(ticket, request);
                }
            }
        } else {
            self.inner.submit(ticket, request);
        }
    }

    fn take(&mut self) -> Option<(Ticket, Request)> {
        self.inner.take()
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        self.ready.pop().or_else(|| self.inner.complete(wait))
    }
}
