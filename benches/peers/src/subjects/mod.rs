//! The logs that are compared, in groups of those that promise the same.

mod bare;
mod buf_writer;
mod bulla;
mod commitlog;
mod grouped;
mod memory;
mod nodedb;
mod okaywal;
mod raft_engine;
mod wal_db;

use std::path::Path;
use std::sync::Arc;

use ::bulla_wal::Method;
use ::bulla_storage::io::std::StdIo;
use ::bulla_storage::io::uring::UringIo;
use ::nodedb_wal::double_write::DwbMode;

use crate::log::{Log, Open, Replay, Result};
use crate::store::Store;
use crate::workload::{self, Kind, Sample, Workload};
use crate::{store_work, stores};

/// What a log promises; figures of different groups are not compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Group {
    /// What this project is.
    Bulla,
    /// A commit is durable before it is acknowledged.
    Durable,
    /// The same, made by hand: no recovery, no rotation.
    HandMade,
    /// What the machine can do at best: one loop that writes and syncs.
    Limit,
    /// Memory alone, nothing is written.
    Memory,
    /// A commit is acknowledged before its record is synced.
    AcksBeforeSync,
}

impl Group {
    /// For tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bulla => "bulla",
            Self::Durable => "durable",
            Self::HandMade => "hand-made",
            Self::Limit => "limit",
            Self::Memory => "memory only",
            Self::AcksBeforeSync => "acks before sync",
        }
    }
}

/// Runs a workload once, in a directory.
type Run = dyn Fn(&Workload, &Path) -> Result<Sample>;

/// A log, ready to be measured.
pub(crate) struct Subject {
    /// Unique.
    pub(crate) name: &'static str,
    /// With which others it is compared.
    pub(crate) group: Group,
    takes: fn(Kind) -> bool,
    run: Box<Run>,
}

impl Subject {
    fn new<L: Log + 'static>(
        name: &'static str,
        group: Group,
        open: Open<L>,
        replay: Option<Replay>,
    ) -> Self {
        let run = move |workload: &Workload, dir: &Path| workload::run(workload, dir, open, replay);
        Self { name, group, takes: |kind| !kind.is_of_stores(), run: Box::new(run) }
    }

    fn store<S: Store + 'static>(name: &'static str, group: Group) -> Self {
        Self { name, group, takes: Kind::is_of_stores, run: Box::new(store_work::run::<S>) }
    }

    /// One that reads as another does.
    fn for_puts(self) -> Self {
        Self { takes: |kind| matches!(kind, Kind::Put | Kind::PutBatch(_)), ..self }
    }

    /// Is the workload one of its kind?
    pub(crate) fn takes(&self, workload: &Workload) -> bool {
        (self.takes)(workload.kind)
    }

    /// Runs a workload once, in a directory that is empty.
    ///
    /// # Errors
    /// Those of the log, and [`Unsupported`](crate::log::Unsupported).
    pub(crate) fn run(&self, workload: &Workload, dir: &Path) -> Result<Sample> {
        (self.run)(workload, dir)
    }
}

/// Ratios are to this one.
pub(crate) const REFERENCE: &str = "bulla std direct";
/// The same for stores.
pub(crate) const STORE_REFERENCE: &str = "bulla store";

/// Those that run whatever else is chosen.
pub(crate) const REFERENCES: [&str; 2] = [REFERENCE, STORE_REFERENCE];

/// The one that ratios of a workload are to.
pub(crate) const fn reference(kind: Kind) -> &'static str {
    match kind {
        _ if kind.is_of_stores() => STORE_REFERENCE,
        _ => REFERENCE,
    }
}

/// All of them. A backend of Bulla is one line.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<Subject> {
    use Group::{AcksBeforeSync, Bulla, Durable, HandMade, Limit, Memory};
    vec![
        Subject::new(REFERENCE, Bulla,
            |dir, _| bulla::create(dir, Arc::new(StdIo::new()), Method::Direct),
            Some(|dir, _, tally| bulla::replay(dir, Method::Direct, tally))),
        Subject::new("bulla std buffered", Bulla,
            |dir, _| bulla::create(dir, Arc::new(StdIo::new()), Method::Buffered),
            Some(|dir, _, tally| bulla::replay(dir, Method::Buffered, tally))),
        Subject::new("bulla uring direct", Bulla,
            |dir, _| bulla::create(dir, Arc::new(UringIo::new()), Method::Direct), None),
        Subject::new("okaywal", Durable, okaywal::create, Some(okaywal::replay)),
        Subject::new("raft-engine", Durable, raft_engine::create, Some(raft_engine::replay)),
        Subject::new("wal-db", Durable, wal_db::create, Some(wal_db::replay)),
        Subject::new("nodedb-wal", Durable,
            |dir, plan| nodedb::create(dir, plan, DwbMode::Direct), Some(nodedb::replay)),
        Subject::new("nodedb-wal, no double write", Durable,
            |dir, plan| nodedb::create(dir, plan, DwbMode::Off), Some(nodedb::replay)),
        Subject::new("mutex group commit", HandMade, grouped::create, None),
        Subject::new("BufWriter + crc32fast", HandMade, buf_writer::create, Some(buf_writer::replay)),
        Subject::new("bare direct + DSYNC", Limit, bare::create_direct, None),
        Subject::new("bare buffered + fdatasync", Limit, bare::create_buffered, Some(bare::replay)),
        Subject::new("memcpy", Memory, memory::create, None),
        Subject::new("commitlog", AcksBeforeSync, commitlog::create, Some(commitlog::replay)),
        Subject::store::<stores::bulla::Bulla<false>>(STORE_REFERENCE, Bulla),
        Subject::store::<stores::bulla::Bulla<true>>("bulla store, written", Bulla).for_puts(),
        Subject::store::<stores::lmdb::Lmdb>("LMDB (heed)", Durable),
        Subject::store::<stores::redb::Redb>("redb", Durable),
        Subject::store::<stores::fjall::Fjall>("fjall", Durable),
        Subject::store::<stores::sqlite::Sqlite>("SQLite (rusqlite)", Durable),
        Subject::store::<stores::naive::Naive>("Vec + naive log", HandMade),
        Subject::store::<stores::memory::HashMap>("hashbrown", Memory),
        Subject::store::<stores::memory::Plain>("Vec", Memory),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::log::Unsupported;
    use crate::workload::{ALL, Kind};

    /// Syncs are counted for the whole process: one run at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Runs one workload of every log on a small scale; returns those that have it.
    fn run_all(kind: impl Fn(Kind) -> bool, name: &str) -> Vec<(Subject, Sample)> {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let workload = ALL.iter().find(|workload| kind(workload.kind)).expect("a workload");
        let workload = Workload { records: 200, ..*workload };
        let dir = std::env::temp_dir().join(format!("bulla-peers-{name}-{}", std::process::id()));
        let mut ran = Vec::new();
        for subject in all().into_iter().filter(|subject| subject.takes(&workload)) {
            std::fs::create_dir_all(&dir).expect("create the directory");
            let done = subject.run(&workload, &dir);
            std::fs::remove_dir_all(&dir).expect("remove the directory");
            match done {
                Ok(sample) => ran.push((subject, sample)),
                Err(error) if error.is::<Unsupported>() => {}
                Err(error) => panic!("{}: {error}", subject.name),
            }
        }
        assert!(ran.len() > 4, "only {} logs have it", ran.len());
        ran
    }

    #[test]
    fn every_lone_commit_is_counted_with_a_sync_but_where_acks_come_before() {
        for (subject, sample) in run_all(|kind| kind == Kind::Strict, "strict") {
            let does_sync = sample.syncs >= sample.records;
            let name = subject.name;
            assert_eq!(does_sync, subject.group != Group::AcksBeforeSync, "{name}: {sample:?}");
        }
    }

    #[test]
    fn one_sync_at_the_end_is_counted_for_every_log_on_disk() {
        for (subject, sample) in run_all(|kind| kind == Kind::Append, "append") {
            match subject.group {
                Group::Memory => assert_eq!(sample.syncs, 0),
                Group::AcksBeforeSync => {}
                _ => assert!(sample.syncs >= 1, "{}: {sample:?}", subject.name),
            }
        }
    }

    #[test]
    fn every_store_gives_back_what_was_put_and_syncs_once_at_least() {
        // Records that are missing or others are an error of the run.
        for (subject, sample) in run_all(|kind| kind == Kind::Put, "put") {
            let is_memory = subject.group == Group::Memory;
            assert_eq!(sample.syncs == 0, is_memory, "{}: {sample:?}", subject.name);
        }
        for (name, kind) in [
            ("put-batch", Kind::PutBatch(1000)),
            ("get", Kind::Get),
            ("reopen", Kind::Reopen),
            ("all", Kind::ReadAll),
        ] {
            run_all(|of| of == kind, name);
        }
    }

    #[test]
    fn replay_gives_every_record_of_every_log_once() {
        // A replay that gives others is an error of the run.
        run_all(|kind| kind == Kind::Replay, "replay");
    }
}
