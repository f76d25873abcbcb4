//! Bulla: a crash-safe write-ahead log, and a store of 64-byte records on it, for Linux.
//!
//! This package is the whole of it for an application: [`Log`] to append and wait, readers to
//! follow it, [`Store`] for records in memory with every change logged, and [`recovery`] to
//! inspect, replay and repair. The command `bulla` (package `bulla-cli`) is for operators.
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("bulla-facade-doc-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&dir);
//! use bulla::{Level, Log, Options, Visibility};
//!
//! let (log, report) = Log::open(&dir, &Options::new())?; // creates it, or recovers it
//! let receipt = log.append_with(1, b"alice pays bob 40", Level::Strict)?;
//! log.wait(receipt)?; // from here on no crash loses it
//! let mut reader = log.reader(.., Visibility::Durable)?;
//! assert_eq!(reader.next()?.expect("it is durable").payload, b"alice pays bob 40");
//! # assert_eq!(report.entries, 0);
//! # log.close()?;
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub use bulla_engine as engine;
pub use bulla_recovery as recovery;
pub use bulla_wal as wal;

pub use bulla_engine::{Store, StoreOptions};
pub use bulla_wal::{
    Entry, EntryView, Epoch, Error, Level, Log, Lsn, Method, Options, Overflow, Position, Range,
    Reader, Receipt, Result, Seq, Stats, Visibility, format, io,
};

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
