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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_engine::entries::Change;
use bulla_engine::{
    Batch, CheckpointError, Error, Expired, Flags, Level, OnExceed, Quota, Receipt, Snapshot,
    Store, StoreOptions, Token, TokenId,
};
use bulla_recovery::{Inspection, Range, Recovery};
use bulla_wal::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{Method, Options, Overflow};

use crate::rng::Rng;

const DIR: &str = "/store";
/// Seconds since 1970 at which the simulated clock is about: tokens may be as old.
const OLD: u64 = 1_000;
/// More records, and more pages, than there ever are.
const UNBOUNDED: u64 = 1_000;

type Violation = String;

/// A record and when it expires (0: never).
type Map = BTreeMap<u32, (Token, u64)>;

/// What a seed did, for the campaign's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
}

impl Tally {
    /// Adds another seed's.
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.lost_operations += other.lost_operations;
        self.acknowledged += other.acknowledged;
        self.changes += other.changes;
        self.batches += other.batches;
        self.swaps += other.swaps;
        self.swaps_refused += other.swaps_refused;
        self.updates_that_panicked += other.updates_that_panicked;
        self.expired += other.expired;
        self.refused_for_records += other.refused_for_records;
        self.refused_for_bytes += other.refused_for_bytes;
        self.reclaimed += other.reclaimed;
        self.refused_by_the_ring += other.refused_by_the_ring;
        self.crashes_in_opens += other.crashes_in_opens;
        self.checkpoints += other.checkpoints;
        self.opened_from_checkpoints += other.opened_from_checkpoints;
        self.opened_from_older_ones += other.opened_from_older_ones;
        self.slabs_built_again += other.slabs_built_again;
        self.opened_on_purged_logs += other.opened_on_purged_logs;
        self.snapshots += other.snapshots;
        self.pages_kept += other.pages_kept;
    }
}

/// Plays one seed.
///
/// # Errors
/// The first promise that is broken, with the seed that plays it again.
pub fn run(seed: u64) -> Result<Tally, String> {
    let mut world = World::new(Rng::new(seed));
    world.play().map_err(|violation| format!("seed {seed}: {violation}"))?;
    Ok(world.tally)
}

/// Plays what a script says instead of a seed: every choice is read from its bytes.
///
/// # Errors
/// The first promise that is broken.
pub fn run_script(script: &[u8]) -> Result<Tally, String> {
    let mut world = World::new(Rng::from_script(script));
    world.play()?;
    Ok(world.tally)
}

/// A kill at every step of a checkpoint, an open after it, a power loss after that, which takes
/// what was pending, or leaves it, or decides otherwise on one part of it: any one checkpoint may
/// then be damaged, and the store shows the same.
///
/// # Errors
/// The first of these that is broken, with the crash before it.
pub fn any_one_checkpoint_is_enough_after_every_crash() -> Result<(), String> {
    /// What a kill strikes was done, or not.
    const SEEDS: u64 = 4;
    let dir = Path::new(DIR);
    let log = |disk: &SimDisk| {
        let log = Options::new().sector(512).segment_len(16 * 1024).ring_len(16 * 1024);
        log.io(disk.process()).lock_timeout(Duration::ZERO).manual()
    };
    let options = |disk: &SimDisk| StoreOptions::new().log(log(disk)).checkpoint_close_bytes(None);
    let failed = |error: Error| format!("{error:?}");
    for (step, seed) in (0..400_u64).flat_map(|step| (0..SEEDS).map(move |seed| (step, seed))) {
        let disk = SimDisk::new(seed);
        let store = Store::open(dir, &options(&disk)).map_err(failed)?;
        let fill = |store: &Store, weight: f32| {
            (1..100_u32).try_for_each(|id| {
                let token = Token::builder(TokenId(id)).weight(weight).build()?;
                store.put_async(&token, Level::Strict).map(drop)
            })
        };
        for weight in [1.0, 2.0, 3.0] {
            fill(&store, weight).map_err(failed)?;
            store.checkpoint().map_err(failed)?;
        }
        fill(&store, 4.0).map_err(failed)?;
        store.sync().map_err(failed)?;
        disk.crash_after(step, CrashKind::Kill);
        let ended = store.checkpoint().is_ok();
        disk.disarm();
        disk.kill();
        drop(store);
        let all_stand = |disk: &SimDisk| {
            let store = Store::open(dir, &options(disk));
            let store = store.map_err(|error| format!("step {step}: {error:?}"))?;
            let opened = store.opened_from();
            if opened.refused.is_empty() { Ok(()) } else { Err(format!("step {step}: {opened}")) }
        };
        // A recovery that knows of no checkpoint moves no frame below one.
        let fork = disk.fork(seed);
        fork.power_loss();
        let recovery = Recovery::run(dir, &log(&fork));
        drop(recovery.map_err(|error| format!("step {step}: {error:?}"))?);
        all_stand(&fork)?;
        all_stand(&disk)?;
        disk.halt();
        for ends in ends_but_for_one(&disk.open_ends(CrashKind::PowerLoss)) {
            let disk = disk.end(seed, CrashKind::PowerLoss, &ends);
            each_checkpoint_can_be_spared(&disk, |disk| {
                let store = Store::open(dir, &options(disk)).map_err(failed)?;
                let is_right = |token: Token| token.weight() == 4.0;
                let all = read(store.iter())?.all(is_right) && store.len() == 99;
                if all { Ok(()) } else { Err("other records".to_owned()) }
            })
            .map_err(|violation| format!("seed {seed}, step {step}, {ends:?}: {violation}"))?;
        }
        if ended && seed == SEEDS - 1 {
            return Ok(());
        }
    }
    Err("a checkpoint takes more steps than were tried".to_owned())
}

/// Every piece lost, or every piece as it was written last; and each of these but for one.
fn ends_but_for_one(open: &[usize]) -> Vec<Vec<usize>> {
    let lost = vec![0; open.len()];
    let kept: Vec<_> = open.iter().map(|count| count - 1).collect();
    let mut all = vec![lost.clone(), kept.clone()];
    for at in 0..open.len() {
        for (ends, other) in [(&lost, &kept), (&kept, &lost)] {
            let mut ends = ends.clone();
            ends[at] = other[at];
            all.push(ends);
        }
    }
    all
}

/// Damages each checkpoint in turn, and looks at the store then.
fn each_checkpoint_can_be_spared(
    disk: &SimDisk,
    look: impl Fn(&SimDisk) -> Result<(), String>,
) -> Result<(), String> {
    let mut names = disk.paths();
    names.retain(|path| path.to_string_lossy().ends_with(".ckpt"));
    names.iter().try_for_each(|name| {
        let disk = disk.fork(1);
        disk.flip(name, 20, 1);
        look(&disk).map_err(|violation| format!("{} damaged: {violation}", name.display()))
    })
}

/// The map after an operation, and the number of the log's last entry then.
struct Moment {
    seq: u64,
    map: Map,
}

struct World {
    rng: Rng,
    disk: SimDisk,
    options: Options,
    max_records: u64,
    max_pages: u64,
    reclaims: bool,
    rush: bool,
    /// Bytes of log after which a checkpoint is taken.
    checkpoint_bytes: Option<u64>,
    /// A checkpoint that was damaged, until two others were taken.
    damaged: Option<PathBuf>,
    map: Map,
    /// The first is what the last open showed.
    history: Vec<Moment>,
    /// The map after each entry that ended an operation, by the entry's number.
    maps: BTreeMap<u64, Map>,
    receipts: Vec<Receipt>,
    /// Entries before this life's.
    base: u64,
    durable: u64,
    written: u64,
    tally: Tally,
}

impl World {
    fn new(mut rng: Rng) -> Self {
        let config = SimConfig {
            step_ns: rng.within(1_000, 200_000),
            late_completion_ppm: if rng.one_in(2) { 500_000 } else { 0 },
            ..SimConfig::default()
        };
        let disk = SimDisk::with_config(rng.bits(), config);
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(16 * 1024)
            .method(if rng.one_in(2) { Method::Direct } else { Method::Buffered })
            .overflow(if rng.one_in(4) { Overflow::Full } else { Overflow::Block })
            .lock_timeout(Duration::ZERO)
            .manual();
        let (max_records, max_pages) = match rng.below(3) {
            0 => (rng.within(10, 60), UNBOUNDED),
            1 => (UNBOUNDED, rng.within(2, 8)),
            _ => (UNBOUNDED, UNBOUNDED),
        };
        Self {
            reclaims: rng.one_in(2),
            checkpoint_bytes: rng.one_in(2).then(|| rng.within(2_000, 40_000)),
            damaged: None,
            rng,
            rush: false,
            disk,
            options,
            max_records,
            max_pages,
            map: Map::new(),
            history: Vec::new(),
            maps: BTreeMap::from([(0, Map::new())]),
            receipts: Vec::new(),
            base: 0,
            durable: 0,
            written: 0,
            tally: Tally::default(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.history.push(Moment { seq: 0, map: Map::new() });
        for _ in 0..self.rng.within(2, 5) {
            let kind = if self.rng.one_in(2) { CrashKind::Kill } else { CrashKind::PowerLoss };
            let store = self.open()?;
            self.rush = self.rng.one_in(3);
            self.disk.crash_after(self.rng.below(300), kind);
            let mut snapshots = Vec::new();
            for _ in 0..self.rng.within(10, 200) {
                let ended = self.operate(&store);
                let ended = ended.and_then(|()| {
                    if self.disk.is_crashed() { Ok(()) } else { self.compare(&store) }
                });
                // Nothing can be read of a dead disk.
                if self.disk.is_crashed() {
                    break;
                }
                ended?;
                self.acknowledge(&store);
                self.look_at_snapshots(&store, &mut snapshots)?;
            }
            drop(snapshots);
            let checkpoints = store.stats().checkpoints;
            self.tally.slabs_built_again += checkpoints.rebuilt_slabs;
            if checkpoints.taken >= 2 {
                self.damaged = None;
            }
            if !self.disk.is_crashed() && self.rng.one_in(4) {
                self.disk.disarm();
                let seq = self.seq(&store);
                store.close().map_err(|error| format!("close failed: {error:?}"))?;
                (self.durable, self.written) = (seq, seq);
                continue;
            }
            self.crash(kind);
            drop(store);
            self.tally.crashes += 1;
        }
        drop(self.open()?);
        Ok(())
    }

    /// Ends everything that runs on the disk, if that has not happened yet.
    fn crash(&mut self, kind: CrashKind) {
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

    /// Opens the store, with crashes inside, and compares it with what it may be.
    fn open(&mut self) -> Result<Store, Violation> {
        self.disk.disarm();
        self.damage();
        for _ in 0..self.rng.below(3) {
            let kind = if self.rng.one_in(2) { CrashKind::Kill } else { CrashKind::PowerLoss };
            self.disk.crash_after(self.rng.below(150), kind);
            let opened = Store::open(Path::new(DIR), &self.store_options());
            self.tally.crashes_in_opens += u64::from(self.disk.is_crashed());
            match opened {
                // What an open shows is durable.
                Ok(store) if !self.disk.is_crashed() => {
                    let seq = recovered(&store);
                    (self.durable, self.written) = (self.durable.max(seq), self.written.max(seq));
                    self.crash(kind);
                    drop(store);
                }
                Err(error) if !self.disk.is_crashed() => {
                    return Err(format!("open failed: {error:?}"));
                }
                _ => self.crash(kind),
            }
        }
        self.open_at_last()
    }

    /// Damages one of the checkpoints, if all of them are whole.
    fn damage(&mut self) {
        let mut names = self.disk.paths();
        names.retain(|path| path.to_string_lossy().ends_with(".ckpt"));
        if self.damaged.is_some() || names.is_empty() || !self.rng.one_in(3) {
            return;
        }
        let name = names.swap_remove(self.rng.below(names.len() as u64) as usize);
        let len = self.disk.read_file(&name).len() as u64;
        if len == 0 || self.rng.one_in(4) {
            self.disk.remove_file(&name);
        } else {
            self.disk.flip(&name, self.rng.below(len), 1 << self.rng.below(8));
        }
        self.damaged = Some(name);
    }

    fn store_options(&self) -> StoreOptions {
        let log = self.options.clone().io(self.disk.process());
        let on_exceed = if self.reclaims { OnExceed::Reclaim } else { OnExceed::Reject };
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
            .keep_log(self.reclaims)
    }

    fn open_at_last(&mut self) -> Result<Store, Violation> {
        let log = self.options.clone().io(self.disk.process());
        let store = Store::open(Path::new(DIR), &self.store_options())
            .map_err(|error| format!("open failed: {error:?}"))?;
        self.look_at_checkpoints(&store)?;
        let seq = recovered(&store);
        if seq < self.written {
            return Err(format!("entry {} was acknowledged, {seq} were recovered", self.written));
        }
        self.maps.retain(|number, _| *number <= seq);
        self.map = match read_log(&log, &self.maps, seq)? {
            Some(map) => map,
            None => self.maps.get(&seq).cloned().ok_or("nobody knows the map")?,
        };
        match self.history.iter().position(|moment| moment.seq == seq) {
            Some(at) if self.history[at].map != self.map => {
                return Err(format!("after entry {seq} the log says something else"));
            }
            Some(at) => self.tally.lost_operations += (self.history.len() - 1 - at) as u64,
            // Records are reclaimed, and expire, one by one.
            None if self.reclaims || self.tally.expired > 0 => {}
            None => return Err(format!("entry {seq} is the last: a change was cut in two")),
        }
        (self.base, self.durable, self.written) = (seq, seq, seq);
        self.history = vec![Moment { seq, map: self.map.clone() }];
        self.receipts.clear();
        self.compare(&store)?;
        Ok(store)
    }

    /// Only a checkpoint that was damaged is refused.
    fn look_at_checkpoints(&mut self, store: &Store) -> Result<(), Violation> {
        let opened = store.opened_from();
        self.tally.opened_from_checkpoints += u64::from(opened.checkpoint.is_some());
        self.tally.opened_from_older_ones +=
            u64::from(opened.checkpoint.is_some() && !opened.refused.is_empty());
        let purged = store.recovered().is_some_and(|report| report.first_seq.0 > 1);
        self.tally.opened_on_purged_logs += u64::from(purged);
        match opened.refused.iter().find(|refused| Some(&refused.path) != self.damaged.as_ref()) {
            Some(_) => Err(format!("a whole checkpoint was refused: {opened}")),
            None => Ok(()),
        }
    }

    fn checkpoint(&mut self, store: &Store) -> Result<(), Violation> {
        let seq = self.seq(store);
        match store.checkpoint() {
            Ok(taken) if taken.records != self.map.len() as u64 => {
                Err(format!("{taken:?}, but there are {}", self.map.len()))
            }
            Ok(_) => {
                // It promises them.
                (self.durable, self.written) = (self.durable.max(seq), self.written.max(seq));
                self.tally.checkpoints += 1;
                Ok(())
            }
            Err(_) if self.disk.is_crashed() => Ok(()),
            // The segment is full to its last sector.
            Err(Error::Checkpoint(CheckpointError::NotPromised { .. })) => Ok(()),
            Err(error) => Err(format!("checkpoint failed: {error:?}")),
        }
    }

    fn seq(&self, store: &Store) -> u64 {
        self.base + store.stats().log.entries
    }

    /// Compares the whole store with the map.
    fn compare(&mut self, store: &Store) -> Result<(), Violation> {
        let all_there = store.stats().checkpoints.waiting_slabs == 0;
        if self.reclaims || all_there || self.rng.one_in(8) {
            self.compare_all(store)?;
        } else {
            // Not the whole of it, so that some of it stays in the checkpoint.
            let id = TokenId(self.id());
            let expected = self.map.get(&id.0).map(|(token, _)| *token);
            if read(store.get(id))? != expected {
                return Err(format!("{id:?} is not {expected:?}"));
            }
        }
        self.compare_quota(store)?;
        let seq = self.seq(store);
        self.maps.insert(seq, self.map.clone());
        if self.history.last().is_none_or(|last| last.seq != seq) {
            self.history.push(Moment { seq, map: self.map.clone() });
        }
        Ok(())
    }

    fn compare_all(&mut self, store: &Store) -> Result<(), Violation> {
        let shown: Vec<_> = read(store.iter())?.collect();
        if self.reclaims {
            let shown: BTreeSet<_> = shown.iter().map(|token| token.id().0).collect();
            self.take_reclaimed(&shown)?;
        }
        if !shown.iter().eq(self.map.values().map(|(token, _)| token)) {
            return Err(format!("the store has {shown:?}, the map {:?}", self.map));
        }
        for (id, (token, expiry)) in &self.map {
            let expires_at = read(store.expires_at(TokenId(*id)))?.unwrap_or(0);
            let found = (read(store.get(TokenId(*id)))?, expires_at);
            if found != (Some(*token), *expiry) {
                return Err(format!("{id} is {found:?}, not {:?}", (token, expiry)));
            }
        }
        Ok(())
    }

    fn compare_quota(&self, store: &Store) -> Result<(), Violation> {
        let (stats, pages) = (store.stats().quota, pages(&self.map));
        let bytes = stats.bytes - stats.kept_bytes;
        if (stats.records, bytes) != (self.map.len() as u64, pages * 4096) {
            return Err(format!("{stats:?}, but there are {} in {pages} pages", self.map.len()));
        }
        if stats.records_high > self.max_records.max(self.history[0].map.len() as u64) {
            return Err(format!("{stats:?}: more than may be"));
        }
        Ok(())
    }

    /// What is not shown was reclaimed: nothing persistent may be among it.
    fn take_reclaimed(&mut self, shown: &BTreeSet<u32>) -> Result<(), Violation> {
        let gone: Vec<_> = self.map.keys().filter(|id| !shown.contains(id)).copied().collect();
        for id in gone {
            let gone = self.map.remove(&id);
            if gone.is_some_and(|(token, _)| token.flags().contains(Flags::PERSISTENT)) {
                return Err(format!("{id} is persistent, and was reclaimed"));
            }
            self.tally.reclaimed += 1;
        }
        Ok(())
    }

    /// Takes a snapshot, or ends one: it shows what the store did when it was taken.
    fn look_at_snapshots<'s>(
        &mut self,
        store: &'s Store,
        snapshots: &mut Vec<(Snapshot<'s>, Map)>,
    ) -> Result<(), Violation> {
        /// One more is not taken.
        const MOST: usize = 3;
        // It reads all that is still in the checkpoint: seldom.
        if snapshots.len() < MOST && self.rng.one_in(30) {
            match store.snapshot() {
                Ok(snapshot) => snapshots.push((snapshot, self.map.clone())),
                Err(_) if self.disk.is_crashed() => {}
                Err(error) => return Err(format!("no snapshot: {error:?}")),
            }
        } else if !snapshots.is_empty() && self.rng.one_in(20) {
            self.tally.pages_kept += store.stats().quota.kept_bytes / 4096;
            let at = self.rng.below(snapshots.len() as u64) as usize;
            let (snapshot, map) = snapshots.swap_remove(at);
            match contents(&snapshot) {
                Ok(shown) if shown == map => self.tally.snapshots += 1,
                // Its pages made way.
                Err(_) if self.max_pages < UNBOUNDED => {}
                other => return Err(format!("the snapshot shows {other:?}, not {map:?}")),
            }
        }
        match store.stats().quota.kept_bytes {
            0 => Ok(()),
            kept if snapshots.is_empty() => Err(format!("{kept} bytes are kept for nothing")),
            _ => Ok(()),
        }
    }

    fn acknowledge(&mut self, store: &Store) {
        let (mut durable, mut written) = (self.durable, self.written);
        let tally = &mut self.tally;
        self.receipts.retain(|receipt| {
            let ready = matches!(store.is_ready(*receipt), Ok(true));
            if ready && receipt.level != Level::Relaxed {
                written = written.max(receipt.seq.0);
                tally.acknowledged += 1;
                if receipt.level == Level::Strict {
                    durable = durable.max(receipt.seq.0);
                }
            }
            !ready
        });
        (self.durable, self.written) = (durable, written);
    }

    fn operate(&mut self, store: &Store) -> Result<(), Violation> {
        let level = Level::ALL[self.rng.below(3) as usize];
        // In a rush nobody makes room in the ring but the writes themselves.
        match self.rng.below(if self.rush { 12 } else { 17 }) {
            0..=3 => self.put(store, level),
            4 => self.expire(store, level),
            5 | 6 => self.update(store, level),
            7 => self.swap(store, level),
            8 => self.delete(store, level),
            9 | 10 => self.batch(store, level),
            11 => self.expire_due(store),
            12 => {
                self.disk.advance(self.rng.within(1, 150) * 1_000_000);
                store.step();
                Ok(())
            }
            16 => self.checkpoint(store),
            13 => {
                let _ = store.sync();
                Ok(())
            }
            _ => {
                if let Some(receipt) = self.receipts.last() {
                    let _ = store.wait(*receipt);
                }
                Ok(())
            }
        }
    }

    /// An id of a few dense pages, or one that is alone in its slab.
    fn id(&mut self) -> u32 {
        let number = self.rng.below(100) as u32;
        if self.rng.one_in(5) { (number % 8 + 1) * 1_000_000 } else { number * 3 + 1 }
    }

    fn token(&mut self, id: u32) -> Token {
        let persistent = self.rng.one_in(8);
        Token::builder(TokenId(id))
            .flags(if persistent { Flags::PERSISTENT } else { Flags::NONE })
            .weight(self.rng.below(100) as f32)
            .timestamp(self.rng.below(OLD) as u32)
            .build()
            .expect("in range")
    }

    /// What changes do to the map.
    fn after(&self, changes: &[Change]) -> Map {
        let mut map = self.map.clone();
        for change in changes {
            match change {
                Change::Put(token) => {
                    map.insert(token.id().0, (*token, 0));
                }
                Change::Delete(id) => {
                    map.remove(&id.0);
                }
                Change::Expire(id, at) => {
                    if let Some((_, expiry)) = map.get_mut(&id.0) {
                        *expiry = *at;
                    }
                }
            }
        }
        map
    }

    /// An operation that should have made these changes ended like this.
    fn ended(
        &mut self,
        changes: &[Change],
        result: Result<Option<Receipt>, Error>,
    ) -> Result<(), Violation> {
        let after = self.after(changes);
        let more = |now: usize, then: u64, max: u64| then > max.max(now as u64);
        let records = more(self.map.len(), after.len() as u64, self.max_records);
        let bytes = more(pages(&self.map) as usize, pages(&after), self.max_pages);
        match result {
            Ok(receipt) => {
                if (records || bytes) && !self.reclaims {
                    return Err("a write that exceeds the quota was made".to_owned());
                }
                self.receipts.extend(receipt);
                self.tally.changes += 1;
                self.map = after;
                Ok(())
            }
            Err(_) if self.disk.is_crashed() => Ok(()),
            Err(Error::Quota(_)) if records || bytes => {
                self.tally.refused_for_records += u64::from(records);
                self.tally.refused_for_bytes += u64::from(bytes);
                Ok(())
            }
            Err(Error::Log(bulla_wal::Error::Full)) => {
                self.tally.refused_by_the_ring += 1;
                Ok(())
            }
            Err(error) => Err(format!("{changes:?} failed: {error:?}")),
        }
    }

    fn put(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let token = self.token(id);
        if self.rng.one_in(3) {
            let exists = self.map.contains_key(&id);
            return match store.create_async(&token, level) {
                Err(Error::Exists { .. }) if exists => Ok(()),
                Ok(_) if exists => Err(format!("{id} was created, and was there")),
                result => self.ended(&[Change::Put(token)], result.map(Some)),
            };
        }
        if self.rng.one_in(2) {
            let result = store.put_async(&token, level);
            return self.ended(&[Change::Put(token)], result.map(Some));
        }
        let ttl = Duration::from_millis(self.rng.within(1, 500));
        let result = store.put_for_async(&token, ttl, level);
        let at = read(store.expires_at(token.id()))?.unwrap_or(0);
        self.ended(&[Change::Put(token), Change::Expire(token.id(), at)], result.map(Some))
    }

    fn expire(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = TokenId(self.id());
        let ttl = self.rng.one_in(2).then(|| Duration::from_millis(self.rng.within(1, 500)));
        let result = store.expire_in_async(id, ttl, level);
        if matches!(result, Ok(made) if made.is_some() != self.map.contains_key(&id.0)) {
            return Err(format!("{id} was told when to expire: {result:?}"));
        }
        let at = read(store.expires_at(id))?.unwrap_or(0);
        // Where records are reclaimed, it may have made way at once.
        let is_there = !self.reclaims || read(store.get(id))?.is_some();
        if is_there && ttl.is_none() != (at == 0) && matches!(result, Ok(Some(_))) {
            return Err(format!("{id} was told to expire in {ttl:?}, and will at {at}"));
        }
        self.ended(&[Change::Expire(id, at)], result)
    }

    fn update(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let Some(&(_, expiry)) = self.map.get(&id) else {
            return match store.update_async(TokenId(id), level, Ok) {
                Ok(None) => Ok(()),
                other => Err(format!("{id} is not there and was updated: {other:?}")),
            };
        };
        if self.rng.one_in(4) {
            // Without the hook: under a fuzzer it would end the process.
            let panics = |_| resume_unwind(Box::new("on purpose"));
            let update = || store.update_async(TokenId(id), level, panics);
            self.tally.updates_that_panicked += 1;
            return match catch_unwind(AssertUnwindSafe(update)) {
                Err(_) => Ok(()),
                Ok(other) => Err(format!("a panic went unseen: {other:?}")),
            };
        }
        if self.rng.one_in(8) {
            let result = store.update_async(TokenId(id), level, |_| Err("no".into()));
            return match result {
                Err(Error::Update(_)) => Ok(()),
                other => Err(format!("a refusal went unseen: {other:?}")),
            };
        }
        let weight = self.rng.below(100) as f32;
        let result = store.update_async(TokenId(id), level, |token| {
            Ok(token.to_builder().weight(weight).build()?)
        });
        let next = self.map[&id].0.to_builder().weight(weight).build().expect("in range");
        let changes = [Change::Put(next), Change::Expire(TokenId(id), expiry)];
        self.ended(&changes, result.map(|updated| updated.map(|(_, receipt)| receipt)))
    }

    fn swap(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let next = self.token(id);
        let there = self.map.get(&id).copied();
        let expected = match there {
            Some((token, _)) if self.rng.one_in(2) => token,
            _ => self.token(id),
        };
        let fits = there.is_some_and(|(token, _)| token == expected);
        let expiry = there.map_or(0, |(_, expiry)| expiry);
        let changes = [Change::Put(next), Change::Expire(TokenId(id), expiry)];
        match store.compare_and_swap_async(&expected, &next, level) {
            Ok(None) if !fits => {
                self.tally.swaps_refused += 1;
                Ok(())
            }
            Ok(made) if made.is_some() != fits => Err(format!("swap of {id}: {made:?}")),
            result => {
                self.tally.swaps += 1;
                self.ended(&changes, result)
            }
        }
    }

    fn delete(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let result = store.delete_async(TokenId(id), level);
        if matches!(result, Ok(made) if made.is_some() != self.map.contains_key(&id)) {
            return Err(format!("{id} was deleted: {result:?}"));
        }
        self.ended(&[Change::Delete(TokenId(id))], result)
    }

    fn batch(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let mut changes = Vec::new();
        let most = if self.rng.one_in(3) { 45 } else { 12 };
        for _ in 0..self.rng.within(1, most) {
            let id = self.id();
            changes.push(match self.rng.below(5) {
                0 => Change::Delete(TokenId(id)),
                1 => Change::Expire(TokenId(id), self.rng.below(3) * 1_000_000),
                _ => Change::Put(self.token(id)),
            });
        }
        let mut batch = Batch::new();
        batch.extend(changes.iter().copied());
        self.tally.batches += 1;
        let result = store.apply_async(&batch, level);
        self.ended(&changes, result.map(Some))?;
        if self.reclaims || self.disk.is_crashed() {
            return Ok(());
        }
        let ids: Vec<_> = (0..20).map(|_| TokenId(self.id())).collect();
        let expected: Vec<_> = ids.iter().map(|id| Some(self.map.get(&id.0)?.0)).collect();
        if read(store.get_many(&ids))? == expected {
            Ok(())
        } else {
            Err(format!("get_many {ids:?}"))
        }
    }

    fn expire_due(&mut self, store: &Store) -> Result<(), Violation> {
        let limit = self.rng.within(1, 20) as usize;
        let before = self.now_ms();
        let result = store.expire_due(limit);
        if self.disk.is_crashed() {
            return Ok(());
        }
        let due = |(_, at): &(Token, u64)| *at != 0 && *at <= before;
        let ids: Vec<_> =
            self.map.iter().filter(|(_, value)| due(value)).map(|(id, _)| *id).collect();
        match result {
            Ok(count) if count == ids.len().min(limit) => {
                for id in &ids[..count] {
                    self.map.remove(id);
                }
                self.tally.expired += count as u64;
                Ok(())
            }
            // Some may be gone: what is left is told by the store.
            Err(Error::Log(bulla_wal::Error::Full)) => {
                let left: BTreeSet<_> = read(store.iter())?.map(|token| token.id().0).collect();
                self.map.retain(|id, value| !due(value) || left.contains(id));
                self.tally.expired += 1;
                Ok(())
            }
            other => Err(format!("{other:?} of {} expired, at most {limit}", ids.len())),
        }
    }

    /// The simulated clock stands still between operations.
    fn now_ms(&self) -> u64 {
        use bulla_wal::io::Io;
        self.disk.process().wall_ns() / 1_000_000
    }
}

/// The number of the last entry that an open found.
fn recovered(store: &Store) -> u64 {
    store.recovered().map_or(0, |report| report.next_seq.0 - 1)
}

/// A read that must not fail.
fn read<T>(result: Result<T, Error>) -> Result<T, Violation> {
    result.map_err(|error| format!("a read failed: {error:?}"))
}

/// What a snapshot shows in both of the ways in which it can be read.
fn contents(snapshot: &Snapshot<'_>) -> Result<Map, Expired> {
    let mut map = Map::new();
    for token in snapshot {
        let token = token?;
        if snapshot.get(token.id())? == Some(token) {
            map.insert(token.id().0, (token, snapshot.expires_at(token.id())?.unwrap_or(0)));
        }
    }
    Ok(map)
}

/// Pages of 64 ids that have a record.
fn pages(map: &Map) -> u64 {
    map.keys().map(|id| id / 64).collect::<BTreeSet<_>>().len() as u64
}

/// The records after the entry `last` of the log, by the table in the documentation of
/// `bulla_engine::entries`; what was purged is taken from `maps`. None when that is not
/// known, as several operations were one.
fn read_log(
    options: &Options,
    maps: &BTreeMap<u64, Map>,
    last: u64,
) -> Result<Option<Map>, Violation> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let inspection = match Inspection::read(Path::new(DIR), options) {
        Ok(inspection) => inspection,
        Err(error) => return Err(format!("the log can't be read: {error}")),
    };
    let purged = inspection.report().first_seq.0 - 1;
    let Some(mut map) = maps.get(&purged).cloned() else { return Ok(None) };
    let mut entries = purged;
    let replayed = inspection.replay(Range::ALL, |entry| {
        entries += 1;
        match entry.kind {
            1 => entry.payload.chunks(64).for_each(|bytes| {
                let token = Token::from_bytes(bytes.try_into().expect("64 bytes"));
                map.insert(word(&bytes[48..52]), (token.expect("valid"), 0));
            }),
            2 => entry.payload.chunks(4).for_each(|id| {
                map.remove(&word(id));
            }),
            _ => entry.payload.chunks(16).for_each(|item| {
                if let Some((_, expiry)) = map.get_mut(&word(&item[..4])) {
                    *expiry = u64::from_le_bytes(item[8..].try_into().expect("8 bytes"));
                }
            }),
        }
        ControlFlow::Continue(())
    });
    match replayed {
        Ok(_) if entries == last => Ok(Some(map)),
        Ok(_) => Err(format!("{entries} entries in the log, the store knows of {last}")),
        Err(error) => Err(format!("the log can't be read: {error}")),
    }
}
