//! Backs up a store again and again while another process writes it under full load, with
//! checkpoints and purges, and restores and checks each backup.
//!
//! `cargo run --release -p bulla-tests --bin backups -- DIR [BACKUPS]` (default: 100; `DIR` must not
//! exist)
//!
//! With `incremental` it backs up a plain log of so many MiB, lets it grow, and backs up what is new:
//! `cargo run --release -p bulla-tests --bin backups -- incremental DIR [MIB]` (default: 1024)

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bulla_tests::live_backups;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match &args[..] {
        [first, dir] if first == "child" => live_backups::child(Path::new(dir)),
        [first, dir, rest @ ..] if first == "incremental" => incremental(Path::new(dir), rest),
        [dir, rest @ ..] => campaign(&PathBuf::from(dir), rest),
        [] => Err("where? Give a directory that does not exist yet".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn number(args: &[String], usual: u64) -> Result<u64, String> {
    args.first().map_or(Ok(usual), |text| {
        text.parse().map_err(|error: std::num::ParseIntError| format!("{text}: {error}"))
    })
}

fn incremental(dir: &Path, args: &[String]) -> Result<(), String> {
    const MIB: u64 = 1024 * 1024;
    let mib = number(args, 1024)?;
    std::fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for found in live_backups::incremental(dir, mib * MIB, &[MIB, 16 * MIB])? {
        println!("{found}");
    }
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}

fn campaign(dir: &Path, args: &[String]) -> Result<(), String> {
    let backups = number(args, 100)?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    std::fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let child = || {
        let mut command = Command::new(&program);
        command.arg("child");
        command
    };
    let found = live_backups::run(dir, backups, child)?;
    println!("{} of {backups} backups hold what was acknowledged: {found:?}", found.backups);
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}
