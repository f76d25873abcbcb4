//! The default record: 64 bytes, little-endian, every field at a fixed offset.
//!
//! Owns the layout of `Token` V2.0 and the ranges of its fields. A [`Token`] is always
//! valid: bytes are checked when they become one. The golden test below pins the bytes.

mod error;
mod flags;
mod id;
mod names;

use std::fmt;

pub use error::TokenError;
pub use flags::Flags;
pub use id::TokenId;
pub use names::{Axis, EntityType, Space, UnknownName};
use zerocopy::little_endian::{F32, I16, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::record::{RECORD_LEN, Record};

/// Bytes of a token.
pub const TOKEN_LEN: usize = RECORD_LEN;

/// Coordinate spaces of a token.
pub const SPACES: usize = 8;

/// A record of 64 bytes: a point in eight spaces, with an id, flags, a weight, a field
/// and a time.
///
/// Made by [`Token::builder`] or, from bytes, by [`Token::from_bytes`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Token(Layout);

#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Layout {
    coordinates: [[I16; 3]; SPACES],
    id: U32,
    flags: U16,
    /// The bits of an [`F32`], so that tokens compare bit for bit.
    weight: [u8; 4],
    field_radius: u8,
    field_strength: u8,
    timestamp: U32,
}

const _: () = {
    assert!(size_of::<Layout>() == TOKEN_LEN);
    assert!(std::mem::offset_of!(Layout, id) == 48);
    assert!(std::mem::offset_of!(Layout, flags) == 52);
    assert!(std::mem::offset_of!(Layout, weight) == 54);
    assert!(std::mem::offset_of!(Layout, field_radius) == 58);
    assert!(std::mem::offset_of!(Layout, field_strength) == 59);
    assert!(std::mem::offset_of!(Layout, timestamp) == 60);
};

/// Highest weight.
const MAX_WEIGHT: f32 = 100.0;
/// Field radius: the byte is the value times this.
const RADIUS_SCALE: f64 = 100.0;
/// Field strength: the byte is the value times this.
const STRENGTH_SCALE: f64 = 255.0;

impl Token {
    /// Starts a token: at the origin of every space, weight 0, time 0, no flags except the entity
    /// type of its id.
    pub fn builder(id: TokenId) -> TokenBuilder {
        TokenBuilder {
            layout: Layout {
                coordinates: [[I16::ZERO; 3]; SPACES],
                id: id.0.into(),
                flags: Flags::empty().with_entity_type(id.entity_type()).0.into(),
                weight: [0; 4],
                field_radius: 0,
                field_strength: 0,
                timestamp: U32::ZERO,
            },
            refused: None,
        }
    }

    /// Returns the token with these bytes.
    ///
    /// # Errors
    /// [`TokenError::ZeroId`] and [`TokenError::Weight`]: every other pattern of bits is
    /// valid.
    pub fn from_bytes(bytes: &[u8; TOKEN_LEN]) -> Result<Self, TokenError> {
        let token = Self(zerocopy::transmute!(*bytes));
        if token.0.id.get() == 0 {
            return Err(TokenError::ZeroId);
        }
        check_weight(token.weight())?;
        Ok(token)
    }

    /// Returns its bytes, as they are logged.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TOKEN_LEN] {
        zerocopy::transmute_ref!(&self.0)
    }

    /// Returns its id, never 0.
    #[must_use]
    pub fn id(&self) -> TokenId {
        TokenId(self.0.id.get())
    }

    /// Returns its coordinates in a space, in the space's units.
    #[must_use]
    pub fn coordinates(&self, space: Space) -> [f64; 3] {
        self.raw_coordinates(space).map(|raw| f64::from(raw) / space.scale())
    }

    /// Returns its coordinates in a space as stored: value times [`Space::scale`].
    #[must_use]
    pub fn raw_coordinates(&self, space: Space) -> [i16; 3] {
        self.0.coordinates[space as usize].map(I16::get)
    }

    /// Returns its flags, including the entity type.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.0.flags.get())
    }

    /// Returns its weight, from 0 to 100.
    #[must_use]
    pub fn weight(&self) -> f32 {
        F32::from_bytes(self.0.weight).get()
    }

    /// Returns the radius of its field, from 0 to 2.55.
    #[must_use]
    pub fn field_radius(&self) -> f64 {
        f64::from(self.0.field_radius) / RADIUS_SCALE
    }

    /// Returns the strength of its field, from 0 to 1.
    #[must_use]
    pub fn field_strength(&self) -> f64 {
        f64::from(self.0.field_strength) / STRENGTH_SCALE
    }

    /// Returns its time, in seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        self.0.timestamp.get()
    }

    /// Returns a builder that starts from this token, to change some of its fields.
    pub fn to_builder(&self) -> TokenBuilder {
        TokenBuilder { layout: self.0, refused: None }
    }

    /// Returns the same token under another id; its flags keep their entity type.
    ///
    /// # Errors
    /// [`TokenError::ZeroId`].
    pub fn with_id(self, id: TokenId) -> Result<Self, TokenError> {
        if id.0 == 0 {
            return Err(TokenError::ZeroId);
        }
        Ok(Self(Layout { id: id.0.into(), ..self.0 }))
    }
}

impl Record for Token {
    const NAME: &'static str = "bulla.token";
    const SCHEMA: &'static str = "token of 64 bytes";

    type Id = TokenId;
    type Invalid = TokenError;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, TokenError> {
        Self::from_bytes(bytes)
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        self.as_bytes()
    }

    fn id(&self) -> TokenId {
        self.id()
    }

    /// Returns its time; 0 for a token without one.
    fn timestamp(&self) -> Option<u32> {
        Some(self.timestamp())
    }

    fn weight(&self) -> f32 {
        self.weight()
    }

    fn is_persistent(&self) -> bool {
        self.flags().contains(Flags::PERSISTENT)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Token");
        debug.field("id", &self.id());
        for space in Space::ALL {
            debug.field(space.name(), &self.coordinates(space));
        }
        debug
            .field("flags", &self.flags())
            .field("weight", &self.weight())
            .field("field_radius", &self.field_radius())
            .field("field_strength", &self.field_strength())
            .field("timestamp", &self.timestamp())
            .finish()
    }
}

/// A builder of a [`Token`]; [`build`](TokenBuilder::build) reports the first value that is out
/// of range.
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenBuilder {
    layout: Layout,
    refused: Option<TokenError>,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().fmt(f)
    }
}

impl TokenBuilder {
    /// Sets its coordinates in a space, in the space's units; see [`Space::limit`] for the range.
    pub fn coordinates(mut self, space: Space, [x, y, z]: [f64; 3]) -> Self {
        for (axis, value) in [(Axis::X, x), (Axis::Y, y), (Axis::Z, z)] {
            self = self.coordinate(space, axis, value);
        }
        self
    }

    /// Sets its coordinate on one axis of a space.
    pub fn coordinate(mut self, space: Space, axis: Axis, value: f64) -> Self {
        let raw = (value * space.scale()).round();
        if raw >= f64::from(i16::MIN) && raw <= f64::from(i16::MAX) {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and in range")]
            let raw = raw as i16;
            self.layout.coordinates[space as usize][axis as usize] = raw.into();
            self
        } else {
            self.refuse(TokenError::Coordinate { space, axis, value })
        }
    }

    /// Sets its flags and user's bits; the entity type is that of the id unless
    /// [`Flags::with_entity_type`] sets another.
    pub fn flags(mut self, flags: Flags) -> Self {
        let flags = match flags.entity_type() {
            EntityType::Undefined => flags.with_entity_type(self.id().entity_type()),
            _ => flags,
        };
        self.layout.flags = flags.0.into();
        self
    }

    /// Sets all 16 bits, as another token had them.
    #[cfg(feature = "serde")]
    pub(crate) fn flags_as_they_are(mut self, flags: Flags) -> Self {
        self.layout.flags = flags.0.into();
        self
    }

    /// Sets its weight, from 0 to 100; NaN is refused.
    pub fn weight(mut self, weight: f32) -> Self {
        self.layout.weight = weight.to_le_bytes();
        match check_weight(weight) {
            Ok(()) => self,
            Err(refused) => self.refuse(refused),
        }
    }

    /// Sets the radius of its field, from 0 to 2.55.
    pub fn field_radius(mut self, radius: f64) -> Self {
        match scaled_byte(radius, RADIUS_SCALE) {
            Some(raw) => {
                self.layout.field_radius = raw;
                self
            }
            None => self.refuse(TokenError::FieldRadius(radius)),
        }
    }

    /// Sets the strength of its field, from 0 to 1.
    pub fn field_strength(mut self, strength: f64) -> Self {
        match scaled_byte(strength, STRENGTH_SCALE) {
            Some(raw) => {
                self.layout.field_strength = raw;
                self
            }
            None => self.refuse(TokenError::FieldStrength(strength)),
        }
    }

    /// Sets its time, in seconds since 1970.
    pub fn timestamp(mut self, seconds: u32) -> Self {
        self.layout.timestamp = seconds.into();
        self
    }

    /// Builds the token.
    ///
    /// # Errors
    /// The [`TokenError`] of the first value that is out of range.
    pub fn build(self) -> Result<Token, TokenError> {
        match self.refused {
            Some(refused) => Err(refused),
            None if self.layout.id.get() == 0 => Err(TokenError::ZeroId),
            None => Ok(Token(self.layout)),
        }
    }

    fn id(&self) -> TokenId {
        TokenId(self.layout.id.get())
    }

    fn refuse(mut self, refused: TokenError) -> Self {
        self.refused.get_or_insert(refused);
        self
    }
}

fn check_weight(weight: f32) -> Result<(), TokenError> {
    // A NaN is in no range.
    if (0.0..=MAX_WEIGHT).contains(&weight) { Ok(()) } else { Err(TokenError::Weight(weight)) }
}

fn scaled_byte(value: f64, scale: f64) -> Option<u8> {
    let raw = (value * scale).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and in range"
    )]
    (0.0..=255.0).contains(&raw).then_some(raw as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(local: u32) -> TokenId {
        TokenId::new(local, EntityType::Event, 3).expect("in range")
    }

    /// The layout of requirements.md, written out: it must never change.
    const GOLDEN: [u8; TOKEN_LEN] = [
        0x40, 0x0f, 0x28, 0xe3, 0x5a, 0x00, // L1 (39.04, -73.84, 0.9), scale 100
        0x10, 0x27, 0xf0, 0xd8, 0x01, 0x00, // L2 (1, -1, 0.0001), scale 10,000
        0xe8, 0x03, 0x18, 0xfc, 0xff, 0x7f, // L3 (1, -1, 32.767), scale 1,000
        0xff, 0x7f, 0x01, 0x80, 0x00, 0x00, // L4 (3.2767, -3.2767, 0)
        0x01, 0x00, 0x02, 0x00, 0x03, 0x00, // L5
        0x04, 0x00, 0x05, 0x00, 0x06, 0x00, // L6
        0x64, 0x00, 0x9c, 0xff, 0x00, 0x00, // L7 (1, -1, 0), scale 100
        0x07, 0x00, 0x08, 0x00, 0x00, 0x80, // L8, lowest
        0x03, 0x02, 0x01, 0x32, // id: local 0x010203, event, domain 3
        0x03, 0xa2, // flags: ACTIVE, PERSISTENT; event; user 10
        0x00, 0x00, 0x2a, 0x42, // weight 42.5
        0x96, // radius 1.5
        0xff, // strength 1
        0x2a, 0x14, 0xe4, 0x50, // 2013-01-02 11:03:06
    ];

    fn golden() -> TokenBuilder {
        let flags = Flags::ACTIVE.union(Flags::PERSISTENT).with_user(10);
        Token::builder(id(0x01_0203))
            .coordinates(Space::Physical, [39.04, -73.84, 0.9])
            .coordinates(Space::Sensory, [1.0, -1.0, 0.0001])
            .coordinates(Space::Motor, [1.0, -1.0, 32.767])
            .coordinates(Space::Emotional, [3.2767, -3.2767, 0.0])
            .coordinates(Space::Cognitive, [0.0001, 0.0002, 0.0003])
            .coordinates(Space::Social, [0.0004, 0.0005, 0.0006])
            .coordinates(Space::Temporal, [1.0, -1.0, 0.0])
            .coordinates(Space::Abstract, [0.0007, 0.0008, -3.2768])
            .flags(flags)
            .weight(42.5)
            .field_radius(1.5)
            .field_strength(1.0)
            .timestamp(0x50E4_142A)
    }

    #[test]
    fn layout_is_that_of_v2() {
        assert_eq!(golden().build().expect("valid").as_bytes(), &GOLDEN);
    }

    #[test]
    fn fields_read_back_in_their_units() {
        let token = Token::from_bytes(&GOLDEN).expect("valid");
        assert_eq!(token.coordinates(Space::Physical), [39.04, -73.84, 0.9]);
        assert_eq!(token.coordinates(Space::Abstract)[2], -3.2768);
        assert_eq!(token.raw_coordinates(Space::Temporal), [100, -100, 0]);
        assert_eq!(token.id().local(), 0x01_0203);
        assert_eq!(token.id().entity_type(), EntityType::Event);
        assert_eq!(token.id().domain(), 3);
        assert_eq!(token.flags().entity_type(), EntityType::Event);
        assert_eq!(token.flags().user(), 10);
        assert_eq!(token.flags().names().collect::<Vec<_>>(), ["ACTIVE", "PERSISTENT"]);
        assert_eq!(token.weight(), 42.5);
        assert_eq!(token.field_radius(), 1.5);
        assert_eq!(token.field_strength(), 1.0);
        assert_eq!(token.timestamp(), 0x50E4_142A);
        assert_eq!(token.to_builder().build().expect("valid"), token);
    }

    #[test]
    fn weight_that_is_no_number_or_out_of_range_is_refused() {
        for weight in [f32::NAN, -0.1, 100.1, f32::INFINITY] {
            let refused = golden().weight(weight).build().expect_err("refused");
            assert!(matches!(refused, TokenError::Weight(_)), "{refused}");
            let mut bytes = GOLDEN;
            bytes[54..58].copy_from_slice(&weight.to_le_bytes());
            assert!(matches!(Token::from_bytes(&bytes), Err(TokenError::Weight(_))));
        }
        for weight in [0.0, 100.0] {
            assert!(golden().weight(weight).build().is_ok());
        }
    }

    #[test]
    fn coordinate_out_of_its_scale_is_refused() {
        for (space, value) in [
            (Space::Physical, 327.68),
            (Space::Motor, -32.77),
            (Space::Social, 3.2768),
            (Space::Social, f64::NAN),
        ] {
            let refused = golden().coordinate(space, Axis::Y, value).build().expect_err("refused");
            assert!(
                matches!(refused, TokenError::Coordinate { space: s, axis: Axis::Y, .. } if s == space),
                "{refused}"
            );
        }
    }

    #[test]
    fn id_zero_is_refused() {
        assert_eq!(Token::builder(TokenId(0)).build(), Err(TokenError::ZeroId));
        let mut bytes = GOLDEN;
        bytes[48..52].fill(0);
        assert_eq!(Token::from_bytes(&bytes), Err(TokenError::ZeroId));
        assert_eq!(TokenId::new(1 << 24, EntityType::Event, 0), Err(TokenError::LocalId(1 << 24)));
        assert_eq!(TokenId::new(1, EntityType::Event, 16), Err(TokenError::Domain(16)));
    }

    #[test]
    fn levels_are_counted_from_one() {
        assert_eq!(Space::ALL.map(Space::level), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn token_under_another_id_is_otherwise_the_same() {
        let token = golden().build().expect("valid");
        let other = token.with_id(TokenId(7)).expect("an id");
        assert_eq!(other.id(), TokenId(7));
        assert_eq!(other.with_id(token.id()), Ok(token));
        assert_eq!(token.with_id(TokenId(0)), Err(TokenError::ZeroId));
    }

    #[test]
    fn the_first_refusal_is_reported() {
        let refused = golden().field_radius(2.56).weight(-1.0).build();
        assert_eq!(refused, Err(TokenError::FieldRadius(2.56)));
    }
}
