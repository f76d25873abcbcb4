//! The measurements: bare loops of synced writes, and Bulla logs, each for a while.
//!
//! All disk access goes through the log's I/O trait, so that a test measures what a log
//! does. A test that is impossible here says why, and the others go on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulla_storage::files::dir::Directory;
use bulla_storage::io::{AlignedBuf, File, Io, write_full};
use bulla_wal::{Level, Log};
use tempfile::TempDir;

use crate::args::{Backend, LogArgs};
use crate::error::{Error, Result};
use crate::signals::Interrupt;

/// The file that bare loops write to.
const FILE: &str = "file";

/// One measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    /// One synced write after the other, of `len` bytes.
    Raw { direct: bool, blocks: Blocks, len: usize },
    /// Writers of a log, each waiting for each of its Strict entries.
    Log { backend: Backend, writers: usize },
}

/// What the file that a bare loop writes to is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blocks {
    /// Written before: a sync has no metadata to write. So a log's segments are.
    Written,
    /// Reserved, and never written.
    Reserved,
    /// Neither: the file grows.
    Growing,
}

/// The sizes of bare writes.
const LENS: [usize; 3] = [4 << 10, 16 << 10, 1 << 20];
/// Writers of a log that share syncs.
const MANY_WRITERS: usize = 8;
/// Length of the file that is written before the test.
const WRITTEN_LEN: u64 = 32 << 20;
/// Greatest length of a file that is written once; its test ends there.
const MAX_LEN: u64 = 128 << 20;
/// Length of the logs' segments.
const SEGMENT_LEN: u64 = 16 << 20;
/// Bytes of an entry.
const ENTRY: [u8; 64] = [7; 64];
/// The time of a log's first commits, which compete with the creation of its next segment.
const WARM_UP: Duration = Duration::from_millis(100);
/// The most operations of one writer that are counted.
const MAX_SAMPLES: usize = 1 << 20;
const CHUNK: usize = 1 << 20;

impl Test {
    /// Returns all tests, in the order in which they are shown.
    pub(super) fn all() -> Vec<Self> {
        let raw = [
            (true, Blocks::Written),
            (false, Blocks::Written),
            (true, Blocks::Reserved),
            (false, Blocks::Growing),
        ];
        let raw = raw.into_iter().flat_map(|(direct, blocks)| {
            LENS.into_iter().map(move |len| Self::Raw { direct, blocks, len })
        });
        let logs = Backend::all().flat_map(|backend| {
            [1, MANY_WRITERS].into_iter().map(move |writers| Self::Log { backend, writers })
        });
        raw.chain(logs).collect()
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Raw { direct, blocks, .. } => {
                let method = if direct { "O_DIRECT + DSYNC" } else { "write + fdatasync" };
                let blocks = match blocks {
                    Blocks::Written => "written blocks",
                    Blocks::Reserved => "reserved blocks",
                    Blocks::Growing => "growing file",
                };
                format!("{method}, {blocks}")
            }
            Self::Log { backend, writers: 1 } => format!("log, {backend}, 1 strict writer"),
            Self::Log { backend, writers } => format!("log, {backend}, {writers} strict writers"),
        }
    }

    /// Returns the bytes of one write, or of one entry.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Raw { len, .. } => len,
            Self::Log { .. } => ENTRY.len(),
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Measured {
    pub(super) operations: usize,
    pub(super) per_second: u64,
    pub(super) p50_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) max_ns: u64,
    /// The lowest and the highest median of its rounds.
    pub(super) p50_range_ns: (u64, u64),
}

impl Measured {
    /// Returns the round with the middle median, and how far the medians are apart. A slow disk may
    /// not complete a write in each round; the error is that of the first one, if all failed.
    pub(super) fn of(rounds: Vec<Result<Self, String>>) -> Result<Self, String> {
        let failed = rounds.iter().find_map(|round| round.as_ref().err().cloned());
        let mut rounds: Vec<_> = rounds.into_iter().filter_map(Result::ok).collect();
        rounds.sort_by_key(|round| round.p50_ns);
        let range = rounds.first().zip(rounds.last()).map(|(low, high)| (low.p50_ns, high.p50_ns));
        range
            .zip(rounds.get(rounds.len() / 2))
            .map(|(p50_range_ns, middle)| Self { p50_range_ns, ..*middle })
            .ok_or_else(|| failed.unwrap_or_else(|| "nothing was measured".to_owned()))
    }

    /// Summarizes latencies in ns of operations that took `time` together; `None` for none.
    fn new(mut samples: Vec<u64>, time: Duration) -> Option<Self> {
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        let at = |percent: usize| samples.get((samples.len() * percent / 100).min(last)).copied();
        let per_second = samples.len() as u128 * 1_000_000_000 / time.as_nanos().max(1);
        Some(Self {
            operations: samples.len(),
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            p50_ns: at(50)?,
            p99_ns: at(99)?,
            max_ns: at(100)?,
            p50_range_ns: (at(50)?, at(50)?),
        })
    }
}

/// A directory for the tests' files, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let made = tempfile::Builder::new().prefix("bulla-doctor-").tempdir_in(dir);
        made.map(Self).map_err(Error::file("create a directory in", dir))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Removes the directory, and reports a failure.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.0.path().to_owned();
        self.0.close().map_err(Error::file("remove", path))
    }
}

/// Where and for how long tests run.
pub(super) struct Bench<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) io: &'a dyn Io,
    pub(super) time: Duration,
    pub(super) interrupt: &'a Interrupt,
}

impl Bench<'_> {
    /// Runs one test. The inner error says why it is impossible here.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn run(&self, test: Test) -> Result<Result<Measured, String>> {
        let measured = match test {
            Test::Raw { direct, blocks, len } => self.raw(direct, blocks, len),
            Test::Log { backend, writers } => self.log(backend, writers),
        };
        if self.interrupt.is_set() { Err(Error::Interrupted) } else { Ok(measured) }
    }

    fn raw(&self, direct: bool, blocks: Blocks, len: usize) -> Result<Measured, String> {
        let words = |error: bulla_wal::Error| error.to_string();
        let dir = Directory::open(self.io, self.scratch.0.path()).map_err(words)?;
        let measured = self.raw_in(&dir, direct, blocks, len);
        let removed = dir.remove(FILE);
        let measured = measured?;
        removed.map_err(words)?;
        measured.ok_or_else(|| "no write completed in time".to_owned())
    }

    fn raw_in(
        &self,
        dir: &Directory,
        direct: bool,
        blocks: Blocks,
        len: usize,
    ) -> Result<Option<Measured>, String> {
        let words = |error: io::Error| error.to_string();
        let file = dir.create(FILE, direct).map_err(|error| error.to_string())?;
        if direct && !file.is_direct() {
            return Err("O_DIRECT is not supported here".to_owned());
        }
        self.make(file.as_ref(), blocks).map_err(words)?;
        let bytes = AlignedBuf::copy_of(&vec![7; len]);
        let len = len as u64;
        let mut samples = Vec::new();
        let mut offset = 0;
        let start = Instant::now();
        while start.elapsed() < self.time && samples.len() < MAX_SAMPLES {
            let end = if blocks == Blocks::Written { WRITTEN_LEN } else { MAX_LEN };
            if offset + len > end {
                if blocks != Blocks::Written {
                    break;
                }
                offset = 0;
            }
            if self.interrupt.is_set() {
                break;
            }
            let before = self.io.now_ns();
            synced_write(file.as_ref(), &bytes, offset, direct).map_err(words)?;
            samples.push(self.io.now_ns() - before);
            offset += len;
        }
        Ok(Measured::new(samples, start.elapsed()))
    }

    fn make(&self, file: &dyn File, blocks: Blocks) -> io::Result<()> {
        match blocks {
            Blocks::Written => {
                let zeros = AlignedBuf::zeroed(CHUNK);
                let mut at = 0;
                while at < WRITTEN_LEN && !self.interrupt.is_set() {
                    write_full(file, &zeros, at)?;
                    at += CHUNK as u64;
                }
            }
            Blocks::Reserved => file.preallocate(MAX_LEN)?,
            Blocks::Growing => {}
        }
        file.sync()
    }

    fn log(&self, backend: Backend, writers: usize) -> Result<Measured, String> {
        let dir = self.scratch.join("log");
        let measured = self.log_at(&dir, backend, writers);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            _ => measured,
        }
    }

    fn log_at(&self, dir: &Path, backend: Backend, writers: usize) -> Result<Measured, String> {
        let args = LogArgs { backend, segment_size: Some(SEGMENT_LEN), ..LogArgs::default() };
        let words = |error: bulla_wal::Error| error.to_string();
        let log = Log::create(dir, &args.options()).map_err(words)?;
        if let Some(reason) = log.stats().fallback {
            return Err(reason.to_owned());
        }
        let begin = Instant::now() + WARM_UP;
        let end = begin + self.time;
        let stop = AtomicBool::new(false);
        let write = || {
            let mut samples = Vec::new();
            while !stop.load(Ordering::Relaxed) && samples.len() < MAX_SAMPLES {
                let before = Instant::now();
                if before >= end || self.interrupt.is_set() {
                    break;
                }
                let receipt = log.append_with(0, &ENTRY, Level::Strict)?;
                log.wait(receipt)?;
                if before >= begin {
                    let ns = before.elapsed().as_nanos();
                    samples.push(u64::try_from(ns).unwrap_or(u64::MAX));
                }
            }
            Ok(samples)
        };
        let samples = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
            let ended = writers.into_iter().map(|writer| {
                let samples = writer.join().unwrap_or_else(|panic| {
                    std::panic::resume_unwind(panic);
                });
                // The others need not go on: there will be no result.
                stop.fetch_or(samples.is_err(), Ordering::Relaxed);
                samples
            });
            ended.collect::<Vec<bulla_wal::Result<Vec<u64>>>>()
        });
        let time = begin.elapsed();
        let samples: Vec<_> = samples.into_iter().collect::<Result<_, _>>().map_err(words)?;
        log.close().map_err(words)?;
        Measured::new(samples.concat(), time)
            .ok_or_else(|| "no commit completed in time".to_owned())
    }
}

fn synced_write(file: &dyn File, bytes: &[u8], offset: u64, dsync: bool) -> io::Result<()> {
    if !dsync {
        write_full(file, bytes, offset)?;
        return file.sync();
    }
    let count = file.write_pieces_at([bytes, &[]], offset, true)?;
    if count == bytes.len() { Ok(()) } else { Err(io::Error::other("a write was short")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let measured =
            Measured::new((1..=1000).rev().collect(), Duration::from_secs(2)).expect("samples");
        let expected = Measured {
            operations: 1000,
            per_second: 500,
            p50_ns: 501,
            p99_ns: 991,
            max_ns: 1000,
            p50_range_ns: (501, 501),
        };
        assert_eq!(measured, expected);
        assert_eq!(Measured::new(Vec::new(), Duration::from_secs(1)), None);
    }

    #[test]
    fn rounds_give_the_middle_median_and_the_range() {
        let round = |p50_ns| {
            let samples = vec![p50_ns; 10];
            Ok(Measured::new(samples, Duration::from_secs(1)).expect("samples"))
        };
        let slow = || Err("no write completed in time".to_owned());
        let found = Measured::of(vec![round(30), slow(), round(10), round(20)]).expect("three");
        assert_eq!((found.p50_ns, found.p50_range_ns), (20, (10, 30)));
        assert_eq!(Measured::of(vec![slow(), slow()]), slow());
    }
}
