//! What the campaigns of seeds have in common: a seed that fails says how to play it again, and a
//! panic is a failure, too. All write down what they do, and can be shrunk.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bulla_storage::io::sim::SimDisk;

use crate::model::Violation;
use crate::rng::Rng;
use crate::shrink::shrink;
use crate::{campaign, reading, store};

/// A campaign that plays seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Campaign {
    /// [`crate::campaign`]: a log.
    Log,
    /// [`crate::store`].
    Store,
    /// [`crate::reading`]: readers of a log.
    Readers,
}

/// What a campaign plays a seed with.
pub(crate) trait World {
    /// Whose seeds it plays.
    const CAMPAIGN: Campaign;
    /// What a seed did, for the campaign's totals.
    type Tally;

    /// Everything before the first step.
    fn new(rng: Rng) -> Self;

    /// Draws what to do, does it, and looks at what comes of it.
    ///
    /// # Errors
    /// The first violation, behind the number of its invariant.
    fn play(&mut self) -> Result<(), Violation>;

    /// What it drew, what it did, and what came of it.
    fn end(self) -> (Rng, Trace, Self::Tally);
}

/// What was done, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(String);

impl Trace {
    pub(crate) fn step(&mut self, disk: &SimDisk, line: fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "step {:>5}: {line}", disk.steps());
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A violation, with what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose seed it is.
    pub campaign: Campaign,
    /// Plays it again.
    pub seed: u64,
    /// What was broken.
    pub violation: String,
    /// What was done, in order.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { campaign, seed, violation, .. } = self;
        write!(
            f,
            "seed {seed}: {violation}\n\
             play it again: cargo run -p bulla-tests --bin sim -- {}--seed {seed} --trace",
            campaign.option()
        )
    }
}

impl std::error::Error for Failure {}

impl Campaign {
    /// How `sim` is told which one it is to play.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Log => "",
            Self::Store => "--store ",
            Self::Readers => "--readers ",
        }
    }

    /// What one seed does, and how it ends.
    #[must_use]
    pub fn trace(self, seed: u64) -> String {
        self.trace_of(Rng::new(seed))
    }

    /// As [`trace`](Self::trace), of a run that draws these numbers, and then zeros.
    #[must_use]
    pub fn trace_tape(self, tape: &[u64]) -> String {
        self.trace_of(Rng::from_tape(tape))
    }

    fn trace_of(self, rng: Rng) -> String {
        match self {
            Self::Log => trace_of::<campaign::World>(rng),
            Self::Store => trace_of::<store::World>(rng),
            Self::Readers => trace_of::<reading::World>(rng),
        }
    }

    /// What the shortest run draws that breaks the same invariant and was found by leaving out
    /// parts of this one; `None` when this one breaks none.
    #[must_use]
    pub fn shrunk(self, seed: u64) -> Option<Vec<u64>> {
        match self {
            Self::Log => shrunk::<campaign::World>(seed),
            Self::Store => shrunk::<store::World>(seed),
            Self::Readers => shrunk::<reading::World>(seed),
        }
    }
}

/// Plays one seed.
///
/// # Errors
/// The first violation.
pub(crate) fn run<W: World>(seed: u64) -> Result<W::Tally, Box<Failure>> {
    let mut world = W::new(Rng::new(seed));
    let played = caught(|| world.play());
    let (_, trace, tally) = world.end();
    played.map(|()| tally).map_err(|violation| {
        Box::new(Failure { campaign: W::CAMPAIGN, seed, violation, trace: trace.to_string() })
    })
}

/// Plays what a script says instead of a seed: every choice is read from its bytes. A panic is
/// let through.
///
/// # Errors
/// The first violation, with the steps that led to it.
pub(crate) fn run_script<W: World>(script: &[u8]) -> Result<W::Tally, String> {
    let mut world = W::new(Rng::from_script(script));
    let played = world.play();
    let (_, trace, tally) = world.end();
    played.map(|()| tally).map_err(|violation| format!("{trace}{violation}"))
}

fn trace_of<W: World<Tally: fmt::Debug>>(rng: Rng) -> String {
    let mut world = W::new(rng);
    let played = caught(|| world.play());
    let (_, trace, tally) = world.end();
    format!("{trace}{played:?}\n{tally:?}\n")
}

fn shrunk<W: World>(seed: u64) -> Option<Vec<u64>> {
    let mut world = W::new(Rng::new(seed).recording());
    let broken = broken_by(&mut world)?;
    let is_same =
        |tape: &[u64]| broken_by(&mut W::new(Rng::from_tape(tape))).as_ref() == Some(&broken);
    let (rng, _, _) = world.end();
    Some(shrink(&rng.into_tape(), is_same))
}

/// The number of the invariant that a run breaks, or that it panics.
fn broken_by<W: World>(world: &mut W) -> Option<String> {
    let violation = caught(|| world.play()).err()?;
    Some(violation.split(':').next().unwrap_or_default().to_owned())
}

/// Plays; a panic is a violation like any other.
///
/// # Errors
/// What is broken.
pub(crate) fn caught<T>(play: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| Err(told(panic.as_ref())))
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Campaign, SimDisk, Trace, Violation, World, run, run_script, shrunk, trace_of};
    use crate::rng::Rng;

    /// Draws ten numbers. Two in a row that are even violate one invariant, a 7 another.
    struct Toy {
        rng: Rng,
        disk: SimDisk,
        trace: Trace,
    }

    impl World for Toy {
        const CAMPAIGN: Campaign = Campaign::Store;
        type Tally = &'static str;

        fn new(rng: Rng) -> Self {
            Self { rng, disk: SimDisk::new(1), trace: Trace::default() }
        }

        fn play(&mut self) -> Result<(), Violation> {
            let mut last = 1;
            for _ in 0..10 {
                if self.rng.leaves_out() {
                    continue;
                }
                let number = self.rng.within(1, 8);
                self.trace.step(&self.disk, format_args!("{number}"));
                assert!(number != 7, "{number} is too many");
                let is_even = |number: u64| number.is_multiple_of(2);
                if is_even(last) && is_even(number) {
                    return Err(format!("I0: {last} and {number}"));
                }
                last = number;
            }
            Ok(())
        }

        fn end(self) -> (Rng, Trace, &'static str) {
            (self.rng, self.trace, "all is well")
        }
    }

    fn first_that(is: impl Fn(&str) -> bool) -> (u64, Box<super::Failure>) {
        let fails = |seed| Some((seed, run::<Toy>(seed).err()?));
        let mut failures = (0..1_000).filter_map(fails);
        failures.find(|(_, failure)| is(&failure.violation)).expect("one of the seeds does")
    }

    #[test]
    fn seed_that_fails_is_told_with_its_steps_and_the_command_that_plays_it_again() {
        let (seed, failure) = first_that(|violation| violation.starts_with("panic"));
        assert_eq!(
            failure.to_string(),
            format!(
                "seed {seed}: panic: 7 is too many\n\
                 play it again: cargo run -p bulla-tests --bin sim -- --store --seed {seed} --trace"
            )
        );
        assert!(failure.trace.ends_with("step     0: 7\n"), "{}", failure.trace);
        let traced = trace_of::<Toy>(Rng::new(seed));
        assert!(traced.starts_with(&failure.trace), "{traced}");
        let told = run_script::<Toy>(&[0, 1, 1]).unwrap_err();
        assert_eq!(told, "step     0: 1\nstep     0: 2\nstep     0: 2\nI0: 2 and 2");
        assert_eq!(run_script::<Toy>(&[]), Ok("all is well"));
    }

    #[test]
    fn shrunk_run_breaks_what_the_seed_broke_and_is_as_short_as_can_be() {
        let (seed, _) = first_that(|violation| violation.starts_with("I0"));
        assert_eq!(shrunk::<Toy>(seed), Some(vec![1, 1]));
        let (seed, _) = first_that(|violation| violation.starts_with("panic"));
        assert_eq!(shrunk::<Toy>(seed), Some(vec![6]));
        let sound = (0..1_000).find(|seed| run::<Toy>(*seed).is_ok()).expect("some are");
        assert_eq!(shrunk::<Toy>(sound), None);
    }
}
