//! Backups of a store that another process writes under full load, with checkpoints and purges.
//!
//! The child writes: each of its clients puts ever higher numbers into records of its own, in
//! turn, and on request the child tells what was acknowledged, or pauses. The parent asks, takes a
//! backup, restores it, and opens the store: it must have everything that was acknowledged before the
//! backup began, and of each client all that it had put up to some moment.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulla_engine::{
    BackupOptions, CheckpointError, Error, Level, Quota, RestoreOptions, Store, StoreOptions,
    TokenId, backup, restore,
};
use bulla_wal::{Log, Options};

use crate::kills::{number_of, token};

/// Threads that put records.
const CLIENTS: u32 = 4;
/// Records of each.
const RECORDS: u32 = 200;
/// Backups that build on one full backup.
const CHAIN: u64 = 4;
/// The hold that is left for the next backup.
const HOLD: &str = "rounds";

/// What was found.
#[derive(Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct BackedUp {
    pub backups: u64,
    pub incremental: u64,
    pub from_checkpoints: u64,
    pub acknowledged: u64,
    pub copied_bytes: u64,
    pub purges: u64,
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn options() -> StoreOptions {
    let log = Options::new().segment_len(64 * 1024).ring_len(64 * 1024);
    StoreOptions::new().log(log).quota(Quota::new()).checkpoint_close_bytes(None)
}

/// Takes this many backups of a store in `dir` that a child writes, which `child` starts.
///
/// # Errors
/// The first backup that fails, that can't be restored, or that lacks something.
pub fn run(dir: &Path, backups: u64, child: impl FnOnce() -> Command) -> Result<BackedUp, String> {
    let store = dir.join("store");
    let mut writer = Writer::start(child().arg(&store))?;
    let mut found = BackedUp::default();
    let mut chain: Vec<PathBuf> = Vec::new();
    for round in 0..backups {
        if round % CHAIN == 0 {
            for old in chain.drain(..) {
                std::fs::remove_dir_all(old).map_err(text)?;
            }
        }
        writer.tell("go")?;
        std::thread::sleep(Duration::from_millis(50));
        let acknowledged = writer.ask()?;
        let dest = dir.join(format!("backup-{round}"));
        let mut options = BackupOptions::new().keep_hold(HOLD);
        if let Some(base) = chain.last() {
            options = options.since(base);
            found.incremental += 1;
        }
        let report = backup(&store, &dest, &options)
            .map_err(|error| format!("I44: backup {round}: {error:?}"))?;
        // Only the backup is to be under load.
        writer.tell("pause")?;
        chain.push(dest.clone());
        found.copied_bytes += report.copied_bytes;
        found.purges += u64::from(report.first_lsn.0 > 0);
        check(&dest, &dir.join("restored"), &acknowledged, &mut found)
            .map_err(|error| format!("backup {round}: {error}"))?;
        found.acknowledged = acknowledged.iter().sum();
        found.backups += 1;
    }
    writer.end()?;
    Ok(found)
}

/// Restores a backup, and checks what it has of each client.
fn check(
    from: &Path,
    dir: &Path,
    acknowledged: &[u64],
    found: &mut BackedUp,
) -> Result<(), String> {
    restore(from, dir, &RestoreOptions::new()).map_err(|error| format!("I44: {error:?}"))?;
    let store: Store = Store::open(dir, &options()).map_err(|error| format!("I44: {error:?}"))?;
    let opened = store.opened_from();
    if !opened.refused.is_empty() {
        return Err(format!("I44: {opened}"));
    }
    found.from_checkpoints += u64::from(opened.checkpoint.is_some());
    for (client, acknowledged) in (0_u32..).zip(acknowledged) {
        let mut numbers = Vec::new();
        for slot in 0..RECORDS {
            let record = store.get(TokenId(client * RECORDS + slot + 1)).map_err(text)?;
            numbers.push(record.map_or(0, |record| number_of(&record)));
        }
        let last = numbers.iter().copied().max().unwrap_or(0);
        if last < *acknowledged {
            return Err(format!("I44: client {client} has {last} of {acknowledged}"));
        }
        for (slot, number) in (0_u64..).zip(numbers) {
            // The highest number up to the last one that went into this record.
            let records = u64::from(RECORDS);
            let behind = (last % records + records - slot) % records;
            let expected = last.saturating_sub(behind);
            if number != expected {
                let is = format!("is {number}, and not {expected}");
                return Err(format!("I44: client {client}: record {slot} {is}, up to {last}"));
            }
        }
    }
    store.close().map_err(text)?;
    std::fs::remove_dir_all(dir).map_err(text)
}

/// A backup, and how much was new.
#[derive(Clone, Copy, Debug)]
pub struct Increment {
    /// Bytes that the log had grown since the backup before.
    pub new_bytes: u64,
    /// Bytes that the backup says it copied.
    pub copied_bytes: u64,
    /// Bytes of the files that it made, its manifest left out.
    pub file_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Increment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { new_bytes, copied_bytes, file_bytes, took } = self;
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{new_bytes} bytes of log are new: {copied_bytes} copied, {file_bytes} in files, {seconds:.2} s"
        )
    }
}

/// Backs up an open log of `len` bytes, then what is new after it grew by each of `growth`; returns
/// what each backup copied. Restores the last one, and counts its entries.
///
/// # Errors
/// What went wrong.
pub fn incremental(dir: &Path, len: u64, growth: &[u64]) -> Result<Vec<Increment>, String> {
    const ENTRY: usize = 32 * 1024;
    let path = dir.join("log");
    let log = Log::create(&path, &Options::new()).map_err(text)?;
    let (mut entries, mut end, mut chain) = (0_u64, 0, Vec::<PathBuf>::new());
    let mut found = Vec::new();
    for new in [&[len], growth].concat() {
        while log.written().0 < end + new {
            log.wait(log.append_with(1, &[7; ENTRY], Level::Balanced).map_err(text)?)
                .map_err(text)?;
            entries += 1;
        }
        log.sync().map_err(text)?;
        let new_bytes = log.written().0 - end;
        end = log.written().0;
        let dest = dir.join(format!("backup-{}", chain.len()));
        let mut options = BackupOptions::new().keep_hold(HOLD);
        if let Some(base) = chain.last() {
            options = options.since(base);
        }
        let start = Instant::now();
        let report = backup(&path, &dest, &options).map_err(|error| format!("I44: {error:?}"))?;
        let took = start.elapsed();
        let parts = std::fs::read_dir(dest.join("segments")).map_err(text)?;
        let lens = parts.map(|part| Ok(part.map_err(text)?.metadata().map_err(text)?.len()));
        let file_bytes = lens.sum::<Result<u64, String>>()?;
        let copied_bytes = report.copied_bytes;
        found.push(Increment { new_bytes, copied_bytes, file_bytes, took });
        chain.push(dest);
    }
    log.close().map_err(text)?;
    let last = chain.last().ok_or("no backup")?;
    let report = restore(last, dir.join("restored"), &RestoreOptions::new());
    let report = report.map_err(|error| format!("I44: {error:?}"))?;
    if report.next_seq.0 != entries + 1 {
        return Err(format!("I44: entry {} is next, of {entries}", report.next_seq));
    }
    Ok(found)
}

/// The process that writes.
struct Writer {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Writer {
    fn start(command: &mut Command) -> Result<Self, String> {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(text)?;
        let to = process.stdin.take();
        let from = BufReader::new(process.stdout.take().ok_or("no pipe")?);
        let mut writer = Self { process, to, from };
        // Let it take a few checkpoints, and purge what they replace.
        while writer.ask()?.iter().any(|number| *number < u64::from(RECORDS)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(writer)
    }

    /// Returns the last number of each client that was acknowledged.
    fn ask(&mut self) -> Result<Vec<u64>, String> {
        self.tell("ask")?;
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(text)?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if numbers.len() == CLIENTS as usize { Ok(numbers) } else { Err(format!("{line:?}")) }
    }

    fn tell(&mut self, word: &str) -> Result<(), String> {
        let to = self.to.as_mut().ok_or("it has ended")?;
        writeln!(to, "{word}").and_then(|()| to.flush()).map_err(text)
    }

    fn end(mut self) -> Result<(), String> {
        drop(self.to.take());
        let status = self.process.wait().map_err(text)?;
        if status.success() { Ok(()) } else { Err(format!("the writer ended with {status}")) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a failure it must not go on.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child does: it writes to the store in a directory until its standard input ends.
///
/// # Errors
/// What went wrong.
pub fn child(dir: &Path) -> Result<(), String> {
    let store: Store = Store::open(dir, &options()).map_err(text)?;
    let acknowledged: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let wanted = Wanted::default();
    std::thread::scope(|scope| -> Result<(), String> {
        let clients: Vec<_> = (0_u32..)
            .zip(&acknowledged)
            .map(|(client, last)| {
                let (store, wanted) = (&store, &wanted);
                scope.spawn(move || put_numbers(store, client, last, wanted))
            })
            .collect();
        let checkpoints = scope.spawn(|| take_checkpoints(&store, &wanted));
        let answered = answer(&acknowledged, &wanted);
        wanted.end.store(true, Ordering::Relaxed);
        for thread in clients.into_iter().chain([checkpoints]) {
            thread.join().map_err(|_| "a thread panicked".to_owned())??;
        }
        answered
    })?;
    store.close().map_err(text)
}

/// What the parent wants of the child's threads.
#[derive(Default)]
struct Wanted {
    pause: AtomicBool,
    end: AtomicBool,
}

impl Wanted {
    /// Waits while there is a pause; returns whether to go on after it.
    fn go_on(&self) -> bool {
        while self.pause.load(Ordering::Relaxed) && !self.end.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.end.load(Ordering::Relaxed)
    }
}

fn put_numbers(
    store: &Store,
    client: u32,
    last: &AtomicU64,
    wanted: &Wanted,
) -> Result<(), String> {
    let mut number = 0;
    while wanted.go_on() {
        number += 1;
        let slot = client * RECORDS + (number % u64::from(RECORDS)) as u32;
        let level = if number % 8 == 0 { Level::Strict } else { Level::Balanced };
        store.at(level).put(&token(slot, number)).map_err(text)?;
        last.store(number, Ordering::Release);
    }
    Ok(())
}

fn take_checkpoints(store: &Store, wanted: &Wanted) -> Result<(), String> {
    while wanted.go_on() {
        match store.checkpoint() {
            Ok(_) | Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
            // A backup has just the holds.
            Err(Error::Log(bulla_wal::Error::Locked { .. })) => {}
            Err(error) => return Err(text(error)),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn answer(acknowledged: &[AtomicU64], wanted: &Wanted) -> Result<(), String> {
    for line in std::io::stdin().lock().lines() {
        match line.map_err(text)?.as_str() {
            "pause" => wanted.pause.store(true, Ordering::Relaxed),
            "go" => wanted.pause.store(false, Ordering::Relaxed),
            _ => tell(acknowledged)?,
        }
    }
    Ok(())
}

fn tell(acknowledged: &[AtomicU64]) -> Result<(), String> {
    let numbers = acknowledged.iter().map(|last| last.load(Ordering::Acquire).to_string());
    let mut stdout = std::io::stdout().lock();
    let line = numbers.collect::<Vec<_>>().join(" ");
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(text)
}
