//! The verdict: one table of named cases, from the facts that a scan gathered to what may be
//! done with the log.
//!
//! Pure: no I/O, no format, no positions. Every combination of facts matches exactly one case;
//! the tests go through all of them and compare the table with a model of small logs. Nothing
//! else in the crate decides whether a log is whole, torn or corrupt.
//!
//! The principle behind all cases: the log is refused if and only if something on the disk
//! proves that bytes were durable which can't be read now. A durable mark is such a proof; a
//! later valid frame is not, because disks persist block N + 1 without block N (Pebble's
//! record format rests on the same distinction).

use std::fmt;
use std::str::FromStr;

/// Defines the domain of one fact, with a list of all its values.
macro_rules! fact {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$value,)+];
        }
    };
}

fact! {
    /// Whether CONTROL knows the newest epoch.
    ControlEpoch {
        /// No segment is of a later epoch.
        Newest,
        /// A segment of this log is of a later epoch.
        Behind,
    }
}

fact! {
    /// How the segments from the low-water mark on fit together, by their headers alone: the
    /// first thing that does not fit.
    Headers {
        Fit,
        /// There is no segment, and CONTROL is as the creation of the log wrote it.
        NoneYet,
        /// There is no segment at or above the low-water mark, and there was one.
        NoneLeft,
        /// A number is missing.
        Gap,
        NotAFile,
        Damaged,
        /// A segment of another log.
        Foreign,
        /// A number that is not the one in the file's name, or the last that there is.
        Misnumbered,
        SectorSize,
        /// An epoch or nonce that does not fit CONTROL or the segment before.
        Epoch,
        /// The segment that opens an epoch starts below the log, or elsewhere than the mark.
        OpeningOutOfLog,
    }
}

fact! {
    /// Whether the frames of every epoch reach what opened the next one.
    Epochs {
        Joined,
        /// The frames of an older epoch end before the position that a later one took over.
        CutShort,
        /// An epoch opens elsewhere than where the frames before it end.
        OpeningMisfit,
    }
}

fact! {
    /// Whether a segment that ends with a rotated seal has its successor.
    Successor {
        Settled,
        Missing,
        /// It was missing in the scan's listing and is there now.
        MadeDuringScan,
    }
}

fact! {
    /// Where the highest durable mark lies among the frames that can be read in order.
    DurableEnd {
        /// At the end of one of them, or at the start of the log.
        FrameEnd,
        InsideFrame,
        /// Beyond the last one. CONTROL, a checkpoint, an opening, or a frame that can be read
        /// in order says so.
        Beyond,
        /// Beyond the last one, and only a frame's header that lies there, too, says so.
        BeyondByLaterHeader,
        /// Beyond the last one, but an earlier scan found no durable mark that this scan has
        /// not reached: the mark was written during this scan.
        MarkedDuringScan,
    }
}

fact! {
    /// What lies after the last frame that can be read in order.
    Rest {
        Zeros,
        /// Bytes, where the next frame would be or behind; no valid frame header behind that
        /// place.
        Bytes,
        /// At least one valid frame header behind the place of the next frame.
        LaterFrames,
    }
}

fact! {
    /// What the last frame says of its writer.
    LastFrame {
        Running,
        /// It is the mark of a clean shutdown.
        Shutdown,
    }
}

/// All that the verdict depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) control: ControlEpoch,
    pub(crate) headers: Headers,
    pub(crate) epochs: Epochs,
    pub(crate) successor: Successor,
    pub(crate) durable_end: DurableEnd,
    pub(crate) rest: Rest,
    pub(crate) last_frame: LastFrame,
}

/// What may be done with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It has no entries yet: begin its first epoch.
    New,
    /// It is whole: only zeros follow the last frame.
    Clean,
    /// What follows the last frame was never marked durable: cut it off.
    TornTail,
    /// Something that was durable can't be read: refuse, and change nothing.
    Corrupt(Witness),
}

/// What shows the corruption, and so where to report it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Witness {
    /// The header that does not fit.
    Header,
    /// The header of the segment that CONTROL does not know.
    ControlBehind,
    /// The name that is not listed.
    Successor,
    /// The segment that opens an epoch.
    EpochStart,
    /// The place after the last frame that can be read in order.
    FrameMissing,
    /// The durable mark.
    DurableMark,
}

/// The case of the recovery table that a log is in: which facts decided, and why.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Case {
    /// CONTROL is there and no segment is: the creation of the log was cut short.
    NewLog,
    /// Only zeros follow the last frame.
    Clean,
    /// The last frame is the mark of a clean shutdown; only zeros follow.
    CleanShutdown,
    /// A torn frame or other bytes follow the last frame; no durable mark covers them.
    TornTail,
    /// Later frames follow a gap after the last frame; no durable mark covers the gap.
    FramesBeyondGap,
    /// The log was written during the scan; zeros follow what the scan read.
    MarkedDuringScan,
    /// The log was written during the scan; more bytes follow what the scan read.
    WrittenDuringScan,
    /// Frames that a durable mark covers are damaged or missing.
    DurableFramesLost,
    /// Frames are damaged or missing, and the header of a later one covers them.
    DurableFramesLostBeforeMark,
    /// A durable mark does not point to the end of a frame.
    DurableMarkInsideFrame,
    /// An older epoch lacks frames that a later one took over.
    OlderEpochCutShort,
    /// An epoch does not open where the log before it ends.
    OpeningMisfit,
    /// A segment was sealed as full, and the next one is missing.
    SuccessorMissing,
    /// A segment is of a later epoch than CONTROL.
    ControlBehind,
    /// No segment is left of a log that had some.
    NoSegmentLeft,
    /// The number of a segment is missing.
    SegmentGap,
    /// What has a segment's name is not a regular file.
    SegmentNotAFile,
    /// The header of a segment is damaged.
    SegmentHeaderDamaged,
    /// A segment is of another log.
    SegmentForeign,
    /// The number in a segment's header is not the one in its name.
    SegmentMisnumbered,
    /// The sector size of a segment is not that of the log.
    SegmentSectorSize,
    /// The epoch or nonce of a segment does not fit its place.
    SegmentEpoch,
    /// A segment opens an epoch at a position that the log does not have.
    SegmentOpeningOutOfLog,
}

/// The facts that select a case: for each fact, the values that it may have.
struct Pattern {
    control: &'static [ControlEpoch],
    headers: &'static [Headers],
    epochs: &'static [Epochs],
    successor: &'static [Successor],
    durable_end: &'static [DurableEnd],
    rest: &'static [Rest],
    last_frame: &'static [LastFrame],
}

impl Pattern {
    const ANY: Self = Self {
        control: ControlEpoch::ALL,
        headers: Headers::ALL,
        epochs: Epochs::ALL,
        successor: Successor::ALL,
        durable_end: DurableEnd::ALL,
        rest: Rest::ALL,
        last_frame: LastFrame::ALL,
    };
    /// No older epoch lacks frames.
    const NOT_CUT_SHORT: Self =
        Self { epochs: &[Epochs::Joined, Epochs::OpeningMisfit], ..Self::ANY };
    /// The headers fit together as well.
    const HEADERS_FIT: Self =
        Self { headers: &[Headers::Fit, Headers::NoneYet], ..Self::NOT_CUT_SHORT };
    /// CONTROL fits them as well.
    const CONTROL_FITS: Self = Self { control: &[ControlEpoch::Newest], ..Self::HEADERS_FIT };
    /// No segment is missing at the end.
    const SUCCESSOR_THERE: Self =
        Self { successor: &[Successor::Settled, Successor::MadeDuringScan], ..Self::CONTROL_FITS };
    /// The segments are those of one log: what is left to decide is where its frames end.
    const JOINED: Self = Self { epochs: &[Epochs::Joined], ..Self::SUCCESSOR_THERE };
    /// The frames reach the highest durable mark, and it is the end of one.
    const DURABLE: Self =
        Self { headers: &[Headers::Fit], durable_end: &[DurableEnd::FrameEnd], ..Self::JOINED };

    fn matches(&self, facts: &Facts) -> bool {
        self.control.contains(&facts.control)
            && self.headers.contains(&facts.headers)
            && self.epochs.contains(&facts.epochs)
            && self.successor.contains(&facts.successor)
            && self.durable_end.contains(&facts.durable_end)
            && self.rest.contains(&facts.rest)
            && self.last_frame.contains(&facts.last_frame)
    }
}

/// One row of the table.
struct Row {
    case: Case,
    name: &'static str,
    when: Pattern,
    verdict: Verdict,
    because: &'static str,
}

/// What [`decide`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decision {
    pub(crate) case: Case,
    pub(crate) verdict: Verdict,
}

/// The recovery table.
const TABLE: &[Row] = &[
    // What an older epoch lost is named before all else: it is the lowest position in doubt.
    Row {
        case: Case::OlderEpochCutShort,
        name: "older_epoch_cut_short",
        when: Pattern { epochs: &[Epochs::CutShort], ..Pattern::ANY },
        verdict: Verdict::Corrupt(Witness::FrameMissing),
        because: "The recovery that opened the later epoch made everything below that epoch's \
                  epoch_start durable before it opened it, so the frames of the older epoch were on \
                  the disk up to there.",
    },
    // Segments that are not those of one log. Behind the first that does not fit, nothing is
    // known to belong to the log.
    Row {
        case: Case::NoSegmentLeft,
        name: "no_segment_left",
        when: Pattern { headers: &[Headers::NoneLeft], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "CONTROL was written again after the log's creation, which happens only once \
                  the first segment is durable, and a purge removes segments below the \
                  low-water mark only.",
    },
    Row {
        case: Case::SegmentGap,
        name: "segment_gap",
        when: Pattern { headers: &[Headers::Gap], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "A segment gets its name only after its predecessor's name is durable, and only \
                  a purge removes one, from the low end: no crash leaves a gap.",
    },
    Row {
        case: Case::SegmentNotAFile,
        name: "segment_not_a_file",
        when: Pattern { headers: &[Headers::NotAFile], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "The log creates only regular files under these names, so somebody replaced \
                  the segment.",
    },
    Row {
        case: Case::SegmentHeaderDamaged,
        name: "segment_header_damaged",
        when: Pattern { headers: &[Headers::Damaged], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "A segment's header is durable before the segment gets its name, and is never \
                  written again: a crash can't damage it.",
    },
    Row {
        case: Case::SegmentForeign,
        name: "segment_foreign",
        when: Pattern { headers: &[Headers::Foreign], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "Every segment carries the id of its log, so this file was copied here. The \
                  log's own segment of that number is gone.",
    },
    Row {
        case: Case::SegmentMisnumbered,
        name: "segment_misnumbered",
        when: Pattern { headers: &[Headers::Misnumbered], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "The log never renames a segment to another number, so the file was renamed. \
                  The log's own segment of that number is gone.",
    },
    Row {
        case: Case::SegmentSectorSize,
        name: "segment_sector_size",
        when: Pattern { headers: &[Headers::SectorSize], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "The sector size is fixed when the log is created: frames can't be found under \
                  another.",
    },
    Row {
        case: Case::SegmentEpoch,
        name: "segment_epoch",
        when: Pattern { headers: &[Headers::Epoch], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "A segment continues its predecessor's epoch and nonce, or opens a later epoch \
                  and names its predecessor's nonce. Anything else is a copy from another \
                  timeline of the log.",
    },
    Row {
        case: Case::SegmentOpeningOutOfLog,
        name: "segment_opening_out_of_log",
        when: Pattern { headers: &[Headers::OpeningOutOfLog], ..Pattern::NOT_CUT_SHORT },
        verdict: Verdict::Corrupt(Witness::Header),
        because: "An epoch opens at or above the low-water mark of its time, and the mark's own \
                  segment starts at the mark. Here one of the two was replaced by an older copy.",
    },
    Row {
        case: Case::ControlBehind,
        name: "control_behind",
        when: Pattern { control: &[ControlEpoch::Behind], ..Pattern::HEADERS_FIT },
        verdict: Verdict::Corrupt(Witness::ControlBehind),
        because: "CONTROL names a new epoch durably before the epoch's first segment is created. \
                  An older CONTROL means that its newest slot is damaged or was replaced, and \
                  with it the low-water mark.",
    },
    Row {
        case: Case::SuccessorMissing,
        name: "successor_missing",
        when: Pattern { successor: &[Successor::Missing], ..Pattern::CONTROL_FITS },
        verdict: Verdict::Corrupt(Witness::Successor),
        because: "A segment is sealed as full only after its successor's name is durable.",
    },
    Row {
        case: Case::OpeningMisfit,
        name: "opening_misfit",
        when: Pattern { epochs: &[Epochs::OpeningMisfit], ..Pattern::SUCCESSOR_THERE },
        verdict: Verdict::Corrupt(Witness::EpochStart),
        because: "A recovery opens an epoch exactly where the frames that it keeps of the older \
                  ones end, and those are durable.",
    },
    // The segments are those of one log. What is left is where its frames end.
    Row {
        case: Case::DurableFramesLost,
        name: "durable_frames_lost",
        when: Pattern { durable_end: &[DurableEnd::Beyond], ..Pattern::JOINED },
        verdict: Verdict::Corrupt(Witness::FrameMissing),
        because: "A durable mark is written only after everything below it was synced. Frames \
                  below this one can't be read, so the disk lost or changed them.",
    },
    Row {
        case: Case::DurableFramesLostBeforeMark,
        name: "durable_frames_lost_before_mark",
        when: Pattern { durable_end: &[DurableEnd::BeyondByLaterHeader], ..Pattern::JOINED },
        verdict: Verdict::Corrupt(Witness::FrameMissing),
        because: "The header of a later frame is intact by its own checksum, and it says that \
                  everything below its mark had been synced when it was sealed. That holds even \
                  if the frame's body is torn, or if it lies in the wrong place: only this \
                  epoch could seal it.",
    },
    Row {
        case: Case::DurableMarkInsideFrame,
        name: "durable_mark_inside_frame",
        when: Pattern { durable_end: &[DurableEnd::InsideFrame], ..Pattern::JOINED },
        verdict: Verdict::Corrupt(Witness::DurableMark),
        because: "Only whole frames are synced, so what was durable ended with a frame. The \
                  frames that are readable now are not those that the mark was made for.",
    },
    Row {
        case: Case::NewLog,
        name: "new_log",
        when: Pattern {
            headers: &[Headers::NoneYet],
            durable_end: &[DurableEnd::FrameEnd, DurableEnd::MarkedDuringScan],
            ..Pattern::JOINED
        },
        verdict: Verdict::New,
        because: "The first segment is durable before an entry is accepted, and CONTROL is as \
                  the creation wrote it: there never was an entry.",
    },
    Row {
        case: Case::CleanShutdown,
        name: "clean_shutdown",
        when: Pattern {
            rest: &[Rest::Zeros],
            last_frame: &[LastFrame::Shutdown],
            ..Pattern::DURABLE
        },
        verdict: Verdict::Clean,
        because: "The writer's last frame says that it closed the log, and nothing was written \
                  after it.",
    },
    Row {
        case: Case::Clean,
        name: "clean",
        when: Pattern {
            rest: &[Rest::Zeros],
            last_frame: &[LastFrame::Running],
            ..Pattern::DURABLE
        },
        verdict: Verdict::Clean,
        because: "Segments are filled with zeros ahead of the frames, so zeros are what was \
                  never written. Every durable mark is reached.",
    },
    Row {
        case: Case::TornTail,
        name: "torn_tail",
        when: Pattern { rest: &[Rest::Bytes], ..Pattern::DURABLE },
        verdict: Verdict::TornTail,
        because: "A write was under way at the crash. No durable mark covers it, so no receipt \
                  said that it was durable.",
    },
    Row {
        case: Case::FramesBeyondGap,
        name: "frames_beyond_gap",
        when: Pattern { rest: &[Rest::LaterFrames], ..Pattern::DURABLE },
        verdict: Verdict::TornTail,
        because: "Several writes were under way at the crash, and the disk persisted a later one \
                  without an earlier one. No durable mark covers the gap, so the later frames \
                  were not durable either: a receipt is ready only when everything below it is.",
    },
    // The log is open for writing. Only a scan without the lock sees this.
    Row {
        case: Case::MarkedDuringScan,
        name: "marked_during_scan",
        when: Pattern {
            headers: &[Headers::Fit],
            durable_end: &[DurableEnd::MarkedDuringScan],
            rest: &[Rest::Zeros],
            ..Pattern::JOINED
        },
        verdict: Verdict::Clean,
        because: "The scan read a place before the writer filled it, and a mark after the writer \
                  made it. It has read everything that an earlier scan found marked, so nothing \
                  durable is missing.",
    },
    Row {
        case: Case::WrittenDuringScan,
        name: "written_during_scan",
        when: Pattern {
            headers: &[Headers::Fit],
            durable_end: &[DurableEnd::MarkedDuringScan],
            rest: &[Rest::Bytes, Rest::LaterFrames],
            ..Pattern::JOINED
        },
        verdict: Verdict::TornTail,
        because: "As marked_during_scan; what follows the end of the scan are the frames that \
                  the writer added since.",
    },
];

/// Returns the one case that the facts match, and its verdict.
///
/// # Panics
/// If no case matches, which the tests exclude for every combination of facts.
pub(crate) fn decide(facts: &Facts) -> Decision {
    match TABLE.iter().find(|row| row.when.matches(facts)) {
        Some(row) => Decision { case: row.case, verdict: row.verdict },
        None => unreachable!("the recovery table has no case for {facts:?}"),
    }
}

impl Case {
    /// Returns the case's name in lower case, such as `torn_tail`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.name)
    }

    /// Returns why the log is judged as it is in this case, as sentences for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        self.row().map_or("", |row| row.because)
    }

    fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.case == self)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not the name of a case, a state or a seal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown name {0:?}")]
pub struct UnknownName(pub(crate) String);

impl FromStr for Case {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let row = TABLE.iter().find(|row| row.name == name);
        row.map(|row| row.case).ok_or_else(|| UnknownName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
