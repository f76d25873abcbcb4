//! The append ring.
pub(crate) mod memory;
pub use memory::RingBytes;
