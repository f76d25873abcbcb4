//! One entry by its position.
//!
//! An entry's LSN lies inside a frame, and frames are found only one from another: so
//! this walks over headers from the nearest frame that it knows, and remembers some of
//! those that it passes. Owns that bounded index.

use std::collections::BTreeMap;

use super::map::{MAX_LOOKS, SMALL_CHUNK};
use super::track::{Begin, Track};
use super::{Current, Reader, body, damaged, purged};
use bulla_storage::format::{Entries, EntriesAt, Frame, FrameKind};
use bulla_storage::frames::reader::{Found, Step};
use bulla_storage::{EntryView, Epoch, Error, Lsn, Result};

/// Frames that are remembered at most.
const MAX_KNOWN: usize = 1024;
/// At first no two of them are nearer than this.
const FIRST_STRIDE: u64 = 1024 * 1024;

/// What random reads remember.
#[derive(Debug)]
pub(super) struct Random {
    /// Of which generation of the map.
    generation: u64,
    known: BTreeMap<Lsn, Begin>,
    stride: u64,
    /// Holds the frame that was read last.
    track: Option<Track>,
}

impl Default for Random {
    fn default() -> Self {
        Self { generation: 0, known: BTreeMap::new(), stride: FIRST_STRIDE, track: None }
    }
}

impl Random {
    fn nearest(&self, lsn: Lsn) -> Option<Begin> {
        self.known.range(..=lsn).next_back().map(|(_, begin)| *begin)
    }

    fn note(&mut self, begin: Begin) {
        let lsn = begin.cursor.lsn;
        let near = self.nearest(lsn).is_some_and(|known| {
            known.number == begin.number && lsn.distance_from(known.cursor.lsn) < self.stride
        });
        if near {
            return;
        }
        self.known.insert(lsn, begin);
        if self.known.len() > MAX_KNOWN {
            self.stride = self.stride.saturating_mul(2);
            let mut keep = false;
            self.known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

impl Reader {
    /// The entry at the position that its receipt gave, whatever was read before; `None`
    /// when it may not be shown (yet). Of another process's log it shows durable entries
    /// only, whatever the visibility. Does not change what [`next`](Self::next) gives.
    ///
    /// Reads the headers of the frames before it in its segment, the first time; then
    /// those of about 1 MiB.
    ///
    /// # Errors
    /// [`Error::NoEntry`] when no entry starts there, [`Error::Purged`],
    /// [`Error::Diverged`], [`Error::Corrupt`], [`Error::Io`], [`Error::Poisoned`] as in
    /// [`next`](Self::next).
    pub fn read(&mut self, epoch: Epoch, lsn: Lsn) -> Result<Option<EntryView<'_>>> {
        let mut looks = 1;
        loop {
            let mark = self.durable(lsn)?;
            self.map.history().check(epoch, lsn)?;
            if lsn >= mark {
                self.check_poison()?;
                return Ok(None);
            }
            match self.seek(lsn, mark)? {
                Ok(current) => return self.give(current),
                // The log has changed: it was purged, or opened by another writer.
                Err(_) if looks < MAX_LOOKS && self.map.refresh(&self.disk)? => looks += 1,
                Err(_) if lsn < self.map.low_water() => return Err(purged(&self.map, lsn)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the entry, and leaves the frame in memory; fails softly when it is not there.
    fn seek(&mut self, lsn: Lsn, mark: Lsn) -> Result<Result<Current>> {
        let Self { disk, map, random, .. } = self;
        if random.generation != map.generation {
            *random = Random { generation: map.generation, ..Random::default() };
        }
        let first = map.locate(disk, false, |first| first.lsn <= lsn)?;
        let known = random.nearest(lsn).filter(|known| known.cursor.lsn > first.cursor.lsn);
        let Some(mut track) = Track::open(disk, map, known.unwrap_or(first), SMALL_CHUNK)? else {
            return Ok(Err(purged(map, lsn)));
        };
        let sector = map.sector();
        loop {
            track.raise(mark);
            let end = match track.walk.peek()? {
                Ok(frame) if frame.end(sector) <= lsn => {
                    random.note(track.here());
                    let _ = track.walk.skip()?;
                    continue;
                }
                Ok(frame) if frame.kind != FrameKind::Data => return Err(Error::NoEntry { lsn }),
                Ok(_) => match track.walk.step()? {
                    Step::Frame(Found { frame, offset, body, .. }) => {
                        let at = entry_at(&frame, body, lsn).ok_or(Error::NoEntry { lsn })?;
                        random.track = Some(track);
                        return Ok(Ok(Current { frame, offset, at }));
                    }
                    Step::End(end) => end,
                },
                Err(end) => end,
            };
            if !track.cross(disk, map)? {
                return Ok(Err(damaged(&track, mark, end)));
            }
        }
    }

    fn give(&mut self, mut current: Current) -> Result<Option<EntryView<'_>>> {
        let Some(track) = &mut self.random.track else { return Ok(None) };
        Ok(current.next(body(track, &current)?))
    }
}

fn entry_at(frame: &Frame, body: &[u8], lsn: Lsn) -> Option<EntriesAt> {
    let mut entries = Entries::new(frame, body);
    loop {
        let at = entries.at();
        let found = entries.next()?.ok()?;
        if found.lsn >= lsn {
            return (found.lsn == lsn).then_some(at);
        }
    }
}
