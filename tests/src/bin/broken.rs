//! Breaks the code on purpose, one defect at a time (each sync and check left out, each bug
//! planted), and shows which suite notices, and how fast. First all suites must pass unbroken.
//!
//! `RUSTFLAGS="--cfg bulla_broken" cargo run --profile checked -p bulla-tests --bin broken`
//! Exit status 1 when a defect is not noticed, or nothing is broken and a suite fails. With names
//! of defects only these.

use std::process::ExitCode;

#[cfg(not(bulla_broken))]
fn main() -> ExitCode {
    eprintln!("build with RUSTFLAGS=\"--cfg bulla_broken\": nothing can be broken in this build");
    ExitCode::from(2)
}

#[cfg(bulla_broken)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [broken::IN_THIS_PROCESS, name] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return broken::run_suites(name);
    }
    broken::each(&arguments)
}

#[cfg(bulla_broken)]
mod broken {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, ExitCode, Stdio};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::{Duration, Instant};

    use bulla_tests::defects::Defect;
    use bulla_tests::suites;

    /// How this program starts itself: followed by a name.
    pub(super) const IN_THIS_PROCESS: &str = "--in-this-process";
    /// What the suites are run with to see that they pass unbroken.
    const NONE: &str = "none";
    /// A suite that takes longer hangs.
    const PATIENCE: Duration = Duration::from_secs(1_200);
    /// The same where that is what is looked for.
    const PATIENCE_FOR_HANGS: Duration = Duration::from_secs(60);
    const BEGUN: &str = "begun ";
    const CAUGHT: &str = "caught ";

    fn named(name: &str) -> Option<Defect> {
        Defect::all().find(|defect| defect.name() == name)
    }

    /// Runs the suites with one defect until one catches it; tells on the way what it does.
    pub(super) fn run_suites(name: &str) -> ExitCode {
        std::panic::set_hook(Box::new(|_| {}));
        Defect::apply(named(name));
        for (index, suite) in suites::ALL.iter().enumerate() {
            println!("{BEGUN}{index}");
            if let Some(how) = suite.catch() {
                println!("{CAUGHT}{how}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }

    /// Each defect in a process of its own, as many at once as there are processors.
    pub(super) fn each(asked: &[String]) -> ExitCode {
        let begun = Instant::now();
        if let Some(unknown) = asked.iter().find(|name| named(name).is_none()) {
            eprintln!("{unknown} is no defect; all of them: {}", names().join(" "));
            return ExitCode::from(2);
        }
        let all = [NONE.to_owned()].into_iter().chain(names());
        let names = if asked.is_empty() { all.collect() } else { asked.to_vec() };
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !is_right(name) {
                            wrong.lock().expect("no thread panics").push(name);
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("the threads have ended");
        let defects = names.iter().filter(|name| *name != NONE).count();
        println!("{defects} defects, wrong: {wrong:?}, {:.1?}", begun.elapsed());
        if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn names() -> Vec<String> {
        Defect::all().map(Defect::name).collect()
    }

    /// Is it caught, or is all well unbroken?
    fn is_right(name: &str) -> bool {
        let defect = named(name);
        if let Some(reason) = defect.and_then(Defect::not_here) {
            println!("{name:<26} SKIPPED: {reason}");
            return true;
        }
        let begun = Instant::now();
        let may_hang = defect.is_some_and(Defect::hangs);
        let caught = watch(name, if may_hang { PATIENCE_FOR_HANGS } else { PATIENCE });
        let took = begun.elapsed().as_secs_f64();
        println!(
            "{name:<26} {took:>6.1} s  {}",
            match (&caught, defect) {
                (Some(how), Some(_)) => how.clone(),
                (Some(how), None) => format!("WRONG, nothing is broken: {how}"),
                (None, Some(_)) => "MISSED".to_owned(),
                (None, None) => "all suites pass".to_owned(),
            }
        );
        caught.is_some() == defect.is_some()
    }

    /// Runs the suites in a process of their own; returns which one found what. One that hangs
    /// has found something, too.
    fn watch(name: &str, patience: Duration) -> Option<String> {
        let program = std::env::current_exe().expect("the path of this program");
        let mut child = Command::new(program)
            .args([IN_THIS_PROCESS, name])
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
            match lines.recv_timeout(patience) {
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
