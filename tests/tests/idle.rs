//! What a log costs that nobody uses: by the kernel's account of what this process has, so that no
//! other test may run in it. And programs that a log starts in: under valgrind, and one that gets
//! no thread.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bulla_engine::{EntityType, Store, StoreOptions, Token, TokenId};
use bulla_storage::io::Io;
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_tests::real_threads::PATIENCE;
use bulla_tests::temp_dir;
use bulla_wal::{Error, Level, Log, Options, PoisonCause};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Says in a child that it is one.
const CHILD: &str = "BULLA_IDLE_CHILD";
const MEMORY_PER_LOG: u64 = 256 * 1024;

/// Threads of logs in this process.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the kernel's account");
    // One may have ended meanwhile.
    let names = tasks.flatten().filter_map(|task| std::fs::read(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(b"bulla-")).count()
}

/// Pages that this process has: mapped, and in memory.
fn pages() -> [u64; 2] {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel's account");
    let mut pages = statm.split(' ').map(|pages| pages.parse().expect("a number"));
    std::array::from_fn(|_| pages.next().expect("two numbers"))
}

fn until_no_thread_is_left() {
    let start = Instant::now();
    while threads() > 0 {
        assert!(start.elapsed() < PATIENCE, "{} threads of idle logs", threads());
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn idle_logs_have_no_threads_and_little_memory() {
    const LOGS: u64 = 50;
    let page = rustix::param::page_size() as u64;
    let dir = temp_dir("idle");
    let [_, before] = pages();
    let open = |number: u64| {
        let options = Options::new().segment_len(256 * 1024);
        Log::create(dir.path().join(number.to_string()), &options).unwrap()
    };
    let logs: Vec<Log> = (0..LOGS).map(open).collect();
    let of_each = || {
        let [_, now] = pages();
        now.saturating_sub(before) * page / LOGS
    };
    assert_eq!(threads(), 0, "nobody has appended");
    assert!(of_each() < MEMORY_PER_LOG, "{} bytes for each log that is open", of_each());
    for _ in 0..2 {
        for (log, level) in logs.iter().zip(Level::ALL.into_iter().cycle()) {
            log.wait(log.append_with(1, b"entry", level).unwrap()).unwrap();
        }
        assert!(threads() > 0);
        until_no_thread_is_left();
        assert!(of_each() < MEMORY_PER_LOG, "{} bytes for each log that is idle", of_each());
        assert!(logs.iter().all(|log| log.durable() == log.end()), "what was left to the threads");
    }
    // One that was used for more.
    let payload = vec![1; 16 * 1024];
    for _ in 0..512 {
        let _ = logs[0].append_with(1, &payload, Level::Relaxed).unwrap();
    }
    until_no_thread_is_left();
    assert!(of_each() < MEMORY_PER_LOG, "{} bytes for each log after a burst", of_each());
    logs.iter().for_each(|log| log.close().unwrap());
}

/// Runs one test of this program in a child.
fn child(mut program: Command, name: &str) -> Output {
    program.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap()
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

#[test]
fn logs_and_stores_run_under_valgrind() {
    if std::env::var_os(CHILD).is_some() {
        use_a_log_and_a_store();
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        bulla_tests::skipped("valgrind is not installed");
        return;
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9"]).arg(std::env::current_exe().unwrap());
    assert_passed(&child(valgrind, "logs_and_stores_run_under_valgrind"));
}

fn use_a_log_and_a_store() {
    let dir = temp_dir("valgrind");
    let backends: [(&str, Arc<dyn Io>); 2] =
        [("std", Arc::new(StdIo::new())), ("uring", Arc::new(UringIo::new()))];
    for (name, io) in backends {
        let path = dir.path().join(name);
        let options = Options::new().segment_len(256 * 1024).io(io);
        for _ in 0..2 {
            let (log, _) = Log::open(&path, &options).unwrap();
            for level in Level::ALL {
                let receipt = log.append_with(1, b"entry", level).unwrap();
                assert!(log.wait_timeout(receipt, PATIENCE).unwrap());
            }
            log.sync().unwrap();
            log.close().unwrap();
        }
    }
    use_a_store(&dir.path().join("store")).unwrap();
}

fn use_a_store(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let id = TokenId::new(7, EntityType::Event, 0)?;
    for weight in [1.0, 2.0] {
        let store = Store::open(path, &StoreOptions::new())?;
        store.at(Level::Strict).put(&Token::builder(id).weight(weight).build()?)?;
        assert!(store.get(id)?.is_some_and(|token| token.weight() == weight));
        store.close()?;
    }
    Ok(())
}

/// Runs itself in a child that may not map what the stack of a thread takes.
#[test]
fn log_that_can_start_no_thread_is_poisoned_and_says_why() {
    if std::env::var_os(CHILD).is_some() {
        append_without_threads();
        return;
    }
    let program = Command::new(std::env::current_exe().unwrap());
    assert_passed(&child(program, "log_that_can_start_no_thread_is_poisoned_and_says_why"));
}

fn append_without_threads() {
    let dir = temp_dir("no-thread");
    let log = Log::create(dir.path().join("log"), &Options::new()).unwrap();
    let before = getrlimit(Resource::As);
    let mapped = pages()[0] * rustix::param::page_size() as u64;
    let limit = rustix::process::Rlimit { current: Some(mapped + (512 << 10)), ..before };
    setrlimit(Resource::As, limit).unwrap();
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let results = [log.wait(receipt), log.append(b"entry").map(drop), log.close()];
    setrlimit(Resource::As, before).unwrap();
    for result in results {
        let error = result.expect_err("no thread keeps the bounds of the log");
        let Error::Poisoned { cause, .. } = &error else { panic!("{error}") };
        assert!(matches!(**cause, PoisonCause::Thread(_)), "{cause}");
    }
    assert_eq!(threads(), 0);
}
