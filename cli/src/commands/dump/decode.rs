//! Entries of a store as the operations that they are.

use bulla_engine::entries::{LogEntry, Mutation};
use bulla_engine::{Token, TokenId};
use serde::Serialize;

use crate::numbers::shortest;
use crate::times;
use crate::tokens::TokenReport;

/// One operation of an entry.
#[derive(Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub(super) enum Operation {
    Put {
        #[serde(flatten)]
        token: Box<TokenReport>,
        #[serde(skip)]
        words: String,
    },
    Delete {
        id: u32,
        local_id: u32,
        entity_type: &'static str,
        domain: u8,
    },
    Expire {
        id: u32,
        local_id: u32,
        entity_type: &'static str,
        domain: u8,
        /// `None` for never.
        at: Option<String>,
    },
}

/// Returns the operations of an entry; `None` when a store did not write it.
pub(super) fn operations(kind: u16, payload: &[u8]) -> Option<Vec<Operation>> {
    let entry = LogEntry::<Token>::decode(kind, payload).ok()?;
    Some(entry.iter().map(operation).collect())
}

fn operation(mutation: Mutation) -> Operation {
    match mutation {
        Mutation::Put(token) => Operation::Put {
            words: format!(
                "put {}, weight {}, {}",
                name(token.id()),
                shortest(token.weight()),
                times::of_seconds(token.timestamp())
            ),
            token: Box::new(TokenReport::new(&token)),
        },
        Mutation::Delete(id) => Operation::Delete {
            id: id.0,
            local_id: id.local(),
            entity_type: id.entity_type().name(),
            domain: id.domain(),
        },
        Mutation::Expire(id, at) => Operation::Expire {
            id: id.0,
            local_id: id.local(),
            entity_type: id.entity_type().name(),
            domain: id.domain(),
            at: at.and_then(times::of_system_time),
        },
    }
}

/// Returns an id as a user types it.
fn name(id: TokenId) -> String {
    let domain = match id.domain() {
        0 => String::new(),
        domain => format!(" --domain {domain}"),
    };
    format!("{} --type {}{domain}", id.local(), id.entity_type())
}

/// Operations in words: a table shows the first, and how many more there are.
pub(super) fn words(operations: &[Operation]) -> String {
    let Some(first) = operations.first() else { return String::new() };
    let words = match first {
        Operation::Put { words, .. } => words.clone(),
        Operation::Delete { id, .. } => format!("delete {}", name(TokenId(*id))),
        Operation::Expire { id, at: Some(at), .. } => {
            format!("expire {} at {at}", name(TokenId(*id)))
        }
        Operation::Expire { id, at: None, .. } => format!("never expire {}", name(TokenId(*id))),
    };
    match operations.len() - 1 {
        0 => words,
        more => format!("{words}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use bulla_engine::EntityType;
    use bulla_engine::entries::{DELETE, EXPIRE, PUT, expiry_item};

    use super::*;

    #[test]
    fn every_operation_names_its_ids_and_what_is_none_is_told_apart() {
        let id = TokenId::new(7, EntityType::Event, 2).expect("in range");
        let token = Token::builder(id).weight(14.16).timestamp(1_357_034_400);
        let token = token.build().expect("valid");
        let put = [*token.as_bytes(), *token.as_bytes()].concat();
        let words = |kind, payload: &[u8]| operations(kind, payload).map(|all| words(&all));
        assert_eq!(
            words(PUT, &put).as_deref(),
            Some("put 7 --type event --domain 2, weight 14.16, 2013-01-01T10:00:00Z; and 1 more")
        );
        let delete = words(DELETE, &id.0.to_le_bytes());
        assert_eq!(delete.as_deref(), Some("delete 7 --type event --domain 2"));
        let expire = words(EXPIRE, &expiry_item(id.0, 1_500));
        let expected = "expire 7 --type event --domain 2 at 1970-01-01T00:00:01.5Z";
        assert_eq!(expire.as_deref(), Some(expected));
        assert_eq!(words(PUT, b"a line"), None);
        assert_eq!(words(9, &put), None);
        let json = serde_json::to_value(operations(PUT, &put)).expect("JSON");
        assert_eq!((&json[1]["operation"], &json[1]["weight"]), (&"put".into(), &14.16.into()));
    }
}
