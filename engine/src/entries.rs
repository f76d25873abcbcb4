//! Changes of tokens as entries of a log, and back.
//!
//! Owns the kinds and their payloads. A new kind of change goes here, and into
//! `Table::apply`. Bytes of an entry are checked before they change anything.
//!
//! | kind | payload |
//! |---|---|
//! | [`PUT`] | tokens, one after the other: n x 64 bytes, n >= 1 |
//! | [`DELETE`] | ids, little-endian: n x 4 bytes, n >= 1 |

use crate::token::{TOKEN_LEN, Token, TokenError, TokenId};

/// Kind of an entry that inserts or replaces tokens.
pub const PUT: u16 = 1;
/// Kind of an entry that removes tokens, present or not.
pub const DELETE: u16 = 2;

/// Bytes of an id in a [`DELETE`] entry.
pub const ID_LEN: usize = size_of::<u32>();

/// One change of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Insert the token, or replace the one with its id.
    Put(Token),
    /// Remove the token with this id, if there is one.
    Delete(TokenId),
}

/// Why an entry is no change of tokens.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A kind that the engine does not write.
    #[error("kind {0} is neither put (1) nor delete (2)")]
    Kind(u16),
    /// A payload that is empty or no multiple of its items' length.
    #[error("{len} bytes are not a positive number of items of {item_len} bytes")]
    Length {
        /// Bytes of the payload.
        len: usize,
        /// Bytes of an item.
        item_len: usize,
    },
    /// A token that can't be.
    #[error("token {index} of the entry can't be")]
    Token {
        /// Which one, from 0.
        index: usize,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// Id 0 stands for "no token".
    #[error("id {index} of the entry is 0")]
    ZeroId {
        /// Which one, from 0.
        index: usize,
    },
}

/// The changes of one entry, all of them checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changes<'a>(Items<'a>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Items<'a> {
    Puts(&'a [[u8; TOKEN_LEN]]),
    Deletes(&'a [[u8; ID_LEN]]),
}

impl<'a> Changes<'a> {
    /// Decodes and checks an entry.
    ///
    /// # Errors
    /// Any [`EntryError`]: the entry is none of the engine's.
    pub fn decode(kind: u16, payload: &'a [u8]) -> Result<Self, EntryError> {
        match kind {
            PUT => {
                let tokens = items(payload)?;
                for (index, bytes) in tokens.iter().enumerate() {
                    Token::from_bytes(bytes)
                        .map_err(|source| EntryError::Token { index, source })?;
                }
                Ok(Self(Items::Puts(tokens)))
            }
            DELETE => {
                let ids = items(payload)?;
                match ids.iter().position(|id| *id == [0; ID_LEN]) {
                    Some(index) => Err(EntryError::ZeroId { index }),
                    None => Ok(Self(Items::Deletes(ids))),
                }
            }
            kind => Err(EntryError::Kind(kind)),
        }
    }

    /// How many there are, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        match self.0 {
            Items::Puts(tokens) => tokens.len(),
            Items::Deletes(ids) => ids.len(),
        }
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Change> + 'a {
        let (tokens, ids): (&[_], &[_]) = match self.0 {
            Items::Puts(tokens) => (tokens, &[]),
            Items::Deletes(ids) => (&[], ids),
        };
        // Decoding has checked the tokens: none is left out here.
        let puts = tokens.iter().filter_map(|bytes| Token::from_bytes(bytes).ok());
        let deletes = ids.iter().map(|bytes| TokenId(u32::from_le_bytes(*bytes)));
        puts.map(Change::Put).chain(deletes.map(Change::Delete))
    }
}

fn items<const LEN: usize>(payload: &[u8]) -> Result<&[[u8; LEN]], EntryError> {
    match payload.as_chunks() {
        (items, []) if !items.is_empty() => Ok(items),
        _ => Err(EntryError::Length { len: payload.len(), item_len: LEN }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(local: u32) -> Token {
        Token::builder(TokenId(local)).weight(1.5).build().expect("valid")
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let tokens = [token(1), token(2)];
        let payload = tokens.map(|token| *token.as_bytes()).concat();
        let changes = Changes::decode(PUT, &payload).expect("valid");
        assert_eq!(changes.len(), 2);
        assert_eq!(changes.iter().collect::<Vec<_>>(), tokens.map(Change::Put));
        let payload = [7_u32, 9].map(u32::to_le_bytes).concat();
        let changes = Changes::decode(DELETE, &payload).expect("valid");
        assert_eq!(
            changes.iter().collect::<Vec<_>>(),
            [7, 9].map(|id| Change::Delete(TokenId(id)))
        );
    }

    #[test]
    fn damaged_entries_are_refused_with_their_reason() {
        assert_eq!(Changes::decode(0, b"text"), Err(EntryError::Kind(0)));
        let length = |len, item_len| Err(EntryError::Length { len, item_len });
        assert_eq!(Changes::decode(PUT, b""), length(0, 64));
        assert_eq!(Changes::decode(PUT, &[1; 65]), length(65, 64));
        assert_eq!(Changes::decode(DELETE, &[1; 7]), length(7, 4));
        assert_eq!(Changes::decode(DELETE, &[0; 4]), Err(EntryError::ZeroId { index: 0 }));
        let mut payload = [*token(1).as_bytes(), *token(2).as_bytes()].concat();
        payload[64 + 54..64 + 58].copy_from_slice(&f32::NAN.to_le_bytes());
        let refused = Changes::decode(PUT, &payload);
        assert!(
            matches!(refused, Err(EntryError::Token { index: 1, source: TokenError::Weight(_) })),
            "{refused:?}"
        );
    }
}
