//! Why a token was refused.

use super::names::{Axis, Space};

/// Why a token was refused.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Id 0 stands for "no token".
    #[error("id 0 is not allowed")]
    ZeroId,
    /// A local id that does not fit into its 24 bits.
    #[error("local id {0} is above {max}", max = (1 << 24) - 1)]
    LocalId(u32),
    /// A domain that does not fit into its 4 bits.
    #[error("domain {0} is above 15")]
    Domain(u8),
    /// A weight that is not a number from 0 to 100.
    #[error("weight {0} is not within 0 and 100")]
    Weight(f32),
    /// A coordinate that its space can't hold.
    #[error("{space} {axis} {value} is not within -{max} and {max}", max = space.limit())]
    Coordinate {
        /// The space.
        space: Space,
        /// The axis.
        axis: Axis,
        /// What was asked for.
        value: f64,
    },
    /// A field radius that is not within 0 and 2.55.
    #[error("field radius {0} is not within 0 and 2.55")]
    FieldRadius(f64),
    /// A field strength that is not within 0 and 1.
    #[error("field strength {0} is not within 0 and 1")]
    FieldStrength(f64),
}
