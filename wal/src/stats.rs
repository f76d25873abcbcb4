//! What a log did, in numbers.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A snapshot of a log's counters. All count from the opening of the log.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// The backend that does the work, such as `std`.
    pub backend: &'static str,
    /// How data reach the disk: `direct` or `buffered`.
    pub method: &'static str,
    /// Why the backend or the method is not the one asked for, if so.
    pub fallback: Option<String>,
    /// Writes that may be in flight at once.
    pub depth: usize,
    /// Entries appended.
    pub entries: u64,
    /// Bytes of payload appended.
    pub payload_bytes: u64,
    /// Bytes written to segments: headers, padding and seals included, zero-fill not.
    pub written_bytes: u64,
    /// Frames written: groups of entries that share one write.
    pub frames: u64,
    /// Write calls made for frames and seals.
    pub writes: u64,
    /// Of these, writes that were durable by themselves.
    pub dsync_writes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Writes that completed short and were continued.
    pub short_writes: u64,
    /// Segments that were filled.
    pub rotations: u64,
    /// Of these, into segments whose space was only reserved: no zeros were written ahead.
    pub reserved_rotations: u64,
    /// Entries per frame.
    pub group_size: Percentiles,
    /// Nanoseconds from sealing a frame until it is durable.
    pub commit_latency_ns: Percentiles,
    /// The longest time by which a flush started later than its interval says.
    pub max_lateness: Duration,
}

impl Stats {
    /// Operations that made something durable: DSYNC writes and syncs.
    #[must_use]
    pub fn durable_operations(&self) -> u64 {
        self.dsync_writes + self.syncs
    }
}

/// A distribution, by some of its percentiles. All zero when nothing was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Percentiles {
    /// How many values.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// 95 of 100 values are at most this.
    pub p95: u64,
    /// 99 of 100 values are at most this.
    pub p99: u64,
    /// 999 of 1,000 values are at most this.
    pub p999: u64,
    /// The highest.
    pub max: u64,
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {} p95 {} p99 {} max {}", self.p50, self.p95, self.p99, self.max)
    }
}

/// Counters of the driver, and its distributions.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) stats: Stats,
    group_size: Histogram<u32>,
    commit_latency: Histogram<u32>,
}

/// A minute: longer commits are counted as one.
const LONGEST_LATENCY_NS: u64 = 60_000_000_000;
const LARGEST_GROUP: u64 = 8 * 1024 * 1024;

impl Counters {
    pub(crate) fn new(stats: Stats) -> Self {
        Self {
            stats,
            group_size: histogram(LARGEST_GROUP),
            commit_latency: histogram(LONGEST_LATENCY_NS),
        }
    }

    pub(crate) fn group(&mut self, entries: u32) {
        self.group_size.saturating_record(u64::from(entries));
    }

    pub(crate) fn commit(&mut self, latency_ns: u64) {
        self.commit_latency.saturating_record(latency_ns.max(1));
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let mut stats = self.stats.clone();
        stats.group_size = percentiles(&self.group_size);
        stats.commit_latency_ns = percentiles(&self.commit_latency);
        stats
    }
}

/// Two significant digits from 1 to `highest`.
fn histogram(highest: u64) -> Histogram<u32> {
    Histogram::new_with_bounds(1, highest, 2).expect("constant bounds are valid")
}

fn percentiles(histogram: &Histogram<u32>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    Percentiles {
        count: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p95: histogram.value_at_quantile(0.95),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}
