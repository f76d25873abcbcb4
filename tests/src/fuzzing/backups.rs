//! Any bytes as the file of a hold of a log, or as the manifest of a backup of it: nothing is
//! believed that no checksum confirms, and nothing is purged or restored because of it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_recovery::backup::{BackupOptions, RestoreOptions, backup, restore};
use bulla_recovery::{Inspection, Range};
use bulla_storage::files::control;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::holds::{self, Holds, Place};
use bulla_storage::files::purge::Floor;
use bulla_storage::format::{HoldRecord, Manifest};
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Error, Level, Log, Lsn, Options, Position};

const LOG: &str = "/log";
const BACKUP: &str = "/backup";
const TARGET: &str = "/target";
const HOLD: &str = "fuzzed";
/// Entries of the log: a few segments.
const ENTRIES: u8 = 60;
/// Where the checksum is in a file of either kind, and what it covers.
const CRC: std::ops::Range<usize> = 8..12;

/// What an input was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Believed {
    /// Damaged, or of something else: nothing was purged or restored.
    Refused,
    /// A hold of this log.
    Hold,
    /// A manifest; the backup was restored.
    Manifest,
    /// A manifest that does not fit the other files of the backup.
    Misfit,
}

/// The log, and a backup of it.
fn world() -> SimDisk {
    let disk = SimDisk::new(1);
    let options = Options::simulated(&disk);
    let log = Log::create(LOG, &options).expect("created");
    for entry in 0..ENTRIES {
        let receipt = log.append_with(1, &[entry; 700], Level::Strict).expect("appended");
        log.wait(receipt).expect("durable");
    }
    log.close().expect("closed");
    let to_backup = BackupOptions::new().log(options);
    backup(Path::new(LOG), Path::new(BACKUP), &to_backup, |_| Ok(Vec::new())).expect("taken");
    let dir = Directory::open(disk.process().as_ref(), Path::new(LOG)).expect("opened");
    let io = disk.process();
    let holds = Holds::lock(&dir, io.as_ref(), std::time::Duration::ZERO).expect("locked");
    let place = Place { floor: Floor::at(Lsn(9 * 1024)), quota_bytes: 1 << 30 };
    holds.take(HOLD, place).expect("taken");
    disk
}

fn hold_path() -> PathBuf {
    Path::new(LOG).join(holds::FOLDER).join(format!("{HOLD}.hold"))
}

fn manifest_path() -> PathBuf {
    Path::new(BACKUP).join("MANIFEST")
}

/// Inputs that are believed.
#[must_use]
pub fn backup_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let disk = world();
    let seed = |kind: u8, path: PathBuf| [&[kind], &disk.read_file(path)[..]].concat();
    vec![("hold", seed(0, hold_path())), ("manifest", seed(1, manifest_path()))]
}

/// Makes the checksum of an input of [`backup_file`] fit, so that what it guards is reached.
pub fn mend_backup(input: &mut [u8]) {
    let Some(bytes) = input.get_mut(1..).filter(|bytes| bytes.len() >= CRC.end) else { return };
    let crc = crc32fast::hash(&bytes[CRC.end..]);
    bytes[CRC].copy_from_slice(&crc.to_le_bytes());
}

/// Puts an input into its place: its first byte says which.
///
/// # Panics
/// When what is not confirmed is believed, or what is believed is not what the bytes say.
pub fn backup_file(input: &[u8]) -> Believed {
    let Some((kind, bytes)) = input.split_first() else { return Believed::Refused };
    if kind % 2 == 0 { hold(bytes) } else { manifest(bytes) }
}

fn hold(bytes: &[u8]) -> Believed {
    let decoded = HoldRecord::decode(bytes);
    if let Ok(record) = &decoded {
        assert!(record.encode() == bytes, "{record:?} is not what was decoded");
    }
    let disk = world();
    disk.write_file(hold_path(), bytes);
    let options = Options::simulated(&disk);
    let dir = Directory::open(options.io.as_ref(), Path::new(LOG)).expect("opened");
    let control = control::read(&dir).expect("intact");
    let listed = holds::list(&dir, &control).expect("listed");
    let [found] = &listed[..] else { panic!("{listed:?}") };
    let is_ours = decoded.as_ref().is_ok_and(|record| record.log_id == control.log_id);
    assert_eq!(found.hold.is_ok(), is_ours, "{found:?}");
    let before = files(&disk);
    let purged = bulla_recovery::purge(LOG, Position::End, &options);
    let Ok(hold) = &found.hold else {
        assert!(matches!(purged, Err(Error::HoldDamaged { .. })), "{purged:?}");
        // Its lock and its CONTROL, which are as they were, are all that it opened.
        assert!(files(&disk) == before, "a purge went on beside a damaged hold");
        return Believed::Refused;
    };
    let purged = purged.expect("the hold is intact");
    let is_broken = hold.broken_ns.is_some() || !purged.broken.is_empty();
    assert!(is_broken || purged.first_lsn <= hold.floor.lsn, "{purged:?} beside {hold:?}");
    Believed::Hold
}

fn manifest(bytes: &[u8]) -> Believed {
    let decoded = Manifest::decode(bytes);
    if let Ok(manifest) = &decoded {
        assert!(manifest.encode() == bytes, "{manifest:?} is not what was decoded");
    }
    let disk = world();
    disk.write_file(manifest_path(), bytes);
    let options = Options::simulated(&disk);
    let to_restore = RestoreOptions::new().log(options.clone());
    match restore(Path::new(BACKUP), Path::new(TARGET), &to_restore) {
        Err(_) => {
            let made = files(&disk);
            let made = made.iter().any(|(path, _)| path.ends_with("target/CONTROL"));
            assert!(!made, "what was refused left a log");
            if decoded.is_ok() { Believed::Misfit } else { Believed::Refused }
        }
        Ok(_) => {
            assert!(decoded.is_ok(), "a manifest that is damaged was restored");
            let inspection = Inspection::read(Path::new(TARGET), &options).expect("a log");
            let mut next = 0;
            let read = inspection.replay(Range::ALL, |entry| {
                assert_eq!(entry.payload, [next; 700], "entry {next}");
                next += 1;
                ControlFlow::Continue(())
            });
            read.expect("what was restored can be read");
            Believed::Manifest
        }
    }
}

fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |path: PathBuf| (path.clone(), disk.read_file(path));
    disk.paths().into_iter().map(file).collect()
}
