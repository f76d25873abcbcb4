//! Every interleaving (within a preemption bound) of threads that rouse a worker, sleep, end and
//! stop it. Loom reports a deadlock when a rouse is lost.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p bulla-wal --release --lib model`

use super::*;
use bulla_storage::faults::mutants::{Mutant, models};

/// Longer than any model lasts, if it counts at all: loom knows no time, so that a sleep with a
/// bound ends whenever others have had their turn.
const A_WHILE: Option<Duration> = Some(Duration::from_secs(1));

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    models::plant_what_is_asked_for();
    builder.check(run);
}

/// What is to be done, and what was done.
struct Tasks {
    counts: Mutex<(u32, u32)>,
    changed: Condvar,
}

impl Tasks {
    fn new() -> Arc<Self> {
        Arc::new(Self { counts: Mutex::new((0, 0)), changed: Condvar::new() })
    }

    fn add(&self) {
        lock(&self.counts).0 += 1;
    }

    fn do_all(&self) {
        let mut counts = lock(&self.counts);
        counts.1 += std::mem::take(&mut counts.0);
        self.changed.notify_one();
    }

    /// Waits, without rousing anybody.
    fn wait_for(&self, done: u32) {
        let mut counts = lock(&self.counts);
        while counts.1 < done {
            counts = self.changed.wait(counts).expect("no model panics");
        }
    }
}

/// A worker that does tasks, then sleeps for as long, and ends if it was not roused.
fn worker(tasks: &Arc<Tasks>, patience: Option<Duration>) -> Arc<Worker> {
    let worker = Worker::new("model");
    let tasks = Arc::clone(tasks);
    worker.employ(move |worker: &Worker| {
        while worker.is_employed() {
            tasks.do_all();
            if !worker.sleep(patience) && worker.end() {
                return;
            }
        }
    });
    worker
}

fn every_task_is_done(patience: Option<Duration>) {
    let tasks = Tasks::new();
    let worker = worker(&tasks, patience);
    let other = {
        let (tasks, worker) = (Arc::clone(&tasks), Arc::clone(&worker));
        thread::spawn(move || {
            tasks.add();
            worker.rouse().unwrap();
        })
    };
    tasks.add();
    worker.rouse().unwrap();
    tasks.wait_for(2);
    worker.stop();
    worker.join();
    other.join().unwrap();
}

#[test]
fn rouse_is_seen_by_a_thread_that_is_about_to_end_or_starts_another() {
    model(|| every_task_is_done(A_WHILE));
}

#[test]
fn rouse_wakes_a_thread_that_is_about_to_sleep() {
    model(|| every_task_is_done(None));
}

#[test]
fn stop_ends_the_thread_whatever_it_does_and_none_is_started_after() {
    for patience in [None, A_WHILE] {
        model(move || {
            let tasks = Tasks::new();
            let worker = worker(&tasks, patience);
            tasks.add();
            worker.rouse().unwrap();
            let other = {
                let worker = Arc::clone(&worker);
                thread::spawn(move || worker.rouse().unwrap())
            };
            worker.stop();
            worker.join();
            other.join().unwrap();
            assert!(lock(&worker.state).thread.is_none());
        });
    }
}

#[test]
fn each_of_these_models_can_fail() {
    const END: &str =
        "commit::worker::model::rouse_is_seen_by_a_thread_that_is_about_to_end_or_starts_another";
    models::assert_each_fails(&[(END, Mutant::ThreadEndsUntold)]);
}
