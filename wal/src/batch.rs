//! What an append of several entries returns: a receipt for each.

use std::iter::FusedIterator;

use bulla_storage::format::entry_len;
use bulla_storage::{Lsn, Receipt, Seq};

/// The receipts of a batch's entries. The entries have one level, and are recovered
/// together or not at all: to wait for the [`last`](Self::last) is to wait for all.
#[derive(Clone, Copy, Debug)]
#[must_use = "the batch may not be durable yet: wait for its last receipt, or drop it on purpose"]
pub struct BatchReceipt<'a> {
    last: Receipt,
    entries: &'a [(u16, &'a [u8])],
}

impl<'a> BatchReceipt<'a> {
    pub(crate) fn new(last: Receipt, entries: &'a [(u16, &'a [u8])]) -> Self {
        Self { last, entries }
    }

    /// Returns the receipt of the last entry: the one to wait for.
    pub fn last(&self) -> Receipt {
        self.last
    }

    /// Returns the receipt of each entry, in the order of the batch. Allocates nothing:
    /// where entries start follows from their lengths.
    pub fn receipts(&self) -> Receipts<'a> {
        let before_last = self.entries.split_last().map_or(&[][..], |(_, before)| before);
        let len: u64 = before_last.iter().map(|(_, payload)| entry_len(payload.len() as u64)).sum();
        Receipts {
            last: self.last,
            lsn: Lsn(self.last.lsn.0 - len),
            seq: Seq(self.last.seq.0 - before_last.len() as u64),
            entries: self.entries,
        }
    }
}

impl<'a> IntoIterator for BatchReceipt<'a> {
    type Item = Receipt;
    type IntoIter = Receipts<'a>;

    fn into_iter(self) -> Receipts<'a> {
        self.receipts()
    }
}

/// The receipts of a batch's entries, one after the other.
#[derive(Clone, Debug)]
pub struct Receipts<'a> {
    last: Receipt,
    /// Of the next entry.
    lsn: Lsn,
    seq: Seq,
    entries: &'a [(u16, &'a [u8])],
}

impl Iterator for Receipts<'_> {
    type Item = Receipt;

    fn next(&mut self) -> Option<Receipt> {
        let ((_, payload), rest) = self.entries.split_first()?;
        let receipt = Receipt { lsn: self.lsn, seq: self.seq, ..self.last };
        self.lsn = self.lsn.plus(entry_len(payload.len() as u64));
        self.seq = Seq(self.seq.0 + 1);
        self.entries = rest;
        Some(receipt)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.len(), Some(self.entries.len()))
    }
}

impl ExactSizeIterator for Receipts<'_> {}
impl FusedIterator for Receipts<'_> {}
