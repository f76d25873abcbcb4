//! A crash-safe write-ahead log: three durability levels, group commit, recovery
//! that is a prefix.

mod commit;
pub mod control;
pub mod dir;
mod error;
pub mod format;
pub mod io;
mod log;
pub mod omit;
mod options;
mod position;
pub mod recovered;
mod ring;
pub mod segment;
mod stats;
mod sync;

pub use error::{Corruption, CorruptionKind, Error, FrameDamage, PoisonCause, Result};
pub use log::{Log, Ready};
#[doc(hidden)]
pub use options::Background;
pub use options::{Method, Options, Overflow};
pub use position::{Epoch, Level, Lsn, Receipt, SegmentNumber, Seq};
pub use recovered::Recovered;
pub use ring::RingBytes;
pub use stats::{Percentiles, Stats};
