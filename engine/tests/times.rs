//! Times to live of records, as numbers that tests compute with.

use std::time::{Duration, SystemTime};

/// Returns ms since 1970; 0 for never.
pub(crate) fn ms(time: Option<SystemTime>) -> u64 {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
    time.and_then(since).map_or(0, |since| u64::try_from(since.as_millis()).expect("a time"))
}

/// Returns the time that is this many ms after 1970; 0 is never.
pub(crate) fn at_ms(ms: u64) -> Option<SystemTime> {
    (ms != 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}
