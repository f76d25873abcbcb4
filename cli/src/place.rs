//! Where a log is created: in a directory of its own, never among other files.

use std::path::Path;

use bulla_storage::files::dir::Directory;
use bulla_wal::Options;

use crate::error::{Error, Result};
use crate::terminal;

/// Returns whether `dir` holds no log yet, so that opening it creates one.
///
/// Refuses a directory that holds other files: that is a mistyped path far more often
/// than intended. Opening a damaged log reports the damage; this does not.
pub(crate) fn is_new(dir: &Path, options: &Options) -> Result<bool> {
    let io = options.io.as_ref();
    let opened = match Directory::open(io, dir) {
        Err(error) if error.is_not_found() => {
            // Only the last level is created: more would hide a mistyped path.
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            return match parent {
                Some(parent) if !parent.is_dir() => Err(Error::NoParent(dir.to_owned())),
                _ => Ok(true),
            };
        }
        opened => opened?,
    };
    let foreign = opened.first_foreign()?;
    // Listed last: another process that creates a log or store here makes CONTROL before any file
    // that counts as foreign.
    let listing = opened.list()?;
    if listing.has_control || !listing.segments.is_empty() {
        return Ok(false);
    }
    match foreign {
        Some(name) => Err(Error::NotEmpty { path: dir.to_owned(), name }),
        None => Ok(true),
    }
}

/// Tells the user that a log was created.
pub(crate) fn announce(dir: &Path) {
    terminal::note(format_args!("bulla: created a new log in {}", dir.display()));
}
