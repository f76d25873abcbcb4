//! Defects that a build with `--cfg bulla_broken` can have at run time, one at a time, to
//! show that a test notices; a build with `--cfg loom` can, too.
//!
//! Each is one line at its place. In an ordinary build [`planted`] is `false` at compile
//! time and nothing is left. What [`omit`](crate::faults::failpoints) leaves out is not repeated here.

/// A deliberate defect: what the code does then.
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
    /// A segment gets its seal when it is written, not when it is synced.
    SegmentSealedEarly,
    /// The durable watermark jumps to what is written.
    WatermarkOvershoots,
    /// Frames carry the wall clock's time even where it went back.
    WallTimeGoesBack,
    /// A frame promises all that lies before it, durable or not.
    MarkAheadOfDurable,
    /// The newest segment is synced in the place of the one that was asked for.
    SyncOfWrongSegment,
    /// The rest of a short write is written to where the first bytes are.
    ShortWriteStaysPut,
    /// Every frame chains to the one with which the log was opened.
    ChainStandsStill,
    /// Offsets in a new segment are counted from the log's beginning.
    RotationKeepsBase,
    /// A spare leaves a number out.
    SpareSkipsNumber,
    /// The header of a spare does not name the epoch of its predecessor.
    SpareForgetsPredecessor,
    /// A log that fails leaves those asleep who wait for it.
    PoisonWakesNobody,
    /// Futures are not woken when their level holds.
    TasksNotWoken,
    /// Every entry of a batch is appended by itself.
    BatchSplit,
    /// `sync` says so when everything is written.
    SyncStopsAtWritten,
    /// `close` says so when it has begun.
    CloseDoesNotDrain,
    /// A purge removes segments before CONTROL says that they are dead.
    PurgeUnlinksFirst,
    /// A purge also removes the segment that holds the first entry to be kept.
    PurgeTooFar,
    /// A purge removes what is not durable yet, if it is asked to.
    PurgeAboveDurable,
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
    /// A durable reader in the process shows what is only written.
    ReaderShowsWritten,
    /// A reader goes on although what it read was cut off.
    ReaderNeverDiverges,
    /// A durable reader elsewhere takes every frame that it sees for promised.
    ProbeTrustsHeaders,
    /// A write in the ring of `io_uring` that wraps has its pieces in the wrong order.
    UringPiecesSwapped,
    /// Every completion in the ring of `io_uring` is taken for that of the first place.
    UringIndexIgnored,
    /// A ring of `io_uring` is given up while the kernel has writes of it.
    UringDropDoesNotWait,
    /// The ring of `io_uring` does not hold the log's lock.
    UringLockNotKept,
    /// A write that the kernel has cancelled counts as done.
    UringCancelledIsDone,
    /// The next write takes a slot whose write the kernel is still at.
    UringSlotReusedEarly,
    /// Promises behind the end of the frames are not looked for.
    ProbeSkipped,
    /// A replay in one pass takes frames that no promise covers for valid by their headers.
    UnmarkedBodiesUnread,
    /// What an opening took over is not counted as promised.
    EpochStartMarksNothing,
    /// A segment of another epoch is taken for one of this chain.
    StaleEpochAccepted,
    /// The last frame that a recovery keeps is not copied.
    TailRewriteDropsLastFrame,
    /// Copied frames do not chain to one another.
    TailRewriteForgetsChain,
    /// A new epoch supersedes from the end of what it took over.
    SupersedesFromEnd,
    /// A recovered log goes on at D, over what it took over.
    PositionsReused,
    /// A recovered log gives the numbers of what it took over again.
    NumbersReused,
    /// A recovery begins the epoch that there was.
    EpochNotRaised,
    /// What is copied is cut off before the copy counts.
    TrimBeforeCommit,
    /// A new epoch does not record the cuts of those before it.
    CutsForgotten,
    /// What is cut off is not kept.
    TrimBeforeQuarantine,
    /// A write that is refused gives back twice what it reserved.
    QuotaReleasedTwice,
    /// What is deleted stays counted.
    QuotaNotGivenBack,
    /// One record more than the quota fits.
    QuotaOffByOne,
    /// The first half of a batch is not replayed.
    BatchReplayedByHalf,
    /// A checkpoint is named when what is below it is durable, promised or not.
    MarkInMemoryOnly,
    /// Any anchor is taken to stand in the log.
    AnchorNotVerified,
    /// A checkpoint says that it has what was logged while it was written.
    CheckpointClaimsMore,
    /// A checkpoint does not have when records expire.
    CheckpointForgetsExpiry,
    /// The log is purged to what the newest checkpoint needs, not to what both do.
    PurgeForNewestOnly,
    /// The log is purged when there is one checkpoint alone.
    FirstCheckpointPurges,
    /// The older checkpoint is removed to make room for the one that comes.
    OlderGoesFirst,
    /// A slab of a checkpoint is taken as it is read.
    SlabCrcUnchecked,
    /// A slab is built again as the older checkpoint had it.
    RebuildWithoutLog,
    /// A slab that two threads have read counts for two that are there.
    LazyCountedTwice,
    /// A write does not look for the slab in the checkpoint.
    WriteDoesNotTouch,
    /// Replay does not look for the slab in the checkpoint.
    ReplayDoesNotTouch,
    /// What expires and is still in the checkpoint is not looked at.
    ExpiryNotLoaded,
    /// What is in the checkpoint does not count.
    QuotaForgetsCheckpoint,
    /// Space that is kept for a checkpoint is given up when one fails.
    ReserveLostOnFailure,
    /// A checkpoint in the space that was kept is as long as that.
    ReserveNotCutOff,
    /// Pages are kept for snapshots after they were changed.
    SnapshotAfterChange,
    /// What was kept for a snapshot stays counted.
    KeptNotGivenBack,
    /// A record that is swapped or updated does not expire any more.
    SwapForgetsExpiry,
    /// A look at what expires forgets what will expire later.
    LaterExpiryForgotten,
    /// A persistent record makes way once it has expired.
    ReclaimTakesPersistent,
    /// A record that is deleted to make room, or as its time has come, makes others go, too.
    DeletionsMakeWay,
}

impl Mutant {
    /// Every bug.
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
        Self::ChainStandsStill,
        Self::RotationKeepsBase,
        Self::SpareSkipsNumber,
        Self::SpareForgetsPredecessor,
        Self::PoisonWakesNobody,
        Self::TasksNotWoken,
        Self::BatchSplit,
        Self::SyncStopsAtWritten,
        Self::CloseDoesNotDrain,
        Self::PurgeUnlinksFirst,
        Self::PurgeTooFar,
        Self::PurgeAboveDurable,
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
        Self::ProbeSkipped,
        Self::UnmarkedBodiesUnread,
        Self::EpochStartMarksNothing,
        Self::StaleEpochAccepted,
        Self::TailRewriteDropsLastFrame,
        Self::TailRewriteForgetsChain,
        Self::SupersedesFromEnd,
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

/// The right value, unless this bug is planted: then the wrong one.
#[inline]
#[must_use]
pub fn either<T>(right: T, bug: Mutant, wrong: T) -> T {
    if planted(bug) { wrong } else { right }
}

/// The result, unless this bug is planted: then no error is seen.
///
/// # Errors
/// That of the result.
pub fn unless<E>(bug: Mutant, result: Result<(), E>) -> Result<(), E> {
    if planted(bug) { Ok(()) } else { result }
}

/// Is this bug planted? Always `false` in an ordinary build.
#[cfg(not(any(bulla_broken, loom)))]
#[inline]
#[must_use]
pub const fn planted(_bug: Mutant) -> bool {
    false
}

#[cfg(any(bulla_broken, loom))]
pub use switch::{plant, planted};

#[cfg(any(bulla_broken, loom))]
mod switch {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, Ordering};

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Is this bug planted?
    #[must_use]
    pub fn planted(bug: Mutant) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Plants one bug from now on, or none.
    pub fn plant(bug: Option<Mutant>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}

/// That a model of loom's can fail: it is run again with a bug, in a process of its own, as
/// a model that fails may abort.
#[cfg(loom)]
pub mod models {
    use super::{Mutant, plant};
    use std::process::Command;

    /// The name of a bug to be planted.
    const VARIABLE: &str = "BULLA_BROKEN";

    /// Plants the bug that `BULLA_BROKEN` names, if it is set. Every model begins with it.
    ///
    /// # Panics
    /// When there is no such bug.
    pub fn plant_what_is_asked_for() {
        let Ok(name) = std::env::var(VARIABLE) else { return };
        let bug = Mutant::ALL.iter().find(|bug| format!("{bug:?}") == name);
        plant(Some(*bug.unwrap_or_else(|| panic!("{name} is no bug"))));
    }

    /// Asserts that each model, a test of this program, fails with the bug beside it.
    ///
    /// # Panics
    /// When one does not.
    pub fn assert_each_fails(models: &[(&str, Mutant)]) {
        let program = std::env::current_exe().expect("the path of this program");
        for (model, bug) in models {
            let mut run = Command::new(&program);
            run.args(["--exact", model]).env(VARIABLE, format!("{bug:?}"));
            let output = run.output().expect("this program starts");
            assert!(!output.status.success(), "{model} passes with {bug:?}, or is not there");
        }
    }
}
