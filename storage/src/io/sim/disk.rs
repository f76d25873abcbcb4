//! The state of the machine, what is in flight, and how it all crashes.
//!
//! Owns what a crash does, and the order in which random numbers are drawn. Never blocks, and
//! reads no clock but its own. Tested by `storage/tests/sim_disk.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::config::{CrashKind, Meddling, SimConfig, SimCounts};
use super::contents::Write;
use super::faults::{LieScript, Script};
use super::index;
use super::inode::{Loss, Stamp};
use super::names::{Body, Dir, Node, NodeId, ROOT};
use super::rng::{Rng, Survival};
use crate::io::RingBytes;
use crate::io::Ticket;

/// A file that a process has open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFile {
    pub(super) node: NodeId,
    pub(super) write: bool,
    pub(super) direct: bool,
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
        /// The bytes that must not change meanwhile; a fork does not hold them.
        held: Option<RingBytes>,
    },
    Sync {
        file: OpenFile,
        cover: Stamp,
    },
    /// Its process died.
    Dead,
}

/// What an armed step does to the process that takes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strike {
    /// A crash whose ends are drawn at random.
    Crash(CrashKind),
    /// A halt: what it leaves open is decided later. The struck operation was done, or not.
    Halt { done: bool },
}

/// A write that was in flight when its process died: any subset of its sectors was done.
#[derive(Clone, Debug)]
pub(super) struct Undecided {
    pub(super) node: NodeId,
    pub(super) offset: usize,
    pub(super) bytes: Arc<[u8]>,
}

/// Returns how many writes are among the operations of a queue.
pub(super) fn writes_in(queue: &[InFlight]) -> usize {
    queue.iter().filter(|operation| matches!(operation.body, FlightBody::Write { .. })).count()
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) config: SimConfig,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Option<Node>>,
    /// Names removed since the last search for files without any.
    pub(super) garbage: usize,
    pub(super) allocated_sectors: usize,
    pub(super) stamp: Stamp,
    pub(super) scripts: Vec<Script>,
    pub(super) lies: Vec<LieScript>,
    /// The processes' files, by the address of the handle.
    pub(super) open: BTreeMap<usize, OpenFile>,
    /// The processes' directories; one that is open twice is here twice.
    pub(super) open_dirs: Vec<NodeId>,
    /// Files and directories that are locked.
    pub(super) locks: Vec<NodeId>,
    pub(super) queues: BTreeMap<u64, Vec<InFlight>>,
    pub(super) next_queue: u64,
    /// Counts crashes: a handle of an earlier generation is dead.
    pub(super) generation: u64,
    pub(super) crashed: bool,
    pub(super) steps: u64,
    pub(super) armed: Option<(u64, Strike)>,
    /// What an operator does at a step.
    pub(super) meddling: Option<(u64, Meddling)>,
    pub(super) meddled: bool,
    /// Writes that a halt has left open.
    pub(super) undecided: Vec<Undecided>,
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
            lies: Vec::new(),
            open: BTreeMap::new(),
            open_dirs: Vec::new(),
            locks: Vec::new(),
            queues: BTreeMap::new(),
            next_queue: 0,
            generation: 0,
            crashed: false,
            steps: 0,
            armed: None,
            meddling: None,
            meddled: false,
            undecided: Vec::new(),
            counts: SimCounts::default(),
            clock_ns: 0,
            wall_offset_ns: 0,
        }
    }

    pub(super) fn arm(&mut self, steps: u64, strike: Strike) {
        self.armed = Some((self.steps.saturating_add(steps).saturating_add(1), strike));
    }

    /// Counts a step; returns what strikes now, if anything.
    pub(super) fn step(&mut self) -> Option<Strike> {
        self.steps += 1;
        self.clock_ns += self.config.step_ns;
        if let Some((_, meddling)) = self.meddling.take_if(|(at, _)| self.steps >= *at) {
            self.meddled = true;
            self.meddle(&meddling).expect("what a test asks for is possible");
        }
        self.armed.filter(|(at, _)| self.steps >= *at).map(|(_, strike)| strike)
    }

    // In flight.

    /// Performs one operation in flight.
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
                self.write(&write, None).map(|count| count as u64)
            }
            FlightBody::Sync { file, cover } => self.sync(file.node, *cover).map(|()| 0),
            FlightBody::Dead => Err(super::dead()),
        }
    }

    // Crashes.

    pub(super) fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Crash(kind) => self.crash(kind),
            Strike::Halt { .. } => self.end_processes(),
        }
    }

    /// Kills every process, and perhaps the machine.
    pub(super) fn crash(&mut self, kind: CrashKind) {
        self.end_processes();
        self.tear_undecided();
        if kind == CrashKind::PowerLoss {
            let survival = self.rng.survival(self.config.lose_all_ppm, self.config.lose_none_ppm);
            self.lose_power(survival);
        }
    }

    fn end_processes(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        let during_writes = queues.values().any(|queue| writes_in(queue) > 1);
        self.counts.crashes_during_writes += u64::from(during_writes);
        for operation in queues.values_mut().flatten() {
            let body = std::mem::replace(&mut operation.body, FlightBody::Dead);
            if let FlightBody::Write { file, offset, bytes, .. } = body {
                let offset = index(offset);
                self.undecided.push(Undecided { node: file.node, offset, bytes });
            }
        }
        self.queues = queues;
        self.open.clear();
        self.open_dirs.clear();
        self.locks.clear();
        self.armed = None;
        self.crashed = true;
        self.generation += 1;
    }

    fn tear_undecided(&mut self) {
        for Undecided { node, offset, bytes } in std::mem::take(&mut self.undecided) {
            // If the file is gone, so is the write.
            let _ = self.tear(node, offset, [&bytes, &[]]);
        }
    }

    fn lose_power(&mut self, survival: Survival) {
        let stale = self.old_content();
        let Self { nodes, rng, config, .. } = self;
        let loss = Loss {
            survival,
            shorn_ppm: config.shorn_sector_ppm,
            stale_ppm: config.stale_block_ppm,
            stale: &stale,
        };
        for node in nodes.iter_mut().flatten() {
            match &mut node.body {
                Body::File(inode) => inode.lose_power(rng, &loss),
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

    /// Returns what a block that was never written can show.
    fn old_content(&self) -> Vec<Vec<u8>> {
        if self.config.stale_block_ppm == 0 {
            return Vec::new();
        }
        let nodes = self.nodes.iter().flatten();
        nodes
            .filter_map(|node| match &node.body {
                Body::File(inode) => Some(inode.durable_sectors()),
                Body::Dir(_) => None,
            })
            .flatten()
            .collect()
    }

    /// Loses power, so that only durable contents survive.
    pub(super) fn drop_pending(&mut self) {
        self.end_processes();
        self.tear_undecided();
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
}
