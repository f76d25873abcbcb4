//! Changes of records as entries of a log, and back.
//!
//! Owns the kinds and their payloads. A new kind of change goes here and into the table. The
//! bytes of an entry are checked before they change anything.
//!
//! | kind | payload |
//! |---|---|
//! | [`PUT`] | records, one after the other: n x 64 bytes, n >= 1 |
//! | [`DELETE`] | ids, little-endian: n x 4 bytes, n >= 1 |
//! | [`EXPIRE`] | n x 16 bytes, n >= 1, little-endian: id u32, reserved u32 (0), time in ms since 1970 u64 (0 for never) |

use std::marker::PhantomData;
use std::time::SystemTime;

use crate::record::{RECORD_LEN, Record};
use crate::table::TableOp;
use crate::time::from_ms;
use crate::token::Token;

/// Kind of an entry that inserts or replaces records. They never expire, unless a later entry
/// says so.
pub const PUT: u16 = 1;
/// Kind of an entry that removes records, present or not.
pub const DELETE: u16 = 2;
/// Kind of an entry that sets when records expire: from then on an entry of its own may remove
/// them. It has no effect on records that are not there.
pub const EXPIRE: u16 = 3;

/// Bytes of an id in a [`DELETE`] entry.
pub const ID_LEN: usize = size_of::<u32>();
/// Bytes of an item of an [`EXPIRE`] entry.
pub const EXPIRY_LEN: usize = ID_LEN + 4 + size_of::<u64>();

/// One change of one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation<R: Record = Token> {
    /// Inserts the record, or replaces the one with its id.
    Put(R),
    /// Removes the record with this id, if there is one.
    Delete(R::Id),
    /// Sets when the record with this id expires, if there is one; `None` for never.
    Expire(R::Id, Option<SystemTime>),
}

/// Why an entry is not a change of records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A kind that the engine does not write.
    #[error("kind {0} is not put (1), delete (2) or expire (3)")]
    Kind(u16),
    /// A payload that is empty, or not a multiple of its items' length.
    #[error("{len} bytes are not a positive number of items of {item_len} bytes")]
    Length {
        /// Bytes of the payload.
        len: usize,
        /// Bytes of an item.
        item_len: usize,
    },
    /// A record that the record type refuses.
    #[error("record {index} of the entry is invalid")]
    Record {
        /// Which one, from 0.
        index: usize,
        /// The record type's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Id 0 stands for "no record".
    #[error("id {index} of the entry is 0")]
    ZeroId {
        /// Which one, from 0.
        index: usize,
    },
    /// Reserved bytes that are not zero.
    #[error("item {index} of the entry has reserved bytes that are not zero")]
    Reserved {
        /// Which one, from 0.
        index: usize,
    },
}

/// The changes of one log entry, all of them checked.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a, R = Token>(Items<'a>, PhantomData<R>);

impl<'a, R: Record> LogEntry<'a, R> {
    /// Decodes and checks an entry.
    ///
    /// # Errors
    /// Any [`EntryError`]: the engine did not write the entry.
    pub fn decode(kind: u16, payload: &'a [u8]) -> Result<Self, EntryError> {
        let items = Items::of(kind, payload)?;
        items.for_each_op::<R, _>(|_| Ok::<_, EntryError>(()))?;
        Ok(Self(items, PhantomData))
    }

    /// Returns how many changes there are, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        match self.0 {
            Items::Puts(records) => records.len(),
            Items::Deletes(ids) => ids.len(),
            Items::Expiries(expiries) => expiries.len(),
        }
    }

    /// Iterates over the changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Mutation<R>> + 'a {
        let none: (&[_], &[_], &[_]) = (&[], &[], &[]);
        let (records, ids, expiries) = match self.0 {
            Items::Puts(records) => (records, none.1, none.2),
            Items::Deletes(ids) => (none.0, ids, none.2),
            Items::Expiries(expiries) => (none.0, none.1, expiries),
        };
        // `decode` has checked the records: none is left out here.
        let puts = records.iter().filter_map(|bytes| R::from_bytes(bytes).ok());
        let deletes = ids.iter().map(|bytes| R::Id::from(u32::from_le_bytes(*bytes)));
        let expiries = expiries.iter().map(|item| {
            let (id, _, at) = expiry_parts(item);
            Mutation::Expire(R::Id::from(id), from_ms(at))
        });
        puts.map(Mutation::Put).chain(deletes.map(Mutation::Delete)).chain(expiries)
    }
}

/// Checks an entry, and passes each of its changes to `apply` as soon as it is checked.
#[inline]
pub(crate) fn for_each_op<'a, R: Record, E: From<EntryError>>(
    kind: u16,
    payload: &'a [u8],
    apply: impl FnMut(TableOp<'a>) -> Result<(), E>,
) -> Result<(), E> {
    Items::of(kind, payload)?.for_each_op::<R, E>(apply)
}

/// The items of an entry, whose kind and length are checked, and nothing else.
#[derive(Clone, Copy, Debug)]
enum Items<'a> {
    Puts(&'a [[u8; RECORD_LEN]]),
    Deletes(&'a [[u8; ID_LEN]]),
    Expiries(&'a [[u8; EXPIRY_LEN]]),
}

impl<'a> Items<'a> {
    #[inline]
    fn of(kind: u16, payload: &'a [u8]) -> Result<Self, EntryError> {
        match kind {
            PUT => Ok(Self::Puts(split(payload)?)),
            DELETE => Ok(Self::Deletes(split(payload)?)),
            EXPIRE => Ok(Self::Expiries(split(payload)?)),
            kind => Err(EntryError::Kind(kind)),
        }
    }

    #[inline]
    fn for_each_op<R: Record, E: From<EntryError>>(
        self,
        mut apply: impl FnMut(TableOp<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Puts(records) => records.iter().enumerate().try_for_each(|(index, bytes)| {
                apply(TableOp::Put(check_record::<R>(index, bytes)?, bytes))
            }),
            Self::Deletes(ids) => ids.iter().enumerate().try_for_each(|(index, id)| {
                check_id(index, *id)?;
                apply(TableOp::Delete(u32::from_le_bytes(*id)))
            }),
            Self::Expiries(items) => items.iter().enumerate().try_for_each(|(index, item)| {
                check_expiry(index, item)?;
                let (id, _, at) = expiry_parts(item);
                apply(TableOp::Expire(id, at))
            }),
        }
    }
}

#[inline]
fn split<const LEN: usize>(payload: &[u8]) -> Result<&[[u8; LEN]], EntryError> {
    match payload.as_chunks() {
        (items, []) if !items.is_empty() => Ok(items),
        _ => Err(EntryError::Length { len: payload.len(), item_len: LEN }),
    }
}

/// Returns an item of an [`EXPIRE`] entry; `at_ms` is in ms since 1970, 0 for never.
#[must_use]
pub fn expiry_item(id: u32, at_ms: u64) -> [u8; EXPIRY_LEN] {
    let mut item = [0; EXPIRY_LEN];
    item[..ID_LEN].copy_from_slice(&id.to_le_bytes());
    item[EXPIRY_LEN - 8..].copy_from_slice(&at_ms.to_le_bytes());
    item
}

/// Returns the time in an item of an [`EXPIRE`] entry.
pub(crate) fn expiry_time(item: &[u8; EXPIRY_LEN]) -> u64 {
    expiry_parts(item).2
}

fn expiry_parts([a, b, c, d, e, f, g, h, at @ ..]: &[u8; EXPIRY_LEN]) -> (u32, u32, u64) {
    let word = |bytes| u32::from_le_bytes(bytes);
    (word([*a, *b, *c, *d]), word([*e, *f, *g, *h]), u64::from_le_bytes(*at))
}

/// Checks a record and returns its id.
#[inline]
fn check_record<R: Record>(index: usize, bytes: &[u8; RECORD_LEN]) -> Result<u32, EntryError> {
    let record = R::from_bytes(bytes)
        .map_err(|source| EntryError::Record { index, source: Box::new(source) })?;
    match record.id().into() {
        0 => Err(EntryError::ZeroId { index }),
        id => Ok(id),
    }
}

const fn check_id(index: usize, id: [u8; ID_LEN]) -> Result<(), EntryError> {
    if u32::from_le_bytes(id) == 0 { Err(EntryError::ZeroId { index }) } else { Ok(()) }
}

fn check_expiry(index: usize, item: &[u8; EXPIRY_LEN]) -> Result<(), EntryError> {
    match expiry_parts(item) {
        (0, ..) => Err(EntryError::ZeroId { index }),
        (_, 0, _) => Ok(()),
        _ => Err(EntryError::Reserved { index }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{TokenError, TokenId};

    fn token(local: u32) -> Token {
        Token::builder(TokenId(local)).weight(1.5).build().expect("valid")
    }

    fn changes(kind: u16, payload: &[u8]) -> Vec<Mutation> {
        let changes = LogEntry::<Token>::decode(kind, payload).expect("valid");
        assert_eq!(changes.len(), changes.iter().count());
        changes.iter().collect()
    }

    fn refused(kind: u16, payload: &[u8]) -> EntryError {
        LogEntry::<Token>::decode(kind, payload).expect_err("refused")
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let tokens = [token(1), token(2)];
        let payload = tokens.map(|token| *token.as_bytes()).concat();
        assert_eq!(changes(PUT, &payload), tokens.map(Mutation::Put));
        let payload = [7_u32, 9].map(u32::to_le_bytes).concat();
        assert_eq!(changes(DELETE, &payload), [7, 9].map(|id| Mutation::Delete(TokenId(id))));
        let payload = [expiry_item(7, 1 << 40), expiry_item(9, 0)].concat();
        let expected =
            [Mutation::Expire(TokenId(7), from_ms(1 << 40)), Mutation::Expire(TokenId(9), None)];
        assert_eq!(changes(EXPIRE, &payload), expected);
    }

    #[test]
    fn bytes_of_an_expiry_never_change() {
        let golden = [4, 3, 2, 1, 0, 0, 0, 0, 8, 7, 6, 5, 0, 0, 0, 0];
        assert_eq!(expiry_item(0x0102_0304, 0x0506_0708), golden);
    }

    #[test]
    fn damaged_entries_are_refused_with_their_reason() {
        assert!(matches!(refused(0, b"text"), EntryError::Kind(0)));
        let lengths = [(PUT, 0, 64), (PUT, 65, 64), (DELETE, 7, 4), (EXPIRE, 15, 16)];
        for (kind, wrong, item) in lengths {
            let refused = refused(kind, &vec![1; wrong]);
            assert!(
                matches!(refused, EntryError::Length { len, item_len } if (len, item_len) == (wrong, item)),
                "{refused:?}"
            );
        }
        assert!(matches!(refused(DELETE, &[0; 4]), EntryError::ZeroId { index: 0 }));
        assert!(matches!(refused(EXPIRE, &[0; 16]), EntryError::ZeroId { index: 0 }));
        assert!(matches!(refused(EXPIRE, &[1; 16]), EntryError::Reserved { index: 0 }));
        let mut payload = [*token(1).as_bytes(), *token(2).as_bytes()].concat();
        payload[64 + 54..64 + 58].copy_from_slice(&f32::NAN.to_le_bytes());
        let EntryError::Record { index: 1, source } = refused(PUT, &payload) else {
            panic!("the second token is none");
        };
        assert!(matches!(source.downcast_ref(), Some(TokenError::Weight(_))), "{source}");
    }
}
