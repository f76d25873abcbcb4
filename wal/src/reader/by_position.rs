//! Reads one entry by its position or its number. Tested by `tests/tests/readers.rs`.

use super::Reader;
use super::begin::{FIRST_SEQ, purged};
use super::current::{Current, body, damaged};
use super::cursor::ReadCursor;
use super::index::{MAX_LOOKS, SMALL_CHUNK};
use super::lookup::{Lookup, Target};
#[cfg(doc)]
use bulla_storage::Error;
use bulla_storage::format::FrameKind;
use bulla_storage::frames::reader::{Found, Step};
use bulla_storage::{EntryView, Epoch, Lsn, Result, Seq};

impl Reader {
    /// Returns the entry at the position that its receipt gave, whatever was read before; `None`
    /// when it may not be shown (yet). Of another process's log it shows durable entries
    /// only, whatever the visibility. Does not change what [`next`](Self::next) returns.
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
                self.index.timeline().check(epoch, lsn)?;
            }
            let sought = if target.lsn() < mark { self.seek(target, mark)? } else { Ok(None) };
            match sought {
                Ok(Some(current)) => return self.give(current),
                // It is not below what was known to be durable: more may be durable by now.
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
                Err(_) if looks < MAX_LOOKS && self.index.refresh(&self.disk)? => {
                    looks += 1;
                    mark = self.durable(target.lsn())?;
                }
                Err(_) if target.is_purged(&self.index) => {
                    return Err(purged(&self.index, target.position()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the entry, and leaves the frame in memory; none when it is not below `mark`.
    /// Fails softly when it is not where it must be.
    fn seek(&mut self, target: Target, mark: Lsn) -> Result<Result<Option<Current>>> {
        let Self { disk, index, lookup, .. } = self;
        if lookup.generation != index.generation {
            *lookup = Lookup { generation: index.generation, ..Lookup::default() };
        }
        let first = index.locate(disk, false, |first| target.is_at_or_after(first))?;
        if !target.is_at_or_after(&first.cursor) {
            return Ok(Err(purged(index, target.position())));
        }
        let known = lookup.nearest(target).filter(|known| known.cursor.lsn > first.cursor.lsn);
        let Some(mut cursor) = ReadCursor::open(disk, index, known.unwrap_or(first), SMALL_CHUNK)?
        else {
            return Ok(Err(purged(index, target.position())));
        };
        let sector = index.sector();
        loop {
            cursor.raise(mark);
            let end = match cursor.frame_reader.peek()? {
                Ok(frame) if target.is_after(&frame, sector) => {
                    lookup.note(cursor.here());
                    let _ = cursor.frame_reader.skip()?;
                    continue;
                }
                Ok(frame) if frame.kind != FrameKind::Data => {
                    return Err(target.missing(&cursor, &frame));
                }
                Ok(_) => match cursor.frame_reader.step()? {
                    Step::Frame(Found { frame, offset, body, .. }) => {
                        let Some(at) = target.find(&frame, body) else {
                            return Err(target.missing(&cursor, &frame));
                        };
                        lookup.cursor = Some(cursor);
                        return Ok(Ok(Some(Current { frame, offset, at })));
                    }
                    Step::End(end) => end,
                },
                Err(end) => end,
            };
            if cursor.lsn() >= mark {
                return Ok(Ok(None));
            }
            if !cursor.cross(disk, index)? {
                return Ok(Err(damaged(&cursor, mark, end)));
            }
        }
    }

    fn give(&mut self, mut current: Current) -> Result<Option<EntryView<'_>>> {
        let Some(cursor) = &mut self.lookup.cursor else { return Ok(None) };
        Ok(current.next(body(cursor, &current)?))
    }
}
