//! `bulla dump`: the entries of any log, as bytes. Read-only; also follows a log that
//! another process writes.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulla_recovery::{Bound, Inspection, Range, Status};
use bulla_storage::io::std::StdIo;
use bulla_wal::{EntryView, Lsn, Options, ReadFrom, Reader, Seq, Visibility};

use super::report;
use crate::args::{position, time};
use crate::error::{Error, Result};
use crate::output::{Fields, Format, Out, Rows, is_stdout_closed};
use crate::signals::Interrupt;
use crate::{Outcome, fields};

/// Print the entries of a log: position, number, kind, payload in hex.
///
/// Changes nothing. Shows what recovery would: a torn tail is left out (a note on standard
/// error says so). Of a corrupt log it shows the entries before the damage, and exits with 4.
///
/// With --follow it goes on with entries as they become durable, while another process
/// writes them, until --to-..., --limit or Ctrl-C.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla dump /var/lib/flights --format jsonl --from-seq 100 --limit 3\n  bulla dump /var/lib/lines --follow --from-time 2026-01-31T12:00:00Z --kind 7"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// First entry: the first one at or after this position.
    #[arg(long, value_parser = position, group = "from", value_name = "LSN")]
    from_lsn: Option<u64>,
    /// First entry: the one of this number.
    #[arg(long, value_parser = position, group = "from", value_name = "SEQ")]
    from_seq: Option<u64>,
    /// First entry: the first one written at or after this time, such as
    /// 2026-11-21T06:00:00Z, or in nanoseconds since 1970.
    #[arg(long, value_parser = time, group = "from", value_name = "TIME")]
    from_time: Option<u64>,
    /// End before this position.
    #[arg(long, value_parser = position, value_name = "LSN")]
    to_lsn: Option<u64>,
    /// End before the entry of this number.
    #[arg(long, value_parser = position, value_name = "SEQ")]
    to_seq: Option<u64>,
    /// End before the first entry written at or after this time.
    #[arg(long, value_parser = time, value_name = "TIME")]
    to_time: Option<u64>,
    /// Only entries of this kind; more than one: of any of them.
    #[arg(long = "kind", value_name = "N")]
    kinds: Vec<u16>,
    /// At most so many entries.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Go on with new entries as they become durable.
    #[arg(long, short)]
    follow: bool,
    /// With --follow: also entries that are only written, which a power loss can take back.
    #[arg(long, requires = "follow")]
    written: bool,
}

/// Bytes of a payload shown in a table.
const TABLE_BYTES: usize = 16;
/// How soon Ctrl-C, or that nobody reads any more, is seen.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    if args.follow { follow(args, out) } else { dump(args, out) }
}

/// Shows what is there.
fn dump(args: &Args, out: &mut Out) -> Result<Outcome> {
    let inspection = Inspection::read(&args.dir, &Options::new())?;
    let format = out.format();
    let mut printer = Printer { args, format, rows: out.rows(), left: args.limit };
    let mut result = Ok(());
    if args.limit > 0 {
        inspection.replay(args.range(), |entry| match printer.show(entry) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        })?;
    }
    result?;
    printer.rows.end()?;
    let status = &inspection.report().status;
    if *status != Status::Clean {
        out.flush()?;
        eprintln!(
            "bulla: {status}: what follows LSN {} is not shown",
            inspection.report().last_lsn
        );
    }
    Ok(match report::outcome(status) {
        Outcome::TornTail => Outcome::Clean,
        outcome => outcome,
    })
}

/// Shows what is there and what comes.
fn follow(args: &Args, out: &mut Out) -> Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let visibility = if args.written { Visibility::Written } else { Visibility::Durable };
    let io = Arc::new(StdIo::new());
    let mut reader = Reader::open(io, &args.dir, args.from(), visibility)?;
    let format = out.format();
    let mut printer = Printer { args, format, rows: out.rows(), left: args.limit };
    let mut more = args.limit > 0;
    while more && !interrupt.is_set() {
        more = match reader.next()? {
            Some(entry) => printer.show(&entry)?,
            None => {
                printer.rows.flush()?;
                if is_stdout_closed() {
                    return Err(Error::Output(std::io::ErrorKind::BrokenPipe.into()));
                }
                match reader.wait_next(LOOK)? {
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
    fn from(&self) -> ReadFrom {
        let lsn = self.from_lsn.map(|lsn| ReadFrom::Lsn { epoch: None, lsn: Lsn(lsn) });
        let seq = self.from_seq.map(|seq| ReadFrom::Seq(Seq(seq)));
        lsn.or(seq).or(self.from_time.map(ReadFrom::Time)).unwrap_or_default()
    }

    /// The same for replay.
    fn range(&self) -> Range {
        let lsn = self.from_lsn.map(|lsn| Bound::Lsn(Lsn(lsn)));
        let seq = self.from_seq.map(|seq| Bound::Seq(Seq(seq)));
        let from = lsn.or(seq).or(self.from_time.map(Bound::Time)).unwrap_or_default();
        Range { from, to: Bound::Unbounded }
    }

    fn is_past_end(&self, entry: &EntryView<'_>) -> bool {
        self.to_lsn.is_some_and(|to| entry.lsn.0 >= to)
            || self.to_seq.is_some_and(|to| entry.seq.0 >= to)
            || self.to_time.is_some_and(|to| entry.wall_ns >= to)
    }
}

struct Printer<'a> {
    args: &'a Args,
    format: Format,
    rows: Rows<'a>,
    left: u64,
}

impl Printer<'_> {
    /// Prints the entry if it is to be shown; gives whether there may be more.
    fn show(&mut self, entry: &EntryView<'_>) -> Result<bool> {
        if self.args.is_past_end(entry) {
            return Ok(false);
        }
        if self.args.kinds.is_empty() || self.args.kinds.contains(&entry.kind) {
            self.rows.push(row(self.format, entry))?;
            self.left -= 1;
        }
        Ok(self.left > 0)
    }
}

fn row(format: Format, entry: &EntryView<'_>) -> Fields {
    if format == Format::Table {
        let shown = entry.payload.get(..TABLE_BYTES).unwrap_or(entry.payload);
        let more = if shown.len() < entry.payload.len() { "..." } else { "" };
        return fields! {
            "lsn": entry.lsn.0,
            "seq": entry.seq.0,
            "kind": entry.kind,
            "bytes": entry.payload.len(),
            "payload": hex(shown) + more,
            "text": printable(shown),
        };
    }
    fields! {
        "lsn": entry.lsn.0,
        "seq": entry.seq.0,
        "kind": entry.kind,
        "payload_hex": hex(entry.payload),
    }
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
