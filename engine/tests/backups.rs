//! Holds and backups of a store that is open.

use bulla_engine::{
    BackupError, BackupOptions, Level, RestoreOptions, Store, TokenId, backup, restore,
};
use bulla_storage::files::control;
use bulla_storage::files::dir::Directory;
use bulla_storage::io::std::StdIo;
use bulla_wal::{Error as LogError, Lsn, Seq};
use tempfile::TempDir;

use crate::common::{options, temp_dir, token};

/// Records that fill a few segments.
const RECORDS: u32 = 400;

fn fill(store: &Store, weight: f32) {
    for id in 1..=RECORDS {
        store.at(Level::Balanced).put(&token(id, weight)).expect("put");
    }
    store.checkpoint().expect("a checkpoint");
}

fn first_lsn(dir: &TempDir) -> Lsn {
    let dir = Directory::open(&StdIo::new(), dir.path()).expect("opened");
    control::read(&dir).expect("CONTROL").low_water.lsn
}

#[test]
fn checkpoints_purge_no_log_that_a_hold_keeps() {
    let dir = temp_dir("holds");
    let store = Store::open(dir.path(), &options()).expect("opened");
    let guard = store.hold(Lsn(0)).expect("nothing is purged");
    for weight in [1.0, 2.0, 3.0] {
        fill(&store, weight);
    }
    assert_eq!(first_lsn(&dir), Lsn(0));
    store.hold_named("replica", Lsn(0), u64::MAX).expect("taken");
    drop(guard);
    fill(&store, 4.0);
    assert_eq!(first_lsn(&dir), Lsn(0));
    let broken = store.hold_named("forgotten", Lsn(0), 1024).expect("taken");
    store.advance_hold("replica", Lsn(u64::MAX)).expect("it holds");
    fill(&store, 5.0);
    assert!(first_lsn(&dir) > Lsn(0), "one keeps too much, the other one nothing");
    let told = store.advance_hold(&broken.name, Lsn(1));
    assert!(matches!(told, Err(bulla_engine::Error::Log(LogError::HoldBroken { .. }))), "{told:?}");
    store.release_hold("forgotten").expect("it is there");
    assert_eq!(store.holds().expect("listed").len(), 1);
    store.close().expect("closed");
}

#[test]
fn backup_of_an_open_store_has_its_newest_whole_checkpoint() {
    let (dir, other) = (temp_dir("backup"), temp_dir("restored"));
    let store = Store::open(dir.path(), &options()).expect("opened");
    for weight in [1.0, 2.0, 3.0] {
        fill(&store, weight);
    }
    store.at(Level::Strict).put(&token(1, 4.0)).expect("put");
    let copy = other.path().join("backup");
    let report = backup(dir.path(), &copy, &BackupOptions::new()).expect("backed up");
    assert!(report.first_lsn > Lsn(0), "the log was purged");
    assert_eq!(report.checkpoint, Some(3));
    store.close().expect("closed");

    let restored = other.path().join("store");
    let report = restore(&copy, &restored, &RestoreOptions::new()).expect("restored");
    assert_eq!(report.checkpoints, [3]);
    let store: Store = Store::open(&restored, &options()).expect("opened");
    assert_eq!(store.opened_from().checkpoint.map(|found| found.number), Some(3));
    for (id, weight) in [(1, 4.0), (2, 3.0), (RECORDS, 3.0)] {
        let found = store.get(TokenId(id)).expect("read").expect("it is there");
        assert!((found.weight() - weight).abs() < f32::EPSILON, "{id}: {found:?}");
    }
    store.close().expect("closed");

    // Before its only checkpoint there is nothing to begin with.
    let early = RestoreOptions::new().to(Seq(report.next_seq.0 - u64::from(RECORDS)));
    let refused = restore(&copy, other.path().join("early"), &early);
    let is_told =
        matches!(refused, Err(BackupError::NoCheckpoint { .. } | BackupError::OutOfRange { .. }));
    assert!(is_told, "{refused:?}");

    // One that is damaged is not copied.
    let newest = dir.path().join("checkpoints/00000000000000000003.ckpt");
    let mut bytes = std::fs::read(&newest).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
    let report = backup(dir.path(), other.path().join("again"), &BackupOptions::new());
    assert_eq!(report.expect("backed up").checkpoint, Some(2));
}
