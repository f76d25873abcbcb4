//! The process that is killed: puts tokens into a store, reports what was acknowledged.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use bulla_engine::Token;

use super::parts::{open, quota_for};
use super::work::{Work, read_buffer};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::is_stdout_closed;

/// The stress's child.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The store's directory.
    #[arg(long)]
    pub(super) dir: PathBuf,
    #[arg(long)]
    pub(super) records: u64,
    #[arg(long)]
    pub(super) threads: u64,
    #[arg(long)]
    pub(super) seed: u64,
    #[arg(long, value_enum)]
    pub(super) level: LevelArg,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Bytes of a message: the number of a thread, and how many more of its tokens are
/// acknowledged. It is one write, which a pipe takes whole.
pub(super) const MESSAGE_LEN: usize = 16;

/// Returns the number of the thread, and the count.
pub(super) fn decode(message: [u8; MESSAGE_LEN]) -> (usize, u64) {
    let both = u128::from_le_bytes(message);
    (usize::try_from(both & u128::from(u64::MAX)).unwrap_or(usize::MAX), (both >> 64) as u64)
}

/// Never ends by itself while the parent listens.
pub(crate) fn run(args: &Args) -> Result<Outcome> {
    let work = Work { records: args.records, threads: args.threads, seed: args.seed };
    let level = args.level.level();
    let pipe = std::io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?;
    let pipe = File::from(pipe);
    let store = open(&args.dir, &args.log, quota_for(&work))?;
    work.run(|thread, share| {
        let put = |token: &Token| Ok(store.at(level).begin().put(token)?);
        let tell = |count: u64| {
            let message: [u8; MESSAGE_LEN] =
                (thread as u128 | u128::from(count) << 64).to_le_bytes();
            (&pipe).write_all(&message).map_err(Error::Output)
        };
        read_buffer(&work, share, put, |receipt| Ok(store.wait(receipt)?), tell)
    })?;
    while !is_stdout_closed() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Outcome::Clean)
}
