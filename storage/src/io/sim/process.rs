//! A process's handles: of the disk, its files, locks and queues.
//!
//! Owns the check that the process still lives, and where an armed crash strikes.
//! Tested by `storage/tests/sim_disk.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::contents::Write;
use super::dead;
use super::disk::{Disk, FlightBody, InFlight, OpenFile, Strike, writes_in};
use super::names::NodeId;
use crate::faults;
use crate::io::{Access, Completion, Dir, DirEntry, File, Io, Lock, Queue, Request, Ticket};

/// One process's handle of a [`SimDisk`](super::SimDisk); dead after a crash.
pub struct SimIo(Handle);

impl SimIo {
    pub(super) fn new(disk: Arc<Mutex<Disk>>, generation: u64) -> Arc<Self> {
        Arc::new(Self(Handle { disk, generation }))
    }
}

impl fmt::Debug for SimIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimIo(process of generation {})", self.0.generation)
    }
}

#[derive(Clone)]
struct Handle {
    disk: Arc<Mutex<Disk>>,
    generation: u64,
}

impl Handle {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.lock();
        if disk.generation == self.generation { Ok(disk) } else { Err(dead()) }
    }

    /// Does one step. If it is struck, `run` does only part of its work.
    fn operate<T>(
        &self,
        run: impl FnOnce(&mut Disk, Option<Strike>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut disk = self.alive()?;
        let Some(strike) = disk.step() else { return run(&mut disk, None) };
        // The process does not live to see the result, which may be a file: its drop takes
        // the lock.
        let lost = run(&mut disk, Some(strike));
        disk.strike(strike);
        drop(disk);
        drop(lost);
        Err(dead())
    }

    /// Does one step that happens wholly or not at all.
    fn change<T>(&self, run: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        self.operate(|disk, strike| {
            let done = match strike {
                None => true,
                Some(Strike::Crash(_)) => !disk.rng.coin(),
                Some(Strike::Halt { done }) => done,
            };
            if done { run(disk) } else { Err(dead()) }
        })
    }

    /// Opens a directory, which is no step: nothing on the disk can change by it.
    fn open_dir(
        &self,
        parent: Option<&SimDir>,
        name: &str,
        path: PathBuf,
    ) -> io::Result<Arc<dyn Dir>> {
        let mut disk = self.alive()?;
        let node = match parent {
            None => disk.resolve(&path)?,
            Some(parent) => disk.child(parent.at(&disk), name)?,
        };
        disk.dir(node)?;
        disk.open_dirs.push(node);
        Ok(Arc::new(SimDir { handle: self.clone(), node, path }))
    }

    fn file(&self, disk: &mut Disk, file: OpenFile) -> Arc<SimFile> {
        let handle = Arc::new(SimFile { handle: self.clone(), file });
        disk.open.insert(Arc::as_ptr(&handle).addr(), file);
        handle
    }
}

impl Io for SimIo {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn is_deterministic(&self) -> bool {
        true
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.change(|disk| match disk.resolve(path) {
            Ok(id) => disk.dir(id).map(drop).map_err(|_| io::ErrorKind::AlreadyExists.into()),
            Err(_) => {
                let (parent, name) = disk.resolve_parent(path)?;
                disk.create_dir(parent, name)
            }
        })
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.0.open_dir(None, "", path.to_owned())
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        let mut disk = self.0.alive()?;
        let id = disk.next_queue;
        disk.next_queue += 1;
        disk.queues.insert(id, Vec::new());
        let depth = depth.clamp(1, disk.config.depth.max(1));
        drop(disk);
        Ok(Box::new(SimQueue { handle: self.0.clone(), id, depth, done: VecDeque::new() }))
    }

    fn now_ns(&self) -> u64 {
        self.0.lock().clock_ns
    }

    fn wall_ns(&self) -> u64 {
        let disk = self.0.lock();
        let wall_ns = disk.config.wall_base_ns.saturating_add(disk.clock_ns);
        wall_ns.saturating_add_signed(disk.wall_offset_ns)
    }

    fn sleep_ns(&self, ns: u64) {
        self.0.lock().clock_ns += ns;
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut disk = self.0.alive()?;
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&disk.rng.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A directory that a process has open.
struct SimDir {
    handle: Handle,
    node: NodeId,
    /// What it was opened as.
    path: PathBuf,
}

impl SimDir {
    fn at(&self, disk: &Disk) -> NodeId {
        faults::files::directory(self.node, || disk.resolve(&self.path).ok())
    }
}

impl fmt::Debug for SimDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDir({:?})", self.node)
    }
}

impl Drop for SimDir {
    fn drop(&mut self) {
        let Ok(mut disk) = self.handle.alive() else { return };
        let at = disk.open_dirs.iter().position(|node| *node == self.node);
        at.map(|at| disk.open_dirs.swap_remove(at));
    }
}

impl Dir for SimDir {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.handle.change(|disk| disk.create_dir(self.at(disk), name))
    }

    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let path = self.path.join(name);
        self.handle.open_dir(Some(self), name, path)
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.handle.change(|disk| disk.list_dir(self.at(disk)))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.change(|disk| disk.sync_dir(self.at(disk)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.handle.change(|disk| disk.rename(self.at(disk), from, to, true))
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.handle.change(|disk| disk.rename(self.at(disk), from, to, false))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.handle.change(|disk| disk.unlink(self.at(disk), name))
    }

    fn create(&self, name: &str, direct: bool) -> io::Result<Arc<dyn File>> {
        let file = self.handle.change(|disk| {
            let node = disk.create(self.at(disk), name)?;
            Ok(self.handle.file(disk, OpenFile { node, write: true, direct }))
        })?;
        Ok(file)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let file = self.handle.change(|disk| {
            let node = disk.file_in(self.at(disk), name)?;
            let Access { write, direct } = access;
            Ok(self.handle.file(disk, OpenFile { node, write, direct }))
        })?;
        Ok(file)
    }

    /// There is one user.
    fn create_as(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let locked = self.handle.change(|disk| {
            if faults::files::is_locked(disk.locks.contains(&self.node)) {
                return Ok(None);
            }
            let file = match disk.file_in(self.at(disk), name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    disk.create(self.at(disk), name)?
                }
                found => found?,
            };
            if disk.locks.contains(&file) {
                return Ok(None);
            }
            let nodes = [self.node, file];
            disk.locks.extend(nodes);
            Ok(Some(nodes))
        })?;
        Ok(locked.map(|nodes| -> Box<dyn Lock> {
            Box::new(SimLock { handle: self.handle.clone(), nodes })
        }))
    }

    fn try_lock_file(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let locked = self.handle.change(|disk| {
            let file = disk.file_in(self.at(disk), name)?;
            if disk.locks.contains(&file) {
                return Ok(None);
            }
            disk.locks.push(file);
            Ok(Some([file; 2]))
        })?;
        Ok(locked.map(|nodes| -> Box<dyn Lock> {
            Box::new(SimLock { handle: self.handle.clone(), nodes })
        }))
    }

    fn physical_sector(&self) -> Option<u32> {
        self.handle.lock().config.physical_sector
    }
}

struct SimLock {
    handle: Handle,
    nodes: [NodeId; 2],
}

impl Lock for SimLock {}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimLock({:?})", self.nodes)
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.handle.alive() {
            disk.locks.retain(|node| !self.nodes.contains(node));
        }
    }
}

struct SimFile {
    handle: Handle,
    file: OpenFile,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({:?})", self.file)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let address = std::ptr::from_ref(self).addr();
        self.handle.lock().open.remove(&address);
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.handle.alive()?.file(self.file.node)?.cached().len() as u64)
    }

    fn is_direct(&self) -> bool {
        self.file.direct
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.handle.change(|disk| disk.read(self.file, bytes, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write_pieces_at([bytes, &[]], offset, false)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        let write = Write { file: self.file, offset, pieces, dsync };
        self.handle.operate(|disk, strike| disk.write(&write, strike))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.change(|disk| disk.sync(self.file.node, disk.latest_stamp()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.handle.change(|disk| disk.set_len(self.file, len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.handle.change(|disk| disk.preallocate(self.file, len))
    }
}

/// Operations in flight live in the disk, where a crash finds them; this holds those
/// that ended before anyone asked.
struct SimQueue {
    handle: Handle,
    id: u64,
    depth: usize,
    done: VecDeque<Completion>,
}

impl fmt::Debug for SimQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimQueue({}, depth {})", self.id, self.depth)
    }
}

impl SimQueue {
    /// Returns whether the process is alive.
    fn is_alive(&self, disk: &Disk) -> bool {
        disk.generation == self.handle.generation
    }

    /// Finishes any one operation in flight, but a slow one only if the caller waits.
    fn finish_one(&self, disk: &mut Disk, wait: bool) -> Option<Completion> {
        let in_flight = disk.queues.get(&self.id).map_or(0, Vec::len);
        if in_flight == 0 {
            return None;
        }
        let slow_ppm = disk.config.slow_sync_ppm;
        if !wait && slow_ppm > 0 && self.is_alive(disk) {
            let writes = disk.queues.get(&self.id).map_or(0, |queue| writes_in(queue));
            if writes == 0 && disk.rng.chance(slow_ppm) {
                return None;
            }
        }
        if self.is_alive(disk)
            && let Some(strike) = disk.step()
        {
            disk.strike(strike);
        }
        let at = disk.rng.below(in_flight);
        let InFlight { ticket, body } = disk.queues.get_mut(&self.id)?.swap_remove(at);
        Some(Completion { ticket, result: disk.perform(&body) })
    }
}

fn in_flight(disk: &Disk, request: &Request) -> io::Result<FlightBody> {
    match request {
        Request::Write { file, offset, bytes, dsync } => {
            let file = open_file(disk, file)?;
            disk.check_write(file, *offset, bytes.len(), bytes.pieces())?;
            let (offset, dsync, held) = (*offset, *dsync, Some(bytes.clone()));
            let bytes = Arc::from(bytes.pieces().concat());
            Ok(FlightBody::Write { file, offset, dsync, bytes, held })
        }
        Request::Sync { file } => {
            let file = open_file(disk, file)?;
            Ok(FlightBody::Sync { file, cover: disk.latest_stamp() })
        }
    }
}

/// Returns the open file behind a trait object, identified by its address.
fn open_file(disk: &Disk, file: &Arc<dyn File>) -> io::Result<OpenFile> {
    let address = Arc::as_ptr(file).cast::<()>().addr();
    disk.open.get(&address).copied().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "not a file of this simulated machine")
    })
}

// SAFETY: the disk holds a write's bytes in its `FlightBody`, which `finish_one` takes out and
// drops before its completion is reported; what a write leaves on the disk is a copy.
unsafe impl Queue for SimQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, ticket: Ticket, request: Request) {
        let mut disk = self.handle.lock();
        if disk.queues.get(&self.id).map_or(0, Vec::len) >= self.depth {
            let finished = self.finish_one(&mut disk, true);
            self.done.extend(finished);
        }
        let body = if self.is_alive(&disk) { in_flight(&disk, &request) } else { Err(dead()) };
        match body {
            Ok(body) => {
                let others = disk.queues.get(&self.id).map_or(0, |queue| writes_in(queue));
                let overlaps = matches!(body, FlightBody::Write { .. }) && others > 0;
                disk.counts.overlapping_writes += u64::from(overlaps);
                disk.queues.entry(self.id).or_default().push(InFlight { ticket, body });
                if let Some(strike) = disk.step() {
                    disk.strike(strike);
                }
            }
            Err(error) => self.done.push_back(Completion { ticket, result: Err(error) }),
        }
        // The request may hold the last handle of its file: its drop takes the lock.
        drop(disk);
        drop(request);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        let mut disk = self.handle.lock();
        let late_ppm = disk.config.late_completion_ppm;
        if !wait && self.is_alive(&disk) && disk.rng.chance(late_ppm) {
            return None;
        }
        self.finish_one(&mut disk, wait)
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        let mut disk = self.handle.lock();
        // A failed assertion of `perform` would fail again here.
        if self.is_alive(&disk) && !std::thread::panicking() {
            while self.finish_one(&mut disk, true).is_some() {}
        }
        disk.queues.remove(&self.id);
    }
}
