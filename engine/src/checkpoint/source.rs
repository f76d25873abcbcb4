//! The checkpoints that a store reads its records from.

use std::sync::Arc;

use bulla_storage::files::dir::Directory;
use bulla_storage::io::Io;

use super::files::Checkpoint;

/// The checkpoint that a store opens from.
#[derive(Debug)]
pub(crate) struct CheckpointSource {
    pub(crate) newest: Checkpoint,
    pub(crate) fallback: Fallback,
    pub(crate) io: Arc<dyn Io>,
    /// The store's directory, with the log.
    pub(crate) store: Directory,
}

/// What a damaged slab can be rebuilt from, together with the log.
#[derive(Debug)]
pub(crate) enum Fallback {
    Checkpoint(Box<Checkpoint>),
    /// The log from its first entry.
    Log,
    /// Nothing: the log begins too late.
    Nothing,
}
