//! Records of the log of the store before Bulla, as its writer made them.

use bulla_engine::{EntityType, Token, TokenId};

/// The kind of a record that holds a token.
pub const TOKEN_CREATED: u8 = 1;
/// The time of every record, in us since 1970.
pub const TIME_US: u64 = 1_357_034_400_000_001;

/// A record.
///
/// # Panics
/// When the payload has 4 GiB or more.
#[must_use]
pub fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = TIME_US.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
    bytes.extend([0; 11]);
    bytes.extend(payload);
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A token whose time is far ahead: the old store took any.
///
/// # Panics
/// When id or weight is out of range.
#[must_use]
pub fn token(local: u32, weight: f32) -> Token {
    let id = TokenId::new(local, EntityType::Event, 0).expect("an id");
    Token::builder(id).weight(weight).timestamp(u32::MAX).build().expect("a token")
}

/// The record of a token.
///
/// # Panics
/// When the id is out of range.
#[must_use]
pub fn created(local: u32) -> Vec<u8> {
    record(TOKEN_CREATED, token(local, 1.5).as_bytes())
}
