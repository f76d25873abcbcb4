//! Why a command ended before its work was done, as plain data. `failure` prints it.

use bulla_recovery::RepairError;
use std::io;
use std::path::PathBuf;

use bulla_engine::{BackupError, TokenError};

use crate::mapping::{MappingError, RowError};
use crate::numbers::size;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Log(#[from] bulla_wal::Error),
    #[error(transparent)]
    Repair(#[from] RepairError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Store(#[from] bulla_engine::Error),
    #[error("could not {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't create a log in {}: its parent directory does not exist", .0.display())]
    NoParent(PathBuf),
    #[error("{} holds no log, but other files ({name})", path.display())]
    NotEmpty { path: PathBuf, name: String },
    #[error("{}: {reason}", path.display())]
    Input { path: PathBuf, reason: &'static str },
    #[error("could not read {}", path.display())]
    Zip {
        path: PathBuf,
        #[source]
        source: zip::result::ZipError,
    },
    #[error("could not read {}", path.display())]
    Csv {
        path: PathBuf,
        #[source]
        source: csv::Error,
    },
    #[error("{}, row {row}", path.display())]
    Row {
        path: PathBuf,
        row: u64,
        #[source]
        source: RowError,
    },
    #[error("the column mapping does not fit {}", path.display())]
    Mapping {
        path: PathBuf,
        #[source]
        source: MappingError,
    },
    #[error("{option} is for CSV files: a legacy log holds complete tokens")]
    NotForLegacy { option: &'static str },
    #[error(
        "{} is damaged in {places} places that may have held tokens, the first at byte {at}; \
         nothing was loaded",
        path.display()
    )]
    LegacyDamaged { path: PathBuf, places: u64, at: u64 },
    #[error("{} changed while it was being read", path.display())]
    Changed { path: PathBuf },
    #[error("there is no command {0:?}")]
    NoCommand(String),
    #[error("the glossary has no word that begins with {0:?}; `bulla help glossary` prints all")]
    NoWord(String),
    #[error("no token has id {id}")]
    NoToken {
        id: u32,
        /// The id was typed as all 32 bits of it.
        is_full: bool,
    },
    #[error("could not write to standard output")]
    Output(#[source] io::Error),
    #[error("could not read from standard input")]
    Stdin(#[source] io::Error),
    #[error("could not {what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the child process ended by itself ({status}); its messages are above")]
    Child { status: std::process::ExitStatus },
    #[error("the child process did not open its log within {seconds} s")]
    ChildStuck { seconds: u64 },
    #[error("{} is on {kind}, a file system in memory: no disk is involved", path.display())]
    InMemory { path: PathBuf, kind: String },
    #[error("not enough {what}: {} needed, {} free", size(*.needed), size(*.free))]
    TooLittle { what: &'static str, needed: u64, free: u64 },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("--set names the same part more than once")]
    SetTwice,
    /// A corrupt log whose checkpoints say what can be done.
    #[error("{error}")]
    CorruptStore { error: Box<Self>, advice: String },
    #[error(
        "the log is damaged, but a store opens from checkpoint {newest} and loses nothing: nothing \
         was changed"
    )]
    NeedsNoRepair { newest: u64 },
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps a system error: "could not `what` PATH".
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// Returns the log's error, if it is one.
    pub(crate) fn log(&self) -> Option<&bulla_wal::Error> {
        match self {
            Self::Log(error)
            | Self::Repair(RepairError::Log(error))
            | Self::Backup(BackupError::Log(error))
            | Self::Store(bulla_engine::Error::Log(error)) => Some(error),
            Self::CorruptStore { error, .. } => error.log(),
            _ => None,
        }
    }
}
