//! Backups of a store: its log, and the newest checkpoint that is whole.
//!
//! Owns which checkpoints can be copied. The order of a backup is the log's:
//! `bulla_recovery::backup`.

use std::path::Path;

use bulla_recovery::backup::{
    BackupError, BackupOptions, BackupReport, CheckpointCopy, RestoreOptions, RestoreReport,
};
use bulla_storage::files::dir::Directory;
use bulla_wal::{Error as LogError, Result};

use crate::checkpoint::{CheckpointDir, copies};

/// Copies the log or the store in `dir`, which a program may have open, to `dest`.
///
/// Does what [`bulla_recovery::backup::backup`] does, and copies the newest whole checkpoint if
/// there is one. [`restore`] restores both.
///
/// # Errors
/// As [`bulla_recovery::backup::backup`].
///
/// # Examples
/// ```
/// # let temp = tempfile::tempdir().unwrap();
/// # let (dir, dest, other) =
/// #     (temp.path().join("store"), temp.path().join("backup"), temp.path().join("other"));
/// use bulla_engine::{BackupOptions, EntityType, RestoreOptions, Store, StoreOptions, Token, TokenId};
///
/// let store = Store::open(&dir, &StoreOptions::new())?;
/// let id = TokenId::new(7, EntityType::Event, 0)?;
/// store.put(&Token::builder(id).build()?)?;
/// bulla_engine::backup(&dir, &dest, &BackupOptions::new())?; // while the store is open
/// # store.close()?;
///
/// bulla_engine::restore(&dest, &other, &RestoreOptions::new())?;
/// let restored: Store = Store::open(&other, &StoreOptions::new())?;
/// assert!(restored.get(id)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn backup(
    dir: impl AsRef<Path>,
    dest: impl AsRef<Path>,
    options: &BackupOptions,
) -> Result<BackupReport, BackupError> {
    bulla_recovery::backup::backup(dir.as_ref(), dest.as_ref(), options, checkpoints)
}

/// Restores a backup of a log or a store to `dir`.
///
/// Does what [`bulla_recovery::backup::restore`] does.
///
/// # Errors
/// As [`bulla_recovery::backup::restore`].
pub fn restore(
    backup: impl AsRef<Path>,
    dir: impl AsRef<Path>,
    options: &RestoreOptions,
) -> Result<RestoreReport, BackupError> {
    bulla_recovery::backup::restore(backup.as_ref(), dir.as_ref(), options)
}

/// Returns the checkpoints whose headers are intact, the newest first, open: a running store may
/// remove them meanwhile.
fn checkpoints(store: &Directory) -> Result<Vec<CheckpointCopy>> {
    let dir = CheckpointDir::of(store);
    copies(&dir).map_err(LogError::io("list", &dir.path))
}
