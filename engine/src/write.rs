//! How a change gets into the log and the table, as one.
//!
//! Owns the order: with the pages of a change locked, what it adds is reserved, then it is
//! logged, then applied; so for each record the log's order is the table's. Nobody waits
//! for a disk, for room in the log or for a quota while a page is locked, and no code of
//! the user runs there.

use std::time::Duration;

use bulla_storage::faults::mutants::{Bug, planted};
use bulla_wal::{Level, Lsn, Receipt, Seq};

use crate::batch::{Batch, non_zero, pages};
use crate::entries::{DELETE, EXPIRE, PUT, expiry_item};
use crate::error::{Error, Result};
use crate::quota::{Growth, QuotaError, Reservation};
use crate::record::Record;
use crate::steps::{Step, pass};
use crate::store::Store;
use crate::table::{Copied, Edit, Found, PageGuard, PageId, What, apply, index, plan};

/// Times that an update looks at its record, before it says that others change it all the
/// time.
const MAX_UPDATES: u32 = 1_000;
/// Times that a write makes room for itself in a full store, while others use it up.
const MAX_RECLAIMS: u32 = 100;

/// A change of one or several records: what is logged, and what it does.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) entries: &'a [(u16, &'a [u8])],
    pub(crate) edits: &'a [Edit<'a>],
    pub(crate) level: Level,
}

/// How a try to make a change ended.
enum Attempt {
    Made(Lsn, Seq),
    /// What is there is not what was expected.
    NotAdmitted,
    /// The log has no room right now.
    NoRoom,
    /// The store has none.
    Exceeded(QuotaError),
}

impl<R: Record> Store<R> {
    /// Inserts or replaces a record, and waits until the default level holds. It never
    /// expires, even if the one that it replaces would have.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async) and [`wait`](Self::wait).
    pub fn put(&self, record: &R) -> Result<()> {
        self.put_with(record, self.level)
    }

    /// Inserts or replaces a record, and waits until `level` holds.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async) and [`wait`](Self::wait).
    pub fn put_with(&self, record: &R, level: Level) -> Result<()> {
        let receipt = self.put_async(record, level)?;
        // The log would look whether the receipt is its own.
        if level == Level::Relaxed { Ok(()) } else { self.wait(receipt) }
    }

    /// Inserts or replaces a record; the receipt tells when `level` holds.
    ///
    /// # Errors
    /// [`Error::TooFarAhead`], [`Error::ZeroId`], [`Error::Quota`], [`Error::Memory`],
    /// and [`Error::Log`] with `Full` or `NoSpace`: nothing was changed.
    pub fn put_async(&self, record: &R, level: Level) -> Result<Receipt> {
        let put = self.state.panics.watch(|| self.put_if(record, level, |_| true))?;
        Ok(put.expect("a put that expects nothing is made"))
    }

    /// Inserts a record that is not there yet, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`create_async`](Self::create_async) and [`wait`](Self::wait).
    pub fn create(&self, record: &R) -> Result<()> {
        let receipt = self.create_async(record, self.level)?;
        self.wait(receipt)
    }

    /// Inserts a record that is not there yet; the receipt tells when `level` holds.
    ///
    /// # Errors
    /// [`Error::Exists`], and as [`put_async`](Self::put_async).
    pub fn create_async(&self, record: &R, level: Level) -> Result<Receipt> {
        self.state.panics.watch(|| {
            let id = record.id().into();
            let created = self.put_if(record, level, |page| page.read(index(id)).is_none())?;
            created.ok_or(Error::Exists { id })
        })
    }

    /// Inserts or replaces a record that expires `ttl` from now, and waits until the
    /// default level holds.
    ///
    /// # Errors
    /// As [`put_for_async`](Self::put_for_async) and [`wait`](Self::wait).
    pub fn put_for(&self, record: &R, ttl: Duration) -> Result<()> {
        let receipt = self.put_for_async(record, ttl, self.level)?;
        self.wait(receipt)
    }

    /// Inserts or replaces a record that expires `ttl` from now, in whole ms; the receipt
    /// tells when `level` holds. It stays until [`expire_due`](Self::expire_due) or a
    /// reclaim deletes it.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async).
    pub fn put_for_async(&self, record: &R, ttl: Duration, level: Level) -> Result<Receipt> {
        self.state.panics.watch(|| self.put_until(record, self.after(ttl), level))
    }

    /// Lets the record with this id expire `ttl` from now, or never, and waits until the
    /// default level holds. `false`, and nothing logged, when there is none.
    ///
    /// # Errors
    /// As [`expire_in_async`](Self::expire_in_async) and [`wait`](Self::wait).
    pub fn expire_in(&self, id: R::Id, ttl: Option<Duration>) -> Result<bool> {
        let receipt = self.expire_in_async(id, ttl, self.level)?;
        self.finish(receipt)
    }

    /// Lets the record with this id expire `ttl` from now, in whole ms, or never; the
    /// receipt tells when `level` holds. `None`, and nothing logged, when there is none.
    ///
    /// # Errors
    /// [`Error::Log`] with `Full` or `NoSpace`: nothing was changed.
    pub fn expire_in_async(
        &self,
        id: R::Id,
        ttl: Option<Duration>,
        level: Level,
    ) -> Result<Option<Receipt>> {
        self.state.panics.watch(|| {
            let (id, at) = (id.into(), ttl.map_or(0, |ttl| self.after(ttl)));
            let item = expiry_item(id, at);
            let edits = [Edit { id, what: What::Expire(at) }];
            self.change_existing(id, Request { entries: &[(EXPIRE, &item)], edits: &edits, level })
        })
    }

    /// Replaces a record by what `f` makes of it, and waits until the default level
    /// holds. Gives the new record; `None`, and nothing logged, when there is none.
    ///
    /// # Errors
    /// As [`update_async`](Self::update_async) and [`wait`](Self::wait).
    pub fn update<F>(&self, id: R::Id, f: F) -> Result<Option<R>>
    where
        F: FnMut(R) -> Result<R, Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some((record, receipt)) = self.update_async(id, self.level, f)? else {
            return Ok(None);
        };
        self.wait(receipt)?;
        Ok(Some(record))
    }

    /// Replaces a record by what `f` makes of it; the receipt tells when `level` holds.
    /// Gives the new record; `None`, and nothing logged, when there is none. When it
    /// expires does not change.
    ///
    /// `f` gets a copy, with no lock held: it may use the store, and when it panics
    /// nothing has changed. When the record was changed meanwhile it is called again.
    ///
    /// # Errors
    /// [`Error::Update`] with what `f` returned; [`Error::OtherId`] when it changed the id;
    /// [`Error::Contended`]; and as [`put_async`](Self::put_async).
    pub fn update_async<F>(&self, id: R::Id, level: Level, mut f: F) -> Result<Option<(R, Receipt)>>
    where
        F: FnMut(R) -> Result<R, Box<dyn std::error::Error + Send + Sync>>,
    {
        for _ in 0..MAX_UPDATES {
            let Some(current) = self.get(id)? else { return Ok(None) };
            let next = self.state.panics.watch(|| f(current)).map_err(Error::Update)?;
            if let Some(receipt) = self.compare_and_swap_async(&current, &next, level)? {
                return Ok(Some((next, receipt)));
            }
        }
        Err(Error::Contended { id: id.into() })
    }

    /// Replaces a record if it is still `current`, bit for bit, and waits until the
    /// default level holds. `false`, and nothing logged, when it is not.
    ///
    /// # Errors
    /// As [`compare_and_swap_async`](Self::compare_and_swap_async) and
    /// [`wait`](Self::wait).
    pub fn compare_and_swap(&self, current: &R, next: &R) -> Result<bool> {
        let receipt = self.compare_and_swap_async(current, next, self.level)?;
        self.finish(receipt)
    }

    /// Replaces a record if it is still `current`, bit for bit; the receipt tells when
    /// `level` holds. `None`, and nothing logged, when it is not. When it expires does not
    /// change.
    ///
    /// # Errors
    /// [`Error::OtherId`] when the two have different ids, and as
    /// [`put_async`](Self::put_async).
    pub fn compare_and_swap_async(
        &self,
        current: &R,
        next: &R,
        level: Level,
    ) -> Result<Option<Receipt>> {
        self.state.panics.watch(|| self.swap_if(current, next, level))
    }

    /// Removes a record, and waits until the default level holds. `false`, and nothing
    /// logged, when there is none.
    ///
    /// # Errors
    /// As [`delete_async`](Self::delete_async) and [`wait`](Self::wait).
    pub fn delete(&self, id: R::Id) -> Result<bool> {
        self.delete_with(id, self.level)
    }

    /// Removes a record, and waits until `level` holds. `false`, and nothing logged, when
    /// there is none.
    ///
    /// # Errors
    /// As [`delete_async`](Self::delete_async) and [`wait`](Self::wait).
    pub fn delete_with(&self, id: R::Id, level: Level) -> Result<bool> {
        let receipt = self.delete_async(id, level)?;
        self.finish(receipt)
    }

    /// Removes a record; the receipt tells when `level` holds. `None`, and nothing logged,
    /// when there is none.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Full` or `NoSpace` nothing was changed.
    pub fn delete_async(&self, id: R::Id, level: Level) -> Result<Option<Receipt>> {
        self.state.panics.watch(|| {
            let id = id.into();
            let edits = [Edit { id, what: What::Delete }];
            let entries: [(u16, &[u8]); 1] = [(DELETE, &id.to_le_bytes())];
            self.change_existing(id, Request { entries: &entries, edits: &edits, level })
        })
    }

    /// Makes all changes of a batch or none, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async) and [`wait`](Self::wait).
    pub fn apply(&self, batch: &Batch<R>) -> Result<()> {
        self.apply_with(batch, self.level)
    }

    /// Makes all changes of a batch or none, and waits until `level` holds.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async) and [`wait`](Self::wait).
    pub fn apply_with(&self, batch: &Batch<R>, level: Level) -> Result<()> {
        let receipt = self.apply_async(batch, level)?;
        self.wait(receipt)
    }

    /// Makes all changes of a batch or none, also across a crash; the receipt tells when
    /// `level` holds for all of them. A thread that has seen one of them sees all.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async), and [`Error::Log`] with `EmptyBatch` or
    /// `TooLarge`: nothing was changed.
    pub fn apply_async(&self, batch: &Batch<R>, level: Level) -> Result<Receipt> {
        self.state.panics.watch(|| {
            batch.records().try_for_each(|record| self.check(record))?;
            let (entries, edits) = (batch.entries(), batch.edits());
            let request = Request { entries: &entries, edits: &edits, level };
            let applied = self.change(&pages(&edits), request, |_| true)?;
            Ok(applied.expect("a batch expects nothing"))
        })
    }

    /// Deletes a record if it is still what was found, at the level Relaxed.
    pub(crate) fn delete_found(&self, found: &Found) -> Result<bool> {
        let id = found.id;
        let edits = [Edit { id, what: What::Delete }];
        let entries: [(u16, &[u8]); 1] = [(DELETE, &id.to_le_bytes())];
        let request = Request { entries: &entries, edits: &edits, level: Level::Relaxed };
        let deleted = self.change_only(&[PageId::of(id)], request, |guards| {
            guards[0].read(index(id)) == Some(found.record)
                && guards[0].expiry(index(id)) == found.expiry
        })?;
        if planted(Bug::DeletionsMakeWay) {
            self.relieve();
        }
        Ok(deleted.is_some())
    }

    fn put_if(
        &self,
        record: &R,
        level: Level,
        admit: impl Fn(&PageGuard<'_>) -> bool,
    ) -> Result<Option<Receipt>> {
        self.check(record)?;
        let id = record.id().into();
        let request = Request {
            entries: &[(PUT, record.as_bytes())],
            edits: &[Edit { id, what: What::Put(record.as_bytes()) }],
            level,
        };
        self.change(&[PageId::of(id)], request, |guards| admit(&guards[0]))
    }

    /// Puts a record that expires at a given time.
    fn put_until(&self, record: &R, at: u64, level: Level) -> Result<Receipt> {
        self.check(record)?;
        let id = record.id().into();
        let item = expiry_item(id, at);
        let request = Request {
            entries: &[(PUT, record.as_bytes()), (EXPIRE, &item)],
            edits: &[
                Edit { id, what: What::Put(record.as_bytes()) },
                Edit { id, what: What::Expire(at) },
            ],
            level,
        };
        let put = self.change(&[PageId::of(id)], request, |_| true)?;
        Ok(put.expect("a put that expects nothing is made"))
    }

    fn swap_if(&self, current: &R, next: &R, level: Level) -> Result<Option<Receipt>> {
        let (id, other) = (current.id().into(), next.id().into());
        if id != other {
            return Err(Error::OtherId { id, other });
        }
        // A put clears the time at which a record expires: it is logged again.
        let current: Copied = zerocopy::transmute!(*current.as_bytes());
        for _ in 0..MAX_UPDATES {
            let kept = self.state.expiry(id)?;
            let mut was = kept;
            let swapped = self.swap(next, kept, level, |guards| {
                was = guards[0].expiry(index(id));
                was == kept && guards[0].read(index(id)) == Some(current)
            })?;
            if swapped.is_some() || was == kept {
                return Ok(swapped);
            }
        }
        Err(Error::Contended { id })
    }

    /// Puts a record that expires at a given time (0: never).
    fn swap(
        &self,
        next: &R,
        expiry: u64,
        level: Level,
        admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        self.check(next)?;
        let id = next.id().into();
        let item = expiry_item(id, expiry);
        let entries: [(u16, &[u8]); 2] = [(PUT, next.as_bytes()), (EXPIRE, &item)];
        let edits = [
            Edit { id, what: What::Put(next.as_bytes()) },
            Edit { id, what: What::Expire(expiry) },
        ];
        let count = if expiry == 0 || planted(Bug::SwapForgetsExpiry) { 1 } else { 2 };
        let request = Request { entries: &entries[..count], edits: &edits[..count], level };
        self.change(&[PageId::of(id)], request, admit)
    }

    /// A change of one record that must be there.
    fn change_existing(&self, id: u32, request: Request<'_>) -> Result<Option<Receipt>> {
        non_zero(id)?;
        // So that no memory is mapped for a record that is not there.
        if self.state.read(id)?.0.is_none() {
            return Ok(None);
        }
        self.change(&[PageId::of(id)], request, |guards| guards[0].read(index(id)).is_some())
    }

    /// Makes a change if `admit` finds what it expects on the locked pages (those of all
    /// edits, in order); else gives `None`, and nothing is logged. A store that is nearly full
    /// then gives up a few records, if it may.
    #[inline]
    fn change(
        &self,
        pages: &[PageId],
        request: Request<'_>,
        admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        let made = self.change_only(pages, request, admit)?;
        if made.is_some() && self.state.usage.wants_cleanup() {
            self.state.panics.contain(|| self.relieve());
        }
        Ok(made)
    }

    /// A change after which nothing else goes: also one that makes room.
    fn change_only(
        &self,
        pages: &[PageId],
        request: Request<'_>,
        mut admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        // Before a page is locked: it may wait for the disk.
        if !planted(Bug::WriteDoesNotTouch) {
            pages.iter().try_for_each(|page| self.state.touch(*page))?;
        }
        let mut reclaims = 0;
        loop {
            // Dropped after the pages are unlocked, so that what is given back is gone.
            let mut reservation = self.state.usage.reservation();
            let attempt = self.attempt(pages, request, &mut admit, &mut reservation);
            pass(Step::Unlocked);
            drop(reservation);
            pass(Step::GivenBack);
            match attempt {
                Ok(Attempt::Made(lsn, seq)) => {
                    self.tidy(pages, request);
                    let (epoch, level) = (self.log.epoch(), request.level);
                    return Ok(Some(Receipt { epoch, lsn, seq, level }));
                }
                Err(error) => return Err(error),
                Ok(Attempt::NotAdmitted) => return Ok(None),
                Ok(Attempt::NoRoom) => self.log.wait_for_room()?,
                Ok(Attempt::Exceeded(error)) => {
                    // Opened above its quota, it first gives up all that is too much.
                    reclaims += u32::from(error.used <= error.max);
                    let has_room = self.state.make_way(&error) || self.reclaim(error.resource)?;
                    if reclaims > MAX_RECLAIMS || !has_room {
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
        request: Request<'_>,
        admit: &mut impl FnMut(&[PageGuard<'_>]) -> bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Attempt> {
        let lock = |page: &PageId| {
            let guard = self.state.table.lock(*page).map_err(Error::Memory);
            pass(Step::Locked);
            guard
        };
        match pages {
            [page] => self.attempt_on(pages, &mut [lock(page)?], request, admit, reservation),
            pages => {
                let mut guards = pages.iter().map(lock).collect::<Result<Vec<_>>>()?;
                self.attempt_on(pages, &mut guards, request, admit, reservation)
            }
        }
    }

    fn attempt_on(
        &self,
        pages: &[PageId],
        guards: &mut [PageGuard<'_>],
        request: Request<'_>,
        admit: &mut impl FnMut(&[PageGuard<'_>]) -> bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Attempt> {
        if !admit(guards) {
            return Ok(Attempt::NotAdmitted);
        }
        let (records, pages_in_use) = plan(pages, guards, request.edits);
        pass(Step::Planned);
        if let Err(exceeded) = reservation.reserve(Growth { records, pages: pages_in_use }) {
            return Ok(Attempt::Exceeded(exceeded));
        }
        pass(Step::Reserved);
        let receipt = match self.log.try_append_batch(request.entries, request.level) {
            Ok(receipt) => receipt,
            Err(bulla_wal::Error::Full) => return Ok(Attempt::NoRoom),
            Err(error) => return Err(error.into()),
        };
        reservation.made();
        let Receipt { lsn, seq, .. } = receipt;
        Logged { store: self, pages, guards, edits: request.edits, lsn }.make();
        Ok(Attempt::Made(lsn, seq))
    }

    /// Gives back the memory of pages that a change has emptied, with no page locked.
    #[inline]
    fn tidy(&self, pages: &[PageId], request: Request<'_>) {
        if request.edits.iter().any(|edit| matches!(edit.what, What::Delete)) {
            let tidy = || pages.iter().for_each(|page| self.state.table.tidy(*page));
            self.state.panics.contain(tidy);
        }
    }

    fn after(&self, ttl: Duration) -> u64 {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.now_ms().saturating_add(ttl).max(1)
    }

    fn finish(&self, receipt: Option<Receipt>) -> Result<bool> {
        match receipt {
            Some(receipt) => self.wait(receipt).map(|()| true),
            None => Ok(false),
        }
    }
}

/// A change that is logged, and not yet made in the table.
///
/// From the log's entry on there is no way back: it is made also when that panics, here or
/// in a snapshot's part of it. If it panics again, the process aborts, which the log
/// survives: the two never disagree.
struct Logged<'a, 't, R: Record> {
    store: &'a Store<R>,
    pages: &'a [PageId],
    guards: &'a mut [PageGuard<'t>],
    edits: &'a [Edit<'a>],
    lsn: Lsn,
}

impl<R: Record> Logged<'_, '_, R> {
    #[inline]
    fn make(mut self) {
        pass(Step::Logged);
        if planted(Bug::SnapshotAfterChange) {
            self.apply();
        }
        self.store.state.keep(self.pages, self.guards, self.lsn);
        self.apply();
        pass(Step::Made);
        // It is dropped by a panic only.
        std::mem::forget(self);
    }

    #[inline]
    fn apply(&mut self) {
        apply(self.pages, self.guards, self.edits, self.lsn.0);
        for edit in self.edits {
            if let What::Expire(at) = edit.what {
                self.store.reclaimer.expires(at);
            }
        }
    }
}

impl<R: Record> Drop for Logged<'_, '_, R> {
    #[cold]
    fn drop(&mut self) {
        // What was to be kept may not have been.
        self.store.state.views.expire();
        self.apply();
    }
}
