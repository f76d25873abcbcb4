//! A real file system of its own: ext4 in a file, behind a loop device.
//!
//! It can be full, read-only, or cut: shut down without its journal being flushed, as far
//! as a power loss can be played without one. A cut drops what is only in the page cache
//! and what the file system has not committed. It takes back no write that the device
//! had completed: a device's own cache is the simulated disk's part. Needs root and loop
//! devices. Holds the `unsafe` of the system call that cuts.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::temp_dir;

/// `FS_IOC_SHUTDOWN` of `linux/fs.h`, `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// Tries to unmount a file system that is still in use, with `PAUSE` between them.
const UNMOUNTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What a cut leaves of what the file system had in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nothing: what was not committed to the journal is gone.
    Everything = 2,
    /// Its journal: names and lengths are kept, data in the page cache are not.
    Data = 1,
}

/// A file system in a file, mounted until it is dropped.
#[derive(Debug)]
pub struct Image {
    dir: TempDir,
    device: String,
    is_mounted: bool,
}

impl Image {
    /// Creates and mounts an image of `len` bytes.
    ///
    /// # Errors
    /// Why this machine can't: tests skip then.
    pub fn new(name: &str, len: u64) -> Result<Self, String> {
        let dir = temp_dir(name);
        let file = dir.path().join("image");
        File::create(&file)
            .and_then(|image| image.set_len(len))
            .and_then(|()| fs::create_dir(dir.path().join("root")))
            .map_err(|error| format!("no image: {error}"))?;
        let path = file.display().to_string();
        output("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &path])?;
        let device = output("losetup", &["--find", "--show", &path])?;
        let mut image = Self { dir, device, is_mounted: false };
        image.mount(false)?;
        Ok(image)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Mounts it.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn mount(&mut self, read_only: bool) -> Result<(), String> {
        let root = self.root().display().to_string();
        let access = if read_only { "ro" } else { "rw" };
        output("mount", &["-t", "ext4", "-o", access, &self.device, &root])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts it; a file that was just closed may keep it busy for a moment.
    ///
    /// # Errors
    /// What `umount` says in the end.
    pub fn unmount(&mut self) -> Result<(), String> {
        let root = self.root().display().to_string();
        let mut tries = 0;
        while let Err(error) = output("umount", &[&root]) {
            tries += 1;
            if tries == UNMOUNTS {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
        self.is_mounted = false;
        Ok(())
    }

    /// Unmounts it, and mounts what the device has of it.
    ///
    /// # Errors
    /// What `umount` or `mount` says.
    pub fn mount_again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount(false)
    }

    /// What cuts it, also from another thread.
    ///
    /// # Errors
    /// When it is not mounted.
    pub fn scissors(&self) -> io::Result<Scissors> {
        Ok(Scissors(File::open(self.root())?))
    }
}

/// An open file system to be cut; keeps it busy until it is dropped.
#[derive(Debug)]
pub struct Scissors(File);

impl Scissors {
    /// Shuts the file system down at once: from here on every operation on it fails, until
    /// it is unmounted and mounted again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut(self, cut: Cut) -> io::Result<()> {
        let how = cut as u32;
        // SAFETY: the kernel reads one `u32` through the pointer, which `how` is, alive until
        // the call returns; the file is open.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SHUTDOWN, &how) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = self.unmount();
        }
        let _ = output("losetup", &["--detach", &self.device]);
    }
}

/// Something that is mounted over a directory until it is dropped.
#[derive(Debug)]
pub struct Mount {
    root: PathBuf,
    /// The directory, if it was made for this.
    own_dir: Option<TempDir>,
    is_mounted: bool,
}

impl Mount {
    /// Mounts a file system in memory on a directory of its own.
    ///
    /// # Errors
    /// Why this machine can't: tests skip then.
    pub fn in_memory(name: &str, options: &str) -> Result<Self, String> {
        let dir = temp_dir(name);
        let mut mount = Self::in_memory_over(dir.path(), options)?;
        mount.own_dir = Some(dir);
        Ok(mount)
    }

    /// Mounts a file system in memory over a directory.
    ///
    /// # Errors
    /// Why this machine can't: tests skip then.
    pub fn in_memory_over(dir: &Path, options: &str) -> Result<Self, String> {
        Self::new(dir, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// Mounts a directory over another one.
    ///
    /// # Errors
    /// Why this machine can't: tests skip then.
    pub fn bind_over(dir: &Path, from: &Path) -> Result<Self, String> {
        Self::new(dir, &["--bind", &from.display().to_string()])
    }

    fn new(dir: &Path, arguments: &[&str]) -> Result<Self, String> {
        let path = dir.display().to_string();
        output("mount", &[arguments, &[&path]].concat())?;
        Ok(Self { root: dir.to_owned(), own_dir: None, is_mounted: true })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// What `umount` says.
    pub fn unmount(&mut self) -> Result<(), String> {
        output("umount", &[&self.root.display().to_string()])?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = output("umount", &["--lazy", &self.root.display().to_string()]);
        }
    }
}

/// What a command prints, or why it failed.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} fails: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
