//! The tokens in memory, by id.
//!
//! A plain ordered map: what the store needs of a table, and no more. A function of the
//! changes applied: reads no clock, runs no policy.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::entries::{Change, Changes};
use crate::token::{Token, TokenId};

/// The tokens, in order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Table {
    tokens: BTreeMap<TokenId, Token>,
}

impl Table {
    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn token(&self, id: TokenId) -> Option<Token> {
        self.tokens.get(&id).copied()
    }

    pub(crate) fn contains(&self, id: TokenId) -> bool {
        self.tokens.contains_key(&id)
    }

    /// The tokens in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// The first `limit` tokens whose ids are above `after`.
    pub(crate) fn page_after(&self, after: Option<TokenId>, limit: usize) -> Vec<Token> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.tokens.range((start, Bound::Unbounded)).take(limit).map(|(_, token)| *token).collect()
    }

    /// Applies the changes of one entry, in order.
    pub(crate) fn apply(&mut self, changes: &Changes<'_>) {
        for change in changes.iter() {
            match change {
                Change::Put(token) => {
                    self.tokens.insert(token.id(), token);
                }
                Change::Delete(id) => {
                    self.tokens.remove(&id);
                }
            }
        }
    }
}
