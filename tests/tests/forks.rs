//! A child of a fork that inherited a log or a store: it gets an error for everything, nothing it
//! does reaches the parent's files, and it can open logs of its own.
//!
//! A program of its own, with one test: a fork copies what other tests do at that moment.

use std::mem::ManuallyDrop;
use std::path::Path;

use bulla_engine::{Store, StoreOptions, Token, TokenId};
use bulla_recovery::Status;
use bulla_wal::{Error, Level, Log, Lsn, Method, Options, Receipt, Visibility};

/// A child that is not done by then hangs.
const SECONDS: u32 = 60;

fn options(method: Method) -> Options {
    Options::new().segment_len(1 << 20).ring_len(1 << 20).method(method)
}

/// Runs `child` in a child of this process; returns the exit code, or the signal as a negative number.
fn forked(child: impl FnOnce() -> u8) -> i32 {
    // SAFETY: the child runs what needs no thread of this process, and ends without its destructors.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: plain calls into the C library.
            unsafe { libc::alarm(SECONDS) };
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99);
            // SAFETY: as above.
            unsafe { libc::_exit(code.into()) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the status lives as long as the call.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -libc::WTERMSIG(status)
            }
        }
    }
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked))
}

/// Uses a log that was inherited; returns the number of the first use that was not refused.
fn use_inherited(log: &Log, receipt: Receipt) -> Option<usize> {
    let entry: [(u16, &[u8]); 1] = [(1, b"of the child")];
    let refused = [
        is_forked(log.append(b"of the child")),
        is_forked(log.append_buf(1, &b"of the child"[..], Level::Strict)),
        is_forked(log.append_batch(&entry, Level::Strict)),
        is_forked(log.try_append_batch(&entry, Level::Strict)),
        is_forked(log.wait_for_room()),
        is_forked(log.wait(receipt)),
        is_forked(log.wait_timeout(receipt, std::time::Duration::from_secs(1))),
        is_forked(log.is_ready(receipt)),
        is_forked(log.sync()),
        is_forked(log.persist_durable_mark(Lsn(0))),
        is_forked(log.purge(Lsn(1))),
        is_forked(log.reader(.., Visibility::Written)),
        is_forked(log.hold(Lsn(0))),
        is_forked(log.hold_named("child", Lsn(0), 1 << 20)),
        is_forked(log.holds()),
        is_forked(log.close()),
        log.cut() == log.end(),
    ];
    refused.iter().position(|refused| !refused)
}

/// Creates a log as any process can; returns whether it works.
fn has_a_log_of_its_own(dir: &Path) -> bool {
    let Ok(log) = Log::create(dir, &options(Method::Direct)) else { return false };
    let written = log.append(b"own").and_then(|receipt| log.wait(receipt));
    // A child of this child inherits that one.
    let refused = forked(|| u8::from(!is_forked(log.append(b"of the grandchild"))));
    written.is_ok() && refused == 0 && log.append(b"still").is_ok() && log.close().is_ok()
}

#[test]
fn child_of_a_fork_gets_an_error_and_the_parents_log_is_unharmed() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    for method in [Method::Direct, Method::Buffered] {
        let dir = temp.path().join(format!("log-{method}"));
        let (log, _) = Log::open(&dir, &options(method)).expect("created");
        let strict = log.append_with(1, b"strict", Level::Strict).expect("appended");
        log.wait(strict).expect("durable");
        // Threads are at work now, and something is only in the ring.
        let receipts: Vec<_> = (0..100)
            .map(|_| log.append_with(1, b"relaxed", Level::Relaxed).expect("room"))
            .collect();
        let last = *receipts.last().expect("some");
        let mut log = ManuallyDrop::new(log);
        let own = temp.path().join(format!("own-{method}"));
        let code = forked(|| {
            if let Some(first) = use_inherited(&log, last) {
                return 10 + u8::try_from(first).expect("few");
            }
            // SAFETY: it is not used any more in this process.
            unsafe { ManuallyDrop::drop(&mut log) };
            u8::from(!has_a_log_of_its_own(&own))
        });
        assert_eq!(code, 0, "{method}");
        let log = ManuallyDrop::into_inner(log);
        log.wait(log.append_with(1, b"after", Level::Strict).expect("appended")).expect("durable");
        log.close().expect("closed");
        let (log, report) = Log::open(&dir, &options(method)).expect("opened");
        assert_eq!((report.entries, &report.status), (102, &Status::Clean), "{method}");
        let mut reader = log.reader(.., Visibility::Durable).expect("a reader");
        while let Some(entry) = reader.next().expect("readable") {
            assert_ne!(entry.payload, b"of the child");
        }
    }

    let dir = temp.path().join("store");
    let options = StoreOptions::new().log(options(Method::Direct));
    let store = Store::open(&dir, &options).expect("created");
    let token = |id: u32| Token::builder(TokenId(id)).build().expect("valid");
    (1..=200).for_each(|id| store.at(Level::Relaxed).put(&token(id)).expect("put"));
    let mut store = ManuallyDrop::new(store);
    let code = forked(|| {
        let is_forked = |result: Result<(), bulla_engine::Error>| {
            matches!(result, Err(bulla_engine::Error::Log(Error::Forked)))
        };
        let refused = [
            is_forked(store.put(&token(1))),
            is_forked(store.delete(TokenId(1)).map(drop)),
            is_forked(store.transact(|t| t.put(&token(3)))),
            is_forked(store.checkpoint().map(drop)),
            is_forked(store.snapshot().map(drop)),
            is_forked(store.sync().map(drop)),
            is_forked(store.shut_down()),
            is_forked(store.close()),
        ];
        if let Some(first) = refused.iter().position(|refused| !refused) {
            return 10 + u8::try_from(first).expect("few");
        }
        // SAFETY: it is not used any more in this process.
        unsafe { ManuallyDrop::drop(&mut store) };
        0
    });
    assert_eq!(code, 0, "the store");
    let store = ManuallyDrop::into_inner(store);
    store.put(&token(201)).expect("put");
    store.checkpoint().expect("taken");
    store.close().expect("closed");
    let store = Store::open(&dir, &options).expect("opened");
    assert_eq!(store.len(), 201);
}
