//! What a simulated disk is like, what can go wrong with it, and what it counted.

use std::path::PathBuf;

/// The kinds of crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashKind {
    /// The process dies, the kernel lives on: completed writes stay visible, and stay
    /// as volatile as they were.
    Kill,
    /// The machine loses power: what is not durable may be lost, piece by piece.
    PowerLoss,
}

/// The kinds of operation that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOp {
    /// A read of a file.
    Read,
    /// A write, direct or queued: any subset of its sectors is written all the same.
    Write,
    /// A sync of a file: what it covered stays visible, and no later sync saves it.
    Sync,
    /// The creation of a file.
    Create,
    /// A rename.
    Rename,
    /// A sync of a directory. Its entries stay pending; a later sync may save them.
    SyncDir,
    /// The removal of a name.
    Unlink,
    /// A reservation of space.
    Preallocate,
}

/// The ways in which a device lies: no operation returns an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// The device reports a write as done, and writes nothing.
    LostWrite,
    /// A write goes astray: it lands one sector behind its place.
    MisdirectedWrite,
    /// A read returns a wrong bit, in the middle of the requested range. The next one does
    /// not.
    RottenRead,
    /// The device reports a sync of a file as done, and makes nothing durable.
    LostSync,
}

/// What a simulated disk is like. Chances are per million (`_ppm`).
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Bytes that are written or lost as one; also what direct access must be aligned to.
    pub sector: usize,
    /// What [`Dir::physical_sector`](crate::io::Dir::physical_sector) says.
    pub physical_sector: Option<u32>,
    /// The most operations that one queue has in flight.
    pub depth: usize,
    /// Bytes that files can allocate together; `None` is unlimited.
    pub capacity: Option<u64>,
    /// Whether the file system can reserve space.
    pub preallocate: bool,
    /// Wall time in nanoseconds since 1970 at the disk's beginning.
    pub wall_base_ns: u64,
    /// How far the clock advances at each step.
    pub step_ns: u64,
    /// A read fails with EIO.
    pub read_error_ppm: u32,
    /// A write fails with EIO after any subset of its sectors.
    pub write_error_ppm: u32,
    /// A sync fails with EIO and loses its hold on what it covered.
    pub sync_error_ppm: u32,
    /// A create, rename, unlink, directory sync or reservation fails with EIO.
    pub metadata_error_ppm: u32,
    /// A read is short.
    pub short_read_ppm: u32,
    /// A write is short.
    pub short_write_ppm: u32,
    /// A poll of a queue finds nothing although something is in flight.
    pub late_completion_ppm: u32,
    /// A poll of a queue in which only syncs are left finds none of them done: they take
    /// longer than writes. A poll that waits is not delayed.
    pub slow_sync_ppm: u32,
    /// A sector that a power loss keeps is shorn: new bytes up to some point in it, old ones
    /// from there on. Devices guarantee not to; 0 by default.
    pub shorn_sector_ppm: u32,
    /// Space that was reserved and never written durably shows after a power loss what some
    /// file held before, not zeros. A file system that does so violates POSIX, but such file
    /// systems exist; 0 by default.
    pub stale_block_ppm: u32,
    /// A sync, or the DSYNC of a write, is reported as done and makes nothing durable: the
    /// device has a volatile cache that it denies. 0 by default.
    pub lost_sync_ppm: u32,
    /// A power loss loses everything that is not durable.
    pub lose_all_ppm: u32,
    /// A power loss loses nothing.
    pub lose_none_ppm: u32,
}

impl Default for SimConfig {
    /// Returns a disk without faults and without a size limit, with sectors of 512 bytes.
    fn default() -> Self {
        Self {
            sector: 512,
            physical_sector: Some(512),
            depth: 64,
            capacity: None,
            preallocate: true,
            wall_base_ns: 1_700_000_000_000_000_000,
            step_ns: 0,
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            metadata_error_ppm: 0,
            short_read_ppm: 0,
            short_write_ppm: 0,
            late_completion_ppm: 250_000,
            slow_sync_ppm: 0,
            shorn_sector_ppm: 0,
            stale_block_ppm: 0,
            lost_sync_ppm: 0,
            lose_all_ppm: 100_000,
            lose_none_ppm: 100_000,
        }
    }
}

/// How many operations a disk has done, failed ones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SimCounts {
    /// Reads of files.
    pub reads: u64,
    /// Bytes that they returned.
    pub read_bytes: u64,
    /// Writes without DSYNC.
    pub writes: u64,
    /// Writes with DSYNC.
    pub dsync_writes: u64,
    /// Bytes that writes of both kinds took.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Creations of files, those by a lock included.
    pub creates: u64,
    /// Renames.
    pub renames: u64,
    /// Removals of names.
    pub unlinks: u64,
    /// Reservations of space.
    pub preallocates: u64,
    /// Changes of a length.
    pub set_lens: u64,
    /// Writes that were submitted while another of their queue was in flight.
    pub overlapping_writes: u64,
    /// Crashes that struck while several writes of a queue were in flight.
    pub crashes_during_writes: u64,
}

/// What an operator does to directories and files beside processes that run. It is durable at
/// once; what the processes have open stays open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meddling {
    /// Moves a directory to a path that nothing has.
    Move {
        /// The directory.
        from: PathBuf,
        /// Its new path.
        to: PathBuf,
    },
    /// Exchanges two directories.
    Swap(PathBuf, PathBuf),
    /// Removes a file, if it is there.
    Remove(PathBuf),
}
