//! One seed of the store's campaign: random operations, crashes and reopenings on the
//! simulated disk, against a plain map.
//!
//! The map is changed as the documentation of each operation says, and compared with the
//! whole store after every one. After a crash the store must be what the map was after
//! some operation, none that was acknowledged may be missing, and a reading of the log
//! that shares no code with the store must come to the same records. Only what a reclaim
//! chooses is left to the store: it may take what is not persistent, and nothing else.
//! Checkpoints are taken and the log is purged meanwhile, crashes come inside opens, too,
//! and between two lives one checkpoint may be damaged: the store must show the same.
//! Operations of the disk fail, and the disk is full: what was acknowledged stays. The wall clock
//! is set, forward and back. From one life to the next the quota changes.
//!
//! ```text
//! operations    what is done with a store, and what must come of it
//! oracle        the store, its snapshots and its log beside the map
//! checkpoints   taken, damaged, and each of them spared
//! during        changes between two operations of a checkpoint
//! faults        what fails on the disk, and what that excuses
//! ```

mod checkpoints;
mod during;
mod faults;
mod operations;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulla_engine::{OnExceed, Quota, Receipt, Store, StoreOptions, Token};
use bulla_storage::io::sim::{CrashKind, SimConfig, SimDisk, SimIo};
use bulla_wal::{Method, Options, Overflow};

use crate::model::Violation;
use crate::rng::Rng;
use crate::seeds::{self, Campaign, Failure, Trace};
use crate::wrap::{Knobs, WrapIo};

pub use checkpoints::{
    any_one_checkpoint_is_enough_after_every_crash,
    first_checkpoints_outlive_every_power_loss_after_a_purge,
};

const DIR: &str = "/store";
/// More records, and more pages, than there ever are.
const UNBOUNDED: u64 = 1_000;
/// Enough for a checkpoint of any of these stores.
const RESERVE_BYTES: u64 = 256 * 1024;

/// A record and when it expires (0: never).
type Map = BTreeMap<u32, (Token, u64)>;

tally! {
    /// What a seed did, for the campaign's totals.
    #[expect(missing_docs, reason = "the names say it")]
    pub struct Tally {
        pub crashes: u64,
        pub lost_operations: u64,
        pub acknowledged: u64,
        pub changes: u64,
        pub batches: u64,
        pub swaps: u64,
        pub swaps_refused: u64,
        pub updates_that_panicked: u64,
        pub expired: u64,
        pub refused_for_records: u64,
        pub refused_for_bytes: u64,
        pub reclaimed: u64,
        pub refused_by_the_ring: u64,
        pub crashes_in_opens: u64,
        pub checkpoints: u64,
        pub opened_from_checkpoints: u64,
        pub opened_from_older_ones: u64,
        pub slabs_built_again: u64,
        pub opened_on_purged_logs: u64,
        pub snapshots: u64,
        pub pages_kept: u64,
        pub changes_amid_checkpoints: u64,
        pub clock_jumps_back: u64,
        pub opened_above_quotas: u64,
        pub poisoned: u64,
        pub no_space: u64,
        pub checkpoints_failed: u64,
        pub reserves_used: u64,
        pub opens_failed: u64,
    }
}

/// Plays one seed.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64) -> Result<Tally, Box<Failure>> {
    seeds::run::<World>(seed)
}

/// Plays what a script says instead of a seed: every choice is read from its bytes.
///
/// # Errors
/// The first violation, with the steps that led to it.
pub fn run_script(script: &[u8]) -> Result<Tally, String> {
    seeds::run_script::<World>(script)
}

/// The map after an operation, and the number of the log's last entry then.
struct Moment {
    seq: u64,
    map: Map,
}

pub(crate) struct World {
    rng: Rng,
    disk: SimDisk,
    /// Tells the time, and does nothing else.
    clock: Arc<SimIo>,
    /// Of the I/O of the store that was opened last.
    knobs: Arc<Knobs>,
    options: Options,
    max_records: u64,
    max_pages: u64,
    /// Records and pages in use when they were counted last.
    in_use: (u64, u64),
    reclaims: bool,
    rush: bool,
    /// Faults are planted: they make errors expected.
    faulty: bool,
    /// The log has failed: this life is over.
    poisoned: bool,
    /// Bytes of log after which a checkpoint is taken.
    checkpoint_bytes: Option<u64>,
    /// Bytes that are kept for a checkpoint.
    reserve_bytes: Option<u64>,
    /// Checkpoints that were damaged. A crash may bring one back that was removed, but no other
    /// gets its name.
    damaged: BTreeSet<PathBuf>,
    /// Are the two newest checkpoints whole?
    two_stand: bool,
    map: Map,
    /// The first is what the last open showed.
    timeline: Vec<Moment>,
    /// The map after each entry that ended an operation, by the entry's number.
    maps: BTreeMap<u64, Map>,
    receipts: Vec<Receipt>,
    /// Entries before this life's.
    base: u64,
    durable: u64,
    written: u64,
    tally: Tally,
    trace: Trace,
}

impl seeds::World for World {
    const CAMPAIGN: Campaign = Campaign::Store;
    type Tally = Tally;

    fn new(mut rng: Rng) -> Self {
        let config = SimConfig {
            step_ns: rng.within(1_000, 200_000),
            late_completion_ppm: if rng.one_in(2) { 500_000 } else { 0 },
            slow_sync_ppm: if rng.one_in(3) { 950_000 } else { 0 },
            stale_block_ppm: if rng.one_in(3) { 300_000 } else { 0 },
            short_write_ppm: if rng.one_in(4) { 50_000 } else { 0 },
            shorn_sector_ppm: if rng.one_in(2) { 200_000 } else { 0 },
            short_read_ppm: if rng.one_in(8) { 50_000 } else { 0 },
            ..SimConfig::default()
        };
        let disk = SimDisk::with_config(rng.bits(), config);
        // A bound that no sync, some, or every sync of so short segments exceeds.
        let zeros_pay_below = [u64::MAX, rng.below(4 * 1024), 0][rng.below(3) as usize];
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(16 * 1024)
            .method(if rng.one_in(2) { Method::Direct } else { Method::Buffered })
            .overflow(if rng.one_in(4) { Overflow::Full } else { Overflow::Block })
            .depth(rng.within(1, 6) as usize)
            .zeros_pay_below(zeros_pay_below)
            .lock_timeout(Duration::ZERO)
            .manual();
        let (max_records, max_pages) = limits(&mut rng);
        Self {
            in_use: (0, 0),
            reclaims: rng.one_in(2),
            checkpoint_bytes: rng.one_in(2).then(|| rng.within(2_000, 40_000)),
            reserve_bytes: rng.one_in(3).then_some(RESERVE_BYTES),
            damaged: BTreeSet::new(),
            two_stand: true,
            rng,
            clock: disk.process(),
            knobs: Arc::default(),
            rush: false,
            faulty: false,
            poisoned: false,
            disk,
            options,
            max_records,
            max_pages,
            map: Map::new(),
            timeline: Vec::new(),
            maps: BTreeMap::from([(0, Map::new())]),
            receipts: Vec::new(),
            base: 0,
            durable: 0,
            written: 0,
            tally: Tally::default(),
            trace: Trace::default(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.timeline.push(Moment { seq: 0, map: Map::new() });
        for _ in 0..self.rng.within(2, 5) {
            let kind = self.kind();
            let store = self.open()?;
            self.rush = self.rng.one_in(3);
            let longest = if self.rng.one_in(3) { 1_000 } else { 300 };
            let steps = self.rng.below(longest);
            self.arm(kind, steps);
            self.plant_fault();
            self.live(&store)?;
            self.leave(store, kind)?;
        }
        drop(self.open()?);
        Ok(())
    }

    fn end(self) -> (Rng, Trace, Tally) {
        (self.rng, self.trace, self.tally)
    }
}

impl World {
    fn kind(&mut self) -> CrashKind {
        if self.rng.one_in(2) { CrashKind::Kill } else { CrashKind::PowerLoss }
    }

    fn note(&mut self, line: fmt::Arguments<'_>) {
        self.trace.step(&self.disk, line);
    }

    fn arm(&mut self, kind: CrashKind, steps: u64) {
        self.note(format_args!("{kind:?} after {steps} steps"));
        self.disk.crash_after(steps, kind);
    }

    /// Works with the store until it has enough of it, fails, or the machine crashes.
    fn live(&mut self, store: &Store) -> Result<(), Violation> {
        let mut snapshots = Vec::new();
        for _ in 0..self.rng.within(10, 200) {
            if self.rng.leaves_out() {
                continue;
            }
            self.act(store, Self::operate)?;
            if self.disk.is_crashed() {
                break;
            }
            self.look_at_snapshots(store, &mut snapshots)?;
            if self.poisoned {
                self.rng.end_part();
                return self.look_at_poisoned(store);
            }
        }
        self.rng.end_part();
        Ok(())
    }

    /// Does something with the store, and compares it with the map then.
    fn act(
        &mut self,
        store: &Store,
        operate: impl FnOnce(&mut Self, &Store) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let ended = operate(self, store);
        let ended =
            ended.and_then(|()| if self.disk.is_crashed() { Ok(()) } else { self.compare(store) });
        // Nothing can be read of a dead disk.
        if self.disk.is_crashed() {
            return Ok(());
        }
        ended?;
        self.acknowledge(store);
        Ok(())
    }

    /// The store is closed, or ends with its process or the machine.
    fn leave(&mut self, store: Store, kind: CrashKind) -> Result<(), Violation> {
        let checkpoints = store.stats().checkpoints;
        self.tally.slabs_built_again += checkpoints.rebuilt_slabs;
        self.two_stand |= checkpoints.taken >= 2;
        if !self.disk.is_crashed() && self.rng.one_in(4) {
            self.disk.disarm();
            let seq = self.seq(&store);
            let closed = store.close();
            self.note(format_args!("closed after entry {seq}: {closed:?}"));
            match closed {
                Ok(()) => {
                    (self.durable, self.written) = (seq, seq);
                    return Ok(());
                }
                Err(error) if self.is_excused(&error) => self.crash(kind),
                Err(error) => return Err(format!("I20h: close failed: {error:?}")),
            }
        } else {
            self.crash(kind);
            drop(store);
        }
        self.tally.crashes += 1;
        Ok(())
    }

    /// Ends everything that runs on the disk, if that has not happened yet.
    fn crash(&mut self, kind: CrashKind) {
        self.note(format_args!("{kind:?}"));
        match (self.disk.is_crashed(), kind) {
            (true, _) => {}
            (_, CrashKind::Kill) => self.disk.kill(),
            (_, CrashKind::PowerLoss) => self.disk.power_loss(),
        }
        if kind == CrashKind::PowerLoss {
            self.written = self.durable;
        }
        self.disk.disarm();
    }

    /// Opens the store, with crashes and faults inside, and compares it with what it may be.
    fn open(&mut self) -> Result<Store, Violation> {
        self.disk.disarm();
        self.heal();
        self.damage();
        if self.rng.one_in(4) {
            (self.max_records, self.max_pages) = limits(&mut self.rng);
        }
        for _ in 0..self.rng.below(3) {
            if self.rng.leaves_out() {
                continue;
            }
            let kind = self.kind();
            let steps = self.rng.below(150);
            self.arm(kind, steps);
            self.plant_fault();
            let opened = Store::open(Path::new(DIR), &self.store_options());
            let error = opened.as_ref().err().map(ToString::to_string);
            self.note(format_args!("an open: {}", error.as_deref().unwrap_or("fine")));
            self.tally.crashes_in_opens += u64::from(self.disk.is_crashed());
            match opened {
                // What an open shows is durable.
                Ok(store) if !self.disk.is_crashed() => {
                    let seq = recovered(&store);
                    (self.durable, self.written) = (self.durable.max(seq), self.written.max(seq));
                    self.crash(kind);
                    drop(store);
                }
                Err(error) if !self.is_open_excused(&error) => {
                    return Err(format!("I20h: open failed: {error:?}"));
                }
                // Its process may try again.
                Err(_) if !self.disk.is_crashed() => self.tally.opens_failed += 1,
                _ => self.crash(kind),
            }
            self.disk.disarm();
            self.heal();
        }
        self.rng.end_part();
        self.open_at_last()
    }

    fn store_options(&mut self) -> StoreOptions {
        let (io, knobs) = WrapIo::over(self.disk.process());
        self.knobs = knobs;
        let log = self.options.clone().io(io);
        let on_exceed = if self.reclaims { OnExceed::Evict } else { OnExceed::Reject };
        let quota = Quota::new()
            .max_records(self.max_records)
            .max_bytes(self.max_pages * 4096)
            .on_exceed(on_exceed);
        // Without the log nobody else could say what a reclaim has chosen.
        StoreOptions::new()
            .log(log)
            .quota(quota)
            .checkpoint_bytes(self.checkpoint_bytes)
            .checkpoint_close_bytes(self.checkpoint_bytes)
            .checkpoint_reserve_bytes(self.reserve_bytes)
            .keep_log(self.reclaims)
    }

    fn seq(&self, store: &Store) -> u64 {
        self.base + store.stats().log.entries
    }
}

/// The most records and the most pages that a store may have in one life.
fn limits(rng: &mut Rng) -> (u64, u64) {
    match rng.below(3) {
        0 => (rng.within(10, 60), UNBOUNDED),
        1 => (UNBOUNDED, rng.within(2, 8)),
        _ => (UNBOUNDED, UNBOUNDED),
    }
}

/// The number of the last entry that an open found.
fn recovered(store: &Store) -> u64 {
    store.recovered().map_or(0, |report| report.next_seq.0 - 1)
}
