//! Every way in which a halt can end, piece by piece.
//!
//! Owns which pieces there are, and their order. A crash draws its end by chance; a halt
//! leaves it to a caller that enumerates all of them. Tested by `storage/tests/sim_disk.rs`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::config::CrashKind;
use super::disk::{Disk, Undecided};
use super::names::{Body, Dir, DirOp, NodeId, ROOT};

impl Disk {
    /// Decides what a halt has left open: `choose` takes how many ends a piece has, and
    /// returns one of them.
    pub(super) fn end(&mut self, kind: CrashKind, choose: &mut dyn FnMut(usize) -> usize) {
        // Nobody can read a file any more that no name leads to.
        self.collect_garbage();
        for Undecided { node, offset, bytes } in std::mem::take(&mut self.undecided) {
            let len = self.allocate(node, offset, bytes.len()).unwrap_or(0);
            let stamp = self.next_stamp();
            if let Ok(inode) = self.file_mut(node) {
                // After a power loss each sector is lost or not, whether it was done or not.
                let mut keep = || kind == CrashKind::PowerLoss || choose(2) == 1;
                inode.write_some(offset, &bytes[..len], stamp, &mut keep);
            }
        }
        if kind == CrashKind::Kill {
            return;
        }
        for node in self.nodes.iter_mut().flatten() {
            match &mut node.body {
                Body::File(inode) => inode.end(choose),
                Body::Dir(dir) => {
                    for op in std::mem::take(&mut dir.pending) {
                        if choose(2) == 1 {
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

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_node(ROOT, &mut hasher);
        for Undecided { node, offset, bytes } in &self.undecided {
            self.hash_node(*node, &mut hasher);
            (offset, bytes).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn hash_node(&self, id: NodeId, hasher: &mut impl Hasher) {
        let Ok(node) = self.node(id) else { return };
        match &node.body {
            Body::File(inode) => inode.hash(hasher),
            Body::Dir(dir) => self.hash_dir(dir, hasher),
        }
    }

    fn hash_dir(&self, dir: &Dir, hasher: &mut impl Hasher) {
        for (name, id) in &dir.current {
            name.hash(hasher);
            self.hash_node(*id, hasher);
        }
        // What is durable differs only by what is pending.
        for (name, id) in dir.durable.iter().filter(|_| !dir.pending.is_empty()) {
            name.hash(hasher);
            self.hash_node(*id, hasher);
        }
        for op in &dir.pending {
            let (from, to) = match op {
                DirOp::Link { name, .. } => ("", name.as_str()),
                DirOp::Unlink { name, .. } => (name.as_str(), ""),
                DirOp::Rename { from, to, .. } => (from.as_str(), to.as_str()),
            };
            (from, to).hash(hasher);
            self.hash_node(op.node(), hasher);
        }
    }
}
