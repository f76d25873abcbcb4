//! `bulla get`: one token. Read-only.

use std::path::{Path, PathBuf};

use bulla_engine::StoreInspection;
use bulla_recovery::Status;
use bulla_wal::Options;

use super::inspection::explained;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::tokens::{IdArgs, TokenReport};
use crate::{progress, terminal};

/// Show one token by its id.
///
/// Changes nothing. Exits with 1 when there is no such token.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla get /var/lib/flights 42 --type event\n  bulla get /var/lib/flights 33554474 --format json"
)]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    id: IdArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let IdArgs { id: number, kind } = args.id;
    let id = kind.id(number)?;
    let token = snapshot(&args.dir)?
        .get(id)
        .ok_or(Error::NoToken { id: number, is_full: kind.entity_type.is_none() })?;
    out.report(&TokenReport::new(&token))?;
    Ok(Outcome::Clean)
}

/// Reads the tokens in a directory. Refuses a corrupt log, which would show those of some
/// earlier time.
pub(super) fn snapshot(dir: &Path) -> Result<StoreInspection> {
    let (options, reading) = progress::reading_log(Options::new(), "reading the store");
    let snapshot = StoreInspection::read(dir, &options);
    let snapshot = snapshot.map_err(|error| explained(dir, error.into()))?;
    drop(reading);
    terminal::detail(format_args!("read from: {}", snapshot.opened_from()));
    match &snapshot.report().status {
        Status::Corrupt(corruption) => {
            let error = bulla_wal::Error::from(Box::new(corruption.clone()));
            Err(explained(dir, error.into()))
        }
        Status::TornTail => {
            terminal::warn("the end is torn; this is what recovery would keep");
            Ok(snapshot)
        }
        Status::Clean => Ok(snapshot),
    }
}
