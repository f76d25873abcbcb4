//! `bulla dump`: the entries of any log, as bytes. Read-only.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bulla_recovery::{Inspection, Status};
use bulla_wal::Options;

use super::report;
use crate::args::RangeArgs;
use crate::error::Result;
use crate::output::{Format, Out};
use crate::{Outcome, fields};

/// Print the entries of a log: position, number, kind, payload in hex.
///
/// Changes nothing. Shows what recovery would: a torn tail is left out (a note on standard
/// error says so). Of a corrupt log it shows the entries before the damage, and exits with 4.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  bulla dump /var/lib/flights --format jsonl --from seq:100 --limit 3"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
    /// At most so many entries.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Bytes of a payload shown in a table.
const TABLE_BYTES: usize = 16;

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let inspection = Inspection::read(&args.dir, &Options::new())?;
    let format = out.format();
    let mut rows = out.rows();
    let mut left = args.limit;
    let mut result = Ok(());
    if left > 0 {
        inspection.replay(args.range.range(), |entry| {
            let row = if format == Format::Table {
                let shown = entry.payload.get(..TABLE_BYTES).unwrap_or(entry.payload);
                let more = if shown.len() < entry.payload.len() { "..." } else { "" };
                fields! {
                    "lsn": entry.lsn.0,
                    "seq": entry.seq.0,
                    "kind": entry.kind,
                    "bytes": entry.payload.len(),
                    "payload": hex(shown) + more,
                    "text": printable(shown),
                }
            } else {
                fields! {
                    "lsn": entry.lsn.0,
                    "seq": entry.seq.0,
                    "kind": entry.kind,
                    "payload_hex": hex(entry.payload),
                }
            };
            result = rows.push(row);
            left -= 1;
            if result.is_ok() && left > 0 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
    }
    result?;
    rows.end()?;
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
