//! `bulla append`: appends lines from standard input, and acknowledges each.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use bulla_recovery::Status;
use bulla_wal::{Level, Log, Receipt};
use serde::Serialize;

use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::place;
use crate::progress;
use crate::signals::Interrupt;
use crate::terminal;

/// Append each line of standard input as an entry, and print `ack SEQ LSN` once it is as
/// durable as its level says.
///
/// Lines are pipelined: acknowledgements come in order, and are flushed before each wait. An entry is the line without its newline. Ctrl-C stops reading,
/// acknowledges what was appended and closes the log.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  seq 1000 | bulla append /var/lib/lines --level strict")]
pub(crate) struct Args {
    /// The log's directory; created if there is none, in an existing directory.
    dir: PathBuf,
    /// How durable an entry must be before it is acknowledged.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    level: LevelArg,
    /// Kind of the entries, below 65280.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..65_280), value_name = "N")]
    kind: u16,
    #[command(flatten)]
    log: LogArgs,
}

/// The most entries that are appended and not acknowledged yet.
const MAX_PENDING: usize = 65_536;
/// How often Ctrl-C is checked for.
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let (options, reading) = progress::reading_log(args.log.options(), "opening the log");
    let is_new = place::is_new(&args.dir, &options)?;
    let (recovered, report) = bulla_recovery::open(&args.dir, &options)?;
    drop(reading);
    if is_new {
        place::announce(&args.dir);
    }
    if report.status == Status::TornTail {
        terminal::warn(format_args!("cut a torn tail at LSN {}; a copy is kept", report.last_lsn));
    }
    let log = Arc::new(Log::start(recovered)?);
    args.log.backend.warn_of_fallback(&log.stats());
    let stop = Arc::new(AtomicBool::new(false));
    let (to, from) = sync_channel(MAX_PENDING);
    let reader = Reader {
        max_line: log.max_entry_len() + 1,
        log: Arc::clone(&log),
        stop: Arc::clone(&stop),
        kind: args.kind,
        level: args.level.level(),
        to,
    };
    // Not joined: it may wait for a line that never comes.
    std::thread::Builder::new()
        .name("bulla-reader".to_owned())
        .spawn(move || reader.run())
        .map_err(|source| Error::System { what: "start a thread", source })?;

    let result = acknowledge(&log, &from, &interrupt, &stop, out);
    stop.store(true, Ordering::Relaxed);
    let closed = log.close();
    result?;
    closed?;
    if interrupt.is_set() { Err(Error::Interrupted) } else { Ok(Outcome::Clean) }
}

/// Prints an acknowledgement for every receipt until there are no more. After an interrupt,
/// only for entries that were appended before it.
fn acknowledge(
    log: &Log,
    from: &Receiver<Result<Receipt>>,
    interrupt: &Interrupt,
    stop: &AtomicBool,
    out: &mut Out,
) -> Result<()> {
    loop {
        if interrupt.is_set() {
            stop.store(true, Ordering::Relaxed);
        }
        let receipt = match from.try_recv() {
            Ok(receipt) => receipt?,
            Err(TryRecvError::Disconnected) => return out.flush(),
            Err(TryRecvError::Empty) => {
                out.flush()?;
                match from.recv_timeout(POLL) {
                    Ok(receipt) => receipt?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    Err(RecvTimeoutError::Timeout) if interrupt.is_set() => return Ok(()),
                    Err(RecvTimeoutError::Timeout) => continue,
                }
            }
        };
        if !log.is_ready(receipt)? {
            out.flush()?;
            log.wait(receipt)?;
        }
        if out.is_table() {
            out.line(format_args!("ack {} {}", receipt.seq, receipt.lsn))?;
        } else {
            out.compact(&Ack { seq: receipt.seq.0, lsn: receipt.lsn.0 })?;
        }
    }
}

/// An acknowledgement, for programs.
#[derive(Serialize)]
struct Ack {
    seq: u64,
    lsn: u64,
}

/// Appends lines as they come.
struct Reader {
    /// The most bytes that are read of a line: the longest entry and its newline. The log
    /// refuses a longer one.
    max_line: u64,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    kind: u16,
    level: Level,
    to: SyncSender<Result<Receipt>>,
}

impl Reader {
    fn run(self) {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.by_ref().take(self.max_line).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    let _ = self.to.send(Err(Error::Stdin(error)));
                    break;
                }
            }
            let entry = line.strip_suffix(b"\n").unwrap_or(&line);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let receipt = self.log.append_with(self.kind, entry, self.level).map_err(Error::from);
            let failed = receipt.is_err();
            if self.to.send(receipt).is_err() || failed {
                break;
            }
        }
    }
}
