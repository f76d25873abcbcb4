//! The id of a token.

use std::fmt;
use std::str::FromStr;

use super::error::TokenError;
use super::names::EntityType;

/// The id of a token: 24 bits of local id, 4 of entity type, 4 of domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[repr(transparent)]
pub struct TokenId(pub u32);

impl TokenId {
    /// The highest local id.
    pub const MAX_LOCAL: u32 = (1 << 24) - 1;

    /// Returns the id with these parts.
    ///
    /// # Errors
    /// [`TokenError::LocalId`], [`TokenError::Domain`]: a part is out of range.
    pub fn new(local: u32, entity_type: EntityType, domain: u8) -> Result<Self, TokenError> {
        if local > Self::MAX_LOCAL {
            return Err(TokenError::LocalId(local));
        }
        if domain > 15 {
            return Err(TokenError::Domain(domain));
        }
        Ok(Self(local | (entity_type as u32) << 24 | u32::from(domain) << 28))
    }

    /// Returns the number within its entity type and domain.
    #[must_use]
    pub const fn local(self) -> u32 {
        self.0 & Self::MAX_LOCAL
    }

    /// Returns the kind of thing that it identifies.
    #[must_use]
    pub const fn entity_type(self) -> EntityType {
        EntityType::from_bits(self.0 >> 24)
    }

    /// Returns the domain, from 0 to 15.
    #[must_use]
    pub const fn domain(self) -> u8 {
        (self.0 >> 28) as u8
    }
}

impl From<u32> for TokenId {
    fn from(bits: u32) -> Self {
        Self(bits)
    }
}

impl From<TokenId> for u32 {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TokenId {
    type Err = std::num::ParseIntError;

    /// Parses what `Display` writes: all 32 bits as one decimal number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
