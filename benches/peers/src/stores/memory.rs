//! Memory alone: what no store can be faster than. Nothing is kept.

use std::path::Path;

use crate::log::{Failure, Plan, Result, Unsupported};
use crate::store::{Bytes, Store, missing};

/// A directory whose store was closed is not opened again: it is gone.
fn once(dir: &Path) -> Result<()> {
    let made = std::fs::File::create_new(dir.join("was-here"));
    made.map(drop).map_err(|_| -> Failure { Box::new(Unsupported) })
}

/// A hash map with its default hash.
pub(crate) struct HashMap(hashbrown::HashMap<u32, Bytes>);

impl Store for HashMap {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        once(dir)?;
        Ok(Self(hashbrown::HashMap::new()))
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.0.insert(id, *record);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        for id in ids {
            visit(self.0.get(&id).ok_or_else(|| missing(id))?);
        }
        Ok(())
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        self.0.values().for_each(|record| visit(record));
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// A vector that the id is the place in.
#[derive(Default)]
pub(crate) struct Plain(Vec<Bytes>);

impl Plain {
    pub(crate) fn set(&mut self, id: u32, record: &Bytes) {
        let at = id as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, [0; 64]);
        }
        self.0[at] = *record;
    }
}

impl Store for Plain {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        once(dir)?;
        Ok(Self::default())
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.set(id, record);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        for id in ids {
            visit(self.0.get(id as usize).ok_or_else(|| missing(id))?);
        }
        Ok(())
    }

    /// Place 0 is no record's.
    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        self.0.iter().skip(1).for_each(|record| visit(record));
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
