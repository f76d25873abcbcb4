//! Changes that are made together: as entries for the log, and as edits of the table.

use crate::entries::{Change, DELETE, EXPIRE, PUT, expiry_item};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::table::{Edit, PageId, What};
use crate::token::Token;

/// Changes that are made together or not at all, in order.
///
/// Its bytes must fit into one frame of the log: with default options 8 MiB, some
/// 120,000 records.
#[derive(Clone, Debug)]
pub struct Batch<R: Record = Token> {
    bytes: Vec<u8>,
    /// Runs of changes of one kind: the kind, and where it ends in `bytes`.
    runs: Vec<(u16, usize)>,
    changes: Vec<Change<R>>,
}

impl<R: Record> Default for Batch<R> {
    fn default() -> Self {
        Self { bytes: Vec::new(), runs: Vec::new(), changes: Vec::new() }
    }
}

impl<R: Record> Batch<R> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an insertion or replacement. One of id 0 makes the whole batch fail.
    pub fn put(&mut self, record: &R) -> &mut Self {
        self.push(PUT, record.as_bytes(), Change::Put(*record))
    }

    /// Adds a removal; it is no error when there is no such record.
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn delete(&mut self, id: R::Id) -> Result<&mut Self> {
        let bytes = non_zero(id)?.to_le_bytes();
        Ok(self.push(DELETE, &bytes, Change::Delete(id)))
    }

    /// Adds a time, in ms since 1970, at which a record expires if it is there; 0 for
    /// never. See [`Store::expire_due`](crate::Store::expire_due).
    ///
    /// # Errors
    /// [`Error::ZeroId`].
    pub fn expire_at(&mut self, id: R::Id, at_ms: u64) -> Result<&mut Self> {
        let item = expiry_item(non_zero(id)?, at_ms);
        Ok(self.push(EXPIRE, &item, Change::Expire(id, at_ms)))
    }

    /// How many changes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.changes.len()
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Forgets the changes, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.changes.clear();
    }

    fn push(&mut self, kind: u16, bytes: &[u8], change: Change<R>) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.changes.push(change);
        let end = self.bytes.len();
        match self.runs.last_mut() {
            Some((last, last_end)) if *last == kind => *last_end = end,
            _ => self.runs.push((kind, end)),
        }
        self
    }

    /// What is logged.
    pub(crate) fn entries(&self) -> Vec<(u16, &[u8])> {
        let mut start = 0;
        let entry = |&(kind, end): &(u16, usize)| {
            let payload = &self.bytes[start..end];
            start = end;
            (kind, payload)
        };
        self.runs.iter().map(entry).collect()
    }

    /// What is done to the table.
    pub(crate) fn edits(&self) -> Vec<Edit<'_>> {
        self.changes.iter().map(edit).collect()
    }

    /// The records that it puts.
    pub(crate) fn records(&self) -> impl Iterator<Item = &R> {
        self.changes.iter().filter_map(|change| match change {
            Change::Put(record) => Some(record),
            _ => None,
        })
    }
}

impl<R: Record> Extend<Change<R>> for Batch<R> {
    /// Adds changes. A removal or a time of id 0 changes nothing and is left out.
    fn extend<T: IntoIterator<Item = Change<R>>>(&mut self, changes: T) {
        for change in changes {
            match change {
                Change::Put(record) => {
                    self.put(&record);
                }
                Change::Delete(id) => {
                    let _ = self.delete(id);
                }
                Change::Expire(id, at_ms) => {
                    let _ = self.expire_at(id, at_ms);
                }
            }
        }
    }
}

/// A change as the table sees it.
pub(crate) fn edit<R: Record>(change: &Change<R>) -> Edit<'_> {
    match change {
        Change::Put(record) => Edit { id: record.id().into(), what: What::Put(record.as_bytes()) },
        Change::Delete(id) => Edit { id: (*id).into(), what: What::Delete },
        Change::Expire(id, at_ms) => Edit { id: (*id).into(), what: What::Expire(*at_ms) },
    }
}

/// The pages of edits, in order, each once.
pub(crate) fn pages(edits: &[Edit<'_>]) -> Vec<PageId> {
    let mut pages: Vec<_> = edits.iter().map(|edit| PageId::of(edit.id)).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// The number of an id.
pub(crate) fn non_zero(id: impl Into<u32>) -> Result<u32> {
    match id.into() {
        0 => Err(Error::ZeroId),
        id => Ok(id),
    }
}
