//! Options that several commands share, and how their values are parsed.

use std::fmt;

use bulla_recovery::{Position, Range};
use bulla_wal::{Level, Lsn, Method, Options, Seq};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::terminal;
use crate::times::nanoseconds;

/// How a log is opened.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// How data reaches the disk.
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub(crate) backend: Backend,
    /// Length of new segment files, such as 64MiB (the default) or 1MiB.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) segment_size: Option<u64>,
    /// Sector size of a new log: 512 to 16KiB. An existing log keeps its own.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) sector: Option<u64>,
    /// Memory of the append ring, such as 32MiB (the default): the most that a crash of the
    /// process can take of relaxed entries.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(crate) ring_size: Option<u64>,
}

impl LogArgs {
    /// Returns the same options as words of a command line, for a child process.
    pub(crate) fn words(&self) -> Vec<String> {
        let lens = [
            ("segment-size", self.segment_size),
            ("sector", self.sector),
            ("ring-size", self.ring_size),
        ];
        let lens = lens.into_iter().filter_map(|(name, len)| Some(format!("--{name}={}", len?)));
        std::iter::once(format!("--backend={}", self.backend)).chain(lens).collect()
    }

    /// Returns the log's options.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new().method(self.backend.method());
        #[cfg(feature = "uring")]
        if self.backend == Backend::Uring {
            options = options.io(std::sync::Arc::new(bulla_storage::io::uring::UringIo::new()));
        }
        if let Some(len) = self.segment_size {
            options = options.segment_len(len);
        }
        if let Some(len) = self.sector {
            // A length that does not fit is refused like any other that is not a sector size.
            options = options.sector(u32::try_from(len).unwrap_or(u32::MAX));
        }
        if let Some(len) = self.ring_size {
            options = options.ring_len(len);
        }
        options
    }
}

/// A way to the disk.
#[derive(ValueEnum, Serialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    /// Direct, or buffered where the file system does not support direct I/O.
    #[default]
    Auto,
    /// Bypass the page cache (`O_DIRECT`), with synced writes.
    #[value(alias = "std")]
    Direct,
    /// Through the page cache, with fdatasync.
    Buffered,
    /// Like direct, with several writes in flight through `io_uring`.
    #[cfg(feature = "uring")]
    Uring,
}

impl Backend {
    /// Returns those that differ from each other.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|backend| *backend != Self::Auto)
    }

    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Buffered => Method::Buffered,
            _ => Method::Direct,
        }
    }

    /// Warns when the backend that was asked for by name is not available; with --verbose,
    /// prints the one in use.
    pub(crate) fn warn_of_fallback(self, stats: &bulla_wal::Stats) {
        let (backend, method) = (stats.backend, stats.method);
        let is_direct_by_name = !matches!(self, Self::Auto | Self::Buffered);
        if let Some(reason) = stats.fallback.as_ref().filter(|_| is_direct_by_name) {
            terminal::warn(format_args!(
                "--backend {self} is not available here ({reason}): using {backend} I/O, {method}"
            ));
        } else {
            let depth = stats.depth;
            terminal::detail(format_args!(
                "using {backend} I/O, {method}, up to {depth} writes in flight"
            ));
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
            #[cfg(feature = "uring")]
            Self::Uring => "uring",
        })
    }
}

/// A durability level.
#[derive(ValueEnum, Serialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelArg {
    /// Acknowledged when in memory: a crash can lose it.
    Relaxed,
    /// Acknowledged when the kernel has it: survives kill -9.
    #[default]
    Balanced,
    /// Acknowledged when on the disk: survives power loss.
    Strict,
}

impl LevelArg {
    /// Returns the name on the command line.
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

impl fmt::Display for LevelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The range of entries.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RangeArgs {
    /// First entry: a position (LSN) such as 8192, a number such as seq:17, or a time
    /// such as 2026-11-21T06:00:00Z.
    #[arg(long, value_parser = bound, value_name = "LSN|seq:N|TIME")]
    pub(crate) from: Option<Position>,
    /// End, exclusive: a position (LSN), a number such as seq:18, or a time.
    #[arg(long, value_parser = bound, value_name = "LSN|seq:N|TIME", group = "end")]
    pub(crate) to: Option<Position>,
    /// Only entries at lower positions.
    #[arg(long, value_parser = position, value_name = "LSN", group = "end")]
    pub(crate) to_lsn: Option<u64>,
    /// Only entries with lower numbers.
    #[arg(long, value_parser = seq, value_name = "N", group = "end")]
    pub(crate) to_seq: Option<u64>,
    /// Up to the last entry written before this time: as in RFC 3339, such as
    /// 2026-11-21T06:00:00.5+01:00, or nanoseconds since 1970. The writer's clock counts;
    /// all entries of a frame have the same time.
    #[arg(long, value_parser = nanoseconds, value_name = "TIME", group = "end")]
    pub(crate) to_time: Option<u64>,
}

impl RangeArgs {
    pub(crate) fn range(self) -> Range {
        Range {
            from: self.from.unwrap_or(Position::Start),
            to: (self.to)
                .or(self.to_lsn.map(|lsn| Lsn(lsn).into()))
                .or(self.to_seq.map(|seq| Seq(seq).into()))
                .or(self.to_time.map(Position::at_wall_ns))
                .unwrap_or(Position::End),
        }
    }
}

/// Parses a length in bytes, with or without a unit.
///
/// A single letter is binary, unlike in `bytesize`: lengths here are multiples of a sector.
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
        _ => return Err(format!("{unit:?} is not a unit: use B, KiB, MiB, GiB, kB, MB or GB")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number, such as the 64 of 64MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} does not fit into 64 bits"))
}

/// Parses a position, the number of an entry, or a time.
pub(crate) fn bound(text: &str) -> Result<Position, String> {
    if text.contains('-') {
        return nanoseconds(text).map(Position::at_wall_ns);
    }
    if let Some(number) = text.strip_prefix("seq:") {
        return seq(number).map(|seq| Seq(seq).into());
    }
    let lsn = position(text.strip_prefix("lsn:").unwrap_or(text));
    lsn.map(|lsn| Lsn(lsn).into()).map_err(|_| {
        format!(
            "{text:?} is neither a position such as 8192, nor a number such as seq:17, nor a \
             time such as 2026-11-21T06:00:00Z"
        )
    })
}

/// Parses a position from which on everything is kept.
pub(crate) fn kept_from(text: &str) -> Result<Position, String> {
    if text == "end" { Ok(Position::End) } else { bound(text) }
}

/// Parses the number of an entry.
pub(crate) fn seq(text: &str) -> Result<u64, String> {
    match number(text) {
        Some(0) => Err("the numbers of entries start at 1".to_owned()),
        Some(seq) => Ok(seq),
        None => Err(format!("{text:?} is not the number of an entry, such as 17")),
    }
}

/// Parses a position, also one grouped as in a table: 1,323,008.
pub(crate) fn position(text: &str) -> Result<u64, String> {
    number(text).ok_or_else(|| format!("{text:?} is not a position such as 8192"))
}

fn number(text: &str) -> Option<u64> {
    text.replace(',', "").parse().ok()
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
        assert_eq!(bound("8192"), Ok(Lsn(8192).into()));
        assert_eq!(bound("seq:17"), Ok(Seq(17).into()));
        assert_eq!(bound("1,323,008"), Ok(Lsn(1_323_008).into()));
        let seven = Ok(Position::at_wall_ns(1_795_244_400_500_000_000));
        assert_eq!(bound("2026-11-21T07:00:00.5Z"), seven);
        for wrong in ["seq:", "seq:0", "lsn:", "noon"] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }
}
