//! Every interleaving (within a preemption bound) of readers and writers of one page, and of
//! writes that share a quota.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p bulla-engine --release --test loom`
//! `LOOM_MAX_PREEMPTIONS` (default here: 3) bounds the search. The lock and version of a
//! page, the views and the quota are compiled here a second time, over loom's atomics; the
//! table itself needs memory that loom can't make.
#![cfg(loom)]

use std::sync::Arc;

use bulla_storage::faults::mutants::{Mutant, models};
use loom::thread;

/// What `version.rs` takes from the engine's `sync.rs`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read().unwrap()
    }

    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write().unwrap()
    }

    pub(crate) fn pause(_: &mut u32) {
        loom::thread::yield_now();
    }
}

/// What `quota.rs` takes from the table.
mod table {
    pub(crate) const PAGE_LEN: usize = 4096;
}

/// What `quota.rs` and `views.rs` take from the faults.
#[path = "../src/faults"]
mod faults {
    pub(crate) mod quota;
    #[expect(dead_code, unreachable_pub, reason = "the models use some of them")]
    mod steps;

    pub(crate) use steps::{Step, pass};
}
#[path = "../src/quota.rs"]
#[expect(dead_code, unreachable_pub, reason = "the models use what a race could be in")]
mod quota;
#[path = "../src/table/version.rs"]
mod version;
#[path = "../src/snapshot/views.rs"]
#[expect(dead_code, reason = "the models use what a race could be in")]
mod views;

use quota::{Growth, Quota, Usage};
use sync::{AtomicU64, Ordering};
use table::PAGE_LEN;
use version::Version;
use views::{View, Views};

/// Two words that are always the same when nobody writes.
#[derive(Default)]
struct Page {
    version: Version,
    words: [AtomicU64; 2],
}

impl Page {
    fn read(&self) -> [u64; 2] {
        self.version.read(|| [0, 1].map(|at| self.words[at].load(Ordering::Relaxed)))
    }

    fn write(&self, change: impl FnOnce(u64) -> u64) {
        self.version.lock();
        let next = change(self.words[0].load(Ordering::Relaxed));
        self.version.begin();
        self.words.iter().for_each(|word| word.store(next, Ordering::Relaxed));
        self.version.finish();
    }
}

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.max_branches = 50_000;
    models::plant_what_is_asked_for();
    builder.check(run);
}

#[test]
fn copy_is_never_torn_and_never_goes_back() {
    model(|| {
        let page = Arc::new(Page::default());
        let writer = {
            let page = Arc::clone(&page);
            thread::spawn(move || {
                page.write(|_| 1);
                page.write(|_| 2);
            })
        };
        let first = page.read();
        let second = page.read();
        assert!(first[0] == first[1] && second[0] == second[1], "{first:?} {second:?}");
        assert!(first[0] <= second[0], "{first:?} {second:?}");
        writer.join().unwrap();
        assert_eq!(page.read(), [2, 2]);
    });
}

#[test]
fn no_write_of_two_is_lost() {
    model(|| {
        let page = Arc::new(Page::default());
        let other = {
            let page = Arc::clone(&page);
            thread::spawn(move || page.write(|now| now + 1))
        };
        page.write(|now| now + 1);
        other.join().unwrap();
        assert_eq!(page.read(), [2, 2]);
    });
}

#[test]
fn reader_goes_on_while_a_writer_only_holds_the_lock() {
    model(|| {
        let page = Arc::new(Page::default());
        page.version.lock();
        let reader = {
            let page = Arc::clone(&page);
            thread::spawn(move || page.read())
        };
        assert_eq!(reader.join().unwrap(), [0, 0]);
        page.version.unlock();
    });
}

/// A page of a store: what was written last is where in the log it is.
struct Store {
    page: Page,
    /// Where in the log the page's last change is.
    last: AtomicU64,
    /// The log: where the next change will be.
    tail: AtomicU64,
    views: Views<[u64; 2]>,
}

impl Store {
    fn new() -> Self {
        let (last, tail) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { page: Page::default(), last, tail, views: Views::new() }
    }

    fn words(&self) -> [u64; 2] {
        [0, 1].map(|at| self.page.words[at].load(Ordering::Relaxed))
    }

    fn write(&self) {
        self.page.version.lock();
        let lsn = self.tail.fetch_add(1, Ordering::AcqRel);
        let last = self.last.load(Ordering::Relaxed);
        // The page is empty before its first change.
        if self.views.may_need(last) && last > 0 {
            self.views.retain(0, last, lsn, || Some(Arc::new(self.words())));
        }
        self.page.version.begin();
        self.last.store(lsn, Ordering::Relaxed);
        self.page.words.iter().for_each(|word| word.store(lsn, Ordering::Relaxed));
        self.page.version.finish();
    }

    fn take(&self) -> Arc<View<[u64; 2]>> {
        self.views.take(|| self.tail.fetch_add(0, Ordering::AcqRel)).unwrap()
    }

    fn read(&self, view: &View<[u64; 2]>) -> [u64; 2] {
        let now = self.page.version.read_before(&self.last, view.lsn(), || self.words());
        now.unwrap_or_else(|| view.retained(0).map_or([0, 0], |words| *words))
    }
}

#[test]
fn view_has_what_was_logged_before_it_and_nothing_after() {
    model(|| {
        let store = Arc::new(Store::new());
        store.write();
        let writer = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                store.write();
                store.write();
            })
        };
        let view = store.take();
        // The last change below it.
        let expected = [view.lsn() - 1; 2];
        assert_eq!(store.read(&view), expected);
        assert_eq!(store.read(&view), expected);
        writer.join().unwrap();
        assert_eq!(store.read(&view), expected);
        store.views.end(&view);
        assert!(!store.views.may_need(0));
    });
}

#[test]
fn two_views_and_a_writer_do_not_disturb_each_other() {
    model(|| {
        let store = Arc::new(Store::new());
        store.write();
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                let view = store.take();
                assert_eq!(store.read(&view), [view.lsn() - 1; 2]);
                store.views.end(&view);
            })
        };
        let view = store.take();
        store.write();
        assert_eq!(store.read(&view), [view.lsn() - 1; 2]);
        other.join().unwrap();
    });
}

#[test]
fn view_that_gives_way_says_so_before_it_shows_anything_else() {
    model(|| {
        let store = Arc::new(Store::new());
        store.write();
        let view = store.take();
        let writer = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                store.write();
                store.views.free_one()
            })
        };
        let read = store.read(&view);
        assert!(read == [1, 1] || view.has_expired(), "{read:?}");
        assert!(writer.join().unwrap() && view.has_expired());
    });
}

const RECORD: Growth = Growth { records: 1, pages: 1 };
const NO_RECORD: Growth = Growth { records: -1, pages: -1 };

/// A quota of some records and as many pages, and how many are in use.
struct Full {
    most: u64,
    usage: Usage,
    there: AtomicU64,
}

impl Full {
    fn new(most: u64) -> Arc<Self> {
        let quota = Quota::new().max_records(most).max_bytes(most * PAGE_LEN as u64);
        Arc::new(Self { most, usage: Usage::new(quota), there: AtomicU64::new(0) })
    }

    /// A record, or a page kept, comes for which there was room.
    fn come(&self) {
        assert!(self.there.fetch_add(1, Ordering::Relaxed) < self.most, "more than the quota");
    }

    fn go(&self) {
        self.there.fetch_sub(1, Ordering::Relaxed);
    }

    /// A write that is logged if there is room for it.
    fn put(&self) -> bool {
        let mut reservation = self.usage.reservation();
        let fits = reservation.reserve(RECORD).is_ok();
        if fits {
            self.come();
            reservation.made();
        }
        fits
    }

    fn delete(&self) {
        let mut reservation = self.usage.reservation();
        reservation.reserve(NO_RECORD).expect("it adds nothing");
        self.go();
        reservation.made();
    }

    /// A write that reserves and then fails.
    fn fail(&self) {
        let mut reservation = self.usage.reservation();
        if reservation.reserve(RECORD).is_ok() {
            self.come();
            self.go();
        }
    }

    fn keep(&self) {
        if self.usage.retain_page() {
            self.come();
            self.go();
            self.usage.release_page();
        }
    }

    fn assert_has(&self, records: u64) {
        let stats = self.usage.stats();
        assert_eq!((stats.records, stats.bytes), (records, records * PAGE_LEN as u64));
        assert_eq!(stats.retained_bytes, 0);
        assert!(stats.records_high <= self.most, "{stats:?}");
        assert!(stats.bytes_high <= self.most * PAGE_LEN as u64, "{stats:?}");
    }
}

#[test]
fn quota_is_never_exceeded_and_all_of_it_is_given_back() {
    model(|| {
        let store = Full::new(1);
        let threads = [Full::fail, Full::keep].map(|run| {
            let store = Arc::clone(&store);
            thread::spawn(move || run(&store))
        });
        if store.put() {
            store.delete();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        store.assert_has(0);
        assert!(store.put() && !store.put(), "all of it can be used again");
        store.assert_has(1);
    });
}

#[test]
fn no_write_is_refused_for_what_another_only_asked_for() {
    model(|| {
        let store = Full::new(2);
        let too_much = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                let three = Growth { records: 1, pages: 3 };
                store.usage.reservation().reserve(three).expect_err("more than there may be");
            })
        };
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || assert!(store.put()))
        };
        assert!(store.put());
        too_much.join().unwrap();
        other.join().unwrap();
        store.assert_has(2);
    });
}

#[test]
fn write_that_a_kept_page_refused_is_told_that_it_may_fit_until_it_does() {
    model(|| {
        let store = Full::new(2);
        assert!(store.put());
        let other = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                if store.usage.retain_page() {
                    store.usage.release_page();
                }
            })
        };
        if let Err(refused) = store.usage.reservation().reserve(RECORD) {
            assert!(store.usage.may_fit(&refused), "{refused}");
        }
        other.join().unwrap();
        assert!(store.put());
    });
}

#[test]
fn each_of_these_models_can_fail() {
    const QUOTA: &str = "quota_is_never_exceeded_and_all_of_it_is_given_back";
    models::assert_each_fails(&[
        (QUOTA, Mutant::QuotaReleasedTwice),
        (QUOTA, Mutant::QuotaNotGivenBack),
        (QUOTA, Mutant::KeptNotGivenBack),
    ]);
}
