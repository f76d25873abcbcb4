//! Slabs that are still in a checkpoint, and fault into the table on first access.
//!
//! Owns which slabs are not in the table yet. A slab is built aside and installed in the table
//! whole, so readers without a lock see all of it or none. A damaged one is rebuilt
//! (`rebuild.rs`), or the access is an error: no record is ever silently missing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam::queue::ArrayQueue;

use super::error::CheckpointError;
use super::files::SlabBuffer;
use super::format::Place;
use super::rebuild::rebuild;
use super::restore::{Failure, restore};
use super::source::CheckpointSource;
use crate::error::{Error, Result};
use crate::faults;
use crate::record::Record;
use crate::sync::lock;
use crate::table::{PageId, Table};

/// Buffers that are retained for the next slabs.
const MAX_BUFFERS: usize = 8;

/// The slabs that are not in the table yet.
#[derive(Debug)]
pub(crate) struct Unloaded {
    /// `None` when all slabs are in the table, and once the store is closed.
    source: Mutex<Option<Arc<CheckpointSource>>>,
    /// How many slabs of the source are not in the table.
    waiting: AtomicUsize,
    /// Slabs that were damaged and rebuilt.
    rebuilt: AtomicU64,
    buffers: ArrayQueue<SlabBuffer>,
}

impl Default for Unloaded {
    fn default() -> Self {
        Self {
            source: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            rebuilt: AtomicU64::new(0),
            buffers: ArrayQueue::new(MAX_BUFFERS),
        }
    }
}

impl Unloaded {
    /// Begins to fault in the slabs of `source`.
    pub(crate) fn begin(&self, source: CheckpointSource) {
        self.waiting.store(source.newest.places.len(), Ordering::Relaxed);
        let is_empty = source.newest.places.is_empty();
        *lock(&self.source) = (!is_empty).then(|| Arc::new(source));
    }

    /// Returns whether every slab is in the table.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Acquire pairs with the Release in `load`: a thread that sees the last slab counted
        // finds it in the table.
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Returns how many slabs are not in the table.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed) as u64
    }

    pub(crate) fn rebuilt(&self) -> u64 {
        self.rebuilt.load(Ordering::Relaxed)
    }

    /// Releases the files: what is not in the table yet can't be read any more.
    pub(crate) fn close(&self) {
        *lock(&self.source) = None;
        while self.buffers.pop().is_some() {}
    }

    /// Returns where the slabs come from that are not in the table; `None` when all are.
    ///
    /// # Errors
    /// [`Error::Closed`].
    fn source(&self) -> Result<Option<Arc<CheckpointSource>>> {
        match lock(&self.source).clone() {
            // The last slab may have been installed since the caller checked.
            None if !self.is_empty() => Err(Error::Closed),
            source => Ok(source),
        }
    }

    /// Installs the slab of a page in the table, if the checkpoint has one and the table has not.
    /// The caller holds no page lock: this waits for the disk.
    pub(crate) fn fault_in<R: Record>(&self, table: &Table, page: PageId) -> Result<()> {
        if self.is_empty() || table.has(page.slab_number()) {
            return Ok(());
        }
        let Some(source) = self.source()? else { return Ok(()) };
        match source.newest.place(page.slab_number()) {
            Some(place) => self.load::<R>(&source, table, place),
            None => Ok(()),
        }
    }

    /// Installs all slabs for which `is_needed` returns `true`, with `threads` threads.
    pub(crate) fn load_all<R: Record>(
        &self,
        table: &Table,
        threads: usize,
        is_needed: impl Fn(&Place) -> bool + Sync,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let Some(source) = self.source()? else { return Ok(()) };
        let places = &source.newest.places;
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let run = || {
            // The counter only distributes work.
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !is_needed(place) || table.has(place.slab) {
                    continue;
                }
                if let Err(error) = self.load::<R>(&source, table, place) {
                    *lock(&failed) = Some(error);
                    next.store(places.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(places.len()) {
                scope.spawn(run);
            }
            run();
        });
        let failed = lock(&failed).take();
        failed.map_or(Ok(()), Err)
    }

    fn load<R: Record>(
        &self,
        source: &Arc<CheckpointSource>,
        table: &Table,
        place: &Place,
    ) -> Result<()> {
        let mut buffer = self.buffers.pop().unwrap_or_else(SlabBuffer::new);
        let mut is_rebuilt = false;
        let slab = match restore::<R>(&source.newest, place, &mut buffer) {
            Err(Failure::Fault(fault)) => {
                is_rebuilt = true;
                rebuild::<R>(source, place, &mut buffer).map_err(|reason| {
                    let (path, reason) = (source.newest.path.clone(), Box::new(reason));
                    CheckpointError::Slab { path, slab: place.slab, fault, reason }
                })?
            }
            Err(Failure::Memory(error)) => return Err(Error::Memory(error)),
            Ok(slab) => slab,
        };
        // Of no use where enough are retained.
        let _ = self.buffers.push(buffer);
        // Two threads may have built it: the one that the first installed may have changed since.
        // Release pairs with the Acquire of `is_empty`.
        let is_new = faults::checkpoint::is_new(table.install(place.slab, slab));
        if is_new && is_rebuilt {
            self.rebuilt.fetch_add(1, Ordering::Relaxed);
        }
        if is_new && self.waiting.fetch_sub(1, Ordering::Release) == 1 {
            // Its files may be removed, and must not keep their space.
            *lock(&self.source) = None;
            while self.buffers.pop().is_some() {}
        }
        Ok(())
    }
}
