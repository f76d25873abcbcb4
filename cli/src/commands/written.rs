//! One change of a store, made and reported: what `bulla put` and `bulla delete` share.

use std::path::Path;

use bulla_engine::{Quota, Receipt, Store, StoreOptions, TokenId};
use serde::Serialize;

use super::inspection::explained;
use crate::args::{LevelArg, LogArgs};
use crate::error::Result;
use crate::output::Out;
use crate::{place, progress, terminal};

/// What was written, and what of it is durable.
#[derive(Serialize)]
struct Written {
    done: &'static str,
    id: u32,
    local_id: u32,
    entity_type: &'static str,
    seq: u64,
    lsn: u64,
    level: &'static str,
    /// Everything below this position is durable.
    durable_lsn: u64,
    tokens: u64,
}

/// An open store to which one change is made.
pub(super) struct Writer<'a> {
    pub(super) store: Store,
    dir: &'a Path,
    level: LevelArg,
}

impl<'a> Writer<'a> {
    /// Opens the store; with `create`, creates it if there is none.
    pub(super) fn open(
        dir: &'a Path,
        level: LevelArg,
        log: &LogArgs,
        create: bool,
    ) -> Result<Self> {
        let (options, reading) = progress::reading_log(log.options(), "opening the store");
        let is_new = create && place::is_new(dir, &options)?;
        let options = StoreOptions::new().log(options).quota(Quota::unlimited()).create(create);
        let store = Store::open(dir, &options).map_err(|error| explained(dir, error.into()))?;
        drop(reading);
        if is_new {
            place::announce(dir);
        }
        for refused in &store.opened_from().refused {
            terminal::warn(format_args!("not used: {refused}"));
        }
        terminal::detail(format_args!("opened from: {}", store.opened_from()));
        log.backend.warn_of_fallback(&store.stats().log);
        Ok(Self { store, dir, level })
    }

    /// Waits for the change, reports it, and closes the store.
    pub(super) fn finish(
        self,
        done: &'static str,
        id: TokenId,
        receipt: Receipt,
        out: &mut Out,
    ) -> Result<()> {
        let Self { store, dir, level } = self;
        store.wait(receipt)?;
        // A command ends here: nothing is gained by leaving the change in memory.
        let durable = store.sync()?;
        let tokens = store.len() as u64;
        store.close()?;
        out.report(&Written {
            done,
            id: id.0,
            local_id: id.local(),
            entity_type: id.entity_type().name(),
            seq: receipt.seq.0,
            lsn: receipt.lsn.0,
            level: level.name(),
            durable_lsn: durable.0,
            tokens,
        })?;
        if out.is_table() {
            out.flush()?;
            terminal::note(format_args!(
                "The token is {done}, and that is durable in {}, below LSN {durable}.",
                dir.display()
            ));
        }
        Ok(())
    }
}
