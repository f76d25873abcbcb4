//! Devices that deceive: what the log notices, and what nothing on the disk can tell. Each test
//! is a row of `docs/FAULT_MODEL.md`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use bulla_engine::{Error as StoreError, Store, StoreOptions, Token, TokenId};
use bulla_recovery::{Range, Recovery};
use bulla_storage::io::sim::{Lie, SimConfig, SimDisk};
use bulla_wal::{Error, Level, Log, Method, Options};

const DIR: &str = "/log";
/// The segment that every test writes to.
const SEGMENT: &str = "00000000000000000001.seg";
/// Fewer than fill it.
const ENTRIES: u8 = 12;

fn options(disk: &SimDisk, method: Method) -> Options {
    Options::simulated(disk).method(method)
}

/// A log with durable entries; the device lies about one of the operations after its creation.
fn written(lie: Lie, after: u64, method: Method) -> (SimDisk, Log) {
    let disk = SimDisk::new(after);
    let log = Log::create(Path::new(DIR), &options(&disk, method)).unwrap();
    disk.lie_next(lie, SEGMENT, after);
    for entry in 0..ENTRIES {
        let receipt = log.append_with(1, &[entry; 600], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    (disk, log)
}

/// How many entries a recovery shows; they must be the first that were appended.
fn shown(disk: &SimDisk, method: Method) -> Result<u64, bulla_recovery::Error> {
    let recovery = Recovery::run(Path::new(DIR), &options(disk, method))?;
    let mut next = 0;
    recovery.replay(Range::ALL, |entry| {
        assert_eq!(entry.seq.0, next + 1);
        assert_eq!(entry.payload, [next as u8; 600]);
        next += 1;
        ControlFlow::Continue(())
    })?;
    Ok(next)
}

fn is_corruption<T>(result: &Result<T, bulla_recovery::Error>) -> bool {
    matches!(result, Err(Error::Corrupt(_)))
}

#[test]
fn write_that_is_lost_or_goes_astray_is_refused_once_a_later_mark_covers_it() {
    for lie in [Lie::LostWrite, Lie::MisdirectedWrite] {
        for method in [Method::Direct, Method::Buffered] {
            // The last frame's durable mark covers it.
            for after in 0..u64::from(ENTRIES) - 1 {
                let (disk, log) = written(lie, after, method);
                assert!(disk.is_honest(), "the lie was told");
                log.close().unwrap();
                let result = shown(&disk, method);
                assert!(is_corruption(&result), "{lie:?} of write {after}: {result:?}");
            }
        }
    }
}

#[test]
fn lost_write_that_no_mark_covers_looks_like_a_torn_tail() {
    for method in [Method::Direct, Method::Buffered] {
        let last = u64::from(ENTRIES) - 1;
        let (disk, log) = written(Lie::LostWrite, last, method);
        disk.kill();
        drop(log);
        // Strict was acknowledged: this is what the residual costs.
        assert_eq!(shown(&disk, method).unwrap(), last);
    }
}

#[test]
fn bit_that_rots_on_its_way_is_an_error_or_nothing_and_never_changes_a_closed_log() {
    let (mut refused, mut told) = (0, 0);
    for after in 0.. {
        let (disk, log) = written(Lie::RottenRead, u64::MAX, Method::Direct);
        log.close().unwrap();
        disk.clear_faults();
        disk.lie_next(Lie::RottenRead, ".seg", after);
        let first = shown(&disk, Method::Direct);
        if !disk.is_honest() {
            break;
        }
        told += 1;
        match &first {
            Ok(entries) => assert_eq!(*entries, u64::from(ENTRIES)),
            other => assert!(is_corruption(other), "read {after}: {other:?}"),
        }
        refused += u64::from(first.is_err());
        assert_eq!(shown(&disk, Method::Direct).unwrap(), u64::from(ENTRIES), "read {after}");
    }
    assert!(refused > 0 && told > refused, "{refused} of {told}");
}

#[test]
fn device_that_ignores_syncs_loses_acknowledged_entries_and_shows_no_wrong_ones() {
    let (mut lost, mut refused) = (0, 0);
    for seed in 0..200 {
        for method in [Method::Direct, Method::Buffered] {
            let config = SimConfig { lost_sync_ppm: 1_000_000, ..SimConfig::default() };
            let disk = SimDisk::with_config(seed, config);
            let log = Log::create(Path::new(DIR), &options(&disk, method)).unwrap();
            disk.settle();
            for entry in 0..ENTRIES {
                let receipt = log.append_with(1, &[entry; 600], Level::Strict).unwrap();
                log.wait(receipt).unwrap();
            }
            disk.power_loss();
            drop(log);
            match shown(&disk, method) {
                Ok(entries) => lost += u64::from(entries < u64::from(ENTRIES)),
                // A durable mark that survived tells.
                Err(Error::Corrupt(_)) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(lost > 0 && refused > 0, "{lost} lost silently, {refused} refused");
}

#[test]
fn lie_about_control_loses_nothing_or_is_refused() {
    let (mut told, mut refused) = (0, 0);
    for lie in [Lie::LostWrite, Lie::MisdirectedWrite, Lie::LostSync] {
        for method in [Method::Direct, Method::Buffered] {
            for after in 0.. {
                let disk = SimDisk::new(after);
                disk.lie_next(lie, "CONTROL", after);
                // A creation, an open that begins an epoch, and a purge write it.
                let Ok(log) = Log::create(Path::new(DIR), &options(&disk, method)) else { break };
                let receipt = log.append_with(1, &[0; 600], Level::Strict).unwrap();
                log.wait(receipt).unwrap();
                log.close().unwrap();
                let Ok(recovery) = Recovery::run(Path::new(DIR), &options(&disk, method)) else {
                    refused += 1;
                    continue;
                };
                let log = Log::start(recovery.into_recovered()).unwrap();
                for entry in 1..ENTRIES {
                    let receipt = log.append_with(1, &[entry; 600], Level::Strict).unwrap();
                    log.wait(receipt).unwrap();
                }
                disk.power_loss();
                drop(log);
                if !disk.is_honest() {
                    break;
                }
                told += 1;
                match shown(&disk, method) {
                    Ok(entries) => assert_eq!(entries, u64::from(ENTRIES), "{lie:?}, {after}"),
                    Err(Error::Corrupt(_)) => refused += 1,
                    Err(error) => panic!("{lie:?}, {after}: {error:?}"),
                }
            }
        }
    }
    assert!(told > refused && refused > 0, "{told} lies, {refused} refused");
}

/// What a store showed, or should.
type Map = BTreeMap<u32, Token>;

fn store_options(disk: &SimDisk) -> StoreOptions {
    let log = options(disk, Method::Direct).ring_len(32 * 1024);
    StoreOptions::new().log(log).checkpoint_close_bytes(None)
}

/// Puts, all durable, with a checkpoint after each of a few of them; returns what the store held
/// after each put.
fn lived(disk: &SimDisk) -> Result<Vec<Map>, StoreError> {
    let store = Store::open(Path::new(DIR), &store_options(disk))?;
    disk.settle();
    let mut moments = vec![Map::new()];
    for number in 0..24 {
        // Two records in each of some pages; three slabs.
        let id = number % 3 * 50_000 + number % 8 * 40 + 1;
        let token = Token::builder(TokenId(id)).weight(number as f32).build().unwrap();
        store.at(Level::Strict).put(&token)?;
        let mut map = moments.last().unwrap().clone();
        map.insert(id, token);
        moments.push(map);
        if number % 6 == 5 {
            store.checkpoint()?;
        }
    }
    Ok(moments)
}

fn held(disk: &SimDisk) -> Result<Map, StoreError> {
    let store = Store::open(Path::new(DIR), &store_options(disk))?;
    Ok(store.iter()?.map(|token| (token.id().0, token)).collect())
}

#[test]
fn lie_about_a_checkpoint_costs_nothing() {
    let mut told = 0;
    for lie in [Lie::LostWrite, Lie::MisdirectedWrite, Lie::LostSync, Lie::RottenRead] {
        for after in 0.. {
            let disk = SimDisk::new(after);
            if lie != Lie::RottenRead {
                disk.lie_next(lie, ".ckpt", after);
            }
            let moments = lived(&disk).unwrap();
            disk.power_loss();
            if lie == Lie::RottenRead {
                disk.lie_next(lie, ".ckpt", after);
            }
            let held = held(&disk).unwrap();
            if !disk.is_honest() {
                break;
            }
            told += 1;
            assert_eq!(Some(&held), moments.last(), "{lie:?}, {after}");
        }
    }
    assert!(told > 20, "{told} lies");
}

#[test]
fn store_on_a_device_that_ignores_syncs_shows_what_it_held_once_or_is_refused() {
    let (mut shown, mut refused) = (0, 0);
    for seed in 0..400 {
        let config = SimConfig { lost_sync_ppm: 1_000_000, ..SimConfig::default() };
        let disk = SimDisk::with_config(seed, config);
        let moments = lived(&disk).unwrap();
        disk.power_loss();
        match held(&disk) {
            Ok(held) => {
                assert!(moments.contains(&held), "seed {seed}: {held:?}");
                shown += 1;
            }
            Err(StoreError::Checkpoint(_) | StoreError::Log(_)) => refused += 1,
            Err(error) => panic!("seed {seed}: {error:?}"),
        }
    }
    assert!(shown > 0 && refused > 0, "{shown} shown, {refused} refused");
}
