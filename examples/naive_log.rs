//! The simulated disk on a program that knows nothing of this log: a naive one of its own.
//!
//! It appends a line to a file, syncs the file, and says that the line is safe. The simulator
//! halts it at every step, goes through every end of each halt, and looks for lines that were
//! said to be safe. It finds that a new file's name is not durable before its directory is
//! synced.
//!
//! `cargo run -p bulla --features sim --example naive_log`

use std::io;
use std::path::Path;

use bulla::io::sim::{ByPath, CrashKind, SimDisk};
use bulla::io::{Access, Io, read_full, write_full};

const FILE: &str = "/lines";
const LINES: usize = 3;

/// The program under test. All that it needs is that it does its I/O through [`Io`].
fn append(io: &dyn Io, line: &str, syncs_dir: bool) -> io::Result<()> {
    let file = match io.open(Path::new(FILE), Access::WRITE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            io.create(Path::new(FILE), false)?
        }
        opened => opened?,
    };
    write_full(file.as_ref(), line.as_bytes(), file.len()?)?;
    file.sync()?;
    if syncs_dir {
        io.sync_dir(Path::new("/"))?;
    }
    Ok(())
}

/// Every line that is there.
fn lines(io: &dyn Io) -> io::Result<String> {
    match io.open(Path::new(FILE), Access::READ) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        opened => {
            let file = opened?;
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            read_full(file.as_ref(), &mut bytes, 0)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}

/// Halts the program after `steps`; returns the machine as it is then, and how many lines were
/// said to be safe before.
fn halted(steps: u64, syncs_dir: bool) -> (SimDisk, usize) {
    let disk = SimDisk::new(1);
    let io = disk.process();
    // What is struck was done; that it was not is among the ends that a power loss has.
    disk.halt_after(steps, true);
    let mut safe = 0;
    while safe < LINES && append(io.as_ref(), &format!("line {safe}\n"), syncs_dir).is_ok() {
        safe += 1;
    }
    (disk, safe)
}

/// The first end of a halt in which a line is missing that was said to be safe; or how many
/// were looked at.
fn search(syncs_dir: bool) -> Result<usize, String> {
    let mut ends = 0;
    for steps in 0.. {
        let (disk, safe) = halted(steps, syncs_dir);
        if !disk.is_crashed() {
            return Ok(ends);
        }
        let open = disk.open_ends(CrashKind::PowerLoss);
        let count: usize = open.iter().product();
        for mut number in 0..count {
            let chosen = open.iter().map(|count| {
                let end = number % count;
                number /= count;
                end
            });
            let after = disk.end(2, CrashKind::PowerLoss, &chosen.collect::<Vec<_>>());
            let found = lines(after.process().as_ref()).map_err(|error| error.to_string())?;
            let missing = (0..safe).find(|line| !found.contains(&format!("line {line}\n")));
            if let Some(line) = missing {
                return Err(format!(
                    "power loss after {steps} steps: line {line} was safe, and is lost"
                ));
            }
            ends += 1;
        }
    }
    unreachable!("a program that ends has no further steps")
}

fn main() {
    println!("without a sync of the directory: {:?}", search(false));
    println!("with one: {:?}", search(true));
}

#[cfg(test)]
mod tests {
    use super::search;

    #[test]
    fn simulator_finds_the_sync_that_is_missing_and_nothing_else() {
        assert!(search(false).is_err_and(|found| found.contains("line 0 was safe")));
        assert!(search(true).is_ok_and(|ends| ends > 10));
    }
}
