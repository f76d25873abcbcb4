//! Directories and names: what processes see, what is durable, and what lies between.
//!
//! Decides what a directory sync and a power loss leave of creations, renames and removals.
//! Each is one unit that is done or not. Tested by `storage/tests/sim_disk.rs`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::config::{FaultOp, Meddling};
use super::disk::{Disk, FlightBody};
use super::index;
use super::inode::Inode;
use crate::io::{DirEntry, FileKind};

/// After this many removed names, the disk searches for files without any.
const GARBAGE: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct NodeId(usize);
pub(super) const ROOT: NodeId = NodeId(0);

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    /// Where it is, as processes see it; stale once `named` is false.
    pub(super) parent: NodeId,
    pub(super) name: String,
    pub(super) named: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Box<Inode>),
    Dir(Dir),
}

pub(super) type Names = BTreeMap<String, NodeId>;

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) durable: Names,
    pub(super) current: Names,
    pub(super) pending: Vec<DirOp>,
}

/// A change of a directory: done or not done after a power loss, never half.
#[derive(Clone, Debug)]
pub(super) enum DirOp {
    Link { name: String, node: NodeId },
    Unlink { name: String, node: NodeId },
    Rename { from: String, to: String, node: NodeId },
}

impl DirOp {
    /// Applies it to names of which some earlier change may have been lost.
    pub(super) fn apply(&self, names: &mut Names) {
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

    pub(super) fn node(&self) -> NodeId {
        match self {
            Self::Link { node, .. } | Self::Unlink { node, .. } | Self::Rename { node, .. } => {
                *node
            }
        }
    }
}

impl Disk {
    pub(super) fn node(&self, id: NodeId) -> io::Result<&Node> {
        self.nodes[id.0].as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match &self.node(id)?.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut Dir> {
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

    pub(super) fn file_mut(&mut self, id: NodeId) -> io::Result<&mut Inode> {
        match self.nodes[id.0].as_mut().map(|node| &mut node.body) {
            Some(Body::File(inode)) => Ok(inode),
            Some(Body::Dir(_)) => Err(not_regular()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for component in path.components() {
            if let Some(name) = name_of(component)? {
                at = self.child(at, name)?;
            }
        }
        Ok(at)
    }

    pub(super) fn child(&self, parent: NodeId, name: &str) -> io::Result<NodeId> {
        let id = self.dir(parent)?.current.get(name).copied();
        id.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn resolve_parent<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a str)> {
        let last = path.components().next_back().ok_or(io::ErrorKind::InvalidInput)?;
        let name = name_of(last)?.ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.resolve(path.parent().unwrap_or(Path::new("/")))?;
        self.dir(parent)?;
        Ok((parent, name))
    }

    /// Fails an operation on a name in a directory as a test has asked for.
    fn fail_at(&mut self, op: FaultOp, parent: NodeId, names: &[&str]) -> io::Result<()> {
        if self.scripts.is_empty() {
            return self.fail_by_chance(op);
        }
        let dir = Path::new("/").join(self.path_of(parent));
        let mut paths: Vec<_> = names.iter().map(|name| dir.join(name)).collect();
        if paths.is_empty() {
            paths.push(dir);
        }
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        self.fail(op, &paths)
    }

    pub(super) fn path_of(&self, mut id: NodeId) -> String {
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

    /// Frees the space of a file that has lost its name, at once.
    fn bury(&mut self, id: NodeId) {
        self.garbage += 1;
        if let Some(node) = self.nodes[id.0].as_mut() {
            node.named = false;
            if let Body::File(inode) = &node.body {
                self.allocated_sectors -= inode.allocated_sectors();
            }
        }
    }

    pub(super) fn create_dir(&mut self, parent: NodeId, name: &str) -> io::Result<()> {
        match self.child(parent, name) {
            Ok(id) => self.dir(id).map(drop).map_err(|_| io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) => self.link(parent, name, Body::Dir(Dir::default())).map(drop),
        }
    }

    pub(super) fn list_dir(&self, id: NodeId) -> io::Result<Vec<DirEntry>> {
        let names = &self.dir(id)?.current;
        let entry = |(name, id): (&String, &NodeId)| {
            let (kind, len) = match &self.node(*id)?.body {
                Body::File(inode) => (FileKind::Regular, inode.cached().len() as u64),
                Body::Dir(_) => (FileKind::Directory, 0),
            };
            Ok(DirEntry { name: name.clone(), kind, len, is_linked: false })
        };
        names.iter().map(entry).collect()
    }

    pub(super) fn sync_dir(&mut self, id: NodeId) -> io::Result<()> {
        self.counts.dir_syncs += 1;
        self.dir(id)?;
        self.fail_at(FaultOp::SyncDir, id, &[])?;
        let dir = self.dir_mut(id)?;
        dir.durable.clone_from(&dir.current);
        dir.pending.clear();
        if self.garbage >= GARBAGE {
            self.collect_garbage();
        }
        Ok(())
    }

    /// Renames a file in a directory; `replace` says whether the target may exist.
    pub(super) fn rename(
        &mut self,
        parent: NodeId,
        from: &str,
        to: &str,
        replace: bool,
    ) -> io::Result<()> {
        self.counts.renames += 1;
        let node = self.child(parent, from)?;
        let replaced = self.dir(parent)?.current.get(to).copied();
        if replaced.is_some_and(|replaced| !replace || self.file(replaced).is_err()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.fail_at(FaultOp::Rename, parent, &[from, to])?;
        if replaced == Some(node) {
            return Ok(());
        }
        let dir = self.dir_mut(parent)?;
        dir.current.remove(from);
        dir.current.insert(to.to_owned(), node);
        dir.pending.push(DirOp::Rename { from: from.to_owned(), to: to.to_owned(), node });
        if let Some(node) = self.nodes[node.0].as_mut() {
            to.clone_into(&mut node.name);
        }
        if let Some(replaced) = replaced {
            self.bury(replaced);
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, parent: NodeId, name: &str) -> io::Result<()> {
        self.counts.unlinks += 1;
        let node = self.child(parent, name)?;
        self.file(node).map_err(|_| io::Error::from(io::ErrorKind::IsADirectory))?;
        self.fail_at(FaultOp::Unlink, parent, &[name])?;
        let dir = self.dir_mut(parent)?;
        dir.current.remove(name);
        dir.pending.push(DirOp::Unlink { name: name.to_owned(), node });
        self.bury(node);
        Ok(())
    }

    pub(super) fn create(&mut self, parent: NodeId, name: &str) -> io::Result<NodeId> {
        self.counts.creates += 1;
        if self.dir(parent)?.current.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.fail_at(FaultOp::Create, parent, &[name])?;
        let inode = Inode::new(self.config.sector);
        self.link(parent, name, Body::File(Box::new(inode)))
    }

    pub(super) fn file_in(&self, parent: NodeId, name: &str) -> io::Result<NodeId> {
        let id = self.child(parent, name)?;
        self.file(id)?;
        Ok(id)
    }

    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.resolve(path)?;
        self.file(id)?;
        Ok(id)
    }

    /// Does what an operator may do beside a running process. It is durable at once.
    pub(super) fn meddle(&mut self, meddling: &Meddling) -> io::Result<()> {
        match meddling {
            Meddling::Move { from, to } => self.move_dir(from, to),
            Meddling::Swap(one, other) => {
                let aside = one.with_extension("aside");
                self.move_dir(one, &aside)?;
                self.move_dir(other, one)?;
                self.move_dir(&aside, other)
            }
            Meddling::Remove(path) => match self.erase(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                erased => erased,
            },
        }
    }

    fn move_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = self.resolve_parent(from)?;
        let (to_parent, to_name) = self.resolve_parent(to)?;
        let id = self.child(from_parent, from_name)?;
        self.dir(id)?;
        if self.dir(to_parent)?.current.contains_key(to_name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.settle_names(id)?;
        let old = self.dir_mut(from_parent)?;
        old.current.remove(from_name);
        old.durable.remove(from_name);
        let new = self.dir_mut(to_parent)?;
        new.current.insert(to_name.to_owned(), id);
        new.durable.insert(to_name.to_owned(), id);
        if let Some(node) = self.nodes[id.0].as_mut() {
            (node.parent, node.name) = (to_parent, to_name.to_owned());
        }
        Ok(())
    }

    /// Forgets nodes that no name, no pending change and no handle leads to.
    pub(super) fn collect_garbage(&mut self) {
        let mut reached = vec![false; self.nodes.len()];
        let mut next = vec![ROOT];
        next.extend(self.open.values().map(|file| file.node));
        next.extend(&self.locks);
        next.extend(&self.open_dirs);
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

    /// Recomputes every node's name and the space in use.
    pub(super) fn name_everything(&mut self) {
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
        let mut at = ROOT;
        for component in path.parent().unwrap_or(Path::new("/")).components() {
            if let Some(name) = name_of(component)? {
                self.create_dir(at, name)?;
                at = self.child(at, name)?;
            }
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
