//! The store's oracle: what a store shows, of itself, in snapshots and in its log, beside the map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use bulla_engine::{Error, Expired, Flags, Level, Snapshot, Store, Token, TokenId};
use bulla_recovery::{Inspection, Range};
use bulla_wal::Options;

use super::{DIR, Map, Moment, UNBOUNDED, World, recovered};
use crate::model::Violation;
use crate::times::ms;

impl World {
    pub(super) fn open_at_last(&mut self) -> Result<Store, Violation> {
        let log = self.options.clone().io(self.disk.process());
        let store = Store::open(Path::new(DIR), &self.store_options())
            .map_err(|error| format!("I20h: open failed: {error:?}"))?;
        self.look_at_checkpoints(&store)?;
        let seq = recovered(&store);
        self.note(format_args!("opened: {seq} entries, {}", store.opened_from()));
        if seq < self.durable {
            return Err(format!("I20b: entry {} was durable, {seq} were recovered", self.durable));
        }
        if seq < self.written {
            return Err(format!("I20c: entry {} was written, {seq} were recovered", self.written));
        }
        self.maps.retain(|number, _| *number <= seq);
        self.map = match read_log(&log, &self.maps, seq)? {
            Some(map) => map,
            None => self.maps.get(&seq).cloned().ok_or("I32: nobody knows the map")?,
        };
        match self.timeline.iter().position(|moment| moment.seq == seq) {
            Some(at) if self.timeline[at].map != self.map => {
                return Err(format!("I32: after entry {seq} the log says something else"));
            }
            Some(at) => self.tally.lost_operations += (self.timeline.len() - 1 - at) as u64,
            // Records are reclaimed, and expire, one by one.
            None if self.reclaims || self.tally.expired > 0 => {}
            None => return Err(format!("I20d: entry {seq} is the last: a change was cut in two")),
        }
        (self.base, self.durable, self.written) = (seq, seq, seq);
        self.timeline = vec![Moment { seq, map: self.map.clone() }];
        self.receipts.clear();
        self.in_use = (self.map.len() as u64, pages(&self.map));
        let (records, pages) = self.in_use;
        let is_above = records > self.max_records || pages > self.max_pages;
        self.tally.opened_above_quotas += u64::from(is_above);
        self.compare(&store)?;
        Ok(store)
    }

    /// Compares the whole store with the map.
    pub(super) fn compare(&mut self, store: &Store) -> Result<(), Violation> {
        let all_there = store.stats().checkpoints.waiting_slabs == 0;
        if self.reclaims || all_there || self.rng.one_in(8) {
            self.compare_all(store)?;
        } else {
            // Not the whole of it, so that some of it stays in the checkpoint.
            let id = TokenId(self.id());
            let expected = self.map.get(&id.0).map(|(token, _)| *token);
            if read(store.get(id))? != expected {
                return Err(format!("I32: {id:?} is not {expected:?}"));
            }
        }
        self.compare_quota(store)?;
        let seq = self.seq(store);
        self.maps.insert(seq, self.map.clone());
        if self.timeline.last().is_none_or(|last| last.seq != seq) {
            self.timeline.push(Moment { seq, map: self.map.clone() });
        }
        Ok(())
    }

    fn compare_all(&mut self, store: &Store) -> Result<(), Violation> {
        let shown: Vec<_> = read(store.iter())?.collect();
        if self.reclaims {
            let shown: BTreeSet<_> = shown.iter().map(|token| token.id().0).collect();
            self.take_reclaimed(&shown)?;
        }
        if !shown.iter().eq(self.map.values().map(|(token, _)| token)) {
            return Err(format!("I32: the store has {shown:?}, the map {:?}", self.map));
        }
        for (id, (token, expiry)) in &self.map {
            let expires_at = ms(read(store.expires_at(TokenId(*id)))?);
            let found = (read(store.get(TokenId(*id)))?, expires_at);
            if found != (Some(*token), *expiry) {
                return Err(format!("I32: {id} is {found:?}, not {:?}", (token, expiry)));
            }
        }
        Ok(())
    }

    fn compare_quota(&mut self, store: &Store) -> Result<(), Violation> {
        let (stats, pages) = (store.stats().quota, pages(&self.map));
        let bytes = stats.bytes - stats.retained_bytes;
        if (stats.records, bytes) != (self.map.len() as u64, pages * 4096) {
            return Err(format!(
                "I31: {stats:?}, but there are {} in {pages} pages",
                self.map.len()
            ));
        }
        if stats.records_high > self.max_records.max(self.timeline[0].map.len() as u64) {
            return Err(format!("I31: {stats:?}: more than may be"));
        }
        // A store that was opened above its quota stays there, or makes way.
        let before = std::mem::replace(&mut self.in_use, (stats.records, pages));
        if stats.records > self.max_records.max(before.0) || pages > self.max_pages.max(before.1) {
            return Err(format!("I31: {stats:?}: more than may be, and than {before:?} before"));
        }
        Ok(())
    }

    /// What is not shown was reclaimed: nothing persistent may be among it.
    fn take_reclaimed(&mut self, shown: &BTreeSet<u32>) -> Result<(), Violation> {
        let gone: Vec<_> = self.map.keys().filter(|id| !shown.contains(id)).copied().collect();
        for id in gone {
            let gone = self.map.remove(&id);
            if gone.is_some_and(|(token, _)| token.flags().contains(Flags::PERSISTENT)) {
                return Err(format!("I32: {id} is persistent, and was reclaimed"));
            }
            self.tally.reclaimed += 1;
        }
        Ok(())
    }

    /// Takes a snapshot, or ends one: it shows what the store did when it was taken.
    pub(super) fn look_at_snapshots(
        &mut self,
        store: &Store,
        snapshots: &mut Vec<(Snapshot, Map)>,
    ) -> Result<(), Violation> {
        /// One more is not taken.
        const MOST: usize = 3;
        // It reads all that is still in the checkpoint: seldom.
        if snapshots.len() < MOST && self.rng.one_in(30) {
            match store.snapshot() {
                Ok(snapshot) => {
                    self.note(format_args!("a snapshot of {} records", self.map.len()));
                    snapshots.push((snapshot, self.map.clone()));
                }
                Err(error) if self.is_excused(&error) => {}
                Err(error) => return Err(format!("I20h: no snapshot: {error:?}")),
            }
        } else if !snapshots.is_empty() && self.rng.one_in(20) {
            self.tally.pages_kept += store.stats().quota.retained_bytes / 4096;
            let at = self.rng.below(snapshots.len() as u64) as usize;
            let (snapshot, map) = snapshots.swap_remove(at);
            self.note(format_args!("a snapshot is read, and ends"));
            match contents(&snapshot) {
                Ok(shown) if shown == map => self.tally.snapshots += 1,
                // Its pages made way.
                Err(_) if self.max_pages < UNBOUNDED => {}
                other => return Err(format!("I35: the snapshot shows {other:?}, not {map:?}")),
            }
        }
        match store.stats().quota.retained_bytes {
            0 => Ok(()),
            kept if snapshots.is_empty() => Err(format!("I36: {kept} bytes are kept for nothing")),
            _ => Ok(()),
        }
    }

    pub(super) fn acknowledge(&mut self, store: &Store) {
        let (mut durable, mut written) = (self.durable, self.written);
        let tally = &mut self.tally;
        self.receipts.retain(|receipt| {
            let ready = matches!(store.is_ready(*receipt), Ok(true));
            if ready && receipt.level != Level::Relaxed {
                written = written.max(receipt.seq.0);
                tally.acknowledged += 1;
                if receipt.level == Level::Strict {
                    durable = durable.max(receipt.seq.0);
                }
            }
            !ready
        });
        (self.durable, self.written) = (durable, written);
    }
}

/// A read that must not fail.
pub(super) fn read<T>(result: Result<T, Error>) -> Result<T, Violation> {
    result.map_err(|error| format!("I20h: a read failed: {error:?}"))
}

/// What a snapshot shows in both of the ways in which it can be read.
fn contents(snapshot: &Snapshot) -> Result<Map, Expired> {
    let mut map = Map::new();
    for token in snapshot {
        let token = token?;
        if snapshot.get(token.id())? == Some(token) {
            map.insert(token.id().0, (token, ms(snapshot.expires_at(token.id())?)));
        }
    }
    Ok(map)
}

/// Pages of 64 ids that have a record.
pub(super) fn pages(map: &Map) -> u64 {
    map.keys().map(|id| id / 64).collect::<BTreeSet<_>>().len() as u64
}

/// The records after the entry `last` of the log, by the table in the documentation of
/// `bulla_engine::entries`; what was purged is taken from `maps`. None when that is not
/// known, as several operations were one.
fn read_log(
    options: &Options,
    maps: &BTreeMap<u64, Map>,
    last: u64,
) -> Result<Option<Map>, Violation> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let inspection = match Inspection::read(Path::new(DIR), options) {
        Ok(inspection) => inspection,
        Err(error) => return Err(format!("I20h: the log can't be read: {error}")),
    };
    let purged = inspection.report().first_seq.0 - 1;
    let Some(mut map) = maps.get(&purged).cloned() else { return Ok(None) };
    let mut entries = purged;
    let replayed = inspection.replay(Range::ALL, |entry| {
        entries += 1;
        match entry.kind {
            1 => entry.payload.chunks(64).for_each(|bytes| {
                let token = Token::from_bytes(bytes.try_into().expect("64 bytes"));
                map.insert(word(&bytes[48..52]), (token.expect("valid"), 0));
            }),
            2 => entry.payload.chunks(4).for_each(|id| {
                map.remove(&word(id));
            }),
            _ => entry.payload.chunks(16).for_each(|item| {
                if let Some((_, expiry)) = map.get_mut(&word(&item[..4])) {
                    *expiry = u64::from_le_bytes(item[8..].try_into().expect("8 bytes"));
                }
            }),
        }
        ControlFlow::Continue(())
    });
    match replayed {
        Ok(_) if entries == last => Ok(Some(map)),
        Ok(_) => Err(format!("I32: {entries} entries in the log, the store knows of {last}")),
        Err(error) => Err(format!("I20h: the log can't be read: {error}")),
    }
}
