//! What must hold of checkpoints, in a form that tells what it found: where others write while
//! one is taken or read, where files of other histories lie about, and on full disks.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulla_engine::{Error, Level, Store, StoreOptions, Token, TokenId};
use bulla_storage::io::Io;
use bulla_storage::io::sim::{FaultOp, SimDisk};
use bulla_wal::Options;

use crate::rng::Rng;
use crate::times::ms;
use crate::wrap::WrapIo;

const DIR: &str = "/store";
const RELAXED: Level = Level::Relaxed;

/// Where in a checkpoint the weight of the first record is: behind the header's block, and the
/// words that say which records the first slab has.
const WEIGHT: u64 = 4096 + 4096 + 54;

/// Records with the times at which they expire (0: never).
type Map = BTreeMap<u32, (Token, u64)>;

fn options(io: Arc<dyn Io>) -> StoreOptions {
    let log = Options::new().io(io).sector(512).segment_len(16 * 1024).ring_len(16 * 1024);
    let log = log.lock_timeout(Duration::ZERO).manual();
    StoreOptions::new().log(log).checkpoint_close_bytes(None)
}

fn open(disk: &SimDisk) -> Result<Store, String> {
    Store::open(Path::new(DIR), &options(disk.process())).map_err(failed)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn failed(error: Error) -> String {
    format!("{error:?}")
}

/// Changes one record, of a few that share pages and slabs.
fn change(store: &Store, map: &mut Map, rng: &mut Rng) -> Result<(), Error> {
    let number = rng.below(40) as u32;
    let id = number / 10 * 30_000 + number % 10 * 20 + 1;
    let token = Token::builder(TokenId(id)).weight(rng.below(100) as f32).build()?;
    match rng.below(4) {
        0 => {
            store.at(RELAXED).delete(token.id())?;
            map.remove(&id);
        }
        1 => {
            let _ = store
                .at(RELAXED)
                .begin()
                .put_for(&token, Duration::from_secs(rng.within(1, 1_000)))?;
            map.insert(id, (token, ms(store.expires_at(token.id())?)));
        }
        _ => {
            store.at(RELAXED).put(&token)?;
            map.insert(id, (token, 0));
        }
    }
    Ok(())
}

fn check(store: &Store, map: &Map) -> Result<(), String> {
    let mut shown = Map::new();
    for token in store.iter().map_err(failed)? {
        let expiry = ms(store.expires_at(token.id()).map_err(failed)?);
        shown.insert(token.id().0, (token, expiry));
    }
    if shown != *map || store.len() != map.len() {
        return Err(format!("the store shows {shown:?}, not {map:?} ({})", store.opened_from()));
    }
    Ok(())
}

/// The files of checkpoints, the older first.
fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files = disk.paths();
    files.retain(|path| path.to_string_lossy().ends_with(".ckpt"));
    files.sort();
    files
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change comes before every operation of a checkpoint on names and directories. After a
/// power loss all of them are there, whichever checkpoint is damaged, in its header or in a
/// record.
///
/// # Errors
/// What it shows instead.
pub fn changes_amid_a_checkpoint_are_in_it_or_in_the_log() -> Result<(), String> {
    const SEEDS: u64 = 12;
    (0..SEEDS).try_for_each(|seed| {
        changes_amid_checkpoints(seed).map_err(|error| format!("seed {seed}: {error}"))
    })
}

fn changes_amid_checkpoints(seed: u64) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    let (io, knobs) = WrapIo::over(disk.process());
    let store = Arc::new(Store::open(Path::new(DIR), &options(io)).map_err(failed)?);
    let world = Arc::new(Mutex::new((Map::new(), Rng::new(seed), Ok(()))));
    let step = {
        let (store, world, busy) = (Arc::clone(&store), Arc::clone(&world), AtomicBool::new(false));
        move || {
            if !busy.swap(true, Ordering::Relaxed) {
                let (map, rng, result) = &mut *lock(&world);
                let changed = change(&store, map, rng).map_err(failed);
                *result = std::mem::replace(result, Ok(())).and(changed);
                busy.store(false, Ordering::Relaxed);
            }
        }
    };
    let step = Arc::new(step);
    for _ in 0..5 {
        (0..10).for_each(|_| step());
        let meddle = Arc::clone(&step);
        knobs.meddle.by(Some(Arc::new(move |path| {
            if path.to_string_lossy().contains("checkpoints") {
                meddle();
            }
        })));
        let taken = store.checkpoint();
        knobs.meddle.by(None);
        taken.map_err(failed)?;
    }
    store.sync().map_err(failed)?;
    disk.power_loss();
    drop((step, store));
    let (map, _, result) = &*lock(&world);
    result.clone()?;
    check(&open(&disk.fork(seed))?, map)?;
    for (name, offset) in files(&disk).iter().flat_map(|name| [(name, 100), (name, WEIGHT)]) {
        let disk = disk.fork(seed);
        disk.flip(name, offset, 1);
        check(&open(&disk)?, map)
            .map_err(|error| format!("byte {offset} of {} damaged: {error}", name.display()))?;
    }
    Ok(())
}

/// The newest checkpoint of another store, and that of a later life which this one did not
/// have: a store that finds it shows what it did without.
///
/// # Errors
/// What it shows instead.
pub fn checkpoint_of_another_history_changes_nothing() -> Result<(), String> {
    let filled = |disk: &SimDisk, seed: u64, rounds: u64| -> Result<Map, String> {
        let store = open(disk)?;
        let (mut map, mut rng) = (Map::new(), Rng::new(seed));
        for _ in 0..rounds {
            for _ in 0..30 {
                change(&store, &mut map, &mut rng).map_err(failed)?;
            }
            store.checkpoint().map_err(failed)?;
        }
        disk.power_loss();
        Ok(map)
    };
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let map = filled(&disk, 1, 2)?;
    filled(&other, 2, 3)?;
    let later = disk.fork(3);
    let store = open(&later)?;
    let mut rng = Rng::new(3);
    for _ in 0..30 {
        change(&store, &mut map.clone(), &mut rng).map_err(failed)?;
    }
    store.checkpoint().map_err(failed)?;
    later.power_loss();
    drop(store);
    for (from, foreign) in [("another store", &other), ("a later life", &later)] {
        let newest = files(foreign).pop().ok_or("no checkpoint")?;
        let bytes = foreign.read_file(&newest);
        let disk = disk.fork(4);
        disk.write_file(&newest, &bytes);
        let store = open(&disk).map_err(|error| format!("that of {from}: {error}"))?;
        check(&store, &map).map_err(|error| format!("that of {from}: {error}"))?;
        // It is refused again when the log has grown beyond it.
        let mut map = map.clone();
        for _ in 0..60 {
            change(&store, &mut map, &mut rng).map_err(failed)?;
        }
        store.sync().map_err(failed)?;
        disk.power_loss();
        drop(store);
        check(&open(&disk)?, &map).map_err(|error| format!("that of {from}, later: {error}"))?;
    }
    Ok(())
}

/// Space that is kept is there for the next checkpoint when one in it fails, at any of its
/// writes; what is written in it is read again.
///
/// # Errors
/// What is not so.
pub fn kept_space_outlives_a_checkpoint_that_fails() -> Result<(), String> {
    const RESERVE: u64 = 1 << 20;
    for after in 0..3 {
        let disk = SimDisk::new(after);
        let options = || options(disk.process()).checkpoint_reserve_bytes(Some(RESERVE));
        let store = Store::open(Path::new(DIR), &options()).map_err(failed)?;
        let (mut map, mut rng) = (Map::new(), Rng::new(after));
        for _ in 0..30 {
            change(&store, &mut map, &mut rng).map_err(failed)?;
        }
        store.sync().map_err(failed)?;
        disk.set_capacity(Some(0));
        disk.fail_next(FaultOp::Write, ErrorKind::Other, "checkpoints", after);
        if store.checkpoint().is_ok() {
            return Err(format!("write {after} failed, the checkpoint did not"));
        }
        disk.clear_faults();
        let taken = store.checkpoint().map_err(failed)?;
        disk.set_capacity(None);
        disk.power_loss();
        drop(store);
        let store = Store::open(Path::new(DIR), &options().checkpoint_reserve_bytes(None));
        let store = store.map_err(failed)?;
        if store.opened_from().checkpoint != Some(taken) {
            return Err(format!("write {after} failed: {}", store.opened_from()));
        }
        check(&store, &map)?;
    }
    Ok(())
}

/// A slab that is changed while it is read for somebody else stays changed, and counts as one:
/// those that are read after it are all there.
///
/// # Errors
/// What one of them does not have.
pub fn slab_that_is_changed_while_it_is_read_is_there_once() -> Result<(), String> {
    const SLABS: u32 = 4;
    let token = |slab: u32, weight: f32| {
        Token::builder(TokenId((slab << 15) + 7)).weight(weight).build().expect("in range")
    };
    let disk = SimDisk::new(1);
    let store = open(&disk)?;
    (0..SLABS).try_for_each(|slab| store.at(RELAXED).put(&token(slab, 1.0))).map_err(failed)?;
    store.checkpoint().map_err(failed)?;
    store.close().map_err(failed)?;
    for changed in 0..SLABS {
        let disk = disk.fork(1);
        disk.power_loss();
        let (io, knobs) = WrapIo::over(disk.process());
        let store = Arc::new(Store::open(Path::new(DIR), &options(io)).map_err(failed)?);
        let (meddler, result) = (Arc::clone(&store), Arc::new(Mutex::new(None)));
        let busy = AtomicBool::new(false);
        let told = Arc::clone(&result);
        knobs.meddle.by(Some(Arc::new(move |_| {
            if !busy.swap(true, Ordering::Relaxed) {
                *lock(&told) = Some(meddler.at(RELAXED).put(&token(changed, 2.0)));
            }
        })));
        let read = store.get(TokenId((changed << 15) + 7));
        knobs.meddle.by(None);
        read.map_err(failed)?;
        lock(&result).take().ok_or("nothing was read")?.map_err(failed)?;
        for slab in 0..SLABS {
            let expected = token(slab, if slab == changed { 2.0 } else { 1.0 });
            let found = store.get(expected.id()).map_err(failed)?;
            if found != Some(expected) {
                return Err(format!("{changed} was changed, {slab} is {found:?}"));
            }
        }
        if store.stats().checkpoints.waiting_slabs != 0 {
            return Err(format!("{changed} was changed: {:?}", store.stats().checkpoints));
        }
    }
    Ok(())
}
