//! The write-ahead log of the token store that Bulla replaces, read only.
//!
//! Owns its format, and the treatment of its defects: it has no magic, no positions and no
//! lock, and its writer appended after what a crash had cut short. So the reader trusts
//! nothing before the CRC matches, no length sizes an allocation, and where no record begins
//! it searches for the next one. Tested below, and as a program in `cli/tests/`.
//!
//! | bytes of a record | what, little-endian |
//! |---|---|
//! | 8 | time, in us since 1970 |
//! | 1 | kind: 1 token created, 2 experience added, 3 connection updated, 4 snapshot |
//! | 4 | bytes of the payload |
//! | 11 | reserved |
//! | n | payload: of kind 1 a token |
//! | 4 | CRC-32 (IEEE) of everything before it |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bulla_engine::{TOKEN_LEN, Token, TokenError};

const TIME: usize = 0;
const KIND: usize = TIME + 8;
const PAYLOAD_LEN: usize = KIND + 1;
const RESERVED: usize = PAYLOAD_LEN + 4;
const HEADER_LEN: usize = RESERVED + 11;
const CRC_LEN: usize = 4;
/// Bytes of a record that holds a token.
pub(crate) const TOKEN_RECORD_LEN: u64 = (HEADER_LEN + TOKEN_LEN + CRC_LEN) as u64;

const _: () = assert!(TOKEN_RECORD_LEN == 92);

/// The kind of a token.
const TOKEN_CREATED: u8 = 1;
/// The highest kind that any version wrote.
const LAST_KIND: u8 = 4;

/// The most bytes of the file in memory.
const READ_LEN: usize = 1 << 20;
/// The longest payload that a search considers.
const MAX_SEARCHED_LEN: u64 = 4096;
/// Longer payloads are read for their CRC as long as the bytes read in vain are at most this
/// many times the file: a file with false lengths must not take forever.
const MAX_VAIN: u64 = 16;

/// A part of the file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Part {
    /// An intact record.
    Record(Record),
    /// Bytes that are not a record.
    Gap { len: u64, why: Gap },
}

/// A record whose CRC matches.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Record {
    pub(crate) time_us: u64,
    pub(crate) body: Body,
}

/// What a record holds.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Body {
    Token(Token),
    /// 64 bytes that are not a valid token.
    Refused(TokenError),
    /// Something other than a token.
    Other {
        kind: u8,
        len: u64,
    },
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Gap {
    /// Fewer bytes than a token needs, followed by a record: a crash or a second writer cut a
    /// record short. No complete token can be missing there.
    CutShort,
    /// A token may have been there, and is lost.
    Damaged,
    /// No record follows.
    TornTail,
    /// No record follows, and all bytes are zeros.
    Zeros,
}

impl Part {
    /// Returns its length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        match self {
            Self::Gap { len, .. } => *len,
            Self::Record(Record { body: Body::Other { len, .. }, .. }) => {
                (HEADER_LEN + CRC_LEN) as u64 + *len
            }
            Self::Record(_) => TOKEN_RECORD_LEN,
        }
    }
}

/// Bytes that can be read at any position.
pub(crate) trait Source {
    /// Fills `bytes` from `at` on.
    ///
    /// # Errors
    /// Those of reading; [`io::ErrorKind::UnexpectedEof`] when there are fewer bytes.
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, at)
    }
}

impl Source for &[u8] {
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let read = rest.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(read);
        Ok(())
    }
}

/// Reads a file from its first byte to the last one that it had when it was opened.
#[derive(Debug)]
pub(crate) struct Reader<S = File> {
    source: S,
    len: u64,
    at: u64,
    /// Bytes of the file from `window_at` on.
    read_buffer: Vec<u8>,
    window_at: u64,
    /// Bytes of long payloads that were read, and whose CRC did not match.
    vain: u64,
    /// A record that was found after a gap.
    next: Option<(Record, u64)>,
}

impl Reader {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::over(file, len))
    }
}

impl<S: Source> Reader<S> {
    /// Reads the first `len` bytes of a source.
    pub(crate) const fn over(source: S, len: u64) -> Self {
        Self { source, len, at: 0, read_buffer: Vec::new(), window_at: 0, vain: 0, next: None }
    }

    /// Returns the length of the file when it was opened.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Returns the next part and where it begins; `None` at the end.
    ///
    /// # Errors
    /// Those of reading; [`io::ErrorKind::UnexpectedEof`] when the file has become shorter.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Part)>> {
        let at = self.at;
        if at == self.len {
            return Ok(None);
        }
        let found = match self.next.take() {
            None => self.record(at, u64::MAX)?,
            found => found,
        };
        if let Some((record, len)) = found {
            self.at += len;
            return Ok(Some((at, Part::Record(record))));
        }
        let (len, all_zeros) = self.search(at)?;
        self.at += len;
        let why = match &self.next {
            Some(_) if len < TOKEN_RECORD_LEN => Gap::CutShort,
            Some(_) => Gap::Damaged,
            None if all_zeros => Gap::Zeros,
            None => Gap::TornTail,
        };
        Ok(Some((at, Part::Gap { len, why })))
    }

    /// Searches for a record after `at`, where none begins, and keeps it. Returns how many
    /// bytes precede it, and whether all of them are zeros.
    fn search(&mut self, at: u64) -> io::Result<(u64, bool)> {
        let mut all_zeros = true;
        for candidate in at..self.len {
            if candidate > at {
                self.next = self.record(candidate, MAX_SEARCHED_LEN)?;
                if self.next.is_some() {
                    return Ok((candidate - at, all_zeros));
                }
            }
            all_zeros &= self.loaded(candidate, 1)?.first() == Some(&0);
        }
        Ok((self.len - at, all_zeros))
    }

    /// Returns the record at `at` and its length, if its CRC matches. With a bound for its
    /// payload only the kinds that any version wrote count.
    fn record(&mut self, at: u64, max_payload: u64) -> io::Result<Option<(Record, u64)>> {
        let left = self.len - at;
        if left < (HEADER_LEN + CRC_LEN) as u64 {
            return Ok(None);
        }
        let is_search = max_payload != u64::MAX;
        let header = self.loaded(at, HEADER_LEN)?;
        let (kind, time_us) = (header[KIND], u64::from_le_bytes(array(&header[TIME..])));
        let payload_len = u64::from(u32::from_le_bytes(array(&header[PAYLOAD_LEN..])));
        let len = HEADER_LEN as u64 + payload_len + CRC_LEN as u64;
        let is_likely = (1..=LAST_KIND).contains(&kind);
        if len > left || payload_len > max_payload || (is_search && !is_likely) {
            return Ok(None);
        }
        if payload_len > MAX_SEARCHED_LEN && self.vain > self.len.saturating_mul(MAX_VAIN) {
            return Ok(None);
        }
        if !self.has_crc(at, len - CRC_LEN as u64)? {
            self.vain += if payload_len > MAX_SEARCHED_LEN { len } else { 0 };
            return Ok(None);
        }
        let body = if kind == TOKEN_CREATED && payload_len == TOKEN_LEN as u64 {
            let bytes = array(self.loaded(at + HEADER_LEN as u64, TOKEN_LEN)?);
            Token::from_bytes(&bytes).map_or_else(Body::Refused, Body::Token)
        } else {
            Body::Other { kind, len: payload_len }
        };
        Ok(Some((Record { time_us, body }, len)))
    }

    /// Returns whether the `len` bytes from `at` on are followed by their CRC.
    fn has_crc(&mut self, at: u64, len: u64) -> io::Result<bool> {
        let mut crc = crc32fast::Hasher::new();
        let (mut from, end) = (at, at + len);
        while from < end {
            let loaded = self.loaded(from, 1)?;
            let wanted = usize::try_from(end - from).unwrap_or(usize::MAX);
            let part = &loaded[..loaded.len().min(wanted)];
            crc.update(part);
            from += part.len() as u64;
        }
        Ok(crc.finalize() == u32::from_le_bytes(array(self.loaded(end, CRC_LEN)?)))
    }

    /// Returns the bytes in memory from `at` on: at least `len`, which the file must have.
    fn loaded(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let start = at.checked_sub(self.window_at).and_then(|start| usize::try_from(start).ok());
        let is_there =
            start.is_some_and(|start| start.saturating_add(len) <= self.read_buffer.len());
        if !is_there {
            let left = usize::try_from(self.len - at).unwrap_or(usize::MAX);
            self.read_buffer.resize(left.min(READ_LEN), 0);
            self.window_at = at;
            self.source.read_exact_at(&mut self.read_buffer, at)?;
        }
        let start = if is_there { start.unwrap_or_default() } else { 0 };
        Ok(&self.read_buffer[start..])
    }
}

/// Returns the first bytes of a slice that is long enough.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use bulla_tests::legacy::{TIME_US, created, record, token};

    use super::*;

    fn parts(bytes: &[u8]) -> Vec<(u64, Part)> {
        let mut reader = Reader::over(bytes, bytes.len() as u64);
        let mut parts = Vec::new();
        while let Some(part) = reader.next().expect("read") {
            parts.push(part);
        }
        let mut end = 0;
        for (at, part) in &parts {
            assert_eq!(*at, end, "the parts are the file, without a hole");
            end += part.len();
        }
        assert_eq!(end, bytes.len() as u64);
        parts
    }

    fn tokens(parts: &[(u64, Part)]) -> Vec<u32> {
        let local = |part: &Part| match part {
            Part::Record(Record { body: Body::Token(token), .. }) => Some(token.id().local()),
            _ => None,
        };
        parts.iter().filter_map(|(_, part)| local(part)).collect()
    }

    fn gaps(parts: &[(u64, Part)]) -> Vec<(u64, u64, Gap)> {
        let gap = |(at, part): &(u64, Part)| match part {
            Part::Gap { len, why } => Some((*at, *len, *why)),
            Part::Record(_) => None,
        };
        parts.iter().filter_map(gap).collect()
    }

    #[test]
    fn record_of_a_token_takes_92_bytes_and_reads_back() {
        let bytes = created(5);
        assert_eq!(bytes.len(), 92);
        let record = Record { time_us: TIME_US, body: Body::Token(token(5, 1.5)) };
        assert_eq!(parts(&bytes), [(0, Part::Record(record))]);
    }

    #[test]
    fn every_cut_leaves_the_records_before_it_and_a_torn_tail() {
        let bytes = [created(1), created(2)].concat();
        for end in 0..bytes.len() {
            let found = parts(&bytes[..end]);
            assert_eq!(tokens(&found).len(), end / 92, "cut at {end}");
            let torn = (end % 92 != 0).then_some((
                (end / 92 * 92) as u64,
                (end % 92) as u64,
                Gap::TornTail,
            ));
            assert_eq!(gaps(&found), torn.into_iter().collect::<Vec<_>>(), "cut at {end}");
        }
    }

    #[test]
    fn every_flipped_byte_costs_its_own_record_only() {
        let bytes = [created(1), created(2), created(3)].concat();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x41;
            let found = parts(&bytes);
            let lost = u32::try_from(at / 92 + 1).expect("small");
            let kept: Vec<_> = (1..=3).filter(|local| *local != lost).collect();
            assert_eq!(tokens(&found), kept, "byte {at}");
            let why = if lost == 3 { Gap::TornTail } else { Gap::Damaged };
            assert_eq!(gaps(&found), [(u64::from(lost - 1) * 92, 92, why)], "byte {at}");
        }
    }

    #[test]
    fn records_after_every_torn_one_are_found() {
        for torn in 1..92 {
            let bytes = [created(1), created(2)[..torn].to_vec(), created(3)].concat();
            let found = parts(&bytes);
            assert_eq!(tokens(&found), [1, 3], "torn after {torn} bytes");
            assert_eq!(gaps(&found), [(92, torn as u64, Gap::CutShort)], "torn after {torn} bytes");
        }
    }

    #[test]
    fn length_beyond_the_file_is_not_trusted() {
        for len in [u32::MAX, 1 << 30, 200] {
            let mut lie = created(2);
            lie[PAYLOAD_LEN..RESERVED].copy_from_slice(&len.to_le_bytes());
            let found = parts(&[created(1), lie, created(3)].concat());
            assert_eq!(tokens(&found), [1, 3], "{len}");
            assert_eq!(gaps(&found), [(92, 92, Gap::Damaged)], "{len}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_told_from_zeros_before_a_record() {
        let zeros = vec![0; 4096];
        let found = parts(&[created(1), zeros.clone()].concat());
        assert_eq!((tokens(&found), gaps(&found)), (vec![1], vec![(92, 4096, Gap::Zeros)]));
        let found = parts(&[created(1), zeros, created(2)].concat());
        assert_eq!((tokens(&found), gaps(&found)), (vec![1, 2], vec![(92, 4096, Gap::Damaged)]));
    }

    #[test]
    fn other_kinds_known_or_not_and_of_any_length_are_skipped_whole() {
        let long = vec![7; 3 * READ_LEN];
        for (kind, payload) in [(2, &b"experience"[..]), (4, &[]), (200, b"?"), (4, &long)] {
            let found = parts(&[created(1), record(kind, payload), created(2)].concat());
            assert_eq!((tokens(&found), gaps(&found)), (vec![1, 2], vec![]), "kind {kind}");
            let other = Body::Other { kind, len: payload.len() as u64 };
            assert!(matches!(&found[1].1, Part::Record(record) if record.body == other));
        }
    }

    #[test]
    fn file_with_false_lengths_takes_time_in_proportion_to_its_length() {
        // Each header claims everything that follows as its payload.
        let len = 4_u32 << 20;
        let mut bytes = Vec::new();
        while bytes.len() < len as usize {
            let left = len - u32::try_from(bytes.len()).expect("small");
            let mut lie = record(TOKEN_CREATED, b"lie");
            lie[PAYLOAD_LEN..RESERVED].copy_from_slice(&left.saturating_sub(100).to_le_bytes());
            bytes.extend(lie);
            bytes.extend(created(1));
        }
        let mut reader = Reader::over(&bytes[..], bytes.len() as u64);
        let mut found = 0;
        while let Some((_, part)) = reader.next().expect("read") {
            found += u64::from(matches!(part, Part::Record(_)));
        }
        assert_eq!(found, bytes.len() as u64 / 123);
        assert!(reader.vain <= (MAX_VAIN + 1) * reader.len, "{} bytes in vain", reader.vain);
    }

    #[test]
    fn file_that_becomes_shorter_is_an_error_and_not_its_end() {
        let dir = tempfile::tempdir().expect("made");
        let path = dir.path().join("shorter");
        std::fs::write(&path, created(1)).expect("written");
        let mut reader = Reader::new(File::open(&path).expect("opened")).expect("its length");
        std::fs::write(&path, b"").expect("written");
        let error = reader.next().expect_err("nothing is there");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
