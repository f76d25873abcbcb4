//! What operators do to a directory that a program has open: move it, put another into its
//! place, remove its lock file, run as another user.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bulla_engine::{Store, StoreOptions, Token, TokenId};
use bulla_recovery::{Inspection, Recovery};
use bulla_tests::image::Mount;
use bulla_tests::real_threads::{backends, small};
use bulla_tests::{skipped, temp_dir};
use bulla_wal::{Error, Level, Log, Lsn, Options, Visibility};

/// Enough for several rotations.
const ENTRIES: u64 = 300;
const PAYLOAD: [u8; 1_000] = [7; 1_000];

fn token(id: u32) -> Token {
    Token::builder(TokenId(id)).build().unwrap()
}

fn append(log: &Log, entries: u64) {
    for _ in 0..entries {
        log.wait(log.append_with(1, &PAYLOAD, Level::Strict).unwrap()).unwrap();
    }
}

/// The files of a directory with their contents.
fn contents(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut all: Vec<_> =
        files.map(|file| (file.file_name(), std::fs::read(file.path()).unwrap())).collect();
    all.sort();
    all
}

fn other_log(path: &Path) {
    let log = Log::create(path, &small()).unwrap();
    append(&log, ENTRIES);
    log.close().unwrap();
}

#[test]
fn log_whose_directory_is_moved_goes_on_there() {
    for io in backends() {
        let dir = temp_dir("moved");
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.old"));
        let log = Log::create(&path, &small().io(io.clone())).unwrap();
        append(&log, 20);
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        append(&log, ENTRIES);
        let mut reader = log.reader(.., Visibility::Durable).unwrap();
        let mut read = 0;
        while reader.next().unwrap().is_some() {
            read += 1;
        }
        assert_eq!(read, 20 + ENTRIES);
        log.purge(log.durable()).unwrap();
        append(&log, 20);
        log.close().unwrap();
        assert!(contents(&path).is_empty(), "nothing was put into the new directory");
        let recovery = Recovery::run(&moved, &small()).unwrap();
        assert_eq!(recovery.report().next_seq.0, 41 + ENTRIES, "on {}", io.name());
    }
}

#[test]
fn purge_of_a_moved_log_leaves_the_log_in_its_place_alone() {
    let dir = temp_dir("purges");
    let (path, moved) = (dir.path().join("log"), dir.path().join("log.old"));
    let log = Log::create(&path, &small()).unwrap();
    append(&log, ENTRIES);
    std::fs::rename(&path, &moved).unwrap();
    other_log(&path);
    let other = contents(&path);
    assert!(log.purge(Lsn::MAX).unwrap() > Lsn(0));
    append(&log, ENTRIES);
    log.close().unwrap();
    assert!(contents(&path) == other, "a file of the other log was touched");
    let first = moved.join("00000000000000000001.seg");
    assert!(!first.exists(), "it purged its own segments");
    let recovery = Recovery::run(&path, &small()).unwrap();
    assert_eq!(recovery.report().entries, ENTRIES);
}

#[test]
fn log_opened_through_a_link_stays_in_the_directory_that_the_link_meant() {
    let dir = temp_dir("links");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let link = dir.path().join("log");
    std::fs::create_dir(&first).unwrap();
    symlink(&first, &link).unwrap();
    let log = Log::create(&link, &small()).unwrap();
    append(&log, 20);
    other_log(&second);
    let other = contents(&second);
    std::fs::remove_file(&link).unwrap();
    symlink(&second, &link).unwrap();
    append(&log, ENTRIES);
    log.purge(log.durable()).unwrap();
    log.close().unwrap();
    assert!(contents(&second) == other);
    let recovery = Recovery::run(&first, &small()).unwrap();
    assert_eq!(recovery.report().next_seq.0, 21 + ENTRIES);
}

/// A log goes on below what is mounted over its directory, and leaves that alone.
fn goes_on_below(name: &str, mount_over: impl Fn(&Path, &Path) -> Result<Mount, String>) {
    for io in backends() {
        let dir = temp_dir(name);
        let (path, second) = (dir.path().join("log"), dir.path().join("second"));
        std::fs::create_dir(&second).unwrap();
        let log = Log::create(&path, &small().io(io.clone())).unwrap();
        append(&log, 20);
        let mut mount = match mount_over(&path, &second) {
            Ok(mount) => mount,
            Err(reason) => return skipped(reason),
        };
        append(&log, 20);
        // Neither the lock nor anything else of it is in the way there.
        other_log(&path);
        let other = contents(&path);
        append(&log, ENTRIES);
        let mut reader = log.reader(.., Visibility::Durable).unwrap();
        let mut read = 0;
        while reader.next().unwrap().is_some() {
            read += 1;
        }
        assert_eq!(read, 40 + ENTRIES);
        assert!(log.purge(log.durable()).unwrap() > Lsn(0));
        log.hold_named("below", log.low_water(), 1 << 30).unwrap();
        append(&log, 20);
        drop(reader);
        log.close().unwrap();
        assert!(contents(&path) == other && !path.join("holds").exists());
        let recovery = Recovery::run(&path, &small()).unwrap();
        assert_eq!(recovery.report().entries, ENTRIES, "the log above on {}", io.name());
        drop(recovery);
        mount.unmount().unwrap();
        let recovery = Recovery::run(&path, &small()).unwrap();
        assert_eq!(recovery.report().next_seq.0, 61 + ENTRIES, "on {}", io.name());
    }
}

#[test]
fn log_over_whose_directory_a_file_system_is_mounted_goes_on_below_it() {
    goes_on_below("mounted", |path, _| Mount::in_memory_over(path, "size=64m"));
}

#[test]
fn log_over_whose_directory_another_one_is_mounted_goes_on_below_it() {
    goes_on_below("bound", Mount::bind_over);
}

#[test]
fn directory_that_has_two_paths_has_one_log_and_one_lock() {
    let dir = temp_dir("two-paths");
    let (path, second) = (dir.path().join("log"), dir.path().join("second"));
    std::fs::create_dir(&second).unwrap();
    let options = small().lock_timeout(Duration::ZERO);
    let log = Log::create(&path, &options).unwrap();
    append(&log, 20);
    let mut mount = match Mount::bind_over(&second, &path) {
        Ok(mount) => mount,
        Err(reason) => return skipped(reason),
    };
    let refused = Log::open(&second, &options).map(drop);
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    append(&log, ENTRIES);
    log.close().unwrap();
    let (log, report) = Log::open(&second, &options).unwrap();
    assert_eq!(report.entries, 20 + ENTRIES);
    log.close().unwrap();
    mount.unmount().unwrap();
}

#[test]
fn log_stays_where_it_is_although_a_link_on_its_path_is_replaced() {
    let dir = temp_dir("parents");
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let parent = dir.path().join("current");
    for path in [&first, &second] {
        std::fs::create_dir(path).unwrap();
    }
    symlink(&first, &parent).unwrap();
    let store = Store::open(parent.join("store"), &StoreOptions::new().log(small())).unwrap();
    store.at(Level::Strict).put(&token(1)).unwrap();
    let other = Store::open(second.join("store"), &StoreOptions::new().log(small())).unwrap();
    other.close().unwrap();
    let before = contents(&second.join("store"));
    // As a deployment does: the new link takes the place of the old one at once.
    let renewed = dir.path().join("renewed");
    symlink(&second, &renewed).unwrap();
    std::fs::rename(&renewed, &parent).unwrap();
    (2..400).for_each(|id| store.at(Level::Strict).put(&token(id)).unwrap());
    store.checkpoint().unwrap();
    store.close().unwrap();
    assert!(contents(&second.join("store")) == before);
    assert!(!second.join("store/checkpoints").exists());
    let store = Store::open(first.join("store"), &StoreOptions::new().log(small())).unwrap();
    assert!((1..400).all(|id| store.get(TokenId(id)).unwrap().is_some()));
}

/// Runs one of the tests below in a process of its own, whose working directory may change.
fn in_a_process(test: &str, dir: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture"]).current_dir(dir);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn program_that_changes_its_working_directory_keeps_its_log() {
    let dir = temp_dir("chdir");
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    other_log(&dir.path().join("elsewhere/ledger"));
    let other = contents(&dir.path().join("elsewhere/ledger"));
    in_a_process("operators::opens_a_relative_path_and_changes_the_directory", dir.path());
    assert!(contents(&dir.path().join("elsewhere/ledger")) == other);
    let recovery = Recovery::run(&dir.path().join("ledger"), &small()).unwrap();
    assert_eq!(recovery.report().next_seq.0, 1 + ENTRIES);
    let store = Store::open(dir.path().join("store"), &StoreOptions::new()).unwrap();
    assert!(store.get(TokenId(1)).unwrap().is_some());
    assert!(store.opened_from().checkpoint.is_some());
}

#[test]
#[ignore = "a process of its own runs it"]
fn opens_a_relative_path_and_changes_the_directory() {
    let log = Log::create("ledger", &small()).unwrap();
    let store = Store::open("store", &StoreOptions::new()).unwrap();
    std::env::set_current_dir("elsewhere").unwrap();
    append(&log, ENTRIES);
    log.purge(log.durable()).unwrap();
    log.close().unwrap();
    store.at(Level::Strict).put(&token(1)).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
}

#[test]
fn store_whose_directory_is_moved_takes_its_checkpoints_there() {
    let dir = temp_dir("moved-store");
    let (path, moved) = (dir.path().join("store"), dir.path().join("store.old"));
    let options = StoreOptions::new().log(small());
    let store = Store::open(&path, &options).unwrap();
    let put = |ids: std::ops::Range<u32>| {
        ids.for_each(|id| store.at(Level::Strict).put(&token(id)).unwrap());
    };
    put(1..200);
    store.checkpoint().unwrap();
    std::fs::rename(&path, &moved).unwrap();
    put(200..400);
    store.checkpoint().unwrap();
    put(400..600);
    store.checkpoint().unwrap();
    put(600..700);
    store.close().unwrap();
    assert!(!path.exists(), "nothing was made under the old path");
    let store = Store::open(&moved, &options).unwrap();
    assert!((1..700).all(|id| store.get(TokenId(id)).unwrap().is_some()));
}

#[test]
fn lock_holds_although_its_file_is_removed_or_replaced() {
    let dir = temp_dir("locks");
    let path = dir.path().join("log");
    let options = small().lock_timeout(Duration::ZERO);
    let log = Log::create(&path, &options).unwrap();
    append(&log, 5);
    let is_locked =
        |options: &Options| matches!(Log::open(&path, options), Err(Error::Locked { .. }));
    assert!(is_locked(&options));
    std::fs::remove_file(path.join("LOCK")).unwrap();
    assert!(is_locked(&options), "without its file");
    std::fs::write(path.join("LOCK"), b"").unwrap();
    assert!(is_locked(&options), "with another file");
    append(&log, 5);
    log.close().unwrap();
    let (log, report) = Log::open(&path, &options).unwrap();
    assert_eq!(report.entries, 10);
    log.close().unwrap();
}

/// Copies a directory by linking its files, as `cp -al` does.
fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::hard_link(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn log_whose_files_have_other_names_is_read_and_not_written() {
    let dir = temp_dir("linked");
    let (first, second) = (dir.path().join("log"), dir.path().join("linked"));
    other_log(&first);
    link_all(&first, &second);
    let before = contents(&first);
    for path in [&first, &second] {
        let refused = Log::open(path, &small());
        assert!(matches!(refused, Err(Error::Linked { .. })), "{refused:?}");
        let inspection = Inspection::read(path, &small()).unwrap();
        assert_eq!(inspection.report().entries, ENTRIES);
    }
    // One segment is enough.
    std::fs::remove_file(second.join("CONTROL")).unwrap();
    std::fs::copy(first.join("CONTROL"), second.join("CONTROL")).unwrap();
    assert!(matches!(Log::open(&first, &small()), Err(Error::Linked { .. })));
    assert!(contents(&first) == before, "nothing was changed");
    std::fs::remove_dir_all(&second).unwrap();
    let (log, report) = Log::open(&first, &small()).unwrap();
    assert_eq!(report.entries, ENTRIES);
    log.close().unwrap();
}

/// Another user than root, whose log root opens.
const SERVICE: u32 = 1234;

#[test]
fn files_that_root_makes_in_a_log_of_a_service_belong_to_the_service() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give files away");
    }
    let dir = temp_dir("owner");
    let path = dir.path().join("store");
    let options = StoreOptions::new().log(small());
    let store = Store::open(&path, &options).unwrap();
    store.at(Level::Strict).put(&token(1)).unwrap();
    store.close().unwrap();
    for entry in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        chown(entry.path(), Some(SERVICE), Some(SERVICE + 1)).unwrap();
    }
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(path.join("CONTROL"), mode).unwrap();
    chown(&path, Some(SERVICE), Some(SERVICE + 1)).unwrap();
    std::fs::remove_file(path.join("LOCK")).unwrap();
    let store = Store::open(&path, &options).unwrap();
    for _ in 0..3 {
        (2..400).for_each(|id| store.at(Level::Strict).put(&token(id)).unwrap());
        store.checkpoint().unwrap();
    }
    store.close().unwrap();
    let mut made = 0;
    for dir in [path.clone(), path.join("checkpoints")] {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            let name = entry.path().display().to_string();
            assert_eq!((metadata.uid(), metadata.gid()), (SERVICE, SERVICE + 1), "{name}");
            let expected = if metadata.is_dir() { 0o750 } else { 0o640 };
            if !name.ends_with("00001.seg") {
                assert_eq!(metadata.mode() & 0o777, expected, "{name}");
                made += 1;
            }
        }
    }
    assert!(made > 4, "{made}");
}
