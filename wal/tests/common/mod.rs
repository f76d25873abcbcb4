//! What the tests of the log share: where it is, and how it is opened.

use bulla_wal::Options;
use bulla_wal::io::sim::SimDisk;

/// Where the logs are on the simulated disk.
pub(crate) const DIR: &str = "/log";

/// Options of a log on a simulated disk that soon has several segments, and starts no thread.
pub(crate) fn options(disk: &SimDisk) -> Options {
    Options::simulated(disk)
}
