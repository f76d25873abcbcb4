//! Times: read from command lines and CSV files, and written as in RFC 3339.

use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::{SignedDuration, Timestamp};

/// Times in nanoseconds below this are in 1973 or before: seconds or milliseconds were meant.
const EARLIEST_NS: u64 = 100_000_000_000_000_000;

/// Parses a time, in ns since 1970: such a number, or as in RFC 3339.
pub(crate) fn nanoseconds(text: &str) -> Result<u64, String> {
    if let Ok(ns) = text.parse::<u64>() {
        return if ns >= EARLIEST_NS {
            Ok(ns)
        } else {
            Err(format!("{text} nanoseconds after 1970 is before any log was written"))
        };
    }
    let time: Timestamp = text.parse().map_err(|_| {
        format!(
            "{text:?} is not a time: write one as in RFC 3339, with its offset from UTC, such as \
             2026-11-21T06:00:00Z, or nanoseconds since 1970"
        )
    })?;
    u64::try_from(time.as_nanosecond()).map_err(|_| format!("{text} is before 1970"))
}

/// Parses the time of a token: seconds since 1970, a date, or a date and time.
pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    text.parse().ok().or_else(|| utc_seconds(text)).ok_or_else(|| {
        format!("{text:?} is neither seconds since 1970 nor a time like 2013-01-02T10:00:00Z")
    })
}

/// Returns the seconds since 1970 of a date, or of a date and time, as in ISO 8601; in UTC
/// where it has no offset of its own.
pub(crate) fn utc_seconds(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = match pieces.to_numeric_offset() {
        Some(offset) => i64::from(offset.seconds()),
        // The rules of the time zone are not known here.
        None if pieces.time_zone_annotation().is_some() => return None,
        None => 0,
    };
    let time = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    Some(time.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs() - offset)
}

/// Returns the time of a token as in RFC 3339.
pub(crate) fn of_seconds(seconds: u32) -> String {
    (Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::from(seconds))).to_string()
}

/// Returns the wall time of a frame as in RFC 3339, to the nanosecond; `None` for 0, which
/// stands for no time.
pub(crate) fn of_nanoseconds(ns: u64) -> Option<String> {
    let time = Timestamp::from_nanosecond(i128::from(ns)).ok()?;
    (ns > 0).then(|| time.to_string())
}

/// Returns a time as in RFC 3339, to the nanosecond; `None` before 1970.
pub(crate) fn of_system_time(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    of_nanoseconds(u64::try_from(since.as_nanos()).ok()?)
}

/// Returns a time in us since 1970 as in RFC 3339; as the number where that is beyond years of
/// four digits.
pub(crate) fn of_microseconds(us: u64) -> String {
    let time = i64::try_from(us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    time.map_or_else(|| format!("{us} us since 1970"), |time| time.to_string())
}

/// Returns a duration in whole seconds, such as `3h 12m 5s`.
pub(crate) fn of_duration_ns(ns: u64) -> String {
    let seconds = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_secs(seconds))
}

/// Returns the seconds since 1970.
pub(crate) fn now_seconds() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(utc_seconds("1970-01-01"), Some(0));
        assert_eq!(utc_seconds("2013-01-01T10:00:00Z"), Some(1_357_034_400));
        assert_eq!(utc_seconds("2024-02-29 00:00:01"), Some(1_709_164_801));
        assert_eq!(utc_seconds("2013-01-01T12:00:00.7+02:00"), Some(1_357_034_400));
        assert_eq!(utc_seconds("1969-12-31T23:00:00-01:00"), Some(0));
        // For ever, to many programs.
        assert_eq!(utc_seconds("9999-12-31 23:59:59"), Some(253_402_300_799));
        let wrong = [
            "",
            "2013-13-01",
            "2013-02-29",
            "2013-01-01T25:00:00Z",
            "2013-01-01T10:00:00[America/New_York]",
            "12024-2013-00000000000000000008386636944162947072",
            "2013-01-99999999999999999",
            "EWR",
            "1-2-3-4",
        ];
        for wrong in wrong {
            assert_eq!(utc_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nanoseconds_are_numbers_or_times_with_an_offset() {
        let seven = 1_795_244_400_500_000_000;
        for text in ["2026-11-21T07:00:00.5Z", "2026-11-21T08:00:00.5+01:00", "1795244400500000000"]
        {
            assert_eq!(nanoseconds(text), Ok(seven), "{text}");
        }
        for wrong in ["2026-11-21T07:00:00", "07:00", "1795244400", "1960-01-01T00:00:00Z", "-5"] {
            assert!(nanoseconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn written_times_read_back() {
        for time in [0, 951_782_399, 1_357_035_300, 1_709_164_801, u32::MAX] {
            assert_eq!(utc_seconds(&of_seconds(time)), Some(i64::from(time)));
        }
        let ns = 1_795_244_400_500_000_001;
        assert_eq!(of_nanoseconds(ns).map(|text| nanoseconds(&text)), Some(Ok(ns)));
        assert_eq!(of_nanoseconds(0), None);
    }
}
