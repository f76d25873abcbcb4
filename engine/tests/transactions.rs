//! Transactions: what they read and change is as of one moment, whatever other threads do; and
//! updates with an error type of the caller's.

use std::sync::atomic::{AtomicU32, Ordering};

use bulla_engine::{Error, Level, Snapshot, Store, StoreOptions, Token, TokenId};
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
    Store::open(dir.path(), &options()).expect("created").close().expect("closed");
    Store::open(dir.path(), &options().create(false)).expect("opened");
}
