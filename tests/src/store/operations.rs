//! What the store's campaign does with a store, and what must come of each operation.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use bulla_engine::entries::Mutation;
use bulla_engine::{Batch, Error, Flags, Level, Receipt, Store, Token, TokenId};

use bulla_storage::io::Io;

use super::oracle::{pages, read};
use super::{Map, World};
use crate::model::Violation;
use crate::times::{at_ms, ms};

/// Seconds since 1970 at which the simulated clock is about: tokens may be as old.
const OLD: u64 = 1_000;
/// Kinds of change, some of them more likely.
const CHANGES: u64 = 12;

impl World {
    pub(super) fn operate(&mut self, store: &Store) -> Result<(), Violation> {
        // In a rush nobody makes room in the ring but the writes themselves.
        match self.rng.below(if self.rush { CHANGES } else { CHANGES + 6 }) {
            change @ 0..CHANGES => self.change(store, change),
            12 => self.step(store),
            13 => self.sync(store),
            14 => self.checkpoint(store),
            15 => self.jump(),
            _ => self.wait(store),
        }
    }

    /// What can be done while a checkpoint is under way.
    pub(super) fn operate_amid(&mut self, store: &Store) -> Result<(), Violation> {
        match self.rng.below(CHANGES + 4) {
            change @ 0..CHANGES => self.change(store, change),
            // It would wait for the checkpoint to take the next one.
            12 if self.checkpoint_bytes.is_none() => self.step(store),
            13 => self.sync(store),
            14 => self.jump(),
            _ => self.wait(store),
        }
    }

    fn change(&mut self, store: &Store, which: u64) -> Result<(), Violation> {
        let level = Level::ALL[self.rng.below(3) as usize];
        match which {
            0..=3 => self.put(store, level),
            4 => self.expire(store, level),
            5 | 6 => self.update(store, level),
            7 => self.swap(store, level),
            8 => self.delete(store, level),
            9 | 10 => self.batch(store, level),
            _ => self.expire_due(store),
        }
    }

    fn step(&mut self, store: &Store) -> Result<(), Violation> {
        let ms = self.rng.within(1, 150);
        self.note(format_args!("{ms} ms"));
        self.disk.advance(ms * 1_000_000);
        store.step();
        Ok(())
    }

    /// Somebody sets the wall clock. Records expire by what it says when it is asked.
    fn jump(&mut self) -> Result<(), Violation> {
        let furthest_ms = if self.rng.one_in(2) { 300 } else { 1_800_000 };
        let offset_ms = self.rng.below(2 * furthest_ms) as i64 - furthest_ms as i64;
        let before = self.now_ms();
        self.note(format_args!("the wall clock is off by {offset_ms} ms"));
        self.disk.set_wall_offset(offset_ms * 1_000_000);
        self.tally.clock_jumps_back += u64::from(self.now_ms() < before);
        Ok(())
    }

    pub(super) fn sync(&mut self, store: &Store) -> Result<(), Violation> {
        let seq = self.seq(store);
        let synced = store.sync();
        self.note(format_args!("sync: {synced:?}"));
        match synced {
            Ok(_) => {
                (self.durable, self.written) = (self.durable.max(seq), self.written.max(seq));
                Ok(())
            }
            Err(error) if self.is_excused(&error) => Ok(()),
            Err(error) => Err(format!("I20h: sync failed: {error:?}")),
        }
    }

    fn wait(&mut self, store: &Store) -> Result<(), Violation> {
        let Some(receipt) = self.receipts.last().copied() else { return Ok(()) };
        let waited = store.wait(receipt);
        self.note(format_args!("wait for entry {}: {waited:?}", receipt.seq));
        match waited {
            Err(error) if !self.is_excused(&error) => Err(format!("I20h: wait failed: {error:?}")),
            _ => Ok(()),
        }
    }

    /// An id of a few dense pages, or one that is alone in its slab.
    pub(super) fn id(&mut self) -> u32 {
        let number = self.rng.below(100) as u32;
        if self.rng.one_in(5) { (number % 8 + 1) * 1_000_000 } else { number * 3 + 1 }
    }

    fn token(&mut self, id: u32) -> Token {
        let persistent = self.rng.one_in(8);
        Token::builder(TokenId(id))
            .flags(if persistent { Flags::PERSISTENT } else { Flags::empty() })
            .weight(self.rng.below(100) as f32)
            .timestamp(self.rng.below(OLD) as u32)
            .build()
            .expect("in range")
    }

    /// What changes do to the map.
    fn after(&self, changes: &[Mutation]) -> Map {
        let mut map = self.map.clone();
        for change in changes {
            match change {
                Mutation::Put(token) => {
                    map.insert(token.id().0, (*token, 0));
                }
                Mutation::Delete(id) => {
                    map.remove(&id.0);
                }
                Mutation::Expire(id, at) => {
                    if let Some((_, expiry)) = map.get_mut(&id.0) {
                        *expiry = ms(*at);
                    }
                }
            }
        }
        map
    }

    /// An operation that should have made these changes ended like this.
    fn ended(
        &mut self,
        changes: &[Mutation],
        result: Result<Option<Receipt>, Error>,
    ) -> Result<(), Violation> {
        self.note(format_args!("{}: {result:?}", In(changes)));
        let after = self.after(changes);
        let more = |now: usize, then: u64, max: u64| then > max.max(now as u64);
        let records = more(self.map.len(), after.len() as u64, self.max_records);
        let bytes = more(pages(&self.map) as usize, pages(&after), self.max_pages);
        match result {
            Ok(receipt) => {
                if (records || bytes) && !self.reclaims {
                    return Err("I31: a write that exceeds the quota was made".to_owned());
                }
                self.receipts.extend(receipt);
                self.tally.changes += 1;
                self.map = after;
                Ok(())
            }
            Err(Error::Quota(_)) if records || bytes => {
                self.tally.refused_for_records += u64::from(records);
                self.tally.refused_for_bytes += u64::from(bytes);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.tally.refused_by_the_ring += 1;
                Ok(())
            }
            Err(error) if self.is_excused(&error) => Ok(()),
            Err(Error::Quota(error)) => Err(format!("I31: {changes:?} would fit: {error}")),
            Err(error) => Err(format!("I20h: {changes:?} failed: {error:?}")),
        }
    }

    fn put(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let token = self.token(id);
        if self.rng.one_in(3) {
            let exists = self.map.contains_key(&id);
            return match store.at(level).begin().create(&token) {
                Err(Error::Exists { .. }) if exists => Ok(()),
                Ok(_) if exists => Err(format!("I32: {id} was created, and was there")),
                result => self.ended(&[Mutation::Put(token)], result.map(Some)),
            };
        }
        if self.rng.one_in(2) {
            let result = store.at(level).begin().put(&token);
            return self.ended(&[Mutation::Put(token)], result.map(Some));
        }
        let (ttl, before) = (Duration::from_millis(self.rng.within(1, 500)), self.now_ms());
        let result = store.at(level).begin().put_for(&token, ttl);
        let at = ms(read(store.expires_at(token.id()))?);
        // Where records are reclaimed, it may have made way at once.
        let is_there = !self.reclaims || read(store.get(token.id()))?.is_some();
        if result.is_ok() && is_there {
            self.is_from_now(before, ttl, at)?;
        }
        self.ended(
            &[Mutation::Put(token), Mutation::Expire(token.id(), at_ms(at))],
            result.map(Some),
        )
    }

    fn expire(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = TokenId(self.id());
        let ttl = self.rng.one_in(2).then(|| Duration::from_millis(self.rng.within(1, 500)));
        let before = self.now_ms();
        let result = store.at(level).begin().expire_in(id, ttl);
        if matches!(result, Ok(made) if made.is_some() != self.map.contains_key(&id.0)) {
            return Err(format!("I32: {id} was told when to expire: {result:?}"));
        }
        let at = ms(read(store.expires_at(id))?);
        // Where records are reclaimed, it may have made way at once.
        let is_there = !self.reclaims || read(store.get(id))?.is_some();
        match ttl {
            _ if !is_there || !matches!(result, Ok(Some(_))) => {}
            None if at != 0 => {
                return Err(format!("I32: {id} is never to expire, and will at {at}"));
            }
            None => {}
            Some(ttl) => self.is_from_now(before, ttl, at)?,
        }
        self.ended(&[Mutation::Expire(id, at_ms(at))], result)
    }

    /// Is it `ttl` from a moment of the operation that began at `before`, in ms since 1970?
    fn is_from_now(&self, before: u64, ttl: Duration, at: u64) -> Result<(), Violation> {
        let ttl = ttl.as_millis() as u64;
        if (before + ttl..=self.now_ms() + ttl).contains(&at) {
            Ok(())
        } else {
            Err(format!("I32: what was to expire {ttl} ms from {before} will at {at}"))
        }
    }

    fn update(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let Some(&(_, expiry)) = self.map.get(&id) else {
            return match store.at(level).begin().update(TokenId(id), Ok) {
                Ok(None) => Ok(()),
                other => Err(format!("I32: {id} is not there and was updated: {other:?}")),
            };
        };
        if self.rng.one_in(4) {
            // Without the hook: under a fuzzer it would end the process.
            let panics = |_| resume_unwind(Box::new("on purpose"));
            let update = || store.at(level).begin().update(TokenId(id), panics);
            self.note(format_args!("an update of {id} panics"));
            self.tally.updates_that_panicked += 1;
            return match catch_unwind(AssertUnwindSafe(update)) {
                Err(_) => Ok(()),
                Ok(other) => Err(format!("I41: a panic went unseen: {other:?}")),
            };
        }
        if self.rng.one_in(8) {
            let result =
                store.at(level).begin().update(TokenId(id), |_| Err(Box::from("no, on purpose")));
            return match result {
                Err(Error::Update(_)) => Ok(()),
                other => Err(format!("I32: a refusal went unseen: {other:?}")),
            };
        }
        let weight = self.rng.below(100) as f32;
        let result = store
            .at(level)
            .begin()
            .update(TokenId(id), |token| Ok(token.to_builder().weight(weight).build()?));
        let next = self.map[&id].0.to_builder().weight(weight).build().expect("in range");
        let changes = [Mutation::Put(next), Mutation::Expire(TokenId(id), at_ms(expiry))];
        self.ended(&changes, result.map(|updated| updated.map(|(_, receipt)| receipt)))
    }

    fn swap(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let next = self.token(id);
        let there = self.map.get(&id).copied();
        let expected = match there {
            Some((token, _)) if self.rng.one_in(2) => token,
            _ => self.token(id),
        };
        let fits = there.is_some_and(|(token, _)| token == expected);
        let expiry = there.map_or(0, |(_, expiry)| expiry);
        let changes = [Mutation::Put(next), Mutation::Expire(TokenId(id), at_ms(expiry))];
        match store.at(level).begin().compare_and_swap(&expected, &next) {
            Ok(None) if !fits => {
                self.note(format_args!("a swap of {id} is refused"));
                self.tally.swaps_refused += 1;
                Ok(())
            }
            Ok(made) if made.is_some() != fits => Err(format!("I32: swap of {id}: {made:?}")),
            result => {
                self.tally.swaps += 1;
                self.ended(&changes, result)
            }
        }
    }

    fn delete(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let id = self.id();
        let result = store.at(level).begin().delete(TokenId(id));
        if matches!(result, Ok(made) if made.is_some() != self.map.contains_key(&id)) {
            return Err(format!("I32: {id} was deleted: {result:?}"));
        }
        self.ended(&[Mutation::Delete(TokenId(id))], result)
    }

    fn batch(&mut self, store: &Store, level: Level) -> Result<(), Violation> {
        let mut changes = Vec::new();
        let most = if self.rng.one_in(3) { 45 } else { 12 };
        for _ in 0..self.rng.within(1, most) {
            let id = self.id();
            changes.push(match self.rng.below(5) {
                0 => Mutation::Delete(TokenId(id)),
                1 => Mutation::Expire(TokenId(id), at_ms(self.rng.below(3) * 1_000_000)),
                _ => Mutation::Put(self.token(id)),
            });
        }
        let mut batch = Batch::new();
        batch.extend(changes.iter().copied());
        self.tally.batches += 1;
        let result = store.at(level).begin().apply(&batch);
        self.ended(&changes, result.map(Some))?;
        if self.reclaims || self.disk.is_crashed() {
            return Ok(());
        }
        let ids: Vec<_> = (0..20).map(|_| TokenId(self.id())).collect();
        let expected: Vec<_> = ids.iter().map(|id| Some(self.map.get(&id.0)?.0)).collect();
        if read(store.get_many(&ids))? == expected {
            Ok(())
        } else {
            Err(format!("I32: get_many {ids:?}"))
        }
    }

    fn expire_due(&mut self, store: &Store) -> Result<(), Violation> {
        let limit = self.rng.within(1, 20) as usize;
        let before = self.now_ms();
        let result = store.expire_due(limit);
        self.note(format_args!("expire at most {limit}: {result:?}"));
        if self.disk.is_crashed() {
            return Ok(());
        }
        let due = |(_, at): &(Token, u64)| *at != 0 && *at <= before;
        let ids: Vec<_> =
            self.map.iter().filter(|(_, value)| due(value)).map(|(id, _)| *id).collect();
        match result {
            Ok(count) if count == ids.len().min(limit) => {
                for id in &ids[..count] {
                    self.map.remove(id);
                }
                self.tally.expired += count as u64;
                Ok(())
            }
            Err(error) if is_full(&error) || self.is_excused(&error) => {
                // Some may be gone: what is left is told by the store.
                let left: BTreeSet<_> = read(store.iter())?.map(|token| token.id().0).collect();
                self.map.retain(|id, value| !due(value) || left.contains(id));
                self.tally.expired += 1;
                Ok(())
            }
            other => Err(format!("I32: {other:?} of {} expired, at most {limit}", ids.len())),
        }
    }

    /// The simulated clock stands still between operations.
    fn now_ms(&self) -> u64 {
        self.clock.wall_ns() / 1_000_000
    }
}

/// Changes in a trace, without the times of tokens.
struct In<'a>(&'a [Mutation]);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, change) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            match change {
                Mutation::Put(token) => {
                    write!(f, "put {} of weight {}", token.id(), token.weight())?;
                    if token.flags().contains(Flags::PERSISTENT) {
                        f.write_str(", persistent")?;
                    }
                }
                Mutation::Delete(id) => write!(f, "delete {id}")?,
                Mutation::Expire(id, at) => write!(f, "expire {id} at {}", ms(*at))?,
            }
        }
        Ok(())
    }
}

/// Is there no room in the ring?
fn is_full(error: &Error) -> bool {
    matches!(error, Error::Log(bulla_wal::Error::Full))
}
