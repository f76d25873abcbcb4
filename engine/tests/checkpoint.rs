//! Checkpoints: what a store shows never depends on them, and one damaged file costs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::times::{at_ms, ms};
use bulla_engine::{
    Batch, CheckpointError, CheckpointFile, Error, Level, Refusal, Store, StoreInspection,
    StoreOptions, Token, TokenId, usable_checkpoints, usable_checkpoints_after,
};
use bulla_recovery::{Inspection, RepairPlan, Status, preview_repair, repair};
use bulla_storage::io::sim::{FaultOp, SimConfig, SimDisk};
use bulla_wal::{Lsn, Options};

const DIR: &str = "/store";

fn token(id: u32, weight: f32) -> Token {
    Token::builder(TokenId(id)).weight(weight).build().expect("valid")
}

/// Records with the times at which they expire (0: never).
type Model = BTreeMap<u32, (Token, u64)>;

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions::new().log(Options::simulated(disk)).checkpoint_close_bytes(None)
}

fn try_open(disk: &SimDisk) -> Result<Store, Error> {
    Store::open(Path::new(DIR), &options(disk))
}

fn open(disk: &SimDisk) -> Store {
    try_open(disk).unwrap_or_else(|error| panic!("open: {error:?}"))
}

/// A store of which nothing is open any more.
fn end(disk: &SimDisk, store: Store) {
    disk.power_loss();
    drop(store);
}

/// Changes some records, a number that says which.
fn change(store: &Store, model: &mut Model, round: u32) {
    let mut batch = Batch::new();
    for number in 0..40 {
        // Dense ones, sparse ones, one in the last slab of all.
        let id = match number % 4 {
            0 => 1 + number,
            1 => 200 + (number + round) % 90,
            2 => number * 40_000,
            _ => u32::MAX - number,
        };
        let kept = token(id, (round % 100) as f32);
        batch.put(&kept);
        model.insert(id, (kept, 0));
        if number % 5 == 0 {
            let at = u64::from(round + number + 1) << 33;
            batch.expire_at(TokenId(id), at_ms(at)).expect("not 0");
            model.insert(id, (kept, at));
        }
        if (number + round).is_multiple_of(7) {
            batch.delete(TokenId(id)).expect("not 0");
            model.remove(&id);
        }
    }
    store.at(Level::Strict).apply(&batch).expect("applied");
}

fn shown(store: &Store) -> Result<Model, Error> {
    let tokens: Vec<_> = store.iter()?.collect();
    let with_expiry = |token: Token| {
        let expiry = ms(store.expires_at(token.id())?);
        assert_eq!(store.get(token.id())?, Some(token));
        Ok((token.id().0, (token, expiry)))
    };
    tokens.into_iter().map(with_expiry).collect()
}

fn check(store: &Store, model: &Model) {
    assert_eq!(shown(store).expect("read"), *model);
    let stats = store.stats();
    assert_eq!(stats.quota.records, model.len() as u64);
    let pages: std::collections::BTreeSet<_> = model.keys().map(|id| id / 64).collect();
    assert_eq!(stats.quota.bytes, pages.len() as u64 * 4096);
}

/// Returns a store with `count` checkpoints and changes after each.
fn with_checkpoints(disk: &SimDisk, count: u32) -> (Store, Model) {
    let (store, mut model) = (open(disk), Model::new());
    for round in 0..count {
        change(&store, &mut model, 3 * round);
        change(&store, &mut model, 3 * round + 1);
        let taken = store.checkpoint().expect("checkpoint");
        assert_eq!((taken.number, taken.records), (u64::from(round) + 1, model.len() as u64));
        change(&store, &mut model, 3 * round + 2);
    }
    (store, model)
}

fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    let mut files = disk.paths();
    files.retain(|path| path.to_string_lossy().ends_with(suffix));
    files.sort();
    files
}

/// The checkpoints' files, the older first.
fn checkpoints(disk: &SimDisk) -> Vec<PathBuf> {
    files(disk, ".ckpt")
}

#[test]
fn store_is_opened_from_its_newest_checkpoint_and_the_log_after_it() {
    for count in 1..5 {
        let disk = SimDisk::new(u64::from(count));
        let (store, mut model) = with_checkpoints(&disk, count);
        check(&store, &model);
        end(&disk, store);
        let store = open(&disk);
        let opened = store.opened_from();
        assert_eq!(opened.checkpoint.map(|used| used.number), Some(u64::from(count)));
        assert_eq!(
            opened.older.map(|older| older.number),
            (count > 1).then_some(u64::from(count) - 1)
        );
        assert!(opened.refused.is_empty() && opened.replayed > 0, "{opened}");
        check(&store, &model);
        change(&store, &mut model, 99);
        check(&store, &model);
        end(&disk, store);
        check(&open(&disk), &model);
    }
}

#[test]
fn log_is_purged_to_what_the_last_two_checkpoints_need() {
    let disk = SimDisk::new(1);
    let (store, _) = with_checkpoints(&disk, 1);
    end(&disk, store);
    let first = |store: &Store| store.recovered().expect("recovered").first_lsn;
    let store = open(&disk);
    assert_eq!(first(&store).0, 0, "one checkpoint alone lets nothing go");
    end(&disk, store);
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 6);
    assert_eq!(checkpoints(&disk).len(), 2);
    end(&disk, store);
    let store = open(&disk);
    check(&store, &model);
    let older = store.opened_from().older.expect("there are two");
    assert!(first(&store) > bulla_wal::Lsn::ZERO && first(&store) <= older.lsn);
    assert!(older.lsn.0 - first(&store).0 < 16 * 1024, "no whole segment is kept for nothing");
}

#[test]
fn log_is_purged_also_when_no_life_takes_more_than_one_checkpoint() {
    for (closes, changes) in [(true, 0), (true, 1), (true, 9), (false, 0), (false, 1), (false, 9)] {
        let (disk, mut model) = (SimDisk::new(1), Model::new());
        let mut before = 0;
        for life in 0..8 {
            let store = open(&disk);
            check(&store, &model);
            if let Some(older) = store.opened_from().older {
                let first = store.recovered().expect("recovered").first_lsn;
                let context = format!("{closes}, {changes}, life {life}: {first}, {older:?}");
                assert!(first.0 > before || life < 3, "{context}");
                assert!(first <= older.lsn && older.lsn.0 - first.0 < 16 * 1024, "{context}");
                before = first.0;
            }
            change(&store, &mut model, life);
            store.checkpoint().expect("checkpoint");
            (0..changes).for_each(|round| change(&store, &mut model, 10 * life + round));
            if closes {
                store.close().expect("closed");
            } else {
                end(&disk, store);
            }
        }
    }
}

/// Its anchor is where the segment begins, and the next life's segment begins there, too.
#[test]
fn checkpoint_before_the_first_write_of_a_life_can_be_fallen_back_to() {
    for lives in 1..4 {
        let (disk, mut model) = (SimDisk::new(1), Model::new());
        let store = open(&disk);
        change(&store, &mut model, 0);
        store.close().expect("closed");
        // This open marks everything durable: the next one rewrites no tail.
        end(&disk, open(&disk));
        let store = open(&disk);
        assert_eq!(store.checkpoint().expect("checkpoint").number, 1);
        end(&disk, store);
        // Lives without a write.
        (1..lives).for_each(|_| end(&disk, open(&disk)));
        let store = open(&disk);
        change(&store, &mut model, 1);
        assert_eq!(store.checkpoint().expect("checkpoint").number, 2);
        end(&disk, store);
        let files = checkpoints(&disk);
        let store = open(&disk.fork(1));
        assert_eq!(store.opened_from().older.map(|older| older.number), Some(1), "{lives}");
        check(&store, &model);
        for file in &files {
            let disk = disk.fork(1);
            disk.power_loss();
            disk.flip(file, 20, 1);
            check(&open(&disk), &model);
        }
        assert_eq!(files.len(), 2);
    }
}

#[test]
fn nothing_is_read_before_it_is_touched() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 2);
    store.checkpoint().expect("of the last changes");
    end(&disk, store);
    let store = open(&disk);
    let waiting = |store: &Store| store.stats().checkpoints.waiting_slabs;
    let all = waiting(&store);
    assert!(all > 5, "{all}");
    assert_eq!(store.len(), model.len());
    assert_eq!(waiting(&store), all);
    let (id, (kept, _)) = model.last_key_value().expect("not empty");
    assert_eq!(store.get(TokenId(*id)).expect("read"), Some(*kept));
    assert_eq!(store.get(TokenId(77_000_000)).expect("read"), None);
    assert_eq!(waiting(&store), all - 1);
    store.delete(TokenId(1)).expect("deleted");
    assert_eq!(waiting(&store), all - 2);
    store.load(3).expect("loaded");
    assert_eq!(waiting(&store), 0);
}

#[test]
fn checkpoint_of_nothing_new_is_the_one_before() {
    let disk = SimDisk::new(1);
    let (store, mut model) = with_checkpoints(&disk, 1);
    let taken = store.checkpoint().expect("checkpoint");
    assert_eq!(store.checkpoint().expect("again"), taken);
    end(&disk, store);
    let store = open(&disk);
    assert_eq!(store.checkpoint().expect("again"), taken);
    change(&store, &mut model, 9);
    assert_eq!(store.checkpoint().expect("another").number, taken.number + 1);
}

#[test]
fn every_damaged_byte_of_a_checkpoint_is_noticed_and_costs_nothing() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 2);
    end(&disk, store);
    let newest = checkpoints(&disk).pop().expect("a file");
    let len = disk.read_file(&newest).len() as u64;
    // All of the header and of the first slab's words; then a step that meets every byte of
    // a word, in every part of every slab and of the index.
    let offsets = (0..600).chain((600..len).step_by(127)).chain(len - 4096..len);
    let (mut refused, mut rebuilt) = (0, 0);
    for offset in offsets {
        let disk = disk.fork(offset);
        disk.power_loss();
        disk.flip(&newest, offset, 1 << (offset % 8));
        let store = open(&disk);
        check(&store, &model);
        let opened = store.opened_from();
        match (opened.refused.len(), store.stats().checkpoints.rebuilt_slabs) {
            (1, 0) => {
                assert_eq!(opened.checkpoint.map(|used| used.number), Some(1), "{opened}");
                assert!(opened.to_string().contains("not used"), "{opened}");
                refused += 1;
            }
            (0, 1) => rebuilt += 1,
            other => panic!("byte {offset} of {len}: {other:?}, {opened}"),
        }
    }
    assert!(refused > 500 && rebuilt > 200, "{refused} {rebuilt}");
}

/// A slab with all of its 32,768 records is read straight into the table.
#[test]
fn damaged_full_slab_is_noticed_and_costs_nothing() {
    let (full, ids) = (1_u32, 32_768_u32..65_536);
    let disk = SimDisk::new(1);
    let store = open(&disk);
    for part in ids.clone().step_by(32) {
        let mut batch = Batch::new();
        (part..part + 32).for_each(|id| {
            batch.put(&token(id, 1.0));
        });
        store.apply(&batch).expect("made");
    }
    store.checkpoint().expect("checkpoint");
    end(&disk, store);
    let newest = checkpoints(&disk).pop().expect("a file");
    // The file's header, and the slab's words of records that are there.
    let (header, words) = (4096, 4096);
    let record = header + words + 64 * 20_000;
    let weight_of = |store: &Store, id| store.get(TokenId(id)).expect("read").map(|t| t.weight());
    let damages: [(u64, u8, bool); 6] = [
        (0, 0, false),
        (header, 1, true),
        (header + words, 1, true),
        // A bit of a time, with which the record is as good as before.
        (record + 60, 1, true),
        // The id.
        (record + 48, 1, true),
        (header + words + 64 * 32_768 - 1, 1, true),
    ];
    for (offset, bits, is_rebuilt) in damages {
        let disk = disk.fork(offset);
        disk.power_loss();
        disk.flip(&newest, offset, bits);
        let store = open(&disk);
        assert!(ids.clone().all(|id| weight_of(&store, id) == Some(1.0)), "byte {offset}");
        assert_eq!((store.len(), weight_of(&store, 1)), (ids.len(), None));
        assert_eq!(store.stats().checkpoints.rebuilt_slabs, u64::from(is_rebuilt), "{offset}");
        // It can be changed as any other.
        assert!(store.delete(TokenId(full * 32_768 + 5)).expect("deleted"));
        assert_eq!(weight_of(&store, full * 32_768 + 5), None);
        assert_eq!(store.stats().quota.records, 32_767);
    }
}

#[test]
fn checkpoint_that_is_cut_short_or_too_long_or_gone_costs_nothing() {
    let disk = SimDisk::new(1);
    let (store, mut model) = with_checkpoints(&disk, 2);
    end(&disk, store);
    let newest = checkpoints(&disk).pop().expect("a file");
    let bytes = disk.read_file(&newest);
    for len in [0, 1, 4095, 4096, 4097, bytes.len() / 2, bytes.len() - 1, bytes.len() + 1] {
        let disk = disk.fork(1);
        disk.power_loss();
        let mut other = bytes.clone();
        other.resize(len, 0);
        disk.write_file(&newest, &other);
        let store = open(&disk);
        check(&store, &model);
        assert_eq!(store.opened_from().refused.len(), 1, "{len}");
    }
    disk.remove_file(&newest);
    let store = open(&disk);
    assert_eq!(store.opened_from().checkpoint.map(|used| used.number), Some(1));
    check(&store, &model);
    // And it goes on: the next two are the ones that are kept.
    for round in 50..53 {
        change(&store, &mut model, round);
        store.checkpoint().expect("checkpoint");
    }
    assert_eq!(checkpoints(&disk).len(), 2);
    end(&disk, store);
    check(&open(&disk), &model);
}

#[test]
fn any_one_file_may_be_lost_and_of_two_each_is_told() {
    for count in [1, 2, 4, 6] {
        let disk = SimDisk::new(1);
        let (store, model) = with_checkpoints(&disk, count);
        end(&disk, store);
        let store = open(&disk.fork(1));
        let is_purged = store.recovered().is_some_and(|report| report.first_lsn.0 > 0);
        assert_eq!(is_purged, count > 2);
        let names = checkpoints(&disk);
        for name in &names {
            let disk = disk.fork(1);
            disk.power_loss();
            disk.remove_file(name);
            check(&open(&disk), &model);
        }
        for name in &names {
            disk.flip(name, 100, 1);
        }
        match try_open(&disk) {
            Ok(store) if !is_purged => check(&store, &model),
            Err(Error::Checkpoint(CheckpointError::Missing { first, refused })) if is_purged => {
                assert!(first.0 > 0);
                assert_eq!(refused.len(), names.len());
            }
            other => panic!("{count}: {:?}", other.err()),
        }
        let look = StoreInspection::read(Path::new(DIR), &Options::simulated(&disk));
        assert_eq!(look.is_err(), is_purged, "{look:?}");
    }
}

#[test]
fn slab_that_is_damaged_in_both_checkpoints_is_a_typed_error_and_the_others_are_read() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 3);
    end(&disk, store);
    // The first slab lies right behind the header: ids below 32,768.
    for name in checkpoints(&disk) {
        disk.flip(name, 4096 + 5000, 1);
    }
    let store = match try_open(&disk) {
        Ok(store) => store,
        // Replay touches it.
        Err(Error::Checkpoint(CheckpointError::Slab { slab: 0, .. })) => return,
        Err(error) => panic!("{error:?}"),
    };
    for (id, (kept, _)) in &model {
        match store.get(TokenId(*id)) {
            Ok(found) => assert!(*id >= 32_768 && found == Some(*kept)),
            Err(Error::Checkpoint(CheckpointError::Slab { slab: 0, .. })) => assert!(*id < 32_768),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(matches!(store.checkpoint(), Err(Error::Checkpoint(CheckpointError::Slab { .. }))));
    assert!(store.iter().is_err() && store.count(2, |_| true).is_err());
    assert_eq!(checkpoints(&disk).len(), 2, "a checkpoint that fails lets nothing go");
}

/// A store of which everything is in its newest checkpoint, whose first slab is damaged, and the
/// older ones, which are not.
fn with_damaged_slab(disk: &SimDisk) -> (Model, Vec<PathBuf>) {
    let (store, model) = with_checkpoints(disk, 4);
    store.checkpoint().expect("checkpoint");
    end(disk, store);
    let mut older = checkpoints(disk);
    disk.flip(older.pop().expect("the newest"), 4096 + 5000, 1);
    (model, older)
}

#[test]
fn damaged_slab_without_an_older_checkpoint_is_a_typed_error() {
    let disk = SimDisk::new(1);
    let (_, older) = with_damaged_slab(&disk);
    older.into_iter().for_each(|path| disk.remove_file(path));
    let store = open(&disk);
    assert!(store.recovered().is_some_and(|report| report.first_lsn > Lsn::ZERO), "purged");
    match store.get(TokenId(1)) {
        Err(Error::Checkpoint(CheckpointError::Slab { slab: 0, reason, .. })) => {
            let found = reason.downcast_ref();
            assert!(
                matches!(found, Some(Error::Checkpoint(CheckpointError::NoOlder))),
                "{reason:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// The log is read anew when a slab has to be built again: it may have lost its end since.
#[test]
fn damaged_slab_is_not_built_from_a_log_that_lost_its_end() {
    let whole = SimDisk::new(1);
    let (model, _) = with_damaged_slab(&whole);
    let has_frames = |path: &PathBuf| whole.read_file(path).iter().skip(512).any(|byte| *byte != 0);
    let segment = files(&whole, ".seg").into_iter().rfind(has_frames).expect("a segment");
    let len = whole.read_file(&segment).len();
    let (mut built, mut refused) = (0, 0);
    for cut in (512..len).step_by(512) {
        let disk = whole.fork(1);
        disk.power_loss();
        let store = open(&disk);
        let mut bytes = disk.read_file(&segment);
        bytes.iter_mut().skip(cut).for_each(|byte| *byte = 0);
        disk.write_file(&segment, &bytes);
        match store.get(TokenId(1)) {
            Ok(found) => {
                assert_eq!(found, model.get(&1).map(|(kept, _)| *kept), "{cut}");
                built += 1;
            }
            Err(Error::Checkpoint(CheckpointError::Slab { slab: 0, reason, .. })) => {
                let is_typed =
                    matches!(reason.downcast_ref(), Some(Error::Log(bulla_wal::Error::Corrupt(_))));
                assert!(is_typed, "{cut}: {reason:?}");
                refused += 1;
            }
            Err(error) => panic!("{cut}: {error:?}"),
        }
    }
    assert!(built > 0 && refused > 0, "{built} built, {refused} refused");
}

#[test]
fn checkpoint_ahead_of_an_older_log_is_refused() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 1);
    end(&disk, store);
    let older = disk.fork(1);
    let store = open(&disk);
    let mut later = model.clone();
    change(&store, &mut later, 70);
    store.checkpoint().expect("checkpoint");
    end(&disk, store);
    let newest = checkpoints(&disk).pop().expect("a file");
    let bytes = disk.read_file(&newest);
    older.power_loss();
    older.write_file(&newest, &bytes);
    let store = open(&older);
    check(&store, &model);
    assert_eq!(store.opened_from().refused.len(), 1, "{}", store.opened_from());
}

#[test]
fn checkpoint_of_what_a_repair_cut_off_is_refused() {
    let disk = SimDisk::new(1);
    let (store, mut model) = (open(&disk), Model::new());
    change(&store, &mut model, 1);
    let kept = model.clone();
    let cut_at = store.sync().expect("synced");
    change(&store, &mut model, 2);
    store.checkpoint().expect("checkpoint");
    end(&disk, store);
    repair(Path::new(DIR), &Options::simulated(&disk), RepairPlan { cut_at }).expect("repaired");
    let store = open(&disk);
    check(&store, &kept);
    assert_eq!(store.opened_from().refused.len(), 1);
    let mut model = kept;
    change(&store, &mut model, 3);
    end(&disk, store);
    // Also when the log has grown past it again.
    let store = open(&disk);
    check(&store, &model);
    assert_eq!(store.opened_from().refused.len(), 1);
}

fn look(disk: &SimDisk) -> (Vec<CheckpointFile>, Inspection) {
    let (dir, options) = (Path::new(DIR), Options::simulated(disk));
    let files = bulla_engine::checkpoints(dir, &options, true).expect("listed");
    (files, Inspection::read(dir, &options).expect("an inspection"))
}

/// The numbers of the checkpoints that an open could go by.
fn usable(disk: &SimDisk) -> Vec<u64> {
    let (files, inspection) = look(disk);
    usable_checkpoints(Path::new(DIR), &Options::simulated(disk), &inspection, &files)
        .expect("an inspection")
}

/// Opens the store, which must go by the first two of these, or say that none will do.
fn opens_by(disk: &SimDisk, numbers: &[u64], context: &str) -> Option<Store> {
    let store = match try_open(disk) {
        Err(Error::Checkpoint(CheckpointError::Missing { first, .. })) => {
            assert!(numbers.is_empty() && first > Lsn::ZERO, "{context}");
            return None;
        }
        opened => opened.unwrap_or_else(|error| panic!("{context}: {error:?}")),
    };
    let opened = store.opened_from();
    let by = opened.checkpoint.iter().chain(&opened.older).map(|used| used.number);
    assert!(by.eq(numbers.iter().copied().take(2)), "{context}: {opened}");
    let is_off = |reason: &Refusal| matches!(reason, Refusal::OffTimeline { .. });
    assert!(opened.refused.iter().all(|refused| is_off(&refused.reason)), "{context}: {opened}");
    Some(store)
}

#[test]
fn every_cut_of_a_repair_tells_which_checkpoints_it_makes_unusable() {
    let mut met = BTreeMap::<_, u64>::new();
    for keep_log in [true, false] {
        let disk = SimDisk::new(1);
        let mut model = Model::new();
        for life in 0..3 {
            let options = options(&disk).keep_log(keep_log);
            let store = Store::open(Path::new(DIR), &options).expect("open");
            (0..3).for_each(|round| change(&store, &mut model, 4 * life + round));
            store.checkpoint().expect("checkpoint");
            change(&store, &mut model, 4 * life + 3);
            end(&disk, store);
        }
        // A third one comes back where its removal did not reach the disk.
        assert!(usable(&disk).starts_with(&[3, 2]));
        let (dir, (files, look)) = (Path::new(DIR), look(&disk));
        let (first, last) = (look.report().first_lsn.0, look.report().last_lsn.0);
        for cut_at in (first..=last).step_by(512).map(Lsn) {
            let Ok(plan) = preview_repair(dir, &Options::simulated(&disk), RepairPlan { cut_at })
            else {
                continue;
            };
            let told = usable_checkpoints_after(&plan, &look, &files).expect("an inspection");
            let disk = disk.fork(cut_at.0);
            disk.power_loss();
            repair(dir, &Options::simulated(&disk), RepairPlan { cut_at }).expect("repaired");
            let context = format!("{keep_log}, cut at {cut_at}: {told:?}");
            assert_eq!(usable(&disk), told, "{context}");
            let store = opens_by(&disk, &told, &context);
            *met.entry((told.len().min(2), store.is_some())).or_default() += 1;
            if let (true, Some(store)) = (keep_log, store) {
                let by_log = StoreInspection::read_log(dir, &Options::simulated(&disk))
                    .expect("an inspection");
                assert!(store.iter().expect("read").eq(&by_log), "{context}");
            }
        }
    }
    // With both, with the older one, with the log alone, and not at all.
    assert!(met.values().all(|count| *count > 2) && met.len() == 4, "{met:?}");
}

#[test]
fn damage_below_a_checkpoint_hides_nothing_and_a_repair_is_said_to_cost_it() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 3);
    end(&disk, store);
    assert_eq!(usable(&disk), [3, 2]);
    // Behind the older one, before the newest.
    let (dir, (files, before)) = (Path::new(DIR), look(&disk));
    let lsns: Vec<_> = files.iter().flat_map(|file| &file.state).map(|found| found.lsn.0).collect();
    let at = (lsns[0] + lsns[1]) / 2;
    let holds_it = |live: &(Lsn, Lsn)| (live.0.0..live.1.0).contains(&at);
    let segment =
        before.segments().iter().find(|segment| segment.live.as_ref().is_some_and(holds_it));
    let (number, base) =
        segment.and_then(|found| Some((found.number, found.base?))).expect("there");
    disk.flip(bulla_storage::files::dir::segment_path(dir, number), 512 + at - base.0, 1);

    let (_, look) = look(&disk);
    assert!(matches!(look.report().status, Status::Corrupt(_)), "{:?}", look.report().status);
    assert_eq!(usable(&disk), [3, 2]);
    let store = StoreInspection::read(dir, &Options::simulated(&disk)).expect("an inspection");
    let shown: BTreeMap<_, _> = store.iter().map(|token| (token.id().0, token)).collect();
    assert_eq!(shown, model.iter().map(|(id, (token, _))| (*id, *token)).collect());
    let fork = disk.fork(1);
    fork.power_loss();
    check(&opens_by(&fork, &[3, 2], "above the damage").expect("opened"), &model);

    let plan = RepairPlan::keep_readable(look.report());
    let preview = preview_repair(dir, &Options::simulated(&disk), plan).expect("an inspection");
    assert_eq!(usable_checkpoints_after(&preview, &look, &files).expect("an inspection"), [2]);
    repair(dir, &Options::simulated(&disk), plan).expect("repaired");
    opens_by(&disk, &[2], "cut").expect("opened");
}

#[test]
fn segment_below_the_newest_checkpoint_may_be_lost_and_the_store_goes_on() {
    let disk = SimDisk::new(1);
    let mut model = Model::new();
    for life in 0..3 {
        let store = open(&disk);
        (0..8).for_each(|round| change(&store, &mut model, 10 * life + round));
        store.checkpoint().expect("taken");
        change(&store, &mut model, 10 * life + 8);
        end(&disk, store);
    }
    let (dir, before) = (Path::new(DIR), look(&disk).1);
    let newest = look(&disk).0[0].state.as_ref().expect("intact").lsn;
    let is_below = |live: &(Lsn, Lsn)| live.1 <= newest;
    let below: Vec<_> = before
        .segments()
        .iter()
        .filter(|found| found.live.as_ref().is_some_and(is_below))
        .map(|found| bulla_storage::files::dir::segment_path(dir, found.number))
        .collect();
    assert!(below.len() > 1, "{below:?}");
    for path in &below {
        for header_alone in [true, false] {
            let disk = disk.fork(1);
            disk.power_loss();
            if header_alone {
                disk.flip(path, 20, 1);
            } else {
                disk.remove_file(path);
            }
            let read = StoreInspection::read(dir, &Options::simulated(&disk)).expect("readable");
            let shown: BTreeMap<_, _> = read.iter().map(|token| (token.id().0, token)).collect();
            assert_eq!(shown, model.iter().map(|(id, (token, _))| (*id, *token)).collect());
            assert_eq!(usable(&disk).first(), Some(&3), "{}", path.display());

            let mut model = model.clone();
            for round in 40..44 {
                let store = opens_by(&disk, &usable(&disk), "below").expect("opened");
                check(&store, &model);
                change(&store, &mut model, round);
                store.checkpoint().expect("taken");
                change(&store, &mut model, round + 10);
                end(&disk, store);
            }
            check(&open(&disk), &model);
            // Two checkpoints above the damage, and it is gone.
            assert_eq!(look(&disk).1.report().status.name(), "clean");
        }
    }
}

/// The older checkpoint and the log from there on are whole: a segment that is missing below takes
/// nothing from them.
#[test]
fn damaged_slab_is_built_again_although_a_segment_below_is_missing() {
    let disk = SimDisk::new(1);
    let mut model = Model::new();
    for life in 0..4 {
        let kept = options(&disk).keep_log(true);
        let store = Store::open(Path::new(DIR), &kept).expect("open");
        (0..8).for_each(|round| change(&store, &mut model, 10 * life + round));
        store.checkpoint().expect("taken");
        if life < 3 {
            change(&store, &mut model, 10 * life + 8);
        }
        end(&disk, store);
    }
    let (found, inspection) = look(&disk);
    let older = found[1].state.as_ref().expect("intact").lsn;
    disk.flip(found[0].path.clone(), 4096 + 5000, 1);
    let dir = Path::new(DIR);
    let paths: Vec<_> = inspection
        .segments()
        .iter()
        .filter(|segment| segment.live.as_ref().is_some_and(|live| live.1 <= older))
        .map(|segment| bulla_storage::files::dir::segment_path(dir, segment.number))
        .collect();
    assert!(paths.len() > 2, "{paths:?}");
    // Above the older checkpoint the log is whole, and a reader shows it from there on.
    for path in &paths[..paths.len() - 1] {
        for is_flipped in [false, true] {
            let disk = disk.fork(1);
            disk.power_loss();
            if is_flipped {
                disk.flip(path, 20, 1);
            } else {
                disk.remove_file(path);
            }
            let store = open(&disk);
            assert_eq!(
                store.opened_from().checkpoint.as_ref().map(|used| used.lsn),
                Some(found[0].state.as_ref().expect("intact").lsn)
            );
            check(&store, &model);
            assert!(store.stats().checkpoints.rebuilt_slabs > 0, "{}", path.display());
            let from = bulla_wal::Position::from(older);
            let visibility = bulla_wal::Visibility::Durable;
            let mut reader =
                bulla_wal::Reader::open(disk.process(), dir, from, visibility).expect("open");
            assert!(reader.next().expect("whole").is_some());
            let all = bulla_wal::Reader::open(disk.process(), dir, .., visibility);
            match all {
                Err(bulla_wal::Error::Gap { whole_from, .. }) => assert!(whole_from <= older),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn checkpoint_of_another_store_is_refused() {
    let disk = SimDisk::new(1);
    let (store, model) = with_checkpoints(&disk, 1);
    end(&disk, store);
    let other = SimDisk::new(2);
    let (store, _) = with_checkpoints(&other, 2);
    end(&other, store);
    let names = checkpoints(&other);
    let [_, name] = &names[..] else { panic!("{names:?}") };
    disk.write_file(name, &other.read_file(name));
    let store = open(&disk);
    check(&store, &model);
    assert_eq!(store.opened_from().refused.len(), 1);
    assert_eq!(store.opened_from().checkpoint.map(|used| used.number), Some(1));
}

#[test]
fn checkpoints_without_a_log_are_not_built_over() {
    let disk = SimDisk::new(1);
    let (store, _) = with_checkpoints(&disk, 2);
    end(&disk, store);
    for path in disk.paths() {
        let name = path.to_string_lossy();
        if name.ends_with(".seg") || name.ends_with("CONTROL") {
            disk.remove_file(&path);
        }
    }
    let refused = try_open(&disk);
    assert!(
        matches!(refused, Err(Error::Checkpoint(CheckpointError::WithoutLog { .. }))),
        "{refused:?}"
    );
}

#[test]
fn checkpoint_that_fails_leaves_everything_as_it_was() {
    let disk = SimDisk::new(1);
    let (store, mut model) = with_checkpoints(&disk, 2);
    let ops = [FaultOp::Create, FaultOp::Write, FaultOp::Sync, FaultOp::Rename, FaultOp::SyncDir];
    for (failed, op) in (1..).zip(ops) {
        change(&store, &mut model, 60 + failed);
        let before = checkpoints(&disk);
        disk.fail_next(op, std::io::ErrorKind::Other, "checkpoints", 0);
        let refused = store.checkpoint();
        assert!(
            matches!(refused, Err(Error::Checkpoint(CheckpointError::Io { .. }))),
            "{op:?}: {refused:?}"
        );
        let stats = store.stats().checkpoints;
        assert_eq!(stats.failed, u64::from(failed));
        assert!(stats.last_error.is_some());
        assert!(before.iter().all(|name| checkpoints(&disk).contains(name)), "{op:?}");
        check(&store, &model);
        let fork = disk.fork(1);
        fork.power_loss();
        check(&open(&fork), &model);
    }
    let taken = store.checkpoint().expect("checkpoint");
    assert_eq!(store.stats().checkpoints.last_error, None);
    assert_eq!((checkpoints(&disk).len(), files(&disk, ".tmp").len()), (2, 0));
    end(&disk, store);
    let store = open(&disk);
    assert_eq!(store.opened_from().checkpoint, Some(taken));
    check(&store, &model);
}

#[test]
fn full_disk_fails_a_checkpoint_and_kept_space_saves_it() {
    // Space can be kept also where the file system can't reserve it without writing.
    for (reserve, preallocate) in [(0, true), (1 << 20, true), (1 << 20, false)] {
        let disk = SimDisk::with_config(1, SimConfig { preallocate, ..SimConfig::default() });
        let options = options(&disk).checkpoint_reserve_bytes((reserve > 0).then_some(reserve));
        let store = Store::open(Path::new(DIR), &options).expect("open");
        let mut model = Model::new();
        change(&store, &mut model, 1);
        store.checkpoint().expect("checkpoint");
        change(&store, &mut model, 2);
        assert_eq!(store.stats().checkpoints.reserved_bytes, reserve);
        disk.set_capacity(Some(0));
        let taken = store.checkpoint();
        if reserve == 0 {
            let is_typed = |error: &CheckpointError| {
                matches!(error, CheckpointError::Io { source, .. }
                    if source.kind() == std::io::ErrorKind::StorageFull)
            };
            assert!(
                matches!(&taken, Err(Error::Checkpoint(error)) if is_typed(error)),
                "{taken:?}"
            );
        } else {
            assert_eq!(taken.expect("in the kept space").number, 2);
        }
        check(&store, &model);
        disk.set_capacity(None);
        change(&store, &mut model, 3);
        store.checkpoint().expect("there is space again");
        assert_eq!(store.stats().checkpoints.reserved_bytes, reserve);
        end(&disk, store);
        check(&open(&disk), &model);
    }
}

#[test]
fn checkpoints_are_taken_by_bytes_by_time_and_at_the_close() {
    let disk = SimDisk::new(1);
    let never = || options(&disk).checkpoint_bytes(None).checkpoint_interval(None);
    let run = |options: StoreOptions, changes: u32, wait: Duration| {
        let store = Store::open(Path::new(DIR), &options).expect("open");
        let before = store.stats().checkpoints.newest.map_or(0, |newest| newest.number);
        let mut model = Model::new();
        (0..changes).for_each(|round| change(&store, &mut model, round));
        disk.advance(u64::try_from(wait.as_nanos()).expect("short"));
        while store.step() {}
        let taken = store.stats().checkpoints.taken;
        store.close().expect("closed");
        let store = Store::open(Path::new(DIR), &never()).expect("open");
        let after = store.stats().checkpoints.newest.map_or(0, |newest| newest.number);
        store.close().expect("closed");
        (taken, after - before)
    };
    let second = Duration::from_secs(1);
    assert_eq!(run(never(), 3, second), (0, 0));
    assert_eq!(run(never().checkpoint_bytes(Some(20_000)), 1, second), (0, 0));
    assert_eq!(run(never().checkpoint_bytes(Some(20_000)), 8, second), (1, 1));
    assert_eq!(run(never().checkpoint_interval(Some(2 * second)), 1, second), (0, 0));
    assert_eq!(run(never().checkpoint_interval(Some(2 * second)), 1, 3 * second), (1, 1));
    assert_eq!(run(never().checkpoint_interval(Some(second)), 0, 9 * second), (0, 0));
    assert_eq!(run(never().checkpoint_close_bytes(Some(4_000)), 2, second), (0, 1));
    assert_eq!(run(never().checkpoint_close_bytes(Some(400_000)), 2, second), (0, 0));
}
