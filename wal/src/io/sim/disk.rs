//! The state of the machine: files, names, what is in flight, and how it all crashes.
//!
//! Owns the rules for names and power loss, the faults and the order of chance.
//! Never blocks, allocates by what callers ask and reads no clock but its own.
//! Tested by `wal/tests/io_conformance.rs`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::config::{CrashKind, FaultOp, SimConfig, SimCounts};
use super::index;
use super::inode::{Inode, Stamp};
use super::rng::{Rng, Survival};
use crate::io::{DirEntry, FileKind, Ticket};
use crate::ring::RingBytes;

/// A longer file is refused, lest a wild offset take the memory of the test machine.
const MAX_FILE_LEN: u64 = 1 << 32;
/// So many removed names, and files without any are looked for.
const GARBAGE: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NodeId(usize);
const ROOT: NodeId = NodeId(0);

#[derive(Clone, Debug)]
struct Node {
    body: Body,
    /// Where it is, as processes see it; stale once `named` is false.
    parent: NodeId,
    name: String,
    named: bool,
}

#[derive(Clone, Debug)]
enum Body {
    File(Box<Inode>),
    Dir(Dir),
}

type Names = BTreeMap<String, NodeId>;

#[derive(Clone, Debug, Default)]
struct Dir {
    durable: Names,
    current: Names,
    pending: Vec<DirOp>,
}

/// A change of a directory: done or not done after a power loss, never half.
#[derive(Clone, Debug)]
enum DirOp {
    Link { name: String, node: NodeId },
    Unlink { name: String, node: NodeId },
    Rename { from: String, to: String, node: NodeId },
}

impl DirOp {
    /// Does it to names of which some earlier change may have been lost.
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link { name, node } => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink { name, node } => {
                names.remove(name);
                names.retain(|_, other| other != node);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.retain(|_, other| other != node);
                names.insert(to.clone(), *node);
            }
        }
    }

    fn node(&self) -> NodeId {
        match self {
            Self::Link { node, .. } | Self::Unlink { node, .. } | Self::Rename { node, .. } => {
                *node
            }
        }
    }
}

/// A file that a process has open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFile {
    pub(super) node: NodeId,
    pub(super) write: bool,
    pub(super) direct: bool,
}

/// A write; its bytes may be in two pieces.
pub(super) struct Write<'a> {
    pub(super) file: OpenFile,
    pub(super) offset: u64,
    pub(super) pieces: [&'a [u8]; 2],
    pub(super) dsync: bool,
}

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) ticket: Ticket,
    pub(super) body: FlightBody,
}

#[derive(Clone, Debug)]
pub(super) enum FlightBody {
    Write {
        file: OpenFile,
        offset: u64,
        dsync: bool,
        /// The bytes when it was submitted.
        bytes: Arc<[u8]>,
        /// The bytes that must not change meanwhile; a fork has no right to them.
        held: Option<RingBytes>,
    },
    Sync {
        file: OpenFile,
        cover: Stamp,
    },
    /// Its process died.
    Dead,
}

#[derive(Clone, Debug)]
struct Script {
    op: FaultOp,
    kind: io::ErrorKind,
    filter: String,
    after: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) config: SimConfig,
    pub(super) rng: Rng,
    nodes: Vec<Option<Node>>,
    /// Removed names since files without any were last looked for.
    garbage: usize,
    allocated_sectors: usize,
    stamp: Stamp,
    scripts: Vec<Script>,
    /// The processes' files, by the address of the handle.
    pub(super) open: BTreeMap<usize, OpenFile>,
    pub(super) locks: Vec<NodeId>,
    pub(super) queues: BTreeMap<u64, Vec<InFlight>>,
    pub(super) next_queue: u64,
    /// Counts crashes: a handle of an earlier generation is dead.
    pub(super) generation: u64,
    pub(super) crashed: bool,
    pub(super) steps: u64,
    pub(super) armed: Option<(u64, CrashKind)>,
    pub(super) counts: SimCounts,
    pub(super) clock_ns: u64,
    pub(super) wall_offset_ns: i64,
}

impl Disk {
    pub(super) fn new(seed: u64, config: SimConfig) -> Self {
        assert!(config.sector.is_power_of_two(), "a sector is a power of two");
        let root = Node {
            body: Body::Dir(Dir::default()),
            parent: ROOT,
            name: String::new(),
            named: true,
        };
        Self {
            config,
            rng: Rng::new(seed),
            nodes: vec![Some(root)],
            garbage: 0,
            allocated_sectors: 0,
            stamp: 0,
            scripts: Vec::new(),
            open: BTreeMap::new(),
            locks: Vec::new(),
            queues: BTreeMap::new(),
            next_queue: 0,
            generation: 0,
            crashed: false,
            steps: 0,
            armed: None,
            counts: SimCounts::default(),
            clock_ns: 0,
            wall_offset_ns: 0,
        }
    }

    /// Counts a step; the kind of crash if one strikes now.
    pub(super) fn step(&mut self) -> Option<CrashKind> {
        self.steps += 1;
        self.clock_ns += self.config.step_ns;
        self.armed.filter(|(at, _)| self.steps >= *at).map(|(_, kind)| kind)
    }

    // Names.

    fn node(&self, id: NodeId) -> io::Result<&Node> {
        self.nodes[id.0].as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match &self.node(id)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut Dir> {
        match self.nodes[id.0].as_mut().map(|node| &mut node.body) {
            Some(Body::Dir(dir)) => Ok(dir),
            Some(Body::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file(&self, id: NodeId) -> io::Result<&Inode> {
        match &self.node(id)?.body {
            Body::File(inode) => Ok(inode),
            Body::Dir(_) => Err(not_regular()),
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut Inode> {
        match self.nodes[id.0].as_mut().map(|node| &mut node.body) {
            Some(Body::File(inode)) => Ok(inode),
            Some(Body::Dir(_)) => Err(not_regular()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for component in path.components() {
            if let Some(name) = name_of(component)? {
                at = *self.dir(at)?.current.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    fn resolve_parent<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a str)> {
        let last = path.components().next_back().ok_or(io::ErrorKind::InvalidInput)?;
        let name = name_of(last)?.ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.resolve(path.parent().unwrap_or(Path::new("/")))?;
        self.dir(parent)?;
        Ok((parent, name))
    }

    fn path_of(&self, mut id: NodeId) -> String {
        let mut path = String::new();
        while let Some(node) = self.nodes[id.0].as_ref().filter(|_| id != ROOT) {
            path = format!("/{}{path}", node.name);
            id = node.parent;
        }
        path
    }

    fn link(&mut self, parent: NodeId, name: &str, body: Body) -> io::Result<NodeId> {
        let id = NodeId(self.nodes.len());
        let dir = self.dir_mut(parent)?;
        dir.current.insert(name.to_owned(), id);
        dir.pending.push(DirOp::Link { name: name.to_owned(), node: id });
        self.nodes.push(Some(Node { body, parent, name: name.to_owned(), named: true }));
        Ok(id)
    }

    /// A file has lost its name: its space is free at once.
    fn bury(&mut self, id: NodeId) {
        self.garbage += 1;
        if let Some(node) = self.nodes[id.0].as_mut() {
            node.named = false;
            if let Body::File(inode) = &node.body {
                self.allocated_sectors -= inode.allocated_sectors();
            }
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.resolve(path) {
            Ok(id) => {
                return self.dir(id).map(drop).map_err(|_| io::ErrorKind::AlreadyExists.into());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let (parent, name) = self.resolve_parent(path)?;
        self.link(parent, name, Body::Dir(Dir::default())).map(drop)
    }

    pub(super) fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = &self.dir(self.resolve(path)?)?.current;
        let entry = |(name, id): (&String, &NodeId)| {
            let (kind, len) = match &self.node(*id)?.body {
                Body::File(inode) => (FileKind::Regular, inode.cached().len() as u64),
                Body::Dir(_) => (FileKind::Directory, 0),
            };
            Ok(DirEntry { name: name.clone(), kind, len })
        };
        names.iter().map(entry).collect()
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.counts.dir_syncs += 1;
        let id = self.resolve(path)?;
        self.dir(id)?;
        self.fail(FaultOp::SyncDir, &[path])?;
        let dir = self.dir_mut(id)?;
        dir.durable.clone_from(&dir.current);
        dir.pending.clear();
        if self.garbage >= GARBAGE {
            self.collect_garbage();
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.counts.renames += 1;
        let (parent, from_name) = self.resolve_parent(from)?;
        let (to_parent, to_name) = self.resolve_parent(to)?;
        if parent != to_parent {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a rename across directories"));
        }
        let current = &self.dir(parent)?.current;
        let node = *current.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        let replaced = current.get(to_name).copied();
        if replaced.is_some_and(|replaced| self.file(replaced).is_err()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.fail(FaultOp::Rename, &[from, to])?;
        if replaced == Some(node) {
            return Ok(());
        }
        let dir = self.dir_mut(parent)?;
        dir.current.remove(from_name);
        dir.current.insert(to_name.to_owned(), node);
        dir.pending.push(DirOp::Rename {
            from: from_name.to_owned(),
            to: to_name.to_owned(),
            node,
        });
        if let Some(node) = self.nodes[node.0].as_mut() {
            to_name.clone_into(&mut node.name);
        }
        if let Some(replaced) = replaced {
            self.bury(replaced);
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.counts.unlinks += 1;
        let (parent, name) = self.resolve_parent(path)?;
        let node = *self.dir(parent)?.current.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.file(node).map_err(|_| io::Error::from(io::ErrorKind::IsADirectory))?;
        self.fail(FaultOp::Unlink, &[path])?;
        let dir = self.dir_mut(parent)?;
        dir.current.remove(name);
        dir.pending.push(DirOp::Unlink { name: name.to_owned(), node });
        self.bury(node);
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<NodeId> {
        self.counts.creates += 1;
        let (parent, name) = self.resolve_parent(path)?;
        if self.dir(parent)?.current.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.fail(FaultOp::Create, &[path])?;
        let inode = Inode::new(self.config.sector);
        self.link(parent, name, Body::File(Box::new(inode)))
    }

    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.resolve(path)?;
        self.file(id)?;
        Ok(id)
    }

    // Contents.

    pub(super) fn read(
        &mut self,
        file: OpenFile,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        self.counts.reads += 1;
        // As on Linux, the end of the file is told before anything is checked.
        if offset >= self.file(file.node)?.cached().len() as u64 {
            return self.fail_file(FaultOp::Read, file.node).map(|()| 0);
        }
        self.check_alignment(file, offset, bytes.len(), [bytes, &[]])?;
        self.fail_file(FaultOp::Read, file.node)?;
        let unit = if file.direct { self.config.sector } else { 1 };
        let cut = self.rng.chance(self.config.short_read_ppm);
        let asked = if cut { self.shorten(bytes.len(), unit) } else { bytes.len() };
        let cached = self.file(file.node)?.cached();
        let start = index(offset);
        let count = asked.min(cached.len() - start);
        bytes[..count].copy_from_slice(&cached[start..start + count]);
        Ok(count)
    }

    /// Writes; `torn` leaves it to chance which of the sectors.
    pub(super) fn write(&mut self, write: &Write<'_>, torn: bool) -> io::Result<usize> {
        let Write { file, offset, pieces: [first, second], dsync } = *write;
        if dsync {
            self.counts.dsync_writes += 1;
        } else {
            self.counts.writes += 1;
        }
        let asked = first.len() + second.len();
        self.check_write(file, offset, asked, write.pieces)?;
        if asked == 0 {
            return Ok(0);
        }
        let offset = index(offset);
        if torn {
            self.tear(file.node, offset, [first, second])?;
            return Ok(0);
        }
        if let Err(error) = self.fail_file(FaultOp::Write, file.node) {
            if error.kind() != io::ErrorKind::Interrupted {
                self.tear(file.node, offset, [first, second])?;
            }
            return Err(error);
        }
        let unit = if file.direct { self.config.sector } else { 1 };
        let cut = self.rng.chance(self.config.short_write_ppm);
        let len = if cut { self.shorten(asked, unit) } else { asked };
        let len = self.allocate(file.node, offset, len)?;
        let first = &first[..first.len().min(len)];
        let second = &second[..len - first.len()];
        let stamp = self.next_stamp();
        let inode = self.file_mut(file.node)?;
        inode.write(offset, [first, second], stamp);
        if dsync && len > 0 {
            inode.make_durable(offset, len);
        }
        self.counts.written_bytes += len as u64;
        Ok(len)
    }

    /// What must hold of a write before anything is done.
    pub(super) fn check_write(
        &self,
        file: OpenFile,
        offset: u64,
        len: usize,
        pieces: [&[u8]; 2],
    ) -> io::Result<()> {
        if !file.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if offset.saturating_add(len as u64) > MAX_FILE_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.check_alignment(file, offset, len, pieces)
    }

    fn check_alignment(
        &self,
        file: OpenFile,
        offset: u64,
        len: usize,
        pieces: [&[u8]; 2],
    ) -> io::Result<()> {
        let sector = self.config.sector;
        let aligned = index(offset).is_multiple_of(sector)
            && len.is_multiple_of(sector)
            && pieces.iter().all(|piece| {
                piece.is_empty()
                    || piece.as_ptr().addr().is_multiple_of(sector)
                        && piece.len().is_multiple_of(sector)
            });
        if file.direct && !aligned {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "unaligned direct access"));
        }
        Ok(())
    }

    /// A random subset of a write's sectors reaches the cache.
    fn tear(&mut self, node: NodeId, offset: usize, pieces: [&[u8]; 2]) -> io::Result<()> {
        let bytes = pieces.concat();
        let len = self.allocate(node, offset, bytes.len()).unwrap_or(0);
        let survival = self.rng.survival(self.config.lose_all_ppm, self.config.lose_none_ppm);
        let mut rng = self.rng.clone();
        let stamp = self.next_stamp();
        let inode = self.file_mut(node)?;
        inode.write_some(offset, &bytes[..len], stamp, || rng.survives(survival));
        self.rng = rng;
        Ok(())
    }

    pub(super) fn sync(&mut self, node: NodeId, cover: Stamp) -> io::Result<()> {
        self.counts.syncs += 1;
        match self.fail_file(FaultOp::Sync, node) {
            Ok(()) => self.file_mut(node)?.sync(cover),
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.file_mut(node)?.fail_sync(cover);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, file: OpenFile, len: u64) -> io::Result<()> {
        self.counts.set_lens += 1;
        if !file.write || len > MAX_FILE_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stamp = self.next_stamp();
        let named = self.node(file.node)?.named;
        let inode = self.file_mut(file.node)?;
        inode.set_len(index(len), stamp);
        let freed = inode.deallocate_beyond(index(len));
        if named {
            self.allocated_sectors -= freed;
        }
        Ok(())
    }

    pub(super) fn preallocate(&mut self, file: OpenFile, len: u64) -> io::Result<()> {
        self.counts.preallocates += 1;
        if !self.config.preallocate {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !file.write || len > MAX_FILE_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.fail_file(FaultOp::Preallocate, file.node)?;
        let sectors = 0..index(len).div_ceil(self.config.sector);
        if self.file(file.node)?.unallocated(sectors) > self.free_sectors() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.allocate(file.node, 0, index(len))?;
        let stamp = self.next_stamp();
        let inode = self.file_mut(file.node)?;
        if inode.cached().len() < index(len) {
            inode.set_len(index(len), stamp);
        }
        Ok(())
    }

    /// The stamp of the latest change: a sync submitted now covers up to it.
    pub(super) fn latest_stamp(&self) -> Stamp {
        self.stamp
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    fn free_sectors(&self) -> usize {
        self.config.capacity.map_or(usize::MAX, |capacity| {
            (index(capacity) / self.config.sector).saturating_sub(self.allocated_sectors)
        })
    }

    /// Takes space for a range of a file; gives how much of it there is space for.
    fn allocate(&mut self, node: NodeId, offset: usize, len: usize) -> io::Result<usize> {
        let size = self.config.sector;
        let named = self.node(node)?.named;
        let free = if named { self.free_sectors() } else { usize::MAX };
        let sectors = offset / size..(offset + len).div_ceil(size);
        let (taken, full) = self.file_mut(node)?.allocate(sectors, free);
        if named {
            self.allocated_sectors += taken;
        }
        match full.map(|sector| (sector * size).saturating_sub(offset)) {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(fits) => Ok(fits),
            None => Ok(len),
        }
    }

    /// A shorter length, not zero; the same where there is none.
    fn shorten(&mut self, len: usize, unit: usize) -> usize {
        let units = len / unit;
        if units < 2 { len } else { (1 + self.rng.below(units - 1)) * unit }
    }

    // Faults.

    pub(super) fn add_script(
        &mut self,
        op: FaultOp,
        kind: io::ErrorKind,
        filter: &str,
        after: u64,
    ) {
        self.scripts.push(Script { op, kind, filter: filter.to_owned(), after });
    }

    pub(super) fn clear_scripts(&mut self) {
        self.scripts.clear();
    }

    fn fail_file(&mut self, op: FaultOp, node: NodeId) -> io::Result<()> {
        if self.scripts.is_empty() {
            return self.fail_by_chance(op);
        }
        let path = self.path_of(node);
        self.fail(op, &[Path::new(&path)])
    }

    fn fail(&mut self, op: FaultOp, paths: &[&Path]) -> io::Result<()> {
        let mut fired = None;
        for (at, script) in self.scripts.iter_mut().enumerate() {
            let here = |path: &&Path| path.to_string_lossy().contains(&script.filter);
            if script.op != op || !paths.iter().any(here) {
                continue;
            }
            if script.after == 0 {
                fired = fired.or(Some(at));
            } else {
                script.after -= 1;
            }
        }
        match fired {
            Some(at) => Err(self.scripts.remove(at).kind.into()),
            None => self.fail_by_chance(op),
        }
    }

    fn fail_by_chance(&mut self, op: FaultOp) -> io::Result<()> {
        const EIO: i32 = 5;
        let ppm = match op {
            FaultOp::Read => self.config.read_error_ppm,
            FaultOp::Write => self.config.write_error_ppm,
            FaultOp::Sync => self.config.sync_error_ppm,
            FaultOp::Create
            | FaultOp::Rename
            | FaultOp::SyncDir
            | FaultOp::Unlink
            | FaultOp::Preallocate => self.config.metadata_error_ppm,
        };
        if self.rng.chance(ppm) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    // In flight.

    /// Does what one operation in flight asks.
    pub(super) fn perform(&mut self, body: &FlightBody) -> io::Result<u64> {
        match body {
            FlightBody::Write { file, offset, dsync, bytes, held } => {
                if let Some(held) = held {
                    let [first, second] = held.pieces();
                    let same = bytes.split_at_checked(first.len()) == Some((first, second));
                    assert!(same, "the bytes of a write in flight were changed");
                }
                // The alignment of the memory was checked when it was submitted.
                let file = OpenFile { direct: false, ..*file };
                let (offset, dsync) = (*offset, *dsync);
                let write = Write { file, offset, pieces: [bytes, &[]], dsync };
                self.write(&write, false).map(|count| count as u64)
            }
            FlightBody::Sync { file, cover } => self.sync(file.node, *cover).map(|()| 0),
            FlightBody::Dead => Err(super::dead()),
        }
    }

    // Crashes.

    /// Every process dies, and perhaps the machine.
    pub(super) fn crash(&mut self, kind: CrashKind) {
        self.end_processes();
        if kind == CrashKind::PowerLoss {
            let survival = self.rng.survival(self.config.lose_all_ppm, self.config.lose_none_ppm);
            self.lose_power(survival);
        }
    }

    fn end_processes(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        for operation in queues.values_mut().flatten() {
            let body = std::mem::replace(&mut operation.body, FlightBody::Dead);
            if let FlightBody::Write { file, offset, bytes, .. } = body {
                // The file may be gone: then so is the write.
                let _ = self.tear(file.node, index(offset), [&bytes, &[]]);
            }
        }
        self.queues = queues;
        self.open.clear();
        self.locks.clear();
        self.armed = None;
        self.crashed = true;
        self.generation += 1;
    }

    fn lose_power(&mut self, survival: Survival) {
        let Self { nodes, rng, .. } = self;
        for node in nodes.iter_mut().flatten() {
            match &mut node.body {
                Body::File(inode) => inode.lose_power(rng, survival),
                Body::Dir(dir) => {
                    for op in std::mem::take(&mut dir.pending) {
                        if rng.survives(survival) {
                            op.apply(&mut dir.durable);
                        }
                    }
                    dir.current.clone_from(&dir.durable);
                }
            }
        }
        self.collect_garbage();
        self.name_everything();
    }

    /// A power loss of which nothing survives but what is durable.
    pub(super) fn drop_pending(&mut self) {
        self.end_processes();
        self.lose_power(Survival::None);
    }

    /// Makes everything visible durable.
    pub(super) fn settle(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            match &mut node.body {
                Body::File(inode) => inode.settle(),
                Body::Dir(dir) => {
                    dir.durable.clone_from(&dir.current);
                    dir.pending.clear();
                }
            }
        }
    }

    /// Forgets nodes that no name, no pending change and no handle leads to.
    fn collect_garbage(&mut self) {
        let mut reached = vec![false; self.nodes.len()];
        let mut next = vec![ROOT];
        next.extend(self.open.values().map(|file| file.node));
        next.extend(&self.locks);
        for operation in self.queues.values().flatten() {
            match &operation.body {
                FlightBody::Write { file, .. } | FlightBody::Sync { file, .. } => {
                    next.push(file.node);
                }
                FlightBody::Dead => {}
            }
        }
        while let Some(id) = next.pop() {
            if std::mem::replace(&mut reached[id.0], true) {
                continue;
            }
            if let Ok(dir) = self.dir(id) {
                next.extend(dir.durable.values().chain(dir.current.values()));
                next.extend(dir.pending.iter().map(DirOp::node));
            }
        }
        for (node, reached) in self.nodes.iter_mut().zip(reached) {
            if !reached {
                *node = None;
            }
        }
        self.garbage = 0;
    }

    /// Finds every node's name and the space in use afresh.
    fn name_everything(&mut self) {
        self.allocated_sectors = 0;
        let mut next = vec![ROOT];
        while let Some(parent) = next.pop() {
            let Ok(dir) = self.dir(parent) else { continue };
            for (name, id) in dir.current.clone() {
                let Some(node) = self.nodes[id.0].as_mut() else { continue };
                (node.parent, node.name, node.named) = (parent, name, true);
                match &mut node.body {
                    Body::File(inode) => {
                        inode.deallocate_beyond(inode.cached().len());
                        self.allocated_sectors += inode.allocated_sectors();
                    }
                    Body::Dir(_) => next.push(id),
                }
            }
        }
    }

    // Inspection and tampering.

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut next = vec![(ROOT, PathBuf::from("/"))];
        while let Some((id, path)) = next.pop() {
            match self.dir(id) {
                Ok(dir) => next.extend(dir.current.iter().map(|(name, id)| (*id, path.join(name)))),
                Err(_) => paths.push(path),
            }
        }
        paths.sort();
        paths
    }

    /// Stores a file, its name and its directories durably.
    pub(super) fn store(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut at = PathBuf::from("/");
        for component in path.parent().unwrap_or(Path::new("/")).components() {
            at.push(component);
            self.create_dir(&at)?;
        }
        let (parent, name) = self.resolve_parent(path)?;
        let node = match self.dir(parent)?.current.get(name) {
            Some(node) => *node,
            None => {
                self.link(parent, name, Body::File(Box::new(Inode::new(self.config.sector))))?
            }
        };
        let stamp = self.next_stamp();
        let sectors = 0..bytes.len().div_ceil(self.config.sector);
        let inode = self.file_mut(node)?;
        inode.set_len(bytes.len(), stamp);
        inode.write(0, [bytes, &[]], stamp);
        inode.settle();
        let freed = inode.deallocate_beyond(bytes.len());
        let (taken, _) = inode.allocate(sectors, usize::MAX);
        self.allocated_sectors = self.allocated_sectors + taken - freed;
        self.settle_names(node)
    }

    pub(super) fn erase(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.resolve_parent(path)?;
        let node = *self.dir(parent)?.current.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.file(node)?;
        let dir = self.dir_mut(parent)?;
        dir.current.remove(name);
        dir.durable.retain(|_, other| *other != node);
        dir.pending.retain(|op| op.node() != node);
        self.bury(node);
        Ok(())
    }

    /// Makes one file's name durable, and those of the directories above it.
    fn settle_names(&mut self, mut node: NodeId) -> io::Result<()> {
        while node != ROOT {
            let Node { parent, name, .. } = self.node(node)?.clone();
            let dir = self.dir_mut(parent)?;
            dir.pending.retain(|op| op.node() != node);
            dir.durable.retain(|_, other| *other != node);
            dir.durable.insert(name, node);
            node = parent;
        }
        Ok(())
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let node = self.lookup_file(path)?;
        self.file_mut(node)?.flip(index(offset), mask);
        Ok(())
    }
}

fn name_of(component: Component<'_>) -> io::Result<Option<&str>> {
    match component {
        Component::RootDir | Component::CurDir => Ok(None),
        Component::Normal(name) => {
            name.to_str().map(Some).ok_or_else(|| io::ErrorKind::InvalidInput.into())
        }
        Component::ParentDir | Component::Prefix(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}
