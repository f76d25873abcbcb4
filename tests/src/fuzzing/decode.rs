//! Any bytes are decoded or refused, and what is decoded is what the bytes say.

use bulla_storage::format::{
    Control, ENTRY_ALIGN, ENTRY_HEADER_LEN, Entries, FRAME_HEADER_LEN, FormatError, Frame, Header,
    LogId, Seed, align_up,
};
use bulla_wal::{Epoch, Lsn, SegmentNumber};

use super::repair;

const SECTOR: u32 = 512;
const EPOCH: Epoch = Epoch(1);

/// What an input was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Of no structure of the format.
    Refused,
    /// A slot of CONTROL.
    Control,
    /// A segment's header.
    Header,
    /// A frame's header.
    Frame,
    /// The entries of a frame.
    Entries,
}

/// Decodes an input: its first byte says as what, of entries the second one how many
/// there should be. What is missing of a sector reads as zeros.
///
/// # Panics
/// When what is decoded would not be encoded to the same bytes.
pub fn decode(input: &[u8]) -> Decoded {
    let Some((kind, bytes)) = input.split_first() else { return Decoded::Refused };
    let valid = match Kind::of(*kind) {
        Kind::Control => control(&sector(bytes)).map(|()| Decoded::Control),
        Kind::Header => header(&sector(bytes)).map(|()| Decoded::Header),
        Kind::Frame => frame(bytes).map(|()| Decoded::Frame),
        Kind::Entries => entries(bytes).map(|()| Decoded::Entries),
    };
    valid.unwrap_or(Decoded::Refused)
}

/// Makes the checksum of an input of [`decode`] fit, so that what it guards is reached.
pub fn mend_decoded(input: &mut [u8]) {
    let Some((kind, bytes)) = input.split_first_mut() else { return };
    match Kind::of(*kind) {
        Kind::Control | Kind::Header => {
            let mut whole = sector(bytes);
            repair::sector(&mut whole);
            bytes.copy_from_slice(&whole[..bytes.len()]);
        }
        Kind::Frame => {
            repair::frame_header(bytes, seed());
        }
        Kind::Entries => {}
    }
}

enum Kind {
    Control,
    Header,
    Frame,
    Entries,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte % 4 {
            0 => Self::Control,
            1 => Self::Header,
            2 => Self::Frame,
            _ => Self::Entries,
        }
    }
}

/// The bytes and zeros after them, up to the end of the shortest sector that holds them.
fn sector(bytes: &[u8]) -> Vec<u8> {
    let longest = bulla_storage::format::MAX_SECTOR as usize;
    let len = bytes.len().next_power_of_two().clamp(SECTOR as usize, longest).max(bytes.len());
    let mut whole = bytes.to_vec();
    whole.resize(len, 0);
    whole
}

fn seed() -> Seed {
    Seed::new(LogId([7; 16]), SegmentNumber(1), EPOCH, 9)
}

fn control(bytes: &[u8]) -> Result<(), FormatError> {
    let control = Control::decode(bytes)?;
    let same = control.encode() == bytes[..control.sector as usize];
    assert!(same, "{control:?} is not what was decoded");
    Ok(())
}

fn header(bytes: &[u8]) -> Result<(), FormatError> {
    let header = Header::decode(bytes)?;
    let same = header.encode() == bytes[..header.sector as usize];
    assert!(same, "{header:?} is not what was decoded");
    Ok(())
}

fn frame(bytes: &[u8]) -> Result<(), FormatError> {
    let (frame, crc) = Frame::decode(bytes, seed(), EPOCH, SECTOR)?;
    let (encoded, encoded_crc) = frame.encode(seed());
    assert!(bytes.starts_with(&encoded), "{frame:?} is not what was decoded");
    assert_eq!(crc, encoded_crc);
    // What a reader goes on with does not overflow.
    assert!(frame.end(SECTOR) >= frame.lsn);
    assert!(frame.disk_len(SECTOR) >= FRAME_HEADER_LEN);
    assert!(frame.next_seq() >= frame.first_seq);
    Ok(())
}

fn entries(input: &[u8]) -> Result<(), FormatError> {
    let (count, body) = input.split_first().ok_or(FormatError::TooShort)?;
    let frame = Frame {
        body_len: u32::try_from(body.len()).map_err(|_| FormatError::TooShort)?,
        entry_count: u32::from(*count),
        ..repair::any_frame()
    };
    let mut next = frame.lsn.plus(FRAME_HEADER_LEN);
    let mut shown = 0;
    for entry in Entries::new(&frame, body) {
        let entry = entry?;
        assert!(entry.lsn >= next, "the entry at {} overlaps the one before", entry.lsn);
        assert_eq!(entry.seq.0, frame.first_seq.0 + shown, "numbers are dense");
        let encoded = encode(entry.kind, entry.payload);
        let at = entry.lsn.distance_from(Lsn(FRAME_HEADER_LEN)) as usize;
        assert!(body[at..].starts_with(&encoded), "{entry:?} is not what was decoded");
        next = entry.lsn.plus(encoded.len() as u64);
        shown += 1;
    }
    assert_eq!(shown, u64::from(frame.entry_count), "as many as the frame says");
    Ok(())
}

fn encode(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("shorter than its frame");
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.resize(ENTRY_HEADER_LEN as usize, 0);
    bytes.extend_from_slice(payload);
    bytes.resize(align_up(bytes.len() as u64, ENTRY_ALIGN) as usize, 0);
    bytes
}
