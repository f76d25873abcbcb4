//! Bulla: a crash-safe write-ahead log, and a store of 64-byte records on it, for Linux.
//!
//! This package has all that an application needs: [`Log`] appends entries and waits for them,
//! a [`Reader`] follows a log, [`Store`] keeps records in memory and logs every change, and
//! [`recovery`] inspects, replays and repairs. Operators use the command `bulla` (`bulla-cli`).
//!
//! The types that most programs name are here; the rest are in the modules [`wal`], [`engine`],
//! [`recovery`] and [`storage`], each of which is a package of its own. A log and its recovery
//! return [`Error`]; a store returns [`engine::Error`].
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
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `uring` (default) | the backend [`io`]`::uring`; without it a log does I/O with blocking calls |
//! | `serde` | `Serialize` and `Deserialize` for positions, receipts, settings, tokens, statistics, reports |
//! | `tracing` | an event when a log is opened, committed, purged, poisoned or closed |
//! | `stream` | `futures_core::Stream` for [`EntryStream`] |
//! | `sim` | the simulated disk [`io`]`::sim`, for tests |

#![forbid(unsafe_code)]

pub use bulla_engine as engine;
pub use bulla_recovery as recovery;
pub use bulla_wal as wal;

pub use bulla_recovery::storage;

pub use bulla_engine::{
    At, Axis, BackupError, BackupOptions, BackupReport, Batch, Begin, Change, Changes,
    CheckpointInfo, CheckpointStats, EntityType, Expired, Flags, OnExceed, OpenReport, Quota,
    QuotaStats, Record, Records, RestoreOptions, RestoreReport, Snapshot, SnapshotRecords, Space,
    Store, StoreInspection, StoreOptions, StoreStats, Token, TokenBuilder, TokenError, TokenId,
    Transaction, backup, restore,
};
pub use bulla_recovery::{Inspection, Recovery, ReplayStats, Report, Status};
pub use bulla_wal::{
    Background, BatchReceipt, Corruption, Entry, EntryStream, EntryView, Epoch, Error, Hold,
    HoldFile, HoldGuard, Level, Log, Lsn, Method, Options, Overflow, ParseError, PoisonCause,
    Position, Range, Reader, Ready, Receipt, Receipts, Recovered, Result, SegmentNumber, Seq,
    Stats, Visibility, format, io,
};

/// A program can name the type of everything that it gets:
///
/// ```no_run
/// use std::sync::Arc;
///
/// use bulla::format::LogId;
/// use bulla::recovery::{
///     Case, Evidence, RepairPlan, RepairPreview, RepairReport, SegmentReport, Timeline,
/// };
/// use bulla::storage::{files::dir::Directory, frames::anchor::Anchor};
/// use bulla::*;
///
/// fn of_a_log(log: &Arc<Log>) -> Result<()> {
///     let receipt: Receipt = log.append(b"entry")?;
///     let Receipt { epoch, lsn, seq, level } = receipt;
///     let _: (Epoch, Lsn, Seq, Level) = (epoch, lsn, seq, level);
///     let _: Ready<&Log> = log.ready(receipt);
///     let _: Ready<Arc<Log>> = log.ready_owned(receipt);
///     let batch: BatchReceipt<'_> = log.append_batch(&[(1, b"entry")], level)?;
///     let _: Receipts<'_> = batch.receipts();
///     let range: Range = (Position::from(seq)..Position::End).into();
///     let mut reader: Reader = log.reader(range, Visibility::Durable)?;
///     let _: Option<EntryView<'_>> = reader.next()?;
///     let _: Option<Entry> = reader.next_owned()?;
///     let _: EntryStream = log.stream(.., Visibility::Durable)?;
///     let stats: Stats = log.stats();
///     let _: wal::Percentiles = stats.commit_latency_ns;
///     let (_, _): (LogId, Directory) = (log.log_id(), log.directory()?);
///     let _: Anchor = log.anchor(lsn)?;
///     let _: HoldGuard = log.hold(lsn)?;
///     let _: Hold = log.hold_named("replica", lsn, 1 << 30)?;
///     let _: Vec<HoldFile> = log.holds()?;
///     Ok(())
/// }
///
/// fn of_a_recovery(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
///     let recovery: Recovery = Recovery::run("log".as_ref(), options)?;
///     let _: ReplayStats = recovery.replay(.., |_| std::ops::ControlFlow::Continue(()))?;
///     let report: &Report = recovery.report();
///     let (_, _): (&Status, Case) = (&report.status, report.case);
///     let (_, _): (&[Evidence], &[SegmentReport]) = (&report.evidence, &report.segments);
///     let _: &Timeline = &report.timeline;
///     let plan = RepairPlan::keep_readable(report);
///     let _: RepairPreview = recovery::preview_repair("log".as_ref(), options, plan)?;
///     let _: RepairReport = recovery::repair("log".as_ref(), options, plan)?;
///     let _: Recovered = recovery.into_recovered();
///     Ok(())
/// }
///
/// fn of_a_backup(since: &str) -> Result<(), BackupError> {
///     let options = BackupOptions::new().since(since);
///     let _: BackupReport = backup("log", "copy", &options)?;
///     let options = RestoreOptions::new().to(Seq(1000));
///     let _: RestoreReport = restore("copy", "other", &options)?;
///     Ok(())
/// }
///
/// fn of_a_store(store: &Store, batch: &Batch) -> Result<(), engine::Error> {
///     let at: At<'_> = store.at(Level::Strict);
///     let begin: Begin<'_> = at.begin();
///     let receipt: Receipt = begin.apply(batch)?;
///     let _: Ready<&Log> = store.ready(receipt);
///     let _: Records<'_> = store.iter()?;
///     let snapshot: Snapshot = store.snapshot()?;
///     let _: SnapshotRecords<'_> = snapshot.iter();
///     let read = |t: &mut Transaction<'_>| t.get(TokenId(1));
///     let (_, _): (Option<Token>, Option<Receipt>) = begin.transact(read)?;
///     let _: engine::Lsn = snapshot.lsn();
///     let _: Result<Option<Token>, Expired> = snapshot.get(TokenId(1));
///     let _: CheckpointInfo = store.checkpoint()?;
///     let StoreStats { quota, checkpoints, log, .. } = store.stats();
///     let (_, _, _): (QuotaStats, CheckpointStats, Stats) = (quota, checkpoints, log);
///     let (_, _): (&OpenReport, Option<&Report>) = (store.opened_from(), store.recovered());
///     let id: TokenId = TokenId::new(1, EntityType::Event, 0)?;
///     let builder: TokenBuilder = Token::builder(id).coordinate(Space::Physical, Axis::X, 1.0);
///     let _: Result<Token, TokenError> = builder.flags(Flags::empty()).build();
///     Ok(())
/// }
/// ```
#[cfg(doctest)]
struct Names;

/// The programs in the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
