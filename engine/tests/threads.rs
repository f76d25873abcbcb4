//! The store with many threads: whole records, whole batches, no lost update, slabs that are read
//! once, checkpoints that are the log's prefix, and a log whose order is the table's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulla_engine::entries::{LogEntry, Mutation};
use bulla_engine::{
    Batch, CheckpointError, CheckpointInfo, Error, Level, RECORD_LEN, Record, Store, StoreOptions,
    TokenId,
};
use bulla_recovery::{Inspection, RepairPlan, repair};
use bulla_wal::{Lsn, Options};
use tempfile::TempDir;

use crate::common::{options, temp_dir, token};
use crate::numbers::Numbers;
use crate::times::{at_ms, ms};

/// A record that shows when it is torn: an id, and fifteen times the same number.
fn striped(id: u32, number: u32) -> Numbers {
    let mut words = [number.to_le_bytes(); RECORD_LEN / 4];
    words[0] = id.to_le_bytes();
    Numbers(words.as_flattened().try_into().expect("64 bytes"))
}

fn number_of(record: &Numbers) -> u32 {
    let [id, words @ ..] = record.0.as_chunks::<4>().0 else { panic!("16 words") };
    assert!(words.iter().all(|word| word == &words[0]), "torn: {id:?} {words:?}");
    u32::from_le_bytes(words[0])
}

fn stripes(dir: &TempDir, options: &StoreOptions) -> Store<Numbers> {
    Store::open_records(dir.path(), options).expect("opened")
}

/// Runs `write` to its end while `read` runs over and over.
fn while_writing(write: impl FnOnce() + Send, read: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    read();
                }
            });
        }
        write();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn reader_never_sees_a_torn_record() {
    let dir = temp_dir("torn");
    let store = stripes(&dir, &options());
    let write = || {
        for number in 0..100_000 {
            store.at(Level::Relaxed).put(&striped(1, number)).expect("put");
            // The page empties now and then: its memory goes and comes back.
            if number % 16 == 0 {
                store.at(Level::Relaxed).delete(1).expect("deleted");
            }
        }
    };
    while_writing(write, || {
        if let Some(record) = store.get(1).expect("read") {
            number_of(&record);
        }
        store.iter().expect("read").for_each(|record| {
            number_of(&record);
        });
    });
}

#[test]
fn batch_is_seen_whole_or_not_at_all() {
    let dir = temp_dir("whole");
    let store = stripes(&dir, &options());
    // On three pages of two slabs.
    let ids = [1, 100, 40_000];
    let put = |number| {
        let mut batch = Batch::new();
        ids.iter().for_each(|id| {
            batch.put(&striped(*id, number));
        });
        store.at(Level::Relaxed).apply(&batch).expect("applied");
    };
    put(0);
    let write = || (1..20_000).for_each(put);
    while_writing(write, || {
        let many = store.get_many(&ids).expect("read");
        let many: Vec<_> = many.iter().flatten().map(number_of).collect();
        assert!(many.len() == 3 && many.iter().all(|number| *number == many[0]), "{many:?}");
        // Whoever has seen one change of a batch sees all: also those that come after it.
        let one_by_one = ids.map(|id| number_of(&store.get(id).expect("read").expect("there")));
        assert!(one_by_one.is_sorted(), "{one_by_one:?}");
    });
}

#[test]
fn no_update_is_lost_and_the_log_tells_the_same() {
    let dir = temp_dir("updates");
    let store = stripes(&dir, &options());
    store.create(&striped(9, 0)).expect("created");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let (_, receipt) = store
                        .at(Level::Relaxed)
                        .begin()
                        .update(9, |now| Ok(striped(9, number_of(&now) + 1)))
                        .expect("updated")
                        .expect("there");
                    assert_eq!(receipt.level, Level::Relaxed);
                }
            });
        }
    });
    assert_eq!(store.get(9).expect("read").as_ref().map(number_of), Some(8_000));
    store.close().expect("closed");
    assert_eq!(stripes(&dir, &options()).get(9).expect("read"), Some(striped(9, 8_000)));
}

#[test]
fn one_thread_of_many_creates_a_record() {
    let dir = temp_dir("create");
    let store = Store::open(dir.path(), &options()).expect("created");
    for id in 1..500 {
        let created: usize = std::thread::scope(|scope| {
            let create =
                |weight: u8| store.at(Level::Relaxed).begin().create(&token(id, weight.into()));
            let threads: Vec<_> =
                (0..3).map(|weight| scope.spawn(move || create(weight).is_ok())).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().expect("no panic"))).sum()
        });
        assert_eq!(created, 1);
    }
    assert_eq!(store.stats().log.entries, 499);
}

#[test]
fn expiry_stays_while_that_of_a_page_beside_it_is_given_back() {
    let dir = temp_dir("beside");
    let store = Store::open(dir.path(), &options()).expect("created");
    std::thread::scope(|scope| {
        // Two and two of them share the memory of their expiries.
        for page in [0, 1, 8, 9] {
            let (store, id) = (&store, TokenId(64 * page + 1));
            scope.spawn(move || {
                for expiry in 1..20_000 {
                    let mut batch = Batch::new();
                    batch.put(&token(id.0, 1.0)).expire_at(id, at_ms(expiry)).expect("an id");
                    store.at(Level::Relaxed).apply(&batch).expect("applied");
                    assert_eq!(store.expires_at(id).expect("read"), at_ms(expiry), "{id:?}");
                    store.at(Level::Relaxed).delete(id).expect("deleted");
                }
            });
        }
    });
}

#[test]
fn log_order_is_the_order_of_the_table_for_every_operation() {
    let dir = temp_dir("mixed-order");
    let store = Store::open(dir.path(), &options()).expect("created");
    std::thread::scope(|scope| {
        for client in 0_u32..4 {
            let store = &store;
            scope.spawn(move || {
                for step in 0..3_000_u32 {
                    // Ten records on three pages, of two slabs.
                    let id = |number: u32| number % 10 * 31 + number % 2 * 100_000 + 1;
                    let (one, two) = (id(step * 7 + client), id(step * 3 + client * 5));
                    let weight = (step % 100) as f32;
                    let level = Level::Relaxed;
                    match step % 4 {
                        0 => store.at(level).begin().put(&token(one, weight)).map(drop),
                        1 => store.at(level).begin().delete(TokenId(one)).map(drop),
                        2 => {
                            let mut batch = Batch::new();
                            batch.put(&token(one, weight)).put(&token(two, weight));
                            batch.expire_at(TokenId(two), at_ms(step.into())).expect("an id");
                            store.at(level).begin().apply(&batch).map(drop)
                        }
                        _ => {
                            let add = |now: bulla_engine::Token| {
                                Ok(now.to_builder().weight(now.weight() / 2.0).build()?)
                            };
                            store.at(level).begin().update(TokenId(one), add).map(drop)
                        }
                    }
                    .expect("made");
                }
            });
        }
    });
    let with_expiry = |store: &Store| -> Vec<_> {
        store
            .iter()
            .expect("read")
            .map(|token| (token, store.expires_at(token.id()).expect("read")))
            .collect()
    };
    let before = with_expiry(&store);
    let quota = store.stats().quota;
    store.close().expect("closed");
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(with_expiry(&store), before);
    assert_eq!(
        (store.stats().quota.records, store.stats().quota.bytes),
        (quota.records, quota.bytes)
    );
}

#[test]
fn close_that_meets_writes_and_a_checkpoint_loses_nothing_that_was_acknowledged() {
    let dir = temp_dir("closed-meanwhile");
    let options = options().checkpoint_interval(Some(Duration::from_nanos(1)));
    let mut last = 0;
    for round in 0..20 {
        let store = stripes(&dir, &options);
        let made = std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                (last + 1..).find(|number| match store.put(&striped(1, *number)) {
                    Ok(()) => false,
                    Err(Error::Closed) => true,
                    Err(error) => panic!("round {round}: {error:?}"),
                })
            });
            let check = scope.spawn(|| {
                loop {
                    match store.checkpoint() {
                        Ok(_) => {}
                        Err(Error::Closed) => break,
                        Err(error) => panic!("round {round}: {error:?}"),
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(round));
            let others = [scope.spawn(|| store.close()), scope.spawn(|| store.close())];
            store.close().expect("closed");
            for other in others {
                other.join().expect("no panic").expect("closed");
            }
            check.join().expect("no panic");
            write.join().expect("no panic").expect("it was refused")
        });
        drop(store);
        last = made - 1;
        let found = stripes(&dir, &options).get(1).expect("read");
        assert_eq!(found.map_or(0, |record| number_of(&record)), last, "round {round}");
    }
}

#[test]
fn close_waits_for_the_checkpoint_that_another_thread_takes() {
    let dir = temp_dir("closed-in-a-checkpoint");
    let options = options();
    for round in 0..20 {
        let store = stripes(&dir, &options);
        std::thread::scope(|scope| {
            let check = scope.spawn(|| {
                for number in 1.. {
                    match store.put(&striped(1, number)).and_then(|()| store.checkpoint()) {
                        Ok(_) => {}
                        Err(Error::Closed) => break,
                        Err(error) => panic!("round {round}: {error:?}"),
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(round));
            store.close().expect("closed");
            let files = || -> Vec<_> {
                let checkpoints = std::fs::read_dir(dir.path().join("checkpoints"));
                let entries = checkpoints.into_iter().flatten().map(Result::unwrap);
                let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
                files.sort();
                files
            };
            let closed = files();
            let is_temporary = |path: &std::path::PathBuf| path.extension() == Some("tmp".as_ref());
            assert!(!closed.iter().any(is_temporary), "round {round}: {closed:?}");
            check.join().expect("no panic");
            assert_eq!(files(), closed, "round {round}: nothing is made once it is closed");
        });
    }
}

/// Slabs of the stores below, and records in each: more than a page.
const SLABS: u32 = 24;
const SLAB_RECORDS: u32 = 300;

fn id_in(slab: u32, number: u32) -> u32 {
    (slab << 15) + 1 + number * 7
}

/// A store in which every slab has records, all of them in a checkpoint and none behind it.
fn in_a_checkpoint(dir: &TempDir, options: &StoreOptions) {
    let store = stripes(dir, options);
    for slab in 0..SLABS {
        let mut batch = Batch::new();
        (0..SLAB_RECORDS).for_each(|number| {
            batch.put(&striped(id_in(slab, number), slab));
        });
        batch.expire_at(id_in(slab, 1), at_ms(u64::from(slab) + 1)).expect("an id");
        store.apply(&batch).expect("applied");
    }
    store.checkpoint().expect("taken");
    store.close().expect("closed");
}

/// Every record of a slab is right, whoever reads it.
fn check_slab(store: &Store<Numbers>, slab: u32) {
    for number in [0, SLAB_RECORDS / 2, SLAB_RECORDS - 1] {
        let found = store.get(id_in(slab, number)).expect("read");
        assert_eq!(found, Some(striped(id_in(slab, number), slab)));
    }
    assert_eq!(store.get(id_in(slab, 0) + 1).expect("read"), None);
    assert_eq!(store.expires_at(id_in(slab, 1)).expect("read"), at_ms(u64::from(slab) + 1));
}

/// Changes a byte of a record in the newest checkpoint.
fn damage_first_slab(dir: &TempDir) {
    let files = std::fs::read_dir(dir.path().join("checkpoints")).expect("listed");
    let newest = files.map(|file| file.expect("a file").path()).max().expect("one");
    let file = std::fs::File::options().write(true).open(newest).expect("opened");
    // Behind the header and the slab's words.
    std::os::unix::fs::FileExt::write_all_at(&file, b"X", 2 * 4096 + 70).expect("written");
}

#[test]
fn slabs_that_many_threads_touch_first_are_read_right_and_counted_once() {
    let dir = temp_dir("lazy-threads");
    let options = options().checkpoint_close_bytes(None);
    in_a_checkpoint(&dir, &options);
    let all = (SLABS * SLAB_RECORDS) as usize;
    for round in 0..20_u32 {
        // Now and then the first slab is damaged, and built again.
        let damaged = u64::from(round % 4 == 1);
        if damaged == 1 {
            damage_first_slab(&dir);
        }
        let store = stripes(&dir, &options);
        assert_eq!(store.stats().checkpoints.waiting_slabs, u64::from(SLABS));
        let quota = store.stats().quota;
        let changed = |slab: u32| striped(id_in(slab, 2), 1_000 + round);
        let threads: &[&(dyn Fn() + Sync)] = &[
            &|| (0..SLABS).for_each(|slab| check_slab(&store, slab)),
            &|| (0..SLABS).rev().for_each(|slab| check_slab(&store, slab)),
            &|| assert_eq!(store.iter().expect("read").count(), all),
            &|| {
                let is_torn =
                    |record: &Numbers| number_of(record) >= SLABS && number_of(record) < 1_000;
                assert_eq!(store.scan(2, is_torn).expect("read"), []);
                assert_eq!(store.count(2, |_| true).expect("read"), all as u64);
            },
            // Whoever changes a record first touches its slab as well, and nobody takes that back.
            &|| (0..SLABS).step_by(2).for_each(|slab| store.put(&changed(slab)).expect("put")),
            &|| store.load(3).expect("loaded"),
        ];
        let begin = std::sync::Barrier::new(threads.len());
        std::thread::scope(|scope| {
            for run in threads {
                scope.spawn(|| {
                    begin.wait();
                    run();
                });
            }
        });
        let stats = store.stats();
        assert_eq!(
            (stats.checkpoints.waiting_slabs, stats.checkpoints.rebuilt_slabs),
            (0, damaged)
        );
        assert_eq!((stats.quota.records, stats.quota.bytes), (quota.records, quota.bytes));
        for slab in 0..SLABS {
            check_slab(&store, slab);
            if slab % 2 == 0 {
                assert_eq!(store.get(id_in(slab, 2)).expect("read"), Some(changed(slab)));
            }
        }
        // The next round finds them all in the checkpoint again, those that were changed, too.
        store.checkpoint().expect("taken");
        store.close().expect("closed");
    }
}

/// What the log says below a position: records with the times at which they expire.
fn by_the_log(dir: &Path, lsn: Lsn) -> BTreeMap<u32, (Numbers, u64)> {
    let mut map = BTreeMap::new();
    let inspection = Inspection::read(dir, &Options::new()).expect("readable");
    let replayed = inspection.replay(..lsn, |entry| {
        let changes = LogEntry::<Numbers>::decode(entry.kind, entry.payload).expect("changes");
        for change in changes.iter() {
            match change {
                Mutation::Put(record) => drop(map.insert(record.id(), (record, 0))),
                Mutation::Delete(id) => drop(map.remove(&id)),
                Mutation::Expire(id, at) => {
                    if let Some((_, expiry)) = map.get_mut(&id) {
                        *expiry = ms(at);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    });
    replayed.expect("replayed");
    map
}

/// What a store shows that is opened from this checkpoint and nothing else: a copy, with the
/// log cut at the checkpoint's position.
fn by_the_checkpoint(dir: &Path, taken: &Taken, to: &TempDir) -> BTreeMap<u32, (Numbers, u64)> {
    std::fs::create_dir_all(to.path().join("checkpoints")).expect("made");
    for entry in std::fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry")) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copied");
        }
    }
    std::fs::copy(
        &taken.file,
        to.path().join("checkpoints").join(taken.file.file_name().expect("named")),
    )
    .expect("copied");
    let cut_at = taken.info.lsn;
    repair(to.path(), &Options::new(), RepairPlan { cut_at }).expect("cut");
    let store = stripes(to, &options());
    let opened = store.opened_from();
    assert_eq!((opened.checkpoint, opened.replayed), (Some(taken.info), 0));
    assert_eq!(store.len() as u64, taken.info.records);
    let with_expiry = |record: Numbers| {
        let expiry = ms(store.expires_at(record.id()).expect("read"));
        (record.id(), (record, expiry))
    };
    store.iter().expect("read").map(with_expiry).collect()
}

/// A checkpoint, and a copy of its file.
struct Taken {
    info: CheckpointInfo,
    file: PathBuf,
}

/// Tells other threads to end when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn checkpoint_beside_threads_that_write_is_the_log_below_its_position() {
    let dir = temp_dir("beside-writers");
    let files = temp_dir("beside-writers-files");
    std::fs::create_dir_all(files.path()).expect("made");
    let by_hand = options().checkpoint_bytes(None).checkpoint_interval(None);
    let store = stripes(&dir, &by_hand.keep_log(true).checkpoint_close_bytes(None));
    let done = AtomicBool::new(false);
    let write = |client: u32| {
        for number in (0_u32..).take_while(|_| !done.load(Ordering::Relaxed)) {
            // Pages of all three, in two slabs.
            let id = |salt: u32| 1 + number.wrapping_mul(salt) % 97 * 3 + number % 2 * 40_000;
            let (one, two) = (id(7 + client), id(31));
            let level = Level::Relaxed;
            let made = match number % 6 {
                0 => store.at(level).begin().delete(one).map(drop),
                1 => {
                    let mut batch = Batch::new();
                    batch.put(&striped(one, number)).put(&striped(two, number));
                    batch.expire_at(two, at_ms(number.into())).expect("an id");
                    store.at(level).begin().apply(&batch).map(drop)
                }
                2 => {
                    let mix = |now: Numbers| Ok(striped(two, number_of(&now) ^ number));
                    store.at(level).begin().update(two, mix).map(drop)
                }
                // Now and then one waits: the log need not be long.
                _ if number % 100 == 3 => store.at(Level::Strict).put(&striped(one, number)),
                _ => store.at(level).begin().put(&striped(one, number)).map(drop),
            };
            made.expect("made");
        }
    };
    let taken: Vec<Taken> = std::thread::scope(|scope| {
        // Also when this thread panics: the others would go on for ever.
        let _ends = Ends(&done);
        let write = &write;
        (0..3).for_each(|client| drop(scope.spawn(move || write(client))));
        while store.len() < 50 {
            std::thread::yield_now();
        }
        let taken = (0..8).map(|_| {
            let info = loop {
                match store.checkpoint() {
                    // The last segment is full to its last sector, and nobody appends right now.
                    Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
                    taken => break taken.expect("taken"),
                }
            };
            let name = format!("{:020}.ckpt", info.number);
            let file = files.path().join(&name);
            std::fs::copy(dir.path().join("checkpoints").join(name), &file).expect("copied");
            Taken { info, file }
        });
        taken.collect()
    });
    store.close().expect("closed");
    for taken in &taken {
        let copy = temp_dir("beside-writers-copy");
        let expected = by_the_log(dir.path(), taken.info.lsn);
        assert!(!expected.is_empty());
        assert_eq!(by_the_checkpoint(dir.path(), taken, &copy), expected, "{:?}", taken.info);
    }
}
