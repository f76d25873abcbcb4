//! A small generator: the same seed gives the same campaign on every machine.

use std::collections::VecDeque;
use std::ops::Range;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng};

/// On a tape, in the place of a part that is left out.
pub const LEFT_OUT: u64 = u64::MAX;

/// `SplitMix64`, or a script of bytes or a tape of numbers in its place.
#[derive(Clone, Debug)]
pub struct Rng {
    source: Source,
    /// Every number that was given, where they are taken down.
    taken: Option<Tape>,
}

/// What a run drew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape {
    /// In order.
    pub(crate) numbers: Vec<u64>,
    /// Those that belong together, and that the run could do without: an operation's.
    pub(crate) parts: Vec<Range<usize>>,
    /// Where the part begins that has not ended yet.
    open: Option<usize>,
}

impl Tape {
    fn end_part(&mut self) {
        if let Some(begin) = self.open.take() {
            self.parts.push(begin..self.numbers.len());
        }
    }
}

#[derive(Clone, Debug)]
enum Source {
    Seed(SplitMix64),
    Script(VecDeque<u8>),
    Tape(VecDeque<u64>),
}

impl Rng {
    /// A generator for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { source: Source::Seed(SplitMix64::seed_from_u64(seed)), taken: None }
    }

    /// Numbers that are read from a script, and zeros after its end. A number takes no
    /// more bytes than its range needs, so that a fuzzer's small changes stay small.
    #[must_use]
    pub fn from_script(script: &[u8]) -> Self {
        Self { source: Source::Script(script.iter().copied().collect()), taken: None }
    }

    /// Returns whether the numbers are read from a script.
    pub(crate) fn is_scripted(&self) -> bool {
        matches!(self.source, Source::Script(_))
    }

    /// Numbers from a tape, as far as a range allows them, and zeros after its end.
    #[must_use]
    pub(crate) fn from_tape(tape: &[u64]) -> Self {
        Self { source: Source::Tape(tape.iter().copied().collect()), taken: None }
    }

    /// From now on takes down what it gives; [`into_tape`](Self::into_tape) gives it.
    #[must_use]
    pub(crate) fn recording(self) -> Self {
        Self { taken: Some(Tape::default()), ..self }
    }

    /// What was taken down: the same numbers again.
    #[must_use]
    pub(crate) fn into_tape(self) -> Tape {
        let mut tape = self.taken.unwrap_or_default();
        tape.end_part();
        tape
    }

    /// Here begins a part of the run that it could do without, and ends the one before it. True
    /// where a tape leaves it out.
    pub(crate) fn leaves_out(&mut self) -> bool {
        if let Some(taken) = &mut self.taken {
            taken.end_part();
            taken.open = Some(taken.numbers.len());
        }
        let Source::Tape(tape) = &mut self.source else { return false };
        let is_out = tape.front() == Some(&LEFT_OUT);
        if is_out {
            tape.pop_front();
        }
        is_out
    }

    /// The last part has ended.
    pub(crate) fn end_part(&mut self) {
        if let Some(taken) = &mut self.taken {
            taken.end_part();
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let bits = match &mut self.source {
            Source::Seed(generator) => generator.next_u64(),
            Source::Script(script) => little_endian(script, 8),
            Source::Tape(tape) => next(tape),
        };
        self.give(bits)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let bits = match &mut self.source {
            Source::Seed(generator) => generator.next_u64(),
            Source::Script(script) => little_endian(script, bytes_for(end)),
            Source::Tape(tape) => next(tape),
        };
        self.give(bits % end)
    }

    fn give(&mut self, number: u64) -> u64 {
        if let Some(taken) = &mut self.taken {
            taken.numbers.push(number);
        }
        number
    }

    /// A number from `start` to `end`, both included.
    pub fn within(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start + 1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Entries of a batch, mostly of one: kinds and payloads, together shorter than what
    /// `longest` draws.
    pub fn entries(&mut self, longest: impl FnOnce(&mut Self) -> u64) -> Vec<(u16, Vec<u8>)> {
        let count = if self.one_in(4) { self.within(2, 5) } else { 1 };
        let longest = longest(self);
        (0..count)
            .map(|_| {
                let len = self.below(longest / count) as usize;
                let byte = self.bits();
                let payload = (0..len).map(|at| (byte >> (at % 8 * 8)) as u8 ^ at as u8).collect();
                (self.below(0xFF00) as u16, payload)
            })
            .collect()
    }

    /// Has the script been read to its end? A seed has none.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        match &self.source {
            Source::Seed(_) => false,
            Source::Script(script) => script.is_empty(),
            Source::Tape(tape) => tape.is_empty(),
        }
    }
}

/// The next number of a tape. Marks of what is left out, where nothing could be, are passed over.
fn next(tape: &mut VecDeque<u64>) -> u64 {
    std::iter::from_fn(|| tape.pop_front()).find(|number| *number != LEFT_OUT).unwrap_or(0)
}

fn little_endian(script: &mut VecDeque<u8>, bytes: u32) -> u64 {
    (0..bytes).fold(0, |bits, at| bits | u64::from(script.pop_front().unwrap_or(0)) << (at * 8))
}

const fn bytes_for(end: u64) -> u32 {
    match end {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 8,
    }
}
