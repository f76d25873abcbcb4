//! A whole directory, byte by byte: what `segment` changes by rules, a fuzzer changes here
//! as it likes, with checksums mended after each change.
//!
//! An input is a byte that chooses the method, then files: a byte that names it, its length
//! in sectors, the number of bytes that follow (two bytes), and these. The rest of the file
//! is zeros.

use std::path::{Path, PathBuf};

use bulla_storage::files::dir;
use bulla_storage::format::Control;
use bulla_wal::{Method, SegmentNumber};

use super::logs::{DIR, SECTOR};
use super::segment::{Outcome, check};
use super::{logs, repair};
use crate::Rng;

/// Files of an input at most.
const MAX_FILES: usize = 12;
/// Names: CONTROL's slots, then segments by number, then temporary ones.
const SLOTS: u8 = 2;
const SEGMENTS: u8 = 16;
const TEMPORARIES: u8 = 2;
/// A file's name and lengths.
const HEADER_LEN: usize = 4;

/// Looks at the log that an input describes, and opens it twice.
///
/// # Panics
/// When what must hold of any directory does not: see [`segment`](super::segment()).
pub fn directory(input: &[u8]) -> Outcome {
    let (method, parts) = parse(input);
    check(&assemble(input, &parts), method)
}

/// Makes the checksums of an input's files fit; with `chain` also what frames say of the
/// ones before them.
pub fn mend_directory(input: &mut [u8], chain: bool) {
    let (_, parts) = parse(input);
    let mut files = assemble(input, &parts);
    repair::files(&mut files, SECTOR, chain);
    for part in &parts {
        if let Some((_, bytes)) = files.iter().find(|(path, _)| *path == part.path) {
            input[part.start..part.start + part.len]
                .copy_from_slice(&bytes[part.at..part.at + part.len]);
        }
    }
}

/// Inputs that are intact logs, with their names: what a fuzzer starts from.
#[must_use]
pub fn directory_seeds() -> Vec<(String, Vec<u8>)> {
    let seed = |log: &logs::Files| {
        let mut input = vec![1];
        for (path, bytes) in &log.files {
            append_parts(&mut input, path, bytes);
        }
        (log.name.replace([' ', ','], "-"), input)
    };
    logs::small().iter().map(seed).collect()
}

/// A run of a file's bytes in an input.
struct Part {
    path: PathBuf,
    /// Where it is in the file, and the file's least length.
    at: usize,
    file_len: usize,
    /// Where it is in the input.
    start: usize,
    len: usize,
}

fn parse(input: &[u8]) -> (Method, Vec<Part>) {
    let method = if input.first().is_some_and(|byte| byte % 2 == 1) {
        Method::Direct
    } else {
        Method::Buffered
    };
    let mut parts: Vec<Part> = Vec::new();
    let mut next = 1;
    while parts.len() < MAX_FILES
        && let Some(&[name, sectors, low, high]) = input.get(next..next + HEADER_LEN)
    {
        let (path, at) = place(name);
        let start = next + HEADER_LEN;
        let used = usize::from(u16::from_le_bytes([low, high])).min(input.len() - start);
        // A slot of CONTROL must not reach into the other one.
        let sectors = if at > 0 || path.ends_with(dir::CONTROL) { 1 } else { sectors };
        let file_len = at + usize::from(sectors) * SECTOR;
        let len = used.min(file_len - at);
        if parts.iter().all(|part| (&part.path, part.at) != (&path, at)) {
            parts.push(Part { path, at, file_len, start, len });
        }
        next = start + used;
    }
    (method, parts)
}

fn place(name: u8) -> (PathBuf, usize) {
    let dir = Path::new(DIR);
    let number = |index: u8| SegmentNumber(u64::from(index) + 1);
    let name = name % (SLOTS + SEGMENTS + TEMPORARIES);
    if name < SLOTS {
        return (dir.join(dir::CONTROL), Control::slot_offset(u64::from(name)) as usize);
    }
    match name - SLOTS {
        index if index < SEGMENTS => (dir::segment_path(dir, number(index)), 0),
        index => (dir.join(dir::segment_temporary_name(number(index - SEGMENTS))), 0),
    }
}

fn assemble(input: &[u8], parts: &[Part]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for part in parts {
        let index = files.iter().position(|(path, _)| *path == part.path).unwrap_or_else(|| {
            files.push((part.path.clone(), Vec::new()));
            files.len() - 1
        });
        let bytes = &mut files[index].1;
        bytes.resize(bytes.len().max(part.file_len), 0);
        bytes[part.at..part.at + part.len].copy_from_slice(&input[part.start..][..part.len]);
    }
    files.sort();
    files
}

/// Describes a file of a log as an input does.
fn append_parts(input: &mut Vec<u8>, path: &Path, bytes: &[u8]) {
    for name in 0..SLOTS + SEGMENTS {
        let (named, at) = place(name);
        if named != path || at >= bytes.len() {
            continue;
        }
        let end = if name < SLOTS { (at + SECTOR).min(bytes.len()) } else { bytes.len() };
        let sectors = u8::try_from((end - at).div_ceil(SECTOR)).expect("a short segment");
        let used = bytes[at..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let len = u16::try_from(used).expect("a short segment");
        input.extend_from_slice(&[name, sectors]);
        input.extend_from_slice(&len.to_le_bytes());
        input.extend_from_slice(&bytes[at..at + used]);
    }
}

/// Changes a few bytes at random: a mutator where there is no fuzzer.
pub fn disturb(rng: &mut Rng, input: &mut [u8]) {
    for _ in 0..rng.within(1, 4) {
        let at = rng.below(input.len().max(1) as u64) as usize;
        let value = rng.bits();
        let width = [1, 2, 4, 8][rng.below(4) as usize];
        for (byte, new) in input.iter_mut().skip(at).take(width).zip(value.to_le_bytes()) {
            *byte = match rng.below(3) {
                0 => new,
                1 => byte.wrapping_add(1),
                _ => *byte ^ 1 << (new % 8),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_describes_its_log() {
        for (log, (name, seed)) in logs::small().iter().zip(directory_seeds()) {
            let (_, parts) = parse(&seed);
            let files = assemble(&seed, &parts);
            assert_eq!(logs::entries(&logs::disk(&files)), logs::entries(&logs::disk(&log.files)));
            assert!(seed.len() < 16 * 1024, "{name} is too long to be mutated well");
        }
    }

    #[test]
    fn mending_restores_every_checksum() {
        for (name, seed) in directory_seeds() {
            let mut changed = seed.clone();
            for part in parse(&seed).1 {
                let bytes = &mut changed[part.start..part.start + part.len];
                bytes[8..12].fill(0xEE);
                for frame in bytes.chunks_mut(SECTOR).skip(1) {
                    if frame.starts_with(&repair::frame_magic()) {
                        frame[4..8].fill(0xEE);
                        frame[12..16].fill(0xEE);
                    }
                }
            }
            assert_ne!(changed, seed, "{name}");
            assert_eq!(directory(&changed), Outcome::Refused, "{name}");
            mend_directory(&mut changed, false);
            assert!(changed == seed, "{name}");
        }
    }
}
