//! What the user can do about an error.

use std::io;

use bulla_engine::{BackupError, CheckpointError, TokenError};
use bulla_recovery::{RepairError, UndoRefused};
use bulla_wal::format::Content;
use bulla_wal::{CorruptionKind, FrameDamage};

use crate::error::Error;
use crate::mapping::{MappingError, RowError};

const FREE_SPACE: &str = "free some space (`df -h`) or inodes (`df -i`), or raise the quota, then run the \
                          command again";
const MAKE_ROOM: &str = "free some space (`df -h`) or inodes (`df -i`), raise the quota, or remove the log's \
                         oldest segments with `bulla purge DIR --keep-from POSITION` (it needs no space), \
                         then run the command again. An open needs about 8 MiB by default, and less \
                         with a smaller --segment-size and --ring-size. `bulla dump`, `bulla stat` and `bulla verify` \
                         read the log meanwhile";
const ROOM_FOR_A_LOG: &str = "free some space (`df -h`) or inodes (`df -i`), or raise the quota, then run the \
                          command again. A new log needs about 8 MiB by default, and less with a smaller \
                          --segment-size and --ring-size";
const TOO_LARGE: &str =
    "raise the limit of a file's length (`ulimit -f`), or use a smaller --segment-size";
const LATER_POSITION: &str = "ask for a later position; `bulla stat DIR` shows the first one";

/// Returns what can be done about a corrupt log.
pub(crate) const fn of_corruption(kind: CorruptionKind) -> &'static str {
    match kind {
        CorruptionKind::ControlMissing => {
            "if `bulla repair --undo` was interrupted here, run it again. Otherwise restore a copy of \
             CONTROL or of the whole directory: without CONTROL the log can neither be read nor \
             repaired. Nothing was changed"
        }
        CorruptionKind::Control(_) => {
            "restore a copy of CONTROL or of the whole directory: without CONTROL the log can \
             neither be read nor repaired. Nothing was changed"
        }
        CorruptionKind::ControlSlot(_) => {
            "restore a copy of CONTROL or of the whole directory. Without one, `bulla repair DIR` shows \
             what would be lost: nothing, if the log was not purged since CONTROL was written before. \
             Nothing was changed"
        }
        CorruptionKind::ControlOrSegment(_) => {
            "restore a copy of the directory, or of CONTROL if the log was purged. Without one, `bulla \
             repair DIR` shows what would be lost (it asks for --yes, keeps copies). Nothing was changed"
        }
        // What a copy misses that was made while the log grew: the end of a segment, or the next
        // segment. Lost writes look the same.
        CorruptionKind::SegmentMissing
        | CorruptionKind::Frame(FrameDamage::Zeros | FrameDamage::EndOfFile) => {
            "if this is a copy that was made with `cp`, `tar` or the like while a program wrote the \
             log, then the log itself may be whole: make the copy with `bulla backup`. Otherwise \
             restore a copy of the directory, or give up the damaged part and what follows it \
             with `bulla repair DIR` (it shows what would be lost, asks for --yes, keeps copies). \
             Nothing was changed"
        }
        _ => {
            "restore a copy of the directory, or give up the damaged part and what follows it \
             with `bulla repair DIR` (it shows what would be lost, asks for --yes, keeps copies). \
             Nothing was changed"
        }
    }
}

/// Returns what can be done about an error, if anything can.
pub(super) fn of(error: &Error) -> Option<String> {
    if let Error::NoToken { id, is_full } = error {
        return Some(of_missing_token(*id, *is_full));
    }
    if let Error::CorruptStore { advice, .. } = error {
        return Some(advice.clone());
    }
    fixed(error).map(str::to_owned)
}

fn of_missing_token(id: u32, is_full: bool) -> String {
    let list = "`bulla scan DIR` lists the ids";
    if is_full {
        format!("{list}; {id} was taken as a full 32-bit id, for local id {id} add `--type event`")
    } else {
        list.to_owned()
    }
}

fn fixed(error: &Error) -> Option<&'static str> {
    if let Some(log) = error.log() {
        return of_log(log);
    }
    match error {
        Error::Store(bulla_engine::Error::Checkpoint(error)) => of_checkpoint(error),
        Error::Backup(error) => of_backup(error),
        Error::Store(bulla_engine::Error::Entry { .. }) => {
            Some("this log does not hold tokens; `bulla dump DIR` shows its entries")
        }
        Error::Store(bulla_engine::Error::TooFarAhead { .. }) => Some(
            "a time is seconds since 1970: map another column to the timestamp, give it a \
             factor, or set the clock",
        ),
        Error::Store(bulla_engine::Error::Quota(_)) => {
            Some("delete tokens, then run the command again")
        }
        Error::Repair(RepairError::Cut { .. }) => {
            Some("`bulla verify DIR` shows the last position that can be kept, as last lsn")
        }
        Error::Repair(RepairError::Undo(refused)) => of_undo(refused),
        Error::File { source, .. } => of_io(source.kind()),
        _ => of_input(error).or_else(|| of_command(error)),
    }
}

fn of_log(error: &bulla_wal::Error) -> Option<&'static str> {
    use bulla_wal::Error as Log;
    match error {
        Log::Corrupt(corruption) => Some(of_corruption(corruption.kind)),
        Log::Gap { .. } => Some(
            "ask for that position or a later one, which is whole. `bulla verify DIR` says what is \
             damaged before it, and what to do",
        ),
        Log::Changed { .. } => {
            Some("run the command again; if the program purges all the time, pause that meanwhile")
        }
        Log::OfBackup { .. } => Some(
            "restore the backup to a new directory with `bulla restore BACKUP DIR`; if a restore \
             into this directory did not end, run it again",
        ),
        Log::NotALog { .. } => {
            Some("name a log's directory, or create one with `bulla load` or `bulla append`")
        }
        Log::OtherContent { expected: Content::PLAIN, .. } => Some(
            "append to a log of its own, or change the store's records with `bulla put` and \
             `bulla delete`, or the program that made it. Nothing was changed",
        ),
        Log::OtherContent { .. } => Some(
            "use the program that made it. `bulla verify`, `stat`, `dump`, `replay` and `repair` \
             work on every log. Nothing was changed",
        ),
        Log::Locked { .. } => Some("stop the program that writes to the log, then retry"),
        Log::Linked { .. } => {
            Some("copy the directory with `cp -a`, and use the copy: it has files of its own")
        }
        Log::NoSpace(_) => Some(FREE_SPACE),
        Log::NoSpaceToOpen { .. } => Some(MAKE_ROOM),
        Log::NotCreated { cause, .. } if cause.is_out_of_space() => Some(ROOM_FOR_A_LOG),
        Log::NotCreated { .. } => Some(TOO_LARGE),
        Log::NoSegment(cause) => match cause.as_ref() {
            Log::Io { source, .. } => of_segment(source.kind()),
            _ => None,
        },
        Log::Poisoned { .. } => {
            Some("check the device (dmesg), then recover the log with `bulla replay DIR`")
        }
        Log::Purged { .. } => Some(LATER_POSITION),
        Log::Diverged { .. } => Some(
            "read the log again from an earlier position: a crash took the entries that were \
             shown last",
        ),
        Log::HoldExists { .. } => Some(
            "move it with --advance, end it with `bulla release DIR NAME`, or take another name",
        ),
        Log::TooManyHolds { .. } => Some(
            "end those that nobody needs with `bulla release DIR NAME`; `bulla holds DIR` lists them",
        ),
        Log::NoHold { .. } => Some("`bulla holds DIR` lists the holds"),
        Log::HoldBroken { .. } => Some(
            "end it with `bulla release DIR NAME`, begin anew at the log's start, and take a hold \
             with a larger --quota",
        ),
        Log::HoldDamaged { .. } => Some(
            "end it with `bulla release DIR NAME`: its owner must begin anew at the log's start. \
             Nothing was purged",
        ),
        Log::TooLarge { .. } => {
            Some("use smaller entries or batches, or a larger --ring-size and --segment-size")
        }
        Log::SectorTooSmall { .. } => {
            Some("create the log anew with a larger --sector and load it again")
        }
        Log::Io { source, .. } => of_io(source.kind()),
        _ => None,
    }
}

fn of_io(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("check the path"),
        io::ErrorKind::PermissionDenied => Some("run the command as the owner of the log"),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount the file system for writing"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FREE_SPACE),
        io::ErrorKind::FileTooLarge => Some(TOO_LARGE),
        io::ErrorKind::NotADirectory => Some("name a log's directory, not a file"),
        io::ErrorKind::IsADirectory => Some("name a file, not a directory"),
        _ => None,
    }
}

/// Returns what can be done when the next segment can't be made.
fn of_segment(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some(
            "the log's directory was removed while the log was open: stop the program, and \
             restore a copy",
        ),
        io::ErrorKind::AlreadyExists => {
            Some("another file has the next segment's name: move it away, it is not of this log")
        }
        io::ErrorKind::IsADirectory => Some(
            "a directory has the temporary name of the next segment: move it away, it is not \
             of this log",
        ),
        io::ErrorKind::PermissionDenied => {
            Some("let the user who runs the program write to the log's directory")
        }
        kind => of_io(kind),
    }
}

fn of_undo(refused: &UndoRefused) -> Option<&'static str> {
    match refused {
        UndoRefused::NoRepair(_) => {
            Some("`bulla repair DIR` shows what a repair would do. Nothing was changed")
        }
        UndoRefused::Written { .. } | UndoRefused::Folders(_) => Some(
            "an undo would lose what was written since, which `bulla dump DIR` shows. The files as they \
             were before the repair are in quarantine/. Nothing was changed",
        ),
        _ => Some(
            "restore a copy of the directory. What the repair set aside is in quarantine/, as far as \
             it is still there. Nothing was changed",
        ),
    }
}

fn of_checkpoint(error: &CheckpointError) -> Option<&'static str> {
    match error {
        CheckpointError::Io { source, .. } => of_io(source.kind()),
        CheckpointError::NotMarked { .. } => Some("change something, then retry"),
        CheckpointError::Missing { .. } => Some(
            "restore a copy of the directory: the purged part of the log can't be replaced. \
             `bulla verify DIR` checks every checkpoint",
        ),
        CheckpointError::StillNeeded { .. } => Some(
            "keep the log from that LSN on (`--keep-from end` removes what the store can do \
             without), or take two more checkpoints, with changes before each \
             (`bulla checkpoint DIR`)",
        ),
        CheckpointError::Slab { .. } => Some(
            "restore a copy of the directory. A program that opens the store can read all other \
             records",
        ),
        CheckpointError::WithoutLog { .. } => {
            Some("restore the log, or move the checkpoints away and begin anew")
        }
        _ => None,
    }
}

fn of_backup(error: &BackupError) -> Option<&'static str> {
    match error {
        BackupError::Exists { .. } | BackupError::NotEmpty { .. } => {
            Some("name a new or an empty directory")
        }
        BackupError::NotABackup { .. } => {
            Some("name the directory of a backup; run one that was interrupted again")
        }
        BackupError::Manifest { .. } | BackupError::Part { .. } => {
            Some("restore another backup: this one can't be relied on. Nothing was restored")
        }
        BackupError::BaseMissing { .. } => {
            Some("put that backup back to where it was: backups that build on it need it")
        }
        BackupError::OtherLog { .. } => Some("name a backup of this log after --since"),
        BackupError::NotContinued { .. }
        | BackupError::TooLong { .. }
        | BackupError::TooLarge { .. } => Some("take a full backup, without --since"),
        BackupError::Hold { .. } => Some(
            "the backup can be relied on. Mend what the message says, then release its hold with \
             `bulla release`, or move it to the end of the backup with `bulla hold --advance`",
        ),
        BackupError::NotDurable { .. } => Some(
            "look at the program that writes the log: it may be poisoned, or stopped. Restart it, \
             then run the command again",
        ),
        BackupError::NoCheckpoint { .. } => Some(
            "a restore needs a later point, or a backup that was taken earlier. A store of which that is \
             said can't be opened either: `bulla verify DIR` checks every checkpoint",
        ),
        BackupError::OutOfRange { .. } => {
            Some("name a point that the backup holds, or leave it out to restore everything")
        }
        _ => None,
    }
}

/// Returns what can be done about an input file.
fn of_input(error: &Error) -> Option<&'static str> {
    match error {
        Error::Row {
            source:
                RowError::Id(_)
                | RowError::NoId { .. }
                | RowError::Token(TokenError::ZeroId | TokenError::LocalId(_)),
            ..
        } => Some(
            "map a column of whole numbers to id, or leave --map id out: then each row gets the \
             number of its place",
        ),
        Error::Row { source: RowError::Timestamp(_), .. } => Some(
            "a time is seconds since 1970: map another column to the timestamp, or give it a factor",
        ),
        Error::Row { source: RowError::Token(_), .. } => Some(
            "give the column a smaller factor (--map 4.x=dep_delay:0.0001), or cut values \
             to their range with --clamp",
        ),
        Error::Row { source: RowError::Value { .. }, .. } => {
            Some("map another column, or make the value empty or NA if it is missing")
        }
        Error::Mapping { source: MappingError::Empty, .. } => {
            Some("name a CSV file whose first line has the names of the columns")
        }
        Error::Mapping { .. } => Some("`bulla load --help` shows how columns are mapped"),
        Error::NotForLegacy { .. } => Some("leave the option out, or --from legacy"),
        Error::LegacyDamaged { .. } => Some(
            "load an intact copy if there is one. `bulla load --from legacy FILE --dry-run` \
             shows what is missing; --skip-damaged loads the rest",
        ),
        Error::Changed { .. } => Some(
            "stop the program that writes to the file, then run the command again: loading \
             replaces what was loaded before",
        ),
        _ => None,
    }
}

/// Returns what can be done about the command line, or the place that it names.
fn of_command(error: &Error) -> Option<&'static str> {
    match error {
        Error::NoParent(_) => Some("check the path, or create the parent directory first"),
        Error::NotEmpty { .. } => {
            Some("a log needs a directory of its own: name an empty or a new one")
        }
        Error::NeedsNoRepair { .. } => Some(
            "take two checkpoints, with changes before each (`bulla checkpoint DIR`): they let the \
             damaged part go. To cut the log all the same, say where with --cut-at",
        ),
        Error::InMemory { .. } => {
            Some("name a directory on a disk, or measure without one with --allow-tmpfs")
        }
        Error::TooLittle { .. } => Some("free some, or use fewer --records"),
        Error::NoCommand(_) => Some("`bulla --help` shows the commands"),
        Error::Token(_) | Error::SetTwice | Error::Store(bulla_engine::Error::Token(_)) => {
            Some("`bulla put --help` shows ids, parts and their ranges")
        }
        _ => None,
    }
}
