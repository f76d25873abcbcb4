//! The options of `bulla drill`.

use std::path::PathBuf;

use super::feed::MAX_CLIENTS;
use crate::args::{LevelArg, LogArgs, size};
use crate::mapping::MappingArgs;
use crate::picture::HtmlArg;

/// Kill a writer with SIGKILL at random moments, recover, and check every acknowledgement.
///
/// A child process appends the rows of FILE over and over, from several threads, and reports
/// what was acknowledged. It is killed while it appends, while it opens the log, and while
/// it recovers from an earlier kill. After each recovery the log must be a prefix of what
/// was sent, byte for byte, and hold every balanced and strict record that was acknowledged;
/// relaxed ones may be lost, but not more of them than the ring holds.
///
/// Segments and ring are small unless given: 1MiB each. Exits with 0 only if something was
/// acknowledged, and nothing was lost that must not be lost. This shows what a crash of the
/// process does; the simulator of the test suite shows power loss.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla drill --input data/flights-sample.csv --kills 10\n  bulla drill --input flights.csv.zip --kills 100 --level strict --backend direct --seed 7 --format json"
)]
pub(crate) struct Args {
    /// CSV file (or a .zip of one) whose rows are sent.
    #[arg(long, value_name = "FILE")]
    pub(super) input: PathBuf,
    /// Number of kills.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(super) kills: u64,
    /// Level of every record.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(super) level: LevelArg,
    /// Determines the moments of the kills, and the pace of the clients.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
    /// Directory for the log; empty, or not there yet. Default: a temporary directory, which
    /// is removed unless something went wrong.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Threads that append.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_CLIENTS)), value_name = "N")]
    pub(super) clients: u8,
    /// The longest time for which a child appends before it is killed, in milliseconds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000), value_name = "MS")]
    pub(super) max_life_ms: u64,
    /// Purge the log when it is longer than this.
    #[arg(long, default_value = "32MiB", value_parser = size, value_name = "SIZE")]
    pub(super) keep: u64,
    #[command(flatten)]
    pub(super) html: HtmlArg,
    #[command(flatten)]
    pub(super) mapping: MappingArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
}
