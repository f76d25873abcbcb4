//! Serialization of types that serde can't derive (feature `serde`).
//!
//! A token is written as its fields in their units, and read through the same checks as a built
//! one. Positions of the log are written as numbers.

use serde::de::Error as _;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::{OpenReport, RefusedCheckpoint};
use crate::token::{Flags, SPACES, Space, Token, TokenId};

#[derive(Serialize, Deserialize)]
struct Fields {
    id: TokenId,
    /// Of each space, in the order of [`Space::ALL`].
    coordinates: [[f64; 3]; SPACES],
    flags: Flags,
    weight: f32,
    field_radius: f64,
    field_strength: f64,
    timestamp: u32,
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = Fields {
            id: self.id(),
            coordinates: Space::ALL.map(|space| self.coordinates(space)),
            flags: self.flags(),
            weight: self.weight(),
            field_radius: self.field_radius(),
            field_strength: self.field_strength(),
            timestamp: self.timestamp(),
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let mut builder = Self::builder(fields.id)
            .flags_as_they_are(fields.flags)
            .weight(fields.weight)
            .field_radius(fields.field_radius)
            .field_strength(fields.field_strength)
            .timestamp(fields.timestamp);
        for (space, coordinates) in Space::ALL.into_iter().zip(fields.coordinates) {
            builder = builder.coordinates(space, coordinates);
        }
        builder.build().map_err(D::Error::custom)
    }
}

impl Serialize for RefusedCheckpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RefusedCheckpoint", 3)?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("path", &self.path)?;
        fields.serialize_field("reason", &self.reason.to_string())?;
        fields.end()
    }
}

impl Serialize for OpenReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("OpenReport", 4)?;
        fields.serialize_field("checkpoint", &self.checkpoint)?;
        fields.serialize_field("older", &self.older)?;
        fields.serialize_field("refused", &self.refused)?;
        fields.serialize_field("replayed", &self.replayed)?;
        fields.end()
    }
}

macro_rules! as_number {
    ($module:ident: $type:ident, $number:ty) => {
        pub(crate) mod $module {
            use bulla_wal::$type;
            use serde::{Deserialize, Deserializer, Serializer};

            pub(crate) fn serialize<S: Serializer>(
                position: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&position.0, serializer)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                <$number>::deserialize(deserializer).map($type)
            }
        }
    };
}

as_number!(lsn: Lsn, u64);
as_number!(epoch: Epoch, u32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::EntityType;
    use crate::{CheckpointStats, OnExceed, Quota};

    #[test]
    fn token_survives_json_bit_for_bit() {
        let mut bytes = [0; 64];
        for (at, byte) in (0_u8..).zip(&mut bytes) {
            *byte = at.wrapping_mul(37).wrapping_add(11);
        }
        bytes[54..58].copy_from_slice(&42.7_f32.to_le_bytes());
        let token = Token::from_bytes(&bytes).expect("valid");
        let json = serde_json::to_string(&token).expect("json");
        assert_eq!(serde_json::from_str::<Token>(&json).expect("a token"), token);
        let refused = json.replace("\"id\":", "\"id\":0,\"was\":");
        assert!(serde_json::from_str::<Token>(&refused).is_err(), "id 0");
    }

    #[test]
    fn names_settings_and_statistics_survive_json() {
        let json = serde_json::to_string(&EntityType::Sensor).expect("json");
        assert_eq!(json, "\"sensor\"");
        let quota = Quota::new().max_records(7).on_exceed(OnExceed::Evict);
        let json = serde_json::to_string(&quota).expect("json");
        assert_eq!(serde_json::from_str::<Quota>(&json).expect("a quota"), quota);
        let json = serde_json::to_string(&CheckpointStats::default()).expect("json");
        assert!(serde_json::from_str::<CheckpointStats>(&json).is_ok());
    }
}
