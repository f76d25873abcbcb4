//! The quota: never exceeded, exact under threads, and what is reclaimed to keep it.

use std::time::Duration;

use bulla_engine::{
    Batch, Error, Flags, Level, OnExceed, Pressure, Quota, RECORD_LEN, Resource, Store, Token,
    TokenId,
};
use tempfile::TempDir;

use crate::common::{options, temp_dir, token};
use crate::numbers::Numbers;

fn open(dir: &TempDir, quota: Quota) -> Store {
    Store::open(dir.path(), &options().quota(quota)).expect("opened")
}

fn put(store: &Store, token: &Token) -> Result<(), Error> {
    store.at(Level::Relaxed).put(token)
}

fn ids(store: &Store) -> Vec<u32> {
    store.iter().expect("read").map(|token| token.id().0).collect()
}

#[test]
fn write_that_exceeds_the_quota_is_refused_by_name_and_changes_nothing() {
    let dir = temp_dir("quota-reject");
    let store = open(&dir, Quota::new().max_records(3).max_bytes(2 * 4096 + 4095));
    for id in [1, 2] {
        put(&store, &token(id, 1.0)).expect("fits");
    }
    put(&store, &token(1, 2.0)).expect("a replacement adds nothing");
    let mut batch = Batch::new();
    batch.put(&token(3, 1.0)).put(&token(4, 1.0));
    let Err(Error::Quota(error)) = store.apply(&batch) else { panic!("4 of 3 records") };
    assert_eq!((error.resource, error.used, error.max, error.wanted), (Resource::Records, 2, 3, 2));
    batch.delete(TokenId(1)).expect("an id");
    store.apply(&batch).expect("what it deletes counts");
    assert_eq!(ids(&store), [2, 3, 4]);
    assert!(store.delete(TokenId(4)).expect("deleted"));
    put(&store, &token(1_000, 1.0)).expect("the second page");
    assert!(store.delete(TokenId(3)).expect("deleted"));
    let Err(Error::Quota(error)) = put(&store, &token(2_000, 1.0)) else { panic!("3 of 2 pages") };
    assert_eq!((error.resource, error.used, error.wanted), (Resource::Bytes, 8192, 4096));
    assert!(store.delete(TokenId(1_000)).expect("deleted"));
    put(&store, &token(2_000, 1.0)).expect("an empty page counts no more");
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.bytes, quota.rejected), (2, 8192, 2));
    assert_eq!((quota.records_high, quota.bytes_high), (3, 8192));
}

#[test]
fn store_that_holds_more_than_its_quota_opens_and_takes_no_more() {
    let dir = temp_dir("quota-lowered");
    let store = open(&dir, Quota::new());
    for id in 1..=10 {
        put(&store, &token(id, 1.0)).expect("fits");
    }
    store.close().expect("closed");
    let store = open(&dir, Quota::new().max_records(5));
    assert_eq!((store.len(), store.stats().quota.pressure), (10, Pressure::Cleanup));
    put(&store, &token(1, 2.0)).expect("a replacement adds nothing");
    assert!(matches!(put(&store, &token(11, 1.0)), Err(Error::Quota(_))));
}

#[test]
fn store_above_its_quota_makes_way_in_one_write_without_recursion() {
    let dir = temp_dir("quota-lowered-reclaims");
    let many = 20_000;
    let store = open(&dir, Quota::new());
    for id in 1..=many {
        put(&store, &token(id, (id % 90) as f32)).expect("fits");
    }
    store.close().expect("closed");
    let store = open(&dir, Quota::new().max_records(100).on_exceed(OnExceed::Evict));
    put(&store, &token(many, 0.5)).expect("a replacement adds nothing");
    let after_one = store.stats().quota;
    assert!((1..=64).contains(&after_one.evicted), "a few make way: {after_one:?}");
    put(&store, &token(many + 1, 1.0)).expect("all that is too much makes way");
    let quota = store.stats().quota;
    assert!(quota.records <= 100 && quota.rejected == 0, "{quota:?}");
    assert_eq!(quota.evicted + quota.records, u64::from(many) + 1);
}

#[test]
fn expiring_deletes_no_more_than_it_was_told_to_in_a_full_store() {
    let dir = temp_dir("quota-lowered-expires");
    let store = open(&dir, Quota::new());
    for id in 1..=1_000 {
        store.put_for(&token(id, 1.0), Duration::ZERO).expect("fits");
    }
    store.close().expect("closed");
    std::thread::sleep(Duration::from_millis(2));
    let store = open(&dir, Quota::new().max_records(10).on_exceed(OnExceed::Evict));
    assert_eq!(store.expire_due(7).expect("expired"), 7);
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.expired, quota.evicted), (993, 7, 0));
}

#[test]
fn pressure_follows_the_thresholds() {
    let dir = temp_dir("quota-pressure");
    let store = open(&dir, Quota::new().max_records(10).warn_at(0.5).clean_at(0.8));
    let mut seen = Vec::new();
    for id in 1..=10 {
        put(&store, &token(id, 1.0)).expect("fits");
        seen.push(store.stats().quota.pressure);
    }
    let expected = [(5, Pressure::Normal), (3, Pressure::Warning), (2, Pressure::Cleanup)];
    let expected: Vec<_> =
        expected.iter().flat_map(|(count, one)| std::iter::repeat_n(*one, *count)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn quota_is_never_exceeded_and_fully_used_by_many_threads() {
    let dir = temp_dir("quota-threads");
    let quota = Quota::new().max_records(1_000).max_bytes(40 * 4096);
    let store = open(&dir, quota);
    let made: usize = std::thread::scope(|scope| {
        let put_all = |thread: u32| {
            // Dense ids, so that both limits are met, and threads meet on pages.
            let mine = (0..800).map(|index| index * 4 + thread + 1);
            mine.filter(|id| put(&store, &token(*id, 1.0)).is_ok()).count()
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || put_all(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    let quota = store.stats().quota;
    assert_eq!((made, store.iter().expect("read").count(), quota.records), (1_000, 1_000, 1_000));
    assert_eq!((quota.records_high, quota.rejected), (1_000, 2_200));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for token in store.iter().expect("read").filter(|token| token.id().0 % 4 == thread)
                {
                    store.at(Level::Relaxed).delete(token.id()).expect("deleted");
                }
            });
        }
    });
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.bytes), (0, 0));
}

#[test]
fn expired_go_first_then_the_lightest_then_the_oldest_and_never_the_persistent() {
    let dir = temp_dir("quota-order");
    let quota = Quota::new().max_records(4).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    let at = |id, weight: f32, flags, seconds| {
        let token = Token::builder(TokenId(id)).weight(weight).flags(flags).timestamp(seconds);
        token.build().expect("valid")
    };
    put(&store, &at(1, 0.0, Flags::PERSISTENT, 0)).expect("fits");
    put(&store, &at(2, 2.0, Flags::empty(), 20)).expect("fits");
    put(&store, &at(3, 2.0, Flags::empty(), 10)).expect("fits");
    store.put_for(&at(4, 50.0, Flags::empty(), 30), Duration::ZERO).expect("fits");
    std::thread::sleep(Duration::from_millis(2));
    put(&store, &at(5, 1.0, Flags::empty(), 40)).expect("4 has expired");
    assert_eq!(ids(&store), [1, 2, 3, 5]);
    put(&store, &at(6, 9.0, Flags::PERSISTENT, 50)).expect("5 is lightest");
    assert_eq!(ids(&store), [1, 2, 3, 6]);
    put(&store, &at(7, 9.0, Flags::PERSISTENT, 50)).expect("3 is older than 2");
    assert_eq!(ids(&store), [1, 2, 6, 7]);
    put(&store, &at(8, 9.0, Flags::PERSISTENT, 50)).expect("2 is the last that may go");
    assert!(matches!(put(&store, &at(9, 99.0, Flags::empty(), 60)), Err(Error::Quota(_))));
    let before: Vec<_> = store.iter().expect("read").collect();
    assert_eq!(before.iter().map(|token| token.id().0).collect::<Vec<_>>(), [1, 6, 7, 8]);
    let quota = store.stats().quota;
    assert_eq!((quota.evicted, quota.rejected), (4, 1));
    store.close().expect("closed");
    // Replay runs no policy: a store with room for everything comes to the same.
    let store = open(&dir, Quota::new());
    assert_eq!(store.iter().expect("read").collect::<Vec<_>>(), before);
}

#[test]
fn reclaiming_for_bytes_frees_whole_pages() {
    let dir = temp_dir("quota-bytes");
    let quota = Quota::new().max_bytes(4 * 4096).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    // Pages 0 to 3, of 10 records each; of those without a persistent one page 2 is worth least.
    for (page, weight) in [(0, 5.0), (1, 7.0), (2, 3.0), (3, 1.0)] {
        for index in 1..=10 {
            put(&store, &token(page * 64 + index, weight)).expect("fits");
        }
    }
    let persistent = token(3 * 64 + 1, 1.0).to_builder().flags(Flags::PERSISTENT).build();
    put(&store, &persistent.expect("valid")).expect("fits");
    put(&store, &token(400, 1.0)).expect("a page makes way");
    let quota = store.stats().quota;
    assert_eq!((quota.bytes, quota.evicted, quota.records), (4 * 4096, 10, 31));
    assert!(!ids(&store).iter().any(|id| id / 64 == 2));
}

#[test]
fn store_that_found_nothing_to_reclaim_looks_again_after_a_while() {
    let dir = temp_dir("quota-rest");
    let quota = Quota::new().max_records(10).clean_at(0.5).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    for id in 1..=6 {
        let persistent = token(id, 1.0).to_builder().flags(Flags::PERSISTENT).build();
        put(&store, &persistent.expect("valid")).expect("fits");
    }
    let persistent = store.get(TokenId(1)).expect("read").expect("there");
    put(&store, &token(7, 1.0)).expect("fits");
    for _ in 0..900 {
        put(&store, &persistent).expect("a replacement");
    }
    assert_eq!(store.len(), 7, "a look at each write would cost too much");
    for _ in 0..200 {
        put(&store, &persistent).expect("a replacement");
    }
    assert_eq!(ids(&store), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn records_that_say_nothing_of_their_worth_may_all_go() {
    let dir = temp_dir("quota-plain");
    let quota = Quota::new().max_records(2).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store =
        Store::<Numbers>::open_records(dir.path(), &options().quota(quota)).expect("opened");
    for id in 1_u8..=9 {
        store.at(Level::Relaxed).put(&Numbers([id; RECORD_LEN])).expect("another makes way");
    }
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.evicted, quota.rejected), (2, 7, 0));
}

#[test]
fn no_write_is_refused_while_anything_may_go_whichever_thread_takes_it() {
    let dir = temp_dir("reclaim-threads");
    let quota = Quota::new().max_records(16).on_exceed(OnExceed::Evict);
    let store = Store::open(dir.path(), &options().quota(quota)).expect("created");
    let writers = 4;
    std::thread::scope(|scope| {
        for client in 0..writers {
            let store = &store;
            scope.spawn(move || {
                for number in 0..3_000 {
                    let id = 1 + (number * writers + client) % 640;
                    store.at(Level::Relaxed).put(&token(id, (number % 90) as f32)).expect("put");
                }
            });
        }
    });
    let stats = store.stats().quota;
    assert_eq!((stats.rejected, stats.records_high <= 16), (0, true), "{stats:?}");
    assert!(stats.evicted > 1_000, "{stats:?}");
}

fn batch_of(ids: impl IntoIterator<Item = u32>) -> Batch {
    let mut batch = Batch::new();
    for id in ids {
        batch.put(&token(id, 1.0));
    }
    batch
}

fn fill(store: &Store, ids: impl IntoIterator<Item = u32>, flags: Flags) {
    for id in ids {
        let token = token(id, 1.0).to_builder().flags(flags).build().expect("valid");
        put(store, &token).expect("fits");
    }
}

#[test]
fn batch_that_cannot_fit_is_refused_before_anything_goes() {
    let dir = temp_dir("quota-batch-refused");
    let quota = Quota::new().max_records(10_000).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    fill(&store, 1..=9_000, Flags::empty());
    let refused = store.apply(&batch_of(20_001..=35_000));
    assert!(matches!(refused, Err(Error::Quota(_))), "more than the store may hold: {refused:?}");
    let refused = store.apply(&batch_of(20_001..=26_000));
    let is_too_large = matches!(&refused, Err(Error::Log(bulla_wal::Error::TooLarge { .. })));
    assert!(is_too_large, "more than a frame may hold: {refused:?}");
    let snapshot = store.snapshot().expect("a snapshot");
    fill(&store, 1..=64, Flags::PERSISTENT);
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.evicted, quota.rejected), (9_000, 0, 1));
    assert_eq!(snapshot.get(TokenId(1)).expect("read"), Some(token(1, 1.0)));
}

#[test]
fn batch_evicts_just_what_it_needs_and_nothing_that_it_puts() {
    let dir = temp_dir("quota-batch-evicts");
    let quota = Quota::new().max_records(100).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    fill(&store, 1..=80, Flags::PERSISTENT);
    fill(&store, 81..=100, Flags::empty());
    for refused in [batch_of(201..=221), batch_of((81..=99).chain(201..=202))] {
        let refused = store.apply(&refused);
        assert!(matches!(refused, Err(Error::Quota(_))), "20 of 100 may go: {refused:?}");
        assert_eq!(store.stats().quota.evicted, 0);
    }
    store.apply(&batch_of((81..=99).chain([201]))).expect("100 makes way");
    let expected: Vec<_> = (1..=99).chain([201]).collect();
    assert_eq!((ids(&store), store.stats().quota.evicted), (expected, 1));
    store.apply(&batch_of(301..=320)).expect("all that may go makes way");
    assert_eq!(ids(&store), (1..=80).chain(301..=320).collect::<Vec<_>>());
    assert_eq!(store.stats().quota.evicted, 21);
}

#[test]
fn write_that_lacks_records_and_pages_evicts_for_neither_in_vain() {
    let dir = temp_dir("quota-both");
    let quota = Quota::new().max_records(6).max_bytes(3 * 4096).clean_at(1.0);
    let store = open(&dir, quota.on_exceed(OnExceed::Evict));
    // A persistent one in each page.
    fill(&store, [1, 65, 129], Flags::PERSISTENT);
    fill(&store, [2, 66, 130], Flags::empty());
    let refused = put(&store, &token(1_000, 1.0));
    assert!(matches!(refused, Err(Error::Quota(_))), "no page may go: {refused:?}");
    assert_eq!((store.len(), store.stats().quota.evicted), (6, 0));
    put(&store, &token(3, 1.0)).expect("one record makes way");
    assert_eq!(store.stats().quota.evicted, 1);
}

#[test]
fn page_that_a_batch_needs_does_not_make_way_for_it() {
    let dir = temp_dir("quota-own-page");
    let quota = Quota::new().max_bytes(2 * 4096).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, quota);
    fill(&store, [1], Flags::empty());
    fill(&store, [65], Flags::PERSISTENT);
    let refused = store.apply(&batch_of([2, 1_000]));
    assert!(matches!(refused, Err(Error::Quota(_))), "{refused:?}");
    assert_eq!((ids(&store), store.stats().quota.evicted), (vec![1, 65], 0));
}

#[test]
fn batch_may_evict_nearly_everything() {
    let dir = temp_dir("quota-batch-large");
    let quota = Quota::new().max_records(10_000).clean_at(1.0).on_exceed(OnExceed::Evict);
    let log = bulla_wal::Options::new().segment_len(8 << 20).ring_len(4 << 20);
    let store = Store::open(dir.path(), &options().log(log).quota(quota)).expect("opened");
    fill(&store, 1..=10_000, Flags::empty());
    store.apply(&batch_of(20_001..=29_000)).expect("9,000 make way");
    let quota = store.stats().quota;
    assert_eq!((quota.records, quota.evicted, quota.rejected), (10_000, 9_000, 0));
}

#[test]
fn record_that_was_just_put_is_not_what_makes_way() {
    for quota in [Quota::new().max_records(100), Quota::new().max_bytes(100 * 4096)] {
        let dir = temp_dir("quota-put-stays");
        let store = open(&dir, quota.on_exceed(OnExceed::Evict));
        for id in 1..=100 {
            put(&store, &token(id * 64, 50.0)).expect("fits");
        }
        let stats = store.stats().quota;
        assert_eq!(stats.evicts_above_records, stats.max_records / 20 * 19);
        assert_eq!(stats.evicts_above_bytes, stats.max_bytes / 4096 / 20 * 19 * 4096);
        for id in 1_001..=1_050 {
            let lightest = token(id * 64, 0.0);
            put(&store, &lightest).expect("others make way");
            assert_eq!(store.get(lightest.id()).expect("read"), Some(lightest));
        }
    }
}
