//! The drill's victim: opens the log, appends from several threads, reports on standard
//! output what was acknowledged, and runs until it is killed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bulla_engine::entries::PUT;
use bulla_wal::{Level, Log, Lsn, Receipt};

use super::feed::Feed;
use super::wire::{Ack, LEN, Message};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::failure;
use crate::outcome::Outcome;
use crate::random::Random;

/// The drill's child.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The log's directory.
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// The records.
    #[arg(long)]
    pub(super) records: PathBuf,
    #[arg(long, value_enum)]
    pub(super) level: LevelArg,
    #[arg(long)]
    pub(super) seed: u64,
    /// The number of every client's next record.
    #[arg(long, value_delimiter = ',')]
    pub(super) next: Vec<u64>,
    /// Purge when the log is longer.
    #[arg(long)]
    pub(super) keep: u64,
    /// Open, then wait for the end.
    #[arg(long)]
    pub(super) only_open: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// The most records of a client in flight.
const MAX_READ: u64 = 256;
/// How often watermarks are reported.
const TELL: Duration = Duration::from_millis(2);

pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let clients = u8::try_from(args.next.len()).unwrap_or(u8::MAX);
    let feed = Feed::load(&args.records, clients)?;
    let (recovered, report) = bulla_recovery::open(&args.dir, &args.log.options())?;
    let log = Log::start(recovered)?;
    let pipe = Pipe::open()?;
    pipe.tell(&[Message::Opened { next_seq: report.next_seq, end: report.last_lsn }])?;
    if args.only_open {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for (client, next) in (0..clients).zip(&args.next) {
            let (log, pipe, feed, failed) = (&log, &pipe, &feed, &failed);
            let random =
                Random::new(args.seed ^ u64::from(client).wrapping_mul(0x2545_F491_4F6C_DD1D));
            let client = Client {
                log,
                pipe,
                feed,
                number: client,
                next: *next,
                level: args.level.level(),
                random,
                pending: VecDeque::new(),
                acks: Vec::new(),
            };
            scope.spawn(move || {
                if let Err(error) = client.run() {
                    failed
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .get_or_insert(error);
                }
            });
        }
        let mut low = log.low_water();
        loop {
            if let Some(error) =
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
            {
                // The other threads run on until the process ends.
                failure::report(&error);
                std::process::exit(1);
            }
            let durable = log.durable();
            let step =
                pipe.tell(&[Message::Watermarks { durable, written: log.written() }]).and_then(
                    |()| purge(&log, &pipe, durable.min(report.last_lsn), &mut low, args.keep),
                );
            if let Err(error) = step {
                failure::report(&error);
                std::process::exit(1);
            }
            std::thread::sleep(TELL);
        }
    })
}

/// Keeps the log's length within bounds. Only entries that were there when the log was opened
/// are purged: the parent has seen them.
fn purge(log: &Log, pipe: &Pipe, seen: Lsn, low: &mut Lsn, keep: u64) -> Result<()> {
    if seen.distance_from(*low) > keep {
        let keep_from = Lsn(seen.0 - keep / 2);
        pipe.tell(&[Message::Purge { keep_from }])?;
        log.purge(keep_from)?;
        *low = keep_from;
    }
    Ok(())
}

/// The pipe to the parent.
///
/// Each report is one write of at most 4096 bytes, which a pipe takes whole (POSIX:
/// `PIPE_BUF`), so that threads need no lock and a kill cuts nothing in two.
#[derive(Debug)]
struct Pipe(File);

impl Pipe {
    fn open() -> Result<Self> {
        let out = std::io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?;
        Ok(Self(File::from(out)))
    }

    fn tell(&self, messages: &[Message]) -> Result<()> {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        (&self.0).write_all(&bytes).map_err(Error::Output)
    }
}

/// The most messages of one report: they fit into an atomic write to a pipe.
const MAX_TOLD: usize = 4096 / LEN;

/// A thread that appends its records in order, several of them in flight.
struct Client<'a> {
    log: &'a Log,
    pipe: &'a Pipe,
    feed: &'a Feed,
    number: u8,
    next: u64,
    level: Level,
    random: Random,
    pending: VecDeque<(Receipt, u64)>,
    acks: Vec<Message>,
}

impl Client<'_> {
    fn run(mut self) -> Result<()> {
        loop {
            // Many records or a single one: both ways of committing are hit.
            let deepest = 1 + self.random.below(MAX_READ);
            let read_buffer = 1 + self.random.below(deepest);
            for _ in 0..read_buffer {
                self.append()?;
            }
            while let Some((receipt, index)) = self.pending.pop_front() {
                if !self.log.is_ready(receipt)? {
                    self.tell()?;
                    self.log.wait(receipt)?;
                }
                self.acks.push(Message::Ack(Ack {
                    client: self.number,
                    level: receipt.level,
                    index,
                    seq: receipt.seq,
                    lsn: receipt.lsn,
                }));
                if self.acks.len() == MAX_TOLD {
                    self.tell()?;
                }
            }
            self.tell()?;
        }
    }

    fn append(&mut self) -> Result<()> {
        let len = Feed::batch_len(self.next);
        let tokens: Vec<_> =
            (0..len).map(|i| self.feed.token(self.number, self.next + i)).collect();
        let receipt = match tokens.as_slice() {
            [token] => self.log.append_with(PUT, token.as_bytes(), self.level)?,
            tokens => {
                let entries: Vec<_> =
                    tokens.iter().map(|token| (PUT, &token.as_bytes()[..])).collect();
                self.log.append_batch(&entries, self.level)?.last()
            }
        };
        self.next += len;
        self.pending.push_back((receipt, self.next - 1));
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        if !self.acks.is_empty() {
            self.pipe.tell(&self.acks)?;
            self.acks.clear();
        }
        Ok(())
    }
}
