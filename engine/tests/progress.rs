//! What an open of a store tells while it reads, and how it is cancelled.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bulla_engine::{Error, Level, Store, StoreInspection, StoreOptions, Token, TokenId};
use bulla_storage::Options;
use bulla_storage::io::sim::SimDisk;
use bulla_storage::progress::{Phase, Progress};

const DIR: &str = "/store";
const RECORDS: u32 = 20_000;

fn log(disk: &SimDisk) -> Options {
    Options::simulated(disk).segment_len(1 << 20).ring_len(1 << 20)
}

fn killed_store() -> SimDisk {
    let disk = SimDisk::new(4);
    let options = StoreOptions::new().log(log(&disk)).checkpoint_close_bytes(None);
    let store = Store::open(DIR, &options).expect("create");
    for id in 1..=RECORDS {
        let token = Token::builder(TokenId(id)).build().expect("in range");
        store.at(Level::Relaxed).put(&token).expect("put");
    }
    store.sync().expect("sync");
    disk.kill();
    disk
}

#[test]
fn replay_is_told_after_the_scan_and_to_its_end() {
    let disk = killed_store();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let log = log(&disk).on_progress(move |progress| {
        seen.lock().expect("no panic").push(progress);
        ControlFlow::Continue(())
    });
    let store = Store::open(DIR, &StoreOptions::new().log(log)).expect("open");
    assert_eq!(store.len(), RECORDS as usize);
    let told = told.lock().expect("no panic");
    let first = told.iter().position(|progress| progress.phase == Phase::Replay);
    let (scan, replay) = told.split_at(first.expect("a replay"));
    assert!(scan.len() > 1 && replay.len() > 1, "{told:?}");
    assert!(replay.is_sorted_by_key(|progress| progress.done), "{replay:?}");
    assert!(replay.iter().all(|progress| progress.phase == Phase::Replay), "{replay:?}");
    assert!(replay.last().is_some_and(|last| last.done == last.total), "{replay:?}");
}

#[test]
fn store_that_is_cancelled_while_it_replays_loses_nothing() {
    let disk = killed_store();
    let cancelling = || {
        log(&disk).on_progress(|Progress { phase, .. }| match phase {
            Phase::Replay => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    };
    let inspected = StoreInspection::read(DIR, &cancelling());
    assert!(matches!(inspected, Err(Error::Log(bulla_wal::Error::Cancelled))), "{inspected:?}");
    let opened = Store::open(DIR, &StoreOptions::new().log(cancelling()));
    assert!(matches!(opened, Err(Error::Log(bulla_wal::Error::Cancelled))), "{opened:?}");
    let store = Store::open(DIR, &StoreOptions::new().log(log(&disk))).expect("it is unlocked");
    assert_eq!(store.len(), RECORDS as usize);
}
