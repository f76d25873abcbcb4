//! The changes of a store's records, in the order in which its log has them.
//!
//! Owns nothing but a reader of the log: it decodes what that shows. Tested by
//! `engine/tests/changes.rs`.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use bulla_wal::{EntryView, Epoch, Lsn, Reader, Seq};

use crate::entries::{LogEntry, Mutation};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::token::Token;

/// Reads the changes of a store's records, one entry of its log after the other.
///
/// Of a batch the log has one entry for each kind of change and a part of its records, with
/// positions of their own; a crash keeps all of them or none.
///
/// What has been purged is not shown. A [`Snapshot`](crate::Snapshot) does not keep the log: two
/// checkpoints are enough to purge what was logged after it. A [hold](crate::Store::hold) at the
/// snapshot's position keeps it; if that fails with `Purged`, take a new snapshot.
///
/// # Examples
/// ```
/// # let temp = tempfile::tempdir()?;
/// # let dir = temp.path().join("store");
/// use bulla_engine::entries::Mutation;
/// use bulla_engine::{EntityType, Store, StoreOptions, Token, TokenId};
/// use bulla_wal::Visibility;
///
/// let store = Store::open(&dir, &StoreOptions::new())?;
/// let snapshot = store.snapshot()?; // everything before its LSN
/// let hold = store.hold(snapshot.lsn())?;
/// let mut changes = store.changes(snapshot.lsn().., Visibility::Written)?;
/// let token = Token::builder(TokenId::new(7, EntityType::Event, 0)?).weight(0.5).build()?;
/// store.put(&token)?;
/// let change = changes.next()?.expect("it was written");
/// assert_eq!(change.mutations().collect::<Vec<_>>(), [Mutation::Put(token)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Changes<R: Record = Token> {
    reader: Reader,
    records: PhantomData<fn() -> R>,
}

/// Changes that one entry of the log has: one at least, all of one kind.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Change<'a, R: Record = Token> {
    /// The entry's position.
    pub lsn: Lsn,
    /// Its number: one more than that of the entry before.
    pub seq: Seq,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// When it was written, by the writer's clock.
    pub time: SystemTime,
    entry: LogEntry<'a, R>,
}

impl<'a, R: Record> Change<'a, R> {
    fn of(view: EntryView<'a>) -> Result<Self> {
        let EntryView { lsn, seq, epoch, kind, payload, .. } = view;
        let entry = LogEntry::decode(kind, payload);
        let entry = entry.map_err(|source| Error::Entry { lsn, seq, source })?;
        Ok(Self { lsn, seq, epoch, time: view.wall_time(), entry })
    }

    /// Iterates over the changes, in order.
    pub fn mutations(&self) -> impl Iterator<Item = Mutation<R>> + 'a {
        self.entry.iter()
    }
}

impl<R: Record> Changes<R> {
    /// Reads the changes that a reader of a store's log shows, such as one of another process.
    #[must_use]
    pub const fn of(reader: Reader) -> Self {
        Self { reader, records: PhantomData }
    }

    /// Returns the changes of the next entry; `None` when there is none yet that may be shown, or
    /// the range has ended ([`is_finished`](Self::is_finished)). Never waits for a writer.
    ///
    /// # Errors
    /// [`Error::Entry`] for an entry that is not a change of such records; the next call shows
    /// what follows it. Otherwise as [`Reader::next`].
    #[expect(clippy::should_implement_trait, reason = "it lends its buffer")]
    pub fn next(&mut self) -> Result<Option<Change<'_, R>>> {
        self.reader.next()?.map(Change::of).transpose()
    }

    /// As [`next`](Self::next), waiting until `timeout` has passed (`None`).
    ///
    /// # Errors
    /// As [`next`](Self::next) and [`Reader::wait_next`].
    pub fn wait_next(&mut self, timeout: Duration) -> Result<Option<Change<'_, R>>> {
        self.reader.wait_next(timeout)?.map(Change::of).transpose()
    }

    /// Returns whether the end of the range was reached: nothing will follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// Returns where reading goes on: keep it, and begin there the next time.
    #[must_use]
    pub fn position(&self) -> (Epoch, Lsn) {
        self.reader.position()
    }
}
