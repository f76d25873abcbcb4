//! A crash-safe write-ahead log: three durability levels, group commit, recovery
//! that is a prefix.
//!
//! [`Log::append_with`] puts an entry into a ring in memory and gives a [`Receipt`];
//! [`Log::wait`] returns when the [`Level`] chosen for that append holds. Whoever waits
//! does the write and the sync, for all that wait. [`Log::create`] makes a log; one that
//! exists is opened by the crate `bulla-recovery`, whose [`Recovered`] is what
//! [`Log::start`] takes. Payloads are never interpreted here.
//!
//! ```text
//! log      the public face          commit   core (pure), driver, who waits
//! format   every byte on disk       ring     positions, frames, room
//! segment  how a file comes to be   io       the traits, std, uring, sim
//! control  the two slots            omit     what a test build can leave out
//! window   bounded reads of a file  walk     frames of one segment, validated
//! history  what later epochs cut    reader   entries in order, tailed and followed
//! landmark a boundary, known again
//! ```
//!
//! `control`, `dir`, `history`, `landmark`, `recovered`, `segment`, `walk` and `window` are
//! public for the crates above alone, `omit` for the tests, and hidden here: they may change
//! with any version.

mod commit;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod dir;
mod error;
pub mod format;
#[doc(hidden)]
pub mod history;
pub mod io;
#[doc(hidden)]
pub mod landmark;
mod log;
#[doc(hidden)]
pub mod omit;
mod options;
#[doc(hidden)]
pub mod planted;
mod position;
mod reader;
#[doc(hidden)]
pub mod recovered;
mod ring;
#[doc(hidden)]
pub mod segment;
mod stats;
mod sync;
#[doc(hidden)]
pub mod walk;
#[doc(hidden)]
pub mod window;

pub use error::{Corruption, CorruptionKind, Error, FrameDamage, PoisonCause, Result};
pub use log::{Log, Ready};
#[doc(hidden)]
pub use options::Background;
pub use options::{Method, Options, Overflow};
pub use position::{Epoch, Level, Lsn, Receipt, SegmentNumber, Seq};
pub use reader::{EntryView, ReadFrom, Reader, Visibility};
pub use recovered::Recovered;
pub use ring::RingBytes;
pub use stats::{Percentiles, Stats};
