//! Appending: entries, batches, and payloads that lie in several pieces.
//!
//! Checks what callers append, puts it into the ring, and waits for room where the log's
//! options say so.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::batch::BatchReceipt;
use crate::faults::Ring;
use crate::log::Log;
use crate::ring::{Appended, Refused};
use bulla_storage::{Error, Level, Lsn, Overflow, Receipt, Result, Seq};

/// A payload in more pieces than this is joined before it is appended.
const MAX_PIECES: usize = 16;

impl Log {
    /// Appends an entry of kind 0 at the log's default level.
    ///
    /// Never waits for the disk, only (with [`Overflow::Block`]) for room in the ring.
    /// On return the entry has its place in the log and is in memory; give the receipt
    /// to [`wait`](Self::wait) to learn when its level holds.
    ///
    /// The payload is copied after the entry has its place, and the thread that writes the
    /// frame waits for the copy. So a payload whose pages must be fetched first (a mapped file,
    /// swapped memory) holds up all whose entries are in the same frame, or after it: copy
    /// such bytes before.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::NoSpace`], [`Error::NoSegment`]: nothing was
    /// appended.
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn append(&self, payload: &[u8]) -> Result<Receipt> {
        self.append_with(0, payload, self.level)
    }

    /// Appends an entry of a kind (below 0xFF00; what it means is yours) at a level.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Error::ReservedKind`].
    pub fn append_with(&self, kind: u16, payload: &[u8], level: Level) -> Result<Receipt> {
        self.append_all(&[(kind, payload)], level)
    }

    /// As [`append_with`](Self::append_with), of a payload that may lie in several pieces:
    /// a header and a body, say, as [`chain`](Buf::chain) joins them. They are copied one
    /// by one to their place in the log, and nothing is allocated.
    ///
    /// A payload in more than 16 pieces, or one that does not tell its pieces
    /// ([`chunks_vectored`](Buf::chunks_vectored)), is joined first. On success `payload`
    /// is advanced to its end.
    ///
    /// # Errors
    /// As [`append_with`](Self::append_with).
    ///
    /// # Examples
    /// ```
    /// # let temp = tempfile::tempdir().unwrap();
    /// # let dir = temp.path().join("log");
    /// use bulla_wal::{Level, Log, Options};
    /// use bytes::Buf;
    ///
    /// let log = Log::create(&dir, &Options::new().segment_len(1 << 20))?;
    /// let (header, body) = (7_u32.to_le_bytes(), b"a long body");
    /// log.append_buf(1, header.chain(&body[..]), Level::Balanced)?;
    /// # log.close()?;
    /// # Ok::<(), bulla_wal::Error>(())
    /// ```
    pub fn append_buf(&self, kind: u16, mut payload: impl Buf, level: Level) -> Result<Receipt> {
        // The payload's code runs here and after the append, never between the moment in
        // which the entry gets its place and that in which it is copied: others wait then.
        let len = payload.remaining();
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let count = payload.chunks_vectored(&mut slices);
        let slices = slices.get(..count).unwrap_or(&[]);
        let pieces = self.published.ring.pieces(kind, slices)?;
        if pieces.len() == len as u64 {
            let receipt = self.append_to_ring(level, |ring| ring.append_pieces(pieces, level))?;
            payload.advance(len);
            return Ok(receipt);
        }
        let joined: Bytes = payload.copy_to_bytes(len);
        self.append_with(kind, &joined, level)
    }

    /// Appends several entries that are recovered together or not at all.
    ///
    /// Returns the receipts of all of them; the last one's is the one to wait for.
    ///
    /// # Errors
    /// As [`append`](Self::append), [`Error::ReservedKind`], [`Error::EmptyBatch`].
    pub fn append_batch<'a>(
        &self,
        entries: &'a [(u16, &'a [u8])],
        level: Level,
    ) -> Result<BatchReceipt<'a>> {
        Ok(BatchReceipt::new(self.append_all(entries, level)?, entries))
    }

    fn append_all(&self, entries: &[(u16, &[u8])], level: Level) -> Result<Receipt> {
        let group = self.published.ring.group(entries)?;
        self.append_to_ring(level, |ring| ring.append(group, level))
    }

    /// Appends as soon as there is room for it.
    #[inline]
    fn append_to_ring(
        &self,
        level: Level,
        append: impl Fn(&Ring) -> Result<Appended, Refused>,
    ) -> Result<Receipt> {
        self.check_process()?;
        loop {
            match self.append_once(&append) {
                Ok(place) => return Ok(self.receipt(place, level)),
                Err(refused) => self.make_room(refused)?,
            }
        }
    }

    /// As [`append_batch`](Self::append_batch), but never waits, not even for room in the
    /// ring: for callers that hold a lock of their own.
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch), with [`Error::Full`] whatever
    /// [`Overflow`] says: give the lock back, then
    /// [`wait_for_room`](Self::wait_for_room) and try again.
    pub fn try_append_batch<'a>(
        &self,
        entries: &'a [(u16, &'a [u8])],
        level: Level,
    ) -> Result<BatchReceipt<'a>> {
        self.check_process()?;
        let group = self.published.ring.group(entries)?;
        loop {
            match self.append_once(|ring| ring.append(group, level)) {
                Ok(place) => return Ok(BatchReceipt::new(self.receipt(place, level), entries)),
                Err(Refused::Full | Refused::NoSegment) => {
                    self.leadership.wake_flusher();
                    return Err(Error::Full);
                }
                Err(refused) => self.make_room(refused)?,
            }
        }
    }

    /// Checks that entries can be appended as a batch when there is room for them.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::ReservedKind`], [`Error::EmptyBatch`].
    pub fn check_batch(&self, entries: &[(u16, &[u8])]) -> Result<()> {
        self.published.ring.group(entries).map(drop)
    }

    /// Waits until an append that was refused as [`Error::Full`] may fit. It can return
    /// early: append in a loop.
    ///
    /// # Errors
    /// [`Error::Full`] where [`Overflow::Full`] says not to wait.
    pub fn wait_for_room(&self) -> Result<()> {
        self.check_process()?;
        let ring = &self.published.ring;
        let lacked_segment = ring.lacks_segment() && !ring.is_full();
        self.make_room(if lacked_segment { Refused::NoSegment } else { Refused::Full })
    }

    #[inline]
    fn append_once(
        &self,
        append: impl FnOnce(&Ring) -> Result<Appended, Refused>,
    ) -> Result<(Lsn, Seq), Refused> {
        let appended = append(&self.published.ring)?;
        if appended.wake_flusher {
            self.leadership.wake_flusher();
        }
        Ok((appended.lsn, appended.seq))
    }

    /// Made where it is given out: one that is moved first is stored in parts and loaded as a
    /// whole, which costs a tenth of an append.
    fn receipt(&self, (lsn, seq): (Lsn, Seq), level: Level) -> Receipt {
        Receipt { epoch: self.epoch, lsn, seq, level }
    }

    /// Waits for what an append lacked, or says why it can't be had.
    fn make_room(&self, refused: Refused) -> Result<()> {
        match refused {
            Refused::Full | Refused::NoSegment if self.overflow == Overflow::Full => {
                self.leadership.wake_flusher();
                Err(Error::Full)
            }
            Refused::Full => {
                self.leadership.wait_for_room(|| self.published.ring.is_full());
                Ok(())
            }
            Refused::NoSegment => {
                self.leadership.wait_for_room(|| self.published.ring.lacks_segment());
                Ok(())
            }
            Refused::NoSpare(error) => {
                // There may be space by now: the next append will know.
                if let Some(mut leader) = self.leadership.try_lead_to_append() {
                    leader.core.space();
                    leader.pump();
                }
                if self.published.is_poisoned() {
                    Err(self.published.poison_error())
                } else if self.published.ring.spares() > 0 {
                    Ok(())
                } else if error.is_out_of_space() {
                    Err(Error::NoSpace(error))
                } else {
                    Err(Error::NoSegment(error))
                }
            }
            Refused::Shut if self.published.is_poisoned() => Err(self.published.poison_error()),
            Refused::Shut => Err(Error::Closed),
        }
    }
}
