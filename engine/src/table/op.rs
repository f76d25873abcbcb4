//! One change of one record, as the table applies it.

use crate::record::RECORD_LEN;

/// The bytes of a record.
pub(crate) type Bytes = [u8; RECORD_LEN];

/// One change of one record, with the record's id.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TableOp<'a> {
    /// Inserts or replaces the record. It never expires.
    Put(u32, &'a Bytes),
    /// Removes the record if it is there.
    Delete(u32),
    /// Sets when the record expires, if it is there: in ms since 1970, 0 for never.
    Expire(u32, u64),
}

impl TableOp<'_> {
    /// Returns the id of the record.
    #[inline]
    pub(crate) const fn id(&self) -> u32 {
        let (Self::Put(id, _) | Self::Delete(id) | Self::Expire(id, _)) = self;
        *id
    }
}
