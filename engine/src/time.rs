//! Times as the log and the table hold them, ms since 1970 with 0 for never, and as users do.

use std::time::{Duration, SystemTime};

/// Returns ms since 1970, rounded down; 0 for never. A time before that is 1: in the past, too.
pub(crate) fn to_ms(time: Option<SystemTime>) -> u64 {
    time.map_or(0, |time| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    })
}

/// Returns the time that `to_ms` turned into this number.
pub(crate) fn from_ms(ms: u64) -> Option<SystemTime> {
    // Linux counts the seconds in 64 bits, so every number of ms is a time.
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).filter(|_| ms != 0)
}

/// Returns the time that is this many ns after 1970.
pub(crate) fn from_ns(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_ms_is_a_time_and_back() {
        for ms in [0, 1, 1 << 40, u64::MAX] {
            assert_eq!(to_ms(from_ms(ms)), ms);
        }
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!((from_ms(0), to_ms(Some(before_1970))), (None, 1));
    }
}
