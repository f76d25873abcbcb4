//! A checkpoint that makes room for itself.

use std::io;

use bulla_storage::faults::mutants::{Mutant, planted};

use crate::checkpoint::files::{CheckpointDir, name_of, remove};
use crate::checkpoint::format::Head;
use crate::checkpoint::write::Written;

/// Publishes a checkpoint; see [`Written::publish`]. `in_use` are those before it.
#[inline]
pub(crate) fn publish(written: Written, dir: &CheckpointDir, in_use: &[Head]) -> io::Result<Head> {
    if planted(Mutant::OlderGoesFirst)
        && let [_, older] = in_use
    {
        remove(dir.open()?.as_ref(), &name_of(older.number))?;
    }
    written.publish()
}
