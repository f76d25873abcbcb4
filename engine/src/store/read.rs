//! Reads of single records, snapshots, and waiting for receipts.

use std::time::SystemTime;

use bulla_wal::{Level, Log, Lsn, Range, Ready, Receipt, Seq, Visibility};

use super::Store;
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::state::{LOAD_THREADS, decode};
use crate::table::{Copied, LockedPages, PageId};
use crate::time::from_ms;

impl<R: Record> Store<R> {
    /// Returns the record with this id, if there is one. Takes no lock, except to fault in what
    /// is still only in a checkpoint.
    ///
    /// # Errors
    /// As [`load`](Self::load), for the part with this record.
    // Always inlined, like everything it calls: a record that is returned through memory is
    // copied there in other pieces than it was written in, for which the processor waits; then
    // gets do not overlap.
    #[inline(always)]
    pub fn get(&self, id: R::Id) -> Result<Option<R>> {
        let watched = self.state.panics.watched();
        let record = match self.state.read(id.into()) {
            Ok((Some(record), _)) => Ok(decode(record)),
            Ok((None, _)) => Ok(None),
            Err(error) => Err(error),
        };
        watched.ended();
        record
    }

    /// Returns the record as [`get`](Self::get) does, and a position to
    /// [`wait_for`](Self::wait_for) before relying on what was read, or on its absence: no
    /// change that led to it is after that position.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with_lsn(&self, id: R::Id) -> Result<(Option<R>, Lsn)> {
        self.state.panics.watch(|| {
            let (bytes, lsn) = self.state.read(id.into())?;
            Ok((bytes.and_then(decode), Lsn(lsn)))
        })
    }

    /// Returns the records with these ids as of one moment, in the ids' order: of a batch it
    /// shows all changes or none. Writers of the same records wait in the meantime.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, ids: &[R::Id]) -> Result<Vec<Option<R>>> {
        self.state.panics.watch(|| {
            let ids: Vec<u32> = ids.iter().map(|id| (*id).into()).collect();
            let found = self.find_many(&ids)?;
            Ok(found.into_iter().map(|bytes| bytes.and_then(decode)).collect())
        })
    }

    fn find_many(&self, ids: &[u32]) -> Result<Vec<Option<Copied>>> {
        let mut pages: Vec<_> = ids.iter().map(|id| PageId::of(*id)).collect();
        pages.sort_unstable();
        pages.dedup();
        pages.iter().try_for_each(|page| self.state.fault_in(*page))?;
        let locked = LockedPages::lock(&self.state.table, &[], &pages).map_err(Error::Memory)?;
        Ok(ids.iter().map(|id| locked.read(*id)).collect())
    }

    /// Returns when the record with this id expires; `None` for never, and where there is no
    /// record.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn expires_at(&self, id: R::Id) -> Result<Option<SystemTime>> {
        self.state.panics.watch(|| self.state.expiry(id.into())).map(from_ms)
    }

    /// Returns the record with this id, if there is one that has not expired by the clock. Other
    /// reads show a record until [`expire_due`](Self::expire_due), or an eviction, deletes it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_live(&self, id: R::Id) -> Result<Option<R>> {
        self.state.panics.watch(|| {
            let (record, expiry) = self.state.read_with_expiry(id.into())?;
            let is_live = expiry == 0 || expiry > self.now_ms();
            Ok(record.filter(|_| is_live).and_then(decode))
        })
    }

    /// Returns a reader of the store's changes, also while it is written: those of a range of its
    /// log. It may outlive the store.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Purged` the range begins below the log's start. Otherwise as
    /// [`Log::reader`].
    pub fn changes(&self, range: impl Into<Range>, visibility: Visibility) -> Result<Changes<R>> {
        Ok(Changes::of(self.log.reader(range, visibility)?))
    }

    /// Returns how many records there are, including those of writes in progress.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a snapshot: the store as of now, to be read while others change it. It shows every
    /// change that is logged before a position, and none that is logged at or after it.
    ///
    /// Copies nothing: a writer copies a page (of 64 consecutive ids) when it first changes it
    /// afterwards. The copies count as bytes of the [`Quota`](crate::Quota) until the snapshot
    /// is dropped; when there is no room for one, the snapshot expires, and no write fails. At
    /// most 16 live at once.
    ///
    /// A snapshot can show changes that a crash can still undo: after a [`sync`](Self::sync)
    /// that begins after it was taken, it shows none.
    ///
    /// Reads what is still only in the checkpoint that the store opened from.
    ///
    /// # Errors
    /// [`Error::TooManySnapshots`], and as [`load`](Self::load).
    pub fn snapshot(&self) -> Result<Snapshot<R>> {
        self.check_process()?;
        self.state.panics.watch(|| {
            self.state.load_all(LOAD_THREADS)?;
            self.state.snapshot(&self.log)
        })
    }

    /// Waits until the receipt's level holds.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Poisoned` it is unknown whether the change is durable.
    pub fn wait(&self, receipt: Receipt) -> Result<()> {
        self.log.wait(receipt).map_err(Error::from)
    }

    /// Waits until `level` holds for everything up to a position that
    /// [`get_with_lsn`](Self::get_with_lsn) returned.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, lsn: Lsn, level: Level) -> Result<()> {
        if lsn == Lsn::ZERO {
            // No entry is there: what was read was replayed, or never written.
            return Ok(());
        }
        self.wait(Receipt { epoch: self.log.epoch(), lsn, seq: Seq::ZERO, level })
    }

    /// Returns whether the receipt's level holds. Never blocks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self, receipt: Receipt) -> Result<bool> {
        Ok(self.log.is_ready(receipt)?)
    }

    /// Returns a future that resolves when the receipt's level holds, for any executor.
    pub fn ready(&self, receipt: Receipt) -> Ready<&Log> {
        self.log.ready(receipt)
    }
}
