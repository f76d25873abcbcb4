//! What a directory lies on: its file system, and what the disk says about itself.
//!
//! Reads `/proc/self/mountinfo` and `/sys`; what is missing there is unknown. Judges nothing.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::MountInfo;
use serde::Serialize;

use crate::error::{Error, Result};

/// A directory and what is below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) dir: PathBuf,
    pub(crate) mount: Option<Mount>,
    pub(crate) device: Option<Device>,
}

/// A mounted file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    /// Such as `ext4`.
    pub(crate) kind: String,
    pub(crate) source: String,
    /// Major and minor number, as in `254:0`.
    number: String,
}

/// A block device, as `/sys/block/NAME/queue` describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) model: Option<String>,
    pub(crate) rotational: Option<bool>,
    /// `write back` or `write through`.
    pub(crate) write_cache: Option<String>,
    /// Whether it can make a single write durable.
    pub(crate) fua: Option<bool>,
    pub(crate) physical_sector: Option<u64>,
}

const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

impl Facts {
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().map_err(Error::file("find", dir))?;
        // Without /proc nothing of this is known, and the measurement still counts.
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = mount_of(&mountinfo, &dir);
        let device = mount.as_ref().and_then(|mount| device_of(mount, Path::new("/sys")));
        Ok(Self { dir, mount, device })
    }

    /// Returns whether it is on a file system that a power loss erases.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.mount.as_ref().is_some_and(|mount| IN_MEMORY.contains(&mount.kind.as_str()))
    }

    pub(crate) fn report(&self) -> FactsReport<'_> {
        let (mount, device) = (self.mount.as_ref(), self.device.as_ref());
        FactsReport {
            directory: self.dir.display().to_string(),
            file_system: mount.map(|mount| mount.kind.as_str()),
            mounted_at: mount.map(|mount| mount.point.display().to_string()),
            source: mount.map(|mount| mount.source.as_str()),
            device: device.map(|device| device.name.as_str()),
            model: device.and_then(|device| device.model.as_deref()),
            rotational: device.and_then(|device| device.rotational),
            write_cache: device.and_then(|device| device.write_cache.as_deref()),
            fua: device.and_then(|device| device.fua),
            physical_sector: device.and_then(|device| device.physical_sector),
        }
    }
}

/// The facts as a flat report.
#[derive(Serialize)]
pub(crate) struct FactsReport<'a> {
    directory: String,
    file_system: Option<&'a str>,
    mounted_at: Option<String>,
    source: Option<&'a str>,
    device: Option<&'a str>,
    model: Option<&'a str>,
    rotational: Option<bool>,
    write_cache: Option<&'a str>,
    fua: Option<bool>,
    physical_sector: Option<u64>,
}

/// Returns the mount that a directory is on: the longest mount point above it, and of several
/// there the last, which hides the others.
fn mount_of(mountinfo: &str, dir: &Path) -> Option<Mount> {
    mountinfo
        .lines()
        .filter_map(parse)
        .filter(|mount| dir.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// Parses a line of mountinfo; `None` of one that is not.
pub(crate) fn parse(line: &str) -> Option<Mount> {
    let mount = MountInfo::from_line(line).ok()?;
    Some(Mount {
        point: PathBuf::from(unescaped(mount.mount_point.to_str()?)),
        kind: mount.fs_type,
        source: unescaped(mount.mount_source.as_deref().unwrap_or("none")),
        number: mount.majmin,
    })
}

/// Resolves the escapes of mountinfo, which `procfs` leaves as they are.
///
/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    const ESCAPES: [(&str, &str); 4] =
        [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    ESCAPES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn device_of(mount: &Mount, sys: &Path) -> Option<Device> {
    let by_number = sys.join("dev/block").join(&mount.number);
    let block = by_number.canonicalize().or_else(|error| {
        // On btrfs, for one, the number is not that of a device.
        let source = Path::new(&mount.source).canonicalize()?;
        let name = source.file_name().filter(|_| source.starts_with("/dev")).ok_or(error)?;
        sys.join("class/block").join(name).canonicalize()
    });
    let block = block.ok()?;
    // A partition has no queue of its own: its disk, the directory above, has.
    let disk = [block.as_path(), block.parent()?]
        .into_iter()
        .find(|block| block.join("queue").is_dir())?
        .to_owned();
    let read = |name: &str| {
        let text = fs::read_to_string(disk.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let flag = |name: &str| read(name).map(|text| text == "1");
    Some(Device {
        name: block.file_name()?.to_string_lossy().into_owned(),
        model: read("device/model"),
        rotational: flag("queue/rotational"),
        write_cache: read("queue/write_cache"),
        fua: flag("queue/fua"),
        physical_sector: read("queue/physical_block_size").and_then(|text| text.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1024k
24 22 0:40 / /data rw - nfs4 server:/export rw,vers=4.2
25 22 8:1 / /data rw - xfs /dev/sda1 rw
26 22 8:17 /sub /mnt/a\\040b rw master:2 propagate_from:3 - btrfs /dev/sdb1 rw,subvol=/sub
";

    #[test]
    fn longest_mount_point_counts_and_of_equal_ones_the_last() {
        for (dir, kind) in [
            ("/var/lib", "ext4"),
            ("/tmp/x", "tmpfs"),
            ("/tmpfiles", "ext4"),
            ("/data", "xfs"),
            ("/mnt/a b/c", "btrfs"),
        ] {
            let mount = mount_of(MOUNTINFO, Path::new(dir)).expect("the root is there");
            assert_eq!(mount.kind, kind, "{dir}");
        }
        assert_eq!(mount_of("nonsense\n\n1 2 - \n", Path::new("/")), None);
    }

    #[test]
    fn partition_is_described_by_its_disk() {
        let dir = tempfile::tempdir().expect("made");
        let sys = dir.path().to_owned();
        let disk = sys.join("devices/vda");
        fs::create_dir_all(disk.join("queue")).expect("made");
        fs::create_dir_all(disk.join("vda1")).expect("made");
        fs::create_dir_all(sys.join("dev/block")).expect("made");
        for (name, text) in [
            ("rotational", "1\n"),
            ("write_cache", "write back\n"),
            ("fua", "0\n"),
            ("physical_block_size", "512\n"),
        ] {
            fs::write(disk.join("queue").join(name), text).expect("written");
        }
        let link = sys.join("dev/block/254:1");
        std::os::unix::fs::symlink(disk.join("vda1"), link).expect("linked");
        let mount = mount_of(MOUNTINFO, Path::new("/")).expect("the root is there");
        let device = device_of(&mount, &sys).expect("a device");
        let expected = Device {
            name: "vda1".to_owned(),
            model: None,
            rotational: Some(true),
            write_cache: Some("write back".to_owned()),
            fua: Some(false),
            physical_sector: Some(512),
        };
        assert_eq!(device, expected);
    }
}
