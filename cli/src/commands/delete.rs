//! `bulla delete`: one token out of a store.

use std::path::PathBuf;

use super::written::Writer;
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::tokens::IdArgs;

/// Delete one token of a store by its id.
///
/// Exits with 1, and changes nothing, when there is no such token. Prints the place of the
/// deletion in the log, and up to where the log is durable.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla delete /var/lib/flights 42 --type event\n  bulla delete /var/lib/flights 33554474 --level balanced --format json"
)]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    id: IdArgs,
    /// How durable the deletion must be before the command reports it.
    #[arg(long, value_enum, default_value_t = LevelArg::Strict, value_name = "LEVEL")]
    level: LevelArg,
    #[command(flatten)]
    log: LogArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let IdArgs { id: number, kind } = args.id;
    let id = kind.id(number)?;
    let writer = Writer::open(&args.dir, args.level, &args.log, false)?;
    match writer.store.at(args.level.level()).begin().delete(id)? {
        Some(receipt) => writer.finish("deleted", id, receipt, out)?,
        None => {
            writer.store.close()?;
            return Err(Error::NoToken { id: number, is_full: kind.entity_type.is_none() });
        }
    }
    Ok(Outcome::Clean)
}
