//! Operations that a build with `--cfg bulla_broken` can leave out at run time, one at a time,
//! to prove that a test notices: syncs, and checks of completions.
//!
//! In an ordinary build [`skip`] is `false` at compile time and the compiler removes all of
//! it.

/// One sync, directory sync or completion check that correctness depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Failpoint {
    /// The sync of a frame's file after a plain write.
    FrameSync = 1,
    /// The DSYNC flag of a frame's write.
    FrameDsync,
    /// The sync of the parent directory after the log's directory is made.
    ParentDirSync,
    /// The sync of a new CONTROL file before its rename.
    ControlCreateSync,
    /// The directory sync after CONTROL's first rename.
    ControlCreateDirSync,
    /// The rewrite of CONTROL's newest slot at open.
    ControlRewrite,
    /// The sync of CONTROL with a new epoch, before its first segment.
    ControlEpochSync,
    /// The sync of CONTROL with a new low-water mark, before any unlink.
    ControlPurgeSync,
    /// The directory sync at open, before anything relies on the listing.
    OpenDirSync,
    /// The sync of an epoch-start segment, before its rename.
    EpochStartSync,
    /// The directory sync after that rename: the commit point of a recovery.
    EpochStartDirSync,
    /// The sync of a spare segment before it is named.
    SpareSync,
    /// The directory sync after a spare is named, before it is used.
    SpareDirSync,
    /// The sync of an idle durable mark.
    MarkSync,
    /// The sync of a closed log's clean-shutdown frame.
    CloseSealSync,
    /// The sync of quarantined bytes before the originals are trimmed.
    QuarantineSync,
    /// The directory sync of the quarantine before the originals are trimmed.
    QuarantineDirSync,
    /// The sync of what says how to undo a repair, before its rename.
    RepairNoteSync,
    /// The directory sync after that rename, before the repair changes anything.
    RepairNoteDirSync,
    /// The sync of a file that an undo puts back, before its rename.
    UndoCopySync,
    /// The directory sync after an undo removed CONTROL, before it changes anything else.
    UndoBeginDirSync,
    /// The directory sync after an undo put the segments back, before CONTROL.
    UndoDirSync,
    /// The directory sync after an undo put CONTROL back, before it removes the copies.
    UndoEndDirSync,
    /// The sync of the log's directory after the folder of its holds is made.
    HoldFolderSync,
    /// The sync of a hold's file before its rename.
    HoldSync,
    /// The sync of the folder of holds after a hold is taken, advanced, broken or released.
    HoldDirSync,
    /// The sync of what a backup has copied, before its manifest.
    BackupPartSync,
    /// The syncs of a backup's folders, before its manifest.
    BackupFolderSync,
    /// The sync of a backup's manifest before its rename.
    ManifestSync,
    /// The directory sync after that rename.
    ManifestDirSync,
    /// The sync of what a restore has written, before CONTROL.
    RestorePartSync,
    /// The syncs of the directories of a restored log, before CONTROL.
    RestoreFolderSync,
    /// The sync of a store's directory after the folder of its checkpoints is made.
    CheckpointFolderSync,
    /// The sync of a checkpoint before its rename.
    CheckpointSync,
    /// The directory sync after that rename, before log and older ones are removed.
    CheckpointDirSync,
    /// The sync of the checkpoints' directory at open, before anything relies on the listing.
    CheckpointOpenDirSync,
    /// The rule that a checkpoint is named only when a durable mark of its position is
    /// durable.
    CheckpointMark,
    /// The check of a write's completion for an error.
    WriteErrorCheck,
    /// The check of a write's completion for a short count.
    WriteShortCheck,
    /// The check of a completion in the ring of `io_uring` for an error.
    UringErrorCheck,
    /// The report of a short count in the ring of `io_uring`.
    UringShortCheck,
    /// The check of a sync's completion for an error.
    SyncErrorCheck,
    /// The rule that a sync covers only writes reaped before it was submitted.
    SyncCoversReapedOnly,
    /// The rule that the watermark is contiguous when completions come out of order.
    ContiguousWatermark,
    /// The rule that nothing is acknowledged after a failure.
    PoisonLatch,
}

impl Failpoint {
    /// Every failpoint.
    pub const ALL: &'static [Self] = &[
        Self::FrameSync,
        Self::FrameDsync,
        Self::ParentDirSync,
        Self::ControlCreateSync,
        Self::ControlCreateDirSync,
        Self::ControlRewrite,
        Self::ControlEpochSync,
        Self::ControlPurgeSync,
        Self::OpenDirSync,
        Self::EpochStartSync,
        Self::EpochStartDirSync,
        Self::SpareSync,
        Self::SpareDirSync,
        Self::MarkSync,
        Self::CloseSealSync,
        Self::QuarantineSync,
        Self::QuarantineDirSync,
        Self::RepairNoteSync,
        Self::RepairNoteDirSync,
        Self::UndoCopySync,
        Self::UndoBeginDirSync,
        Self::UndoDirSync,
        Self::UndoEndDirSync,
        Self::HoldFolderSync,
        Self::HoldSync,
        Self::HoldDirSync,
        Self::BackupPartSync,
        Self::BackupFolderSync,
        Self::ManifestSync,
        Self::ManifestDirSync,
        Self::RestorePartSync,
        Self::RestoreFolderSync,
        Self::CheckpointFolderSync,
        Self::CheckpointSync,
        Self::CheckpointDirSync,
        Self::CheckpointOpenDirSync,
        Self::CheckpointMark,
        Self::WriteErrorCheck,
        Self::WriteShortCheck,
        Self::UringErrorCheck,
        Self::UringShortCheck,
        Self::SyncErrorCheck,
        Self::SyncCoversReapedOnly,
        Self::ContiguousWatermark,
        Self::PoisonLatch,
    ];
}

/// Returns whether to leave this operation out. Always `false` in an ordinary build.
#[cfg(not(bulla_broken))]
#[inline]
#[must_use]
pub const fn skip(_failpoint: Failpoint) -> bool {
    false
}

#[cfg(bulla_broken)]
pub use switch::{set, skip};

#[cfg(bulla_broken)]
mod switch {
    use super::Failpoint;
    use std::sync::atomic::{AtomicU8, Ordering};

    static SKIPPED: AtomicU8 = AtomicU8::new(0);

    /// Returns whether to leave this operation out.
    #[must_use]
    pub fn skip(failpoint: Failpoint) -> bool {
        SKIPPED.load(Ordering::Relaxed) == failpoint as u8
    }

    /// Sets the one operation to leave out from now on, or none.
    pub fn set(failpoint: Option<Failpoint>) {
        SKIPPED.store(failpoint.map_or(0, |failpoint| failpoint as u8), Ordering::Relaxed);
    }
}
