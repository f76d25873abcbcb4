//! The store on real files: what was acknowledged is there after reopening.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use bulla_engine::entries::{EntryError, Mutation, PUT};
use bulla_engine::{
    Batch, Error, Level, RECORD_LEN, Record, Store, StoreInspection, StoreOptions, Token, TokenId,
};
use bulla_wal::{Log, Lsn, Options, Overflow};
use tempfile::TempDir;

use crate::common::{options, temp_dir, token};
use crate::numbers::Numbers;

#[test]
fn reopened_store_holds_what_was_put_and_not_what_was_deleted() {
    let dir = temp_dir("reopen");
    let store = Store::open(dir.path(), &options()).expect("created");
    assert!(store.recovered().is_none());
    store.put(&token(1, 1.0)).expect("put");
    store.at(Level::Strict).put(&token(2, 2.0)).expect("put");
    let receipt = store.at(Level::Relaxed).begin().put(&token(1, 1.5)).expect("put");
    store.wait(receipt).expect("ready");
    assert!(store.delete(TokenId(2)).expect("delete"));
    assert!(!store.delete(TokenId(2)).expect("nothing there"));
    store.close().expect("closed");

    let inspection = StoreInspection::read(dir.path(), &Options::new()).expect("readable");
    assert_eq!(inspection.iter().collect::<Vec<_>>(), [token(1, 1.5)]);
    assert_eq!((inspection.len(), inspection.is_empty()), (1, false));
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.recovered().expect("recovered").entries, 4);
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), [token(1, 1.5)]);
    assert_eq!(store.get(TokenId(2)).expect("read"), None);
}

#[test]
fn batch_is_applied_in_order_and_survives_whole() {
    let dir = temp_dir("batch");
    let store = Store::open(dir.path(), &options()).expect("created");
    let mut batch = Batch::new();
    batch.put(&token(1, 1.0)).put(&token(2, 2.0));
    batch.delete(TokenId(1)).expect("id").put(&token(3, 3.0));
    batch.extend([Mutation::Put(token(4, 4.0)), Mutation::Delete(TokenId(3))]);
    assert_eq!(batch.len(), 6);
    store.at(Level::Strict).apply(&batch).expect("applied");
    let expected = [token(2, 2.0), token(4, 4.0)];
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), expected);
    assert!(matches!(store.apply(&Batch::new()), Err(Error::Log(bulla_wal::Error::EmptyBatch))));
    assert!(store.delete(TokenId(2)).expect("deleted"));
    batch.clear();
    batch.put(&token(2, 2.0));
    assert_eq!(batch.len(), 1);
    let entries = store.stats().log.entries;
    store.at(Level::Strict).apply(&batch).expect("nothing of before");
    assert_eq!(store.stats().log.entries, entries + 1);
    drop(store);
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), expected);
}

#[test]
fn log_order_is_the_order_of_the_table() {
    let dir = temp_dir("order");
    let store = Store::open(dir.path(), &options()).expect("created");
    std::thread::scope(|scope| {
        for client in 0_u8..4 {
            let store = &store;
            scope.spawn(move || {
                for step in 0_u8..50 {
                    let weight = f32::from(client) * 20.0 + f32::from(step) / 10.0;
                    store
                        .at(Level::Relaxed)
                        .put(&token(u32::from(step % 5) + 1, weight))
                        .expect("put");
                }
            });
        }
    });
    let before: Vec<_> = store.iter().expect("read").collect();
    store.close().expect("closed");
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), before);
}

#[test]
fn iteration_goes_through_all_pages() {
    let dir = temp_dir("pages");
    let store = Store::open(dir.path(), &options()).expect("created");
    for id in 1..=200 {
        store.at(Level::Relaxed).put(&token(id, 0.0)).expect("put");
    }
    let ids: Vec<_> = store.iter().expect("read").map(|token| token.id().0).collect();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    assert_eq!((store.len(), store.stats().token_bytes), (200, 12_800));
}

#[test]
fn entry_that_is_no_change_of_records_is_refused_by_name() {
    // A kind of no change, and a token whose weight is no number.
    let (line, record) = ((0, &b"a line"[..]), (PUT, &[0xFF; RECORD_LEN][..]));
    for (entry, of_record) in [(line, false), (record, true)] {
        let dir = temp_dir("foreign");
        Store::open(dir.path(), &options()).expect("created").close().expect("closed");
        let (log, _) = Log::open(dir.path(), &Options::new().any_content()).expect("as any log");
        let _ = log.append_with(entry.0, entry.1, Level::Relaxed).expect("appended");
        log.close().expect("closed");
        let refused = Store::open(dir.path(), &options()).expect_err("no tokens");
        let fits = match &refused {
            Error::Entry { source: EntryError::Kind(0), .. } => !of_record,
            Error::Entry { source: EntryError::Record { .. }, .. } => of_record,
            _ => false,
        };
        assert!(fits, "{refused:?}");
    }
    let dir = temp_dir("not-there");
    let refused = Store::open(dir.path().join("none"), &options().create(false));
    assert!(matches!(refused, Err(Error::Log(_))));
}

#[test]
fn record_too_far_ahead_of_the_clock_is_refused_and_changes_nothing() {
    let dir = temp_dir("ahead");
    let store =
        Store::open(dir.path(), &options().max_ahead(Duration::from_secs(60))).expect("created");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after");
    let now = u32::try_from(now.as_secs()).expect("before 2106");
    let at = |seconds| token(1, 1.0).to_builder().timestamp(seconds).build().expect("valid");
    assert!(matches!(store.put(&at(now + 120)), Err(Error::TooFarAhead { .. })));
    let mut batch = Batch::new();
    batch.put(&token(2, 1.0)).put(&at(u32::MAX));
    assert!(matches!(store.apply(&batch), Err(Error::TooFarAhead { .. })));
    assert!(store.is_empty() && store.stats().log.entries == 0);
    store.put(&at(now + 30)).expect("near enough");
    drop(store);
    let hour = 60 * 60;
    let store = Store::open(dir.path(), &options()).expect("opened");
    store.put(&at(now + 23 * hour)).expect("within the day that is the default");
    assert!(matches!(store.put(&at(now + 25 * hour)), Err(Error::TooFarAhead { .. })));
}

#[test]
fn each_operation_changes_only_what_it_expects_to_find() {
    let dir = temp_dir("operations");
    let store = Store::open(dir.path(), &options()).expect("created");
    let id = TokenId(7);
    store.create(&token(7, 1.0)).expect("created");
    assert!(matches!(store.create(&token(7, 2.0)), Err(Error::Exists { id: 7 })));
    assert!(!store.compare_and_swap(&token(7, 9.0), &token(7, 2.0)).expect("compared"));
    assert!(store.compare_and_swap(&token(7, 1.0), &token(7, 2.0)).expect("compared"));
    let swapped = store.compare_and_swap(&token(7, 2.0), &token(8, 2.0));
    assert!(matches!(swapped, Err(Error::OtherId { id: 7, other: 8 })));
    let updated = store
        .update(id, |token| Ok(token.to_builder().weight(token.weight() + 1.0).build()?))
        .expect("updated");
    assert_eq!(updated, Some(token(7, 3.0)));
    assert!(matches!(store.update(id, |_| Err("no".into())), Err(Error::Update(_))));
    assert!(matches!(store.update(id, |_| Ok(token(8, 0.0))), Err(Error::OtherId { .. })));
    assert_eq!(store.update(TokenId(9), Ok).expect("looked"), None);
    assert_eq!(store.get_many(&[TokenId(9), id]).expect("read"), [None, Some(token(7, 3.0))]);
    assert_eq!(store.stats().log.entries, 3, "refusals are not logged");
}

#[test]
fn update_that_panics_changes_nothing_and_locks_nothing() {
    let dir = temp_dir("panic");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.put(&token(1, 1.0)).expect("put");
    let update = || store.update(TokenId(1), |_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(update)).is_err());
    assert_eq!(store.get(TokenId(1)).expect("read"), Some(token(1, 1.0)));
    store.put(&token(1, 2.0)).expect("the page is free");
}

#[test]
fn write_that_finds_no_room_in_the_ring_changes_nothing_and_leaves_its_page_free() {
    let dir = temp_dir("no-room");
    // Nobody writes the ring out, and no append waits for it.
    let log = Options::new().ring_len(1 << 16).overflow(Overflow::Full).manual();
    let store = Store::open(dir.path(), &options().log(log)).expect("created");
    let mut last = 0_u16;
    let refused = loop {
        match store.at(Level::Relaxed).put(&token(1, f32::from(last + 1) / 100.0)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Log(bulla_wal::Error::Full)), "{refused}");
    let kept = token(1, f32::from(last) / 100.0);
    assert_eq!(
        store.get_many(&[TokenId(1), TokenId(2)]).expect("read"),
        [Some(kept), None],
        "takes the lock"
    );
    for id in [2, 100] {
        let refused = store.at(Level::Relaxed).put(&token(id, 1.0));
        assert!(refused.is_err(), "still no room for {id}");
    }
    assert_eq!((store.len(), store.stats().quota.bytes), (1, 4096));
    store.sync().expect("synced");
    store.at(Level::Relaxed).put(&token(2, 1.0)).expect("there is room");
}

#[test]
fn record_stays_until_it_is_due_and_its_deletion_is_logged() {
    let dir = temp_dir("ttl");
    let store = Store::open(dir.path(), &options()).expect("created");
    let hour = Duration::from_secs(3_600);
    store.put_for(&token(1, 1.0), Duration::ZERO).expect("put");
    store.put_for(&token(2, 1.0), Duration::ZERO).expect("put");
    store.put_for(&token(3, 1.0), hour).expect("put");
    store.put(&token(2, 2.0)).expect("put: never expires");
    store.put(&token(4, 1.0)).expect("put");
    assert!(store.expire_in(TokenId(4), Some(hour)).expect("told"));
    assert!(store.expire_in(TokenId(4), None).expect("told"));
    assert!(!store.expire_in(TokenId(5), None).expect("there is none"));
    // A clock of whole ms may not have moved on.
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(
        store.get(TokenId(1)).expect("read"),
        Some(token(1, 1.0)),
        "a read looks at no clock"
    );
    let expiry = store.expires_at(TokenId(3)).expect("read");
    assert!(expiry.is_some() && store.expires_at(TokenId(4)).expect("read").is_none());
    assert_eq!(store.expire_due(10).expect("expired"), 1);
    assert_eq!(store.stats().quota.expired, 1);
    let kept = [token(2, 2.0), token(3, 1.0), token(4, 1.0)];
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), kept);
    store.close().expect("closed");
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), kept);
    assert_eq!(store.expires_at(TokenId(3)).expect("read"), expiry);
    assert_eq!(store.expire_due(10).expect("none is due"), 0);
}

#[test]
fn read_names_the_position_after_which_it_is_durable() {
    let dir = temp_dir("lsn");
    let store = Store::open(dir.path(), &options()).expect("created");
    assert_eq!(store.get_with_lsn(TokenId(1)).expect("read"), (None, Lsn::ZERO));
    store.wait_for(Lsn::ZERO, Level::Strict).expect("nothing to wait for");
    let receipt = store.at(Level::Relaxed).begin().put(&token(1, 1.0)).expect("put");
    let (found, lsn) = store.get_with_lsn(TokenId(1)).expect("read");
    assert_eq!((found, lsn), (Some(token(1, 1.0)), receipt.lsn));
    store.wait_for(lsn, Level::Strict).expect("durable");
    assert!(store.stats().log.durable_operations() > 0);
}

#[test]
fn scan_finds_in_order_what_fits_by_any_number_of_threads() {
    let dir = temp_dir("scan");
    let store = Store::open(dir.path(), &options()).expect("created");
    let ids: Vec<u32> = (0..40).map(|slab| slab * 100_000 + 1 + slab % 3).collect();
    for id in &ids {
        store.at(Level::Relaxed).put(&token(*id, (id % 2) as f32)).expect("put");
    }
    let odd: Vec<_> = ids.iter().filter(|id| *id % 2 == 1).copied().collect();
    for threads in [0, 1, 3, 1_000] {
        let found = store.scan(threads, |token| token.weight() > 0.5).expect("read");
        assert_eq!(found.iter().map(|token| token.id().0).collect::<Vec<_>>(), odd);
        assert_eq!(
            store.count(threads, |token| token.weight() > 0.5).expect("read"),
            odd.len() as u64
        );
    }
}

#[test]
fn any_record_of_64_bytes_is_stored_but_for_id_0() {
    let dir = temp_dir("records");
    let store = Store::<Numbers>::open_records(dir.path(), &options()).expect("created");
    let record = Numbers([0xFF; RECORD_LEN]);
    store.put(&record).expect("put: the highest id");
    assert!(matches!(store.put(&Numbers([0; RECORD_LEN])), Err(Error::ZeroId)));
    store.close().expect("closed");
    let inspection = StoreInspection::<Numbers>::read_records(dir.path(), &Options::new());
    assert_eq!(inspection.expect("readable").get(u32::MAX), Some(record));
}

#[test]
fn store_that_is_shut_down_refuses_writes_and_still_reads() {
    let dir = temp_dir("shut-down");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
    let syncs = store.stats().log.durable_operations();
    store.shut_down().expect("shut down");
    assert!(store.stats().log.durable_operations() > syncs, "the put is durable");
    store.shut_down().expect("again");
    let mut batch = Batch::new();
    batch.put(&token(2, 1.0));
    for refused in [
        store.put(&token(2, 1.0)),
        store.create(&token(2, 1.0)),
        store.apply(&batch),
        store.delete(TokenId(1)).map(drop),
        store.expire_in(TokenId(1), None).map(drop),
        store.update(TokenId(1), Ok).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    assert_eq!(store.get(TokenId(1)).expect("read"), Some(token(1, 1.0)));
    store.close().expect("closed");
    let store = Store::open(dir.path(), &options()).expect("opened");
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), [token(1, 1.0)]);
}

#[test]
fn every_write_is_there_at_a_level_and_waits_for_it() {
    let dir = temp_dir("level");
    let store = Store::open(dir.path(), &options()).expect("created");
    let strict = store.at(Level::Strict);
    let mut syncs = store.stats().log.durable_operations();
    let mut is_durable = || {
        let before = std::mem::replace(&mut syncs, store.stats().log.durable_operations());
        assert!(syncs > before, "it returned before it was durable");
    };
    strict.create(&token(1, 1.0)).expect("created");
    is_durable();
    assert!(matches!(strict.create(&token(1, 2.0)), Err(Error::Exists { id: 1 })));
    strict.put_for(&token(2, 1.0), Duration::from_secs(60)).expect("put");
    is_durable();
    assert!(store.expires_at(TokenId(2)).expect("read").is_some());
    assert!(strict.expire_in(TokenId(2), None).expect("set"));
    is_durable();
    assert_eq!(store.expires_at(TokenId(2)).expect("read"), None);
    assert!(!strict.expire_in(TokenId(3), None).expect("nothing there"));
    let updated = strict.update(TokenId(1), |was| Ok(was.to_builder().weight(3.0).build()?));
    assert_eq!(updated.expect("updated"), Some(token(1, 3.0)));
    is_durable();
    assert!(strict.compare_and_swap(&token(1, 3.0), &token(1, 4.0)).expect("swapped"));
    is_durable();
    assert!(!strict.compare_and_swap(&token(1, 3.0), &token(1, 5.0)).expect("another is there"));
    assert!(strict.delete(TokenId(1)).expect("deleted"));
    is_durable();
    assert!(!strict.delete(TokenId(1)).expect("nothing there"));
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
    let dir = temp_dir("waker");
    // A small ring: who puts waits for room, and so finds tasks ready.
    let log = Options::new().segment_len(1 << 20).ring_len(16 * 1024);
    let store = Arc::new(Store::open(dir.path(), &StoreOptions::new().log(log)).expect("created"));
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        for round in 0..100 {
            let receipt = store.at(Level::Strict).begin().put(&token(1, 1.0)).expect("put");
            let mut future = Box::pin(store.ready(receipt));
            let twin = Arc::clone(&store);
            let waker = Waker::from(Arc::new(Inline(move || {
                assert!(matches!(twin.get(TokenId(1)), Ok(Some(_))));
            })));
            let _ = future.as_mut().poll(&mut Context::from_waker(&waker));
            for id in 1..300 {
                let _ = store.at(Level::Relaxed).begin().put(&token(id, 1.0)).expect("put");
            }
            done.send(round).expect("heard");
        }
    });
    for round in 0..100 {
        let heard = ended.recv_timeout(Duration::from_secs(20));
        assert_eq!(heard, Ok(round), "the store hangs");
    }
}

/// Declares a record type of nothing but numbers.
macro_rules! record {
    ($name:ident, $text:literal, $version:literal, $schema:literal) => {
        #[derive(Clone, Copy, PartialEq, Debug)]
        struct $name(Numbers);

        impl Record for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = $version;
            const SCHEMA: &'static str = $schema;
            type Id = u32;
            type Invalid = std::convert::Infallible;

            fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
                Numbers::from_bytes(bytes).map(Self)
            }

            fn as_bytes(&self) -> &[u8; RECORD_LEN] {
                self.0.as_bytes()
            }

            fn id(&self) -> u32 {
                self.0.id()
            }
        }
    };
}

record!(Older, "numbers", 1, "sixteen numbers");
record!(Newer, "numbers", 2, "sixteen numbers");
record!(Changed, "numbers", 1, "eight numbers and eight more");
record!(Other, "others", 1, "sixteen numbers");

/// What a refusal says of a store that holds `found` and is opened as one of `R`.
fn refused<R: Record>(dir: &TempDir, found: &str) {
    let expects = |error: &Error| match error {
        Error::Log(bulla_wal::Error::OtherContent { found: other, expected, .. }) => {
            other.to_string() == found && expected.name() == R::NAME
        }
        _ => false,
    };
    let opened = Store::<R>::open_records(dir.path(), &options()).expect_err("another type");
    assert!(expects(&opened), "{opened:?}");
    let log = Options::new();
    let read = StoreInspection::<R>::read_records(dir.path(), &log).expect_err("another type");
    assert!(expects(&read), "{read:?}");
}

#[test]
fn store_is_opened_as_what_it_holds_and_as_nothing_else() {
    let dir = temp_dir("other-types");
    let store = Store::<Older>::open_records(dir.path(), &options()).expect("created");
    for id in 1_u8..=9 {
        store.put(&Older(Numbers([id; RECORD_LEN]))).expect("put");
    }
    store.checkpoint().expect("taken");
    store.close().expect("closed");

    let schema = format!("{:08x}", crc32fast::hash(b"sixteen numbers"));
    let found = format!("records of numbers version 1 (schema {schema})");
    refused::<Newer>(&dir, &found);
    refused::<Changed>(&dir, &found);
    refused::<Other>(&dir, &found);
    refused::<Token>(&dir, &found);
    let log = Log::open(dir.path(), &Options::new());
    let error = log.expect_err("a store is no log of plain entries").to_string();
    assert!(error.contains(&found) && error.contains("plain entries"), "{error}");
    let store = Store::<Older>::open_records(dir.path(), &options()).expect("as what it is");
    assert_eq!((store.len(), store.recovered().map(|report| report.epoch.0)), (9, Some(2)));
}

#[test]
fn log_of_plain_entries_is_no_store() {
    let dir = temp_dir("plain-log");
    let (log, report) = Log::open(dir.path(), &Options::new()).expect("new");
    assert_eq!(report.content, bulla_wal::format::Content::PLAIN);
    log.close().expect("closed");
    refused::<Token>(&dir, "plain entries");
    let options = Options::new().any_content();
    let (log, _) = Log::open(dir.path(), &options).expect("as any log");
    log.close().expect("closed");
}
