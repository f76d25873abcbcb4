//! A crash-safe write-ahead log with three durability levels, group commit, and recovery
//! that returns a prefix.
//!
//! [`Log::open`] creates a log or recovers the one that is there. [`Log::append_with`] puts
//! an entry into a ring in memory and returns a [`Receipt`]; [`Log::wait`] returns when the
//! guarantee of the append's [`Level`] holds. One waiting thread writes and syncs for all that
//! wait. The log never interprets payloads.
//!
//! ```text
//! log     the public face             commit  the pure core, the driver, the leader
//! ring    positions, frames, room     reader  entries in order, tailed and followed
//! ready   a receipt as a future       purge   removes segments from the low end
//! append  entries, batches, pieces    batch   a receipt for each entry
//! stats   counters and latencies      sync    locks and atomics, or loom's
//! stream  a reader that is polled     trace   events for subscribers
//! holds   what a purge keeps
//! faults  what a test build changes between the parts
//! ```

mod append;
mod batch;
mod commit;
mod faults;
mod holds;
mod log;
mod purge;
mod reader;
mod ready;
mod ring;
mod stats;
mod stream;
mod sync;
mod trace;

pub use batch::{BatchReceipt, Receipts};
pub use bulla_recovery as recovery;
pub use bulla_storage::files::holds::{Hold, HoldFile};
pub use bulla_storage::{
    Background, Corruption, CorruptionKind, Entry, EntryView, Epoch, Error, FrameDamage, Level,
    Lsn, Method, Options, Overflow, ParseError, PoisonCause, Position, Range, Receipt, Recovered,
    Result, RingBytes, SegmentNumber, Seq, Visibility, format, io,
};
pub use log::Log;
pub use purge::HoldGuard;
pub use reader::Reader;
pub use ready::Ready;
pub use stats::{Percentiles, Stats};
pub use stream::EntryStream;
