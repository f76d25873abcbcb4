//! Leaves out every sync and every completion check, one at a time, and shows which
//! suite notices.
//!
//! `RUSTFLAGS="--cfg bulla_omit" cargo run --profile checked -p bulla-tests --bin omissions`
//! Exit status 1 when one is not noticed. With names of points as arguments only those are
//! left out, and nothing is run without an omission first.

use std::process::ExitCode;

#[cfg(not(bulla_omit))]
fn main() -> ExitCode {
    eprintln!("build with RUSTFLAGS=\"--cfg bulla_omit\": this build leaves nothing out");
    ExitCode::from(2)
}

#[cfg(bulla_omit)]
fn main() -> ExitCode {
    use bulla_tests::{omissions, suites};
    use bulla_wal::omit::{self, Point};

    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    omit::set(None);
    let names: Vec<String> = std::env::args().skip(1).collect();
    for suite in suites::ALL.iter().filter(|_| names.is_empty()) {
        if let Some(caught) = suite.catch() {
            println!("with nothing left out, {} fails: {caught}", suite.name);
            return ExitCode::FAILURE;
        }
    }
    let asked = |point: &&Point| names.is_empty() || names.contains(&format!("{point:?}"));
    for point in Point::ALL.iter().filter(asked) {
        if let Some(reason) = omissions::not_here(*point) {
            println!("{:<22} SKIPPED: {reason}", format!("{point:?}"));
            continue;
        }
        omit::set(Some(*point));
        let caught = suites::ALL.iter().find_map(|suite| Some((suite, suite.catch()?)));
        match caught {
            Some((suite, how)) => {
                println!("{:<22} caught by {}: {how}", format!("{point:?}"), suite.name)
            }
            None => {
                missed += 1;
                println!("{:<22} MISSED", format!("{point:?}"));
            }
        }
    }
    println!("{} points, {missed} missed", Point::ALL.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
