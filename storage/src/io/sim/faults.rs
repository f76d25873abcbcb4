//! Operations that fail: as scripted by a test, or by chance.

use std::io;
use std::path::Path;

use super::config::{FaultOp, Lie};
use super::disk::Disk;
use super::names::NodeId;

#[derive(Clone, Debug)]
pub(super) struct Script {
    op: FaultOp,
    kind: io::ErrorKind,
    filter: String,
    after: u64,
}

#[derive(Clone, Debug)]
pub(super) struct LieScript {
    lie: Lie,
    filter: String,
    after: u64,
}

impl Disk {
    pub(super) fn add_lie(&mut self, lie: Lie, filter: &str, after: u64) {
        self.lies.push(LieScript { lie, filter: filter.to_owned(), after });
    }

    /// Returns whether the device tells this lie about this operation.
    pub(super) fn lies(&mut self, lie: Lie, node: NodeId) -> bool {
        if self.lies.is_empty() {
            return false;
        }
        let path = self.path_of(node);
        let found =
            self.lies.iter().position(|script| script.lie == lie && path.contains(&script.filter));
        let Some(script) = found.and_then(|at| self.lies.get_mut(at)) else { return false };
        if script.after > 0 {
            script.after -= 1;
            return false;
        }
        found.map(|at| self.lies.remove(at)).is_some()
    }

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
        self.lies.clear();
    }

    pub(super) fn fail_file(&mut self, op: FaultOp, node: NodeId) -> io::Result<()> {
        if self.scripts.is_empty() {
            return self.fail_by_chance(op);
        }
        let path = self.path_of(node);
        self.fail(op, &[Path::new(&path)])
    }

    pub(super) fn fail(&mut self, op: FaultOp, paths: &[&Path]) -> io::Result<()> {
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

    pub(super) fn fail_by_chance(&mut self, op: FaultOp) -> io::Result<()> {
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
}
