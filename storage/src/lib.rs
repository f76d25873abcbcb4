//! The disk layer of a Bulla log: its format, its files, and every access to them.
//!
//! This crate owns the on-disk format, the files of a log, the rules by which a frame is
//! valid, and every access to a disk. It starts no thread, decides nothing about recovery
//! and acknowledges nothing: the crates above it do that. Applications use the crate `bulla`
//! or `bulla-wal`; this crate is for code that works on the format itself.
//!
//! ```text
//! format    every byte on disk            io      the I/O traits; std, uring, sim
//! files     CONTROL, segments, the lock   frames  frames of a segment, validated
//! position  LSN, Seq, epoch               faults  what a test build can break
//! range     where reading begins and ends error   what can go wrong
//! options   how a log is opened           parse   names and positions from text
//! progress  what a long read tells
//! ```

mod error;
pub mod faults;
pub mod files;
pub mod fork;
pub mod format;
pub mod frames;
pub mod io;
mod options;
mod parse;
mod position;
pub mod progress;
mod range;

pub use error::{Corruption, CorruptionKind, Error, FrameDamage, PoisonCause, Result};
pub use files::recovered::Recovered;
pub use frames::{Entry, EntryView};
pub use io::RingBytes;
pub use options::{Background, Method, Options, Overflow, SOFT_FRAME_LEN};
pub use parse::ParseError;
pub use position::{Epoch, Level, Lsn, Receipt, SegmentNumber, Seq, Visibility};
pub use range::{Limit, Position, Range};
