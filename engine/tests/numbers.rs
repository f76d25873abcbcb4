//! A record type of a test's own, as plain as one can be.

use bulla_engine::{RECORD_LEN, Record};

/// A record of nothing but numbers, the first its id.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Numbers(pub(crate) [u8; RECORD_LEN]);

impl Record for Numbers {
    const NAME: &'static str = "numbers";

    type Id = u32;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
        Ok(Self(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        &self.0
    }

    fn id(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}
