//! The inspection of a log and of the checkpoints beside it, for every command that shows both.

use std::path::Path;

use bulla_engine::{CheckpointFault, CheckpointFile, standing_checkpoints, usable_checkpoints};
use bulla_recovery::{Inspection, Report, Status};
use bulla_wal::{Error as LogError, Options};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::numbers::grouped;
use crate::{progress, terminal, times};

/// Checkpoints, the newest first, and the numbers of those from which a store could be opened.
pub(crate) struct Checkpoints {
    pub(crate) files: Vec<CheckpointFile>,
    pub(crate) usable: Vec<u64>,
    /// Those from which it could be opened if the log were cut where it is damaged.
    standing: Vec<u64>,
    /// How much of them was read.
    depth: Depth,
}

/// Attempts to inspect a log or a store that another process runs, and that takes checkpoints and
/// purges meanwhile.
const MAX_ATTEMPTS: usize = 100;

/// Reads something of a log, and does so again where a program has purged meanwhile what was to be
/// read; `None` from `read` means that, too.
pub(crate) fn undisturbed<T>(
    dir: &Path,
    options: &Options,
    mut read: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut before = None;
    for _ in 0..MAX_ATTEMPTS {
        match read() {
            Ok(Some(read)) => return Ok(read),
            Ok(None) => {}
            Err(error) => {
                let start = match error.log() {
                    Some(LogError::Purged { low_water, .. }) => *low_water,
                    Some(LogError::Changed { lsn }) => *lsn,
                    _ => return Err(error),
                };
                // The log starts where it did: what was asked for is gone.
                if before.replace(start) == Some(start) {
                    return Err(error);
                }
            }
        }
    }
    let lsn = Inspection::read_headers(dir, options)?.report().first_lsn;
    Err(LogError::Changed { lsn }.into())
}

/// How much of a log and its checkpoints is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// Headers: what there is, and where it ends.
    Headers,
    /// Every byte of the log, and the headers of checkpoints.
    Log,
    /// Every byte.
    All,
}

/// Inspects a log and the checkpoints beside it.
pub(crate) fn inspect(
    dir: &Path,
    options: &Options,
    depth: Depth,
) -> Result<(Inspection, Checkpoints)> {
    let (options, _progress) = progress::reading_log(options.clone(), "inspecting");
    let options = &options;
    let mut attempts = 0;
    undisturbed(dir, options, || {
        attempts += 1;
        // A running store writes the log first, then the checkpoint: read in the other order.
        let files = bulla_engine::checkpoints(dir, options, depth == Depth::All)?;
        let inspection = match depth {
            Depth::Headers => Inspection::read_headers(dir, options)?,
            Depth::Log | Depth::All => Inspection::read(dir, options)?,
        };
        let usable = usable_checkpoints(dir, options, &inspection, &files)?;
        let standing = standing_checkpoints(&inspection, &files)?;
        let checkpoints = Checkpoints { files, usable, standing, depth };
        // Meanwhile it may have taken others, and purged the log up to what those need.
        if checkpoints.is_missing(inspection.report()) {
            let now = bulla_engine::checkpoints(dir, options, false)?;
            let before = checkpoints.files.iter().map(|file| file.number);
            if !now.iter().map(|file| file.number).eq(before) {
                return Ok(None);
            }
        }
        terminal::detail(format_args!(
            "inspected {} segments and {} checkpoints, {attempts} time(s)",
            inspection.segments().len(),
            checkpoints.files.len(),
        ));
        Ok(Some((inspection, checkpoints)))
    })
}

/// Adds to a corruption what a store's checkpoints make of it.
pub(crate) fn explained(dir: &Path, error: Error) -> Error {
    if !matches!(error.log(), Some(bulla_wal::Error::Corrupt(_))) {
        return error;
    }
    let inspected = inspect(dir, &Options::new(), Depth::Log);
    match inspected.ok().and_then(|(found, checkpoints)| checkpoints.advice(found.report())) {
        Some(advice) => Error::CorruptStore { error: Box::new(error), advice },
        None => error,
    }
}

/// One checkpoint.
#[derive(Serialize)]
pub(crate) struct CheckpointRow {
    pub(crate) checkpoint: u64,
    pub(crate) state: String,
    pub(crate) usable: bool,
    pub(crate) lsn: Option<u64>,
    pub(crate) tokens: Option<u64>,
    pub(crate) taken: Option<String>,
    pub(crate) file_bytes: Option<u64>,
}

impl Checkpoints {
    /// Returns whether any of them is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.files.iter().any(|file| file.state.is_err())
    }

    /// Returns whether the log of a store was purged of something that none of them holds.
    pub(crate) fn is_missing(&self, found: &Report) -> bool {
        let is_of_store = found.content.is_of_store() || !self.files.is_empty();
        is_of_store && !opens(&self.usable, found)
    }

    /// Tells what this means for a store, where that is more than the state of its log.
    /// Returns whether it is.
    pub(crate) fn advise(&self, found: &Report) -> bool {
        let advice = self.advice(found);
        let is_given = advice.is_some();
        if let Some(advice) = advice {
            terminal::advise(advice);
        }
        is_given
    }

    /// Returns the newest of them if a store opens from it although its log is damaged.
    pub(crate) fn replacing_damage(&self, found: &Report) -> Option<u64> {
        let newest = *self.usable.first()?;
        let is_whole = self.files.iter().any(|file| file.number == newest && file.state.is_ok());
        (is_whole && matches!(found.status, Status::Corrupt(_))).then_some(newest)
    }

    pub(crate) fn advice(&self, found: &Report) -> Option<String> {
        if let (true, Some(newest)) = (self.is_missing(found), self.standing.first()) {
            return Some(format!(
                "restore a copy of the directory. Without one: the log is damaged after checkpoint \
                 {newest}, and a store opens with everything before the damage once the log is cut \
                 there. `bulla repair DIR` shows what that keeps and loses"
            ));
        }
        if self.is_missing(found) {
            return Some(format!(
                "restore a copy of the directory: a store can't be opened here, as no checkpoint \
                 can be used and the log before LSN {} was purged",
                found.first_lsn
            ));
        }
        let newest = self.replacing_damage(found)?;
        let costs_nothing = match self.depth {
            Depth::All => "and loses nothing",
            Depth::Headers | Depth::Log => {
                "and loses nothing if that is whole, which `bulla verify DIR` tells"
            }
        };
        Some(format!(
            "do NOT repair if this is a store: it opens from checkpoint {newest} {costs_nothing}. \
             The damaged part is deleted once two more checkpoints are taken, with \
             changes before each (`bulla checkpoint DIR`)"
        ))
    }

    /// Returns a row for each.
    pub(crate) fn rows(&self) -> impl Iterator<Item = CheckpointRow> {
        self.files.iter().map(|file| {
            let found = file.state.as_ref().ok();
            CheckpointRow {
                checkpoint: file.number,
                state: self.state(file),
                usable: self.usable.contains(&file.number),
                lsn: found.map(|found| found.lsn.0),
                tokens: found.map(|found| found.records),
                taken: found.and_then(|found| times::of_system_time(found.taken_at)),
                file_bytes: found.map(|found| found.file_len),
            }
        })
    }

    /// Returns a line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.files.iter().map(|file| format!("{} {}", file.number, self.state(file))).collect()
    }

    /// Returns a line for each, for a cut that leaves only `usable` of use.
    pub(crate) fn lines_after_cut(&self, usable: &[u64]) -> Vec<String> {
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
            Ok(_) => {
                "unusable: newer than the end of the log, of another history, or before a part \
                      of the log that is missing"
                    .to_owned()
            }
            Err(CheckpointFault::Io(error)) => format!("can't be read: {error}"),
            Err(fault) => format!("damaged: {fault}"),
        }
    }
}

/// Returns whether a store can be opened from these checkpoints, or from its log alone.
pub(crate) fn opens(usable: &[u64], found: &Report) -> bool {
    !usable.is_empty() || found.first_seq.0 == 1
}
