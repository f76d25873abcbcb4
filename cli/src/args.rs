//! Options that several commands share, and how their values are read.

use std::fmt;
use std::sync::Arc;

use bulla_recovery::{Bound, Range};
use bulla_storage::io::uring::UringIo;
use bulla_wal::{Level, Lsn, Method, Options, Seq};
use clap::{Args, ValueEnum};

/// How a log is opened.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// How data reach the disk.
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub(crate) backend: Backend,
    /// Length of new segment files, such as 64MiB (the default) or 1MiB.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) segment_size: Option<u64>,
    /// Sector size of a log that is created: 512 to 16KiB. A log keeps its own.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) sector: Option<u64>,
    /// Memory of the append ring, such as 32MiB (the default): what a crash of the
    /// process can take from relaxed entries at most.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) ring_size: Option<u64>,
}

impl LogArgs {
    /// The command line that says the same, for a child process.
    pub(crate) fn words(&self) -> Vec<String> {
        let lens = [
            ("segment-size", self.segment_size),
            ("sector", self.sector),
            ("ring-size", self.ring_size),
        ];
        let lens = lens.into_iter().filter_map(|(name, len)| Some(format!("--{name}={}", len?)));
        std::iter::once(format!("--backend={}", self.backend)).chain(lens).collect()
    }

    /// The log's options.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new().method(self.backend.method());
        if self.backend == Backend::Uring {
            options = options.io(Arc::new(UringIo::new()));
        }
        if let Some(len) = self.segment_size {
            options = options.segment_len(len);
        }
        if let Some(len) = self.sector {
            // A length that does not fit is refused, as it is no sector size either.
            options = options.sector(u32::try_from(len).unwrap_or(u32::MAX));
        }
        if let Some(len) = self.ring_size {
            options = options.ring_len(len);
        }
        options
    }
}

/// A way to the disk.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Backend {
    /// Direct, or buffered where the file system has no direct I/O.
    #[default]
    Auto,
    /// Past the page cache (`O_DIRECT`), synced writes.
    #[value(alias = "std")]
    Direct,
    /// Through the page cache, with fdatasync.
    Buffered,
    /// As direct, several writes in flight by `io_uring`.
    Uring,
}

impl Backend {
    /// Those that can be told apart.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|backend| *backend != Self::Auto)
    }

    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Auto | Self::Direct | Self::Uring => Method::Direct,
            Self::Buffered => Method::Buffered,
        }
    }

    /// Says on standard error when what was asked for by name can't be had.
    pub(crate) fn warn_of_fallback(self, stats: &bulla_wal::Stats) {
        if let (Self::Direct | Self::Uring, Some(reason)) = (self, &stats.fallback) {
            eprintln!(
                "bulla: no --backend {self} here ({reason}): using {} I/O, {}",
                stats.backend, stats.method
            );
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
            Self::Uring => "uring",
        })
    }
}

/// A durability level.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum LevelArg {
    /// Acknowledged when in memory.
    Relaxed,
    /// Acknowledged when the kernel has it: survives kill -9.
    #[default]
    Balanced,
    /// Acknowledged when on the disk: survives power loss.
    Strict,
}

impl LevelArg {
    /// As it is given on a command line.
    pub(crate) const fn name(self) -> &'static str {
        self.level().name()
    }

    pub(crate) const fn level(self) -> Level {
        match self {
            Self::Relaxed => Level::Relaxed,
            Self::Balanced => Level::Balanced,
            Self::Strict => Level::Strict,
        }
    }
}

/// Which entries.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RangeArgs {
    /// First entry: a position (LSN) such as 8192, a number such as seq:17, or a time
    /// such as 2026-11-21T06:00:00Z.
    #[arg(long, value_parser = bound, value_name = "LSN|seq:N|TIME")]
    pub(crate) from: Option<Bound>,
    /// End, exclusive: a position (LSN), a number such as seq:18, or a time.
    #[arg(long, value_parser = bound, value_name = "LSN|seq:N|TIME", group = "end")]
    pub(crate) to: Option<Bound>,
    /// Only entries at lower positions.
    #[arg(long, value_parser = position, value_name = "LSN", group = "end")]
    pub(crate) to_lsn: Option<u64>,
    /// Only entries with lower numbers.
    #[arg(long, value_parser = position, value_name = "N", group = "end")]
    pub(crate) to_seq: Option<u64>,
    /// Only entries written before this time: as in RFC 3339, such as
    /// 2026-11-21T06:00:00.5+01:00, or nanoseconds since 1970. The writer's clock counts;
    /// entries of one frame have one time.
    #[arg(long, value_parser = time, value_name = "TIME", group = "end")]
    pub(crate) to_time: Option<u64>,
}

impl RangeArgs {
    pub(crate) fn range(self) -> Range {
        Range {
            from: self.from.unwrap_or(Bound::Unbounded),
            to: (self.to)
                .or(self.to_lsn.map(|lsn| Bound::Lsn(Lsn(lsn))))
                .or(self.to_seq.map(|seq| Bound::Seq(Seq(seq))))
                .or(self.to_time.map(Bound::Time))
                .unwrap_or(Bound::Unbounded),
        }
    }
}

/// A length in bytes, with or without a unit.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = (digits.trim_end(), &text[digits.len()..]);
    let factor = match unit {
        "" | "B" => 1,
        "k" | "K" | "KiB" | "kiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(format!("{unit:?} is no unit: use B, KiB, MiB, GiB, kB, MB or GB")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{number:?} is no whole number, such as in 64MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} does not fit into 64 bits"))
}

fn bound(text: &str) -> Result<Bound, String> {
    if text.contains('-') {
        return time(text).map(Bound::Time);
    }
    let (number, bound): (_, fn(u64) -> Bound) = match text.strip_prefix("seq:") {
        Some(number) => (number, |seq| Bound::Seq(Seq(seq))),
        None => (text.strip_prefix("lsn:").unwrap_or(text), |lsn| Bound::Lsn(Lsn(lsn))),
    };
    position(number).map(bound).map_err(|_| {
        format!(
            "{text:?} is neither a position such as 8192, nor a number such as seq:17, nor a \
             time such as 2026-11-21T06:00:00Z"
        )
    })
}

/// Nanoseconds below this are in 1973 or before: somebody meant seconds, or milliseconds.
const EARLIEST_NS: u64 = 100_000_000_000_000_000;

/// A time in ns since 1970: such a number, or as in RFC 3339, or as `stat` shows it.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    if let Ok(ns) = text.parse::<u64>() {
        return if ns >= EARLIEST_NS {
            Ok(ns)
        } else {
            Err(format!("{text} nanoseconds after the beginning of 1970 is no time of a log"))
        };
    }
    let zoned = text.strip_suffix(" UTC").map(|rest| format!("{rest}Z"));
    let time: jiff::Timestamp = zoned.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!(
            "{text:?} is no time: write one as in RFC 3339, with its offset from UTC, such as \
             2026-11-21T06:00:00Z, or nanoseconds since 1970"
        )
    })?;
    u64::try_from(time.as_nanosecond()).map_err(|_| format!("{text} is before 1970"))
}

/// A number, also one grouped as in a table: 1,323,008.
pub(crate) fn position(text: &str) -> Result<u64, String> {
    text.replace(',', "").parse().map_err(|_| format!("{text:?} is no position such as 8192"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("3MB"), Ok(3_000_000));
        for wrong in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_are_positions_or_numbers() {
        assert_eq!(bound("8192"), Ok(Bound::Lsn(Lsn(8192))));
        assert_eq!(bound("seq:17"), Ok(Bound::Seq(Seq(17))));
        assert_eq!(bound("1,323,008"), Ok(Bound::Lsn(Lsn(1_323_008))));
        assert!(bound("seq:").is_err());
    }

    #[test]
    fn times_have_an_offset_or_are_nanoseconds() {
        let seven = 1_795_244_400_500_000_000;
        for text in [
            "2026-11-21T07:00:00.5Z",
            "2026-11-21T08:00:00.5+01:00",
            "2026-11-21 07:00:00.500 UTC",
            "1795244400500000000",
        ] {
            assert_eq!(time(text), Ok(seven), "{text}");
        }
        assert_eq!(bound("2026-11-21T07:00:00.5Z"), Ok(Bound::Time(seven)));
        for wrong in ["2026-11-21T07:00:00", "07:00", "1795244400", "1960-01-01T00:00:00Z", "-5"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
