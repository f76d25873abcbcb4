//! Logs whose clock is set: times go back where they may, and positions of times follow.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{Range, Recovery};
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Level, Log, Method, Options, Position};

use crate::model::Shown;

const DIR: &str = "/log";
const YEAR_NS: i64 = 365 * 24 * 3_600_000_000_000;
/// After so long a segment may end for the clock again.
const HOUR_NS: u64 = 3_600_000_000_000;
/// After so long an entry is written that nobody waits for.
const FLUSH_NS: u64 = 11_000_000;
/// Killed writers.
const LIVES: usize = 24;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn expect(right: bool, what: impl std::fmt::Display) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("I59: {what}")) }
}

/// Sets the clock forward by years and back, in writers that are killed.
///
/// # Errors
/// When times go back in a segment, or a time's position is not behind the last frame before it.
pub fn times_go_back_between_segments_only() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let mut steps_back = 0;
    for life in 0..LIVES {
        let options = Options::simulated(&disk).method(Method::Buffered);
        let (log, _) = Log::open(Path::new(DIR), &options).map_err(text)?;
        for years in [60, life as i64 % 3, 60] {
            disk.set_wall_offset(years * YEAR_NS);
            disk.advance(HOUR_NS);
            for _ in 0..=life % 7 {
                log.append_with(1, &[1; 700], Level::Relaxed).map(drop).map_err(text)?;
                disk.advance(FLUSH_NS);
                while log.step() {}
            }
        }
        disk.kill();
        drop(log);
        steps_back += check(&disk)?;
    }
    expect(steps_back >= LIVES / 2, format_args!("times went back {steps_back} times"))
}

/// Recovers the log. Returns how often its times go back.
fn check(disk: &SimDisk) -> Result<usize, String> {
    let recovery = Recovery::run(Path::new(DIR), &Options::simulated(disk)).map_err(text)?;
    let shown = Shown::read(&recovery).map_err(text)?;
    expect(shown.older.is_none(), format_args!("entry {:?} is older", shown.older))?;
    let times = |range: Range| {
        let mut times = Vec::new();
        let replayed = recovery.replay(range, |entry| {
            times.push(entry.wall_ns);
            ControlFlow::Continue(())
        });
        replayed.map_err(text).map(|_| times)
    };
    let all = times(Range::ALL)?;
    for at in all.iter().step_by(7) {
        let before = all.iter().rposition(|time| time < at).map_or(0, |last| last + 1);
        let time = Position::at_wall_ns(*at);
        let (below, above) = (times((..time).into())?, times((time..).into())?);
        expect(below == all[..before] && above == all[before..], format_args!("time {at}"))?;
    }
    Ok(all.windows(2).filter(|pair| pair[1] < pair[0]).count())
}
