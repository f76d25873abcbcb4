//! The logs and stores of the table, and what is in them: written down while they are made, and
//! found again in their bytes, without any code that reads a log.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bulla_engine::{EntityType, RECORD_LEN, Record, Store, StoreOptions, Token, TokenId};
use bulla_wal::{Level, Log, Method, Options};

use crate::common::{Account, image};

pub(super) const SECTOR: u64 = 4096;
const SEGMENT: u64 = 64 * 1024;
/// Changes of a store, or entries of a log.
const CHANGES: u32 = 96;
/// Ids of a store: the rest of its changes are updates.
const IDS: u32 = 64;

/// What a subject is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Log,
    Tokens,
    /// A store of records that are no tokens.
    Others,
}

/// A change of a record, or an entry of a log, and where it lies.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) seq: u64,
    /// Of the record; 0 in a log.
    pub(super) id: u32,
    pub(super) bytes: Vec<u8>,
    /// The segment that holds it, and its frame there; `None` where it was purged.
    pub(super) place: Option<(u64, Range<u64>)>,
}

/// A log or a store, in a directory of its own that nothing changes any more.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
    pub(super) changes: Vec<Change>,
    /// The checkpoints that are left, the newest first, and how many changes each stands for.
    pub(super) checkpoints: Vec<(u64, usize)>,
}

fn account(id: u32, change: u32) -> Account {
    let mut bytes = [0; RECORD_LEN];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[4..8].copy_from_slice(&change.to_le_bytes());
    bytes[8..].fill(b'a');
    Account(bytes)
}

fn token(id: u32, change: u32) -> Token {
    let id = TokenId::new(id, EntityType::Event, 0).expect("an id");
    Token::builder(id).timestamp(1_000_000 + change).weight(1.5).build().expect("a token")
}

fn options() -> Options {
    Options::new()
        .sector(4096)
        .segment_len(SEGMENT)
        .ring_len(SEGMENT)
        .method(Method::Buffered)
        .manual()
}

/// Makes all of them below `dir`.
pub(super) fn all(dir: &Path) -> Vec<Subject> {
    let all = [
        ("log", Kind::Log, 0),
        ("log, purged", Kind::Log, 1),
        ("store, no checkpoint", Kind::Tokens, 0),
        ("store, one checkpoint", Kind::Tokens, 1),
        ("store, two checkpoints, purged", Kind::Tokens, 3),
        ("store of other records, two checkpoints, purged", Kind::Others, 3),
    ];
    let make = |(place, (name, kind, checkpoints))| {
        let dir = dir.join(format!("subject-{place}"));
        let changes = match kind {
            Kind::Log => log(&dir, checkpoints > 0),
            Kind::Tokens => store(&dir, checkpoints, token),
            Kind::Others => store(&dir, checkpoints, account),
        };
        let mut subject = Subject { name, kind, dir, changes, checkpoints: Vec::new() };
        subject.find();
        if kind != Kind::Log {
            let left = (1..=checkpoints).rev().take(2);
            let left =
                left.map(|number| (u64::from(number), checkpoint_after(number, checkpoints)));
            subject.checkpoints = left.collect();
        }
        subject
    };
    all.into_iter().enumerate().map(make).collect()
}

/// How many changes a checkpoint stands for.
fn checkpoint_after(number: u32, of: u32) -> usize {
    usize::try_from(CHANGES / (of + 1) * number).expect("few")
}

/// A log of entries of which each is unlike all others, in two runs; `purged` up to its middle.
fn log(dir: &Path, purged: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for run in 0..2 {
        let log = Log::open(dir, &options()).expect("opened").0;
        for change in CHANGES / 2 * run..CHANGES / 2 * (run + 1) {
            let mut bytes = format!("entry {change} ").into_bytes();
            bytes.resize(300, b'e');
            let receipt = log.append_with(1, &bytes, Level::Strict).expect("appended");
            log.wait(receipt).expect("durable");
            changes.push(Change { seq: receipt.seq.0, id: 0, bytes, place: None });
            if purged && run == 1 && change == CHANGES / 2 + 10 {
                log.purge(bulla_wal::Lsn(receipt.lsn.0 / 2)).expect("purged");
            }
        }
        log.close().expect("closed");
    }
    changes
}

/// A store in two runs, with checkpoints in between.
fn store<R: Record>(dir: &Path, checkpoints: u32, record: impl Fn(u32, u32) -> R) -> Vec<Change> {
    let options = StoreOptions::new().log(options()).level(Level::Strict);
    let options = options.checkpoint_bytes(None).checkpoint_interval(None);
    let options = options.checkpoint_close_bytes(None);
    let mut changes = Vec::new();
    for run in 0..2 {
        let store = Store::<R>::open_records(dir, &options).expect("opened");
        for change in CHANGES / 2 * run..CHANGES / 2 * (run + 1) {
            let record = record(1 + change % IDS, change);
            store.put(&record).expect("put");
            let (id, bytes) = (record.id().into(), record.as_bytes().to_vec());
            changes.push(Change { seq: u64::from(change) + 1, id, bytes, place: None });
            let taken = (1..=checkpoints).map(|number| checkpoint_after(number, checkpoints));
            if taken.into_iter().any(|after| after == changes.len()) {
                store.checkpoint().expect("taken");
            }
        }
        store.close().expect("closed");
    }
    changes
}

impl Subject {
    /// Finds every change in the files of the segments. Of two copies the later one counts.
    fn find(&mut self) {
        let files: BTreeMap<u64, Vec<u8>> = image(&self.dir)
            .into_iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "seg"))
            .map(|(path, bytes)| {
                let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                (number.expect("a number"), bytes)
            })
            .collect();
        for change in &mut self.changes {
            for (number, bytes) in &files {
                let found = bytes.windows(change.bytes.len()).position(|part| part == change.bytes);
                let Some(at) = found.map(|at| at as u64) else { continue };
                let end = (at + change.bytes.len() as u64).next_multiple_of(SECTOR);
                change.place = Some((*number, at / SECTOR * SECTOR..end));
            }
        }
    }

    /// The changes that are in the log.
    pub(super) fn live(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.changes.iter().filter(|change| change.place.is_some())
    }

    /// The segments that hold changes, in order.
    pub(super) fn segments(&self) -> Vec<u64> {
        let mut segments: Vec<u64> =
            self.live().filter_map(|change| Some(change.place.as_ref()?.0)).collect();
        segments.dedup();
        segments
    }

    /// The records after the first `count` changes, and those of the others that `is_intact`.
    pub(super) fn records(
        &self,
        count: usize,
        is_intact: impl Fn(&Change) -> bool,
    ) -> BTreeMap<u32, Vec<u8>> {
        let (first, rest) = self.changes.split_at(count);
        let rest = rest.iter().filter(|change| is_intact(change));
        first.iter().chain(rest).map(|change| (change.id, change.bytes.clone())).collect()
    }
}
