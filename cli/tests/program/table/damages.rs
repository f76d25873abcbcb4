//! What happens to the files of a log, and what of it is destroyed by that.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::common::{image, segment_file, write};

use super::subjects::{Change, Subject};

/// A damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Damage {
    None,
    Missing(At),
    Truncated(At),
    Flipped(At),
    HeaderFlipped(At),
    Swapped,
    Control(Slots),
    /// Its header, of the newest checkpoint.
    NewestCheckpoint,
    /// A part with records, of the newest checkpoint.
    NewestRecords,
    BothCheckpoints,
    NoCheckpoints,
}

/// Which of the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    First,
    Middle,
    Last,
}

/// Which slots of CONTROL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slots {
    Newest,
    Older,
    Both,
}

pub(super) const ALL: [(&str, Damage); 20] = [
    ("undamaged", Damage::None),
    ("first segment missing", Damage::Missing(At::First)),
    ("a middle segment missing", Damage::Missing(At::Middle)),
    ("last segment missing", Damage::Missing(At::Last)),
    ("first segment truncated", Damage::Truncated(At::First)),
    ("a middle segment truncated", Damage::Truncated(At::Middle)),
    ("last segment truncated", Damage::Truncated(At::Last)),
    ("a byte flipped in the first segment", Damage::Flipped(At::First)),
    ("a byte flipped in a middle segment", Damage::Flipped(At::Middle)),
    ("a byte flipped in the last segment", Damage::Flipped(At::Last)),
    ("a byte flipped in a middle segment's header", Damage::HeaderFlipped(At::Middle)),
    ("a byte flipped in the last segment's header", Damage::HeaderFlipped(At::Last)),
    ("two segments swapped", Damage::Swapped),
    ("newest slot of CONTROL flipped", Damage::Control(Slots::Newest)),
    ("older slot of CONTROL flipped", Damage::Control(Slots::Older)),
    ("both slots of CONTROL flipped", Damage::Control(Slots::Both)),
    ("newest checkpoint's header flipped", Damage::NewestCheckpoint),
    ("newest checkpoint's records flipped", Damage::NewestRecords),
    ("both checkpoints' headers flipped", Damage::BothCheckpoints),
    ("checkpoints missing", Damage::NoCheckpoints),
];

/// What a damage destroyed.
#[derive(Clone, Default, Debug)]
pub(super) struct Destroyed {
    /// Parts of segments.
    parts: Vec<(u64, Range<u64>)>,
    pub(super) checkpoints: BTreeSet<u64>,
    /// One is there, and is not what it was.
    pub(super) is_checkpoint_damaged: bool,
    /// Nothing can be read.
    pub(super) control: bool,
    /// What is left of CONTROL says of a purged log that it starts where nothing is any more.
    pub(super) start: bool,
}

impl Destroyed {
    pub(super) fn is_intact(&self, change: &Change) -> bool {
        let Some((segment, frame)) = &change.place else { return false };
        !self.parts.iter().any(|(damaged, part)| {
            damaged == segment && part.start < frame.end && frame.start < part.end
        })
    }
}

impl Damage {
    /// Returns whether a subject has what it damages.
    pub(super) fn fits(self, subject: &Subject) -> bool {
        match self {
            Self::NewestCheckpoint | Self::NewestRecords | Self::NoCheckpoints => {
                !subject.checkpoints.is_empty()
            }
            Self::BothCheckpoints => subject.checkpoints.len() == 2,
            _ => true,
        }
    }

    /// Damages a copy of a subject.
    pub(super) fn apply(self, subject: &Subject, dir: &Path) -> Destroyed {
        let mut destroyed = Destroyed::default();
        let segments = subject.segments();
        let number = |at: At| match at {
            At::First => segments[0],
            At::Middle => segments[segments.len() / 2],
            At::Last => segments[segments.len() - 1],
        };
        let all = |number| (number, 0..u64::MAX);
        let newest = subject.checkpoints.first().map(|(number, _)| *number);
        match self {
            Self::None => {}
            Self::Missing(at) => {
                std::fs::remove_file(segment_file(dir, number(at))).expect("removed");
                destroyed.parts.push(all(number(at)));
            }
            Self::Truncated(at) => {
                // In the middle of a frame of its middle.
                let frames: Vec<_> = frames(subject, number(at)).collect();
                let len = frames[frames.len() / 2].start + 40;
                let file = OpenOptions::new().write(true).open(segment_file(dir, number(at)));
                file.expect("opened").set_len(len).expect("cut");
                destroyed.parts.push((number(at), len..u64::MAX));
            }
            Self::Flipped(at) => {
                let frames: Vec<_> = frames(subject, number(at)).collect();
                let frame = frames[frames.len() / 2].clone();
                flip(&segment_file(dir, number(at)), frame.start + 90);
                destroyed.parts.push((number(at), frame));
            }
            Self::HeaderFlipped(at) => {
                flip(&segment_file(dir, number(at)), 40);
                destroyed.parts.push(all(number(at)));
            }
            Self::Swapped => {
                let pair = [number(At::First), number(At::Middle)];
                let files = pair.map(|number| segment_file(dir, number));
                let aside = dir.join("aside");
                std::fs::rename(&files[0], &aside).expect("renamed");
                std::fs::rename(&files[1], &files[0]).expect("renamed");
                std::fs::rename(&aside, &files[1]).expect("renamed");
                destroyed.parts.extend(pair.map(all));
            }
            Self::Control(slots) => {
                let control = dir.join("CONTROL");
                let bytes = std::fs::read(&control).expect("read");
                let newest = newest_slot(&bytes);
                let stride = bytes.len() as u64 / 2;
                if slots != Slots::Older {
                    flip(&control, newest * stride + 30);
                }
                if slots != Slots::Newest {
                    flip(&control, (1 - newest) * stride + 30);
                }
                destroyed.control = slots == Slots::Both;
                let is_purged = subject.live().count() < subject.changes.len();
                destroyed.start = slots == Slots::Newest && is_purged;
            }
            Self::NewestCheckpoint | Self::NewestRecords => {
                let newest = newest.expect("a checkpoint");
                let (file, bytes) = checkpoint_file(dir, newest);
                let at = if self == Self::NewestCheckpoint { 100 } else { bytes.len() / 2 };
                // The padding of a part counts, too.
                flip(&file, at as u64);
                destroyed.checkpoints.insert(newest);
                destroyed.is_checkpoint_damaged = true;
            }
            Self::BothCheckpoints => {
                for (number, _) in &subject.checkpoints {
                    flip(&checkpoint_file(dir, *number).0, 100);
                    destroyed.checkpoints.insert(*number);
                    destroyed.is_checkpoint_damaged = true;
                }
            }
            Self::NoCheckpoints => {
                std::fs::remove_dir_all(dir.join("checkpoints")).expect("removed");
                destroyed.checkpoints.extend(subject.checkpoints.iter().map(|(number, _)| number));
            }
        }
        destroyed
    }
}

/// The frames of a segment's changes.
fn frames(subject: &Subject, number: u64) -> impl Iterator<Item = Range<u64>> {
    let places = subject.live().filter_map(|change| change.place.clone());
    places.filter(move |(segment, _)| *segment == number).map(|(_, frame)| frame)
}

fn flip(path: &Path, at: u64) {
    let bytes = std::fs::read(path).expect("read");
    let byte = bytes[usize::try_from(at).expect("small")];
    write(path, &[byte ^ 1], at);
}

/// The slot of CONTROL with the higher counter, which follows magic, CRC, version and features.
fn newest_slot(control: &[u8]) -> u64 {
    let half = control.len() / 2;
    // Their counters differ in one bit: the slot of an even one is the first.
    let counters = [&control[..half], &control[half..]].map(counter);
    u64::from(counters[1] > counters[0])
}

fn counter(slot: &[u8]) -> u64 {
    bulla_wal::format::Control::decode(slot).map_or(0, |control| control.counter)
}

fn checkpoint_file(dir: &Path, number: u64) -> (PathBuf, Vec<u8>) {
    let files = image(&dir.join("checkpoints")).into_iter();
    let is_it = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        stem.and_then(|stem| stem.parse::<u64>().ok()) == Some(number)
    };
    files.into_iter().find(|(path, _)| is_it(path)).expect("the checkpoint's file")
}
