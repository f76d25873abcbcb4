//! How a write gets into the log and the table as one.
//!
//! Owns the order: with the pages of a write locked, what it adds is reserved, then it is
//! logged, then applied; so for each record the log's order is the table's. No thread waits for
//! a disk, for room in the log or for a quota while it holds a page lock, and no code of the
//! user runs there.

use std::collections::BTreeMap;

use bulla_wal::{Level, Lsn, Receipt, Seq};

use super::Store;
use crate::error::{Error, Result};
use crate::faults::{self, Step, pass};
use crate::quota::{Growth, QuotaError, Reservation};
use crate::record::Record;
use crate::table::{Copied, LockedPages, PageGuard, PageId, TableOp, apply, plan};

/// A write of one or several records: what it logs, and what it applies.
#[derive(Clone, Copy)]
pub(crate) struct WriteRequest<'a> {
    pub(super) entries: &'a [(u16, &'a [u8])],
    pub(super) ops: &'a [TableOp<'a>],
    pub(super) level: Level,
    /// What it depends on, except for what `admit` checks.
    pub(super) reads: Option<&'a Reads>,
}

/// Records that have to be what they were when they were read.
#[derive(Debug)]
pub(crate) struct Reads {
    /// By id; `None` where there was no record.
    pub(super) records: BTreeMap<u32, Option<Copied>>,
    /// The pages of these that the write does not change, in order.
    pub(super) pages: Vec<PageId>,
}

impl Reads {
    /// Returns the first id whose record is no longer what it was.
    pub(super) fn changed(&self, locked: &LockedPages<'_, '_>) -> Option<u32> {
        let changed = self.records.iter().find(|(id, read)| locked.read(**id) != **read);
        changed.map(|(id, _)| *id)
    }
}

/// How an attempt to make a write ended.
enum Outcome {
    Made(Lsn, Seq),
    /// The records are not as the write expects.
    NotAdmitted,
    /// This record is not what it was when it was read.
    Changed(u32),
    /// The log has no room right now.
    NoRoom,
    /// The quota has none.
    Exceeded(QuotaError, Growth),
}

impl<R: Record> Store<R> {
    /// Makes a write if `admit` accepts the locked pages (those of all ops, in order); else
    /// returns `None`, and logs nothing. Then evicts a few other records if the store is nearly
    /// full and may evict. [`Error::Contended`]: what it depends on has changed.
    #[inline]
    pub(crate) fn change(
        &self,
        pages: &[PageId],
        request: WriteRequest<'_>,
        admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        let made = self.change_only(pages, request, admit)?;
        if made.is_some() && self.state.usage.wants_eviction() {
            self.state.panics.contain(|| self.evict_ahead(request.ops));
        }
        Ok(made)
    }

    /// Makes a write without an eviction after it: an eviction's own writes come here, too.
    pub(crate) fn change_only(
        &self,
        pages: &[PageId],
        request: WriteRequest<'_>,
        mut admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        self.check_open()?;
        // Before a page is locked: it may wait for the disk.
        faults::write::written(pages).iter().try_for_each(|page| self.state.fault_in(*page))?;
        let only_read = request.reads.map_or(&[][..], |reads| &reads.pages);
        only_read.iter().try_for_each(|page| self.state.fault_in(*page))?;
        let mut attempts = None;
        loop {
            // Dropped after the pages are unlocked, so that what it releases is really free.
            let mut reservation = self.state.usage.reservation();
            let outcome = self.attempt(pages, request, &mut admit, &mut reservation);
            pass(Step::Unlocked);
            drop(reservation);
            pass(Step::GivenBack);
            match outcome {
                Ok(Outcome::Made(lsn, seq)) => {
                    self.tidy(pages, request);
                    let (epoch, level) = (self.log.epoch(), request.level);
                    return Ok(Some(Receipt { epoch, lsn, seq, level }));
                }
                Err(error) => return Err(error),
                Ok(Outcome::NotAdmitted) => return Ok(None),
                Ok(Outcome::Changed(id)) => return Err(Error::Contended { id }),
                Ok(Outcome::NoRoom) => self.log.wait_for_room()?,
                Ok(Outcome::Exceeded(error, growth)) => {
                    let has_room = !error.is_final()
                        && (self.free_retained(&error)
                            || self.make_room((&error, growth), request, &mut attempts)?);
                    if !has_room {
                        self.state.usage.reject();
                        return Err(error.into());
                    }
                }
            }
        }
    }

    fn attempt(
        &self,
        pages: &[PageId],
        request: WriteRequest<'_>,
        admit: &mut impl FnMut(&[PageGuard<'_>]) -> bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Outcome> {
        let table = &self.state.table;
        match (pages, request.reads) {
            ([page], None) => {
                let guard = table.lock(*page).map_err(Error::Memory);
                pass(Step::Locked);
                self.attempt_on(pages, &mut [guard?], request, admit, reservation)
            }
            (pages, reads) => {
                let only_read = reads.map_or(&[][..], |reads| &reads.pages);
                let mut locked =
                    LockedPages::lock(table, pages, only_read).map_err(Error::Memory)?;
                if let Some(id) = reads.and_then(|reads| reads.changed(&locked)) {
                    return Ok(Outcome::Changed(id));
                }
                self.attempt_on(pages, &mut locked.guards, request, admit, reservation)
            }
        }
    }

    fn attempt_on(
        &self,
        pages: &[PageId],
        guards: &mut [PageGuard<'_>],
        request: WriteRequest<'_>,
        admit: &mut impl FnMut(&[PageGuard<'_>]) -> bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Outcome> {
        if !admit(guards) {
            return Ok(Outcome::NotAdmitted);
        }
        let (records, pages_in_use) = plan(pages, guards, request.ops);
        pass(Step::Planned);
        let growth = Growth { records, pages: pages_in_use };
        if let Err(exceeded) = reservation.reserve(growth) {
            return Ok(Outcome::Exceeded(exceeded, growth));
        }
        pass(Step::Reserved);
        let receipt = match self.log.try_append_batch(request.entries, request.level) {
            Ok(receipt) => receipt.last(),
            Err(bulla_wal::Error::Full) => return Ok(Outcome::NoRoom),
            Err(error) => return Err(error.into()),
        };
        reservation.made();
        let Receipt { lsn, seq, .. } = receipt;
        Logged { store: self, pages, guards, ops: request.ops, lsn }.make();
        Ok(Outcome::Made(lsn, seq))
    }

    /// Releases the memory of pages that a write has emptied. No page is locked.
    #[inline]
    fn tidy(&self, pages: &[PageId], request: WriteRequest<'_>) {
        if request.ops.iter().any(|op| matches!(op, TableOp::Delete(_))) {
            let tidy = || pages.iter().for_each(|page| self.state.table.tidy(*page));
            self.state.panics.contain(tidy);
        }
    }
}

/// A write that is logged, and not yet applied to the table.
///
/// Once the log has its entry it must be applied: it is also applied when a panic interrupts
/// that, here or while pages are copied for snapshots. If it panics again, the process aborts,
/// which the log survives: the two never disagree.
struct Logged<'a, 't, R: Record> {
    store: &'a Store<R>,
    pages: &'a [PageId],
    guards: &'a mut [PageGuard<'t>],
    ops: &'a [TableOp<'a>],
    lsn: Lsn,
}

impl<R: Record> Logged<'_, '_, R> {
    #[inline]
    fn make(mut self) {
        pass(Step::Logged);
        faults::write::retain(&self.store.state, self.pages, self.guards, self.ops, self.lsn);
        self.apply();
        pass(Step::Made);
        // Only a panic drops it.
        std::mem::forget(self);
    }

    #[inline]
    fn apply(&mut self) {
        apply(self.pages, self.guards, self.ops, self.lsn.0);
        for op in self.ops {
            if let TableOp::Expire(_, at) = op {
                self.store.evictor.expires(*at);
            }
        }
    }
}

impl<R: Record> Drop for Logged<'_, '_, R> {
    #[cold]
    fn drop(&mut self) {
        // Pages that a snapshot needs may not have been copied.
        self.store.state.views.expire();
        self.apply();
    }
}
