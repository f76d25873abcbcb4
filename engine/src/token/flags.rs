//! The flags of a token.

use super::names::EntityType;

/// The 16 flag bits of a token: eight flags, the entity type, and four bits for the user.
///
/// As text it is the names of the flags that are set, separated by ` | `, and the other bits in
/// hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[repr(transparent)]
pub struct Flags(pub u16);

bitflags::bitflags! {
    impl Flags: u16 {
        /// In use.
        const ACTIVE = 1;
        /// Outlives its session.
        const PERSISTENT = 1 << 1;
        /// May change.
        const MUTABLE = 1 << 2;
        /// In step with its source.
        const SYNCHRONIZED = 1 << 3;
        /// Its payload elsewhere is compressed.
        const COMPRESSED = 1 << 4;
        /// Its payload elsewhere is encrypted.
        const ENCRYPTED = 1 << 5;
        /// Changed since it was last in step.
        const DIRTY = 1 << 6;
        /// Must not change now.
        const LOCKED = 1 << 7;
        // The entity type and the user's bits: any value is valid.
        const _ = !0;
    }
}

impl Flags {
    /// Returns the kind of thing, bits 8 to 11.
    #[must_use]
    pub const fn entity_type(self) -> EntityType {
        EntityType::from_bits(self.0 as u32 >> 8)
    }

    /// Returns these flags with another entity type.
    #[must_use]
    pub const fn with_entity_type(self, entity_type: EntityType) -> Self {
        Self(self.0 & !0x0F00 | (entity_type as u16) << 8)
    }

    /// Returns the user's bits, 12 to 15, from 0 to 15.
    #[must_use]
    pub const fn user(self) -> u8 {
        (self.0 >> 12) as u8
    }

    /// Returns these flags with other user's bits; only the lowest four count.
    #[must_use]
    pub const fn with_user(self, user: u8) -> Self {
        Self(self.0 & 0x0FFF | (user as u16) << 12)
    }

    /// Iterates over the upper-case names of the flags that are set, lowest bit first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter_names().map(|(name, _)| name)
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_layout_and_survive_union() {
        let flags = Flags::ACTIVE.union(Flags::PERSISTENT).with_user(10);
        let flags = flags.with_entity_type(EntityType::Event);
        assert_eq!(flags.0, 0xA203);
        assert!(flags.contains(Flags::PERSISTENT) && !flags.contains(Flags::LOCKED));
        assert_eq!(flags.names().collect::<Vec<_>>(), ["ACTIVE", "PERSISTENT"]);
        assert_eq!(Flags::from_bits(0xFFFF), Some(Flags(0xFFFF)));
        assert_eq!(Flags::from_name("LOCKED"), Some(Flags(1 << 7)));
    }
}
