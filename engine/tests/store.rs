//! The store on real files: what was acknowledged is there after reopening.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use bulla_engine::entries::{Change, EntryError};
use bulla_engine::{Batch, Error, Level, Store, StoreInspection, StoreOptions, Token, TokenId};
use bulla_wal::{Log, Options};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bulla-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options() -> StoreOptions {
    StoreOptions::new().log(Options::new().segment_len(1 << 20).ring_len(1 << 20))
}

fn token(id: u32, weight: f32) -> Token {
    Token::builder(TokenId(id)).weight(weight).build().expect("valid")
}

#[test]
fn reopened_store_holds_what_was_put_and_not_what_was_deleted() {
    let dir = Dir::new("reopen");
    let store = Store::open(&dir.0, &options()).expect("created");
    assert!(store.recovered().is_none());
    store.put(&token(1, 1.0)).expect("put");
    store.put_with(&token(2, 2.0), Level::Strict).expect("put");
    let receipt = store.put_async(&token(1, 1.5), Level::Relaxed).expect("put");
    store.wait(receipt).expect("ready");
    assert!(store.delete(TokenId(2)).expect("delete"));
    assert!(!store.delete(TokenId(2)).expect("nothing there"));
    store.close().expect("closed");

    let snapshot = StoreInspection::read(&dir.0, &Options::new()).expect("readable");
    assert_eq!(snapshot.iter().copied().collect::<Vec<_>>(), [token(1, 1.5)]);
    let store = Store::open(&dir.0, &options()).expect("opened");
    assert_eq!(store.recovered().expect("recovered").entries, 4);
    assert_eq!(store.iter().collect::<Vec<_>>(), [token(1, 1.5)]);
    assert_eq!(store.get(TokenId(2)), None);
}

#[test]
fn batch_is_applied_in_order_and_survives_whole() {
    let dir = Dir::new("batch");
    let store = Store::open(&dir.0, &options()).expect("created");
    let mut batch = Batch::new();
    batch.put(&token(1, 1.0)).put(&token(2, 2.0));
    batch.delete(TokenId(1)).expect("id").put(&token(3, 3.0));
    batch.extend([Change::Put(token(4, 4.0)), Change::Delete(TokenId(3))]);
    assert_eq!(batch.len(), 6);
    store.apply_with(&batch, Level::Strict).expect("applied");
    let expected = [token(2, 2.0), token(4, 4.0)];
    assert_eq!(store.iter().collect::<Vec<_>>(), expected);
    assert!(matches!(store.apply(&Batch::new()), Err(Error::Log(bulla_wal::Error::EmptyBatch))));
    drop(store);
    let store = Store::open(&dir.0, &options()).expect("opened");
    assert_eq!(store.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn log_order_is_the_order_of_the_table() {
    let dir = Dir::new("order");
    let store = Store::open(&dir.0, &options()).expect("created");
    std::thread::scope(|scope| {
        for client in 0_u8..4 {
            let store = &store;
            scope.spawn(move || {
                for step in 0_u8..50 {
                    let weight = f32::from(client) * 20.0 + f32::from(step) / 10.0;
                    store
                        .put_with(&token(u32::from(step % 5) + 1, weight), Level::Relaxed)
                        .expect("put");
                }
            });
        }
    });
    let before: Vec<_> = store.iter().collect();
    store.close().expect("closed");
    let store = Store::open(&dir.0, &options()).expect("opened");
    assert_eq!(store.iter().collect::<Vec<_>>(), before);
}

#[test]
fn iteration_goes_through_all_pages() {
    let dir = Dir::new("pages");
    let store = Store::open(&dir.0, &options()).expect("created");
    for id in 1..=200 {
        store.put_with(&token(id, 0.0), Level::Relaxed).expect("put");
    }
    let ids: Vec<_> = store.iter().map(|token| token.id().0).collect();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    assert_eq!((store.len(), store.stats().token_bytes), (200, 12_800));
}

#[test]
fn log_of_something_else_is_refused_by_name() {
    let dir = Dir::new("foreign");
    let log = Log::create(&dir.0, &Options::new().segment_len(1 << 20)).expect("created");
    log.append(b"a line").expect("appended");
    log.close().expect("closed");
    let refused = Store::open(&dir.0, &options()).expect_err("no tokens");
    assert!(matches!(refused, Error::Entry { source: EntryError::Kind(0), .. }), "{refused}");
    let refused = Store::open(&dir.0.join("none"), &options().create(false));
    assert!(matches!(refused, Err(Error::Recovery(_))));
}

/// What an executor does that runs a task where it is woken.
struct Inline<F>(F);

impl<F: Fn() + Send + Sync> Wake for Inline<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn waker_may_read_the_store() {
    let dir = Dir::new("waker");
    // A small ring: who puts waits for room, and so finds tasks ready.
    let log = Options::new().segment_len(1 << 20).ring_len(16 * 1024);
    let store = Arc::new(Store::open(&dir.0, &StoreOptions::new().log(log)).expect("created"));
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        for round in 0..100 {
            let receipt = store.put_async(&token(1, 1.0), Level::Strict).expect("put");
            let mut future = Box::pin(store.ready(receipt));
            let twin = Arc::clone(&store);
            let waker =
                Waker::from(Arc::new(Inline(move || assert!(twin.get(TokenId(1)).is_some()))));
            let _ = future.as_mut().poll(&mut Context::from_waker(&waker));
            for id in 1..300 {
                store.put_async(&token(id, 1.0), Level::Relaxed).expect("put");
            }
            done.send(round).expect("heard");
        }
    });
    for round in 0..100 {
        let heard = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(heard, Ok(round), "the store hangs");
    }
}
