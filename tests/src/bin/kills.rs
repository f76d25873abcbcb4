//! Kills a store by SIGKILL, a number of times each in a checkpoint, in a purge and while it
//! reclaims, and checks after each kill what it had acknowledged.
//!
//! `cargo run --release -p bulla-tests --bin kills -- DIR [KILLS] [SEED]` (default: 100 kills
//! each, seed 1; `DIR` must not exist)

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use bulla_tests::kills::{self, During};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((first, rest)) if first == "child" => kills::child(rest),
        Some((dir, rest)) => drill(&PathBuf::from(dir), rest),
        None => Err("where? Give a directory that does not exist yet".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn drill(dir: &std::path::Path, args: &[String]) -> Result<(), String> {
    let number = |at: usize, default: u64| {
        args.get(at).map_or(Ok(default), |text| text.parse().map_err(|e| format!("{text}: {e}")))
    };
    let (kills, seed) = (number(0, 100)?, number(1, 1)?);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    std::fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for during in During::ALL {
        let child = || {
            let mut command = Command::new(&program);
            command.arg("child");
            command
        };
        let killed = kills::run(&dir.join(during.name()), during, kills, seed, child)?;
        println!("{:<10} {killed:?}", during.name());
    }
    std::fs::remove_dir_all(dir).map_err(|error| error.to_string())
}
