//! Every interleaving (within a preemption bound) of readers and writers of one page.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p bulla-engine --release --test loom`
//! The lock and version of a page are compiled here a second time, over loom's atomics;
//! the table itself needs memory that loom can't make.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;

/// What `version.rs` takes from the engine's `sync.rs`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

    pub(crate) fn pause(_: &mut u32) {
        loom::thread::yield_now();
    }
}

#[path = "../src/table/version.rs"]
mod version;

use sync::{AtomicU64, Ordering};
use version::Version;

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
