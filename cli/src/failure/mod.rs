//! What is printed of an error, and the exit code.
//!
//! `words.rs` has the words for errors of the libraries, in terms of the command line;
//! `advice.rs` what the user can do.

mod advice;
mod words;

use std::error::Error as _;

use bulla_engine::{BackupError, CheckpointError};

use crate::error::Error;
use crate::terminal;

pub(crate) use self::advice::of_corruption;
pub(crate) use self::words::lines_of_corruption;

/// Prints an error, its causes, and what to do.
pub(crate) fn report(error: &Error) {
    let words = words::of(error).unwrap_or_else(|| error.to_string());
    let mut causes = Vec::new();
    let mut said = words.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        // What an error says of its own cause is not said twice.
        let cause_words = cause.to_string();
        if !said.ends_with(&cause_words) {
            said.clone_from(&cause_words);
            causes.push(cause_words);
        }
        source = cause.source();
    }
    terminal::error(words, &causes, advice::of(error));
    terminal::detail(format_args!("{error:?}"));
}

/// Returns the exit code.
pub(crate) fn code(error: &Error) -> u8 {
    match error {
        _ if error.log().is_some_and(|error| error.corruption().is_some()) => 4,
        _ if matches!(
            error.log(),
            Some(bulla_wal::Error::Options { .. } | bulla_wal::Error::HoldName { .. })
        ) =>
        {
            2
        }
        Error::LegacyDamaged { .. }
        | Error::Backup(
            BackupError::Manifest { .. }
            | BackupError::Part { .. }
            | BackupError::BaseMissing { .. }
            | BackupError::NoCheckpoint { .. },
        )
        | Error::Store(bulla_engine::Error::Checkpoint(
            CheckpointError::Missing { .. } | CheckpointError::Slab { .. },
        )) => 4,
        Error::Mapping { .. }
        | Error::NotForLegacy { .. }
        | Error::NoCommand(_)
        | Error::NoWord(_)
        | Error::Token(_)
        | Error::SetTwice => 2,
        _ => 1,
    }
}
