//! The checkpoints beside a log: what is told of them, by every command that looks at one.

use std::path::Path;

use bulla_engine::{CheckpointFault, CheckpointFile, standing_checkpoints, usable_checkpoints};
use bulla_recovery::{Inspection, Report, Status};
use bulla_wal::Options;

use super::report::{ns, wall_time};
use crate::error::Result;
use crate::fields;
use crate::output::{Fields, grouped};

/// Checkpoints, the newest first, and the numbers of those that a store could be opened from.
pub(crate) struct Kept {
    pub(crate) files: Vec<CheckpointFile>,
    pub(crate) usable: Vec<u64>,
    /// Those that it could be opened from if the log were cut where it is damaged.
    standing: Vec<u64>,
}

/// Looks in vain at the checkpoints of a store that runs, and takes others meanwhile.
const MAX_LOOKS: usize = 4;

/// Looks at a log and at the checkpoints beside it; with `all` at every byte of these.
pub(crate) fn look(dir: &Path, options: &Options, all: bool) -> Result<(Inspection, Kept)> {
    let mut looks = 1;
    loop {
        // First what a running store makes last.
        let files = bulla_engine::checkpoints(dir, options, all)?;
        let inspection = Inspection::read(dir, options)?;
        let usable = usable_checkpoints(dir, options, &inspection, &files)?;
        let standing = standing_checkpoints(&inspection, &files)?;
        let kept = Kept { files, usable, standing };
        // One that runs may have taken others, and purged the log to what those need.
        if looks < MAX_LOOKS && kept.is_missing(inspection.report()) {
            let now = bulla_engine::checkpoints(dir, options, false)?;
            if !now.iter().map(|file| file.number).eq(kept.files.iter().map(|file| file.number)) {
                looks += 1;
                continue;
            }
        }
        return Ok((inspection, kept));
    }
}

impl Kept {
    /// Is any of them damaged?
    pub(crate) fn is_damaged(&self) -> bool {
        self.files.iter().any(|file| file.state.is_err())
    }

    /// Was the log purged of what none of them has?
    pub(crate) fn is_missing(&self, found: &Report) -> bool {
        !self.files.is_empty() && !opens(&self.usable, found)
    }

    /// Says on standard error what this means for a store, if that is more than the state of
    /// its log.
    pub(crate) fn advise(&self, found: &Report) {
        if let Some(advice) = self.advice(found) {
            eprintln!("{advice}");
        }
    }

    fn advice(&self, found: &Report) -> Option<String> {
        if let (true, Some(newest)) = (self.is_missing(found), self.standing.first()) {
            return Some(format!(
                "the log is damaged after checkpoint {newest}: cut there by `bulla repair`, a \
                 store can be opened from it, with what lies between"
            ));
        }
        if self.is_missing(found) {
            return Some(format!(
                "no checkpoint can be used, and the log before LSN {} was purged: a store can't \
                 be opened here. Restore a copy of the directory",
                found.first_lsn
            ));
        }
        let newest = self.usable.first()?;
        matches!(found.status, Status::Corrupt(_)).then(|| {
            format!(
                "a store needs no repair here: it is opened from checkpoint {newest}, and the \
                 log after that is whole. Two more checkpoints, with changes before each, and \
                 what is damaged goes with the log that they let go"
            )
        })
    }

    /// A row for each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Fields> {
        self.files.iter().map(|file| {
            let found = file.state.as_ref().ok();
            fields! {
                "checkpoint": file.number,
                "state": self.state(file),
                "usable": self.usable.contains(&file.number),
                "lsn": found.map(|found| found.lsn.0),
                "tokens": found.map(|found| found.records),
                "taken": found.and_then(|found| wall_time(ns(found.taken_at))),
                "file_bytes": found.map(|found| found.file_len),
            }
        })
    }

    /// A line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.files.iter().map(|file| format!("{} {}", file.number, self.state(file))).collect()
    }

    /// A line for each, of a cut after which only `usable` can be used.
    pub(crate) fn lines_of_cut(&self, usable: &[u64]) -> Vec<String> {
        let line = |file: &CheckpointFile| {
            let number = file.number;
            let Ok(found) = &file.state else { return format!("{number} {}", self.state(file)) };
            let can = if usable.contains(&number) { "can" } else { "can't" };
            format!("{number} at LSN {} {can} be used after the cut", grouped(found.lsn.0))
        };
        self.files.iter().map(line).collect()
    }

    fn state(&self, file: &CheckpointFile) -> String {
        match &file.state {
            Ok(_) if self.usable.contains(&file.number) => "whole".to_owned(),
            Ok(_) if self.standing.contains(&file.number) => {
                "whole, but the log after it is damaged".to_owned()
            }
            Ok(_) => "of no use: ahead of the log, or not of its history".to_owned(),
            Err(CheckpointFault::Io(error)) => format!("can't be read: {error}"),
            Err(fault) => format!("damaged: {fault}"),
        }
    }
}

/// Can a store be opened from these checkpoints, or from its log alone?
pub(crate) fn opens(usable: &[u64], found: &Report) -> bool {
    !usable.is_empty() || found.first_seq.0 == 1
}
