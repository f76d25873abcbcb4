//! Small valid logs of several histories: what damage is done to.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bulla_recovery::{Error, Range, Recovery};
use bulla_storage::files::dir;
use bulla_storage::format::Control;
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Level, Log, Options, Seq};

/// Where the log is on the simulated disk.
pub(super) const DIR: &str = "/log";
/// The logs' sector in bytes.
pub(super) const SECTOR: usize = 512;
/// Steps without work that end when late completions are in.
const IDLE_STEPS: u32 = 100;

/// The files of a log.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) name: &'static str,
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
}

/// What a history shows, and how it comes about.
type Timeline = (&'static str, fn(&SimDisk));
/// Number, kind and payload of an entry.
pub(super) type Entry = (Seq, u16, Vec<u8>);

/// All of them, made once.
pub(super) fn all() -> &'static [Files] {
    static ALL: OnceLock<Vec<Files>> = OnceLock::new();
    ALL.get_or_init(|| {
        play(&[
            ("killed with a tail below no durable mark", killed),
            ("closed", closed),
            ("taken over by a second epoch", reopened),
            ("purged, in its third epoch", purged),
            ("idle, all of it below the durable mark", idle),
        ])
    })
}

/// Logs of few bytes.
pub(super) fn small() -> &'static [Files] {
    static SMALL: OnceLock<Vec<Files>> = OnceLock::new();
    SMALL.get_or_init(|| {
        play(&[
            ("killed", |disk| killed_after(disk, 6)),
            ("closed", |disk| closed_after(disk, 4)),
            ("taken over", |disk| {
                killed_after(disk, 3);
                append(&reopen(disk), Level::Balanced, 1);
            }),
            ("idle", idle),
            ("created", |disk| drop(Log::create(Path::new(DIR), &Options::simulated(disk)))),
        ])
    })
}

fn play(histories: &[Timeline]) -> Vec<Files> {
    let make = |(name, play): &Timeline| {
        let disk = SimDisk::new(1);
        play(&disk);
        disk.kill();
        Files { name, files: contents(&disk) }
    };
    histories.iter().map(make).collect()
}

fn killed(disk: &SimDisk) {
    killed_after(disk, 24);
}

fn killed_after(disk: &SimDisk, rounds: usize) {
    let log = Log::create(Path::new(DIR), &Options::simulated(disk)).expect("a fresh disk");
    fill(&log, rounds);
    append(&log, Level::Balanced, rounds.min(5));
    disk.kill();
}

fn closed(disk: &SimDisk) {
    closed_after(disk, 12);
}

fn closed_after(disk: &SimDisk, rounds: usize) {
    let log = Log::create(Path::new(DIR), &Options::simulated(disk)).expect("a fresh disk");
    fill(&log, rounds);
    log.close().expect("no faults");
}

fn reopened(disk: &SimDisk) {
    killed(disk);
    let log = reopen(disk);
    append(&log, Level::Strict, 3);
    append(&log, Level::Balanced, 2);
    disk.kill();
}

fn purged(disk: &SimDisk) {
    killed(disk);
    let log = reopen(disk);
    fill(&log, 60);
    log.purge(log.durable()).expect("no faults");
    append(&log, Level::Strict, 2);
    disk.kill();
    append(&reopen(disk), Level::Balanced, 4);
    disk.kill();
}

fn idle(disk: &SimDisk) {
    let log = Log::create(Path::new(DIR), &Options::simulated(disk)).expect("a fresh disk");
    fill(&log, 8);
    disk.advance(60_000_000);
    for _ in 0..IDLE_STEPS {
        log.step();
    }
    disk.kill();
}

fn reopen(disk: &SimDisk) -> Log {
    let recovery = Recovery::run(Path::new(DIR), &Options::simulated(disk)).expect("it is intact");
    Log::start(recovery.into_recovered()).expect("no faults")
}

/// Entries of many lengths, batches among them, in a few segments.
fn fill(log: &Log, rounds: usize) {
    for round in 0..rounds {
        let payload = vec![round as u8; round * 41 % 1_500];
        let level = Level::ALL[round % Level::ALL.len()];
        let receipt = if round % 3 == 0 {
            let batch: [(u16, &[u8]); 3] = [(1, &payload), (2, b""), (3, &payload)];
            log.append_batch(&batch, level).map(|receipt| receipt.last())
        } else {
            log.append_with(4, &payload, level)
        };
        log.wait(receipt.expect("there is room")).expect("no faults");
    }
}

fn append(log: &Log, level: Level, count: usize) {
    for at in 0..count {
        let receipt = log.append_with(5, &[0xA5; 700][..100 + at * 150], level);
        log.wait(receipt.expect("there is room")).expect("no faults");
    }
}

/// A disk with these files and nothing else.
pub(super) fn disk(files: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new(2);
    for (path, bytes) in files {
        disk.write_file(path, bytes);
    }
    disk
}

/// All files but the lock's, which any writer leaves behind.
pub(super) fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = disk.paths().into_iter().filter(|path| !path.ends_with(dir::LOCK));
    paths.map(|path| (path.clone(), disk.read_file(&path))).collect()
}

/// Has the path a segment's name?
pub(super) fn is_segment(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| dir::parse_segment_name(name).is_some())
}

/// Where in a file sectors with a checksum of their own start.
pub(super) fn sectors_with_a_crc(path: &Path) -> Vec<usize> {
    match path {
        path if path.ends_with(dir::CONTROL) => {
            (0..2).map(|counter| Control::slot_offset(counter) as usize).collect()
        }
        path if is_segment(path) => vec![0],
        _ => Vec::new(),
    }
}

/// The entries that a recovery shows.
pub(super) fn replayed(recovery: &Recovery) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    recovery.replay(Range::ALL, |entry| {
        entries.push((entry.seq, entry.kind, entry.payload.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

/// The entries that a log holds that can be opened.
#[cfg(test)]
pub(super) fn entries(disk: &SimDisk) -> Vec<Entry> {
    let recovery = Recovery::run(Path::new(DIR), &Options::simulated(disk)).expect("it opens");
    replayed(&recovery).expect("it can be read")
}
