//! Commands that read a store while its program checkpoints and purges all the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bulla_engine::{CheckpointError, Error, Store, StoreOptions, Token, TokenId};
use bulla_wal::{Level, Options};

use crate::common::{Dir, code, run, stderr, stdout};

/// How often each command is run.
const RUNS: u32 = 15;

/// Each command that reads only. Those that print as they read may say that what comes next was purged.
const COMMANDS: [(&str, bool); 10] = [
    ("stat DIR", false),
    ("stat DIR --kinds", false),
    ("verify DIR", false),
    ("segments DIR", false),
    ("replay DIR --dry-run", false),
    ("holds DIR", false),
    ("get DIR 1", false),
    ("scan DIR --limit 3", false),
    ("dump DIR --limit 5", true),
    ("dump DIR --format jsonl", true),
];

#[test]
fn store_that_purges_all_the_time_is_never_reported_as_damaged() {
    let dir = Dir::new("live");
    let path = dir.join("store");
    let log = Options::new().segment_len(16 * 1024).ring_len(16 * 1024);
    let options = StoreOptions::new().log(log);
    let store: Store = Store::open(&path, &options).expect("opens");
    let token = |id| Token::builder(TokenId(id)).build().expect("in range");
    let (ended, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for id in 1..3_000 {
                    store.at(Level::Relaxed).put(&token(id)).expect("put");
                }
                match store.checkpoint() {
                    Ok(_) | Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
                    Err(error) => panic!("{error:?}"),
                }
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        while taken.load(Ordering::Relaxed) < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let check = || {
            for _ in 0..RUNS {
                for (line, prints_as_it_reads) in COMMANDS {
                    let output = run(line, &path);
                    let is_honest = match code(&output) {
                        // The end of a log that is being written may look torn.
                        0 => true,
                        3 => line.starts_with("verify") || line.starts_with("replay"),
                        1 => prints_as_it_reads && stderr(&output).contains("it was purged"),
                        _ => false,
                    };
                    if !is_honest {
                        return Err(format!("{line}: {}{}", stdout(&output), stderr(&output)));
                    }
                }
            }
            Ok(())
        };
        let checked = check();
        ended.store(true, Ordering::Relaxed);
        checked.expect("no false report");
    });
    assert!(taken.into_inner() > u64::from(RUNS), "too few purges to meet a command");
}
