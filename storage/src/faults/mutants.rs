//! Defects that a build with `--cfg bulla_broken` can have at run time, one at a time, to
//! prove that a test notices; a build with `--cfg loom` can, too.
//!
//! The folder `faults` of each crate implements those of that crate: it changes a value that
//! passes from one module to another, or puts a step before a step. In an ordinary build
//! [`planted`] is `false` at compile time and the compiler removes all of it. The
//! [failpoints](crate::faults::failpoints) are not repeated here.

/// A deliberate defect, named after what the code does with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Mutant {
    /// A plain write counts as synced once it has completed.
    AckBeforeSync = 1,
    /// A write with DSYNC is taken to have made earlier plain ones durable.
    DsyncCoversBelow,
    /// Balanced receipts are ready beyond the bound of what may be unsynced.
    BoundIgnored,
    /// A segment gets its end frame when it is written, not when it is synced.
    SegmentSealedEarly,
    /// The durable watermark jumps to what is written.
    WatermarkOvershoots,
    /// Frames carry the wall clock's time even where it went back.
    WallTimeGoesBack,
    /// A frame marks everything before it as durable, whether it is or not.
    MarkAheadOfDurable,
    /// The newest segment is synced instead of the requested one.
    SyncOfWrongSegment,
    /// The rest of a short write is written to where the first bytes are.
    ShortWriteStaysPut,
    /// Every frame chains to the last frame before the open.
    PrevCrcStandsStill,
    /// Offsets in a new segment are counted from the log's beginning.
    RotationKeepsBase,
    /// A spare skips a number.
    SpareSkipsNumber,
    /// The header of a spare does not name the epoch of its predecessor.
    SpareForgetsPredecessor,
    /// A log that fails does not wake its waiters.
    PoisonWakesNobody,
    /// Futures are not woken when their level holds.
    TasksNotWoken,
    /// A background thread that has ended is taken for one that sleeps.
    ThreadEndsUntold,
    /// Every entry of a batch is appended by itself.
    BatchSplit,
    /// `sync` returns when everything is written.
    SyncStopsAtWritten,
    /// `close` returns when it has begun.
    CloseDoesNotDrain,
    /// A purge removes segments before CONTROL says that they are dead.
    PurgeUnlinksFirst,
    /// A purge also removes the segment that holds the first entry to keep.
    PurgeTooFar,
    /// A purge removes entries that are not durable yet, on request.
    PurgeAboveDurable,
    /// A purge also removes what a checkpoint or a hold still needs.
    PurgeIgnoresFloors,
    /// A purge takes a hold whose file it can't read for none.
    DamagedHoldIgnored,
    /// A hold is not broken, however much it keeps.
    HoldNeverBroken,
    /// A hold is taken although the log was purged past its position.
    HoldBelowStart,
    /// A hold that was broken can be advanced like any other.
    BrokenHoldAdvances,
    /// A hold is taken without regard to a purge that is going on.
    HoldTakesNoLock,
    /// A backup ends at the first durable mark that it finds, whatever was acknowledged.
    BackupEndsAtOldMark,
    /// A backup takes no hold.
    BackupTakesNoHold,
    /// A restore does not check the CRC of what it copies.
    BackupCrcUnchecked,
    /// A restore ends with the frame that reaches to its target.
    RestoreEndsPastTarget,
    /// A restore writes CONTROL before the segments.
    RestoreWritesControlFirst,
    /// A restored log does not begin a new epoch at its end.
    RestoreKeepsEpoch,
    /// A frame is sealed while threads still copy their entries into it.
    SealerDoesNotWait,
    /// The ring's memory is free for new entries once their frame is closed.
    RingFreedBeforeWritten,
    /// CONTROL is always written to the slot that holds the newest contents.
    ControlInOneSlot,
    /// The older one of two intact slots of CONTROL counts.
    ControlOlderSlot,
    /// A segment is used although its sync has failed.
    SegmentSyncErrorIgnored,
    /// A segment is used although the sync of its name has failed.
    SegmentDirSyncErrorIgnored,
    /// A read error is taken for the end of the file.
    ReadErrorIsEnd,
    /// The CRC of a body leaves its last bytes out.
    BodyCrcStopsEarly,
    /// A durable reader in the process returns entries that are only written.
    ReaderShowsWritten,
    /// A reader continues although the entries that it read were truncated.
    ReaderNeverDiverges,
    /// A durable reader in another process takes every frame that it sees for durable.
    ProbeTrustsHeaders,
    /// A write in the ring of `io_uring` that wraps has its pieces in the wrong order.
    UringPiecesSwapped,
    /// Every completion in the ring of `io_uring` is taken for that of the first place.
    UringIndexIgnored,
    /// A ring of `io_uring` is freed while the kernel still has its writes.
    UringDropDoesNotWait,
    /// The ring of `io_uring` does not hold the log's lock.
    UringLockNotKept,
    /// A write that the kernel has cancelled counts as done.
    UringCancelledIsDone,
    /// The next write takes a slot whose write the kernel is still at.
    UringSlotReusedEarly,
    /// Every operation in an open directory resolves its path anew.
    DirectoryByPath,
    /// The lock is on the lock file, and not on the directory.
    LockOnFileAlone,
    /// Durable marks behind the end of the frames are not searched for.
    ProbeSkipped,
    /// A replay in one pass takes frames that no durable mark covers for valid by their
    /// headers.
    UnmarkedBodiesUnread,
    /// The frames that an epoch start took over do not count as marked durable.
    EpochStartMarksNothing,
    /// A segment of another epoch is taken for one of this chain.
    StaleEpochAccepted,
    /// The last frame that a recovery keeps is not copied.
    TailRewriteDropsLastFrame,
    /// Copied frames do not chain to one another.
    TailRewriteForgetsPrevCrc,
    /// A new epoch's truncation point is the end of what it took over.
    ReplacesFromEnd,
    /// A recovered log continues at the durable end, over what it took over.
    PositionsReused,
    /// A recovered log assigns the numbers of what it took over again.
    NumbersReused,
    /// A recovery starts no new epoch.
    EpochNotRaised,
    /// The tail is truncated before its copy counts.
    TrimBeforeCommit,
    /// A new epoch does not record the truncations of those before it.
    CutsForgotten,
    /// The truncated bytes are not quarantined.
    TrimBeforeQuarantine,
    /// A write that is refused releases twice what it reserved.
    QuotaReleasedTwice,
    /// Deleted records stay counted.
    QuotaNotGivenBack,
    /// One record more than the quota fits.
    QuotaOffByOne,
    /// The first half of a batch is not replayed.
    BatchReplayedByHalf,
    /// A checkpoint is named when everything below it is durable, with or without a durable
    /// mark.
    MarkInMemoryOnly,
    /// Any anchor is taken to be in the log.
    AnchorNotVerified,
    /// A checkpoint claims to hold what was logged while it was written.
    CheckpointClaimsMore,
    /// A checkpoint does not store when records expire.
    CheckpointForgetsExpiry,
    /// The log is purged up to what the newest checkpoint needs, not up to what both need.
    PurgeForNewestOnly,
    /// The log is purged when there is only one checkpoint.
    FirstCheckpointPurges,
    /// The older checkpoint is removed to make room for the next one.
    OlderGoesFirst,
    /// A slab of a checkpoint is used without a check of its CRC.
    SlabCrcUnchecked,
    /// A slab is rebuilt from the older checkpoint, without the log.
    RebuildWithoutLog,
    /// A slab that two threads have read counts as two loaded ones.
    LazyCountedTwice,
    /// A write does not fault in the slab from the checkpoint.
    WriteDoesNotTouch,
    /// Replay does not fault in the slab from the checkpoint.
    ReplayDoesNotTouch,
    /// Expiry does not load records that are still in the checkpoint.
    ExpiryNotLoaded,
    /// Records in the checkpoint do not count.
    QuotaForgetsCheckpoint,
    /// The space reserved for a checkpoint is released when one fails.
    ReserveLostOnFailure,
    /// A checkpoint in the reserved space is as long as that space.
    ReserveNotCutOff,
    /// Pages are copied for snapshots only after they were changed.
    SnapshotAfterChange,
    /// The pages retained for a snapshot stay counted.
    KeptNotGivenBack,
    /// A record that is swapped or updated no longer expires.
    SwapForgetsExpiry,
    /// A scan for expired records forgets those that will expire later.
    LaterExpiryForgotten,
    /// A persistent record is evicted once it has expired.
    ReclaimTakesPersistent,
    /// A record that is evicted or has expired causes the eviction of others, too.
    DeletionsMakeWay,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: &'static [Self] = &[
        Self::AckBeforeSync,
        Self::DsyncCoversBelow,
        Self::BoundIgnored,
        Self::SegmentSealedEarly,
        Self::WatermarkOvershoots,
        Self::WallTimeGoesBack,
        Self::MarkAheadOfDurable,
        Self::SyncOfWrongSegment,
        Self::ShortWriteStaysPut,
        Self::PrevCrcStandsStill,
        Self::RotationKeepsBase,
        Self::SpareSkipsNumber,
        Self::SpareForgetsPredecessor,
        Self::PoisonWakesNobody,
        Self::TasksNotWoken,
        Self::ThreadEndsUntold,
        Self::BatchSplit,
        Self::SyncStopsAtWritten,
        Self::CloseDoesNotDrain,
        Self::PurgeUnlinksFirst,
        Self::PurgeTooFar,
        Self::PurgeAboveDurable,
        Self::PurgeIgnoresFloors,
        Self::DamagedHoldIgnored,
        Self::HoldNeverBroken,
        Self::HoldBelowStart,
        Self::BrokenHoldAdvances,
        Self::HoldTakesNoLock,
        Self::BackupEndsAtOldMark,
        Self::BackupTakesNoHold,
        Self::BackupCrcUnchecked,
        Self::RestoreEndsPastTarget,
        Self::RestoreWritesControlFirst,
        Self::RestoreKeepsEpoch,
        Self::SealerDoesNotWait,
        Self::RingFreedBeforeWritten,
        Self::ControlInOneSlot,
        Self::ControlOlderSlot,
        Self::SegmentSyncErrorIgnored,
        Self::SegmentDirSyncErrorIgnored,
        Self::ReadErrorIsEnd,
        Self::BodyCrcStopsEarly,
        Self::ReaderShowsWritten,
        Self::ReaderNeverDiverges,
        Self::ProbeTrustsHeaders,
        Self::UringPiecesSwapped,
        Self::UringIndexIgnored,
        Self::UringDropDoesNotWait,
        Self::UringLockNotKept,
        Self::UringCancelledIsDone,
        Self::UringSlotReusedEarly,
        Self::DirectoryByPath,
        Self::LockOnFileAlone,
        Self::ProbeSkipped,
        Self::UnmarkedBodiesUnread,
        Self::EpochStartMarksNothing,
        Self::StaleEpochAccepted,
        Self::TailRewriteDropsLastFrame,
        Self::TailRewriteForgetsPrevCrc,
        Self::ReplacesFromEnd,
        Self::PositionsReused,
        Self::NumbersReused,
        Self::EpochNotRaised,
        Self::TrimBeforeCommit,
        Self::CutsForgotten,
        Self::TrimBeforeQuarantine,
        Self::QuotaReleasedTwice,
        Self::QuotaNotGivenBack,
        Self::QuotaOffByOne,
        Self::BatchReplayedByHalf,
        Self::MarkInMemoryOnly,
        Self::AnchorNotVerified,
        Self::CheckpointClaimsMore,
        Self::CheckpointForgetsExpiry,
        Self::PurgeForNewestOnly,
        Self::FirstCheckpointPurges,
        Self::OlderGoesFirst,
        Self::SlabCrcUnchecked,
        Self::RebuildWithoutLog,
        Self::LazyCountedTwice,
        Self::WriteDoesNotTouch,
        Self::ReplayDoesNotTouch,
        Self::ExpiryNotLoaded,
        Self::QuotaForgetsCheckpoint,
        Self::ReserveLostOnFailure,
        Self::ReserveNotCutOff,
        Self::SnapshotAfterChange,
        Self::KeptNotGivenBack,
        Self::SwapForgetsExpiry,
        Self::LaterExpiryForgotten,
        Self::ReclaimTakesPersistent,
        Self::DeletionsMakeWay,
    ];
}

/// Returns the right value, or the wrong one if this mutant is planted.
#[inline]
#[must_use]
pub fn either<T>(right: T, mutant: Mutant, wrong: T) -> T {
    if planted(mutant) { wrong } else { right }
}

/// Returns whether this mutant is planted. Always `false` in an ordinary build.
#[cfg(not(any(bulla_broken, loom)))]
#[inline]
#[must_use]
pub const fn planted(_mutant: Mutant) -> bool {
    false
}

#[cfg(any(bulla_broken, loom))]
pub use switch::{plant, planted};

#[cfg(any(bulla_broken, loom))]
mod switch {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, Ordering};

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Returns whether this mutant is planted.
    #[must_use]
    pub fn planted(mutant: Mutant) -> bool {
        PLANTED.load(Ordering::Relaxed) == mutant as u8
    }

    /// Plants one mutant from now on, or none.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::Relaxed);
    }
}

/// Proves that a loom model can fail: the model runs again with a mutant, in its own process,
/// because a failing model may abort.
#[cfg(loom)]
pub mod models {
    use super::{Mutant, plant};
    use std::process::Command;

    /// The variable that names the mutant to plant.
    const VARIABLE: &str = "BULLA_BROKEN";

    /// Plants the mutant that `BULLA_BROKEN` names, if it is set. Every model starts with this
    /// call.
    ///
    /// # Panics
    /// When there is no such mutant.
    pub fn plant_what_is_asked_for() {
        let Ok(name) = std::env::var(VARIABLE) else { return };
        let mutant = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
        plant(Some(*mutant.unwrap_or_else(|| panic!("{name} is no mutant"))));
    }

    /// Asserts that each model, a test of this program, fails with the mutant beside it.
    ///
    /// # Panics
    /// When one does not.
    pub fn assert_each_fails(models: &[(&str, Mutant)]) {
        let program = std::env::current_exe().expect("the path of this program");
        for (model, mutant) in models {
            let mut run = Command::new(&program);
            run.args(["--exact", model]).env(VARIABLE, format!("{mutant:?}"));
            let output = run.output().expect("this program starts");
            assert!(!output.status.success(), "{model} passes with {mutant:?}, or is not there");
        }
    }
}
