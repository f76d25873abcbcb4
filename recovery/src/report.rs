//! What an inspection or a recovery of a log found, as plain data, with the evidence in words
//! for people.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bulla_storage::format::{Content, FormatError, LogId};
use bulla_storage::{Corruption, Epoch, FrameDamage, Lsn, SegmentNumber, Seq};

use crate::verdict::{Case, UnknownName};
use bulla_storage::frames::timeline::Timeline;

/// What a log is found to be: one of these three, and there will be no other. A caller must
/// say what it does with each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Whole: only zeros follow the last frame.
    Clean,
    /// What follows the last frame was never marked durable.
    TornTail,
    /// Something that was durable can't be read.
    Corrupt(Corruption),
}

impl Status {
    /// Returns `clean`, `torn_tail` or `corrupt`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::TornTail => "torn_tail",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::TornTail => f.write_str("torn tail"),
            Self::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

/// What proves that everything below the durable LSN was on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Proof {
    /// The low-water mark in CONTROL.
    LowWater,
    /// What a checkpoint of the log's user remembers.
    Anchor,
    /// The end of what the recovery that opened the newest epoch kept.
    EpochStart {
        /// The epoch's first segment.
        segment: SegmentNumber,
    },
    /// A later epoch that begins there.
    LaterEpoch {
        /// Where it begins.
        starts_at: Lsn,
    },
    /// A frame's header.
    Frame {
        /// Its segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// The frame's own position.
        lsn: Lsn,
        /// It lies behind the frames that can be read in order.
        torn: bool,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LowWater => f.write_str("the low-water mark"),
            Self::Anchor => f.write_str("the checkpoint"),
            Self::EpochStart { segment } => {
                write!(f, "the truncation point in the epoch start, segment {segment}")
            }
            Self::LaterEpoch { starts_at } => {
                write!(f, "the later epoch that begins at LSN {starts_at}")
            }
            Self::Frame { segment, offset, lsn, torn } => {
                let state = if *torn { "header behind the end" } else { "frame" };
                write!(f, "the {state} at segment {segment} offset {offset} (LSN {lsn})")
            }
        }
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Evidence {
    /// Up to where the log is known to have been durable, and why.
    DurableMark {
        /// The durable end.
        durable: Lsn,
        /// What says so.
        proof: Proof,
    },
    /// One of the two slots of CONTROL is damaged; the other one was used.
    ControlSlot {
        /// What is wrong with it.
        damage: FormatError,
    },
    /// Nothing but zeros follows the last frame.
    OnlyZeros {
        /// The valid end.
        after: Lsn,
    },
    /// The log was closed cleanly.
    Closed {
        /// The valid end.
        at: Lsn,
    },
    /// The frames that can be read in order end at something that is no frame.
    Damaged {
        /// In which segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// The valid end.
        lsn: Lsn,
        /// What is there.
        damage: FrameDamage,
    },
    /// Bytes that were never marked durable.
    Tail {
        /// In which segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Bytes behind a segment's last frame. Its successor shows that no frame is missing.
    Ignored {
        /// In which segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// What is there.
        damage: FrameDamage,
    },
    /// A contradiction of the format's rules.
    Fault(Corruption),
    /// The log's creation was cut short; it has no entries.
    CreationUnfinished,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DurableMark { durable, proof } => {
                write!(f, "everything below LSN {durable} was durable: {proof} says so")
            }
            Self::ControlSlot { damage } => {
                write!(
                    f,
                    "one of the two copies in CONTROL is damaged ({damage}); the other was used"
                )
            }
            Self::OnlyZeros { after } => write!(f, "only zeros after LSN {after}"),
            Self::Closed { at } => write!(f, "closed cleanly at LSN {at}"),
            Self::Damaged { segment, offset, lsn, damage } => {
                write!(
                    f,
                    "no valid frame at segment {segment} offset {offset} (LSN {lsn}): {damage}"
                )
            }
            Self::Tail { segment, offset, bytes } => {
                write!(
                    f,
                    "{bytes} bytes at segment {segment} offset {offset} were never marked durable"
                )
            }
            Self::Ignored { segment, offset, damage } => write!(
                f,
                "no frame at segment {segment} offset {offset} ({damage}), and none is missing: \
                 the next segment continues there"
            ),
            Self::Fault(corruption) => corruption.fmt(f),
            Self::CreationUnfinished => f.write_str("the log's creation was cut short"),
        }
    }
}

/// What a segment is to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SegmentState {
    /// It holds frames that count.
    Live,
    /// Below the low-water mark: it is removed at the next open.
    Dead,
    /// Prepared ahead; it holds no frames that count.
    Spare,
    /// A later epoch replaced everything in it.
    Replaced,
    /// A checkpoint stands for its frames: they were not read.
    Covered,
    /// It does not fit into the log, or lies behind one that does not, or behind damage.
    Unread,
}

impl SegmentState {
    const ALL: [Self; 6] =
        [Self::Live, Self::Dead, Self::Spare, Self::Replaced, Self::Covered, Self::Unread];

    /// Returns the lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Spare => "spare",
            Self::Replaced => "replaced",
            Self::Covered => "covered",
            Self::Unread => "unread",
        }
    }
}

impl fmt::Display for SegmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SegmentState {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.name() == name).ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// How its writer ended a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Seal {
    /// It was full, and the log continued in the next one.
    Rotated,
    /// The log was closed cleanly.
    Closed,
}

impl Seal {
    /// Returns the lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Seal {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let mut all = [Self::Rotated, Self::Closed].into_iter();
        all.find(|one| one.name() == name).ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentReport {
    /// The number in its name.
    pub number: SegmentNumber,
    /// Its epoch, when its header could be read.
    pub epoch: Option<Epoch>,
    /// The LSN of its first byte after the header, when it is known.
    pub base: Option<Lsn>,
    /// The live positions in it: start, and exclusive end.
    pub live: Option<(Lsn, Lsn)>,
    /// Live frames, or valid ones where they don't count.
    pub frames: u64,
    /// User entries in them.
    pub entries: u64,
    /// The seal behind its live frames. There is none in the segment that is being written,
    /// in one whose epoch a later one replaced, and where a crash came first.
    pub seal: Option<Seal>,
    /// Length in bytes of its file.
    pub file_len: u64,
    /// What it is to the log.
    pub state: SegmentState,
}

/// What an inspection of a log, or its recovery, found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Clean, torn, or corrupt.
    pub status: Status,
    /// The case of the recovery table that decided this: its name and its argument.
    pub case: Case,
    /// Which log it is.
    pub log_id: LogId,
    /// What its entries are.
    pub content: Content,
    /// Sector size in bytes.
    pub sector: u32,
    /// The newest epoch; after a recovery, the one it began.
    pub epoch: Epoch,
    /// The log's first live position, its low-water mark.
    pub first_lsn: Lsn,
    /// Frames below it were not read: a checkpoint stands for them. Without one, the same as
    /// `first_lsn`.
    pub scanned_from: Lsn,
    /// The exclusive end of what can be read in order.
    pub last_lsn: Lsn,
    /// Everything below it is known to have been durable (before this recovery).
    pub durable_lsn: Lsn,
    /// Number of the first live entry.
    pub first_seq: Seq,
    /// The number of the next entry.
    pub next_seq: Seq,
    /// Position and number of the last entry, when its segment holds one and bodies were read.
    pub last_entry: Option<(Lsn, Seq)>,
    /// User entries from `scanned_from` on.
    pub entries: u64,
    /// Wall time of the last frame, in ns since 1970; 0 when there is none.
    pub wall_ns: u64,
    /// The segments as they were found, in order of number.
    pub segments: Vec<SegmentReport>,
    /// What was found, the proof of the durable LSN first.
    pub evidence: Vec<Evidence>,
    /// Bytes after the last frame, up to the last that is not zero: what a recovery cuts off.
    pub bytes_cut: u64,
    /// Positions that this recovery rewrote under the new epoch.
    pub rewritten: Option<(Lsn, Lsn)>,
    /// Where this recovery keeps the bytes that it cut off.
    pub quarantine: Option<PathBuf>,
    /// Which positions that a user kept are still valid.
    pub timeline: Timeline,
}

#[cfg(test)]
mod tests {
    use bulla_storage::CorruptionKind;

    use super::*;

    const SEGMENT: SegmentNumber = SegmentNumber(31);
    const LSN: Lsn = Lsn(4_194_304);
    const OFFSET: u64 = 77_824;

    fn corruption() -> Corruption {
        Corruption {
            segment: Some(SEGMENT),
            offset: Some(OFFSET),
            lsn: Some(LSN),
            durable: None,
            kind: CorruptionKind::SegmentMissing,
        }
    }

    fn assert_says(what: &dyn fmt::Display, places: &[u64]) {
        let words = what.to_string();
        for place in places {
            assert!(words.contains(&place.to_string()), "{words:?} does not name {place}");
        }
    }

    #[test]
    fn every_finding_says_where_it_is() {
        let (segment, offset, lsn) = (SEGMENT, OFFSET, LSN);
        let damage = FrameDamage::Zeros;
        let all = [segment.0, offset, lsn.0];
        assert_says(&Evidence::OnlyZeros { after: lsn }, &[lsn.0]);
        assert_says(&Evidence::Closed { at: lsn }, &[lsn.0]);
        assert_says(&Evidence::Damaged { segment, offset, lsn, damage }, &all);
        assert_says(&Evidence::Tail { segment, offset, bytes: 512 }, &[segment.0, offset, 512]);
        assert_says(&Evidence::Ignored { segment, offset, damage }, &[segment.0, offset]);
        assert_says(&Evidence::Fault(corruption()), &all);
        let proofs: [(Proof, &[u64]); 5] = [
            (Proof::LowWater, &[]),
            (Proof::EpochStart { segment }, &[segment.0]),
            (Proof::LaterEpoch { starts_at: Lsn(512) }, &[512]),
            (Proof::Frame { segment, offset, lsn: Lsn(1024), torn: false }, &[31, offset, 1024]),
            (Proof::Frame { segment, offset, lsn: Lsn(1024), torn: true }, &[31, offset, 1024]),
        ];
        let words: Vec<String> = proofs
            .into_iter()
            .map(|(proof, places)| {
                let evidence = Evidence::DurableMark { durable: lsn, proof };
                assert_says(&evidence, &[lsn.0]);
                assert_says(&evidence, places);
                evidence.to_string()
            })
            .collect();
        for (at, one) in words.iter().enumerate() {
            assert!(
                !words.iter().skip(at + 1).any(|other| other == one),
                "{one:?} stands for two proofs"
            );
        }
    }

    #[test]
    fn name_of_a_state_or_a_seal_is_read_back() {
        for state in SegmentState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        for seal in [Seal::Rotated, Seal::Closed] {
            assert_eq!(seal.to_string().parse(), Ok(seal));
        }
        assert!("".parse::<SegmentState>().is_err() && "live".parse::<Seal>().is_err());
    }

    #[test]
    fn every_verdict_has_a_name_of_its_own_and_a_corruption_says_where() {
        let corrupt = Status::Corrupt(corruption());
        let verdicts = [Status::Clean, Status::TornTail, corrupt.clone()];
        assert_eq!(verdicts.map(|status| status.name()), ["clean", "torn_tail", "corrupt"]);
        assert_eq!(Status::TornTail.to_string(), "torn tail");
        assert_eq!(Status::Clean.to_string(), "clean");
        assert_says(&corrupt, &[SEGMENT.0, OFFSET, LSN.0]);
    }
}
