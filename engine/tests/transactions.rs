//! Transactions: what they read and change is as of one moment, whatever other threads do; and
//! updates with an error type of the caller's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulla_engine::{Batch, Error, Level, Snapshot, Store, StoreOptions, Token, TokenId};
use bulla_wal::Options;

use crate::common::{options, temp_dir, token};

const THREADS: u32 = 4;

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("too little")]
    TooLittle,
    #[error(transparent)]
    Store(#[from] Error),
}

fn weight(store: &Store, id: u32) -> f32 {
    store.get(TokenId(id)).expect("read").map_or(0.0, |token| token.weight())
}

#[test]
fn transfers_of_many_threads_neither_make_nor_lose_anything() {
    let dir = temp_dir("transfers");
    let store = Store::open(dir.path(), &options()).expect("created");
    // On pages of their own, and on shared ones.
    let ids = [1, 2, 70, 700, 70_000];
    ids.iter().for_each(|id| store.put(&token(*id, 20.0)).expect("put"));
    let refused = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, refused) = (&store, &refused);
            scope.spawn(move || {
                for step in 0..400_u32 {
                    let at = |number: u32| ids[number as usize % ids.len()];
                    let (from, to) = (at(thread + step), at(thread + step * 3 + 1));
                    if from == to {
                        continue;
                    }
                    let moved = store.at(Level::Relaxed).transact(|t| {
                        let (a, b) = (t.get(TokenId(from))?, t.get(TokenId(to))?);
                        let (a, b) = (a.expect("there").weight(), b.expect("there").weight());
                        if a < 5.0 || b > 95.0 {
                            return Err(Refused::TooLittle);
                        }
                        t.put(&token(from, a - 5.0))?;
                        t.put(&token(to, b + 5.0))?;
                        Ok(())
                    });
                    match moved {
                        Ok(()) => {}
                        Err(Refused::TooLittle) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Err(Refused::Store(error)) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let sum = |store: &Store| ids.iter().map(|id| weight(store, *id)).sum::<f32>();
    assert!((sum(&store) - 100.0).abs() < 0.01, "{}", sum(&store));
    let before: Vec<_> = store.iter().expect("read").collect();
    store.close().expect("closed");
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), before);
}

#[test]
fn what_a_transaction_only_read_is_not_changed_behind_its_back() {
    // Each of two records may go down while the other is up: reading both and changing one must
    // not let both go down.
    for round in 0..200 {
        let dir = temp_dir("skew");
        let store = Store::open(dir.path(), &options()).expect("created");
        store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
        store.at(Level::Relaxed).put(&token(90_000, 1.0)).expect("put");
        let down = std::thread::scope(|scope| {
            let go = |own: u32, other: u32| {
                let store = &store;
                move || {
                    store.at(Level::Relaxed).transact(|t| -> Result<bool, Error> {
                        let is_up = t.get(TokenId(other))?.is_some();
                        if is_up {
                            t.delete(TokenId(own))?;
                        }
                        Ok(is_up)
                    })
                }
            };
            let threads = [scope.spawn(go(1, 90_000)), scope.spawn(go(90_000, 1))];
            threads.map(|thread| thread.join().expect("no panic").expect("made"))
        });
        assert_ne!(down, [true, true], "round {round}");
        assert_eq!(store.len(), 1, "round {round}");
    }
}

#[test]
fn a_record_that_was_not_there_counts_as_read() {
    let dir = temp_dir("absent");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
    // On a page with records, on one without, and where there is no memory yet.
    for id in [2, 700, 5_000_000] {
        let mut runs = 0;
        let is_new = store.at(Level::Relaxed).transact(|t| -> Result<bool, Error> {
            let is_new = t.get(TokenId(id))?.is_none();
            runs += 1;
            if runs == 1 {
                // As another thread would.
                store.at(Level::Relaxed).put(&token(id, 7.0))?;
            }
            if is_new {
                t.put(&token(id, 9.0))?;
            }
            Ok(is_new)
        });
        assert_eq!((is_new.expect("made"), runs, weight(&store, id)), (false, 2, 7.0), "{id}");
        // One that changes nothing reads all of it as of one moment, too.
        let mut runs = 0;
        let read = store.at(Level::Relaxed).transact(|t| -> Result<_, Error> {
            let first = t.get(TokenId(id))?;
            runs += 1;
            if runs == 1 {
                store.at(Level::Relaxed).delete(TokenId(id))?;
            }
            Ok((first.is_some(), t.get(TokenId(id))?.is_some()))
        });
        assert_eq!((read.expect("read"), runs), ((false, false), 2), "{id}");
    }
}

#[test]
fn only_one_of_two_creates_what_the_other_must_not_find() {
    // Where neither has memory yet. Many pages in between leave time for the other.
    let dir = temp_dir("neither");
    let store = Store::open(dir.path(), &options()).expect("created");
    for round in 1..100 {
        let ids = [round * 200_000, round * 200_000 + 100_000];
        let go = |own: u32, other: u32| {
            let store = &store;
            move || {
                store.at(Level::Relaxed).transact(|t| -> Result<(), Error> {
                    for between in 0..50 {
                        t.get(TokenId(ids[0] + 64 * between))?;
                    }
                    if t.get(TokenId(other))?.is_none() {
                        t.put(&token(own, 1.0))?;
                    }
                    Ok(())
                })
            }
        };
        std::thread::scope(|scope| {
            let threads = [scope.spawn(go(ids[0], ids[1])), scope.spawn(go(ids[1], ids[0]))];
            threads.into_iter().for_each(|thread| thread.join().expect("no panic").expect("made"));
        });
        assert_eq!(ids.map(|id| weight(&store, id)).iter().sum::<f32>(), 1.0, "round {round}");
    }
}

#[test]
fn get_many_sees_both_records_of_a_batch_where_one_had_no_memory() {
    let dir = temp_dir("half");
    let store = Store::open(dir.path(), &options()).expect("created");
    for round in 1..40 {
        // Many pages in between, so that the batch is made while they are locked.
        let (low, high) = (round * 1_000_000, round * 1_000_000 + 900_000);
        store.at(Level::Relaxed).put(&token(high, 1.0)).expect("put");
        store.at(Level::Relaxed).put(&token(low + 100_000, 1.0)).expect("put");
        let mut ids = vec![TokenId(low), TokenId(high)];
        ids.extend((0..500).map(|page| TokenId(low + 100_000 + 64 * page)));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                loop {
                    let found = store.get_many(&ids).expect("read");
                    let high = found[1].expect("there").weight();
                    assert_eq!(found[0].is_some(), high == 2.0, "round {round}");
                    if high == 2.0 {
                        return;
                    }
                }
            });
            std::thread::sleep(Duration::from_micros(u64::from(500 + round * 7)));
            let mut batch = Batch::new();
            batch.put(&token(low, 2.0)).put(&token(high, 2.0));
            store.at(Level::Relaxed).apply(&batch).expect("made");
            reader.join().expect("all or nothing");
        });
    }
}

#[test]
fn pages_that_a_transaction_only_reads_are_not_changed() {
    let dir = temp_dir("only-read");
    let store = Store::open(dir.path(), &options()).expect("created");
    let ids = (1..100).map(|page| 64 * page);
    ids.clone().for_each(|id| store.at(Level::Relaxed).put(&token(id, 1.0)).expect("put"));
    let lsn = |id| store.get_with_lsn(TokenId(id)).expect("read").1;
    let (before, bytes) = (lsn(64), store.stats().quota.bytes);
    let snapshot = store.snapshot().expect("taken");
    store
        .at(Level::Relaxed)
        .transact(|t| -> Result<(), Error> {
            let sum = ids.clone().try_fold(0.0, |sum, id| -> Result<f32, Error> {
                Ok(sum + t.get(TokenId(id))?.expect("there").weight())
            })?;
            t.put(&token(128, sum))
        })
        .expect("made");
    assert_eq!((lsn(64), weight(&store, 128)), (before, 99.0));
    assert!(lsn(128) > before);
    // A snapshot retains the page that was changed, and no other.
    assert_eq!(store.stats().quota.bytes, bytes + 4096);
    assert_eq!(snapshot.get(TokenId(128)).expect("not expired"), Some(token(128, 1.0)));
}

#[test]
fn a_refusal_follows_from_records_of_one_moment() {
    let dir = temp_dir("moments");
    let store = Store::open(dir.path(), &options()).expect("created");
    let set = |a: f32, b: f32| {
        let mut batch = Batch::new();
        batch.put(&token(1, a)).put(&token(700, b));
        store.at(Level::Relaxed).apply(&batch).expect("made");
    };
    set(30.0, 70.0);
    let mut runs = 0;
    let sum = store.at(Level::Relaxed).transact(|t| -> Result<f32, Refused> {
        let a = t.get(TokenId(1))?.expect("there").weight();
        runs += 1;
        if runs == 1 {
            // As another thread would.
            set(70.0, 30.0);
        }
        let sum = a + t.get(TokenId(700))?.expect("there").weight();
        if sum == 100.0 { Ok(sum) } else { Err(Refused::TooLittle) }
    });
    assert_eq!((sum.expect("it was never anything else"), runs), (100.0, 2));
}

#[test]
fn a_transaction_sees_its_own_changes_and_is_one_entry_under_one_receipt() {
    let dir = temp_dir("own");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.put(&token(1, 1.0)).expect("put");
    let entries = store.stats().log.entries;
    let begun = store.at(Level::Strict).begin().transact(|t| -> Result<_, Error> {
        t.put(&token(2, 2.0))?;
        t.put(&token(3, 3.0))?;
        assert_eq!(t.get(TokenId(2))?, Some(token(2, 2.0)));
        assert_eq!(store.get(TokenId(2))?, None, "nothing is made yet");
        t.put(&token(2, 2.5))?;
        t.get(TokenId(1))
    });
    let (value, receipt) = begun.expect("made");
    assert_eq!(value, Some(token(1, 1.0)));
    store.wait(receipt.expect("something was changed")).expect("durable");
    assert_eq!((weight(&store, 2), weight(&store, 3)), (2.5, 3.0));
    assert_eq!(store.stats().log.entries, entries + 1);
    // One that changes nothing has no receipt, and logs nothing.
    let read = |t: &mut bulla_engine::Transaction<'_>| t.get(TokenId(3));
    let (value, receipt) = store.at(Level::Strict).begin().transact(read).expect("read");
    assert_eq!((value, receipt), (Some(token(3, 3.0)), None));
    let deleted = store.transact(|t| -> Result<_, Error> {
        t.delete(TokenId(3))?;
        t.get(TokenId(3))
    });
    assert_eq!(deleted.expect("made"), None);
    assert_eq!((store.len(), store.stats().log.entries), (2, entries + 2));
}

#[test]
fn a_refusal_is_the_callers_own_error_and_changes_nothing() {
    let dir = temp_dir("refused");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.put(&token(1, 1.0)).expect("put");
    let entries = store.stats().log.entries;
    let refused = store.transact(|t| -> Result<(), Refused> {
        t.put(&token(1, 9.0))?;
        t.delete(TokenId(1))?;
        Err(Refused::TooLittle)
    });
    assert!(matches!(refused, Err(Refused::TooLittle)));
    let refused = store.try_update(TokenId(1), |_| Err(Refused::TooLittle));
    assert!(matches!(refused, Err(Refused::TooLittle)));
    let wrong = store.try_update(TokenId(1), |_| Ok::<_, Refused>(token(2, 1.0)));
    assert!(matches!(wrong, Err(Refused::Store(Error::OtherId { id: 1, other: 2 }))));
    let wrong = store.transact(|t| -> Result<(), Refused> { Ok(t.delete(TokenId(0))?) });
    assert!(matches!(wrong, Err(Refused::Store(Error::ZeroId))));
    assert_eq!((weight(&store, 1), store.stats().log.entries), (1.0, entries));
    // In a panic, too.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transact(|t| -> Result<(), Error> {
            t.put(&token(1, 9.0))?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((weight(&store, 1), store.stats().panics), (1.0, 1));
    let updated = store.try_update(TokenId(1), |_| Ok::<_, Refused>(token(1, 4.0)));
    assert_eq!(updated.expect("made"), Some(token(1, 4.0)));
}

#[test]
fn a_transaction_that_never_gets_through_says_so() {
    let dir = temp_dir("contended");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.at(Level::Relaxed).put(&token(1, 0.0)).expect("put");
    let mut runs = 0_u16;
    let result = store.at(Level::Relaxed).transact(|t| -> Result<(), Error> {
        let read = t.get(TokenId(1))?.expect("there");
        runs += 1;
        // As another thread would.
        store.at(Level::Relaxed).put(&token(1, f32::from(runs) / 100.0))?;
        t.put(&read)
    });
    assert!(matches!(result, Err(Error::Contended { id: 1 })), "{result:?}");
    assert_eq!(runs, 1_000);
    assert!((weight(&store, 1) - 10.0).abs() < 0.001, "the other thread's change stays");
    // The error names the record that others change, not one that is only read.
    store.at(Level::Relaxed).put(&token(700, 0.0)).expect("put");
    let mut runs = 0_u16;
    let result = store.at(Level::Relaxed).transact(|t| -> Result<(), Error> {
        t.get(TokenId(1))?;
        t.get(TokenId(700))?;
        runs += 1;
        store.at(Level::Relaxed).put(&token(700, f32::from(runs) / 100.0))?;
        t.put(&token(3, 1.0))
    });
    assert!(matches!(result, Err(Error::Contended { id: 700 })), "{result:?}");
}

#[test]
fn a_transaction_that_reads_too_many_records_is_told_so() {
    let dir = temp_dir("reads");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
    let read = |t: &mut bulla_engine::Transaction<'_>, count| {
        t.put(&token(2, 2.0))?;
        // A record that is read again does not count again.
        (1..=count).chain(1..=10).try_for_each(|id| t.get(TokenId(id)).map(drop))
    };
    // What it has put itself it does not read from the store.
    let made = store.at(Level::Relaxed).transact(|t| read(t, 65_537));
    assert!(made.is_ok(), "{made:?}");
    let refused = store.at(Level::Relaxed).transact(|t| {
        t.put(&token(3, 3.0))?;
        read(t, 65_539)
    });
    assert!(matches!(refused, Err(Error::TooManyReads { max: 65_536 })), "{refused:?}");
    assert_eq!(store.len(), 2);
}

#[test]
fn a_snapshot_outlives_its_store() {
    let dir = temp_dir("outlives");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.put(&token(1, 1.0)).expect("put");
    let snapshot: Snapshot = store.snapshot().expect("taken");
    store.put(&token(1, 2.0)).expect("put");
    drop(store);
    // In a thread that knows nothing of the store.
    let read = std::thread::spawn(move || snapshot.get(TokenId(1)).expect("not expired"));
    assert_eq!(read.join().expect("no panic"), Some(token(1, 1.0)));
    // And the directory is free.
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(weight(&store, 1), 2.0);
}

#[test]
fn a_store_is_created_in_an_empty_directory_and_only_if_wanted() {
    let dir = temp_dir("created");
    let opened = Store::<Token>::open_records(dir.path(), &options().create(false));
    assert!(matches!(opened, Err(Error::Log(bulla_wal::Error::NotALog { .. }))), "{opened:?}");
    let absent = dir.path().join("absent");
    assert!(Store::open(&absent, &options().create(false)).is_err() && !absent.exists());
    std::fs::write(dir.path().join("thesis.txt"), "years of work").expect("written");
    let refused = Store::open(dir.path(), &StoreOptions::new().log(Options::new()));
    let Err(Error::NotEmpty { path, name }) = refused else { panic!("{refused:?}") };
    assert_eq!((path.as_path(), name.as_str()), (dir.path(), "thesis.txt"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing was made");
    std::fs::remove_file(dir.path().join("thesis.txt")).expect("removed");
    // What an interrupted creation, or a file system, leaves.
    std::fs::create_dir(dir.path().join("lost+found")).expect("made");
    std::fs::write(dir.path().join("LOCK"), "").expect("written");
    std::fs::write(dir.path().join("00000000000000000001.seg.tmp"), "torn").expect("written");
    Store::open(dir.path(), &options()).expect("created").close().expect("closed");
    Store::open(dir.path(), &options().create(false)).expect("opened");
}

#[test]
fn of_many_that_create_a_store_at_once_each_gets_the_one_that_is_there() {
    for round in 0..30 {
        let dir = temp_dir("at-once");
        let options = || {
            let log = Options::new().segment_len(1 << 20).ring_len(1 << 20);
            StoreOptions::new().log(log.lock_timeout(Duration::from_secs(20)))
        };
        std::thread::scope(|scope| {
            for id in 1..=THREADS {
                let (dir, options) = (&dir, &options);
                scope.spawn(move || {
                    let store = Store::open(dir.path(), &options()).expect("opened");
                    store.at(Level::Relaxed).put(&token(id, 1.0)).expect("put");
                    store.checkpoint().expect("taken");
                    store.close().expect("closed");
                });
            }
        });
        let store = Store::open(dir.path(), &options()).expect("opened");
        assert_eq!(store.len(), THREADS as usize, "round {round}");
    }
}
