//! What was acknowledged, and whether it is there. Pure: no file, no clock, no process.
//!
//! Owns the drill's truth: every entry that a recovery has shown, every acknowledgement
//! since, and the rules that a recovered log must obey. The tests below show that each
//! rule can fail.

use std::collections::VecDeque;

use bulla_engine::entries::PUT;
use bulla_wal::{Level, Lsn, Seq};

use super::feed::Feed;
use super::wire::Ack;

/// Bytes of an entry in the log: header and token.
const ENTRY_LEN: u64 = bulla_storage::format::entry_len(bulla_engine::TOKEN_LEN as u64);

/// An entry of the log that was shown after a recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    client: u8,
    index: u64,
    lsn: Lsn,
}

/// What the child reported in a run before it was killed.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) acks: Vec<Ack>,
    pub(super) opened: Option<(Seq, Lsn)>,
    pub(super) written: Lsn,
    pub(super) durable: Lsn,
    pub(super) keep_from: Lsn,
}

/// What a recovery found, without the entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    pub(super) first_seq: Seq,
    pub(super) next_seq: Seq,
    /// The end of the recovered log.
    pub(super) end: Lsn,
}

/// What was found wrong, and what was lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Entries that were not there before this run.
    pub(super) new: u64,
    /// Relaxed entries that were acknowledged and lost, within what the ring held.
    pub(super) lost_allowed: u64,
    /// Entries that were acknowledged or shown before, and must not have been lost.
    pub(super) lost_forbidden: u64,
    /// Violations of the rule that a recovered log is a prefix of what was sent.
    pub(super) prefix_violations: u64,
    /// The distance from the end of the log to the end of the last lost entry, in bytes.
    pub(super) lost_bytes: u64,
    /// The first few problems, in words.
    pub(super) words: Vec<String>,
}

/// The most problems that are told in words.
const MAX_WORDS: usize = 8;

impl Findings {
    fn violation(&mut self, words: impl FnOnce() -> String) {
        self.prefix_violations += 1;
        self.say(words);
    }

    fn forbidden(&mut self, count: u64, words: impl FnOnce() -> String) {
        if count > 0 {
            self.lost_forbidden += count;
            self.say(words);
        }
    }

    fn say(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < MAX_WORDS {
            self.words.push(words());
        }
    }

    /// Records that recovery refused the log.
    pub(super) fn corrupt(&mut self, corruption: &bulla_wal::Corruption) {
        self.violation(|| format!("recovery refused the log: {corruption}"));
    }

    /// Records that the store holds other tokens than the entries of the log say.
    pub(super) fn store(&mut self, expected: usize, found: usize) {
        self.violation(|| format!("the store holds other tokens: {found}, not {expected}"));
    }

    pub(super) const fn is_good(&self) -> bool {
        self.lost_forbidden == 0 && self.prefix_violations == 0
    }
}

/// What the log must hold.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    feed: &'a Feed,
    ring_len: u64,
    /// Entries shown by the last recovery, from `first_seq` on.
    known: VecDeque<Known>,
    first_seq: Seq,
    /// The number of records of each client that the log has held.
    counts: Vec<u64>,
    /// Everything below this may have been purged.
    keep_from: Lsn,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(feed: &'a Feed, clients: u8, ring_len: u64) -> Self {
        Self {
            feed,
            ring_len,
            known: VecDeque::new(),
            first_seq: Seq(1),
            counts: vec![0; usize::from(clients)],
            keep_from: Lsn(0),
        }
    }

    /// Returns the number of every client's next record.
    pub(super) fn next_indexes(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the tokens that a store of the log must hold.
    pub(super) fn tokens(&self) -> impl Iterator<Item = bulla_engine::Token> + '_ {
        self.known.iter().map(|known| self.feed.token(known.client, known.index))
    }

    /// Begins to check what a recovery shows after a run.
    pub(super) fn check(&mut self, run: Run, recovered: Recovered) -> Check<'_, 'a> {
        self.keep_from = self.keep_from.max(run.keep_from);
        let findings = Findings::default();
        Check { next: recovered.first_seq, ledger: self, run, recovered, findings }
    }

    fn next_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.known.len() as u64)
    }

    fn at(&self, seq: Seq) -> Option<Known> {
        let index = seq.0.checked_sub(self.first_seq.0)?;
        self.known.get(usize::try_from(index).ok()?).copied()
    }
}

/// A check that takes the recovered entries in order.
#[derive(Debug)]
pub(super) struct Check<'l, 'a> {
    ledger: &'l mut Ledger<'a>,
    run: Run,
    recovered: Recovered,
    next: Seq,
    findings: Findings,
}

impl Check<'_, '_> {
    /// Checks one entry.
    pub(super) fn entry(&mut self, lsn: Lsn, seq: Seq, kind: u16, payload: &[u8]) {
        if seq != self.next {
            let next = self.next;
            self.findings.violation(|| format!("entry {next} is missing: {seq} follows"));
        }
        self.next = Seq(seq.0 + 1);
        if seq < self.ledger.next_seq() {
            self.seen(lsn, seq, kind, payload);
        } else {
            self.unseen(lsn, seq, kind, payload);
        }
    }

    /// Checks that an entry is as an earlier recovery has shown it.
    fn seen(&mut self, lsn: Lsn, seq: Seq, kind: u16, payload: &[u8]) {
        let Some(known) = self.ledger.at(seq) else {
            self.findings.violation(|| format!("entry {seq} was purged, and is back"));
            return;
        };
        let token = self.ledger.feed.token(known.client, known.index);
        if kind != PUT || payload != token.as_bytes() || lsn != known.lsn {
            self.findings.violation(|| format!("entry {seq} has changed since it was shown"));
        }
    }

    /// Checks that a new entry is the next record of one of the clients.
    fn unseen(&mut self, lsn: Lsn, seq: Seq, kind: u16, payload: &[u8]) {
        self.findings.new += 1;
        let token =
            payload.try_into().ok().and_then(|bytes| bulla_engine::Token::from_bytes(bytes).ok());
        let client = token.map_or(u8::MAX, |token| token.id().domain());
        let Some(count) = self.ledger.counts.get_mut(usize::from(client)) else {
            self.findings.violation(|| format!("entry {seq} was sent by no client"));
            return;
        };
        let index = *count;
        *count += 1;
        if kind != PUT || payload != self.ledger.feed.token(client, index).as_bytes() {
            self.findings.violation(|| {
                format!("entry {seq} is not record {index} of client {client}, the next one sent")
            });
        }
        self.ledger.known.push_back(Known { client, index, lsn });
    }

    /// Ends the check.
    pub(super) fn finish(mut self) -> Findings {
        let (recovered, next) = (self.recovered, self.next);
        if next != recovered.next_seq {
            self.findings.violation(|| {
                format!(
                    "the log reports {} as its next entry, but replay ends before {next}",
                    recovered.next_seq
                )
            });
        }
        let shown = self.ledger.next_seq();
        self.findings.forbidden(shown.0.saturating_sub(next.0), || {
            format!("entries {next} to {}, which were there before, are gone", shown.0 - 1)
        });
        let opened = self.run.opened.map_or(0, |(next_seq, _)| next_seq.0);
        self.findings.forbidden(opened.saturating_sub(recovered.next_seq.0), || {
            format!("entries up to {}, which an open had shown, are gone", opened - 1)
        });
        self.purged();
        for (client, count) in self.ledger.counts.iter().enumerate() {
            if Feed::splits_batch(*count) {
                self.findings.violation(|| format!("a batch of client {client} is incomplete"));
            }
        }
        let acks = std::mem::take(&mut self.run.acks);
        acks.iter().for_each(|ack| self.ack(ack));
        for (name, mark) in [("written", self.run.written), ("durable", self.run.durable)] {
            if mark > recovered.end {
                self.findings.violation(|| {
                    format!("the log was {name} up to LSN {mark}, and ends at {}", recovered.end)
                });
            }
        }
        self.findings
    }

    /// Checks that entries are missing at the start only where the child had announced it.
    fn purged(&mut self) {
        let first = self.recovered.first_seq;
        if first < self.ledger.first_seq {
            self.findings.violation(|| format!("purged entries are back, from {first} on"));
        }
        while self.ledger.first_seq < first {
            let Some(known) = self.ledger.known.pop_front() else {
                // Even entries that no recovery has shown were purged. The drill never does
                // that: the counts of the clients would be lost.
                self.findings.violation(|| {
                    format!("entries before {first} were purged before any recovery showed them")
                });
                return;
            };
            self.ledger.first_seq.0 += 1;
            if known.lsn >= self.ledger.keep_from {
                self.findings.forbidden(1, || {
                    format!("the entry at LSN {} was purged without a request", known.lsn)
                });
            }
        }
    }

    fn ack(&mut self, ack: &Ack) {
        if ack.seq < self.recovered.next_seq {
            let wanted = Known { client: ack.client, index: ack.index, lsn: ack.lsn };
            // An entry that was purged since was there.
            if ack.seq >= self.ledger.first_seq && self.ledger.at(ack.seq) != Some(wanted) {
                self.findings.violation(|| {
                    format!(
                        "entry {} is not the one that was acknowledged under this number",
                        ack.seq
                    )
                });
            }
            return;
        }
        let lost_bytes = ack.lsn.plus(ENTRY_LEN).distance_from(self.recovered.end);
        self.findings.lost_bytes = self.findings.lost_bytes.max(lost_bytes);
        if ack.level == Level::Relaxed && lost_bytes <= self.ledger.ring_len {
            self.findings.lost_allowed += 1;
        } else {
            let (seq, level, end) = (ack.seq, ack.level, self.recovered.end);
            self.findings.forbidden(1, || {
                format!("entry {seq} at LSN {}, acknowledged as {level}, is lost: the log ends at {end}", ack.lsn)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bulla_engine::{Token, TokenId};

    use super::*;

    const RING: u64 = 4096;

    fn feed() -> Feed {
        let record = |id| Token::builder(TokenId(id)).timestamp(id).build().expect("valid");
        Feed::new((1..=10).map(record).collect(), 2)
    }

    /// Entries 1, 2, ... of client 0, 72 bytes apart.
    fn lsn(seq: u64) -> Lsn {
        Lsn(64 + (seq - 1) * ENTRY_LEN)
    }

    fn ack(seq: u64, level: Level) -> Ack {
        Ack { client: 0, level, index: seq - 1, seq: Seq(seq), lsn: lsn(seq) }
    }

    fn run(acks: impl IntoIterator<Item = Ack>) -> Run {
        Run { acks: acks.into_iter().collect(), ..Run::default() }
    }

    /// Checks a recovery that shows the entries `seqs`, each with the payload of
    /// `index(seq)`.
    fn check_with(
        ledger: &mut Ledger<'_>,
        run: Run,
        seqs: std::ops::RangeInclusive<u64>,
        index: impl Fn(u64) -> u64,
    ) -> Findings {
        let (first_seq, next_seq) = (Seq(*seqs.start()), Seq(seqs.end() + 1));
        let feed = ledger.feed;
        let mut check = ledger.check(run, Recovered { first_seq, next_seq, end: lsn(next_seq.0) });
        for seq in seqs {
            check.entry(lsn(seq), Seq(seq), PUT, feed.token(0, index(seq)).as_bytes());
        }
        check.finish()
    }

    fn check(ledger: &mut Ledger<'_>, run: Run, seqs: std::ops::RangeInclusive<u64>) -> Findings {
        check_with(ledger, run, seqs, |seq| seq - 1)
    }

    #[test]
    fn what_was_acknowledged_and_is_there_is_good() {
        let feed = feed();
        let mut ledger = Ledger::new(&feed, 2, RING);
        let acks = (1..=5).map(|seq| ack(seq, Level::Strict));
        let findings = check(&mut ledger, run(acks), 1..=6);
        assert!(findings.is_good(), "{findings:?}");
        assert_eq!((findings.new, ledger.next_indexes()), (6, &[6, 0][..]));
        let findings = check(&mut ledger, run([]), 1..=6);
        assert!(findings.is_good() && findings.new == 0);
        assert_eq!(ledger.tokens().count(), 6);
    }

    #[test]
    fn lost_balanced_or_strict_is_forbidden_and_lost_relaxed_is_not() {
        let feed = feed();
        for (level, allowed, forbidden) in
            [(Level::Relaxed, 2, 0), (Level::Balanced, 0, 2), (Level::Strict, 0, 2)]
        {
            let acks = (1..=5).map(|seq| ack(seq, level));
            let findings = check(&mut Ledger::new(&feed, 2, RING), run(acks), 1..=3);
            assert_eq!((findings.lost_allowed, findings.lost_forbidden), (allowed, forbidden));
            assert_eq!(findings.lost_bytes, 2 * ENTRY_LEN);
        }
    }

    #[test]
    fn losing_more_than_the_ring_is_forbidden() {
        let feed = feed();
        let findings =
            check(&mut Ledger::new(&feed, 2, RING), run([ack(60, Level::Relaxed)]), 1..=3);
        assert_eq!((findings.lost_allowed, findings.lost_forbidden), (0, 1));
    }

    #[test]
    fn what_was_shown_must_stay() {
        let feed = feed();
        let mut ledger = Ledger::new(&feed, 2, RING);
        check(&mut ledger, run([]), 1..=6);
        assert_eq!(check(&mut ledger, run([]), 1..=4).lost_forbidden, 2);
        assert_eq!(check_with(&mut ledger, run([]), 1..=6, |_| 0).prefix_violations, 5);
    }

    #[test]
    fn what_an_open_has_shown_must_stay() {
        let feed = feed();
        let told = Run { opened: Some((Seq(6), lsn(6))), ..Run::default() };
        assert_eq!(check(&mut Ledger::new(&feed, 2, RING), told, 1..=3).lost_forbidden, 2);
    }

    #[test]
    fn hole_duplicate_stranger_and_half_a_batch_are_violations() {
        let feed = feed();
        let violations = |entries: &[(u64, u64)], next: u64| {
            let mut ledger = Ledger::new(&feed, 2, RING);
            let recovered = Recovered { first_seq: Seq(1), next_seq: Seq(next), end: lsn(next) };
            let mut check = ledger.check(run([]), recovered);
            for (seq, index) in entries {
                check.entry(lsn(*seq), Seq(*seq), PUT, feed.token(0, *index).as_bytes());
            }
            check.finish().prefix_violations
        };
        assert_eq!(violations(&[(1, 0), (2, 1)], 3), 0);
        assert_ne!(violations(&[(1, 0), (3, 1)], 4), 0);
        assert_ne!(violations(&[(1, 0), (2, 2)], 3), 0);
        assert_ne!(violations(&[(1, 0), (2, 0)], 3), 0);
        assert_ne!(violations(&[(1, 0)], 3), 0);
        let half: Vec<_> = (0..13).map(|index| (index + 1, index)).collect();
        assert_eq!(violations(&half, 14), 1);
        let mut ledger = Ledger::new(&feed, 2, RING);
        let recovered = Recovered { first_seq: Seq(1), next_seq: Seq(2), end: lsn(2) };
        let mut check = ledger.check(run([]), recovered);
        check.entry(lsn(1), Seq(1), PUT, b"what");
        assert_eq!(check.finish().prefix_violations, 1);
    }

    #[test]
    fn acknowledged_number_must_be_that_entry() {
        let feed = feed();
        let wrong = Ack { index: 2, ..ack(2, Level::Strict) };
        let findings = check(&mut Ledger::new(&feed, 2, RING), run([wrong]), 1..=3);
        assert_eq!(findings.prefix_violations, 1);
    }

    #[test]
    fn watermark_that_was_reported_is_kept() {
        let feed = feed();
        let told = Run { written: lsn(5), durable: lsn(4), ..Run::default() };
        assert_eq!(check(&mut Ledger::new(&feed, 2, RING), told, 1..=3).prefix_violations, 1);
    }

    #[test]
    fn purge_takes_only_what_it_was_told() {
        let feed = feed();
        for (keep_from, forbidden) in [(lsn(3), 0), (lsn(2), 1)] {
            let mut ledger = Ledger::new(&feed, 2, RING);
            check(&mut ledger, run([]), 1..=6);
            let told = Run { keep_from, ..Run::default() };
            assert_eq!(check(&mut ledger, told, 3..=6).lost_forbidden, forbidden);
            assert_eq!(ledger.tokens().count(), 4);
        }
    }
}
