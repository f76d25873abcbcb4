//! Space on disk that is reserved for a checkpoint: on a full disk only a checkpoint lets the log
//! be purged, and it needs space itself.

use std::io;

use bulla_storage::io::{AlignedBuf, Dir, write_full};

use super::error::CheckpointError;
use super::files::{CheckpointDir, RESERVE, remove};
use crate::error::Result;

/// Bytes of zeros per write, where the file system can't reserve space.
const ZEROS: usize = 1024 * 1024;

/// Makes the reserve `wanted` bytes long; removes it where none is wanted.
///
/// # Errors
/// When the disk has no room for it, or fails; then there is no reserve, or the old one.
pub(crate) fn set_reserve(dir: &CheckpointDir, wanted: Option<u64>, direct: bool) -> Result<()> {
    let wanted = wanted.unwrap_or(0);
    let path = dir.path.join(RESERVE);
    let listing = dir.list().map_err(CheckpointError::io("list", &dir.path))?;
    if listing.reserve.unwrap_or(0) == wanted {
        return Ok(());
    }
    let folder = dir.create().map_err(CheckpointError::io("create", &dir.path))?;
    remove(folder.as_ref(), RESERVE).map_err(CheckpointError::io("remove", &path))?;
    if wanted > 0
        && let Err(error) = reserve(folder.as_ref(), wanted, direct)
    {
        // Part of it is of no use.
        let _ = remove(folder.as_ref(), RESERVE);
        return Err(CheckpointError::io("reserve space in", path)(error).into());
    }
    Ok(())
}

/// Creates a file that occupies `len` bytes of disk.
fn reserve(dir: &dyn Dir, len: u64, direct: bool) -> io::Result<()> {
    let file = dir.create(RESERVE, direct)?;
    match file.preallocate(len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        reserved => return reserved,
    }
    let zeros = AlignedBuf::zeroed(ZEROS);
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
        write_full(file.as_ref(), &zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}
