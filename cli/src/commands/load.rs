//! `bulla load`: a CSV file into a store.

use std::path::PathBuf;
use std::time::Instant;

use bulla_engine::{Batch, Quota, Receipt, Store, StoreOptions, Token};

use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::input;
use crate::mapping::MappingArgs;
use crate::output::{Format, Out, grouped};
use crate::signals::Interrupt;
use crate::{Outcome, fields, place};

/// Load the rows of a CSV file (or of the CSV file in a .zip) as tokens.
///
/// Ids are the rows' numbers, so that loading a file again replaces its tokens. Rows are
/// acknowledged in batches; Ctrl-C stops after what was acknowledged.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla load data/flights-sample.csv /var/lib/flights\n  bulla load flights.csv.zip /var/lib/flights --level strict --batch 500\n  bulla load readings.csv /var/lib/readings --map weight=value:0.1 --map 7.x=seconds:1/3600 --clamp"
)]
pub(crate) struct Args {
    /// The file.
    file: PathBuf,
    /// The store's directory; made if there is none, in a directory that is there.
    dir: PathBuf,
    /// How durable a batch must be before it counts as loaded.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    level: LevelArg,
    /// Rows that are logged together or not at all.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "ROWS")]
    batch: u32,
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Batches under way before the oldest is waited for.
const MAX_PENDING: usize = 1024;

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let start = Instant::now();
    let interrupt = Interrupt::catch()?;
    let level = args.level.level();
    let mut loader = Loader { args, opened: None, batch: Batch::new(), pending: Vec::new() };
    let rows = input::tokens(&args.file, &args.mapping, |token, _| {
        if interrupt.is_set() { Err(Error::Interrupted) } else { loader.put(&token) }
    });
    let rows = match rows {
        Err(error) if loader.opened.is_none() => return Err(error),
        rows => rows,
    };
    // What came before an error is loaded too: it is finished, then the error is told.
    let finished = loader.submit().and_then(|()| loader.drain());
    let Opened { store, before } = loader.into_opened()?;
    let stats = store.stats();
    finished?;
    store.close()?;
    let seconds = start.elapsed().as_secs_f64();
    let loaded = stats.log.payload_bytes / bulla_engine::TOKEN_LEN as u64;
    let summary = fields! {
        "rows": loaded,
        "tokens_before": before,
        "tokens": stats.tokens,
        "level": level.name(),
        "batches": stats.log.entries,
        "frames": stats.log.frames,
        "syncs": stats.log.durable_operations(),
        "method": stats.log.method,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "complete": rows.is_ok(),
    };
    out.report(&summary)?;
    if let Err(Error::Interrupted) = rows {
        out.flush()?;
        eprintln!("bulla: stopped: the first {} rows are loaded and durable", grouped(loaded));
    }
    rows?;
    if out.format() == Format::Table {
        out.flush()?;
        eprintln!("Loaded and durable in {}.", args.dir.display());
    }
    Ok(Outcome::Clean)
}

struct Loader<'a> {
    args: &'a Args,
    /// Opened with the first row, so that a mistyped file or mapping leaves nothing behind.
    opened: Option<Opened>,
    batch: Batch,
    pending: Vec<Receipt>,
}

struct Opened {
    store: Store,
    /// Tokens in it before this load.
    before: u64,
}

impl Opened {
    fn open(args: &Args) -> Result<Self> {
        let log = args.log.options();
        let is_new = place::is_new(&args.dir, &log)?;
        let options =
            StoreOptions::new().log(log).level(args.level.level()).quota(Quota::unlimited());
        let store = Store::open(&args.dir, &options)?;
        if is_new {
            place::announce(&args.dir);
        }
        args.log.backend.warn_of_fallback(&store.stats().log);
        Ok(Self { before: store.len() as u64, store })
    }
}

impl Loader<'_> {
    fn put(&mut self, token: &Token) -> Result<()> {
        if self.opened.is_none() {
            self.opened = Some(Opened::open(self.args)?);
        }
        self.batch.put(token);
        if self.batch.len() < self.args.batch as usize { Ok(()) } else { self.submit() }
    }

    fn submit(&mut self) -> Result<()> {
        let Some(Opened { store, .. }) = self.opened.as_ref().filter(|_| !self.batch.is_empty())
        else {
            return Ok(());
        };
        self.pending.push(store.apply_async(&self.batch, self.args.level.level())?);
        self.batch.clear();
        if self.pending.len() < MAX_PENDING { Ok(()) } else { self.drain() }
    }

    /// Waits for all that is under way: the last receipt covers those before it.
    fn drain(&mut self) -> Result<()> {
        let Some((Opened { store, .. }, last)) = self.opened.as_ref().zip(self.pending.last())
        else {
            return Ok(());
        };
        store.wait(*last)?;
        self.pending.clear();
        Ok(())
    }

    /// Gives the store, also where there was no row to put into it.
    fn into_opened(self) -> Result<Opened> {
        self.opened.map_or_else(|| Opened::open(self.args), Ok)
    }
}
