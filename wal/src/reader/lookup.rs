//! One entry by its position.
//!
//! An entry's LSN lies inside a frame, and frames are found only one from another: so
//! this walks over headers from the nearest frame that it knows, and remembers some of
//! those that it passes. Owns that bounded index.

use std::collections::BTreeMap;

use super::cursor::{Begin, Track};
use super::index::{MAX_LOOKS, Map, SMALL_CHUNK};
use super::{Current, FIRST_SEQ, Reader, body, damaged, purged};
use bulla_storage::format::{Entries, EntriesAt, Frame, FrameKind};
use bulla_storage::frames::reader::{Cursor, End, Found, Step};
use bulla_storage::{EntryView, Epoch, Error, FrameDamage, Lsn, Position, Result, Seq};

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
    /// The last known place at or before an entry.
    fn nearest(&self, target: Target) -> Option<Begin> {
        let found = match target {
            Target::Lsn(lsn) => self.known.range(..=lsn).next_back().map(|(_, begin)| begin),
            Target::Seq(seq) => self.known.values().rfind(|begin| begin.cursor.seq <= seq),
        };
        found.copied()
    }

    fn note(&mut self, begin: Begin) {
        let lsn = begin.cursor.lsn;
        let near = self.nearest(Target::Lsn(lsn)).is_some_and(|known| {
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
        self.read_target(Target::Lsn(lsn), Some(epoch))
    }

    /// Returns the entry of a number, as [`read`](Self::read) does by its position.
    ///
    /// The number of an entry that a crash took is given to another one under a later
    /// epoch: compare the [`epoch`](EntryView::epoch) where that matters.
    ///
    /// # Errors
    /// [`Error::Purged`], [`Error::Corrupt`], [`Error::Io`], [`Error::Poisoned`] as in
    /// [`next`](Self::next).
    pub fn read_seq(&mut self, seq: Seq) -> Result<Option<EntryView<'_>>> {
        if seq < FIRST_SEQ {
            return Ok(None);
        }
        self.read_target(Target::Seq(seq), None)
    }

    fn read_target(
        &mut self,
        target: Target,
        epoch: Option<Epoch>,
    ) -> Result<Option<EntryView<'_>>> {
        let mut looks = 1;
        let mut mark = self.durable(target.lsn())?;
        loop {
            if let (Target::Lsn(lsn), Some(epoch)) = (target, epoch) {
                self.map.timeline().check(epoch, lsn)?;
            }
            let sought = if target.lsn() < mark { self.seek(target, mark)? } else { Ok(None) };
            match sought {
                Ok(Some(current)) => return self.give(current),
                // It is not below what was known to be durable: is more so by now?
                Ok(None) => {
                    let further = match target {
                        Target::Lsn(_) => mark,
                        Target::Seq(_) => self.durable(mark)?,
                    };
                    if further <= mark {
                        self.check_poison()?;
                        return Ok(None);
                    }
                    mark = further;
                }
                // The log has changed: it was purged, or opened by another writer.
                Err(_) if looks < MAX_LOOKS && self.map.refresh(&self.disk)? => {
                    looks += 1;
                    mark = self.durable(target.lsn())?;
                }
                Err(_) if target.is_purged(&self.map) => {
                    return Err(purged(&self.map, target.position()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the entry, and leaves the frame in memory; none when it is not below `mark`.
    /// Fails softly when it is not where it must be.
    fn seek(&mut self, target: Target, mark: Lsn) -> Result<Result<Option<Current>>> {
        let Self { disk, map, random, .. } = self;
        if random.generation != map.generation {
            *random = Random { generation: map.generation, ..Random::default() };
        }
        let first = map.locate(disk, false, |first| target.is_at_or_after(first))?;
        if !target.is_at_or_after(&first.cursor) {
            return Ok(Err(purged(map, target.position())));
        }
        let known = random.nearest(target).filter(|known| known.cursor.lsn > first.cursor.lsn);
        let Some(mut track) = Track::open(disk, map, known.unwrap_or(first), SMALL_CHUNK)? else {
            return Ok(Err(purged(map, target.position())));
        };
        let sector = map.sector();
        loop {
            track.raise(mark);
            let end = match track.frame_reader.peek()? {
                Ok(frame) if target.is_after(&frame, sector) => {
                    random.note(track.here());
                    let _ = track.frame_reader.skip()?;
                    continue;
                }
                Ok(frame) if frame.kind != FrameKind::Data => {
                    return Err(target.missing(&track, &frame));
                }
                Ok(_) => match track.frame_reader.step()? {
                    Step::Frame(Found { frame, offset, body, .. }) => {
                        let Some(at) = target.find(&frame, body) else {
                            return Err(target.missing(&track, &frame));
                        };
                        random.track = Some(track);
                        return Ok(Ok(Some(Current { frame, offset, at })));
                    }
                    Step::End(end) => end,
                },
                Err(end) => end,
            };
            if track.lsn() >= mark {
                return Ok(Ok(None));
            }
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

/// What tells the entry that is looked for.
#[derive(Clone, Copy, Debug)]
enum Target {
    Lsn(Lsn),
    Seq(Seq),
}

impl Target {
    /// It is not below this.
    fn lsn(self) -> Lsn {
        match self {
            Self::Lsn(lsn) => lsn,
            Self::Seq(_) => Lsn::ZERO,
        }
    }

    fn position(self) -> Position {
        match self {
            Self::Lsn(lsn) => lsn.into(),
            Self::Seq(seq) => seq.into(),
        }
    }

    fn is_purged(self, map: &Map) -> bool {
        match self {
            Self::Lsn(lsn) => lsn < map.control.low_water.lsn,
            Self::Seq(seq) => seq < map.control.low_water.seq,
        }
    }

    fn is_at_or_after(self, first: &Cursor) -> bool {
        match self {
            Self::Lsn(lsn) => first.lsn <= lsn,
            Self::Seq(seq) => first.seq <= seq,
        }
    }

    fn is_after(self, frame: &Frame, sector: u32) -> bool {
        match self {
            Self::Lsn(lsn) => frame.end(sector) <= lsn,
            Self::Seq(seq) => frame.next_seq() <= seq,
        }
    }

    /// Its place in a frame.
    fn find(self, frame: &Frame, body: &[u8]) -> Option<EntriesAt> {
        let mut entries = Entries::new(frame, body);
        loop {
            let at = entries.at();
            let found = entries.next()?.ok()?;
            let (is_it, is_past) = match self {
                Self::Lsn(lsn) => (found.lsn == lsn, found.lsn > lsn),
                Self::Seq(seq) => (found.seq == seq, found.seq > seq),
            };
            if is_it || is_past {
                return is_it.then_some(at);
            }
        }
    }

    /// No entry of the frame is it, though it is not after the frame.
    fn missing(self, track: &Track, frame: &Frame) -> Error {
        match self {
            Self::Lsn(lsn) => Error::NoEntry { lsn },
            // Numbers have no gaps.
            Self::Seq(_) => damaged(track, frame.lsn, End::Damage(FrameDamage::Seq)),
        }
    }
}
