//! Where a picture is written: whole or not at all, never over what is not a file, and never
//! among the files of a log.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bulla_storage::files::dir;

use crate::error::{Error, Result};

/// A place for a picture that was found fit before the command began its work.
#[derive(Debug)]
pub(crate) struct Destination {
    path: PathBuf,
    folder: PathBuf,
}

/// How many folders above the file are checked for a log: its own, and those in it.
const LEVELS: usize = 3;

impl Destination {
    /// Checks that a picture may be written to `path`.
    pub(super) fn check(path: &Path) -> Result<Self> {
        let refuse = |reason| Err(Error::Input { path: path.to_owned(), reason });
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return refuse("it is there, and not a regular file: nothing is written over it");
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("find", path)(error));
            }
            _ => {}
        }
        if path.file_name().is_none() {
            return refuse("this names no file");
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder = folder.canonicalize().map_err(Error::file("find", folder))?;
        if folder.ancestors().take(LEVELS).any(is_log) {
            return refuse(
                "it is in the directory of a log, which only Bulla's own files may be in",
            );
        }
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Writes a picture, whole or not at all.
    pub(super) fn write(&self, page: &str) -> Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".bulla-")
            .suffix(".html.tmp")
            // What the user's mask leaves of it, as of any new file.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.folder)
            .map_err(Error::file("create a file in", &self.folder))?;
        file.write_all(page.as_bytes()).map_err(Error::file("write", &self.path))?;
        // Again: it may have changed while the log was read.
        Self::check(&self.path)?;
        file.persist(&self.path).map_err(|error| Error::file("write", &self.path)(error.error))?;
        Ok(())
    }
}

/// Returns whether a folder is that of a log, a damaged one too.
fn is_log(folder: &Path) -> bool {
    let is_segment = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "seg"))
    };
    folder.join(dir::CONTROL).symlink_metadata().is_ok()
        || std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(is_segment))
}
