//! `bulla segments`: what every byte of a log's files is used for. Read-only.

mod map;
mod measured;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Seal, Status};
use bulla_storage::files::dir;
use bulla_wal::{Options, SegmentNumber};
use serde::Serialize;

use self::measured::Measured;
use super::report;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::{progress, terminal};

/// Show what each segment file holds: live frames, dead and torn bytes, zeros
///
/// Takes no lock, changes nothing; of a log that is open for writing it shows a moment.
/// The bytes of a file are its header, then
///   live    frames that count, and the mark that ends the segment
///   dead    replaced by a later epoch, or below the low-water mark
///   torn    after the end of the log and never acknowledged as durable: a recovery cuts them
///   unread  after damage, or of a segment that does not fit into the log
///   zero    not used yet
///
/// With --map, a line per segment shows where they are, to scale, and a mark up to where the
/// log is proved to be durable.
///
/// Exits with 4 when the log is corrupt, else with 0.
#[derive(clap::Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bulla segments /var/lib/flights\n  bulla segments /var/lib/flights --map\n  bulla segments /var/lib/flights --format jsonl"
)]
pub(crate) struct Args {
    /// The log's directory.
    dir: PathBuf,
    /// Draw each segment to scale, for people; JSON is the same with and without it.
    #[arg(long)]
    map: bool,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let (options, reading) = progress::reading_log(Options::new(), "inspecting");
    let inspection = Inspection::read(&args.dir, &options)?;
    let mut all = Vec::new();
    for (segment, bytes) in inspection.segments().iter().zip(inspection.measure()?) {
        // A segment that was purged meanwhile is not part of the log any more.
        let Some(bytes) = bytes else { continue };
        let Some(allocated) = allocated(&args.dir, segment.number)? else { continue };
        all.push(Measured { segment, bytes, allocated });
    }
    drop(reading);
    let found = inspection.report();
    if args.map && out.is_table() {
        map::print(&all, found, out)?;
    } else {
        let mut rows = out.rows();
        all.iter().try_for_each(|measured| rows.push(&Row::new(measured)))?;
        rows.end()?;
    }
    let status = &found.status;
    if *status != Status::Clean {
        out.flush()?;
        let words = report::words_of_status(status);
        terminal::warn(format_args!("{words}; `bulla verify DIR` shows the evidence"));
    }
    Ok(report::outcome(status).of_display())
}

#[derive(Serialize)]
struct Row {
    segment: u64,
    state: &'static str,
    /// How its writer ended it.
    ended: Option<&'static str>,
    epoch: Option<u32>,
    base_lsn: Option<u64>,
    frames: u64,
    entries: u64,
    header_bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
    torn_bytes: u64,
    unread_bytes: u64,
    zero_bytes: u64,
    file_bytes: u64,
    allocated_bytes: u64,
}

impl Row {
    fn new(measured: &Measured<'_>) -> Self {
        let Measured { segment, bytes, allocated } = measured;
        Self {
            segment: segment.number.0,
            state: segment.state.name(),
            ended: segment.seal.map(Seal::name),
            epoch: segment.epoch.map(|epoch| epoch.0),
            base_lsn: segment.base.map(|base| base.0),
            frames: segment.frames,
            entries: segment.entries,
            header_bytes: bytes.header,
            live_bytes: bytes.live,
            dead_bytes: bytes.dead,
            torn_bytes: bytes.torn,
            unread_bytes: bytes.unread,
            zero_bytes: bytes.zero,
            file_bytes: measured.file_len(),
            allocated_bytes: *allocated,
        }
    }
}

/// Returns the bytes that a segment's file takes on the disk; `None` when it was removed.
fn allocated(log: &Path, number: SegmentNumber) -> Result<Option<u64>> {
    let path = dir::segment_path(log, number);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) => Ok(Some(metadata.blocks() * 512)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("inspect", path)(error)),
    }
}
