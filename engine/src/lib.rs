//! Records of 64 bytes, in memory by id, with a crash-safe log behind them.
//!
//! Owns the records ([`Token`], or any other [`Record`]), the encoding of changes as log
//! entries ([`entries`]), the table and its [`Quota`], snapshots and checkpoints. Changes of
//! records reach the disk first through the log. Tested here, on the simulated disk in `tests`, and end to
//! end by `bulla drill`.
//!
//! # Examples
//! ```
//! # let temp = tempfile::tempdir().unwrap();
//! # let dir = temp.path().join("store");
//! use bulla_engine::{EntityType, Level, Space, Store, StoreOptions, Token, TokenId};
//!
//! let store = Store::open(&dir, &StoreOptions::new())?;
//! let id = TokenId::new(7, EntityType::Event, 0)?;
//! let token = Token::builder(id)
//!     .coordinates(Space::Physical, [40.69, -74.17, 0.18])
//!     .weight(28.0)
//!     .build()?;
//! store.at(Level::Strict).put(&token)?; // from here on no crash loses it
//! assert_eq!(store.get(id)?, Some(token));
//! store.close()?;
//! # Ok::<(), bulla_engine::Error>(())
//! ```

#![deny(unsafe_code)]

mod backup;
mod batch;
mod changes;
mod checkpoint;
pub mod entries;
mod error;
#[doc(hidden)]
pub mod faults;
mod inspect;
mod options;
mod panics;
mod purge;
mod quota;
mod record;
mod replay;
#[cfg(feature = "serde")]
mod serde_impls;
mod snapshot;
mod stake;
mod state;
mod store;
mod sync;
mod table;
mod time;
pub mod token;

pub use backup::{backup, restore};
pub use batch::Batch;
pub use bulla_recovery::backup::{
    BackupError, BackupOptions, BackupReport, RestoreOptions, RestoreReport,
};
/// Types of the layers below that are in the signatures here.
pub use bulla_recovery::{Inspection, Position, PurgeReport, RepairPreview, Report};
pub use bulla_wal::{
    Epoch, Hold, HoldFile, HoldGuard, Level, Log, Lsn, Options, Range, Reader, Ready, Receipt, Seq,
    Stats, Visibility,
};
pub use changes::{Change, Changes};
pub use checkpoint::{
    CheckpointDamage, CheckpointError, CheckpointFault, CheckpointFile, CheckpointInfo,
    CheckpointStats, OpenReport, Refusal, RefusedCheckpoint, checkpoint_anchors, checkpoints,
    standing_checkpoints, usable_checkpoints, usable_checkpoints_after,
};
pub use error::{Error, Expired, Result};
pub use inspect::StoreInspection;
pub use options::StoreOptions;
pub use purge::{preview_purge, purge};
pub use quota::{OnExceed, Pressure, Quota, QuotaError, QuotaStats, Resource};
pub use record::{RECORD_LEN, Record, content_of};
pub use snapshot::{Snapshot, SnapshotRecords};
pub use stake::{RecordsAtStake, records_at_stake};
pub use store::scan::Records;
pub use store::transact::Transaction;
pub use store::write::{At, Begin};
pub use store::{Store, StoreStats};
pub use token::{
    Axis, EntityType, Flags, SPACES, Space, TOKEN_LEN, Token, TokenBuilder, TokenError, TokenId,
    UnknownName,
};
