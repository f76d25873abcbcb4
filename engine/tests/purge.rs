//! Purge of a store's log that is not open: it keeps what the checkpoints need.

use std::path::{Path, PathBuf};

use bulla_engine::{
    CheckpointError, Error, Level, Store, StoreOptions, Token, TokenId, checkpoints, preview_purge,
    purge,
};
use bulla_recovery::{Inspection, PurgeReport};
use bulla_storage::files::purge::Floor;
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Log, Lsn, Options, Position, Seq};

const DIR: &str = "/store";
const RECORDS: u32 = 400;

fn options(disk: &SimDisk) -> Options {
    Options::simulated(disk).segment_len(16 * 1024)
}

fn open(disk: &SimDisk) -> Store {
    let options =
        StoreOptions::new().log(options(disk)).keep_log(true).checkpoint_close_bytes(None);
    Store::open(DIR, &options).expect("open")
}

/// Puts tokens whose weight says in which round that was.
fn fill(store: &Store, round: u32) {
    for id in 1..=RECORDS {
        let token = Token::builder(TokenId(id)).weight(round as f32).build().expect("valid");
        store.at(Level::Strict).put(&token).expect("put");
    }
}

/// Returns a disk with a store that has kept its whole log, and was killed.
fn store(checkpoints: u32) -> SimDisk {
    let disk = SimDisk::new(5);
    let store = open(&disk);
    fill(&store, 0);
    for round in 1..=checkpoints {
        store.checkpoint().expect("checkpoint");
        fill(&store, round);
    }
    disk.kill();
    drop(store);
    disk
}

fn assert_shows(disk: &SimDisk, round: u32) {
    let store = open(disk);
    assert_eq!(store.len(), RECORDS as usize);
    for token in store.iter().expect("read") {
        assert!((token.weight() - round as f32).abs() < 0.01, "{token:?}");
    }
}

fn preview(disk: &SimDisk, keep_from: impl Into<Position>) -> Result<PurgeReport, Error> {
    preview_purge(DIR, keep_from, &options(disk))
}

fn needed(error: &Error) -> Option<Lsn> {
    match error {
        Error::Checkpoint(CheckpointError::StillNeeded { needed, .. }) => Some(*needed),
        _ => None,
    }
}

/// The checkpoints' files, the older first.
fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files = disk.paths();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ckpt"));
    files.sort();
    files
}

#[test]
fn purge_of_a_store_stops_at_its_older_checkpoint() {
    let disk = store(3);
    let found = checkpoints(DIR, &options(&disk), false).expect("checkpoints");
    let older = found[1].state.as_ref().expect("intact").lsn;
    let newest = found[0].state.as_ref().expect("intact").lsn;
    let refused = bulla_recovery::purge(DIR, newest, &options(&disk)).expect_err("it is a store");
    assert!(matches!(refused, bulla_wal::Error::OtherContent { .. }), "{refused:?}");
    let refused = purge(DIR, newest, &options(&disk)).expect_err("the older one needs it");
    let needed = needed(&refused).expect("it says what is needed");
    assert!(needed <= older && older < newest, "{needed}, {older}, {newest}");
    assert_eq!(preview(&disk, Position::End).expect("preview").first_lsn, needed);
    let report = purge(DIR, needed, &options(&disk)).expect("purge");
    assert_eq!(report.first_lsn, needed);
    assert!(report.entries > 0 && !report.segments.is_empty());
    assert!(purge(DIR, Position::End, &options(&disk)).expect("again").segments.is_empty());
    // Either checkpoint is enough.
    for damaged in files(&disk) {
        let disk = disk.fork(1);
        disk.kill();
        disk.flip(damaged, 60, 1);
        assert_shows(&disk, 3);
    }
    assert_shows(&disk, 3);
}

#[test]
fn store_with_fewer_than_two_checkpoints_needs_its_whole_log() {
    for count in [0, 1] {
        let disk = store(count);
        let refused = purge(DIR, Seq(300), &options(&disk)).expect_err("it is all there is");
        assert_eq!(needed(&refused), Some(Lsn(0)), "{refused:?}");
        let refused = preview(&disk, Seq(300)).expect_err("it is all there is");
        assert_eq!(needed(&refused), Some(Lsn(0)), "{refused:?}");
        assert!(purge(DIR, Seq(1), &options(&disk)).expect("nothing").segments.is_empty());
        assert!(purge(DIR, Position::End, &options(&disk)).expect("nothing").segments.is_empty());
        assert_shows(&disk, count);
    }
}

#[test]
fn one_usable_checkpoint_of_a_purged_log_keeps_what_follows_it() {
    let disk = store(2);
    purge(DIR, Position::End, &options(&disk)).expect("purge");
    disk.flip(&files(&disk)[0], 60, 1);
    let report = purge(DIR, Position::End, &options(&disk)).expect("purge");
    assert!(!report.segments.is_empty());
    assert_shows(&disk.fork(1), 2);
    // Without any the store can't be opened, and a purge can only make that worse.
    disk.flip(&files(&disk)[1], 60, 1);
    let refused = purge(DIR, Position::End, &options(&disk)).expect_err("no checkpoint is left");
    assert!(matches!(refused, Error::Checkpoint(CheckpointError::Missing { .. })), "{refused:?}");
}

#[test]
fn log_that_is_no_store_is_purged_as_asked() {
    let disk = SimDisk::new(6);
    let log = Log::create(Path::new(DIR), &options(&disk)).expect("create");
    for _ in 0..200 {
        let receipt = log.append_with(7, &[7; 400], Level::Strict).expect("append");
        log.wait(receipt).expect("wait");
    }
    log.close().expect("close");
    let preview = preview(&disk, Seq(150)).expect("preview");
    let report = purge(DIR, Seq(150), &options(&disk)).expect("purge");
    assert!(report.first_seq <= Seq(150) && report.first_seq > Seq(100), "{report:?}");
    assert_eq!(preview.segments, report.segments);
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    assert_eq!(inspection.report().first_seq, report.first_seq);
    let floor = Floor { lsn: report.first_lsn, segment: inspection.segments()[0].number };
    let kept = inspection.preview_purge(Position::End, &[floor]).expect("preview");
    assert!(kept.segments.is_empty());
}

#[test]
fn purge_of_a_store_needs_no_space() {
    let disk = store(3);
    disk.set_capacity(Some(0));
    let report = purge(DIR, Position::End, &options(&disk)).expect("purge");
    assert!(!report.segments.is_empty());
    disk.set_capacity(None);
    assert_shows(&disk, 3);
}
