//! Checkpoints: the records as of a position in the log, so that an open need not replay what
//! came before, and the log need not retain it.
//!
//! At every moment a store has two checkpoints, or one and the log from its first entry; so
//! damage to any one file costs nothing. A checkpoint that fails changes nothing. Tested by
//! `engine/tests/checkpoint.rs`, and on the simulated disk by `tests/tests/store.rs`.
//!
//! ```text
//! format    every byte of a checkpoint       take        when one is taken, and in which order
//! files     names, reading                   background  the thread that takes them
//! write     pages into a temporary file      reserve     space for one on a full disk
//! open      which one a store opens from     fault_in    slabs on first access
//! restore   slabs from bytes                 rebuild     damaged slabs from older ones and the log
//! source    what a store reads from          inspect     each checkpoint, read-only
//! ```

mod background;
pub(crate) mod error;
pub(crate) mod fault_in;
pub(crate) mod files;
pub(crate) mod format;
#[cfg(test)]
mod format_tests;
mod inspect;
mod open;
mod rebuild;
mod reserve;
mod restore;
pub(crate) mod source;
mod take;
pub(crate) mod write;

pub(crate) use background::Background;
pub use error::{CheckpointError, CheckpointFault, Refusal, RefusedCheckpoint};
pub(crate) use files::CheckpointDir;
pub use format::CheckpointDamage;
pub(crate) use inspect::copies;
pub use inspect::{
    CheckpointFile, anchors as checkpoint_anchors, checkpoints, standing_checkpoints,
    usable_checkpoints, usable_checkpoints_after,
};
pub(crate) use open::{Candidates, Choice};
pub use open::{CheckpointInfo, OpenReport};
pub(crate) use source::CheckpointSource;
pub use take::CheckpointStats;
pub(crate) use take::{Checkpoints, Found};
