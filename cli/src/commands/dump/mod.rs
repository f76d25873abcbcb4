//! `bulla dump`: the entries of any log. Read-only; also follows a log that another process
//! writes.

mod decode;

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla_recovery::{Inspection, Status};
use bulla_storage::io::std::StdIo;
use bulla_wal::{EntryView, Lsn, Options, Position, Range, Reader, Seq, Visibility};
use serde::Serialize;

use self::decode::Operation;
use super::inspection::undisturbed;
use super::report;
use crate::args::{position, seq};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::{Format, Out, Rows, is_stdout_closed};
use crate::signals::Interrupt;
use crate::times::{self, nanoseconds};
use crate::{progress, terminal};

/// Print the entries of a log: position, number, epoch, time, kind, payload in hex.
///
/// Changes nothing. Shows what recovery would keep: a torn tail is left out (a note on standard
/// error says so). Of a corrupt log it shows the entries before the damage, and exits with 4.
/// With --limit or --to-... it reads no more than it shows, and does not see damage after that.
///
/// The time is that of the frame: entries that were written together share it. With --decode
/// the entries of a store are shown as the operations they are: put, delete, expire.
///
/// With --follow it goes on with entries as they become durable, while another process
/// writes them, until --to-..., --limit or Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla dump /var/lib/flights --format jsonl --from-seq 100 --limit 3\n  bulla dump /var/lib/lines --follow --from-time 2026-01-31T12:00:00Z --kind 7\n  bulla dump /var/lib/flights --decode --limit 3"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// First entry: the first one at or after this position.
    #[arg(long, value_parser = position, group = "from", value_name = "LSN")]
    from_lsn: Option<u64>,
    /// First entry: the one with this number.
    #[arg(long, value_parser = seq, group = "from", value_name = "SEQ")]
    from_seq: Option<u64>,
    /// First entry: the one behind all that were written before this time, such as
    /// 2026-11-21T06:00:00Z, or in nanoseconds since 1970.
    #[arg(long, value_parser = nanoseconds, group = "from", value_name = "TIME")]
    from_time: Option<u64>,
    /// End before this position.
    #[arg(long, value_parser = position, value_name = "LSN")]
    to_lsn: Option<u64>,
    /// End before the entry with this number.
    #[arg(long, value_parser = seq, value_name = "SEQ")]
    to_seq: Option<u64>,
    /// End with the last entry written before this time.
    #[arg(long, value_parser = nanoseconds, value_name = "TIME")]
    to_time: Option<u64>,
    /// Only entries of this kind. Given several times: of any of these kinds.
    #[arg(long = "kind", value_name = "N")]
    kinds: Vec<u16>,
    /// Show at most this many entries.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Show store operations instead of bytes, where an entry is one.
    #[arg(long)]
    decode: bool,
    /// Go on with new entries as they become durable.
    #[arg(long, short)]
    follow: bool,
    /// With --follow: also show entries that are only written, which a power loss can undo.
    #[arg(long, requires = "follow")]
    written: bool,
}

/// Bytes of a payload that a table shows.
const TABLE_BYTES: usize = 16;
/// How often Ctrl-C is checked for, and whether anybody still reads.
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    if args.follow {
        follow(args, out)
    } else if args.ends_early() {
        dump_part(args, out)
    } else {
        dump(args, out)
    }
}

/// Shows the entries of a range that has an end, and reads no more of the log than that.
fn dump_part(args: &Args, out: &mut Out) -> Result<Outcome> {
    let mut printer = Printer { args, rows: out.rows(), left: args.limit };
    let io = Arc::new(StdIo::new());
    let mut reader = match Reader::open(io, &args.dir, args.range(), Visibility::Written) {
        // It is damaged somewhere: an inspection shows what is before that.
        Err(error) if error.corruption().is_some() => return dump(args, out),
        reader => reader?,
    };
    let mut more = args.limit > 0;
    while more {
        more = match reader.next() {
            Ok(Some(entry)) => printer.show(&entry)?,
            Ok(None) => {
                more = !reader.is_finished();
                break;
            }
            // What that means, an inspection of the whole log knows.
            Err(error) if error.corruption().is_some() => break,
            Err(error) => return Err(error.into()),
        };
    }
    printer.rows.end()?;
    if !more {
        return Ok(Outcome::Clean);
    }
    let (options, _reading) = progress::reading_log(Options::new(), "inspecting");
    let whole = Inspection::read(&args.dir, &options)?;
    let is_above = reader.position().1 > whole.report().last_lsn;
    end(&whole, is_above, out)
}

/// Shows the entries that are there.
fn dump(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (options, reading) = progress::reading_log(Options::new(), "inspecting");
    let mut reading = Some(reading);
    let mut printer = Printer { args, rows: out.rows(), left: args.limit };
    let (whole, is_above) = undisturbed(&args.dir, &options, || {
        let whole = Inspection::read(&args.dir, &options)?;
        let above = whole_above(args, &options, &whole)?;
        drop(reading.take());
        let (mut shown, mut result) = (args.limit == 0, Ok(true));
        if args.limit > 0 {
            let replayed = above.as_ref().unwrap_or(&whole).replay(args.range(), |entry| {
                shown = true;
                result = printer.show(entry);
                if matches!(result, Ok(true)) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            match replayed {
                // A part was shown, and what follows it is gone.
                Err(error) if shown => result = Err(error.into()),
                replayed => drop(replayed?),
            }
        }
        Ok(Some(result.map(|_| (whole, above.is_some()))))
    })??;
    printer.rows.end()?;
    end(&whole, is_above, out)
}

/// Returns what is whole of a damaged log above a checkpoint, if that has all that was asked for.
fn whole_above(args: &Args, options: &Options, whole: &Inspection) -> Result<Option<Inspection>> {
    // The place of a checkpoint does not tell which times are before it.
    let is_a_place = matches!(args.range().from, Position::Lsn { .. } | Position::Seq(_));
    if !matches!(whole.report().status, Status::Corrupt(_)) || !is_a_place {
        return Ok(None);
    }
    let files = bulla_engine::checkpoints(&args.dir, options, false)?;
    let anchors = bulla_engine::checkpoint_anchors(&files);
    let above = Inspection::read_above(&args.dir, options, &anchors)?;
    let has_all = !matches!(above.report().status, Status::Corrupt(_))
        && above.replay(args.range(), |_| ControlFlow::Break(())).is_ok();
    Ok(has_all.then_some(above))
}

/// Says how the log ends, if that is not as it should; `is_above` says that what was shown follows
/// the damage.
fn end(inspection: &Inspection, is_above: bool, out: &mut Out) -> Result<Outcome> {
    let status = &inspection.report().status;
    let words = report::words_of_status(status);
    if is_above && *status != Status::Clean {
        out.flush()?;
        terminal::warn(format_args!("{words}: what is shown follows the damage, and is whole"));
    } else if *status != Status::Clean {
        out.flush()?;
        terminal::warn(format_args!(
            "{words}: what follows LSN {} is not shown",
            inspection.report().last_lsn
        ));
    }
    Ok(report::outcome(status).of_display())
}

/// Shows the entries that are there, and new ones as they come.
fn follow(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let visibility = if args.written { Visibility::Written } else { Visibility::Durable };
    let io = Arc::new(StdIo::new());
    let mut reader = Reader::open(io, &args.dir, args.range(), visibility)?;
    let mut printer = Printer { args, rows: out.rows(), left: args.limit };
    let mut more = args.limit > 0;
    while more && !interrupt.is_set() {
        more = match reader.next()? {
            Some(entry) => printer.show(&entry)?,
            None => {
                if reader.is_finished() {
                    break;
                }
                printer.rows.flush()?;
                if is_stdout_closed() {
                    return Err(Error::Output(std::io::ErrorKind::BrokenPipe.into()));
                }
                match reader.wait_next(POLL)? {
                    Some(entry) => printer.show(&entry)?,
                    None => true,
                }
            }
        };
    }
    printer.rows.end()?;
    out.flush()?;
    if more && interrupt.is_set() { Err(Error::Interrupted) } else { Ok(Outcome::Clean) }
}

impl Args {
    /// Where it begins, and the time at which it ends: only the log knows where that is.
    fn range(&self) -> Range {
        let lsn = self.from_lsn.map(|lsn| Lsn(lsn).into());
        let seq = self.from_seq.map(|seq| Seq(seq).into());
        Range {
            from: lsn.or(seq).or(self.from_time.map(Position::at_wall_ns)).unwrap_or_default(),
            to: self.to_time.map_or(Position::End, Position::at_wall_ns),
        }
    }

    fn ends_early(&self) -> bool {
        self.limit < u64::MAX
            || self.to_lsn.is_some()
            || self.to_seq.is_some()
            || self.to_time.is_some()
    }

    fn is_past_end(&self, entry: &EntryView<'_>) -> bool {
        self.to_lsn.is_some_and(|to| entry.lsn.0 >= to)
            || self.to_seq.is_some_and(|to| entry.seq.0 >= to)
    }
}

struct Printer<'a> {
    args: &'a Args,
    rows: Rows<'a>,
    left: u64,
}

impl Printer<'_> {
    /// Prints the entry if it matches; returns whether there may be more.
    fn show(&mut self, entry: &EntryView<'_>) -> Result<bool> {
        if self.args.is_past_end(entry) {
            return Ok(false);
        }
        if self.args.kinds.is_empty() || self.args.kinds.contains(&entry.kind) {
            self.push(entry)?;
            self.left -= 1;
        }
        // The next one's number is known before it is read.
        let is_last = self.args.to_seq.is_some_and(|to| entry.seq.0 + 1 >= to);
        Ok(self.left > 0 && !is_last)
    }

    fn push(&mut self, entry: &EntryView<'_>) -> Result<()> {
        let position = Place {
            lsn: entry.lsn.0,
            seq: entry.seq.0,
            epoch: entry.epoch.0,
            time: times::of_nanoseconds(entry.wall_ns),
            kind: entry.kind,
        };
        let operations =
            if self.args.decode { decode::operations(entry.kind, entry.payload) } else { None };
        match (self.rows.format(), operations) {
            (Format::Table, Some(operations)) => {
                let operation = decode::words(&operations);
                self.rows.push(&DecodedRow { position, operation })
            }
            (Format::Table, None) if self.args.decode => {
                let operation = format!("(not a store's: {} bytes)", entry.payload.len());
                self.rows.push(&DecodedRow { position, operation })
            }
            (Format::Table, None) => self.rows.push(&TableRow::new(position, entry.payload)),
            (_, operations) => {
                self.rows.push(&Row { position, payload_hex: hex(entry.payload), operations })
            }
        }
    }
}

/// Where an entry is, and what its frame says about it.
#[derive(Serialize)]
struct Place {
    lsn: u64,
    seq: u64,
    epoch: u32,
    time: Option<String>,
    kind: u16,
}

/// An entry for programs.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    position: Place,
    payload_hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<Vec<Operation>>,
}

/// An entry for people.
#[derive(Serialize)]
struct TableRow {
    #[serde(flatten)]
    position: Place,
    bytes: usize,
    payload: String,
    text: String,
}

impl TableRow {
    fn new(position: Place, payload: &[u8]) -> Self {
        let shown = payload.get(..TABLE_BYTES).unwrap_or(payload);
        let more = if shown.len() < payload.len() { "..." } else { "" };
        Self { position, bytes: payload.len(), payload: hex(shown) + more, text: printable(shown) }
    }
}

/// An entry for people, decoded.
#[derive(Serialize)]
struct DecodedRow {
    #[serde(flatten)]
    position: Place,
    operation: String,
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn printable(bytes: &[u8]) -> String {
    let show = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' };
    bytes.iter().map(show).collect()
}
