//! Building a slab from the bytes of a checkpoint, each record checked.

use std::io;

use super::error::CheckpointFault;
use super::files::{Checkpoint, SlabBuffer};
use super::format::{CheckpointDamage, Place, SlabView};
use crate::record::Record;
use crate::table::{Bytes, PAGE_RECORDS, SLAB_PAGES, Slab, id_in_slab};

/// Why a slab could not be built.
pub(crate) enum Failure {
    Fault(CheckpointFault),
    Memory(io::Error),
}

impl From<CheckpointFault> for Failure {
    fn from(fault: CheckpointFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Memory(error)
    }
}

/// Builds a slab of a checkpoint.
pub(crate) fn restore<R: Record>(
    checkpoint: &Checkpoint,
    place: &Place,
    buffer: &mut SlabBuffer,
) -> Result<Slab, Failure> {
    if !place.is_full() {
        return build::<R>(place, &checkpoint.read(place, buffer)?);
    }
    Slab::filled(|records| {
        checkpoint.read_filled(place, records)?;
        let mut records = records.as_chunks().0.iter().enumerate();
        records.try_for_each(|(slot, bytes)| check::<R>(id_in_slab(place.slab, slot), bytes))
    })
}

/// Checks that bytes are the record of their place.
fn check<R: Record>(id: u32, bytes: &Bytes) -> Result<(), Failure> {
    match R::from_bytes(bytes) {
        Ok(record) if id != 0 && record.id().into() == id => Ok(()),
        _ => Err(CheckpointFault::from(CheckpointDamage::Record(id)).into()),
    }
}

/// Builds a slab from its decoded bytes.
fn build<R: Record>(place: &Place, view: &SlabView<'_>) -> Result<Slab, Failure> {
    let mut records = view.records.iter();
    for page in 0..SLAB_PAGES {
        let mut left = view.occupied(page);
        while left != 0 {
            let slot = page * PAGE_RECORDS + left.trailing_zeros() as usize;
            left &= left - 1;
            let id = id_in_slab(place.slab, slot);
            let bytes =
                records.next().ok_or(CheckpointFault::from(CheckpointDamage::Record(id)))?;
            check::<R>(id, bytes)?;
        }
    }
    Slab::restore(|page| view.occupied(page), view.records, view.expiries())
        .map_err(Failure::Memory)
}
