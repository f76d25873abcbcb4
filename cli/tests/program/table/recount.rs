//! What the figures of each command must be, recounted from what was written down, and what a
//! command may not have lost.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use bulla_engine::{Record, StoreInspection, Token};
use bulla_wal::Options;
use serde_json::Value;

use super::Done;
use super::damages::Destroyed;
use super::subjects::{Change, Kind, Subject};
use crate::common::{Account, run, stdout};

/// A damaged subject.
pub(super) struct Recount<'a> {
    subject: &'a Subject,
    destroyed: Destroyed,
}

impl<'a> Recount<'a> {
    pub(super) fn new(subject: &'a Subject, destroyed: Destroyed) -> Self {
        Self { subject, destroyed }
    }

    fn is_intact(&self, change: &Change) -> bool {
        self.destroyed.is_intact(change)
    }

    /// The changes that can be read in order.
    fn readable(&self) -> Vec<&'a Change> {
        let live = self.subject.live().take_while(|change| self.is_intact(change));
        live.filter(|_| !self.destroyed.control && !self.destroyed.start).collect()
    }

    /// The intact ones behind the first that is not.
    fn behind(&self) -> usize {
        let is_read = |change: &Change| self.is_intact(change) && !self.destroyed.start;
        let live = self.subject.live().skip_while(|change| is_read(change));
        live.filter(|change| self.is_intact(change)).count()
    }

    fn live(&self) -> usize {
        self.subject.live().count()
    }

    /// How many changes were purged.
    fn purged(&self) -> usize {
        self.subject.changes.len() - self.live()
    }

    /// How many changes the newest whole checkpoint stands for.
    fn checkpointed(&self) -> usize {
        let whole = self.subject.checkpoints.iter();
        let whole = whole.filter(|(number, _)| !self.destroyed.checkpoints.contains(number));
        whole.map(|(_, upto)| *upto).max().unwrap_or(0)
    }

    /// How many changes, from the first on, a store has: those of its checkpoint, and those that
    /// can be read in order after it. `None` where it lacks some, or intact ones lie behind.
    fn whole(&self) -> Option<usize> {
        let base = self.checkpointed();
        if base < self.purged() || self.destroyed.control {
            return None;
        }
        let after = &self.subject.changes[base..];
        let readable = after.iter().take_while(|change| self.is_intact(change)).count();
        let is_end = !after[readable..].iter().any(|change| self.is_intact(change));
        is_end.then_some(base + readable)
    }

    /// Checks the figures of a command that changes nothing.
    pub(super) fn check(&self, line: &str, done: &Done) -> Result<(), String> {
        caught(|| self.check_figures(line, done))
    }

    fn check_figures(&self, line: &str, done: &Done) {
        let rows: Vec<Value> = done
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect();
        let context = String::new();
        let readable = self.readable();
        match line.split(' ').next().unwrap_or_default() {
            "verify" => self.check_verify(&rows[0], done.code, &context),
            "stat" => {
                if let Some(row) = rows.first() {
                    // It reads headers: a damaged entry counts.
                    let entries = number(row, "entries");
                    let most = readable.len()..=self.live();
                    assert!(most.contains(&entries), "{context}: {row}");
                    self.check_numbers(row, &context);
                }
            }
            "replay" => {
                if let Some(row) = rows.first() {
                    assert_eq!(number(row, "replayed_entries"), readable.len(), "{context}");
                    self.check_numbers(row, &context);
                }
                assert!(done.code != 0 || self.behind() == 0, "{context}");
            }
            "dump" => {
                let shown: Vec<u64> = rows.iter().map(|row| number(row, "seq") as u64).collect();
                let readable: Vec<u64> = readable.iter().map(|change| change.seq).collect();
                assert_eq!(shown, readable, "{context}");
                assert!(done.code != 0 || self.behind() == 0, "{context}");
            }
            "segments" => {
                for row in &rows {
                    let len = |name: &str| number(row, &format!("{name}_bytes"));
                    let parts = ["header", "live", "dead", "torn", "unread", "zero"].map(len);
                    assert_eq!(parts.iter().sum::<usize>(), len("file"), "{context}: {row}");
                }
                let entries: usize = rows.iter().map(|row| number(row, "entries")).sum();
                assert!(rows.is_empty() || entries >= readable.len(), "{context}: {entries}");
            }
            "scan" if done.code == 0 => {
                let shown: BTreeSet<usize> = rows.iter().map(|row| number(row, "id")).collect();
                let records = self.expected(&context);
                let expected: BTreeSet<usize> = records.keys().map(|id| *id as usize).collect();
                assert_eq!(shown, expected, "{context}");
            }
            "get" if done.code == 0 => assert!(self.whole().is_some(), "{context}"),
            "repair" => rows.iter().for_each(|row| self.check_plan(row, &context)),
            "purge" => {
                if let Some(row) = rows.first() {
                    let (gone, kept) =
                        (number(row, "removed_entries"), number(row, "kept_entries"));
                    assert_eq!(gone + kept, readable.len(), "{context}: {row}");
                }
            }
            _ => {}
        }
    }

    fn check_verify(&self, row: &Value, code: i32, context: &str) {
        if row["entries"].is_null() {
            assert!(self.destroyed.control && code == 4, "{context}: {row}");
            return;
        }
        assert_eq!(number(row, "entries"), self.readable().len(), "{context}: {row}");
        self.check_numbers(row, context);
        let is_whole = self.subject.live().all(|change| self.is_intact(change));
        assert!(
            code != 0 || is_whole && !self.destroyed.is_checkpoint_damaged,
            "{context}: whole, although something is destroyed"
        );
        assert!(code != 3 || self.behind() == 0, "{context}: torn, although intact entries follow");
    }

    fn check_numbers(&self, row: &Value, context: &str) {
        let entries = number(row, "next_seq") - number(row, "first_seq");
        assert_eq!(entries, number(row, "entries"), "{context}: {row}");
        let first = self.subject.live().next().map(|change| change.seq);
        let is_known = !self.destroyed.start;
        assert!(!is_known || row["first_seq"].as_u64() == first, "{context}: {row}");
    }

    /// Kept and given up make all, of entries and of tokens.
    fn check_plan(&self, row: &Value, context: &str) {
        if row["would_keep"].is_null() {
            // It says that no repair is needed.
            assert_eq!(self.behind(), 0, "{context}: {row}");
            return;
        }
        let (kept, lost) = (number(row, "would_keep"), number(row, "would_lose"));
        assert_eq!(kept, self.readable().len(), "{context}: {row}");
        assert_eq!(number(row, "would_lose_intact"), self.behind(), "{context}: {row}");
        // Nothing tells how many were behind the last intact one.
        let live: Vec<&Change> = self.subject.live().collect();
        let last = live.iter().rposition(|change| self.is_intact(change));
        let known = last.map_or(kept, |last| last + 1).max(kept);
        assert!((known..=self.live()).contains(&(kept + lost)), "{context}: {row}");
        if self.subject.kind == Kind::Tokens {
            let kept = self.kept_by_a_repair();
            let all = self.subject.records(self.checkpointed(), |change| self.is_intact(change));
            let lost = all.keys().filter(|id| !kept.contains_key(id)).count();
            let same = kept.iter().filter(|(id, bytes)| all.get(id) == Some(bytes)).count();
            assert_eq!(number(row, "would_keep_tokens"), kept.len(), "{context}: {row}");
            assert_eq!(number(row, "would_lose_tokens"), lost, "{context}: {row}");
            assert_eq!(number(row, "would_revert_tokens"), kept.len() - same, "{context}: {row}");
            assert_eq!(kept.len() + lost, all.len(), "{context}: {row}");
        }
    }

    /// The records with which a store opens after a repair: none if it does not.
    fn kept_by_a_repair(&self) -> BTreeMap<u32, Vec<u8>> {
        let end = self.purged() + self.readable().len();
        let usable = self.subject.checkpoints.iter().any(|(number, upto)| {
            !self.destroyed.checkpoints.contains(number)
                && *upto <= end
                && *upto >= self.purged()
                && !self.readable().is_empty()
        });
        if self.purged() > 0 && !usable {
            return BTreeMap::new();
        }
        self.subject.records(end, |_| false)
    }

    /// The records that a store which opens must show.
    fn expected(&self, context: &str) -> BTreeMap<u32, Vec<u8>> {
        let count = self.whole();
        let count =
            count.unwrap_or_else(|| panic!("{context}: opened, although it lacks something"));
        self.subject.records(count, |_| false)
    }

    /// Checks what a command that may change something left.
    pub(super) fn check_after(&self, line: &str, done: &Done, dir: &Path) -> Result<(), String> {
        caught(|| self.check_left(line, done, dir))
    }

    fn check_left(&self, line: &str, done: &Done, dir: &Path) {
        if done.code != 0 {
            return;
        }
        let context = String::new();
        let command = line.split(' ').next().unwrap_or_default();
        let is_repaired = command == "repair" && !done.changed.is_empty();
        match self.subject.kind {
            Kind::Log => {
                let dump = run("dump DIR --format jsonl", dir);
                let seqs = stdout(&dump);
                let seqs = seqs.lines().map(|line| {
                    let row: Value = serde_json::from_str(line).expect("JSON");
                    number(&row, "seq") as u64
                });
                let left: Vec<u64> = seqs.collect();
                let mut expected: Vec<u64> =
                    self.readable().iter().map(|change| change.seq).collect();
                match command {
                    "purge" => {
                        let gone = expected.len() - left.len();
                        expected.drain(..gone);
                    }
                    "append" => expected.push(expected.last().map_or(1, |last| last + 1)),
                    _ => {}
                }
                assert_eq!(left, expected, "{context}");
                assert!(is_repaired || self.behind() == 0, "{context}: intact entries are lost");
            }
            Kind::Tokens => self.check_records::<Token>(command, is_repaired, dir, &context),
            Kind::Others => self.check_records::<Account>(command, is_repaired, dir, &context),
        }
    }

    fn check_records<R: Record>(
        &self,
        command: &str,
        is_repaired: bool,
        dir: &Path,
        context: &str,
    ) {
        let found = StoreInspection::<R>::read_records(dir, &Options::new());
        if is_repaired && self.kept_by_a_repair().is_empty() {
            assert!(found.is_err() || found.is_ok_and(|found| found.is_empty()), "{context}");
            return;
        }
        let found = found.unwrap_or_else(|error| panic!("{context}: does not open: {error}"));
        let mut left: BTreeMap<u32, Vec<u8>> =
            found.iter().map(|record| (record.id().into(), record.as_bytes().to_vec())).collect();
        if command == "put" {
            assert!(left.remove(&(9999 | 1 << 24)).is_some() || left.len() > 64, "{context}");
        }
        let expected = match is_repaired {
            true => self.kept_by_a_repair(),
            false => self.expected(context),
        };
        left.retain(|id, _| expected.contains_key(id) || command != "put");
        assert!(left == expected, "{context}: {} records, not {}", left.len(), expected.len());
    }
}

/// Returns what an assertion says that does not hold.
fn caught(check: impl FnOnce()) -> Result<(), String> {
    std::panic::catch_unwind(AssertUnwindSafe(check)).map_err(|said| {
        let words = said.downcast_ref::<String>().cloned();
        words.unwrap_or_else(|| "a check failed".to_owned())
    })
}

fn number(row: &Value, field: &str) -> usize {
    let number = row[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {row}"));
    usize::try_from(number).expect("small")
}
