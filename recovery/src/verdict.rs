//! The verdict: a pure table from what a scan found to what may be done about it.
//!
//! It does no I/O and knows no format. Its test goes through a small domain whole.
//! That a promise, not "a later valid frame", tells damage from a torn tail is
//! Pebble's idea: disks persist block N + 1 without block N.

use bulla_storage::Lsn;

/// What lies after the last frame that can be read in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// Nothing but zeros.
    Zeros,
    /// Anything else.
    Something,
}

/// What is to be done with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is whole: only zeros follow the last frame.
    Clean,
    /// What follows the last frame was never promised: cut there.
    TornTail {
        /// The end of what is kept.
        cut_at: Lsn,
    },
    /// Something that was durable can't be read: refuse, change nothing.
    Corrupt,
}

/// Decides, from the end X of the frames that can be read in order, the highest
/// promise D, and what lies after X.
pub(crate) fn decide(x: Lsn, d: Lsn, rest: Rest) -> Verdict {
    match (x >= d, rest) {
        (false, _) => Verdict::Corrupt,
        (true, Rest::Zeros) => Verdict::Clean,
        (true, Rest::Something) => Verdict::TornTail { cut_at: x },
    }
}

#[cfg(test)]
mod tests {
    use super::{Rest, Verdict, decide};
    use bulla_storage::Lsn;

    /// The disk in this model: frames of one unit each, some of them damaged, some
    /// promised. The rule is derived from it here and compared with the table.
    #[test]
    fn verdict_is_right_for_every_small_log() {
        const FRAMES: u64 = 6;
        let mut seen = [0; 3];
        for promised in 0..=FRAMES {
            for written in 0..=FRAMES {
                for damaged in 0..1_u64 << written {
                    let intact = |frame: u64| frame < written && damaged & (1 << frame) == 0;
                    let x = (0..FRAMES).take_while(|frame| intact(*frame)).count() as u64;
                    let rest = if x == written { Rest::Zeros } else { Rest::Something };
                    let lost_promised = (0..promised).any(|frame| !intact(frame));
                    let expected = if lost_promised {
                        Verdict::Corrupt
                    } else if written > x {
                        Verdict::TornTail { cut_at: Lsn(x) }
                    } else {
                        Verdict::Clean
                    };
                    assert_eq!(decide(Lsn(x), Lsn(promised), rest), expected);
                    let [clean, torn, corrupt] = &mut seen;
                    *match expected {
                        Verdict::Clean => clean,
                        Verdict::TornTail { .. } => torn,
                        Verdict::Corrupt => corrupt,
                    } += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }

    #[test]
    fn verdict_never_keeps_less_than_was_promised() {
        for x in 0..20 {
            for d in 0..20 {
                for rest in [Rest::Zeros, Rest::Something] {
                    match decide(Lsn(x), Lsn(d), rest) {
                        Verdict::Corrupt => assert!(x < d),
                        Verdict::Clean => assert!(x >= d && rest == Rest::Zeros),
                        Verdict::TornTail { cut_at } => {
                            assert!(cut_at == Lsn(x) && x >= d && rest == Rest::Something);
                        }
                    }
                }
            }
        }
    }
}
