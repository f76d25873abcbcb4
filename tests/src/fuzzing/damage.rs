//! Damage to a log's files as an input says.
//!
//! Owns what can happen to files between two epoch starts: rot, torn, lost and misdirected
//! writes, copies of old files, and what only an adversary does (checksums that fit).

use std::path::{Path, PathBuf};

use bulla_storage::files::dir;
use bulla_storage::format::MAX_FRAME_LEN;
use bulla_wal::SegmentNumber;

use super::logs::{DIR, SECTOR};
use super::repair;
use crate::Rng;

/// Changes that one input makes at most.
const MAX_EDITS: usize = 24;
/// The longest run of bytes that one change overwrites with the input's own.
const MAX_RUN: u64 = 32;
/// The most sectors that one change copies or clears.
const MAX_SECTORS: u64 = 8;
/// Fields of headers are searched in this many bytes after the start of a sector.
const HEADER_BYTES: u64 = 160;

type Files = Vec<(PathBuf, Vec<u8>)>;

/// Changes files until the script ends.
pub(super) fn inflict(rng: &mut Rng, files: &mut Files) {
    let mends = rng.below(4);
    let mended_sector = if rng.below(8) == 7 { 8 * SECTOR } else { SECTOR };
    let mut edits = 0;
    while !rng.is_exhausted() && edits < MAX_EDITS && !files.is_empty() {
        edit(rng, files);
        edits += 1;
    }
    if mends > 0 {
        repair::files(files, mended_sector, mends > 1);
    }
}

fn edit(rng: &mut Rng, files: &mut Files) {
    let index = rng.below(files.len() as u64) as usize;
    let kind = rng.below(10);
    match kind {
        0 => {
            files.remove(index);
        }
        1 => copy_file(rng, files, index),
        2 => copy_sectors(rng, files, index),
        _ => {
            let bytes = &mut files[index].1;
            match kind {
                3 => resize(rng, bytes),
                4 => clear(rng, bytes),
                5 => flip(rng, bytes),
                6 => overwrite(rng, bytes),
                _ => change_field(rng, bytes),
            }
        }
    }
}

/// An old copy under another segment's name, or under a temporary one.
fn copy_file(rng: &mut Rng, files: &mut Files, index: usize) {
    let number = match rng.below(32) {
        31 => SegmentNumber(u64::MAX),
        number => SegmentNumber(number + 1),
    };
    let path = match rng.below(4) {
        0 => Path::new(DIR).join(dir::segment_temporary_name(number)),
        _ => dir::segment_path(Path::new(DIR), number),
    };
    let bytes = files[index].1.clone();
    files.retain(|(other, _)| *other != path);
    files.push((path, bytes));
    files.sort();
}

/// A write that went astray, or one that was lost when the sectors are older ones.
fn copy_sectors(rng: &mut Rng, files: &mut Files, index: usize) {
    let source = &files[rng.below(files.len() as u64) as usize].1;
    let from = (sector_start(rng, source) as usize).min(source.len());
    let len = (rng.within(1, MAX_SECTORS) as usize * SECTOR).min(source.len() - from);
    let run = source[from..from + len].to_vec();
    let bytes = &mut files[index].1;
    let to = sector_start(rng, bytes);
    put(bytes, to, &run);
}

fn resize(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let sectors = rng.below(64) as usize;
    let odd = if rng.one_in(4) { rng.below(SECTOR as u64) as usize } else { 0 };
    bytes.resize(sectors * SECTOR + odd, 0);
}

fn clear(rng: &mut Rng, bytes: &mut [u8]) {
    let start = sector_start(rng, bytes);
    let run = vec![0; rng.within(1, MAX_SECTORS) as usize * SECTOR];
    put(bytes, start, &run);
}

fn flip(rng: &mut Rng, bytes: &mut [u8]) {
    let at = rng.below(0x1_0000) as usize;
    let mask = 1 << rng.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}

fn overwrite(rng: &mut Rng, bytes: &mut [u8]) {
    let start = rng.below(0x1_0000);
    let len = rng.within(1, MAX_RUN);
    let run: Vec<u8> = (0..len).map(|_| rng.below(0x100) as u8).collect();
    put(bytes, start, &run);
}

/// Returns a field of a header another value, perhaps one at an edge of its range.
fn change_field(rng: &mut Rng, bytes: &mut [u8]) {
    let at = sector_start(rng, bytes) + rng.below(HEADER_BYTES / 2) * 2;
    let width = [2, 4, 8][rng.below(3) as usize];
    let Some(field) = bytes.get_mut(at as usize..).and_then(|rest| rest.get_mut(..width)) else {
        return;
    };
    let mut value = [0; 8];
    value[..width].copy_from_slice(field);
    let old = u64::from_le_bytes(value);
    let sector = SECTOR as u64;
    let new = match rng.below(12) {
        0 => 0,
        1 => 1,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => old.wrapping_add(sector),
        5 => old.wrapping_sub(sector),
        6 => u64::MAX,
        7 => u64::MAX - (sector - 1),
        8 => (u64::MAX - 2 * MAX_FRAME_LEN) / sector * sector,
        9 => 1 << rng.below(64),
        10 => rng.below(64) * sector,
        _ => rng.bits(),
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Where a sector starts: one of those that hold something, or any.
fn sector_start(rng: &mut Rng, bytes: &[u8]) -> u64 {
    let any = rng.below(0x80) as usize;
    let used: Vec<usize> = bytes
        .chunks(SECTOR)
        .enumerate()
        .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
        .map(|(index, _)| index)
        .collect();
    let index =
        if any < 0x60 && !used.is_empty() { used[any % used.len()] } else { any - any.min(0x60) };
    (index * SECTOR) as u64
}

/// Overwrites what of the run lies in the file.
fn put(bytes: &mut [u8], start: u64, run: &[u8]) {
    let start = (start as usize).min(bytes.len());
    let end = (start + run.len()).min(bytes.len());
    bytes[start..end].copy_from_slice(&run[..end - start]);
}
