//! Tokens as rows and reports.

use bulla_engine::{EntityType, Space, Token, TokenId};
use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::numbers::{rounded, shortest};
use crate::output::{Format, Rows};
use crate::times;

/// Everything that a token holds.
#[derive(Serialize)]
pub(crate) struct TokenReport {
    id: u32,
    local_id: u32,
    entity_type: &'static str,
    domain: u8,
    #[serde(flatten)]
    coordinates: Coordinates,
    flags: Vec<&'static str>,
    flag_entity_type: &'static str,
    flag_user: u8,
    weight: f64,
    field_radius: f64,
    field_strength: f64,
    timestamp: String,
}

impl TokenReport {
    pub(crate) fn new(token: &Token) -> Self {
        let (id, flags) = (token.id(), token.flags());
        Self {
            id: id.0,
            local_id: id.local(),
            entity_type: id.entity_type().name(),
            domain: id.domain(),
            coordinates: Coordinates(*token),
            flags: flags.names().collect(),
            flag_entity_type: flags.entity_type().name(),
            flag_user: flags.user(),
            weight: shortest(token.weight()),
            field_radius: token.field_radius(),
            field_strength: token.field_strength(),
            timestamp: times::of_seconds(token.timestamp()),
        }
    }
}

/// The coordinates of a token, by the names of their spaces.
struct Coordinates(Token);

impl Serialize for Coordinates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Space::ALL.map(|space| (space.name(), self.0.coordinates(space))))
    }
}

/// What a table shows of a token.
#[derive(Serialize)]
struct Row {
    id: u32,
    local_id: u32,
    #[serde(rename = "type")]
    entity_type: &'static str,
    time: String,
    weight: f64,
    physical: String,
    temporal: String,
    flags: Vec<&'static str>,
}

/// Adds a token to a list: all of it for programs, what tells tokens apart for people.
pub(crate) fn push(rows: &mut Rows<'_>, token: &Token) -> Result<()> {
    if rows.format() != Format::Table {
        return rows.push(&TokenReport::new(token));
    }
    rows.push(&Row {
        id: token.id().0,
        local_id: token.id().local(),
        entity_type: token.id().entity_type().name(),
        time: times::of_seconds(token.timestamp()),
        weight: rounded(f64::from(token.weight()), 4),
        physical: point(token, Space::Physical),
        temporal: point(token, Space::Temporal),
        flags: token.flags().names().collect(),
    })
}

/// Returns coordinates with the four decimals that the finest of them has.
fn point(token: &Token, space: Space) -> String {
    token.coordinates(space).map(|value| rounded(value, 4).to_string()).join(" ")
}

/// An id on the command line.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct IdArgs {
    /// The id: all 32 bits of it, or the local id when --type is given.
    pub(crate) id: u32,
    #[command(flatten)]
    pub(crate) kind: IdKindArgs,
}

/// What makes an id on the command line a local one.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct IdKindArgs {
    /// Take the id as a local one, of this entity type.
    #[arg(long = "type", value_parser = crate::parts::entity_type, value_name = "TYPE")]
    pub(crate) entity_type: Option<EntityType>,
    /// Domain of the local id, 0 to 15.
    #[arg(long, requires = "entity_type", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..16), value_name = "N")]
    domain: u8,
}

impl IdKindArgs {
    /// Returns the id that a number stands for.
    ///
    /// # Errors
    /// [`Error::Token`](crate::error::Error::Token): it can't be an id.
    pub(crate) fn id(self, number: u32) -> Result<TokenId> {
        match self.entity_type {
            Some(entity_type) => Ok(TokenId::new(number, entity_type, self.domain)?),
            None => Ok(TokenId(number)),
        }
    }
}
