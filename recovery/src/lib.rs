//! Recovery of a log: what of it survived, what did not, and why.
//!
//! Owns the way from bytes on a disk to a log that can be appended to: the scan
//! ([`Inspection`], read-only), the verdict (a pure table in `verdict.rs`), re-homing
//! of the tail with its single commit point ([`Recovery`], [`open`]), replay, and the
//! explicit [`repair`]. It never appends, never interprets a payload, and changes
//! nothing when it refuses. Tested here against damaged images, and by the simulator.
//!
//! ```text
//! scan     one segment: frames, then probes   analysis  all of these over a directory
//! chain    spans, X and D, purely             verdict   the table, purely
//! inspect  read-only     rehome  the commit   replay    entries to a visitor
//! repair   explicit      quarantine  copies   report    plain data for people
//! ahead    batches of frames, read and checked by several threads
//! map      what each byte of a file is
//! ```
//!
//! # Examples
//! ```
//! # let dir = std::env::temp_dir().join(format!("bulla-recovery-doc-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&dir);
//! use std::ops::ControlFlow;
//! use bulla_recovery::{Inspection, Range, storage::Options};
//!
//! let options = Options::new().segment_len(1 << 20);
//! drop(bulla_recovery::open(&dir, &options)?); // creates a log
//!
//! let inspection = Inspection::read(&dir, &options)?; // read-only: verifies every byte
//! println!("{}", inspection.report().status);
//! let stats = inspection.replay(Range::ALL, |entry| {
//!     println!("{}: {} bytes", entry.seq, entry.payload.len());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(stats.entries, 0);
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), bulla_recovery::Error>(())
//! ```

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod ahead;
mod analysis;
mod chain;
mod error;
mod inspect;
mod map;
mod quarantine;
mod rehome;
mod repair;
mod replay;
mod report;
mod scan;
mod verdict;

/// The layer below, whose types are in the signatures here.
pub use bulla_storage as storage;
pub use bulla_storage::frames::timeline::History;
pub use error::{CutRefused, Error, Result};
pub use inspect::{Inspection, replay};
pub use map::SegmentBytes;
pub use rehome::{Recovery, open};
pub use repair::{CutFile, RepairPlan, RepairPreview, RepairReport, preview_repair, repair};
pub use replay::{Bound, EntryView, Range, ReplayStats};
pub use report::{Evidence, Proof, Report, Seal, SegmentReport, SegmentState, Status};
