//! Shorter runs that fail as well: fewer operations, crashes and faults, and smaller ones.
//!
//! A run is the tape of all the numbers that it drew. Parts of it are left out, and numbers made
//! smaller, as long as what is left still fails: so no part of a campaign has to know how it
//! could be simpler.

/// Runs that are tried, at most.
const MAX_TRIES: usize = 3_000;

/// The shortest tape that was found for which `fails` holds, as it does for `tape`.
pub fn shrink(tape: &[u64], mut fails: impl FnMut(&[u64]) -> bool) -> Vec<u64> {
    let mut best = tape.to_vec();
    let mut tries = 0;
    let mut is_better = |shorter: &[u64]| {
        tries += 1;
        tries <= MAX_TRIES && fails(shorter)
    };
    let mut changed = true;
    while std::mem::take(&mut changed) {
        let mut len = best.len().next_power_of_two();
        while len > 0 {
            let mut at = 0;
            while at < best.len() {
                let end = best.len().min(at + len);
                let without = [&best[..at], &best[end..]].concat();
                if is_better(&without) {
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
                if smaller < best[at] && is_better(&with) {
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
    use super::shrink;

    #[test]
    fn what_is_left_fails_and_nothing_of_it_is_spare() {
        let fails = |tape: &[u64]| tape.iter().filter(|number| **number >= 10).count() >= 2;
        let tape: Vec<u64> = (0..200).map(|number| number * 37 % 101).collect();
        assert_eq!(shrink(&tape, fails), [10, 10]);
        let in_order = |tape: &[u64]| tape.windows(2).any(|pair| pair[0] > pair[1]);
        assert_eq!(shrink(&tape, in_order), [1, 0]);
    }
}
