//! Records that are still in a checkpoint, and come into the table when they are first
//! touched.
//!
//! Owns which slabs are not there yet. A slab is built aside and put into the table whole,
//! so readers without a lock see all of it or none. One that is damaged is built again from
//! the older checkpoint and the log between the two, or is an error: never less than it was.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulla_storage::faults::mutants::{Bug, planted};
use bulla_storage::io::Io;
use bulla_wal::{Lsn, ReadFrom, Reader, Visibility};

use super::error::{CheckpointError, CheckpointFault};
use super::files::{Checkpoint, SlabBuffer};
use super::format::{CheckpointDamage, Place, SlabView};
use crate::batch::edit;
use crate::entries::{Change, Changes};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::table::{Bytes, Edit, PAGE_RECORDS, PageId, SLAB_PAGES, Slab, Table, apply, id_in_slab};

/// Buffers that are kept for the next slabs.
const MAX_BUFFERS: usize = 8;

/// What a store is opened from.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) newest: Checkpoint,
    pub(crate) older: Older,
    pub(crate) io: Arc<dyn Io>,
    /// The store's directory, with the log.
    pub(crate) store: PathBuf,
}

/// What a slab can be built again from, together with the log.
#[derive(Debug)]
pub(crate) enum Older {
    Checkpoint(Box<Checkpoint>),
    /// The log from its very beginning.
    Log,
    /// Nothing: the log begins too late.
    Nothing,
}

/// The slabs that are not in the table yet.
#[derive(Debug, Default)]
pub(crate) struct Lazy {
    base: Mutex<Option<Arc<Base>>>,
    /// Those of `base` that are not in the table.
    waiting: AtomicUsize,
    /// Slabs that were damaged, and built again.
    rebuilt: AtomicU64,
    buffers: Mutex<Vec<SlabBuffer>>,
}

impl Lazy {
    /// From now on the slabs of `base` come into the table when they are touched.
    pub(crate) fn begin(&self, base: Base) {
        self.waiting.store(base.newest.places.len(), Ordering::Relaxed);
        let is_empty = base.newest.places.is_empty();
        *lock(&self.base) = (!is_empty).then(|| Arc::new(base));
    }

    /// Is everything in the table?
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        // Relaxed: who sees the last slab counted without having loaded it finds it in the
        // table, whose cells publish it.
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// How many slabs are not in the table.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed) as u64
    }

    pub(crate) fn rebuilt(&self) -> u64 {
        self.rebuilt.load(Ordering::Relaxed)
    }

    /// Puts the slab of a page into the table, if it has one and it is not there. No page may
    /// be locked by the caller: this waits for the disk.
    pub(crate) fn touch<R: Record>(&self, table: &Table, page: PageId) -> Result<()> {
        if self.is_done() || table.has(page.slab_number()) {
            return Ok(());
        }
        let Some(base) = lock(&self.base).clone() else { return Ok(()) };
        match base.newest.place(page.slab_number()) {
            Some(place) => self.load::<R>(&base, table, place),
            None => Ok(()),
        }
    }

    /// Puts all slabs that fit into the table, with so many threads.
    pub(crate) fn load_all<R: Record>(
        &self,
        table: &Table,
        threads: usize,
        fits: impl Fn(&Place) -> bool + Sync,
    ) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let Some(base) = lock(&self.base).clone() else { return Ok(()) };
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let run = || {
            // The counter only deals out work.
            while let Some(place) = base.newest.places.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !fits(place) || table.has(place.slab) {
                    continue;
                }
                if let Err(error) = self.load::<R>(&base, table, place) {
                    *lock(&failed) = Some(error);
                    next.store(base.newest.places.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(base.newest.places.len()) {
                scope.spawn(run);
            }
            run();
        });
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    fn load<R: Record>(&self, base: &Arc<Base>, table: &Table, place: &Place) -> Result<()> {
        let mut buffer = lock(&self.buffers).pop().unwrap_or_else(SlabBuffer::new);
        let mut is_rebuilt = false;
        let slab = match fetch::<R>(&base.newest, place, &mut buffer) {
            Err(Failure::Fault(fault)) => {
                let slab = rebuild::<R>(base, place, &mut buffer);
                let slab = slab.map_err(|reason| CheckpointError::Slab {
                    path: base.newest.path.clone(),
                    slab: place.slab,
                    fault,
                    reason: Box::new(reason),
                })?;
                is_rebuilt = true;
                slab
            }
            Err(Failure::Memory(error)) => return Err(Error::Memory(error)),
            Ok(slab) => slab,
        };
        let mut buffers = lock(&self.buffers);
        if buffers.len() < MAX_BUFFERS {
            buffers.push(buffer);
        }
        drop(buffers);
        // Two threads may have built it: what the first put there may have changed since.
        // Release pairs with the Acquire of `is_done`.
        let is_new = table.install(place.slab, slab) || planted(Bug::LazyCountedTwice);
        if is_new && is_rebuilt {
            self.rebuilt.fetch_add(1, Ordering::Relaxed);
        }
        if is_new && self.waiting.fetch_sub(1, Ordering::Release) == 1 {
            // Its files may be removed: they must not keep their space.
            *lock(&self.base) = None;
            lock(&self.buffers).clear();
        }
        Ok(())
    }
}

enum Failure {
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

/// A slab of a checkpoint, each record checked.
fn fetch<R: Record>(
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

/// Is it the record of its place?
fn check<R: Record>(id: u32, bytes: &Bytes) -> Result<(), Failure> {
    match R::from_bytes(bytes) {
        Ok(record) if id != 0 && record.id().into() == id => Ok(()),
        _ => Err(CheckpointFault::from(CheckpointDamage::Record(id)).into()),
    }
}

/// The slab that its bytes say, each record checked.
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

/// Builds a slab from what was before, and the log up to the checkpoint.
fn rebuild<R: Record>(base: &Base, place: &Place, buffer: &mut SlabBuffer) -> Result<Slab> {
    let (slab, from) = match &base.older {
        Older::Checkpoint(older) => {
            let slab = match older.place(place.slab) {
                Some(old) => {
                    let path = || older.path.clone();
                    let fault =
                        |fault| Error::from(CheckpointError::Unreadable { path: path(), fault });
                    fetch::<R>(older, old, buffer).map_err(|failure| match failure {
                        Failure::Fault(found) => fault(found),
                        Failure::Memory(error) => Error::Memory(error),
                    })?
                }
                None => Slab::new(false).map_err(Error::Memory)?,
            };
            (slab, older.head.landmark.upto)
        }
        Older::Log => (Slab::new(false).map_err(Error::Memory)?, Lsn::ZERO),
        Older::Nothing => return Err(CheckpointError::NoOlder.into()),
    };
    let upto = base.newest.head.landmark.upto;
    let from = ReadFrom::Lsn { epoch: None, lsn: from };
    let mut reader = Reader::open(Arc::clone(&base.io), &base.store, from, Visibility::Durable)?;
    let mut reached = false;
    while let Some(entry) = reader.next()? {
        if entry.lsn >= upto {
            reached = true;
            break;
        }
        let changes = Changes::<R>::decode(entry.kind, entry.payload)
            .map_err(|source| Error::Entry { lsn: entry.lsn, seq: entry.seq, source })?;
        let changes = changes.iter().filter(|_| !planted(Bug::RebuildWithoutLog));
        changes.for_each(|change| change_slab(&slab, place.slab, &change));
    }
    if !reached && reader.position().1 < upto {
        return Err(CheckpointError::LogTooShort { upto }.into());
    }
    if slab.records() == place.records {
        Ok(slab)
    } else {
        Err(CheckpointError::OtherRecords { slab: place.slab }.into())
    }
}

fn change_slab<R: Record>(slab: &Slab, number: u32, change: &Change<R>) {
    let edit: Edit<'_> = edit(change);
    let page = PageId::of(edit.id);
    if page.slab_number() == number {
        apply(&[page], &mut [slab.lock(page.in_slab())], &[edit], 0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
