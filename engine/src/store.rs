//! The store: a table of tokens, and the log that makes it survive.
//!
//! Owns the order: the table's lock is held from the append to the application, so that
//! the log's order is the table's. Nobody waits for the disk under that lock. State is
//! a function of the log alone; a change that did not get into the log is not applied.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bulla_recovery::{Range, Recovery, Report};
use bulla_wal::{Level, Log, Lsn, Options, Ready, Receipt, Stats};

use crate::entries::{Change, Changes, DELETE, ID_LEN, PUT};
use crate::error::{Error, Result};
use crate::table::Table;
use crate::token::{TOKEN_LEN, Token, TokenId};

/// Options of a store.
#[derive(Clone, Debug)]
#[must_use]
pub struct StoreOptions {
    log: Options,
    level: Level,
    create: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { log: Options::new(), level: Level::default(), create: true }
    }
}

impl StoreOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Options of the log. Default: the log's defaults.
    pub fn log(mut self, log: Options) -> Self {
        self.log = log;
        self
    }

    /// Level of a change that names none. Default: [`Level::Balanced`].
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Create the store where there is none. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }
}

/// Tokens in memory, every change of them in a log. Share it between threads by
/// reference or `Arc`.
///
/// A read may show a change that a crash can still undo: wait for its receipt, or
/// [`sync`](Self::sync), before relying on it. When the log is poisoned, changes above
/// its durable watermark are in doubt: reopen the store.
#[derive(Debug)]
pub struct Store {
    table: RwLock<Table>,
    log: Log,
    level: Level,
    recovered: Option<Report>,
}

impl Store {
    /// Opens the store in a directory: recovers its log and replays it, or creates it.
    ///
    /// On return everything that the store shows is durable.
    ///
    /// # Errors
    /// [`Error::Recovery`] when the log is corrupt (nothing was changed), locked or not
    /// there; [`Error::Entry`] when it holds something else than changes of tokens;
    /// [`Error::Log`] when it can't be created or started.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self> {
        let log_options = options.log.clone().level(options.level);
        let recovery = match Recovery::run(dir, &log_options) {
            Err(bulla_recovery::Error::Log(bulla_wal::Error::NotALog { .. })) if options.create => {
                let log = Log::create(dir, &log_options)?;
                return Ok(Self {
                    table: RwLock::default(),
                    log,
                    level: options.level,
                    recovered: None,
                });
            }
            result => result?,
        };
        let mut table = Table::default();
        table.replay(|visitor| recovery.replay(Range::ALL, visitor))?;
        let recovered = Some(recovery.report().clone());
        let log = Log::start(recovery.into_recovered())?;
        Ok(Self { table: RwLock::new(table), log, level: options.level, recovered })
    }

    /// What recovery found when the store was opened; `None` when it was created.
    #[must_use]
    pub fn recovered(&self) -> Option<&Report> {
        self.recovered.as_ref()
    }

    /// The token with this id, if there is one.
    #[must_use]
    pub fn get(&self, id: TokenId) -> Option<Token> {
        self.read().token(id)
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens in order of their ids. It goes along with concurrent changes: each
    /// token is shown as it was at some moment of the iteration, and none twice.
    #[must_use]
    pub fn iter(&self) -> Tokens<'_> {
        Tokens { store: self, page: Vec::new().into_iter(), last: None }
    }

    /// Inserts or replaces a token, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async) and [`wait`](Self::wait).
    pub fn put(&self, token: &Token) -> Result<()> {
        self.put_with(token, self.level)
    }

    /// Inserts or replaces a token, and waits until `level` holds.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async) and [`wait`](Self::wait).
    pub fn put_with(&self, token: &Token, level: Level) -> Result<()> {
        let receipt = self.put_async(token, level)?;
        self.wait(receipt)
    }

    /// Inserts or replaces a token; the receipt tells when `level` holds.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Full` or `NoSpace` nothing was changed.
    pub fn put_async(&self, token: &Token, level: Level) -> Result<Receipt> {
        let batch = [(PUT, &token.as_bytes()[..])];
        self.append(self.write(), &batch, level)
    }

    /// Removes a token, and waits until the default level holds. `false`, and nothing
    /// logged, when there is none.
    ///
    /// # Errors
    /// As [`delete_async`](Self::delete_async) and [`wait`](Self::wait).
    pub fn delete(&self, id: TokenId) -> Result<bool> {
        self.delete_with(id, self.level)
    }

    /// Removes a token, and waits until `level` holds. `false`, and nothing logged, when
    /// there is none.
    ///
    /// # Errors
    /// As [`delete_async`](Self::delete_async) and [`wait`](Self::wait).
    pub fn delete_with(&self, id: TokenId, level: Level) -> Result<bool> {
        match self.delete_async(id, level)? {
            Some(receipt) => self.wait(receipt).map(|()| true),
            None => Ok(false),
        }
    }

    /// Removes a token; the receipt tells when `level` holds. `None`, and nothing logged,
    /// when there is none.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Full` or `NoSpace` nothing was changed.
    pub fn delete_async(&self, id: TokenId, level: Level) -> Result<Option<Receipt>> {
        let table = self.write();
        if !table.contains(id) {
            return Ok(None);
        }
        self.append(table, &[(DELETE, &id.0.to_le_bytes())], level).map(Some)
    }

    /// Makes all changes of a batch or none, and waits until the default level holds.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async) and [`wait`](Self::wait).
    pub fn apply(&self, batch: &Batch) -> Result<()> {
        self.apply_with(batch, self.level)
    }

    /// Makes all changes of a batch or none, and waits until `level` holds.
    ///
    /// # Errors
    /// As [`apply_async`](Self::apply_async) and [`wait`](Self::wait).
    pub fn apply_with(&self, batch: &Batch, level: Level) -> Result<()> {
        let receipt = self.apply_async(batch, level)?;
        self.wait(receipt)
    }

    /// Makes all changes of a batch or none, also across a crash; the receipt tells when
    /// `level` holds for all of them. Other threads see all of them or none.
    ///
    /// # Errors
    /// [`Error::Log`]: with `EmptyBatch`, `TooLarge`, `Full` or `NoSpace` nothing was
    /// changed.
    pub fn apply_async(&self, batch: &Batch, level: Level) -> Result<Receipt> {
        let entries: Vec<_> = batch.entries().collect();
        self.append(self.write(), &entries, level)
    }

    /// Waits until the receipt's level holds.
    ///
    /// # Errors
    /// [`Error::Log`]: with `Poisoned` it is unknown whether the change is durable.
    pub fn wait(&self, receipt: Receipt) -> Result<()> {
        self.log.wait(receipt).map_err(Error::from)
    }

    /// Does the receipt's level hold? Never blocks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn is_ready(&self, receipt: Receipt) -> Result<bool> {
        Ok(self.log.is_ready(receipt)?)
    }

    /// A future of the receipt's level, for any executor.
    pub fn ready(&self, receipt: Receipt) -> Ready<'_> {
        self.log.ready(receipt)
    }

    /// Makes every change so far durable; gives the log's durable watermark.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn sync(&self) -> Result<Lsn> {
        Ok(self.log.sync()?)
    }

    /// Makes every change durable and closes the log.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }

    /// Numbers of the table and of the log.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let tokens = self.len() as u64;
        StoreStats { tokens, token_bytes: tokens * TOKEN_LEN as u64, log: self.log.stats() }
    }

    /// Appends the entries and applies them, in the log's order: `table` is locked from
    /// before the append. Waits for room in the ring at most.
    fn append(
        &self,
        mut table: RwLockWriteGuard<'_, Table>,
        entries: &[(u16, &[u8])],
        level: Level,
    ) -> Result<Receipt> {
        let receipt = match entries {
            [(kind, payload)] => self.log.append_with(*kind, payload, level)?,
            entries => self.log.append_batch(entries, level)?,
        };
        for (kind, payload) in entries {
            let changes = Changes::decode(*kind, payload);
            debug_assert!(changes.is_ok(), "the store makes only entries that it can read");
            if let Ok(changes) = changes {
                table.apply(&changes);
            }
        }
        Ok(receipt)
    }

    // A panic can't leave the table half changed: what is applied was checked before.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> IntoIterator for &'a Store {
    type Item = Token;
    type IntoIter = Tokens<'a>;

    fn into_iter(self) -> Tokens<'a> {
        self.iter()
    }
}

/// Iterates over the tokens of a store; see [`Store::iter`].
#[derive(Debug)]
pub struct Tokens<'a> {
    store: &'a Store,
    page: std::vec::IntoIter<Token>,
    last: Option<TokenId>,
}

/// Tokens copied out under one lock.
const PAGE_TOKENS: usize = 64;

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if self.page.as_slice().is_empty() {
            self.page = self.store.read().page_after(self.last, PAGE_TOKENS).into_iter();
        }
        let token = self.page.next()?;
        self.last = Some(token.id());
        Some(token)
    }
}

/// Changes that are made together or not at all, in order.
///
/// Its bytes must fit into one frame of the log: with default options 8 MiB, some
/// 120,000 tokens.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Runs of changes of one kind: the kind, and where it ends in `bytes`.
    runs: Vec<(u16, usize)>,
    len: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an insertion or replacement.
    pub fn put(&mut self, token: &Token) -> &mut Self {
        self.push(PUT, token.as_bytes())
    }

    /// Adds a removal; it is no error when there is no such token.
    ///
    /// # Errors
    /// [`Error::Token`] for id 0.
    pub fn delete(&mut self, id: TokenId) -> Result<&mut Self> {
        if id.0 == 0 {
            return Err(crate::TokenError::ZeroId.into());
        }
        Ok(self.push(DELETE, &id.0.to_le_bytes()))
    }

    /// How many changes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the changes, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.len = 0;
    }

    fn push(&mut self, kind: u16, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.len += 1;
        let end = self.bytes.len();
        match self.runs.last_mut() {
            Some((last, last_end)) if *last == kind => *last_end = end,
            _ => self.runs.push((kind, end)),
        }
        self
    }

    fn entries(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let mut start = 0;
        self.runs.iter().map(move |&(kind, end)| {
            let payload = &self.bytes[start..end];
            start = end;
            (kind, payload)
        })
    }
}

impl Extend<Change> for Batch {
    /// Adds changes; a removal of id 0 changes nothing and is left out.
    fn extend<T: IntoIterator<Item = Change>>(&mut self, changes: T) {
        for change in changes {
            match change {
                Change::Put(token) => {
                    self.put(&token);
                }
                Change::Delete(TokenId(0)) => {}
                Change::Delete(id) => {
                    self.push(DELETE, &id.0.to_le_bytes());
                }
            }
        }
    }
}

const _: () = assert!(ID_LEN == size_of::<TokenId>());

/// Numbers of a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Tokens in the table.
    pub tokens: u64,
    /// Their bytes, without the table's own.
    pub token_bytes: u64,
    /// The log's counters.
    pub log: Stats,
}
