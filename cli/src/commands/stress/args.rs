//! The options of `bulla stress`.

use std::path::PathBuf;

use crate::args::{LevelArg, LogArgs};

/// Store millions of tokens: in memory alone, by each part of a store, and by all of it;
/// then kill a process that does so, and check what it left.
///
/// Every token is made from the seed and stored, and each one is logged where there is a log.
/// First comes the baseline: a Vec in memory. Then puts that a full store refuses, appends to
/// a log of each level, and puts into a store (table, quota and log) of each level. Time runs
/// until every record is acknowledged as its level says; each thread has up to 10,000 in
/// flight. The ratio compares the time with that of the baseline.
///
/// Memory is the growth of the process (`VmRSS`) once all of the log's ring is in use.
/// The crash is a SIGKILL of a child process in the second half of its work: then its
/// store is opened, and every record that was acknowledged must be there as it was put.
/// Relaxed ones may be lost, but no more than the ring holds.
///
/// Works in a temporary directory inside the directory, which is removed also on Ctrl-C.
/// Exits with 1 if a record was lost that must not be lost; the store is then kept.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla stress /var/lib --records 1000000\n  bulla stress /var/lib --level strict --threads 4 --rounds 5 --format json"
)]
pub(crate) struct Args {
    /// The directory, on the disk to be tested.
    #[arg(default_value = ".")]
    pub(super) dir: PathBuf,
    /// Tokens that each part stores.
    #[arg(long, default_value_t = 9_500_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000), value_name = "N")]
    pub(super) records: u64,
    /// Determines the tokens, and the moment of the kill.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
    /// Threads that store them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), value_name = "N")]
    pub(super) threads: u64,
    /// Levels of the logs, stores and crashes.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "relaxed,balanced,strict",
        value_name = "LEVEL"
    )]
    pub(super) level: Vec<LevelArg>,
    /// How often each part is run, in turn; the report shows medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    pub(super) rounds: u32,
    /// Work also on a file system in memory.
    #[arg(long)]
    pub(super) allow_tmpfs: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
}
