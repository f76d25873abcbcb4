//! What pages have in common: figures, rows of tables, and the line at the foot.

use crate::numbers::grouped;
use crate::times;

/// A name and a value.
pub(super) struct Fact {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// A row of a table.
pub(super) struct TableRow {
    pub(super) class: &'static str,
    pub(super) cells: Vec<String>,
}

/// Returns what drew a page, and from what.
pub(super) fn footer(command: &str, checked: &str) -> String {
    let now = time(u64::from(times::now_seconds()) * 1_000_000_000);
    let version = env!("CARGO_PKG_VERSION");
    format!("Drawn by bulla {command} {version} at {now}. It had read: {checked}.")
}

/// Returns a wall time to the second.
pub(super) fn time(ns: u64) -> String {
    let text = times::of_nanoseconds(ns).unwrap_or_else(|| "at an unknown time".to_owned());
    match text.get(..19).filter(|_| text.ends_with('Z')) {
        Some(seconds) => format!("{} UTC", seconds.replace('T', " ")),
        None => text,
    }
}

/// Returns a number and what is counted: `1 frame`, `2,000 frames`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{} {many}", grouped(count)) }
}
