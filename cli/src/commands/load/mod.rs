//! `bulla load`: loads a CSV file, or the log of the store before Bulla, into a store.

mod legacy;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulla_engine::{Batch, Level, Quota, Receipt, Store, StoreOptions, StoreStats, Token};
use clap::ValueEnum;
use serde::Serialize;

use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::input;
use crate::mapping::MappingArgs;
use crate::numbers::{grouped, rounded};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::signals::Interrupt;
use crate::{place, terminal};

/// Load the rows of a CSV file (or of the CSV file in a .zip) as tokens.
///
/// Ids are the rows' numbers, so that loading a file again replaces its tokens. Rows are
/// acknowledged in batches; Ctrl-C stops after the last acknowledged one.
///
/// With `--from legacy` FILE is a write-ahead log of the token store before Bulla. The whole
/// file is read first, and never changed. A torn end is skipped, and so are records that a
/// crash or a second writer cut short. If a complete token may be missing before the last
/// record, nothing is loaded (exit code 4) unless `--skip-damaged` is given. The report shows
/// what was loaded, and what was skipped and why. Loading the file again replaces its tokens.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla load data/flights-sample.csv /var/lib/flights\n  bulla load flights.csv.zip /var/lib/flights --level strict --batch 500\n  bulla load readings.csv /var/lib/readings --map weight=value:0.1 --map 7.x=seconds:1/3600 --clamp\n  bulla load --from legacy old.wal --dry-run\n  bulla load --from legacy old.wal /var/lib/tokens --level strict"
)]
pub(crate) struct Args {
    /// The file.
    file: PathBuf,
    /// The store's directory; created if there is none, in an existing directory.
    #[arg(required_unless_present = "dry_run")]
    dir: Option<PathBuf>,
    /// The format of the file.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    from: From,
    /// Read and check the whole file, show what would be loaded, and open no store. Exits
    /// with 3 if the end of a legacy log is torn, with 4 if it is damaged.
    #[arg(long)]
    dry_run: bool,
    /// Load the intact records of a damaged legacy log.
    #[arg(long)]
    skip_damaged: bool,
    /// How durable a batch must be before it counts as loaded.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    level: LevelArg,
    /// Number of rows in a batch, which is logged completely or not at all.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "ROWS")]
    batch: u32,
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// The format of a file.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum From {
    /// CSV, also in a .zip.
    #[default]
    Csv,
    /// The write-ahead log of the token store before Bulla.
    Legacy,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    match (args.from, &args.dir) {
        (From::Legacy, dir) => legacy::run(args, dir.as_deref(), &interrupt, out),
        (From::Csv, Some(dir)) if !args.dry_run => load_rows(args, dir, &interrupt, out),
        (From::Csv, _) => check_rows(args, &interrupt, out),
    }
}

fn check_rows(args: &Args, interrupt: &Interrupt, out: &mut Out) -> Result<Outcome> {
    // Also checks what only a store refuses: a time that is too far ahead.
    let options = StoreOptions::new();
    let rows = input::tokens(&args.file, &args.mapping, |token, _| {
        interrupt.check()?;
        Ok(options.check(&token)?)
    })?;
    out.report(&Checked { rows, complete: true })?;
    Ok(Outcome::Clean)
}

/// What a dry run found.
#[derive(Serialize)]
struct Checked {
    rows: u64,
    complete: bool,
}

/// What a load of rows did.
#[derive(Serialize)]
struct LoadedRows {
    rows: u64,
    #[serde(flatten)]
    done: DoneReport,
}

fn load_rows(args: &Args, dir: &Path, interrupt: &Interrupt, out: &mut Out) -> Result<Outcome> {
    let mut loader = Loader::new(args, dir, StoreOptions::new());
    let rows = input::tokens(&args.file, &args.mapping, |token, _| {
        interrupt.check()?;
        loader.put(&token)
    });
    let rows = match rows {
        Err(error) if loader.opened.is_none() => return Err(error),
        rows => rows,
    };
    // The rows before an error are loaded too: first they are made durable.
    let done = loader.finish()?;
    out.report(&LoadedRows { rows: done.loaded(), done: done.report(rows.is_ok()) })?;
    done.tell(rows.map(drop), "rows", out)
}

/// Batches in flight before the loader waits for the oldest.
const MAX_PENDING: usize = 1024;

/// Puts tokens into a store, in batches.
struct Loader<'a> {
    args: &'a Args,
    dir: &'a Path,
    options: StoreOptions,
    start: Instant,
    /// Opened with the first token, so that a mistyped file or mapping leaves no store behind.
    opened: Option<Opened>,
    batch: Batch,
    pending: Vec<Receipt>,
    /// Tokens in batches that were submitted, and in those of them that hold at the level.
    submitted: u64,
    settled: u64,
}

struct Opened {
    store: Store,
    /// Tokens in it before this load.
    before: u64,
}

/// A load that has ended: everything in it is durable.
struct Done<'a> {
    dir: &'a Path,
    level: Level,
    before: u64,
    stats: StoreStats,
    time: Duration,
}

impl<'a> Loader<'a> {
    fn new(args: &'a Args, dir: &'a Path, options: StoreOptions) -> Self {
        let (batch, pending) = (Batch::new(), Vec::new());
        let (start, opened) = (Instant::now(), None);
        Self { args, dir, options, start, opened, batch, pending, submitted: 0, settled: 0 }
    }

    fn put(&mut self, token: &Token) -> Result<()> {
        if self.opened.is_none() {
            self.opened = Some(self.open()?);
        }
        self.batch.put(token);
        if self.batch.len() < self.args.batch as usize { Ok(()) } else { self.submit() }
    }

    fn open(&self) -> Result<Opened> {
        let log = self.args.log.options();
        let is_new = place::is_new(self.dir, &log)?;
        let level = self.args.level.level();
        let options = self.options.clone().log(log).level(level).quota(Quota::unlimited());
        let store = Store::open(self.dir, &options)?;
        if is_new {
            place::announce(self.dir);
        }
        self.args.log.backend.warn_of_fallback(&store.stats().log);
        Ok(Opened { before: store.len() as u64, store })
    }

    fn submit(&mut self) -> Result<()> {
        let Some(Opened { store, .. }) = self.opened.as_ref().filter(|_| !self.batch.is_empty())
        else {
            return Ok(());
        };
        self.pending.push(store.at(self.args.level.level()).begin().apply(&self.batch)?);
        self.submitted += self.batch.len() as u64;
        self.batch.clear();
        if self.pending.len() < MAX_PENDING { Ok(()) } else { self.drain() }
    }

    /// Waits for all batches in flight: the last receipt covers those before it.
    fn drain(&mut self) -> Result<()> {
        let Some((Opened { store, .. }, last)) = self.opened.as_ref().zip(self.pending.last())
        else {
            return Ok(());
        };
        store.wait(*last)?;
        self.pending.clear();
        self.settled = self.submitted;
        Ok(())
    }

    /// Makes everything durable and closes the store, which is created even without a token.
    fn finish(mut self) -> Result<Done<'a>> {
        let submitted = self.submit();
        let finished = self.drain().and(submitted);
        let settled = self.settled;
        let Opened { store, before } = match self.opened.take() {
            Some(opened) => opened,
            None => self.open()?,
        };
        let stats = store.stats();
        if let Err(error) = finished {
            // They stay, whatever the error: closing makes them durable if anything can.
            let durable = if store.close().is_ok() { "durable" } else { "kept as the level says" };
            terminal::warn(format_args!(
                "stopped: the first {} tokens are loaded and {durable}; loading again replaces them",
                grouped(settled)
            ));
            return Err(error);
        }
        store.close()?;
        let level = self.args.level.level();
        Ok(Done { dir: self.dir, level, before, stats, time: self.start.elapsed() })
    }
}

#[derive(Serialize)]
struct DoneReport {
    tokens_before: u64,
    tokens: u64,
    level: &'static str,
    batches: u64,
    frames: u64,
    syncs: u64,
    method: &'static str,
    seconds: f64,
    complete: bool,
}

impl Done<'_> {
    /// Returns the number of tokens that were put.
    const fn loaded(&self) -> u64 {
        self.stats.log.payload_bytes / bulla_engine::TOKEN_LEN as u64
    }

    fn report(&self, complete: bool) -> DoneReport {
        let log = &self.stats.log;
        DoneReport {
            tokens_before: self.before,
            tokens: self.stats.tokens,
            level: self.level.name(),
            batches: log.entries,
            frames: log.frames,
            syncs: log.durable_operations(),
            method: log.method,
            seconds: rounded(self.time.as_secs_f64(), 3),
            complete,
        }
    }

    /// Tells the user how the load ended.
    fn tell(&self, ended: Result<()>, unit: &str, out: &mut Out) -> Result<Outcome> {
        out.flush()?;
        if let Err(Error::Interrupted) = ended {
            let loaded = grouped(self.loaded());
            terminal::warn(format_args!(
                "stopped: the first {loaded} {unit} are loaded and durable"
            ));
        }
        ended?;
        if out.is_table() {
            terminal::note(format_args!("Loaded and durable in {}.", self.dir.display()));
        }
        Ok(Outcome::Clean)
    }
}
