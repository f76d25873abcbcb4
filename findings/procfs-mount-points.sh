#!/usr/bin/env bash
# Guess:   `MountInfo::mount_point`, a `PathBuf`, is the path of the mount point.
# Seen:    procfs 0.18.0: it is the text of the kernel's line. There spaces, tabs, newlines and
#          backslashes are three octal digits, so that the path of `/mnt/a b` has no file.
# Matters: to a tool that looks for the mount of a directory by its path: on such a disk it
#          finds the mount above, and judges the wrong device.
# Needs:   cargo. Ends with 1 when this has changed.
#
# Output:
#   mount_point of "/mnt/a b": "/mnt/a\\040b"
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
procfs = { version = "=0.18.0", default-features = false }
TOML
cat >src/main.rs <<'RUST'
use procfs::process::MountInfo;

fn main() {
    let line = r"40 22 8:17 / /mnt/a\040b rw,relatime shared:5 - ext4 /dev/sdb1 rw";
    let mount = MountInfo::from_line(line).unwrap();
    println!("mount_point of \"/mnt/a b\": {:?}", mount.mount_point);
    std::process::exit(i32::from(mount.mount_point.to_str() != Some(r"/mnt/a\040b")));
}
RUST
cargo build --quiet
target/debug/finding || { echo "this has changed"; exit 1; }
