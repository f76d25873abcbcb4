//! Plants one bug at a time, and shows which suite catches it, and how fast.
//!
//! `RUSTFLAGS="--cfg bulla_planted" cargo run --profile checked -p bulla-tests --bin planted`
//! Exit status 1 when one is not caught. With `-- --third N` (0 to 2) it takes every third bug
//! only, and does not run the suites without a bug first. With `-- BUG` it runs the suites with
//! that bug, here.

use std::process::ExitCode;

#[cfg(not(bulla_planted))]
fn main() -> ExitCode {
    eprintln!("build with RUSTFLAGS=\"--cfg bulla_planted\": this build has no bugs on purpose");
    ExitCode::from(2)
}

#[cfg(bulla_planted)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => planted::all(None),
        ["--third", third] => match third.parse() {
            Ok(third @ 0..3) => planted::all(Some(third)),
            _ => {
                eprintln!("the third is 0, 1 or 2");
                ExitCode::from(2)
            }
        },
        [name] => planted::run_suites(name),
        _ => {
            eprintln!("planted [--third N | BUG]");
            ExitCode::from(2)
        }
    }
}

#[cfg(bulla_planted)]
mod planted {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, ExitCode, Stdio};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Instant;

    use bulla_tests::{omissions, suites};
    use bulla_wal::planted::{Bug, plant};

    /// What the suites are run with to see that they pass without a bug.
    const NONE: &str = "none";
    const BEGUN: &str = "begun ";
    const CAUGHT: &str = "caught ";

    /// Runs the suites with one bug until one catches it; tells on the way what it does.
    pub(super) fn run_suites(name: &str) -> ExitCode {
        let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        if bug.is_none() && name != NONE {
            eprintln!("no bug is called {name}");
            return ExitCode::from(2);
        }
        std::panic::set_hook(Box::new(|_| {}));
        plant(bug.copied());
        for (index, suite) in suites::ALL.iter().enumerate() {
            println!("{BEGUN}{index}");
            if let Some(how) = suite.catch() {
                println!("{CAUGHT}{how}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }

    /// Each bug, or every third, in a process of its own, as many at once as there are
    /// processors.
    pub(super) fn all(third: Option<usize>) -> ExitCode {
        let begun = Instant::now();
        let names: Vec<String> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
        let names = names.iter().map(String::as_str);
        let names: Vec<&str> = match third {
            None => [NONE].into_iter().chain(names).collect(),
            Some(third) => names.skip(third).step_by(3).collect(),
        };
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !is_right(name) {
                            wrong.lock().expect("no thread panics").push(*name);
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("the threads have ended");
        println!(
            "{} of {} bugs, wrong: {wrong:?}, {:.1?}",
            names.iter().filter(|name| **name != NONE).count(),
            Bug::ALL.len(),
            begun.elapsed()
        );
        if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Is it caught, or is all well without a bug?
    fn is_right(name: &str) -> bool {
        let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        if let Some(reason) = bug.and_then(|bug| omissions::bug_not_here(*bug)) {
            println!("{name:<26} SKIPPED: {reason}");
            return true;
        }
        let begun = Instant::now();
        let caught = watch(name);
        let took = begun.elapsed().as_secs_f64();
        println!(
            "{name:<26} {took:>6.1} s  {}",
            match (&caught, bug) {
                (Some(how), Some(_)) => how.clone(),
                (Some(how), None) => format!("WRONG, nothing is planted: {how}"),
                (None, Some(_)) => "MISSED".to_owned(),
                (None, None) => "all suites pass".to_owned(),
            }
        );
        caught.is_some() == bug.is_some()
    }

    /// Runs the suites in a process of their own; gives which one found what. One that hangs
    /// has found something, too.
    fn watch(name: &str) -> Option<String> {
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new(program)
            .arg(name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut suite = suites::ALL.first()?;
        let found = loop {
            match lines.recv_timeout(suite.patience) {
                Ok(line) => {
                    if let Some(how) = line.strip_prefix(CAUGHT) {
                        break Some(how.to_owned());
                    }
                    let index = line.strip_prefix(BEGUN).and_then(|index| index.parse().ok());
                    suite = index.and_then(|at: usize| suites::ALL.get(at)).unwrap_or(suite);
                }
                Err(RecvTimeoutError::Timeout) => break Some("it hangs".to_owned()),
                Err(RecvTimeoutError::Disconnected) => {
                    let died = child.wait().is_ok_and(|status| !status.success());
                    break died.then(|| "it dies".to_owned());
                }
            }
        };
        let _ = child.kill();
        let _ = child.wait();
        found.map(|how| format!("{}: {how}", suite.name))
    }
}
