//! Shorter runs that fail as well: fewer operations, crashes and faults, and smaller ones.
//!
//! A run is the tape of all the numbers that it drew. First whole parts of it are left out, which
//! leaves the others what they were. Then single numbers are left out, and made smaller, as long
//! as what is left still fails: so no part of a campaign has to know how it could be simpler.

use crate::rng::{LEFT_OUT, Tape};

/// Runs that are tried, at most.
const MAX_TRIES: usize = 5_000;

/// The shortest tape that was found for which `fails` holds, as it does for `tape`.
pub(crate) fn shrink(tape: &Tape, mut fails: impl FnMut(&[u64]) -> bool) -> Vec<u64> {
    let mut tries = 0;
    let mut fails = |shorter: &[u64]| {
        tries += 1;
        tries <= MAX_TRIES && fails(shorter)
    };
    let parts = leave_out_parts(tape, &mut fails);
    smaller(&parts, &mut fails)
}

/// The tape without as many of its parts as can be missed.
fn leave_out_parts(tape: &Tape, fails: &mut impl FnMut(&[u64]) -> bool) -> Vec<u64> {
    let mut kept = vec![true; tape.parts.len()];
    let mut changed = true;
    while std::mem::take(&mut changed) {
        let mut len = kept.len().next_power_of_two();
        while len > 0 {
            for at in (0..kept.len()).step_by(len) {
                let end = kept.len().min(at + len);
                let mut fewer = kept.clone();
                fewer[at..end].fill(false);
                if fewer != kept && fails(&without(tape, &fewer)) {
                    kept = fewer;
                    changed = true;
                }
            }
            len /= 2;
        }
    }
    without(tape, &kept)
}

/// The tape with its kept parts alone, and all that is between parts.
fn without(tape: &Tape, kept: &[bool]) -> Vec<u64> {
    let (mut numbers, mut at) = (Vec::new(), 0);
    for (part, _) in tape.parts.iter().zip(kept).filter(|(_, kept)| !**kept) {
        numbers.extend(&tape.numbers[at..part.start]);
        numbers.push(LEFT_OUT);
        at = part.end;
    }
    numbers.extend(&tape.numbers[at..]);
    numbers
}

/// The tape with fewer and smaller numbers.
fn smaller(tape: &[u64], fails: &mut impl FnMut(&[u64]) -> bool) -> Vec<u64> {
    let mut best = tape.to_vec();
    let mut changed = true;
    while std::mem::take(&mut changed) {
        let mut len = best.len().next_power_of_two();
        while len > 0 {
            let mut at = 0;
            while at < best.len() {
                let end = best.len().min(at + len);
                let without = [&best[..at], &best[end..]].concat();
                if fails(&without) {
                    best = without;
                    changed = true;
                } else {
                    at = end;
                }
            }
            len /= 2;
        }
        for at in 0..best.len() {
            for smaller in [0, best[at] / 2, best[at].saturating_sub(1)] {
                let mut with = best.clone();
                with[at] = smaller;
                if smaller < best[at] && best[at] != LEFT_OUT && fails(&with) {
                    best = with;
                    changed = true;
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{MAX_TRIES, shrink};
    use crate::rng::{LEFT_OUT, Rng, Tape};

    #[test]
    fn what_is_left_fails_and_nothing_of_it_is_spare() {
        let fails = |tape: &[u64]| tape.iter().filter(|number| **number >= 10).count() >= 2;
        let numbers = (0..200).map(|number| number * 37 % 101).collect();
        let mut tape = Tape::default();
        tape.numbers = numbers;
        assert_eq!(shrink(&tape, fails), [10, 10]);
        let in_order = |tape: &[u64]| tape.windows(2).any(|pair| pair[0] > pair[1]);
        assert_eq!(shrink(&tape, in_order), [1, 0]);
    }

    /// Draws the number of operations first, then their lengths. Returns the longest two,
    /// and how often it was drawn.
    fn operations(rng: &mut Rng) -> (u64, u64, usize) {
        let (mut longest, mut second, mut draws) = (0, 0, 1);
        for _ in 0..rng.within(300, 400) {
            if rng.leaves_out() {
                continue;
            }
            let len = rng.below(50);
            draws += 1 + len as usize;
            let sum = (0..len).map(|_| rng.below(100)).sum();
            (longest, second) = match sum {
                sum if sum > longest => (sum, longest),
                sum => (longest, second.max(sum)),
            };
        }
        rng.end_part();
        (longest, second, draws)
    }

    #[test]
    fn parts_that_can_be_missed_are_left_out_and_the_others_stay_what_they_were() {
        let mut rng = Rng::new(3).recording();
        let (longest, second, draws) = operations(&mut rng);
        let tape = rng.into_tape();
        assert_eq!(tape.numbers.len(), draws);
        assert!((300..=400).contains(&tape.parts.len()));
        let mut tries = 0;
        let short = shrink(&tape, |tape| {
            tries += 1;
            let (one, other, _) = operations(&mut Rng::from_tape(tape));
            (one, other) == (longest, second)
        });
        assert!(tries <= MAX_TRIES);
        let kept = short.iter().filter(|number| **number != LEFT_OUT).count();
        let (one, other, draws) = operations(&mut Rng::from_tape(&short));
        assert_eq!((one, other), (longest, second));
        assert!(kept <= 1 + 2 * 50, "{kept} numbers of two operations: {short:?}");
        assert!(draws < 500, "what is left out is not drawn: {draws}");
    }

    #[test]
    fn what_was_taken_down_gives_the_same_run() {
        let mut rng = Rng::new(7).recording();
        let told = operations(&mut rng);
        let tape = rng.into_tape();
        assert_eq!(operations(&mut Rng::from_tape(&tape.numbers)), told);
    }
}
