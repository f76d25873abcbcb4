//! A small generator: the same seed gives the same campaign on every machine.

use std::collections::VecDeque;

/// Steele, Lea and Flood's `SplitMix64`, or a script of bytes or a tape of numbers in its place.
#[derive(Clone, Debug)]
pub struct Rng {
    source: Source,
    /// Every number that was given, where they are taken down.
    taken: Option<Vec<u64>>,
}

#[derive(Clone, Debug)]
enum Source {
    Seed(u64),
    Script(VecDeque<u8>),
    Tape(VecDeque<u64>),
}

impl Rng {
    /// A generator for a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { source: Source::Seed(seed), taken: None }
    }

    /// Numbers that are read from a script, and zeros after its end. A number takes no
    /// more bytes than its range needs, so that a fuzzer's small changes stay small.
    #[must_use]
    pub fn from_script(script: &[u8]) -> Self {
        Self { source: Source::Script(script.iter().copied().collect()), taken: None }
    }

    /// Numbers from a tape, as far as a range allows them, and zeros after its end.
    #[must_use]
    pub fn from_tape(tape: &[u64]) -> Self {
        Self { source: Source::Tape(tape.iter().copied().collect()), taken: None }
    }

    /// From now on takes down what it gives; [`tape`](Self::tape) gives it.
    #[must_use]
    pub fn recording(self) -> Self {
        Self { taken: Some(Vec::new()), ..self }
    }

    /// What was taken down: the same numbers again.
    #[must_use]
    pub fn tape(&self) -> &[u64] {
        self.taken.as_deref().unwrap_or(&[])
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let bits = match &mut self.source {
            Source::Seed(state) => split_mix(state),
            Source::Script(script) => little_endian(script, 8),
            Source::Tape(tape) => tape.pop_front().unwrap_or(0),
        };
        self.give(bits)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let bits = match &mut self.source {
            Source::Seed(state) => split_mix(state),
            Source::Script(script) => little_endian(script, bytes_for(end)),
            Source::Tape(tape) => tape.pop_front().unwrap_or(0),
        };
        self.give(bits % end)
    }

    fn give(&mut self, number: u64) -> u64 {
        if let Some(taken) = &mut self.taken {
            taken.push(number);
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

const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
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
