//! `bulla get`: one token. Read-only.

use std::path::{Path, PathBuf};

use bulla_engine::{EntityType, StoreInspection, TokenId};
use bulla_recovery::Status;
use bulla_wal::Options;

use crate::Outcome;
use crate::error::{Error, Result};
use crate::mapping::entity_type;
use crate::output::Out;
use crate::tokens;

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
    /// The id: all 32 bits of it, or the local id when --type is given.
    id: u32,
    /// The id is a local one, of this entity type.
    #[arg(long = "type", value_parser = entity_type, value_name = "TYPE")]
    entity_type: Option<EntityType>,
    /// The domain of a local id.
    #[arg(long, requires = "entity_type", default_value_t = 0, value_name = "N")]
    domain: u8,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let id = match args.entity_type {
        Some(entity_type) => {
            TokenId::new(args.id, entity_type, args.domain).map_err(bulla_engine::Error::from)?
        }
        None => TokenId(args.id),
    };
    let token = snapshot(&args.dir)?.get(id).ok_or(Error::NoToken(args.id))?;
    out.report(&tokens::all(&token, out.format()))?;
    Ok(Outcome::Clean)
}

/// The tokens in a directory. Those of a corrupt log would be of some earlier time:
/// it is refused.
pub(super) fn snapshot(dir: &Path) -> Result<StoreInspection> {
    let snapshot = StoreInspection::read(dir, &Options::new())?;
    match &snapshot.report().status {
        Status::Corrupt(corruption) => {
            Err(bulla_wal::Error::from(Box::new(corruption.clone())).into())
        }
        Status::TornTail => {
            eprintln!("bulla: torn tail: shown is what recovery would keep");
            Ok(snapshot)
        }
        Status::Clean => Ok(snapshot),
    }
}
