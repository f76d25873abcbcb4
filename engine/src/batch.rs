//! Mutations that are made together, as entries of the log and as changes of the table.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use crate::entries::{DELETE, EXPIRE, ID_LEN, Mutation, PUT, expiry_item, expiry_time};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::table::{PageId, TableOp};
use crate::time::to_ms;
use crate::token::Token;

/// Mutations that are made together or not at all, in order.
///
/// Its bytes must fit into one frame of the log: with default options 8 MiB, some 120,000
/// records.
#[derive(Clone, Debug)]
pub struct Batch<R: Record = Token> {
    /// The payloads of the log entries, one after the other.
    payloads: Vec<u8>,
    /// The kind of each entry, and where its payload ends in `payloads`.
    entries: Vec<(u16, usize)>,
    /// The id of each mutation.
    ids: Vec<u32>,
    /// The latest time of a record, in seconds since 1970; 0 for none.
    latest: u32,
    records: PhantomData<R>,
}

impl<R: Record> Default for Batch<R> {
    fn default() -> Self {
        let (payloads, entries, ids) = (Vec::new(), Vec::new(), Vec::new());
        Self { payloads, entries, ids, latest: 0, records: PhantomData }
    }
}

impl<R: Record> Batch<R> {
    /// Creates an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an insertion or replacement. A record with id 0 makes the whole batch fail.
    pub fn put(&mut self, record: &R) -> &mut Self {
        self.latest = self.latest.max(record.timestamp().unwrap_or(0));
        self.push(PUT, record.id().into(), record.as_bytes())
    }

    /// Adds a removal; no error results when there is no such record.
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn delete(&mut self, id: R::Id) -> Result<&mut Self> {
        let id = non_zero(id)?;
        Ok(self.push(DELETE, id, &id.to_le_bytes()))
    }

    /// Adds a time, in whole ms, at which a record expires if it is there; `None` for never.
    /// See [`Store::expire_due`](crate::Store::expire_due).
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn expire_at(&mut self, id: R::Id, at: Option<SystemTime>) -> Result<&mut Self> {
        let id = non_zero(id)?;
        Ok(self.push(EXPIRE, id, &expiry_item(id, to_ms(at))))
    }

    /// Returns how many mutations there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Removes all mutations, and keeps the memory.
    pub fn clear(&mut self) {
        self.payloads.clear();
        self.entries.clear();
        self.ids.clear();
        self.latest = 0;
    }

    fn push(&mut self, kind: u16, id: u32, bytes: &[u8]) -> &mut Self {
        self.payloads.extend_from_slice(bytes);
        self.ids.push(id);
        let end = self.payloads.len();
        match self.entries.last_mut() {
            Some((last, last_end)) if *last == kind => *last_end = end,
            _ => self.entries.push((kind, end)),
        }
        self
    }

    /// Returns the entries for the log: kinds and payloads.
    pub(crate) fn entries(&self) -> Vec<(u16, &[u8])> {
        let mut start = 0;
        let entry = |&(kind, end): &(u16, usize)| {
            let payload = &self.payloads[start..end];
            start = end;
            (kind, payload)
        };
        self.entries.iter().map(entry).collect()
    }
    /// Returns the changes for the table.
    pub(crate) fn ops(&self) -> Vec<TableOp<'_>> {
        let mut ops = Vec::with_capacity(self.ids.len());
        let mut ids = self.ids.iter().copied();
        for (kind, payload) in self.entries() {
            match kind {
                PUT => {
                    let records = payload.as_chunks().0.iter().zip(&mut ids);
                    ops.extend(records.map(|(bytes, id)| TableOp::Put(id, bytes)));
                }
                DELETE => {
                    let count = payload.len() / ID_LEN;
                    ops.extend(ids.by_ref().take(count).map(TableOp::Delete));
                }
                _ => {
                    let items = payload.as_chunks().0.iter().zip(&mut ids);
                    ops.extend(items.map(|(item, id)| TableOp::Expire(id, expiry_time(item))));
                }
            }
        }
        ops
    }

    /// Refuses a batch with an id 0, or with a record whose time is too far ahead.
    pub(crate) fn check(&self, max_ahead: Duration, now: impl FnOnce() -> u64) -> Result<()> {
        self.ids.iter().try_for_each(|id| non_zero(*id).map(drop))?;
        check_time(self.latest, max_ahead, now)
    }
}

/// Refuses a record whose id is 0 or whose time is too far ahead of `now`, in s since 1970. The
/// clock is read only for records that have a time.
#[inline]
pub(crate) fn check<R: Record>(
    record: &R,
    max_ahead: Duration,
    now: impl FnOnce() -> u64,
) -> Result<()> {
    non_zero(record.id())?;
    check_time(record.timestamp().unwrap_or(0), max_ahead, now)
}

#[inline]
fn check_time(timestamp: u32, max_ahead: Duration, now: impl FnOnce() -> u64) -> Result<()> {
    if timestamp == 0 {
        return Ok(());
    }
    let now = now();
    if u64::from(timestamp) <= now.saturating_add(max_ahead.as_secs()) {
        Ok(())
    } else {
        Err(Error::TooFarAhead { timestamp, now, max_ahead })
    }
}

impl<R: Record> Extend<Mutation<R>> for Batch<R> {
    /// Adds mutations. A removal or a time of id 0 has no effect and is left out.
    fn extend<T: IntoIterator<Item = Mutation<R>>>(&mut self, mutations: T) {
        for mutation in mutations {
            match mutation {
                Mutation::Put(record) => {
                    self.put(&record);
                }
                Mutation::Delete(id) => {
                    let _ = self.delete(id);
                }
                Mutation::Expire(id, at) => {
                    let _ = self.expire_at(id, at);
                }
            }
        }
    }
}

/// Returns the pages of changes, in order, each once.
pub(crate) fn pages(ops: &[TableOp<'_>]) -> Vec<PageId> {
    let mut pages: Vec<_> = ops.iter().map(|op| PageId::of(op.id())).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Returns the number of an id.
///
/// # Errors
/// [`Error::ZeroId`].
pub(crate) fn non_zero(id: impl Into<u32>) -> Result<u32> {
    match id.into() {
        0 => Err(Error::ZeroId),
        id => Ok(id),
    }
}
