//! What the drill's clients send: real records, over and over, each recognisable.
//!
//! Both sides compute it: the record of a client's index is the same for the child that
//! sends it and for the parent that checks it.

use std::io::Write;
use std::path::Path;

use bulla_engine::{EntityType, TOKEN_LEN, Token, TokenId};

use crate::error::{Error, Result};

/// The most clients: their number is the domain of an id.
pub(super) const MAX_CLIENTS: u8 = 16;
/// Of each group of this many records of a client ...
pub(super) const GROUP: u64 = 16;
/// ... this many, the last ones, are sent as one batch.
pub(super) const BATCH: u64 = 4;

/// The records of the input.
#[derive(Debug)]
pub(super) struct Feed {
    records: Vec<Token>,
    clients: u8,
}

impl Feed {
    /// `records` is not empty, `clients` is not 0.
    pub(super) fn new(records: Vec<Token>, clients: u8) -> Self {
        assert!(!records.is_empty() && (1..=MAX_CLIENTS).contains(&clients));
        Self { records, clients }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns what a client sends as its record number `index`, from 0.
    pub(super) fn token(&self, client: u8, index: u64) -> Token {
        let number =
            (index * u64::from(self.clients) + u64::from(client)) % self.records.len() as u64;
        let record = self.records[usize::try_from(number).expect("an index of the records")];
        record.with_id(id(client, index)).expect("an event's id is not 0")
    }

    /// Returns how many records from `index` on go into one append: 1, or a whole batch.
    pub(super) const fn batch_len(index: u64) -> u64 {
        if index % GROUP == GROUP - BATCH { BATCH } else { 1 }
    }

    /// Returns whether a log with `count` records of a client holds part of a batch.
    pub(super) const fn splits_batch(count: u64) -> bool {
        count % GROUP > GROUP - BATCH
    }

    /// Writes the records for the child.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let write = || {
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            self.records.iter().try_for_each(|token| file.write_all(token.as_bytes()))?;
            file.flush()
        };
        write().map_err(Error::file("write", path))
    }

    /// Reads what [`save`](Self::save) wrote.
    pub(super) fn load(path: &Path, clients: u8) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
        let (records, _) = bytes.as_chunks::<TOKEN_LEN>();
        let records: Vec<_> =
            records.iter().filter_map(|bytes| Token::from_bytes(bytes).ok()).collect();
        if records.is_empty() {
            return Err(Error::Input {
                path: path.to_owned(),
                reason: "the file holds no records",
            });
        }
        Ok(Self::new(records, clients))
    }
}

/// Returns the id under which a client's record is stored: unique among its latest 16 million.
fn id(client: u8, index: u64) -> TokenId {
    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    let local = (index & u64::from(TokenId::MAX_LOCAL)) as u32;
    TokenId::new(local, EntityType::Event, client).expect("in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_or_not_there() {
        let mut index = 0;
        while index < 3 * GROUP {
            assert!(!Feed::splits_batch(index));
            for inside in index + 1..index + Feed::batch_len(index) {
                assert!(Feed::splits_batch(inside));
            }
            index += Feed::batch_len(index);
        }
    }
}
