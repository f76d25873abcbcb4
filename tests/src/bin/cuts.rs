//! Cuts of a real file system, on demand: needs root and loop devices.
//!
//! `cargo run --release -p bulla-tests --bin cuts -- --cuts 1000`, of a store with `--store`

use std::process::ExitCode;
use std::time::Instant;

use bulla_tests::cuts;
use bulla_tests::image::Image;

const USAGE: &str = "usage: cuts [--store] [--cuts COUNT] [--seed SEED]";
const IMAGE_LEN: u64 = 64 * 1024 * 1024;

fn main() -> ExitCode {
    let (mut count, mut seed, mut store) = (100, 1, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        let taken = match argument.as_str() {
            "--store" => {
                store = true;
                Some(())
            }
            "--cuts" => number().map(|value| count = value),
            "--seed" => number().map(|value| seed = value),
            _ => None,
        };
        if taken.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    let mut image = match Image::new("cuts", IMAGE_LEN) {
        Ok(image) => image,
        Err(reason) => {
            eprintln!("there is no file system to cut: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let begun = Instant::now();
    let run = if store {
        cuts::store::run(&mut image, seed, count, false).map(|tally| format!("{tally:#?}"))
    } else {
        cuts::run(&mut image, seed, count, false).map(|tally| format!("{tally:#?}"))
    };
    match run {
        Ok(tally) => {
            println!("{tally}\nseed {seed}, violations 0, {:.1?}", begun.elapsed());
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}
