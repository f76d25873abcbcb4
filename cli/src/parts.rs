//! Parts of a token, as command lines name them: `1.x`, `weight`, `ACTIVE`, `event`.

use std::str::FromStr;

use bulla_engine::{Axis, EntityType, Flags, Space, TokenBuilder};

/// A part of a token that a value can be given to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Part {
    Coordinate(Space, Axis),
    Weight,
    Timestamp,
    Radius,
    Strength,
}

impl Part {
    /// Lowest and highest value.
    pub(crate) fn range(self) -> (f64, f64) {
        match self {
            Self::Coordinate(space, _) => (-space.limit(), space.limit()),
            Self::Weight => (0.0, 100.0),
            Self::Timestamp => (0.0, f64::from(u32::MAX)),
            Self::Radius => (0.0, 2.55),
            Self::Strength => (0.0, 1.0),
        }
    }

    /// Sets the part's value; returns `None` for a timestamp outside its range. The builder
    /// refuses other values that are out of range.
    pub(crate) fn set(self, token: TokenBuilder, value: f64) -> Option<TokenBuilder> {
        Some(match self {
            Self::Coordinate(space, axis) => token.coordinate(space, axis, value),
            #[expect(clippy::cast_possible_truncation, reason = "rounded to its field")]
            Self::Weight => token.weight(value as f32),
            Self::Timestamp => token.timestamp(whole(value, u32::MAX)?),
            Self::Radius => token.field_radius(value),
            Self::Strength => token.field_strength(value),
        })
    }
}

/// The text names no part of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnknownPart;

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, UnknownPart> {
        Ok(match text {
            "weight" => Self::Weight,
            "timestamp" => Self::Timestamp,
            "radius" => Self::Radius,
            "strength" => Self::Strength,
            _ => {
                let (space, axis) = coordinate(text).ok_or(UnknownPart)?;
                Self::Coordinate(space, axis)
            }
        })
    }
}

/// Parses a coordinate, such as `1.x` or `physical.x`.
pub(crate) fn coordinate(text: &str) -> Option<(Space, Axis)> {
    let (space, axis) = text.split_once('.')?;
    let space =
        Space::ALL.into_iter().find(|s| s.name() == space || s.level().to_string() == space)?;
    Some((space, Axis::ALL.into_iter().find(|a| a.name() == axis)?))
}

/// Parses the name of an entity type.
pub(crate) fn entity_type(text: &str) -> Result<EntityType, String> {
    EntityType::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<_> = EntityType::ALL.iter().map(|kind| kind.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

/// Parses the name of a flag, in upper or lower case.
pub(crate) fn flag(text: &str) -> Result<Flags, String> {
    Flags::from_name(&text.to_ascii_uppercase()).ok_or_else(|| {
        let names: Vec<_> = Flags::all().names().collect();
        format!("use one of {}", names.join(", "))
    })
}

/// Returns the value rounded to a whole number, if that is within 0 and `max`.
pub(crate) fn whole(value: f64, max: u32) -> Option<u32> {
    let value = value.round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and in range"
    )]
    (0.0..=f64::from(max)).contains(&value).then_some(value as u32)
}
