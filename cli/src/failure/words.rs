//! Words for errors of the libraries, in terms of the command line.

use bulla_engine::CheckpointError;
use bulla_wal::{Corruption, CorruptionKind};

use crate::error::Error;

/// Returns what is printed instead of the error's own words, where those speak to a programmer.
pub(super) fn of(error: &Error) -> Option<String> {
    use bulla_wal::Error as Log;
    if let Some(log) = error.log() {
        return match log {
            Log::Corrupt(corruption) => Some(lines_of_corruption(corruption).join("; ")),
            Log::Options { option, reason } => Some(of_option(option, reason)),
            Log::TooLarge { len, max } => Some(format!(
                "entry too large: {len} bytes with header and padding, the limit is {max}"
            )),
            _ => None,
        };
    }
    match error {
        Error::Store(bulla_engine::Error::Entry { lsn, seq, .. }) => {
            Some(format!("entry {seq} (LSN {lsn}) is not a record change"))
        }
        Error::Store(bulla_engine::Error::Checkpoint(CheckpointError::Slab {
            path,
            slab,
            fault,
            ..
        })) => {
            let first = u64::from(*slab) << 15;
            let (last, path) = (first + 32_767, path.display());
            Some(format!(
                "records {first} to {last} in {path} can't be read ({fault}) and can't be \
                 rebuilt from the log"
            ))
        }
        _ => None,
    }
}

/// Names the option as it was typed.
fn of_option(option: &str, reason: &str) -> String {
    match option {
        "sector" => "--sector must be a power of two from 512 to 16KiB".to_owned(),
        "segment_len" => {
            "--segment-size must be at least 16KiB, and a multiple of the sector size".to_owned()
        }
        "ring_len" => "--ring-size must be a power of two from 16KiB to 256MiB".to_owned(),
        _ => format!("option {option}: {reason}"),
    }
}

/// Returns what is damaged and where, and up to where the log is known to have been durable.
pub(crate) fn lines_of_corruption(corruption: &Corruption) -> Vec<String> {
    let mut lines = vec![of_damage(corruption)];
    if let Some(durable) = corruption.durable {
        lines.push(format!("known to have been durable: up to LSN {durable}"));
    }
    lines
}

fn of_damage(corruption: &Corruption) -> String {
    let Some(segment) = corruption.segment else {
        return match corruption.kind {
            CorruptionKind::ControlMissing => {
                "CONTROL is missing, but there are segments".to_owned()
            }
            CorruptionKind::Control(why) => format!("both copies in CONTROL are damaged ({why})"),
            CorruptionKind::ControlSlot(why) => format!(
                "the newest copy in CONTROL is damaged ({why}), and the other one is older than the \
                 segments"
            ),
            kind => format!("{kind}{}", place(corruption)),
        };
    };
    match corruption.kind {
        CorruptionKind::Frame(damage) => {
            format!(
                "data that was durable is damaged: segment {segment}{} ({damage})",
                place(corruption)
            )
        }
        CorruptionKind::SegmentMissing => format!("segment {segment} is missing"),
        CorruptionKind::ControlOrSegment(why) => format!(
            "one of the two copies in CONTROL is damaged ({why}): either that was the newest, and the \
             log was purged since the other one, or segment {segment} is missing"
        ),
        CorruptionKind::Epoch => {
            format!("segment {segment} belongs to another epoch than its neighbours")
        }
        CorruptionKind::ControlMissing => {
            format!("CONTROL is missing, but there are segments (the first is {segment})")
        }
        kind => format!("segment {segment}{}: {kind}", place(corruption)),
    }
}

/// Returns the offset and the position of the damage, as far as they are known.
fn place(corruption: &Corruption) -> String {
    let offset = corruption.offset.map(|offset| format!(", offset {offset}"));
    let lsn = corruption.lsn.map(|lsn| format!(" (LSN {lsn})"));
    offset.unwrap_or_default() + &lsn.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bulla_wal::{FrameDamage, Lsn, SegmentNumber};

    use super::*;

    #[test]
    fn damage_is_named_with_its_place() {
        let damaged = Corruption {
            segment: Some(SegmentNumber(10)),
            offset: Some(4096),
            lsn: Some(Lsn(1_564_672)),
            durable: Some(Lsn(2_613_248)),
            kind: CorruptionKind::Frame(FrameDamage::EndOfFile),
        };
        assert_eq!(
            lines_of_corruption(&damaged),
            [
                "data that was durable is damaged: segment 10, offset 4096 (LSN 1564672) (end of \
                 file)",
                "known to have been durable: up to LSN 2613248",
            ]
        );
        let missing = Corruption { kind: CorruptionKind::SegmentMissing, ..damaged };
        assert_eq!(lines_of_corruption(&missing)[0], "segment 10 is missing");
    }
}
