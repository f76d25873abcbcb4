//! Transactions: changes of several records that follow from what was read of others.
//!
//! Owns how conflicts are found: a transaction runs on copies while no lock is held, and notes
//! what it read. Its changes are made only if every record that it read is still the same, bit for
//! bit, with the pages of all of them locked. So transactions are serialisable.

use std::collections::BTreeMap;

use bulla_wal::Receipt;

use super::Store;
use super::commit::{Reads, WriteRequest};
use super::write::{At, Begin, MAX_UPDATES};
use crate::batch::{Batch, non_zero, pages};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::decode;
use crate::table::{Copied, LockedPages, PageId};
use crate::token::Token;

/// Records that a transaction may read: the pages of all of them are locked at the end.
const MAX_READS: usize = 65_536;

/// The reads and changes of one run of a transaction; see [`Store::transact`].
#[derive(Debug)]
pub struct Transaction<'a, R: Record = Token> {
    store: &'a Store<R>,
    /// What was read of the store; `None` where there was no record.
    reads: BTreeMap<u32, Option<Copied>>,
    /// What the transaction made of records; `None` where it deleted one.
    changed: BTreeMap<u32, Option<R>>,
    batch: Batch<R>,
}

impl<R: Record> Transaction<'_, R> {
    /// Returns the record with this id as the transaction sees it: as the store had it when it was
    /// first read here, with the transaction's own changes.
    ///
    /// # Errors
    /// [`Error::TooManyReads`] after 65,536 different records, and as [`Store::get`].
    pub fn get(&mut self, id: R::Id) -> Result<Option<R>> {
        let id = id.into();
        if let Some(changed) = self.changed.get(&id) {
            return Ok(*changed);
        }
        let read = match self.reads.get(&id) {
            Some(read) => *read,
            None if self.reads.len() == MAX_READS => {
                return Err(Error::TooManyReads { max: MAX_READS });
            }
            None => {
                let read = self.store.state.read(id)?.0;
                self.reads.insert(id, read);
                read
            }
        };
        Ok(self.store.state.panics.watch(|| read.and_then(decode)))
    }

    /// Inserts or replaces a record, which then never expires.
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn put(&mut self, record: &R) -> Result<()> {
        let id = non_zero(record.id())?;
        self.batch.put(record);
        self.changed.insert(id, Some(*record));
        Ok(())
    }

    /// Removes a record; no error results when there is none.
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn delete(&mut self, id: R::Id) -> Result<()> {
        self.batch.delete(id)?;
        self.changed.insert(id.into(), None);
        Ok(())
    }
}

impl<R: Record> Store<R> {
    /// Reads records and changes others depending on what they are, all as of one moment, and waits
    /// until the default level holds. Returns what `f` returned.
    ///
    /// `f` reads and changes records through the [`Transaction`] that it gets. If it returns
    /// `Ok`, its changes are made as one batch: all or none, also across a crash, under one
    /// receipt. If it returns an error, nothing is changed, and the error is returned as it is.
    ///
    /// **Conflicts are detected.** The changes are made, or the error is returned, only if every
    /// record that `f` read is still the same, or still not there; otherwise `f` runs again on what
    /// is there now. So the result is as if transactions had run one after the other. No lock is held while `f` runs: it
    /// may use the store, and when it panics nothing has changed. It must expect to run more than
    /// once, and what it reads in a run that is repeated may be from different moments.
    ///
    /// A record that is put in a transaction has no time to live from then on, also if it had one:
    /// [`update`](Self::update) keeps it. Records that have expired are read as long as nobody has
    /// deleted them.
    ///
    /// # Errors
    /// What `f` returned. Converted into its error: [`Error::Contended`] with the record that others
    /// changed last, those of
    /// [`Begin::apply`], and those of [`wait`](Self::wait).
    ///
    /// # Examples
    /// ```
    /// # let temp = tempfile::tempdir().unwrap();
    /// # let dir = temp.path().join("store");
    /// use bulla_engine::{EntityType, Error, Store, StoreOptions, Token, TokenId};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum Refused {
    ///     #[error("no such account")]
    ///     Unknown,
    ///     #[error("not enough on it")]
    ///     TooLittle,
    ///     #[error(transparent)]
    ///     Store(#[from] Error),
    /// }
    ///
    /// let store = Store::open(&dir, &StoreOptions::new())?;
    /// let [from, to] = [1, 2].map(|id| TokenId::new(id, EntityType::Object, 0).unwrap());
    /// store.put(&Token::builder(from).weight(70.0).build()?)?;
    /// store.put(&Token::builder(to).build()?)?;
    ///
    /// let moved = store.transact(|t| {
    ///     let a = t.get(from)?.ok_or(Refused::Unknown)?;
    ///     let b = t.get(to)?.ok_or(Refused::Unknown)?;
    ///     if a.weight() < 40.0 {
    ///         return Err(Refused::TooLittle);
    ///     }
    ///     let weighing = |token: Token, weight| token.to_builder().weight(weight).build();
    ///     t.put(&weighing(a, a.weight() - 40.0).map_err(Error::from)?)?;
    ///     t.put(&weighing(b, b.weight() + 40.0).map_err(Error::from)?)?;
    ///     Ok(b.weight() + 40.0)
    /// });
    /// assert_eq!(moved.expect("enough"), 40.0);
    /// # Ok::<(), bulla_engine::Error>(())
    /// ```
    pub fn transact<T, E, F>(&self, f: F) -> Result<T, E>
    where
        E: From<Error>,
        F: FnMut(&mut Transaction<'_, R>) -> Result<T, E>,
    {
        self.at(self.level).transact(f)
    }

    /// Makes the changes of a transaction. There is no receipt where it changes nothing.
    ///
    /// # Errors
    /// [`Error::Contended`] where another thread has changed what it read.
    fn commit(&self, run: Transaction<'_, R>, begin: Begin<'_, R>) -> Result<Option<Receipt>> {
        if run.batch.is_empty() {
            return self.check_unchanged(run.reads).map(|()| None);
        }
        run.batch.check(self.max_ahead, || self.now_ms() / 1_000)?;
        let (entries, ops) = (run.batch.entries(), run.batch.ops());
        let written = pages(&ops);
        let mut reads = reads_of(run.reads);
        reads.pages.retain(|page| written.binary_search(page).is_err());
        let (level, reads) = (begin.level, Some(&reads));
        let request = WriteRequest { entries: &entries, ops: &ops, level, reads };
        self.change(&written, request, |_| true)
    }

    /// Checks that what a transaction read is, at one moment, what it was.
    ///
    /// # Errors
    /// [`Error::Contended`] where it is not.
    fn check_unchanged(&self, records: BTreeMap<u32, Option<Copied>>) -> Result<()> {
        let reads = reads_of(records);
        reads.pages.iter().try_for_each(|page| self.state.fault_in(*page))?;
        let locked =
            LockedPages::lock(&self.state.table, &[], &reads.pages).map_err(Error::Memory)?;
        reads.changed(&locked).map_or(Ok(()), |id| Err(Error::Contended { id }))
    }
}

fn reads_of(records: BTreeMap<u32, Option<Copied>>) -> Reads {
    // In the order of the ids.
    let mut pages: Vec<_> = records.keys().map(|id| PageId::of(*id)).collect();
    pages.dedup();
    Reads { records, pages }
}

impl<R: Record> At<'_, R> {
    /// Reads and changes records as of one moment; see [`Store::transact`].
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub fn transact<T, E, F>(self, f: F) -> Result<T, E>
    where
        E: From<Error>,
        F: FnMut(&mut Transaction<'_, R>) -> Result<T, E>,
    {
        let (value, receipt) = self.begin().transact(f)?;
        if let Some(receipt) = receipt {
            self.wait(receipt)?;
        }
        Ok(value)
    }
}

impl<R: Record> Begin<'_, R> {
    /// Reads and changes records as of one moment; see [`Store::transact`]. Returns the receipt of
    /// the changes, if there are any.
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub fn transact<T, E, F>(self, mut f: F) -> Result<(T, Option<Receipt>), E>
    where
        E: From<Error>,
        F: FnMut(&mut Transaction<'_, R>) -> Result<T, E>,
    {
        let (store, mut contended) = (self.store, 0);
        for _ in 0..MAX_UPDATES {
            let (reads, changed) = (BTreeMap::new(), BTreeMap::new());
            let mut run = Transaction { store, reads, changed, batch: Batch::new() };
            let value = store.state.panics.watch(|| f(&mut run));
            let made = store.state.panics.watch(|| match &value {
                Ok(_) => store.commit(run, self),
                // It may follow from records of different moments.
                Err(_) => store.check_unchanged(run.reads).map(|()| None),
            });
            match made {
                Ok(receipt) => return value.map(|value| (value, receipt)),
                Err(Error::Contended { id }) => contended = id,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended { id: contended }.into())
    }
}
