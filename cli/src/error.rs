//! What ends a command, with the exit code and what the user may do about it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use bulla_engine::{CheckpointError, TokenError};
use bulla_wal::CorruptionKind;

use crate::mapping::MappingError;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Log(#[from] bulla_wal::Error),
    #[error(transparent)]
    Recovery(#[from] bulla_recovery::Error),
    #[error(transparent)]
    Store(#[from] bulla_engine::Error),
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no log can be made in {}: the directory above it does not exist", .0.display())]
    NoParent(PathBuf),
    #[error("there is no log in {}, but something else ({name})", path.display())]
    NotEmpty { path: PathBuf, name: String },
    #[error("{}: {reason}", path.display())]
    Input { path: PathBuf, reason: &'static str },
    #[error("read {}", path.display())]
    Zip {
        path: PathBuf,
        #[source]
        source: zip::result::ZipError,
    },
    #[error("read {}", path.display())]
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
    #[error("{option} is for CSV files: a legacy log holds whole tokens")]
    NotForLegacy { option: &'static str },
    #[error(
        "{} is damaged in {places} places that can have held tokens, first at byte {at}; nothing \
         was loaded",
        path.display()
    )]
    LegacyDamaged { path: PathBuf, places: u64, at: u64 },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("there is no command {0:?}")]
    NoCommand(String),
    #[error("no token has id {0}")]
    NoToken(u32),
    #[error("write to standard output")]
    Output(#[source] io::Error),
    #[error("read from standard input")]
    Stdin(#[source] io::Error),
    #[error("{what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the child process ended by itself ({status}); what it said is above")]
    Child { status: std::process::ExitStatus },
    #[error("the child process did not get to work within {seconds} s")]
    ChildStuck { seconds: u64 },
    #[error("{} is on {kind}, which is memory: nothing there is on a disk", path.display())]
    InMemory { path: PathBuf, kind: String },
    #[error("{what}: {needed} bytes are needed, {free} are free")]
    TooLittle { what: &'static str, needed: u64, free: u64 },
    #[error("interrupted")]
    Interrupted,
}

/// Why a row of the input is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("column {column}: {value:?} is neither a number nor a time like 2013-01-01T10:00:00Z")]
    Value { column: String, value: String },
    #[error("the id {0} is no whole number from 1 to 16777215")]
    Id(f64),
    #[error("the timestamp {0} is not within 1970 and 2106")]
    Timestamp(f64),
    #[error(transparent)]
    Token(#[from] TokenError),
}

const NO_SPACE: &str = "free some space, then run the command again";

/// What can be done about a corrupt log.
pub(crate) const fn of_corruption(kind: CorruptionKind) -> &'static str {
    match kind {
        CorruptionKind::Control(_) | CorruptionKind::ControlMissing => {
            "nothing was changed. Without CONTROL the log can't be read, nor repaired: restore \
             a copy of it, or of the directory"
        }
        _ => {
            "nothing was changed. Restore a copy, or give up what is damaged and what follows \
             it with `bulla repair DIR` (it says what would be lost, asks for --yes, keeps copies)"
        }
    }
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some("run it as the user who owns the log"),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount the file system for writing"),
        io::ErrorKind::StorageFull => Some(NO_SPACE),
        io::ErrorKind::NotADirectory => Some("name a log's directory, not a file"),
        _ => None,
    }
}

fn of_checkpoint(error: &CheckpointError) -> Option<&'static str> {
    match error {
        CheckpointError::Io { source, .. } => of_io(source.kind()),
        CheckpointError::NotPromised { .. } => Some("change something, then retry"),
        CheckpointError::Missing { .. } => Some(
            "restore a copy of the directory: what was before the start of the log is in no other \
             place. `bulla verify DIR` looks at every checkpoint",
        ),
        CheckpointError::Slab { .. } => Some(
            "restore a copy of the directory. All other records can be read by a program that \
             opens the store",
        ),
        CheckpointError::WithoutLog { .. } => {
            Some("restore the log, or move the checkpoints away and begin anew")
        }
        _ => None,
    }
}

impl Error {
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match (self.log(), self) {
            (Some(bulla_wal::Error::Corrupt(_)), _)
            | (
                _,
                Self::LegacyDamaged { .. }
                | Self::Store(bulla_engine::Error::Checkpoint(
                    CheckpointError::Missing { .. } | CheckpointError::Slab { .. },
                )),
            ) => 4,
            (Some(bulla_wal::Error::Options { .. }), _)
            | (_, Self::Mapping { .. } | Self::NotForLegacy { .. } | Self::NoCommand(_)) => 2,
            _ => 1,
        }
    }

    /// The log's error, if it is one.
    fn log(&self) -> Option<&bulla_wal::Error> {
        match self {
            Self::Log(error)
            | Self::Recovery(bulla_recovery::Error::Log(error))
            | Self::Store(
                bulla_engine::Error::Log(error)
                | bulla_engine::Error::Recovery(bulla_recovery::Error::Log(error)),
            ) => Some(error),
            _ => None,
        }
    }

    /// Prints it, its sources, and what to do.
    pub(crate) fn report(&self) {
        eprintln!("bulla: {self}");
        let mut source = self.source();
        while let Some(cause) = source {
            eprintln!("  because: {cause}");
            source = cause.source();
        }
        if let Some(hint) = self.hint() {
            eprintln!("  do: {hint}");
        }
    }

    fn hint(&self) -> Option<&'static str> {
        use bulla_wal::Error as Log;
        if let Some(log) = self.log() {
            return match log {
                Log::Corrupt(corruption) => Some(of_corruption(corruption.kind)),
                Log::NotALog { .. } => {
                    Some("name a log's directory, or make one with `bulla load` or `bulla append`")
                }
                Log::Locked { .. } => Some("stop the program that writes to the log, then retry"),
                Log::NoSpace(_) => Some(NO_SPACE),
                Log::Poisoned { .. } => {
                    Some("check the device (dmesg), then `bulla replay DIR` to recover the log")
                }
                Log::Purged { .. } => {
                    Some("ask for a later position; `bulla stat DIR` shows the first")
                }
                Log::Diverged { .. } => Some(
                    "what was shown last is not in the log any more: read it again from before",
                ),
                Log::TooLarge { .. } => Some(
                    "use smaller entries or batches, or a larger --ring-size and --segment-size",
                ),
                Log::SectorTooSmall { .. } => {
                    Some("make the log anew with a larger --sector and load it again")
                }
                Log::Io { source, .. } => of_io(source.kind()),
                _ => None,
            };
        }
        match self {
            Self::Store(bulla_engine::Error::Checkpoint(error)) => of_checkpoint(error),
            Self::Store(bulla_engine::Error::Entry { .. }) => {
                Some("this log is none of tokens; `bulla dump DIR` shows its entries")
            }
            Self::Store(bulla_engine::Error::TooFarAhead { .. }) => Some(
                "a time is seconds since 1970: map another column to the timestamp, give it a \
                 factor, or set the clock",
            ),
            Self::Recovery(bulla_recovery::Error::Cut { .. }) => {
                Some("`bulla verify DIR` shows the last position that can be kept, as last lsn")
            }
            Self::Recovery(bulla_recovery::Error::Purged { .. }) => {
                Some("ask for a later position; `bulla stat DIR` shows the first")
            }
            Self::Row { source: RowError::Token(_), .. } => Some(
                "give the column a smaller factor (--map 4.x=dep_delay:0.0001), or cut values \
                 to their range with --clamp",
            ),
            Self::Row { source: RowError::Value { .. }, .. } => {
                Some("map another column, or make the value empty or NA if it is missing")
            }
            Self::Mapping { .. } => Some("`bulla load --help` shows how columns are mapped"),
            Self::NotForLegacy { .. } => Some("leave the option out, or --from legacy"),
            Self::LegacyDamaged { .. } => Some(
                "load a copy that is whole if there is one. `bulla load --from legacy FILE \
                 --dry-run` shows what is missing; --skip-damaged loads the rest",
            ),
            Self::Changed { .. } => Some(
                "stop the program that writes to it, then run the command again: what was \
                 loaded is replaced",
            ),
            Self::NoParent(_) => Some("check the path, or make the directory above it first"),
            Self::NotEmpty { .. } => {
                Some("a log needs a directory of its own: name one that is empty or not there yet")
            }
            Self::InMemory { .. } => {
                Some("name a directory on a disk, or measure without one with --allow-tmpfs")
            }
            Self::TooLittle { .. } => Some("free some, or use fewer --records"),
            Self::NoCommand(_) => Some("`bulla --help` shows the commands"),
            Self::NoToken(_) => Some("`bulla scan DIR` shows the ids that there are"),
            _ => None,
        }
    }
}
