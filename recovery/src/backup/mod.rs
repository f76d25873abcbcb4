//! Backups: a log is copied while it is written, and restored.
//!
//! Owns the folder of a backup: the parts of segments, checkpoints, and the manifest, which is
//! written last and makes it one. What is copied was validated frame by frame, and is read back.
//! A restore writes CONTROL last, which makes the directory a log.
//!
//! ```text
//! take      the order of a backup         restore   the order of a restore
//! source    where a copy may end          cut       where a restored log ends
//! copy      parts of segments, verified   folder    names, manifest, chain of backups
//! error     what can go wrong
//! ```

mod copy;
mod cut;
mod error;
mod folder;
mod restore;
mod source;
mod take;

pub use error::{BackupError, PartDamage};
pub use restore::{RestoreOptions, RestoreReport, restore};
pub use take::{BackupOptions, BackupReport, CheckpointCopy, backup};
