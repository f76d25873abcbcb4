//! The public writes: each at a level, and each either waits or returns a receipt.
//!
//! Owns what each write logs, applies and expects. How that gets into log and table is in
//! `commit.rs`. [`Begin`] makes the writes; [`At`] waits for their receipts; the store's own
//! methods are [`At`] its default level.

use std::time::Duration;

use bulla_wal::{Level, Receipt};

use super::Store;
use super::commit::WriteRequest;
use crate::batch::{Batch, pages};
use crate::entries::{DELETE, EXPIRE, PUT, expiry_item};
use crate::error::{Error, Result};
use crate::faults;
use crate::record::Record;
use crate::table::{Copied, PageGuard, PageId, TableOp, index};
use crate::token::Token;

/// How often an update retries before it returns [`Error::Contended`].
pub(super) const MAX_UPDATES: u32 = 1_000;

impl<R: Record> Store<R> {
    /// Selects the level at which writes are acknowledged: `store.at(Level::Strict).put(&token)`.
    pub const fn at(&self, level: Level) -> At<'_, R> {
        At { store: self, level }
    }

    /// Inserts or replaces a record, and waits until the default level holds. It never expires,
    /// even if the one that it replaces would have.
    ///
    /// # Errors
    /// As [`Begin::put`] and [`wait`](Self::wait).
    pub fn put(&self, record: &R) -> Result<()> {
        self.at(self.level).put(record)
    }

    /// Inserts a record whose id is not in use yet, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`Begin::create`] and [`wait`](Self::wait).
    pub fn create(&self, record: &R) -> Result<()> {
        self.at(self.level).create(record)
    }

    /// Inserts or replaces a record that expires `ttl` from now, and waits until the default
    /// level holds.
    ///
    /// # Errors
    /// As [`Begin::put`] and [`wait`](Self::wait).
    pub fn put_for(&self, record: &R, ttl: Duration) -> Result<()> {
        self.at(self.level).put_for(record, ttl)
    }

    /// Sets that the record with this id expires `ttl` from now, or never, and waits until the
    /// default level holds. Returns `false`, and logs nothing, when there is none.
    ///
    /// # Errors
    /// As [`Begin::expire_in`] and [`wait`](Self::wait).
    pub fn expire_in(&self, id: R::Id, ttl: Option<Duration>) -> Result<bool> {
        self.at(self.level).expire_in(id, ttl)
    }

    /// Replaces a record by what `f` makes of it, keeps its time to live, and waits until the
    /// default level holds. Returns the new record; `None`, and logs nothing, when there is none.
    ///
    /// # Errors
    /// As [`Begin::update`] and [`wait`](Self::wait).
    pub fn update<F>(&self, id: R::Id, f: F) -> Result<Option<R>>
    where
        F: FnMut(R) -> Result<R, Box<dyn std::error::Error + Send + Sync>>,
    {
        self.at(self.level).update(id, f)
    }

    /// Replaces a record as [`update`](Self::update) does, by a function with an error type of its
    /// own, which is returned as it is.
    ///
    /// # Errors
    /// As [`Begin::try_update`] and [`wait`](Self::wait).
    pub fn try_update<E, F>(&self, id: R::Id, f: F) -> Result<Option<R>, E>
    where
        E: From<Error>,
        F: FnMut(R) -> Result<R, E>,
    {
        self.at(self.level).try_update(id, f)
    }

    /// Replaces a record if it is still `current`, bit for bit, and waits until the default
    /// level holds. Returns `false`, and logs nothing, when it is not.
    ///
    /// # Errors
    /// As [`Begin::compare_and_swap`] and [`wait`](Self::wait).
    pub fn compare_and_swap(&self, current: &R, next: &R) -> Result<bool> {
        self.at(self.level).compare_and_swap(current, next)
    }

    /// Removes a record, and waits until the default level holds. Returns `false`, and logs
    /// nothing, when there is none.
    ///
    /// # Errors
    /// As [`Begin::delete`] and [`wait`](Self::wait).
    pub fn delete(&self, id: R::Id) -> Result<bool> {
        self.at(self.level).delete(id)
    }

    /// Makes all mutations of a batch or none, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`Begin::apply`] and [`wait`](Self::wait).
    pub fn apply(&self, batch: &Batch<R>) -> Result<()> {
        self.at(self.level).apply(batch)
    }
}

/// A store's writes at one level. Each waits until the level holds; see [`Store::at`].
///
/// The methods are those of [`Store`], and so are their errors.
#[derive(Debug)]
#[must_use = "it only selects a level"]
pub struct At<'a, R: Record = Token> {
    store: &'a Store<R>,
    level: Level,
}

impl<'a, R: Record> At<'a, R> {
    /// Selects writes that do not wait: each returns a receipt, which tells when the level holds.
    pub const fn begin(self) -> Begin<'a, R> {
        Begin { store: self.store, level: self.level }
    }

    /// Inserts or replaces a record; see [`Store::put`].
    ///
    /// # Errors
    /// As [`Store::put`].
    #[inline]
    pub fn put(self, record: &R) -> Result<()> {
        let receipt = self.begin().put(record)?;
        self.wait(receipt)
    }

    /// Inserts a record whose id is not in use yet; see [`Store::create`].
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create(self, record: &R) -> Result<()> {
        let receipt = self.begin().create(record)?;
        self.wait(receipt)
    }

    /// Inserts or replaces a record that expires; see [`Store::put_for`].
    ///
    /// # Errors
    /// As [`Store::put_for`].
    pub fn put_for(self, record: &R, ttl: Duration) -> Result<()> {
        let receipt = self.begin().put_for(record, ttl)?;
        self.wait(receipt)
    }

    /// Sets when a record expires; see [`Store::expire_in`].
    ///
    /// # Errors
    /// As [`Store::expire_in`].
    pub fn expire_in(self, id: R::Id, ttl: Option<Duration>) -> Result<bool> {
        let receipt = self.begin().expire_in(id, ttl)?;
        self.wait_if_made(receipt)
    }

    /// Replaces a record by what `f` makes of it; see [`Store::update`].
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update<F>(self, id: R::Id, f: F) -> Result<Option<R>>
    where
        F: FnMut(R) -> Result<R, Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some((record, receipt)) = self.begin().update(id, f)? else { return Ok(None) };
        self.wait(receipt).map(|()| Some(record))
    }

    /// Replaces a record by what `f` makes of it; see [`Store::try_update`].
    ///
    /// # Errors
    /// As [`Store::try_update`].
    pub fn try_update<E, F>(self, id: R::Id, f: F) -> Result<Option<R>, E>
    where
        E: From<Error>,
        F: FnMut(R) -> Result<R, E>,
    {
        let Some((record, receipt)) = self.begin().try_update(id, f)? else { return Ok(None) };
        self.wait(receipt)?;
        Ok(Some(record))
    }

    /// Replaces a record if it is still `current`; see [`Store::compare_and_swap`].
    ///
    /// # Errors
    /// As [`Store::compare_and_swap`].
    pub fn compare_and_swap(self, current: &R, next: &R) -> Result<bool> {
        let receipt = self.begin().compare_and_swap(current, next)?;
        self.wait_if_made(receipt)
    }

    /// Removes a record; see [`Store::delete`].
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete(self, id: R::Id) -> Result<bool> {
        let receipt = self.begin().delete(id)?;
        self.wait_if_made(receipt)
    }

    /// Makes all mutations of a batch or none; see [`Store::apply`].
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub fn apply(self, batch: &Batch<R>) -> Result<()> {
        let receipt = self.begin().apply(batch)?;
        self.wait(receipt)
    }

    #[inline]
    pub(super) fn wait(self, receipt: Receipt) -> Result<()> {
        // `Log::wait` would check that the receipt belongs to this log; a Relaxed one needs no
        // wait.
        if self.level == Level::Relaxed { Ok(()) } else { self.store.wait(receipt) }
    }

    fn wait_if_made(self, receipt: Option<Receipt>) -> Result<bool> {
        let Some(receipt) = receipt else { return Ok(false) };
        self.wait(receipt).map(|()| true)
    }
}

// Not derived: that would ask for a record type that implements them, too.
impl<R: Record> Clone for At<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Record> Copy for At<'_, R> {}

/// A store's writes at one level. Each returns a receipt, which tells when the level holds; see
/// [`At::begin`] and [`Store::wait`].
///
/// On return a write is made: reads see it. Dropping its receipt cancels nothing.
#[derive(Debug)]
#[must_use = "it only selects a level"]
pub struct Begin<'a, R: Record = Token> {
    pub(super) store: &'a Store<R>,
    pub(super) level: Level,
}

impl<R: Record> Begin<'_, R> {
    /// Inserts or replaces a record. It never expires, even if the one that it replaces would
    /// have.
    ///
    /// # Errors
    /// [`Error::TooFarAhead`], [`Error::ZeroId`], [`Error::Quota`], [`Error::Memory`],
    /// [`Error::Closed`], and [`Error::Log`] with `Full` or `NoSpace`: nothing was changed.
    #[inline]
    pub fn put(self, record: &R) -> Result<Receipt> {
        let put = self.store.state.panics.watch(|| self.put_if(record, |_| true))?;
        Ok(put.expect("a put that expects nothing is made"))
    }

    /// Inserts a record whose id is not in use yet.
    ///
    /// # Errors
    /// [`Error::Exists`], and as [`put`](Self::put).
    pub fn create(self, record: &R) -> Result<Receipt> {
        self.store.state.panics.watch(|| {
            let id = record.id().into();
            let created = self.put_if(record, |page| page.read(index(id)).is_none())?;
            created.ok_or(Error::Exists { id })
        })
    }

    /// Inserts or replaces a record that expires `ttl` from now, in whole ms. It stays until
    /// [`Store::expire_due`] or an eviction deletes it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_for(self, record: &R, ttl: Duration) -> Result<Receipt> {
        self.store.state.panics.watch(|| {
            self.store.check(record)?;
            let put = self.put_until(record, self.after(ttl), |_| true)?;
            Ok(put.expect("a put that expects nothing is made"))
        })
    }

    /// Sets that the record with this id expires `ttl` from now, in whole ms, or never. Returns
    /// `None`, and logs nothing, when there is none.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::Log`] with `Full` or `NoSpace`: nothing was changed.
    pub fn expire_in(self, id: R::Id, ttl: Option<Duration>) -> Result<Option<Receipt>> {
        self.store.state.panics.watch(|| {
            let (id, at) = (id.into(), ttl.map_or(0, |ttl| self.after(ttl)));
            self.change_existing((EXPIRE, &expiry_item(id, at)), TableOp::Expire(id, at))
        })
    }

    /// Replaces a record by what `f` makes of it, and keeps its expiry time. Returns the new
    /// record; `None`, and logs nothing, when there is none.
    ///
    /// `f` gets a copy while no lock is held: it may use the store, and when it panics nothing
    /// has changed. It is called again when the record was changed in the meantime.
    ///
    /// # Errors
    /// [`Error::Update`] with what `f` returned; [`Error::OtherId`] when it changed the id;
    /// [`Error::Contended`]; and as [`put`](Self::put).
    pub fn update<F>(self, id: R::Id, mut f: F) -> Result<Option<(R, Receipt)>>
    where
        F: FnMut(R) -> Result<R, Box<dyn std::error::Error + Send + Sync>>,
    {
        self.try_update(id, |current| f(current).map_err(Error::Update))
    }

    /// Replaces a record as [`update`](Self::update) does, by a function with an error type of its
    /// own, which is returned as it is. The store's errors are converted into it.
    ///
    /// # Errors
    /// What `f` returned; otherwise as [`update`](Self::update).
    ///
    /// # Examples
    /// ```
    /// # let temp = tempfile::tempdir().unwrap();
    /// # let dir = temp.path().join("store");
    /// # use bulla_engine::{EntityType, Store, StoreOptions, Token, TokenId};
    /// #[derive(Debug, thiserror::Error)]
    /// enum Spent {
    ///     #[error("nothing is left")]
    ///     Nothing,
    ///     #[error(transparent)]
    ///     Store(#[from] bulla_engine::Error),
    /// }
    /// # let store = Store::open(&dir, &StoreOptions::new())?;
    /// # let id = TokenId::new(1, EntityType::Object, 0)?;
    /// # store.put(&Token::builder(id).build()?)?;
    /// let spent = store.try_update(id, |token| {
    ///     if token.weight() > 0.0 { Ok(token) } else { Err(Spent::Nothing) }
    /// });
    /// assert!(matches!(spent, Err(Spent::Nothing)));
    /// # Ok::<(), bulla_engine::Error>(())
    /// ```
    pub fn try_update<E, F>(self, id: R::Id, mut f: F) -> Result<Option<(R, Receipt)>, E>
    where
        E: From<Error>,
        F: FnMut(R) -> Result<R, E>,
    {
        for _ in 0..MAX_UPDATES {
            let Some(current) = self.store.get(id)? else { return Ok(None) };
            let next = self.store.state.panics.watch(|| f(current))?;
            if let Some(receipt) = self.compare_and_swap(&current, &next)? {
                return Ok(Some((next, receipt)));
            }
        }
        Err(Error::Contended { id: id.into() }.into())
    }

    /// Replaces a record if it is still `current`, bit for bit, and keeps its expiry time.
    /// Returns `None`, and logs nothing, when it is not.
    ///
    /// # Errors
    /// [`Error::OtherId`] when the two have different ids, and as [`put`](Self::put).
    pub fn compare_and_swap(self, current: &R, next: &R) -> Result<Option<Receipt>> {
        self.store.state.panics.watch(|| self.swap(current, next))
    }

    /// Removes a record. Returns `None`, and logs nothing, when there is none.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::Log`]: with `Full` or `NoSpace` nothing was changed.
    pub fn delete(self, id: R::Id) -> Result<Option<Receipt>> {
        self.store.state.panics.watch(|| {
            let id = id.into();
            self.change_existing((DELETE, &id.to_le_bytes()), TableOp::Delete(id))
        })
    }

    /// Makes all mutations of a batch or none, also across a crash. A thread that has seen one
    /// of them sees all.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Log`] with `EmptyBatch` or `TooLarge`: nothing was
    /// changed.
    pub fn apply(self, batch: &Batch<R>) -> Result<Receipt> {
        self.store.state.panics.watch(|| {
            batch.check(self.store.max_ahead, || self.store.now_ms() / 1_000)?;
            let (entries, ops) = (batch.entries(), batch.ops());
            let request =
                WriteRequest { entries: &entries, ops: &ops, level: self.level, reads: None };
            let applied = self.store.change(&pages(&ops), request, |_| true)?;
            Ok(applied.expect("a batch expects nothing"))
        })
    }

    #[inline]
    fn put_if(self, record: &R, admit: impl Fn(&PageGuard<'_>) -> bool) -> Result<Option<Receipt>> {
        self.store.check(record)?;
        let id = record.id().into();
        let request = WriteRequest {
            entries: &[(PUT, record.as_bytes())],
            ops: &[TableOp::Put(id, record.as_bytes())],
            level: self.level,
            reads: None,
        };
        self.store.change(&[PageId::of(id)], request, |guards| admit(&guards[0]))
    }

    /// Puts a record that expires at a given time (0: never).
    fn put_until(
        self,
        record: &R,
        expiry: u64,
        admit: impl FnMut(&[PageGuard<'_>]) -> bool,
    ) -> Result<Option<Receipt>> {
        let id = record.id().into();
        let item = expiry_item(id, expiry);
        let entries: [(u16, &[u8]); 2] = [(PUT, record.as_bytes()), (EXPIRE, &item)];
        let ops = [TableOp::Put(id, record.as_bytes()), TableOp::Expire(id, expiry)];
        let count = if expiry == 0 { 1 } else { 2 };
        let (entries, ops) = (&entries[..count], &ops[..count]);
        let request = WriteRequest { entries, ops, level: self.level, reads: None };
        self.store.change(&[PageId::of(id)], request, admit)
    }

    fn swap(self, current: &R, next: &R) -> Result<Option<Receipt>> {
        let (id, other) = (current.id().into(), next.id().into());
        if id != other {
            return Err(Error::OtherId { id, other });
        }
        let current: Copied = zerocopy::transmute!(*current.as_bytes());
        for _ in 0..MAX_UPDATES {
            // A put clears the expiry time, so the swap logs it again.
            let expiry = self.store.state.expiry(id)?;
            let mut found = expiry;
            self.store.check(next)?;
            let logged = faults::write::swapped_expiry(expiry);
            let swapped = self.put_until(next, logged, |guards| {
                found = guards[0].expiry(index(id));
                found == expiry && guards[0].read(index(id)) == Some(current)
            })?;
            if swapped.is_some() || found == expiry {
                return Ok(swapped);
            }
        }
        Err(Error::Contended { id })
    }

    /// Makes a change of one record that must be there.
    fn change_existing(self, entry: (u16, &[u8]), op: TableOp<'_>) -> Result<Option<Receipt>> {
        let id = op.id();
        // No record has id 0. Without this check a record that is not there would cost memory for
        // its slab.
        if id == 0 || self.store.state.read(id)?.0.is_none() {
            return Ok(None);
        }
        let request =
            WriteRequest { entries: &[entry], ops: &[op], level: self.level, reads: None };
        let is_there = |guards: &[PageGuard<'_>]| guards[0].read(index(id)).is_some();
        self.store.change(&[PageId::of(id)], request, is_there)
    }

    fn after(self, ttl: Duration) -> u64 {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.store.now_ms().saturating_add(ttl).max(1)
    }
}

impl<R: Record> Clone for Begin<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Record> Copy for Begin<'_, R> {}
