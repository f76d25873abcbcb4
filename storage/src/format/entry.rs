//! Entries inside a frame's body.

use std::mem::size_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{Structure, structure};
use super::{
    ENTRY_ALIGN, ENTRY_HEADER_LEN, FIRST_INTERNAL_KIND, FRAME_HEADER_LEN, FormatError, Frame,
    align_up,
};
use crate::position::{Lsn, Seq};

const _: () = assert!(size_of::<EntryHeader>() as u64 == ENTRY_HEADER_LEN);

/// Returns the bytes that an entry of `payload_len` takes inside a frame.
#[must_use]
pub const fn entry_len(payload_len: u64) -> u64 {
    align_up(ENTRY_HEADER_LEN + payload_len, ENTRY_ALIGN)
}

/// An entry's header inside a frame's body.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct EntryHeader {
    len: U32,
    kind: U16,
    flags: U16,
}

/// Its fields, for `docs/FORMAT.md`.
pub(super) const ENTRY_HEADER: Structure = structure!(EntryHeader { len, kind, flags });

impl EntryHeader {
    /// Returns the header of an entry with a payload of `len` bytes.
    #[must_use]
    pub fn new(len: u32, kind: u16) -> Self {
        Self { len: len.into(), kind: kind.into(), flags: U16::ZERO }
    }
}

/// One entry of a frame's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Where the entry starts.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The user's kind.
    pub kind: u16,
    /// The user's bytes.
    pub payload: &'a [u8],
}

/// Iterates over the user entries of a body whose CRC was checked.
///
/// Yields one error, and then ends, when the body does not hold what its header says: the CRC
/// missed the damage, or a foreign writer made it.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    lsn: Lsn,
    seq: Seq,
    left: u32,
    failed: bool,
}

/// A place in a body, without the body.
#[derive(Clone, Copy, Debug)]
pub struct EntriesAt {
    /// Where the next entry starts.
    pub lsn: Lsn,
    seq: Seq,
    left: u32,
    left_bytes: usize,
}

impl EntriesAt {
    /// Returns the place of the first entry of `frame`.
    pub fn start(frame: &Frame) -> Self {
        Self {
            lsn: frame.lsn.plus(FRAME_HEADER_LEN),
            seq: frame.first_seq,
            left: frame.entry_count,
            left_bytes: usize::try_from(frame.body_len).unwrap_or(usize::MAX),
        }
    }
}

impl<'a> Entries<'a> {
    /// Returns the entries of `frame`; `body` starts after the header and has `body_len`
    /// bytes or more (padding is ignored).
    #[must_use]
    pub fn new(frame: &Frame, body: &'a [u8]) -> Self {
        let len = usize::try_from(frame.body_len).unwrap_or(usize::MAX);
        let rest = body.get(..len);
        Self {
            rest: rest.unwrap_or(&[]),
            lsn: frame.lsn.plus(FRAME_HEADER_LEN),
            seq: frame.first_seq,
            left: frame.entry_count,
            failed: rest.is_none(),
        }
    }

    /// Resumes in a body whose entries up to `at` were iterated over without an error.
    pub fn resume(body: &'a [u8], at: EntriesAt) -> Self {
        let rest = body.len().checked_sub(at.left_bytes).and_then(|used| body.get(used..));
        Self { rest: rest.unwrap_or(&[]), lsn: at.lsn, seq: at.seq, left: at.left, failed: false }
    }

    /// Returns where the iteration is.
    pub fn at(&self) -> EntriesAt {
        let left_bytes = self.rest.len();
        EntriesAt { lsn: self.lsn, seq: self.seq, left: self.left, left_bytes }
    }

    // Inlined, so that a loop that only counts makes no entries.
    #[inline]
    fn step(&mut self) -> Result<Option<Entry<'a>>, FormatError> {
        loop {
            if self.rest.is_empty() {
                return if self.left == 0 {
                    Ok(None)
                } else {
                    Err(FormatError::Field("entry count"))
                };
            }
            let (header, after) =
                EntryHeader::read_from_prefix(self.rest).map_err(|_| FormatError::TooShort)?;
            let payload_len = u64::from(header.len.get());
            let padded = entry_len(payload_len);
            let len =
                usize::try_from(payload_len).map_err(|_| FormatError::Field("entry length"))?;
            let skip = usize::try_from(padded - ENTRY_HEADER_LEN)
                .map_err(|_| FormatError::Field("entry length"))?;
            let (whole, rest) =
                after.split_at_checked(skip).ok_or(FormatError::Field("entry length"))?;
            let (payload, padding) =
                whole.split_at_checked(len).ok_or(FormatError::Field("entry length"))?;
            // Up to seven bytes, mostly none.
            if header.flags.get() != 0 || padding.iter().any(|byte| *byte != 0) {
                return Err(FormatError::Reserved);
            }
            let (lsn, seq, kind) = (self.lsn, self.seq, header.kind.get());
            self.rest = rest;
            self.lsn = lsn.plus(padded);
            if kind >= FIRST_INTERNAL_KIND {
                continue;
            }
            self.left = self.left.checked_sub(1).ok_or(FormatError::Field("entry count"))?;
            self.seq = Seq(seq.0.saturating_add(1));
            return Ok(Some(Entry { lsn, seq, kind, payload }));
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            self.failed = false;
            self.rest = &[];
            self.left = 0;
            return Some(Err(FormatError::TooShort));
        }
        match self.step() {
            Ok(entry) => entry.map(Ok),
            Err(error) => {
                self.rest = &[];
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}
