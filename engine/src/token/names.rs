//! The names of entity types, spaces and axes.

use std::fmt;
use std::str::FromStr;

/// A text that is none of the names of its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown name")]
#[non_exhaustive]
pub struct UnknownName;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident: $count:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(rename_all = "lowercase")
        )]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: [Self; $count] = [$(Self::$variant,)*];

            /// Returns the lower-case name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            /// Parses a name, in lower or upper case.
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let is_named = |one: &Self| one.name().eq_ignore_ascii_case(text);
                Self::ALL.into_iter().find(is_named).ok_or(UnknownName)
            }
        }
    };
}

names! {
    /// What kind of thing a token stands for.
    EntityType: 16 {
        /// Not specified.
        Undefined = "undefined",
        /// A thing.
        Object = "object",
        /// Something that happened.
        Event = "event",
        /// A state.
        State = "state",
        /// A process.
        Process = "process",
        /// A concept.
        Concept = "concept",
        /// A relation.
        Relation = "relation",
        /// A pattern.
        Pattern = "pattern",
        /// A rule.
        Rule = "rule",
        /// A goal.
        Goal = "goal",
        /// A memory.
        Memory = "memory",
        /// A sensor.
        Sensor = "sensor",
        /// An actuator.
        Actuator = "actuator",
        /// A controller.
        Controller = "controller",
        /// A buffer.
        Buffer = "buffer",
        /// Not in use.
        Reserved = "reserved",
    }
}

impl EntityType {
    /// Returns the type in the lowest four bits.
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self::ALL[(bits & 0xF) as usize]
    }
}

names! {
    /// One of the eight coordinate spaces, L1 to L8.
    Space: 8 {
        /// L1.
        Physical = "physical",
        /// L2.
        Sensory = "sensory",
        /// L3.
        Motor = "motor",
        /// L4.
        Emotional = "emotional",
        /// L5.
        Cognitive = "cognitive",
        /// L6.
        Social = "social",
        /// L7.
        Temporal = "temporal",
        /// L8.
        Abstract = "abstract",
    }
}

impl Space {
    /// Returns the factor of its fixed-point numbers: a token stores the value times this.
    #[must_use]
    pub const fn scale(self) -> f64 {
        match self {
            Self::Physical | Self::Temporal => 100.0,
            Self::Motor => 1_000.0,
            Self::Sensory | Self::Emotional | Self::Cognitive | Self::Social | Self::Abstract => {
                10_000.0
            }
        }
    }

    /// Returns the highest coordinate, in the space's units; the lowest is one step below its
    /// negative.
    #[must_use]
    pub fn limit(self) -> f64 {
        f64::from(i16::MAX) / self.scale()
    }

    /// Returns the number in the space's usual name: 1 for L1, 8 for L8.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8 + 1
    }
}

names! {
    /// An axis of a space.
    Axis: 3 {
        /// First.
        X = "x",
        /// Second.
        Y = "y",
        /// Third.
        Z = "z",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_and_no_other() {
        for space in Space::ALL {
            assert_eq!(space.to_string().parse(), Ok(space));
        }
        assert_eq!("SENSOR".parse(), Ok(EntityType::Sensor));
        assert_eq!("w".parse::<Axis>(), Err(UnknownName));
    }
}
