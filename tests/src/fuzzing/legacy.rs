//! Any bytes as a log of the store before Bulla: parts without a hole, every whole record found,
//! and no other.
//!
//! What a record is, is written down here once more, from its description: the reader's code is
//! not asked.

use bulla_engine::Token;

const HEADER_LEN: usize = 24;
const CRC_LEN: usize = 4;
const KIND: usize = 8;
const PAYLOAD_LEN: usize = 9;
/// A payload that is longer is not searched for where no record begins.
const MAX_SEARCHED_LEN: usize = 4096;
const TOKEN_CREATED: u8 = 1;
const KINDS: std::ops::RangeInclusive<u8> = TOKEN_CREATED..=4;

/// What was found in a file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Read {
    pub tokens: usize,
    pub other_records: usize,
    pub gaps: usize,
}

/// Reads a legacy log.
///
/// # Panics
/// When a part is not what its bytes say, or a whole record is in none.
pub fn legacy(input: &[u8]) -> Read {
    let parts = bulla_cli::parts_of_legacy(input).expect("bytes in memory can be read");
    let (mut read, mut end, mut after_gap) = (Read::default(), 0, false);
    for part in &parts {
        assert_eq!(part.at, end, "a hole, or a byte that is read twice");
        end += part.len;
        let at = usize::try_from(part.at).expect("in memory");
        let bytes = &input[at..usize::try_from(end).expect("in memory")];
        if part.is_record {
            assert_eq!(whole(&input[at..]), Some(bytes), "no record at {at}");
            assert_eq!(token_of(bytes), part.token, "at {at}");
            read.tokens += usize::from(part.token.is_some());
            read.other_records += usize::from(part.token.is_none());
        } else {
            assert!(!after_gap && !bytes.is_empty() && part.token.is_none(), "a gap at {at}");
            let missed = (at..at + bytes.len()).find(|at| is_searched(&input[*at..]));
            assert_eq!(missed, None, "a whole record is in the gap at {at}");
            read.gaps += 1;
        }
        after_gap = !part.is_record;
    }
    assert_eq!(end, input.len() as u64, "the rest is in no part");
    read
}

/// Makes the checksums of what looks like records fit, one after the other.
pub fn mend_legacy(mut input: &mut [u8]) {
    while let Some(len) = len_of(input) {
        let (record, rest) = input.split_at_mut(len);
        let (covered, crc) = record.split_at_mut(len - CRC_LEN);
        crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
        input = rest;
    }
}

/// Bytes of the record that begins here, if there are as many as its header says.
fn len_of(bytes: &[u8]) -> Option<usize> {
    let payload = bytes.get(PAYLOAD_LEN..)?.first_chunk()?;
    let len = HEADER_LEN + usize::try_from(u32::from_le_bytes(*payload)).ok()? + CRC_LEN;
    (len <= bytes.len()).then_some(len)
}

/// The record that begins here, if its checksum fits.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let record = &bytes[..len_of(bytes)?];
    let (covered, crc) = record.split_at(record.len() - CRC_LEN);
    (crc32fast::hash(covered).to_le_bytes() == *crc).then_some(record)
}

/// Does a record begin here that must be found behind any damage?
fn is_searched(bytes: &[u8]) -> bool {
    let is_short = |len: usize| len <= HEADER_LEN + MAX_SEARCHED_LEN + CRC_LEN;
    len_of(bytes).is_some_and(is_short) && KINDS.contains(&bytes[KIND]) && whole(bytes).is_some()
}

fn token_of(record: &[u8]) -> Option<Token> {
    let payload = record[HEADER_LEN..record.len() - CRC_LEN].try_into().ok()?;
    (record[KIND] == TOKEN_CREATED).then(|| Token::from_bytes(payload).ok()).flatten()
}
