//! Makes checksums fit again, so that a fuzzer gets past them to what they guard.
//!
//! Knows no more of the format than where checksums and the chain are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use bulla_storage::format::{FRAME_HEADER_BYTES, Frame, FrameKind, Header, LogId, Seed};
use bulla_wal::{Epoch, Lsn, SegmentNumber, Seq};

use super::logs::{SECTOR, is_segment, sectors_with_a_crc};

/// The CRC of CONTROL and of a segment header, and what comes before it.
const SECTOR_CRC: Range<usize> = 8..12;
const FRAME_MAGIC: Range<usize> = 0..4;
const FRAME_CRC: Range<usize> = 4..8;
const BODY_LEN: Range<usize> = 8..12;
const BODY_CRC: Range<usize> = 12..16;
const PREV_CRC: Range<usize> = 56..60;
const KIND: Range<usize> = 60..62;

/// Mends the CRC of a slot of CONTROL or of a segment header: `bytes` is its sector.
pub(super) fn sector(bytes: &mut [u8]) {
    if let Some(covered) = bytes.get(SECTOR_CRC.end..) {
        let crc = crc32fast::hash(covered);
        put(bytes, SECTOR_CRC, crc);
    }
}

/// Mends the CRC of a frame's header and gives it.
pub(super) fn frame_header(bytes: &mut [u8], seed: Seed) -> Option<u32> {
    let covered = bytes.get(FRAME_CRC.end..FRAME_HEADER_BYTES)?;
    let mut hasher = seed.hasher();
    hasher.update(covered);
    let crc = hasher.finalize();
    put(bytes, FRAME_CRC, crc);
    Some(crc)
}

/// Mends the files of a log. CONTROL and segment headers are taken for `header_sector`
/// bytes long; with `chain` what frames say of the ones before them is mended, too.
pub(super) fn files(files: &mut [(PathBuf, Vec<u8>)], header_sector: usize, chain: bool) {
    let mut renewed = Renewed::new();
    for (path, bytes) in files {
        for at in sectors_with_a_crc(path) {
            if let Some(slot) = bytes.get_mut(at..at + header_sector) {
                sector(slot);
            }
        }
        if is_segment(path) {
            frames(bytes, SECTOR, chain.then_some(&mut renewed));
        }
    }
}

/// How new header CRCs follow from old ones: what makes the chain fit again.
type Renewed = BTreeMap<u32, u32>;

/// Mends every frame of a segment, and with `chain` how they follow each other.
fn frames(file: &mut [u8], sector: usize, mut chain: Option<&mut Renewed>) {
    let Ok(header) = Header::decode(file) else { return };
    let magic = frame_magic();
    for at in (sector..file.len()).step_by(sector) {
        let Some(frame) = file.get_mut(at..).filter(|rest| rest.starts_with(&magic)) else {
            continue;
        };
        if frame.len() < FRAME_HEADER_BYTES {
            continue;
        }
        if let Some(new) = chain.as_ref().and_then(|renewed| renewed.get(&take(frame, PREV_CRC))) {
            put(frame, PREV_CRC, *new);
        }
        let body_len = take(frame, BODY_LEN) as usize;
        let end = (FRAME_HEADER_BYTES + body_len).next_multiple_of(sector);
        if let Some(body) = frame.get(FRAME_HEADER_BYTES..end) {
            let crc = header.seed().body_crc(&[body]);
            put(frame, BODY_CRC, crc);
        }
        let old = take(frame, FRAME_CRC);
        let new = frame_header(frame, header.seed());
        if let (Some(renewed), Some(new)) = (chain.as_mut(), new)
            && !is_seal(frame)
        {
            renewed.insert(old, new);
        }
    }
}

fn is_seal(frame: &[u8]) -> bool {
    [FrameKind::SegmentEnd, FrameKind::CleanShutdown]
        .iter()
        .any(|kind| frame.get(KIND) == Some(&(*kind as u16).to_le_bytes()))
}

/// What every frame starts with.
pub(super) fn frame_magic() -> [u8; 4] {
    let seed = Seed::new(LogId([0; 16]), SegmentNumber(1), Epoch(1), 0);
    let (bytes, _) = any_frame().encode(seed);
    take(&bytes, FRAME_MAGIC).to_le_bytes()
}

/// Some frame, to be changed.
pub(super) const fn any_frame() -> Frame {
    Frame {
        kind: FrameKind::Data,
        body_len: 8,
        body_crc: 0,
        lsn: Lsn(0),
        durable_lsn: Lsn(0),
        first_seq: Seq(1),
        entry_count: 1,
        epoch: Epoch(1),
        wall_ns: 0,
        prev_crc: 0,
    }
}

fn take(bytes: &[u8], field: Range<usize>) -> u32 {
    let field = bytes.get(field).and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

fn put(bytes: &mut [u8], field: Range<usize>, value: u32) {
    if let Some(field) = bytes.get_mut(field) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::logs;
    use super::*;

    #[test]
    fn repair_of_an_intact_log_changes_nothing() {
        for log in logs::all() {
            let mut renewed = Renewed::new();
            let mut frames_seen = 0;
            for (path, bytes) in &log.files {
                let mut mended = bytes.clone();
                for at in logs::sectors_with_a_crc(path) {
                    sector(&mut mended[at..][..logs::SECTOR]);
                }
                if logs::is_segment(path) {
                    frames(&mut mended, logs::SECTOR, Some(&mut renewed));
                }
                assert!(mended == *bytes, "{} of {}", path.display(), log.name);
                frames_seen +=
                    bytes.chunks(logs::SECTOR).filter(|s| s.starts_with(&frame_magic())).count();
            }
            assert!(frames_seen > 3 && renewed.iter().all(|(old, new)| old == new), "{}", log.name);
        }
    }

    #[test]
    fn repair_of_a_changed_log_makes_all_of_it_valid() {
        for log in logs::all() {
            let mut renewed = Renewed::new();
            let mut files = log.files.clone();
            for (_, bytes) in files.iter_mut().filter(|(path, _)| logs::is_segment(path)) {
                // When a segment was made is checked by nothing.
                let mut header = Header::decode(bytes).expect("ours");
                header.wall_ns ^= 1;
                bytes[..logs::SECTOR].copy_from_slice(&header.encode());
                for frame in bytes.chunks_mut(logs::SECTOR).skip(1) {
                    if frame.starts_with(&frame_magic()) {
                        // Nor is when a frame was sealed.
                        frame[48] ^= 1;
                    }
                }
                frames(bytes, logs::SECTOR, Some(&mut renewed));
            }
            let before = logs::entries(&logs::disk(&log.files));
            assert!(!before.is_empty(), "{}", log.name);
            assert_eq!(before, logs::entries(&logs::disk(&files)), "{}", log.name);
        }
    }
}
