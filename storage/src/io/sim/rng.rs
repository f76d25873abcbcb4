//! A small seeded generator: the only source of chance in the simulator.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng};

#[derive(Clone, Debug)]
pub(super) struct Rng(SplitMix64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number below `bound`, which is small and not zero: the bias does not matter.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        super::index(self.next() % bound as u64)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Returns true `ppm` times in a million.
    pub(super) fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.next() % 1_000_000 < u64::from(ppm)
    }

    /// Returns how much of the undecided pieces survives one crash: often an extreme, because
    /// chance alone hardly ever produces "nothing" or "everything".
    pub(super) fn survival(&mut self, none_ppm: u32, all_ppm: u32) -> Survival {
        let draw = self.next() % 1_000_000;
        if draw < u64::from(none_ppm) {
            Survival::None
        } else if draw < u64::from(none_ppm) + u64::from(all_ppm) {
            Survival::All
        } else {
            Survival::Some { ppm: [125_000, 500_000, 875_000][self.below(3)] }
        }
    }

    pub(super) fn survives(&mut self, survival: Survival) -> bool {
        match survival {
            Survival::None => false,
            Survival::All => true,
            Survival::Some { ppm } => self.chance(ppm),
        }
    }
}

/// How much of what is not durable outlives a power loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survival {
    None,
    All,
    /// Each piece on its own, with this chance in a million.
    Some {
        ppm: u32,
    },
}
