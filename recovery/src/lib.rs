//! Recovery of a log: decides what survived a crash, says why, and commits it.
//!
//! Owns the way from bytes on a disk to a log that can be appended to: the read-only scan
//! ([`Inspection`]), the verdict ([`Case`]: one table of named cases), the rewrite of the tail
//! with its single commit point ([`Recovery`], [`open`]), replay, and the explicit [`repair`].
//! It never appends, never interprets a payload, and changes nothing when it refuses a log.
//! Tested here against damaged images, and by the simulator.
//!
//! ```text
//! log_dir   a directory, and how it is read      plan      what the headers tell
//! scan      one segment: frames, then probes     chain     scans joined, purely
//! verdict   the recovery table, purely           analysis  all of these, in order
//! evidence  an analysis as a report              report    plain data for people
//! inspect   read-only                            open      lock, verdict, order of writes
//! tail_rewrite  the commit point                 trim      what follows it
//! quarantine    copies                           repair    explicit
//! purge     without an open                      behind    what a repair gives up
//! undo      brings back what a repair changed    replay    entries to a visitor
//! map       what each byte of a file is          frame_runs    frames summed up
//! backup    copies a live log, and restores it   faults    what a test build changes
//! ```
//!
//! # Examples
//! ```
//! # let temp = tempfile::tempdir().unwrap();
//! # let dir = temp.path().join("log");
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
//! # Ok::<(), bulla_recovery::Error>(())
//! ```

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod analysis;
pub mod backup;
mod behind;
mod chain;
mod error;
mod evidence;
mod faults;
mod frame_runs;
mod inspect;
mod log_dir;
mod map;
mod open;
mod plan;
mod purge;
mod quarantine;
mod repair;
mod replay;
mod report;
mod scan;
mod tail_rewrite;
mod trim;
mod undo;
mod verdict;

/// The layer below, whose types are in the signatures here.
pub use bulla_storage as storage;
pub use bulla_storage::files::purge::Floor;
pub use bulla_storage::frames::timeline::Timeline;
pub use bulla_storage::{Entry, Error, Position, Range, Result};
pub use error::{CutRefused, RepairError, UndoRefused};
pub use frame_runs::FrameRun;
pub use inspect::{Inspection, replay};
pub use map::SegmentBytes;
pub use open::{Prepared, Recovery, open};
pub use purge::{Purge, PurgeReport, purge};
pub use repair::{CutFile, RepairPlan, RepairPreview, RepairReport, preview_repair, repair};
pub use replay::{EntryView, ReplayStats};
pub use report::{Evidence, Proof, Report, Seal, SegmentReport, SegmentState, Status};
pub use undo::{UndoReport, preview_undo, undo_repair};
pub use verdict::{Case, UnknownName};
