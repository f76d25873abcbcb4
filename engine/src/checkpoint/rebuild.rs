//! Rebuilding a damaged slab from the older checkpoint and the log between the two.

use std::sync::Arc;

use bulla_wal::{Lsn, Position, Reader, Visibility};

use super::error::CheckpointError;
use super::files::{Checkpoint, SlabBuffer};
use super::format::Place;
use super::restore::{Failure, restore};
use super::source::{CheckpointSource, Fallback};
use crate::entries::{self, EntryError};
use crate::error::{Error, Result};
use crate::faults;
use crate::record::Record;
use crate::table::{PageId, Slab, TableOp, apply};

/// Rebuilds a slab of the newest checkpoint.
///
/// # Errors
/// When there is nothing to rebuild it from, when that can't be read either, and when the result
/// has another number of records than the damaged checkpoint lists.
pub(crate) fn rebuild<R: Record>(
    source: &CheckpointSource,
    place: &Place,
    buffer: &mut SlabBuffer,
) -> Result<Slab> {
    let (slab, from) = match &source.fallback {
        Fallback::Checkpoint(older) => {
            (older_slab::<R>(older, place.slab, buffer)?, older.head.anchor.upto)
        }
        Fallback::Log => (Slab::new(false).map_err(Error::Memory)?, Lsn::ZERO),
        Fallback::Nothing => return Err(CheckpointError::NoOlder.into()),
    };
    replay::<R>(source, from, |op| {
        let page = PageId::of(op.id());
        if faults::checkpoint::is_rebuilt(page.slab_number() == place.slab) {
            apply(&[page], &mut [slab.lock(page.in_slab())], &[op], 0);
        }
    })?;
    if slab.records() == place.records {
        Ok(slab)
    } else {
        Err(CheckpointError::OtherRecords { slab: place.slab }.into())
    }
}

/// Restores the slab of the older checkpoint; an empty one where it has none.
fn older_slab<R: Record>(older: &Checkpoint, slab: u32, buffer: &mut SlabBuffer) -> Result<Slab> {
    let Some(place) = older.place(slab) else { return Slab::new(false).map_err(Error::Memory) };
    restore::<R>(older, place, buffer).map_err(|failure| match failure {
        Failure::Fault(fault) => {
            CheckpointError::Unreadable { path: older.path.clone(), fault }.into()
        }
        Failure::Memory(error) => Error::Memory(error),
    })
}

/// Passes the changes from `from` up to the newest checkpoint's position to `apply`.
fn replay<R: Record>(
    source: &CheckpointSource,
    from: Lsn,
    mut apply: impl FnMut(TableOp<'_>),
) -> Result<()> {
    let upto = source.newest.head.anchor.upto;
    let from = Position::Lsn { epoch: None, lsn: from };
    let (io, dir) = (Arc::clone(&source.io), source.store.clone());
    let mut reader = Reader::open_in(io, dir, from, Visibility::Durable)?;
    while let Some(entry) = reader.next()? {
        if entry.lsn >= upto {
            return Ok(());
        }
        entries::for_each_op::<R, EntryError>(entry.kind, entry.payload, |op| {
            apply(op);
            Ok(())
        })
        .map_err(|source| Error::Entry { lsn: entry.lsn, seq: entry.seq, source })?;
    }
    if reader.position().1 < upto {
        return Err(CheckpointError::LogTooShort { upto }.into());
    }
    Ok(())
}
