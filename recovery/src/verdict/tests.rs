//! The table against all combinations of facts, against the rule that it stands for, and
//! against a model of small logs that knows neither.

#![expect(clippy::indexing_slicing, reason = "small worlds whose sizes are known")]

use super::*;

fn every_combination() -> impl Iterator<Item = Facts> {
    let controls = ControlEpoch::ALL.iter();
    controls.flat_map(|control| {
        Headers::ALL.iter().flat_map(move |headers| {
            Epochs::ALL.iter().flat_map(move |epochs| {
                Successor::ALL.iter().flat_map(move |successor| {
                    DurableEnd::ALL.iter().flat_map(move |durable_end| {
                        Rest::ALL.iter().flat_map(move |rest| {
                            LastFrame::ALL.iter().map(move |last_frame| Facts {
                                control: *control,
                                headers: *headers,
                                epochs: *epochs,
                                successor: *successor,
                                durable_end: *durable_end,
                                rest: *rest,
                                last_frame: *last_frame,
                            })
                        })
                    })
                })
            })
        })
    })
}

#[test]
fn every_combination_of_facts_matches_exactly_one_case_and_every_case_is_reached() {
    let mut reached = vec![0_u32; TABLE.len()];
    let mut combinations = 0;
    for facts in every_combination() {
        let matching: Vec<usize> =
            (0..TABLE.len()).filter(|row| TABLE[*row].when.matches(&facts)).collect();
        let names: Vec<&str> = matching.iter().map(|row| TABLE[*row].name).collect();
        assert_eq!(matching.len(), 1, "{facts:?} matches {names:?}");
        assert_eq!(decide(&facts).case, TABLE[matching[0]].case);
        reached[matching[0]] += 1;
        combinations += 1;
    }
    assert_eq!(combinations, 2 * 11 * 3 * 3 * 5 * 3 * 2);
    for (row, count) in TABLE.iter().zip(reached) {
        assert!(count > 0, "{} is never reached", row.name);
    }
}

/// What the rule says without a table: which of the facts prove a loss, and what is there to
/// cut. The outcome alone, as a receipt's owner would ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    New,
    Clean,
    Torn,
    Refused,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::New => Self::New,
            Verdict::Clean => Self::Clean,
            Verdict::TornTail => Self::Torn,
            Verdict::Corrupt(_) => Self::Refused,
        }
    }
}

#[test]
fn log_is_refused_if_and_only_if_one_fact_alone_proves_a_loss() {
    for facts in every_combination() {
        let losses = [
            facts.control == ControlEpoch::Behind,
            !matches!(facts.headers, Headers::Fit | Headers::NoneYet),
            facts.epochs != Epochs::Joined,
            facts.successor == Successor::Missing,
            !matches!(facts.durable_end, DurableEnd::FrameEnd | DurableEnd::MarkedDuringScan),
        ];
        let expected = if losses.contains(&true) {
            Outcome::Refused
        } else if facts.headers == Headers::NoneYet {
            Outcome::New
        } else if facts.rest == Rest::Zeros {
            Outcome::Clean
        } else {
            Outcome::Torn
        };
        assert_eq!(Outcome::from(decide(&facts).verdict), expected, "{facts:?}");
    }
}

/// The witness is that of a fact that really is a loss, so that the report can name a place.
#[test]
fn witness_of_a_corruption_is_among_the_facts() {
    for facts in every_combination() {
        let Verdict::Corrupt(witness) = decide(&facts).verdict else { continue };
        let is_there = match witness {
            Witness::Header => !matches!(facts.headers, Headers::Fit | Headers::NoneYet),
            Witness::ControlBehind => facts.control == ControlEpoch::Behind,
            Witness::Successor => facts.successor == Successor::Missing,
            Witness::EpochStart => facts.epochs == Epochs::OpeningMisfit,
            Witness::DurableMark => facts.durable_end == DurableEnd::InsideFrame,
            Witness::FrameMissing => {
                facts.epochs == Epochs::CutShort
                    || matches!(
                        facts.durable_end,
                        DurableEnd::Beyond | DurableEnd::BeyondByLaterHeader
                    )
            }
        };
        assert!(is_there, "{witness:?} for {facts:?}");
    }
}

#[test]
fn every_case_has_a_name_and_an_argument_of_its_own() {
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.case.name(), row.name);
        assert_eq!(row.case.explanation(), row.because);
        assert_eq!(row.name.parse(), Ok(row.case));
        assert!(row.because.ends_with('.') && !row.because.contains("  "), "{}", row.because);
        for other in &TABLE[index + 1..] {
            assert!(row.case != other.case && row.name != other.name);
            assert!(row.because != other.because, "{} and {}", row.name, other.name);
        }
    }
    assert!("no_such_case".parse::<Case>().is_err());
}

/// What is on the disk where a frame was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Frame,
    /// The header is intact, and with it the mark; the body is not.
    TornBody,
    Garbage,
    NeverPersisted,
}

const PLACES: [Place; 4] = [Place::Frame, Place::TornBody, Place::Garbage, Place::NeverPersisted];
/// Frames are two units long, so that a mark can lie inside one.
const FRAME: usize = 2;
const MOST_FRAMES: u32 = 5;
/// How many frames of the newest epoch fill its first segment.
const FIRST_SEGMENT: usize = 2;

/// One log as a disk may show it: an older epoch that the newest one follows, then up to five
/// frames in two segments.
#[derive(Clone, Debug)]
struct World {
    /// Of the frames that the newest epoch built on, one is gone.
    older_lost: bool,
    /// How many frames the opening of the newest epoch took over.
    epoch_start: usize,
    places: Vec<Place>,
    /// Every frame's mark is that many frames behind what was written before it.
    lag: usize,
    /// All marks lie this many units off the end of a frame.
    off: usize,
    /// The first segment ends with a seal.
    sealed: bool,
    /// The second segment is there.
    successor: bool,
    /// The last frame that was written is a clean shutdown's.
    shutdown: bool,
}

impl World {
    fn every() -> impl Iterator<Item = Self> {
        let shapes = (0..=MOST_FRAMES).flat_map(|written| {
            (0..PLACES.len().pow(written)).map(move |code| {
                let digit = |frame| code / PLACES.len().pow(frame) % PLACES.len();
                (0..written).map(|frame| PLACES[digit(frame)]).collect::<Vec<_>>()
            })
        });
        shapes.flat_map(|places| {
            let settings = 2 * 3 * 3 * 2 * 3 * 2;
            (0..settings).map(move |code| {
                let (older_lost, code) = (code % 2 == 1, code / 2);
                let (epoch_start, code) = (code % 3, code / 3);
                let (lag, code) = (code % 3, code / 3);
                let (off, code) = (code % 2, code / 2);
                let (ending, code) = (code % 3, code / 3);
                let fills_first = places.len() >= FIRST_SEGMENT;
                Self {
                    older_lost,
                    epoch_start: epoch_start.min(places.len()),
                    places: places.clone(),
                    lag,
                    off,
                    sealed: ending > 0 && fills_first,
                    successor: ending < 2 || places.len() > FIRST_SEGMENT,
                    shutdown: code == 1,
                }
            })
        })
    }

    fn mark(&self, frame: usize) -> usize {
        let mark = frame.saturating_sub(self.lag) * FRAME;
        if mark == 0 { 0 } else { mark - self.off }
    }

    /// The marks that can be read, with the frame that carries each.
    fn marks(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let readable = |place: &Place| matches!(place, Place::Frame | Place::TornBody);
        let headers = self.places.iter().enumerate().filter(move |(_, place)| readable(place));
        headers.map(|(frame, _)| (frame, self.mark(frame)))
    }

    /// Returns the truth: whether durable data is gone, and what follows the readable part.
    fn outcome(&self) -> Outcome {
        let is_lost = |unit: usize| self.places[unit / FRAME] != Place::Frame;
        let marked = self.marks().map(|(_, mark)| mark).chain([self.epoch_start * FRAME]);
        let marked: Vec<usize> = marked.collect();
        let lost_durable = marked.iter().any(|mark| (0..*mark).any(is_lost));
        let highest = marked.iter().max().copied().unwrap_or(0);
        let torn_mark = highest % FRAME != 0;
        let lost_successor = self.sealed && self.reads_first_segment() && !self.successor;
        if self.older_lost || lost_durable || torn_mark || lost_successor {
            return Outcome::Refused;
        }
        let mut after = self.places.iter().skip_while(|place| **place == Place::Frame);
        if after.any(|place| *place != Place::NeverPersisted) {
            Outcome::Torn
        } else {
            Outcome::Clean
        }
    }

    fn reads_first_segment(&self) -> bool {
        self.places[..FIRST_SEGMENT.min(self.places.len())]
            .iter()
            .all(|place| *place == Place::Frame)
    }

    /// What a scan finds.
    fn facts(&self) -> Facts {
        let whole = self.places.iter().take_while(|place| **place == Place::Frame).count();
        let valid_end = whole * FRAME;
        let (by, mark) =
            self.marks().fold((None, self.epoch_start * FRAME), |best, (frame, mark)| {
                if mark > best.1 { (Some(frame), mark) } else { best }
            });
        let durable_end = if mark > valid_end {
            match by {
                Some(frame) if frame >= whole => DurableEnd::BeyondByLaterHeader,
                _ => DurableEnd::Beyond,
            }
        } else if mark % FRAME == 0 {
            DurableEnd::FrameEnd
        } else {
            DurableEnd::InsideFrame
        };
        let rest = &self.places[whole..];
        let is_header = |place: &Place| matches!(place, Place::Frame | Place::TornBody);
        Facts {
            control: ControlEpoch::Newest,
            headers: Headers::Fit,
            epochs: if self.older_lost { Epochs::CutShort } else { Epochs::Joined },
            successor: if self.sealed && self.reads_first_segment() && !self.successor {
                Successor::Missing
            } else {
                Successor::Settled
            },
            durable_end,
            rest: if rest.iter().skip(1).any(is_header) {
                Rest::LaterFrames
            } else if rest.iter().any(|place| *place != Place::NeverPersisted) {
                Rest::Bytes
            } else {
                Rest::Zeros
            },
            last_frame: if self.shutdown && whole == self.places.len() && whole > 0 {
                LastFrame::Shutdown
            } else {
                LastFrame::Running
            },
        }
    }
}

#[test]
fn verdict_is_right_for_every_small_log() {
    let mut reached = std::collections::BTreeMap::new();
    for world in World::every() {
        let facts = world.facts();
        let Decision { case, verdict } = decide(&facts);
        let truth = world.outcome();
        assert_eq!(Outcome::from(verdict), truth, "{case}: {facts:?} of {world:?}");
        *reached.entry(case.name()).or_insert(0_u64) += 1;
    }
    for name in [
        "older_epoch_cut_short",
        "successor_missing",
        "durable_frames_lost",
        "durable_frames_lost_before_mark",
        "durable_mark_inside_frame",
        "clean_shutdown",
        "clean",
        "torn_tail",
        "frames_beyond_gap",
    ] {
        assert!(reached.contains_key(name), "{name} in {reached:?}");
    }
}
