//! Panics at every step of every operation of a store, and in every call of the user's
//! code: no lock is left, no quota, no half of a change, and table and log agree.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;
use std::time::SystemTime;

use bulla_engine::faults::steps::{Step, arm, pass, passed};
use bulla_engine::{
    Batch, Level, OnExceed, Quota, RECORD_LEN, Record, Snapshot, Store, StoreInspection,
    StoreOptions,
};
use bulla_tests::temp_dir;
use bulla_tests::times::at_ms;
use bulla_wal::Options;
use tempfile::TempDir;

const RELAXED: Level = Level::Relaxed;
const PAGE: u64 = 4096;
/// What nobody holds is free long before.
const PATIENCE: Duration = Duration::from_secs(60);

/// An id whose every use can panic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Id(u32);

impl From<u32> for Id {
    fn from(id: u32) -> Self {
        pass(Step::User);
        Self(id)
    }
}

impl From<Id> for u32 {
    fn from(id: Id) -> Self {
        pass(Step::User);
        id.0
    }
}

/// A record whose every method can panic: an id, a weight, a time, and whether it stays.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Touchy([u8; RECORD_LEN]);

impl Touchy {
    fn new(id: u32, weight: f32, persistent: bool) -> Self {
        let mut bytes = [0; RECORD_LEN];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..8].copy_from_slice(&weight.to_le_bytes());
        bytes[8] = 1;
        bytes[12] = persistent.into();
        Self(bytes)
    }

    fn word(&self, at: usize) -> [u8; 4] {
        self.0[at..at + 4].try_into().expect("4 bytes")
    }
}

impl Record for Touchy {
    const NAME: &'static str = "touchy";

    type Id = Id;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
        pass(Step::User);
        Ok(Self(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        pass(Step::User);
        &self.0
    }

    fn id(&self) -> Id {
        pass(Step::User);
        Id(u32::from_le_bytes(self.word(0)))
    }

    fn timestamp(&self) -> Option<u32> {
        pass(Step::User);
        Some(u32::from_le_bytes(self.word(8)))
    }

    fn weight(&self) -> f32 {
        pass(Step::User);
        f32::from_le_bytes(self.word(4))
    }

    fn is_persistent(&self) -> bool {
        pass(Step::User);
        self.0[12] != 0
    }
}

fn open(dir: &TempDir, quota: Quota) -> Store<Touchy> {
    let log = Options::new().segment_len(1 << 17).ring_len(1 << 16);
    Store::open_records(dir.path(), &StoreOptions::new().log(log).quota(quota)).expect("opened")
}

fn put(store: &Store<Touchy>, id: u32, weight: f32) {
    store.at(RELAXED).put(&Touchy::new(id, weight, false)).expect("put");
}

/// Records in order of their ids, with the times at which they expire.
type Contents = Vec<(u32, Vec<u8>, Option<SystemTime>)>;

fn contents(store: &Store<Touchy>) -> Contents {
    let with_expiry = |record: Touchy| {
        let at = store.expires_at(record.id()).expect("read");
        (record.id().0, record.0.to_vec(), at)
    };
    store.iter().expect("read").map(with_expiry).collect()
}

fn contents_of(snapshot: &Snapshot<Touchy>) -> Option<Contents> {
    let with_expiry = |record: Touchy| {
        Some((record.id().0, record.0.to_vec(), snapshot.expires_at(record.id()).ok()?))
    };
    snapshot.iter().map(|record| with_expiry(record.ok()?)).collect()
}

/// An operation, on a store that holds what `records` puts.
struct Case {
    name: &'static str,
    quota: Quota,
    run: fn(&Store<Touchy>, &Batch<Touchy>),
    /// How many steps it has: a lost one is noticed.
    steps: usize,
    /// It logs several changes, each of which is made or not.
    is_several: bool,
}

const fn case(
    name: &'static str,
    steps: usize,
    run: fn(&Store<Touchy>, &Batch<Touchy>),
    quota: Quota,
) -> Case {
    Case { name, quota, run, steps, is_several: false }
}

const fn several(
    name: &'static str,
    steps: usize,
    run: fn(&Store<Touchy>, &Batch<Touchy>),
    quota: Quota,
) -> Case {
    Case { name, quota, run, steps, is_several: true }
}

/// Records on three pages of two slabs; one has expired, one will.
fn fill(store: &Store<Touchy>) {
    [1, 2, 70, 40_000].into_iter().for_each(|id| put(store, id, id as f32));
    store.put_for(&Touchy::new(3, 3.0, false), Duration::ZERO).expect("put");
    store.put_for(&Touchy::new(71, 71.0, true), Duration::from_secs(3_600)).expect("put");
}

fn cases() -> Vec<Case> {
    let free = Quota::unlimited();
    let full = Quota::new().max_records(6).clean_at(1.0).on_exceed(OnExceed::Evict);
    let pages = Quota::new().max_bytes(4 * PAGE).clean_at(1.0).on_exceed(OnExceed::Evict);
    let near = Quota::new().max_records(100).clean_at(0.02).on_exceed(OnExceed::Evict);
    vec![
        case("put", 16, |s, _| put(s, 1, 9.0), free),
        case("put-new-slab", 17, |s, _| put(s, 900_000, 9.0), free),
        case("create", 18, |s, _| drop(s.create(&Touchy::new(5, 9.0, false))), free),
        case(
            "put-for",
            17,
            |s, _| {
                let minute = Duration::from_secs(60);
                drop(s.at(RELAXED).begin().put_for(&Touchy::new(5, 9.0, false), minute));
            },
            free,
        ),
        case("expire-in", 10, |s, _| drop(s.expire_in(Id(71), None)), free),
        case(
            "update",
            25,
            |s, _| {
                drop(s.update(Id(71), |_| {
                    pass(Step::User);
                    Ok(Touchy::new(71, 9.0, false))
                }));
            },
            free,
        ),
        case("delete", 10, |s, _| drop(s.delete(Id(1))), free),
        several(
            "delete-last-of-a-slab",
            21,
            |s, _| {
                drop(s.expire_in(Id(40_000), Some(Duration::from_secs(60))));
                drop(s.delete(Id(40_000)));
            },
            free,
        ),
        case(
            "batch",
            14,
            |s, batch| {
                s.apply(batch).expect("applied");
            },
            free,
        ),
        case("get", 2, |s, _| assert!(s.get(Id(1)).expect("read").is_some()), free),
        case("get-many", 4, |s, _| drop(s.get_many(&[Id(1), Id(40_000)])), free),
        case("iter", 6, |s, _| assert!(s.iter().expect("read").count() > 0), free),
        case(
            "scan",
            12,
            |s, _| {
                drop(s.scan(1, |_| {
                    pass(Step::User);
                    true
                }));
            },
            free,
        ),
        case("expire-due", 10, |s, _| drop(s.expire_due(10)), free),
        several("put-into-full", 32, |s, _| drop(s.put(&Touchy::new(5, 9.0, false))), full),
        several(
            "put-into-full-pages",
            91,
            |s, _| {
                put(s, 1_000, 9.0);
                put(s, 2_000, 9.0);
            },
            pages,
        ),
        several("put-near-full", 28, |s, _| put(s, 5, 9.0), near),
        case(
            "snapshot",
            31,
            |s, _| {
                let snapshot = s.snapshot().expect("one");
                put(s, 1, 9.0);
                let _ = (snapshot.get(Id(1)), snapshot.get(Id(70)), snapshot.count(|_| true));
            },
            free,
        ),
        several(
            "snapshot-in-full",
            43,
            |s, _| {
                let snapshot = s.snapshot().expect("one");
                put(s, 1, 9.0);
                put(s, 1_000, 9.0);
                let _ = snapshot.get(Id(1));
            },
            pages,
        ),
    ]
}

/// On all three pages.
fn batch() -> Batch<Touchy> {
    let mut batch = Batch::new();
    batch.put(&Touchy::new(1, 9.0, false)).put(&Touchy::new(40_001, 9.0, false));
    batch.delete(Id(70)).expect("an id").expire_at(Id(2), at_ms(1 << 50)).expect("an id");
    batch
}

/// Says nothing of the panics that are meant.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.ends_with("on purpose")) {
                others(info);
            }
        }));
    });
}

/// What `look` gives, in a thread of its own: a lock that was left would keep it forever.
fn in_time<T: Send + 'static>(
    store: &Arc<Store<Touchy>>,
    what: &str,
    look: impl FnOnce(&Store<Touchy>) -> T + Send + 'static,
) -> T {
    let (tell, told) = mpsc::channel();
    let store = Arc::clone(store);
    std::thread::spawn(move || {
        let looked = look(&store);
        drop(store);
        tell.send(looked)
    });
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: something is left locked"))
}

/// The numbers of the quota are those of what is there.
fn check_usage(store: &Store<Touchy>, what: &str) {
    let quota = store.stats().quota;
    let ids: Vec<_> = contents(store).into_iter().map(|(id, ..)| id).collect();
    let pages: BTreeSet<_> = ids.iter().map(|id| id / 64).collect();
    let counted = (ids.len() as u64, pages.len() as u64 * PAGE, 0);
    assert_eq!((quota.records, quota.bytes, quota.retained_bytes), counted, "{what}");
}

impl Case {
    fn begin(&self, dir: &TempDir) -> Arc<Store<Touchy>> {
        let store = open(dir, self.quota);
        fill(&store);
        // So that what was to expire at once has.
        std::thread::sleep(Duration::from_millis(2));
        Arc::new(store)
    }

    /// Runs it with a panic at a step, and checks what is left; returns the steps.
    fn panic_at(&self, at: usize, before: &Contents, after: &Contents) {
        let what = format!("{} at {at}", self.name);
        let dir = temp_dir(&format!("{}-{at}", self.name));
        let store = self.begin(&dir);
        let (entries, batch) = (store.stats().log.entries, batch());
        arm(at);
        let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(&store, &batch)));
        let steps = passed();
        let what = format!("{what}, {:?}", steps.last());
        assert_eq!(store.stats().panics, 1, "{what}: counted once, {ended:?}");
        let left = in_time(&store, &what, |store| {
            // Every page that an operation locks.
            let shared = (624..632).map(|page| 64 * page);
            let ids = (0..10).chain(64..80).chain(39_990..40_010).chain(shared);
            let ids: Vec<_> = ids.map(Id).collect();
            store.get_many(&ids).expect("read");
            contents(store)
        });
        check_usage(&store, &what);
        if !self.is_several {
            let has_logged = store.stats().log.entries > entries;
            let expected = if has_logged { after } else { before };
            assert!(same(&left, expected), "{what}: {left:?}");
        }
        let again = Arc::clone(&store);
        let run = self.run;
        in_time(&store, &what, move |_| run(&again, &batch));
        check_usage(&store, &what);
        let in_memory = contents(&store);
        assert!(self.is_several || same(&in_memory, after), "{what}, and again: {in_memory:?}");
        store.close().expect("closed");
        let logged = StoreInspection::<Touchy>::read_records(dir.path(), &Options::new());
        let logged: Vec<_> = logged.expect("readable").iter().collect();
        let in_memory: Vec<_> = in_memory.into_iter().map(|(_, record, _)| record).collect();
        assert_eq!(logged.iter().map(|r| r.0.to_vec()).collect::<Vec<_>>(), in_memory, "{what}");
    }
}

/// The same records, of which the same ones expire: when, is the clock's business.
fn same(some: &Contents, others: &Contents) -> bool {
    let of =
        |(id, bytes, at): &(u32, Vec<u8>, Option<SystemTime>)| (*id, bytes.clone(), at.is_some());
    some.iter().map(of).eq(others.iter().map(of))
}

#[test]
fn panic_at_any_step_leaves_nothing_locked_reserved_or_half_done() {
    quietly();
    let mut all: BTreeSet<Step> = BTreeSet::new();
    let mut wrong = Vec::new();
    for case in cases() {
        let dir = temp_dir(case.name);
        let store = case.begin(&dir);
        let before = contents(&store);
        let batch = batch();
        arm(0);
        (case.run)(&store, &batch);
        let steps = passed();
        let after = contents(&store);
        assert_eq!(store.stats().panics, 0);
        drop(store);
        if steps.len() != case.steps {
            wrong.push((case.name, steps.len()));
        }
        (1..=steps.len()).for_each(|at| case.panic_at(at, &before, &after));
        all.extend(steps);
    }
    assert!(wrong.is_empty(), "steps that were not expected: {wrong:?}");
    assert_eq!(all, Step::ALL.iter().copied().collect(), "every step is met");
}

#[test]
fn snapshot_beside_a_write_that_panics_is_right_or_has_expired() {
    quietly();
    let (mut right, mut expired) = (0, 0);
    for at in 1.. {
        let dir = temp_dir(&format!("beside-{at}"));
        let store = open(&dir, Quota::unlimited());
        fill(&store);
        let before = contents(&store);
        let snapshot = store.snapshot().expect("one");
        arm(at);
        let ended = catch_unwind(AssertUnwindSafe(|| put(&store, 1, 9.0)));
        let _ = passed();
        match contents_of(&snapshot) {
            Some(seen) => {
                assert_eq!(seen, before, "at {at}");
                right += 1;
            }
            None => expired += 1,
        }
        let later = store.snapshot().expect("another");
        assert_eq!(contents_of(&later), Some(contents(&store)));
        if ended.is_ok() {
            break;
        }
    }
    assert!(right > 5 && expired > 0, "{right} {expired}");
}

#[test]
fn open_that_panics_leaves_a_store_that_opens() {
    quietly();
    let dir = temp_dir("open");
    let store = open(&dir, Quota::unlimited());
    fill(&store);
    let before = contents(&store);
    store.close().expect("closed");
    arm(0);
    drop(open(&dir, Quota::unlimited()));
    let steps = passed().len();
    assert!(steps > 10);
    for at in [1, steps / 2, steps] {
        arm(at);
        let opened = catch_unwind(AssertUnwindSafe(|| open(&dir, Quota::unlimited())));
        let _ = passed();
        assert!(opened.is_err());
    }
    assert_eq!(contents(&open(&dir, Quota::unlimited())), before);
}

#[test]
fn panic_while_a_checkpoint_is_read_leaves_its_records_to_the_next_touch() {
    quietly();
    let dir = temp_dir("touch");
    let store = open(&dir, Quota::unlimited());
    fill(&store);
    let before = contents(&store);
    store.checkpoint().expect("taken");
    store.close().expect("closed");
    for at in 1.. {
        let store = Arc::new(open(&dir, Quota::unlimited()));
        assert_eq!(store.stats().checkpoints.waiting_slabs, 2);
        arm(at);
        let ended = catch_unwind(AssertUnwindSafe(|| store.get(Id(1)).expect("read")));
        let _ = passed();
        let what = format!("at {at}");
        assert_eq!(store.stats().panics, u64::from(ended.is_err()), "{what}");
        let left = in_time(&store, &what, contents);
        assert_eq!(left, before, "{what}");
        check_usage(&store, &what);
        if ended.is_ok() {
            assert!(at > 10, "all records of the slab are checked");
            break;
        }
    }
}
