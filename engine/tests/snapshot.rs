//! Snapshots: each is what the log below its position says, whatever goes on meanwhile.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bulla_engine::entries::{LogEntry, Mutation};
use bulla_engine::{
    Batch, Error, Expired, Level, OnExceed, Pressure, Quota, Snapshot, Store, Token, TokenId,
};
use bulla_recovery::{Inspection, Range};
use bulla_wal::{Lsn, Options};
use tempfile::TempDir;

use crate::common::{options, temp_dir, token};
use crate::times::{at_ms, ms};

const RELAXED: Level = Level::Relaxed;
const PAGE: u64 = 4096;

/// Records with the times at which they expire (0: never).
type Model = BTreeMap<u32, (Token, u64)>;

fn open(dir: &TempDir, quota: Quota) -> Store {
    Store::open(dir.path(), &options().quota(quota)).expect("opened")
}

fn put(store: &Store, id: u32, weight: f32) {
    store.at(RELAXED).put(&token(id, weight)).expect("put");
}

fn contents(snapshot: &Snapshot) -> Result<Model, Expired> {
    let model: Model = snapshot
        .iter()
        .map(|token| {
            let token = token?;
            let expiry = ms(snapshot.expires_at(token.id())?);
            assert_eq!(snapshot.get(token.id())?, Some(token));
            Ok((token.id().0, (token, expiry)))
        })
        .collect::<Result<_, Expired>>()?;
    assert_eq!(snapshot.count(|_| true)?, model.len() as u64);
    Ok(model)
}

fn ids(snapshot: &Snapshot) -> Vec<u32> {
    contents(snapshot).expect("not expired").into_keys().collect()
}

fn apply(model: &mut Model, change: Mutation) {
    match change {
        Mutation::Put(token) => {
            model.insert(token.id().0, (token, 0));
        }
        Mutation::Delete(id) => {
            model.remove(&id.0);
        }
        Mutation::Expire(id, at) => {
            model.entry(id.0).and_modify(|(_, expiry)| *expiry = ms(at));
        }
    }
}

/// Goes through the log from its start, and returns `check` each snapshot's position with
/// what the entries below it say.
fn replay(dir: &Path, snapshots: &[(Lsn, Model)]) {
    let inspection = Inspection::read(dir, &Options::new()).expect("readable");
    let mut model = Model::new();
    let mut rest = snapshots.iter().peekable();
    let mut check_below = |end: Lsn, model: &Model| {
        while let Some((lsn, seen)) = rest.next_if(|(lsn, _)| *lsn <= end) {
            assert!(seen == model, "snapshot at {lsn}: {}", difference(seen, model));
        }
    };
    inspection
        .replay(Range::ALL, |entry| {
            check_below(entry.lsn, &model);
            let changes = LogEntry::<Token>::decode(entry.kind, entry.payload).expect("valid");
            changes.iter().for_each(|change| apply(&mut model, change));
            ControlFlow::Continue(())
        })
        .expect("replayed");
    check_below(Lsn(u64::MAX), &model);
}

fn difference(seen: &Model, model: &Model) -> String {
    let differs = |id: &&u32| seen.get(id) != model.get(id);
    let id = seen.keys().chain(model.keys()).find(differs).expect("they differ");
    format!("of {id} it has {:?} and not {:?}", seen.get(id), model.get(id))
}

/// Changes of every kind to sixty records on twelve pages of three slabs, some of which are
/// full and some empty now and then.
fn change_something(store: &Store, client: u32, step: u32) {
    let id = |number: u32| number % 60 / 5 * 20_000 / 3 + number % 5 + 1;
    let mixed = step.wrapping_mul(0x9E37_79B1).rotate_left(client * 7 + 5);
    let (one, two) = (id(mixed), id(mixed >> 8));
    let weight = f32::from(u16::try_from(step % 1_000).expect("below")) / 10.0;
    match mixed >> 16 & 7 {
        0 | 1 => store.at(RELAXED).begin().put(&token(one, weight)).map(drop),
        2 | 3 => store.at(RELAXED).begin().delete(TokenId(one)).map(drop),
        4 => {
            let hour = Duration::from_secs(3_600);
            store.at(RELAXED).begin().put_for(&token(two, weight), hour).map(drop)
        }
        5 => {
            let halve = |now: Token| Ok(now.to_builder().weight(now.weight() / 2.0).build()?);
            store.at(RELAXED).begin().update(TokenId(one), halve).map(drop)
        }
        _ => {
            let mut batch = Batch::new();
            batch.put(&token(one, weight)).put(&token(two, weight));
            batch.delete(TokenId(id(mixed >> 20))).expect("an id");
            batch.expire_at(TokenId(two), at_ms(mixed.into())).expect("an id");
            store.at(RELAXED).begin().apply(&batch).map(drop)
        }
    }
    .expect("made");
}

/// Runs `work` in three threads, with their number and that of the step, while `look` runs.
fn while_working<T>(work: impl Fn(u32, u32) + Sync, look: impl FnOnce() -> T) -> T {
    /// So that the threads end also when `look` panics.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    let begun = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let _done = Done(&done);
        for client in 0..3 {
            let (work, done, begun) = (&work, &done, &begun);
            scope.spawn(move || {
                begun.fetch_add(1, Ordering::Relaxed);
                (0..).take_while(|_| !done.load(Ordering::Relaxed)).for_each(|n| work(client, n));
            });
        }
        while begun.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        look()
    })
}

#[test]
fn snapshot_is_what_the_log_below_it_says() {
    let dir = temp_dir("snapshot-log");
    let store = open(&dir, Quota::new());
    let work = |client, step| change_something(&store, client, step);
    let seen = while_working(work, || {
        let mut seen = Vec::new();
        let mut live = Vec::new();
        for round in 0..150 {
            live.push(store.snapshot().expect("not too many"));
            // Some are read at once, some when others were taken and dropped meanwhile.
            for _ in 0..round % 4 {
                let snapshot = live.swap_remove(round * 7 % live.len());
                seen.push((snapshot.lsn(), contents(&snapshot).expect("room for all")));
                if live.is_empty() {
                    break;
                }
            }
            while live.len() > 9 {
                let snapshot = live.remove(4);
                seen.push((snapshot.lsn(), contents(&snapshot).expect("room for all")));
            }
        }
        seen
    });
    assert_eq!(store.stats().quota.retained_bytes, 0);
    store.close().expect("closed");
    let mut seen = seen;
    seen.sort_by_key(|(lsn, _)| *lsn);
    assert!(seen.len() > 100 && seen[0].0 < seen[99].0);
    replay(dir.path(), &seen);
}

#[test]
fn snapshot_has_a_batch_whole_or_not_at_all() {
    let dir = temp_dir("snapshot-batch");
    let store = open(&dir, Quota::new());
    // On three pages of two slabs.
    let ids = [1, 100, 40_000];
    let put = |_, step: u32| {
        let weight = f32::from(u16::try_from(step % 10_000).expect("below")) / 100.0;
        let mut batch = Batch::new();
        ids.iter().for_each(|id| {
            batch.put(&token(*id, weight));
        });
        store.at(RELAXED).apply(&batch).expect("applied");
    };
    while_working(put, || {
        for _ in 0..2_000 {
            let snapshot = store.snapshot().expect("one");
            // Backwards, too: what is looked at later is not changed for that.
            let weights = |ids: &mut dyn Iterator<Item = u32>| -> Vec<_> {
                ids.map(|id| snapshot.get(TokenId(id)).expect("room").map(|t| t.weight())).collect()
            };
            let (there, back) =
                (weights(&mut ids.into_iter()), weights(&mut ids.into_iter().rev()));
            assert!(there.iter().chain(&back).all(|one| *one == there[0]), "{there:?} {back:?}");
        }
    });
}

#[test]
fn snapshot_shows_pages_that_were_emptied_and_not_those_that_were_filled() {
    let dir = temp_dir("snapshot-pages");
    let store = open(&dir, Quota::new());
    let empty = store.snapshot().expect("one");
    [1, 2, 70, 1_000_000].into_iter().for_each(|id| put(&store, id, 1.0));
    assert!(store.expire_in(TokenId(2), Some(Duration::from_secs(60))).expect("told"));
    let before = store.snapshot().expect("two");
    let expiry = store.expires_at(TokenId(2)).expect("read");
    put(&store, 1, 2.0);
    put(&store, 3, 1.0);
    put(&store, 2_000_000, 1.0);
    assert!(store.expire_in(TokenId(2), None).expect("told"));
    for id in [70, 1_000_000] {
        assert!(store.at(RELAXED).delete(TokenId(id)).expect("deleted"));
    }
    let after = store.snapshot().expect("three");
    assert!(ids(&empty).is_empty());
    assert_eq!(ids(&before), [1, 2, 70, 1_000_000]);
    assert_eq!(ids(&after), [1, 2, 3, 2_000_000]);
    assert_eq!(before.get(TokenId(1)).expect("room"), Some(token(1, 1.0)));
    assert_eq!(after.get(TokenId(1)).expect("room"), Some(token(1, 2.0)));
    assert!(expiry.is_some() && before.expires_at(TokenId(2)).expect("room") == expiry);
    assert_eq!(after.expires_at(TokenId(2)).expect("room"), None);
    assert_eq!(before.get(TokenId(3)).expect("room"), None, "on a page that was kept");
    assert_eq!(before.get(TokenId(2_000_000)).expect("room"), None, "in a later slab");
}

#[test]
fn page_is_kept_once_and_given_back_with_the_last_snapshot_that_shows_it() {
    let dir = temp_dir("snapshot-memory");
    let store = open(&dir, Quota::new());
    for id in 0..10 {
        put(&store, id * 64 + 1, 1.0);
    }
    let (first, second) = (store.snapshot().expect("one"), store.snapshot().expect("two"));
    let kept = || (store.stats().quota.retained_bytes, store.stats().quota.bytes);
    assert_eq!((kept(), store.stats().snapshots), ((0, 10 * PAGE), 2));
    for weight in [2.0, 3.0] {
        for id in 0..5 {
            put(&store, id * 64 + 1, weight);
        }
    }
    assert_eq!(kept(), (5 * PAGE, 15 * PAGE), "once, for both");
    let third = store.snapshot().expect("three");
    put(&store, 1, 4.0);
    put(&store, 10_000, 1.0);
    assert_eq!(kept(), (6 * PAGE, 17 * PAGE), "nothing of a page that was empty");
    drop(first);
    assert_eq!(kept(), (6 * PAGE, 17 * PAGE));
    drop(second);
    assert_eq!(kept(), (PAGE, 12 * PAGE));
    assert_eq!(third.get(TokenId(1)).expect("room"), Some(token(1, 3.0)));
    drop(third);
    assert_eq!((kept(), store.stats().snapshots), ((0, 11 * PAGE), 0));
    put(&store, 1, 5.0);
    assert_eq!(kept(), (0, 11 * PAGE));
}

#[test]
fn snapshot_expires_where_a_copy_does_not_fit_and_no_write_fails() {
    let dir = temp_dir("snapshot-full");
    let store = open(&dir, Quota::new().max_bytes(4 * PAGE));
    [1, 65, 129].into_iter().for_each(|id| put(&store, id, 1.0));
    let first = store.snapshot().expect("one");
    put(&store, 1, 2.0);
    let second = store.snapshot().expect("two");
    assert_eq!(first.get(TokenId(1)).expect("a copy fits"), Some(token(1, 1.0)));
    put(&store, 65, 2.0);
    for snapshot in [&first, &second] {
        let Err(Error::Expired(expired)) = snapshot.get(TokenId(129)).map_err(Error::from) else {
            panic!("no room for a second copy")
        };
        assert_eq!(expired.lsn, snapshot.lsn());
        assert_eq!(snapshot.iter().collect::<Vec<_>>(), [Err(expired)], "an error ends it");
        assert_eq!(snapshot.count(|_| true), Err(expired));
    }
    let quota = store.stats().quota;
    assert_eq!((quota.retained_bytes, quota.bytes_high, quota.rejected), (0, 4 * PAGE, 0));
}

#[test]
fn copies_for_snapshots_are_no_pressure_and_let_no_record_go() {
    let dir = temp_dir("snapshot-pressure");
    let store = open(&dir, Quota::new().max_bytes(10 * PAGE).on_exceed(OnExceed::Evict));
    let ids = || (0..5).map(|number| number * 64 + 1);
    ids().for_each(|id| put(&store, id, 1.0));
    let snapshot = store.snapshot().expect("one");
    ids().for_each(|id| put(&store, id, 2.0));
    let quota = store.stats().quota;
    assert_eq!((quota.bytes, quota.retained_bytes), (10 * PAGE, 5 * PAGE));
    assert_eq!((quota.pressure, quota.evicted), (Pressure::Normal, 0));
    assert_eq!(snapshot.get(TokenId(1)), Ok(Some(token(1, 1.0))));
}

#[test]
fn copies_make_way_for_records_the_oldest_snapshot_first() {
    let dir = temp_dir("snapshot-way");
    let reclaim = Quota::new().max_bytes(4 * PAGE).clean_at(1.0).on_exceed(OnExceed::Evict);
    let store = open(&dir, reclaim);
    [1, 65].into_iter().for_each(|id| put(&store, id, 1.0));
    let untouched = store.snapshot().expect("one");
    put(&store, 200, 1.0);
    assert!(store.at(RELAXED).delete(TokenId(200)).expect("deleted"));
    let first = store.snapshot().expect("two");
    put(&store, 1, 2.0);
    let second = store.snapshot().expect("three");
    put(&store, 65, 2.0);
    assert_eq!(store.stats().quota.retained_bytes, 2 * PAGE);
    // Two copies are there: one for the first two, and one for all three.
    put(&store, 129, 1.0);
    assert!(untouched.get(TokenId(1)).is_err());
    assert!(first.get(TokenId(1)).is_err());
    assert_eq!(second.get(TokenId(65)), Ok(Some(token(65, 1.0))));
    put(&store, 1_000, 1.0);
    assert!(second.get(TokenId(65)).is_err());
    let quota = store.stats().quota;
    assert_eq!((quota.bytes, quota.retained_bytes, quota.evicted), (4 * PAGE, 0, 0));
    // Only then records go.
    put(&store, 2_000, 1.0);
    assert_eq!(store.stats().quota.evicted, 1);
}

#[test]
fn any_number_of_copies_make_way() {
    let dir = temp_dir("snapshot-ways");
    let pages = 400;
    let store = open(&dir, Quota::new().max_bytes(2 * u64::from(pages) * PAGE));
    let ids = || (0..pages).map(|number| number * 64 + 1);
    ids().for_each(|id| put(&store, id, 1.0));
    let snapshot = store.snapshot().expect("one");
    ids().for_each(|id| put(&store, id, 2.0));
    assert_eq!(store.stats().quota.retained_bytes, u64::from(pages) * PAGE);
    put(&store, 1_000_000, 1.0);
    assert_eq!((store.stats().quota.retained_bytes, store.stats().quota.rejected), (0, 0));
    assert!(snapshot.get(TokenId(1)).is_err());
}

#[test]
fn no_write_fails_in_a_full_store_while_snapshots_come_and_go() {
    /// Far more than there are until both ends were often met.
    const MAX_LOOKS: u32 = 100_000;
    let dir = temp_dir("snapshot-writes");
    // Each of three threads has three pages, which it fills and empties: all that fits.
    let store = open(&dir, Quota::new().max_bytes(9 * PAGE));
    let work = |client: u32, step: u32| {
        let id = (client * 3 + step % 3) * 64 + 1;
        if (step / 3).is_multiple_of(2) {
            put(&store, id, 1.0);
        } else {
            assert!(store.at(RELAXED).delete(TokenId(id)).expect("deleted"));
        }
    };
    let (read, expired) = while_working(work, || {
        let (mut read, mut expired) = (0, 0);
        let mut live = std::collections::VecDeque::new();
        for _ in 0..MAX_LOOKS {
            if read >= 100 && expired >= 100 {
                break;
            }
            let snapshot = store.snapshot().expect("not too many");
            match contents(&snapshot) {
                Ok(model) => {
                    assert!(model.len() <= 9);
                    read += 1;
                }
                Err(_) => expired += 1,
            }
            live.push_back(snapshot);
            if live.len() > 3 {
                live.pop_front();
            }
        }
        (read, expired)
    });
    assert!(read > 0 && expired > 0, "{read} read, {expired} expired");
    let quota = store.stats().quota;
    assert_eq!((quota.rejected, quota.retained_bytes), (0, 0), "{read} read, {expired} expired");
    assert!(quota.bytes_high <= 9 * PAGE);
}

#[test]
fn one_snapshot_too_many_is_refused_by_name() {
    let dir = temp_dir("snapshot-many");
    let store = open(&dir, Quota::new());
    let mut live: Vec<_> = (0..16).map(|_| store.snapshot().expect("16 may live")).collect();
    assert!(matches!(store.snapshot(), Err(Error::TooManySnapshots { max: 16 })));
    live.pop();
    drop(store.snapshot().expect("one was dropped"));
}

#[test]
fn snapshot_is_as_long_as_it_lives_a_view_of_a_store_that_was_opened_again() {
    let dir = temp_dir("snapshot-reopen");
    let store = open(&dir, Quota::new());
    [1, 65].into_iter().for_each(|id| put(&store, id, 1.0));
    store.close().expect("closed");
    let store = open(&dir, Quota::new());
    let snapshot = store.snapshot().expect("one");
    put(&store, 1, 2.0);
    assert!(store.at(RELAXED).delete(TokenId(65)).expect("deleted"));
    assert_eq!(ids(&snapshot), [1, 65]);
    assert_eq!(snapshot.get(TokenId(1)), Ok(Some(token(1, 1.0))));
    assert!(store.sync().expect("synced") >= snapshot.lsn());
}
