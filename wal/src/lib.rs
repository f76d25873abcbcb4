//! A crash-safe write-ahead log: three durability levels, group commit, recovery
//! that is a prefix.

pub mod control;
pub mod dir;
mod error;
pub mod format;
pub mod io;
pub mod omit;
mod options;
mod position;
pub mod recovered;
mod ring;
pub mod segment;

pub use error::{Corruption, CorruptionKind, Error, FrameDamage, PoisonCause, Result};
#[doc(hidden)]
pub use options::Background;
pub use options::{Method, Options, Overflow};
pub use position::{Epoch, Level, Lsn, Receipt, SegmentNumber, Seq};
pub use recovered::Recovered;
pub use ring::RingBytes;
