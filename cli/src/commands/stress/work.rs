//! The tokens of a stress run, and the threads that make them.

use std::ops::Range;
use std::time::{Duration, Instant};

use bulla_engine::{RECORD_LEN, Token};
use bulla_wal::Receipt;
use indicatif::ProgressBar;

use crate::error::{Error, Result};
use crate::random::Random;
use crate::signals::Interrupt;

/// Tokens with dense ids, determined by a seed; each thread makes a range of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) records: u64,
    pub(super) threads: u64,
    pub(super) seed: u64,
}

/// The most records of a thread in flight.
const MAX_READ: u64 = 10_000;
/// A time in 2013: in the past on any clock.
const TIMESTAMP: u32 = 1_357_034_400;

impl Work {
    /// Returns the token of a number from 0; its id is one more.
    pub(super) fn token(&self, number: u64) -> Result<Token> {
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let mut bytes = [0; RECORD_LEN];
        let (coordinates, fields) = bytes.split_at_mut(48);
        for word in coordinates.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        let id = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let weight = f32::from(u8::try_from(number % 100).unwrap_or_default());
        fields[..4].copy_from_slice(&id.to_le_bytes());
        fields[6..10].copy_from_slice(&weight.to_le_bytes());
        fields[12..].copy_from_slice(&TIMESTAMP.to_le_bytes());
        Token::from_bytes(&bytes).map_err(|error| Error::Store(error.into()))
    }

    /// Returns the numbers of each thread's tokens.
    pub(super) fn shares(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (records, threads) = (self.records, self.threads);
        let bound = move |thread| records * thread / threads;
        (0..threads).map(move |thread| bound(thread)..bound(thread + 1))
    }

    /// Returns after how many records a thread waits for those before them.
    pub(super) fn pause(&self) -> u64 {
        (self.records / self.threads / 20).clamp(1, MAX_READ / 2)
    }

    /// Runs `each` on every share, in a thread of its own; returns the time until all ended.
    pub(super) fn run<T: Send>(
        &self,
        each: impl Fn(usize, Range<u64>) -> Result<T> + Sync,
    ) -> Result<(Vec<T>, Duration)> {
        let start = Instant::now();
        let ended = std::thread::scope(|scope| {
            let threads: Vec<_> = (self.shares().enumerate())
                .map(|(thread, share)| {
                    let each = &each;
                    scope.spawn(move || each(thread, share))
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect::<Result<Vec<T>>>()
        });
        Ok((ended?, start.elapsed()))
    }
}

/// What a user sees and can do while records are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch<'a> {
    pub(super) bar: &'a ProgressBar,
    pub(super) interrupt: &'a Interrupt,
}

impl Watch<'_> {
    /// Counts this many more records as done.
    pub(super) fn done(self, records: u64) -> Result<()> {
        self.bar.inc(records);
        self.interrupt.check()
    }
}

/// Makes the records of a share with a bounded number of them in flight. `done` gets the
/// number of acknowledged ones.
pub(super) fn read_buffer(
    work: &Work,
    share: Range<u64>,
    mut append: impl FnMut(&Token) -> Result<Receipt>,
    wait: impl Fn(Receipt) -> Result<()>,
    mut done: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let pause = work.pause();
    let mut waited_for: Option<(Receipt, u64)> = None;
    let mut from = share.start;
    while from < share.end {
        let to = share.end.min(from + pause);
        let mut last = None;
        for number in from..to {
            last = Some(append(&work.token(number)?)?);
        }
        if let Some((receipt, count)) = waited_for.take() {
            wait(receipt)?;
            done(count)?;
        }
        waited_for = last.map(|receipt| (receipt, to - from));
        from = to;
    }
    if let Some((receipt, count)) = waited_for {
        wait(receipt)?;
        done(count)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_records_once_and_tokens_differ_by_seed_and_number() {
        let work = Work { records: 1_000_003, threads: 7, seed: 1 };
        let mut next = 0;
        for share in work.shares() {
            assert_eq!(share.start, next);
            next = share.end;
        }
        assert_eq!(next, work.records);
        let token = |work: Work, number| work.token(number).expect("a token");
        assert_eq!(token(work, 5).id().0, 6);
        assert_eq!(token(work, 5), token(work, 5));
        let bytes = |token: Token| token.as_bytes()[..48].to_vec();
        assert_ne!(bytes(token(work, 5)), bytes(token(work, 6)));
        assert_ne!(token(work, 5), token(Work { seed: 2, ..work }, 5));
    }
}
