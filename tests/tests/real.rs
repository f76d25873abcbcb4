//! A log, and a store, on real file systems that are cut, full or read-only. `BULLA_CUTS` sets how many
//! cuts; `cargo run --release -p bulla-tests --bin cuts` makes many.

use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use bulla_recovery::{Inspection, Range, Recovery, Status};
use bulla_tests::cuts;
use bulla_tests::image::{Image, Mount};
use bulla_wal::{Error, Level, Log, Options, Seq};

const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// A file system, unless this machine refuses to make one.
fn image(name: &str, len: u64) -> Option<Image> {
    Image::new(name, len).inspect_err(|reason| bulla_tests::skipped(reason)).ok()
}

fn cuts_asked() -> u64 {
    std::env::var("BULLA_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn options() -> Options {
    Options::new().segment_len(256 * 1024).ring_len(64 * 1024)
}

#[test]
fn acknowledged_entries_survive_cuts_of_a_real_file_system() {
    let Some(mut image) = image("cuts", 64 * MIB) else { return };
    let tally = cuts::run(&mut image, 1, cuts_asked(), false).unwrap();
    println!("{tally:#?}");
    assert!(tally.strict > 0 && tally.balanced > 0 && tally.lost > 0, "{tally:#?}");
}

#[test]
fn syncs_that_are_left_out_do_not_survive_a_cut() {
    let Some(mut image) = image("lies", 64 * MIB) else { return };
    let found = cuts::run(&mut image, 1, 100, true).unwrap_err();
    assert!(found.contains("durable"), "{found}");
}

#[test]
fn store_survives_cuts_of_a_real_file_system() {
    let Some(mut image) = image("store-cuts", 64 * MIB) else { return };
    let tally = cuts::store::run(&mut image, 1, cuts_asked(), false).unwrap();
    println!("{tally:#?}");
    assert!(tally.strict > 0 && tally.lost > 0, "{tally:#?}");
    assert!(tally.checkpoints > 0 && tally.opened_from_checkpoints > 0, "{tally:#?}");
}

#[test]
fn store_whose_syncs_are_left_out_does_not_survive_a_cut() {
    let Some(mut image) = image("store-lies", 64 * MIB) else { return };
    let found = cuts::store::run(&mut image, 1, 100, true).unwrap_err();
    assert!(found.contains("durable") || found.contains("is refused"), "{found}");
}

#[test]
fn full_real_file_system_refuses_appends_until_there_is_space_again() {
    let Some(image) = image("full", 16 * MIB) else { return };
    let dir = image.root().join("log");
    let log = Log::create(&dir, &options()).unwrap();
    let mut appended = 0;
    let mut append = |log: &Log| {
        let result = log.append_with(1, &[7; 4096], Level::Strict).map(|receipt| {
            appended += 1;
            log.wait(receipt).unwrap();
        });
        match result {
            Ok(()) => true,
            Err(Error::NoSpace(_)) => false,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(append(&log));
    for frees_by_purge in [false, true] {
        let filler = image.root().join("filler");
        fill(&filler);
        let start = Instant::now();
        while append(&log) {
            assert!(start.elapsed() < PATIENCE, "the disk is never full");
        }
        let seen = entries(&dir);
        if frees_by_purge {
            let before = log.low_water();
            assert!(log.purge(log.durable()).unwrap() > before);
        } else {
            fs::remove_file(&filler).unwrap();
        }
        assert!(seen > 0, "a full disk can be read");
        while !append(&log) {
            assert!(start.elapsed() < PATIENCE, "space is back, and appends are refused");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_file(&filler);
    }
    let next = log.stats().entries;
    log.close().unwrap();
    let recovery = Recovery::run(&dir, &options()).unwrap();
    assert_eq!(recovery.report().next_seq.0, next + 1, "all that was acknowledged is there");
    assert_eq!(appended, next);
}

#[test]
fn log_on_a_full_real_file_system_opens_after_a_purge_without_an_open() {
    let Some(image) = image("full-open", 16 * MIB) else { return };
    let dir = image.root().join("log");
    let log = Log::create(&dir, &options()).unwrap();
    for _ in 0..500 {
        let receipt = log.append_with(1, &[7; 4096], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    log.close().unwrap();
    fill(&image.root().join("filler"));
    let refused = Log::open(&dir, &options()).map(drop).unwrap_err();
    assert!(matches!(refused, Error::NoSpaceToOpen { .. }), "{refused:?}");
    assert_eq!(entries(&dir), 500, "a full disk can be read");
    let purged = bulla_recovery::purge(&dir, Seq(400), &options()).unwrap();
    assert!(purged.first_seq <= Seq(400) && purged.entries > 300, "{purged:?}");
    let (log, report) = Log::open(&dir, &options()).unwrap();
    assert_eq!((report.first_seq, report.next_seq), (purged.first_seq, Seq(501)));
    let receipt = log.append_with(1, b"on a full disk", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    log.close().unwrap();
    assert_eq!(entries(&dir), 502 - purged.first_seq.0);
}

#[test]
fn log_is_created_on_a_real_file_system_once_there_is_space() {
    let Some(image) = image("full-create", 16 * MIB) else { return };
    let dir = image.root().join("log");
    let filler = image.root().join("filler");
    fill(&filler);
    // Twice: what the first try left is not in the way of the second.
    for _ in 0..2 {
        let refused = Log::open(&dir, &options()).map(drop).unwrap_err();
        assert!(matches!(refused, Error::NotCreated { .. }), "{refused:?}");
        assert!(refused.is_out_of_space() && !dir.join("CONTROL").exists(), "{refused:?}");
    }
    fs::remove_file(&filler).unwrap();
    let (log, _) = Log::open(&dir, &options().sector(8192)).unwrap();
    log.wait(log.append_with(1, b"kept", Level::Strict).unwrap()).unwrap();
    log.close().unwrap();
    assert_eq!(entries(&dir), 1);
}

#[test]
fn log_is_created_once_there_are_inodes() {
    let Ok(mut mount) = Mount::in_memory("inodes", "size=64m,nr_inodes=32")
        .inspect_err(|reason| bulla_tests::skipped(reason))
    else {
        return;
    };
    let root = mount.root();
    let mut fillers: Vec<_> = (0..).map(|n| root.join(format!("filler-{n}"))).take(100).collect();
    let made = fillers.iter().take_while(|path| File::create(path).is_ok()).count();
    fillers.truncate(made);
    let dir = root.join("log");
    let mut refused = 0;
    loop {
        match Log::open(&dir, &options()) {
            Ok((log, _)) => {
                log.wait(log.append_with(1, b"kept", Level::Strict).unwrap()).unwrap();
                log.close().unwrap();
                break;
            }
            Err(error) => {
                assert!(matches!(error, Error::NotCreated { .. }), "{error:?}");
                assert!(error.is_out_of_space(), "{error:?}");
                refused += 1;
            }
        }
        fs::remove_file(fillers.pop().unwrap()).unwrap();
    }
    assert!(refused >= 3, "the directory, LOCK and CONTROL each need one: {refused}");
    assert_eq!(entries(&dir), 1);
    mount.unmount().unwrap();
}

#[test]
fn read_only_file_system_is_read_and_never_changed() {
    let Some(mut image) = image("read-only", 16 * MIB) else { return };
    let dir = image.root().join("log");
    let log = Log::create(&dir, &options()).unwrap();
    for _ in 0..10 {
        let receipt = log.append_with(1, b"kept", Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    log.close().unwrap();
    image.unmount().unwrap();
    image.mount(true).unwrap();
    assert_eq!(entries(&dir), 10);
    let refused = Recovery::run(&dir, &options()).map(drop).unwrap_err();
    let is_read_only =
        |error: &std::io::Error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem;
    assert!(matches!(&refused, Error::Io { source, .. } if is_read_only(source)), "{refused:?}");
    image.unmount().unwrap();
    image.mount(false).unwrap();
    let recovery = Recovery::run(&dir, &options()).unwrap();
    assert_eq!((recovery.report().entries, &recovery.report().status), (10, &Status::Clean));
}

/// Writes a file until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for len in [256 * 1024, 4096] {
        while file.write_all(&vec![1; len]).and_then(|()| file.sync_data()).is_ok() {}
    }
}

/// How many entries a look shows.
fn entries(dir: &Path) -> u64 {
    let inspection = Inspection::read(dir, &options()).unwrap();
    let mut count = 0;
    inspection
        .replay(Range::ALL, |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}
