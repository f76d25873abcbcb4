//! Where a comparison ran: everything that a figure means nothing without.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::log::Result;

/// The file system that a directory is on.
#[derive(Clone, Debug)]
pub(crate) struct FileSystem {
    /// Such as `ext4`.
    pub(crate) kind: String,
    /// Mount options, those of the super block included.
    pub(crate) options: String,
    /// What is mounted.
    pub(crate) source: String,
    /// Major and minor number of its device.
    pub(crate) device: String,
}

impl FileSystem {
    /// The last mount of `/proc/self/mountinfo` that holds `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize()?;
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        table
            .lines()
            .filter_map(parse_mount)
            .filter(|(point, _)| dir.starts_with(point))
            .max_by_key(|(point, _)| point.len())
            .map(|(_, found)| found)
            .ok_or_else(|| format!("no mount holds {}", dir.display()).into())
    }

    /// It forgets everything with the power: nothing on it is durable.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs" | "hugetlbfs")
    }
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - KIND SOURCE SUPER_OPTIONS`
fn parse_mount(line: &str) -> Option<(String, FileSystem)> {
    let (mount, rest) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device, _root) = (mount.next()?, mount.next()?);
    let (point, options) = (mount.next()?, mount.next()?);
    let mut rest = rest.split(' ');
    let (kind, source, of_super) = (rest.next()?, rest.next()?, rest.next()?);
    let found = FileSystem {
        kind: kind.to_owned(),
        options: format!("{options} (super block: {of_super})"),
        source: source.to_owned(),
        device: device.to_owned(),
    };
    Some((point.replace("\\040", " "), found))
}

/// Bytes that are free for us.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// The fingerprint of this machine, file system, build and moment.
pub(crate) fn fingerprint(dir: &Path, file_system: &FileSystem) -> Result<Value> {
    Ok(json!({
        "date": date(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
        "cpu": cpu(),
        "cores": std::thread::available_parallelism()?.get(),
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load_average_at_start": load(),
        "file_system": file_system.kind,
        "mount_options": file_system.options,
        "device": device(dir, file_system),
        "bulla_commit": commit(),
        "versions": versions(),
    }))
}

/// The load average: on a busy machine figures mean little.
pub(crate) fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A file's text without the end of its last line; empty when it can't be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// What stands behind `NAME:` in a file.
fn line_of(path: &str, name: &str) -> String {
    let text = read(path);
    let found = text.lines().find_map(|line| {
        line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
    });
    found.unwrap_or_default().to_owned()
}

fn cpu() -> String {
    format!("{} ({})", line_of("/proc/cpuinfo", "model name"), std::env::consts::ARCH)
}

/// What sysfs tells of the block device below.
fn device(dir: &Path, file_system: &FileSystem) -> Value {
    let number = fs::metadata(dir).map_or_else(
        |_| file_system.device.clone(),
        |meta| {
            let dev = meta.dev();
            format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))
        },
    );
    let about = |name: &str| {
        // A partition has its queue in its parent.
        let own = read(&format!("/sys/dev/block/{number}/{name}"));
        if own.is_empty() { read(&format!("/sys/dev/block/{number}/../{name}")) } else { own }
    };
    json!({
        "source": file_system.source,
        "number": number,
        "model": about("device/model"),
        "rotational": about("queue/rotational"),
        "write_cache": about("queue/write_cache"),
        "fua": about("queue/fua"),
        "scheduler": about("queue/scheduler"),
    })
}

/// The commit that was built, with a mark when something was changed since.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(args)
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit} and changes") })
}

/// The crates compared, and those that matter to them, as they were locked.
const NAMED: &[&str] = &[
    "bulla-engine",
    "bulla-wal",
    "commitlog",
    "crc32c",
    "crc32fast",
    "fjall",
    "hashbrown",
    "heed",
    "io-uring",
    "libsqlite3-sys",
    "lmdb-master-sys",
    "nodedb-wal",
    "okaywal",
    "raft-engine",
    "redb",
    "rusqlite",
    "wal-db",
];

fn versions() -> Value {
    let lock = include_str!("../Cargo.lock");
    let mut found = Map::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches(" = ").trim_matches('"'))
        };
        if let (Some(name), Some(version)) = (field("name"), field("version"))
            && NAMED.contains(&name)
        {
            found.insert(name.to_owned(), version.into());
        }
    }
    Value::Object(found)
}

/// Seconds since 1970 as a date in UTC. From Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400 + 3_661), "2000-02-29 01:01 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
    }

    #[test]
    fn mount_is_parsed_with_its_tags() {
        let line = "36 35 98:0 / /mnt\\040two rw,noatime master:1 x:2 - ext4 /dev/root rw,discard";
        let (point, found) = parse_mount(line).expect("a mount");
        assert_eq!(point, "/mnt two");
        assert_eq!((found.kind.as_str(), found.source.as_str()), ("ext4", "/dev/root"));
        assert_eq!(found.options, "rw,noatime (super block: rw,discard)");
    }

    #[test]
    fn every_named_crate_is_locked() {
        let versions = versions();
        for name in NAMED.iter().filter(|name| **name != "io-uring") {
            assert!(versions.get(name).is_some(), "{name} is not in Cargo.lock");
        }
    }
}
