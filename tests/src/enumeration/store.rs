//! Workloads of a store, and what each of their ends must show: what it held after one of its
//! operations, none of which may be missing that was acknowledged. So it is from the newest
//! checkpoint, and with that one damaged from the older one, or from the log alone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bulla_engine::{
    Batch, CheckpointError, Error, Flags, Level, OnExceed, Quota, Receipt, Store as Engine,
    StoreOptions, Token, TokenId,
};
use bulla_storage::io::Io;
use bulla_storage::io::sim::{CrashKind, SimConfig, SimDisk};
use bulla_wal::{Method, Options};

use super::{Decoy, Halt, Life, Meddle, SEED_OF_ENDS, meddling, place};
use crate::model::Violation;
use crate::times::ms;

const DIR: &str = "/store";
/// Of the disk and of the log: a checkpoint has few of them.
const SECTOR: usize = 4096;
/// Room for two frames: nearly every operation begins a segment, and so can every checkpoint
/// let some go.
const SEGMENT_LEN: u64 = 4 * SECTOR as u64;
const MAX_RECORDS: u64 = 4;
/// In a store that began with some records, this one never makes way.
const PERSISTENT: u32 = 1;
/// Every record is on a page of its own, all in one slab.
const BETWEEN_IDS: u32 = 64;
const HOUR: Duration = Duration::from_secs(3600);
/// Where a checkpoint is damaged: in a record it is a byte of its weight, behind a block for the
/// header and the words that say which records there are.
const IN_HEADER: u64 = 100;
const IN_FIRST_RECORD: u64 = 4096 + 4096 + 54;
/// What the machine with a damaged checkpoint draws from.
const SEED_OF_DAMAGE: u64 = 2 << 32;

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// Inserts a record.
    Put(Level),
    /// Inserts a record that expires in an hour.
    PutFor(Level),
    /// Replaces the last record.
    Replace(Level),
    /// Removes the first record that may go.
    Delete(Level),
    /// Inserts one record, replaces one and removes one.
    Batch(Level),
    /// Inserts a record that expires, lets its time come, and deletes it.
    Expire,
    /// Syncs the log.
    Sync,
    /// Lets two seconds pass, and all that is due be done.
    Idle,
    /// Takes a checkpoint; the log goes that the last two do not need.
    Checkpoint,
    /// Closes the store, with a checkpoint, and opens it.
    Close,
    /// Kills the process and opens the store.
    Kill,
    /// Cuts the power, so that only what is durable is left, and opens the store.
    PowerLoss,
}

/// Every operation, and its name.
pub(super) const OPERATIONS: [(Operation, &str); 16] = {
    use Level::{Balanced, Relaxed, Strict};
    use Operation::{
        Batch, Checkpoint, Close, Delete, Expire, Idle, Kill, PowerLoss, Put, PutFor, Replace, Sync,
    };
    [
        (Put(Relaxed), "put-relaxed"),
        (Put(Balanced), "put-balanced"),
        (Put(Strict), "put-strict"),
        (PutFor(Balanced), "put-for-balanced"),
        (Replace(Strict), "replace-strict"),
        (Delete(Balanced), "delete-balanced"),
        (Delete(Strict), "delete-strict"),
        (Batch(Balanced), "batch-balanced"),
        (Batch(Strict), "batch-strict"),
        (Expire, "expire"),
        (Sync, "sync"),
        (Idle, "idle"),
        (Checkpoint, "checkpoint"),
        (Close, "close"),
        (Kill, "kill"),
        (PowerLoss, "power-loss"),
    ]
};

/// What a workload starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    method: Method,
    /// In a full store the lightest record makes way; else a write is refused.
    reclaims: bool,
    /// Three records, three checkpoints of which two are left, and changes after each. Else
    /// there is nothing yet.
    worn: bool,
}

/// Every base, and its name.
pub(super) const BASES: [(Base, &str); 6] = {
    use Method::{Buffered, Direct};
    [
        (Base { method: Direct, reclaims: false, worn: false }, "store-new"),
        (Base { method: Buffered, reclaims: false, worn: false }, "store-new-buffered"),
        (Base { method: Direct, reclaims: false, worn: true }, "store-rejects"),
        (Base { method: Buffered, reclaims: false, worn: true }, "store-rejects-buffered"),
        (Base { method: Direct, reclaims: true, worn: true }, "store-reclaims"),
        (Base { method: Buffered, reclaims: true, worn: true }, "store-reclaims-buffered"),
    ]
};

/// A record and when it expires (0: never).
type Map = BTreeMap<u32, (Token, u64)>;

/// What the store held after an operation, and the number of the log's last entry then.
#[derive(Clone, Debug)]
struct Moment {
    seq: u64,
    map: Map,
}

/// A machine with a store, what was acknowledged of it, and where it is halted.
#[derive(Clone)]
pub(super) struct Store {
    disk: SimDisk,
    base: Base,
    /// The first is what the last open showed.
    moments: Vec<Moment>,
    /// Entries up to this one may not be lost by a power loss, and by a kill.
    durable: u64,
    written: u64,
    /// The number of the last entry before this life's.
    before: u64,
    /// Set once a store was created: from then on there is one.
    exists: bool,
    /// Records that were ever put, for their ids and weights.
    puts: u32,
    last_began: u64,
    halt: (u64, bool),
    meddle: Option<Meddle>,
    /// The log into whose place it is moved, if it is.
    decoy: Decoy,
}

impl Store {
    /// Plays a workload up to its halt, which comes at its end at the latest.
    pub(super) fn play(halt: &Halt) -> Result<Self, Violation> {
        static WORN: [OnceLock<Result<Store, Violation>>; BASES.len()] =
            [const { OnceLock::new() }; BASES.len()];
        let base = BASES[halt.base].0;
        let mut life = if base.worn {
            let worn = WORN[halt.base].get_or_init(|| Self::new(base).worn()).clone()?;
            // Clones share their disk.
            Self { disk: worn.disk.fork(1), ..worn }
        } else {
            Self::new(base)
        };
        life.disk.drop_pending();
        life.last_began = life.disk.steps();
        life.halt = (if halt.meddle.is_some() { u64::MAX } else { halt.steps }, halt.done);
        life.meddle = halt.meddle;
        if halt.meddle.is_some() {
            life.decoy = Decoy::new(&life.disk)?;
            life.last_began = life.disk.steps();
        }
        life.begin(halt)?;
        life.disk.halt();
        Ok(life)
    }

    /// Nothing yet.
    fn new(base: Base) -> Self {
        let config = SimConfig { sector: SECTOR, late_completion_ppm: 0, ..SimConfig::default() };
        Self {
            disk: SimDisk::with_config(1, config),
            base,
            moments: vec![Moment { seq: 0, map: Map::new() }],
            durable: 0,
            written: 0,
            before: 0,
            exists: false,
            puts: 0,
            last_began: 0,
            halt: (u64::MAX, true),
            meddle: None,
            decoy: Decoy::default(),
        }
    }

    /// A store with a history, all of it durable, and nobody there.
    fn worn(mut self) -> Result<Self, Violation> {
        use Operation::{Checkpoint, Put, PutFor, Replace};
        let mut store = self.open()?.ok_or("there was no halt")?;
        let strict = Level::Strict;
        for operation in [
            Put(strict),
            PutFor(strict),
            Put(strict),
            Checkpoint,
            Replace(strict),
            Checkpoint,
            Replace(strict),
            Replace(strict),
            Checkpoint,
            Replace(strict),
            Replace(strict),
        ] {
            store = self.operate(operation, store)?.ok_or("there was no halt")?;
        }
        drop(store);
        self.disk.kill();
        self.disk.settle();
        Ok(self)
    }

    fn begin(&mut self, halt: &Halt) -> Result<(), Violation> {
        let Some(mut store) = self.open()? else { return Ok(()) };
        if let Some(meddle) = self.meddle {
            let steps = halt.steps.saturating_sub(self.disk.steps());
            self.disk.meddle_after(steps, meddling(DIR, meddle));
        }
        for operation in &halt.operations {
            self.last_began = self.disk.steps();
            match self.operate(OPERATIONS[*operation].0, store)? {
                Some(goes_on) => store = goes_on,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn options(&self) -> StoreOptions {
        let log = Options::new()
            .io(self.disk.process())
            .sector(SECTOR as u32)
            .segment_len(SEGMENT_LEN)
            .ring_len(64 * 1024)
            .method(self.base.method)
            .depth(2)
            .lock_timeout(Duration::ZERO)
            .manual();
        let on_exceed = if self.base.reclaims { OnExceed::Evict } else { OnExceed::Reject };
        // Nothing makes way before there is no room.
        let quota = Quota::new().max_records(MAX_RECORDS).clean_at(1.0).on_exceed(on_exceed);
        StoreOptions::new().log(log).quota(quota).checkpoint_close_bytes(Some(1))
    }

    /// Opens the store, and compares it with what it may be; `None` when the halt came.
    fn open(&mut self) -> Result<Option<Engine>, Violation> {
        let options = self.options();
        let (steps, done) = self.halt;
        if steps < u64::MAX {
            self.disk.halt_after(steps.saturating_sub(self.disk.steps()), done);
        }
        let store = match Engine::open(place(&self.disk, DIR, self.meddle), &options) {
            Ok(store) => store,
            Err(_) if self.disk.is_crashed() => return Ok(None),
            Err(error) => return Err(format!("open failed: {error:?}")),
        };
        if self.exists && store.recovered().is_none() {
            return Err("a store that was created is gone".to_owned());
        }
        self.exists = true;
        let seq = store.recovered().map_or(0, |report| report.next_seq.0 - 1);
        if seq < self.written {
            return Err(format!("entry {} was acknowledged, {seq} were recovered", self.written));
        }
        match contents(&store) {
            Ok(map) => self.opened(seq, map)?,
            Err(_) if self.disk.is_crashed() => return Ok(None),
            Err(error) => return Err(format!("a read failed: {error:?}")),
        }
        self.quota_holds(&store)?;
        Ok(Some(store))
    }

    /// What the store shows, and how many entries its log has.
    fn opened(&mut self, seq: u64, map: Map) -> Result<(), Violation> {
        let known = self.moments.iter().rfind(|moment| moment.seq <= seq);
        let known = known.ok_or_else(|| format!("{seq} entries are fewer than were shown"))?;
        // Records are deleted one by one when they make way or expire.
        let is_same = map.iter().all(|(id, shown)| known.map.get(id) == Some(shown));
        let mut gone = known.map.keys().filter(|id| !map.contains_key(id)).peekable();
        let persistent = gone.clone().any(|id| *id == PERSISTENT);
        let first_gone = gone.peek().copied();
        if !is_same || gone.count() as u64 != seq - known.seq || persistent {
            return Err(format!(
                "after entry {seq} it shows {:?}, after entry {} it was {:?} (gone: {first_gone:?})",
                map.keys(),
                known.seq,
                known.map.keys()
            ));
        }
        (self.before, self.durable, self.written) = (seq, seq, seq);
        self.moments = vec![Moment { seq, map }];
        Ok(())
    }

    /// Returns the store with which the workload goes on, unless the halt came.
    fn operate(
        &mut self,
        operation: Operation,
        store: Engine,
    ) -> Result<Option<Engine>, Violation> {
        match operation {
            Operation::Put(level) => {
                let token = self.fresh();
                let mut map = self.map().clone();
                map.insert(token.id().0, (token, 0));
                let put = store.at(level).begin().put(&token);
                self.changed(&store, map, put.map(Some))?;
            }
            Operation::PutFor(level) => self.put_for(&store, HOUR, level)?,
            Operation::Replace(level) => self.replace(&store, level)?,
            Operation::Delete(level) => self.delete(&store, level)?,
            Operation::Batch(level) => self.batch(&store, level)?,
            Operation::Expire => self.expire(&store)?,
            Operation::Sync => match store.sync() {
                Ok(_) => self.all_durable(&store),
                Err(error) => self.failed(&error)?,
            },
            Operation::Idle => {
                for _ in 0..2 {
                    self.disk.advance(2_000_000_000);
                    while store.step() {}
                }
            }
            Operation::Checkpoint => match store.checkpoint() {
                Ok(taken) if taken.records != self.map().len() as u64 => {
                    return Err(format!("{taken:?}, but there are {}", self.map().len()));
                }
                Ok(_) => self.all_durable(&store),
                // The last segment is full to its last sector.
                Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
                Err(error) => self.failed(&error)?,
            },
            Operation::Close | Operation::Kill | Operation::PowerLoss => {
                return self.reopen(operation, store);
            }
        }
        Ok(if self.disk.is_crashed() { None } else { Some(store) })
    }

    fn reopen(&mut self, operation: Operation, store: Engine) -> Result<Option<Engine>, Violation> {
        match operation {
            Operation::Close => {
                let seq = self.seq(&store);
                match store.close() {
                    Ok(()) => (self.durable, self.written) = (seq, seq),
                    Err(error) => self.failed(&error)?,
                }
                if self.disk.is_crashed() {
                    return Ok(None);
                }
            }
            Operation::Kill => {
                self.disk.kill();
                drop(store);
            }
            _ => {
                self.disk.drop_pending();
                drop(store);
                self.written = self.durable;
            }
        }
        self.open()
    }

    fn replace(&mut self, store: &Engine, level: Level) -> Result<(), Violation> {
        let mut map = self.map().clone();
        let Some(id) = map.last_key_value().map(|(id, _)| *id) else { return Ok(()) };
        self.puts += 1;
        let token = token(id, self.puts);
        map.insert(id, (token, 0));
        let put = store.at(level).begin().put(&token);
        self.changed(store, map, put.map(Some))
    }

    fn delete(&mut self, store: &Engine, level: Level) -> Result<(), Violation> {
        let mut map = self.map().clone();
        let id = map.keys().copied().find(|id| *id != PERSISTENT);
        let Some(id) = id else { return Ok(()) };
        map.remove(&id);
        let deleted = store.at(level).begin().delete(TokenId(id));
        self.changed(store, map, deleted)
    }

    fn batch(&mut self, store: &Engine, level: Level) -> Result<(), Violation> {
        let (mut map, mut batch) = (self.map().clone(), Batch::new());
        let fresh = self.fresh();
        let ids: Vec<u32> = map.keys().copied().filter(|id| *id != PERSISTENT).collect();
        let replaced = ids.last().map(|id| token(*id, self.puts));
        for token in [Some(fresh), replaced].into_iter().flatten() {
            batch.put(&token);
            map.insert(token.id().0, (token, 0));
        }
        if let [first, _, ..] = ids[..] {
            batch.delete(TokenId(first)).map_err(|error| format!("{error:?}"))?;
            map.remove(&first);
        }
        let applied = store.at(level).begin().apply(&batch);
        self.changed(store, map, applied.map(Some))
    }

    fn put_for(&mut self, store: &Engine, ttl: Duration, level: Level) -> Result<(), Violation> {
        let token = self.fresh();
        let mut map = self.map().clone();
        let put = store.at(level).begin().put_for(&token, ttl);
        let at = match put {
            Ok(_) => store
                .expires_at(token.id())
                .map_err(|error| format!("{error:?}"))?
                .map(|at| ms(Some(at))),
            Err(_) => None,
        };
        map.insert(token.id().0, (token, at.unwrap_or(0)));
        self.changed(store, map, put.map(Some))
    }

    fn expire(&mut self, store: &Engine) -> Result<(), Violation> {
        self.put_for(store, Duration::from_millis(1), Level::Balanced)?;
        if self.disk.is_crashed() {
            return Ok(());
        }
        self.disk.advance(10_000_000);
        let now = self.disk.process().wall_ns() / 1_000_000;
        let mut map = self.map().clone();
        map.retain(|_, (_, at)| *at == 0 || *at > now);
        let due = self.map().len() - map.len();
        match store.expire_due(10) {
            Ok(expired) if expired == due => {
                self.moments.push(Moment { seq: self.seq(store), map });
                self.quota_holds(store)
            }
            Ok(expired) => Err(format!("{expired} of {due} expired")),
            Err(error) => self.failed(&error),
        }
    }

    /// A change after which the store should hold `map` ended like this.
    fn changed(
        &mut self,
        store: &Engine,
        mut map: Map,
        result: Result<Option<Receipt>, Error>,
    ) -> Result<(), Violation> {
        let exceeds = map.len() as u64 > MAX_RECORDS;
        let receipt = match result {
            Ok(_) if exceeds && !self.base.reclaims => {
                return Err("a write that exceeds the quota was made".to_owned());
            }
            Ok(receipt) => receipt,
            Err(Error::Quota(_)) if exceeds => {
                map.clone_from(self.map());
                None
            }
            Err(error) => return self.failed(&error),
        };
        if store.stats().quota.evicted > 0 {
            // Everything is in memory then.
            let shown = contents(store).map_err(|error| format!("a read failed: {error:?}"))?;
            map.retain(|id, _| *id == PERSISTENT || shown.contains_key(id));
        }
        self.moments.push(Moment { seq: self.seq(store), map });
        self.quota_holds(store)?;
        let Some(receipt) = receipt else { return Ok(()) };
        match store.wait(receipt) {
            Ok(()) => {
                if receipt.level != Level::Relaxed {
                    self.written = self.written.max(receipt.seq.0);
                }
                if receipt.level == Level::Strict {
                    self.durable = self.durable.max(receipt.seq.0);
                }
                Ok(())
            }
            Err(error) => self.failed(&error),
        }
    }

    /// What is in use is what is there, and never more than may be.
    fn quota_holds(&self, store: &Engine) -> Result<(), Violation> {
        let (quota, records) = (store.stats().quota, self.map().len() as u64);
        let is_counted = (quota.records, quota.bytes) == (records, records * 4096);
        if is_counted && quota.records_high <= MAX_RECORDS {
            Ok(())
        } else {
            Err(format!("{quota:?}, but there are {records}"))
        }
    }

    /// An error is only right when the halt came.
    fn failed(&self, error: &Error) -> Result<(), Violation> {
        if self.disk.is_crashed() { Ok(()) } else { Err(format!("unexpected error: {error:?}")) }
    }

    fn all_durable(&mut self, store: &Engine) {
        let seq = self.seq(store);
        (self.durable, self.written) = (seq, seq);
    }

    fn seq(&self, store: &Engine) -> u64 {
        self.before + store.stats().log.entries
    }

    fn map(&self) -> &Map {
        &self.moments[self.moments.len() - 1].map
    }

    /// A record that was never there.
    fn fresh(&mut self) -> Token {
        self.puts += 1;
        token(PERSISTENT + (self.puts - 1) * BETWEEN_IDS, self.puts)
    }

    /// The newest checkpoint that a listing shows.
    fn newest(&self) -> Option<PathBuf> {
        let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "ckpt");
        self.disk.paths().into_iter().filter(is_one).max()
    }

    /// On machines of their own the newest checkpoint is damaged, in its header and in its first
    /// record: the store shows the same.
    fn check_damaged(&self, newest: &Path, shown: &Map) -> Result<(), Violation> {
        for offset in [IN_HEADER, IN_FIRST_RECORD] {
            let mut damaged = Self { disk: self.disk.fork(SEED_OF_DAMAGE), ..self.clone() };
            damaged.disk.flip(newest, offset, 1);
            let store = damaged.open()?.ok_or("there was no halt")?;
            let refused = &store.opened_from().refused;
            if refused.iter().any(|refused| refused.path != newest) || damaged.map() != shown {
                return Err(format!("{}, {:?}", store.opened_from(), damaged.map().keys()));
            }
        }
        Ok(())
    }
}

impl Life for Store {
    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn last_began(&self) -> u64 {
        self.last_began
    }

    fn fingerprint(&self, kind: Option<CrashKind>) -> u64 {
        let mut hasher = DefaultHasher::new();
        let kind = kind.map(|kind| kind == CrashKind::Kill);
        (self.disk.fingerprint(), kind, self.exists, self.base.reclaims).hash(&mut hasher);
        (self.base.method == Method::Direct).hash(&mut hasher);
        (self.durable, self.written).hash(&mut hasher);
        for Moment { seq, map } in &self.moments {
            (seq, map.len()).hash(&mut hasher);
            map.values().for_each(|(token, at)| (token.as_bytes(), at).hash(&mut hasher));
        }
        hasher.finish()
    }

    fn decoy(&self, disk: &SimDisk) -> Result<(), Violation> {
        if self.meddle != Some(Meddle::Swap) || self.decoy.is_intact(disk, DIR) {
            return Ok(());
        }
        Err("the log that was moved into its place is not as it was".to_owned())
    }

    fn end(&self, kind: CrashKind, ends: &[usize]) -> Box<dyn Life> {
        let disk = self.disk.end(SEED_OF_ENDS, kind, ends);
        let mut end = Self { disk, halt: (u64::MAX, true), ..self.clone() };
        if kind == CrashKind::PowerLoss {
            end.written = end.durable;
        }
        Box::new(end)
    }

    /// Opens the store, also with its newest checkpoint damaged, and writes on; then all that is
    /// not durable is lost, and the store is opened and compared again.
    fn check(mut self: Box<Self>, _kind: CrashKind) -> Result<String, Violation> {
        let untouched = Self { disk: self.disk.fork(SEED_OF_DAMAGE), ..(*self).clone() };
        let store = self.open()?.ok_or("there was no halt")?;
        let opened = store.opened_from();
        if !opened.refused.is_empty() {
            return Err(format!("a whole checkpoint was refused: {opened}"));
        }
        let shown = format!("{:?}, {opened}\n", self.map().keys());
        if let Some(newest) = untouched.newest() {
            untouched
                .check_damaged(&newest, self.map())
                .map_err(|violation| format!("{} damaged: {violation}", newest.display()))?;
        }
        let after = |violation| format!("opened, and after that: {violation}");
        self.replace(&store, Level::Strict).map_err(after)?;
        self.disk.drop_pending();
        self.written = self.durable;
        drop(store);
        self.open().map_err(after)?;
        Ok(shown)
    }
}

/// The first record never makes way, and of the others the one that came first.
fn token(id: u32, number: u32) -> Token {
    let flags = if id == PERSISTENT { Flags::PERSISTENT } else { Flags::empty() };
    let token = Token::builder(TokenId(id)).flags(flags).weight(number as f32);
    token.build().expect("in range")
}

fn contents(store: &Engine) -> Result<Map, Error> {
    let with_expiry = |token: Token| Ok((token.id().0, (token, ms(store.expires_at(token.id())?))));
    store.iter()?.map(with_expiry).collect()
}
