//! What an append and a commit cost, in counts that don't depend on the machine's speed.
//!
//! The allocator of this test binary counts; system calls are counted by the kernel: a
//! thread in strict seccomp mode is killed at the first one.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla_recovery::{Inspection, Range};
use bulla_storage::io::sim::{ByPath, SimDisk};
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_storage::io::{File, Io};
use bulla_tests::counting::{self, Counting};
use bulla_tests::instructions::Instructions;
use bulla_tests::layer::{Layer, Layered};
use bulla_tests::wrap::WrapIo;
use bulla_tests::{seccomp, temp_dir};
use bulla_wal::{Entry, Level, Log, Method, Options, Position, Visibility};

const METHODS: [Method; 2] = [Method::Direct, Method::Buffered];

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = counting::allocations();
    run();
    counting::allocations() - before
}

#[test]
fn append_allocates_nothing() {
    let dir = temp_dir("allocations");
    let log = Log::create(dir.path().join("log"), &Options::new()).unwrap();
    for level in Level::ALL {
        let _ = log.append_with(1, &[1; 64], level).unwrap();
        // Below 4 MiB: no frame has to wait for a segment, none for the ring.
        let count = allocations(|| {
            for _ in 0..10_000 {
                let _ = log.append_with(1, &[1; 64], level).unwrap();
            }
        });
        assert_eq!(count, 0, "{level}");
    }
}

#[test]
fn owned_entries_cost_no_allocation_of_their_own_and_no_copy() {
    const ENTRIES: u64 = 100_000;
    for len in [64, 1024] {
        let dir = temp_dir("owned");
        let log = Log::create(dir.path().join("log"), &Options::new()).unwrap();
        for number in 0..ENTRIES {
            let _ = log.append_with(1, &vec![number as u8; len], Level::Relaxed).unwrap();
        }
        log.sync().unwrap();
        let mut reader = log.reader(Position::Start, Visibility::Durable).unwrap();
        // Its memory is there from the start.
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Entry>(1024);
        let in_place = std::thread::scope(|scope| {
            let consumer = scope.spawn(move || {
                let (mut in_place, mut before) = (0, None);
                for (number, entry) in receiver.iter().enumerate() {
                    assert_eq!(entry.payload, vec![number as u8; len]);
                    let place = (entry.payload.as_ptr() as u64).wrapping_sub(entry.lsn.0);
                    in_place += u64::from(before.replace(place) == Some(place));
                }
                in_place
            });
            let count = allocations(|| {
                for entry in reader.entries() {
                    sender.send(entry.unwrap()).unwrap();
                }
            });
            drop(sender);
            assert!(count > 0, "is this measuring anything?");
            assert!(count <= ENTRIES / 100, "{count} allocations for entries of {len} bytes");
            consumer.join().unwrap()
        });
        // In one buffer entries are as far from one another as in the log: where they were read.
        assert!(in_place >= ENTRIES * 98 / 100, "{in_place} entries of {len} bytes in place");
    }
}

#[test]
fn append_takes_few_instructions() {
    const APPENDS: u64 = 10_000;
    // Twice what it took with the checks of a test build, by valgrind.
    const MOST: u64 = 850;
    let instructions = match Instructions::count() {
        Ok(instructions) => instructions,
        Err(error) => {
            bulla_tests::skipped(format_args!("instructions can't be counted here: {error}"));
            return;
        }
    };
    let dir = temp_dir("instructions");
    let log = Log::create(dir.path().join("log"), &Options::new()).unwrap();
    let before = instructions.so_far().unwrap();
    for _ in 0..APPENDS {
        let _ = log.append_with(1, &[1; 64], Level::Relaxed).unwrap();
    }
    let count = (instructions.so_far().unwrap() - before) / APPENDS;
    assert!((1..=MOST).contains(&count), "{count} instructions");
}

#[test]
fn waiting_alone_allocates_nothing() {
    let dir = temp_dir("wait-allocations");
    // Stays within the opening segment: making spares is not what is counted.
    let log = Log::create(dir.path().join("log"), &Options::new()).unwrap();
    let commit = || {
        let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    };
    (0..50).for_each(|_| commit());
    let count = allocations(|| (0..200).for_each(|_| commit()));
    assert_eq!(count, 0, "200 commits");
}

#[test]
fn lone_strict_writer_syncs_exactly_once_per_commit() {
    let backends: [fn() -> Arc<dyn Io>; 2] =
        [|| Arc::new(StdIo::new()), || Arc::new(UringIo::new())];
    for (backend, method) in backends.iter().flat_map(|io| METHODS.map(|method| (io, method))) {
        let dir = temp_dir("lone");
        let options = Options::new()
            .io(backend())
            .method(method)
            .idle_mark(std::time::Duration::from_secs(3600));
        let log = Log::create(dir.path().join("log"), &options).unwrap();
        let before = log.stats();
        for _ in 0..300 {
            let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
            log.wait(receipt).unwrap();
        }
        let after = log.stats();
        assert_eq!(after.durable_operations() - before.durable_operations(), 300, "{method:?}");
        assert_eq!(after.writes - before.writes, 300, "{method:?}");
        if let Some(reason) = after.fallback {
            bulla_tests::skipped(format_args!(
                "counted {} and {} instead: {reason}",
                after.backend, after.method
            ));
        }
    }
}

/// Every backend, and the one that puts all writes into the ring. Without `io_uring` two are
/// `std` under another name, and a line says so.
fn backends() -> Vec<Arc<dyn Io>> {
    if let Some(reason) = UringIo::refusal() {
        bulla_tests::skipped(format_args!("io_uring: {reason}"));
        return vec![Arc::new(StdIo::new())];
    }
    vec![Arc::new(StdIo::new()), Arc::new(UringIo::new()), Arc::new(UringIo::eager())]
}

/// A log that does nothing by itself.
fn still_log(dir: &Path, io: Arc<dyn Io>, method: Method) -> Log {
    let options = Options::new().io(io).method(method).segment_len(8 << 20).manual();
    let log = Log::create(dir, &options.idle_mark(Duration::from_secs(3600))).unwrap();
    // The spare segment is made now.
    five_commits(&log, 1, 64);
    log
}

/// Bytes of a frame: its header, each entry with header and padding, whole sectors.
fn frame_len(entries: u64, payload: u64) -> u64 {
    (64 + entries * (8 + payload.next_multiple_of(8))).next_multiple_of(4096)
}

/// Writes, syncs and bytes of five commits of `entries` each.
fn five_commits(log: &Log, entries: u64, payload: u64) -> (u64, u64, u64) {
    let payload = vec![1; payload as usize];
    let before = log.stats();
    for _ in 0..5 {
        let append = || log.append_with(1, &payload, Level::Strict).unwrap();
        for _ in 1..entries {
            let _ = append();
        }
        log.wait(append()).unwrap();
    }
    let after = log.stats();
    assert_eq!(after.rotations, 0, "all is in the first segment");
    let durable = after.durable_operations() - before.durable_operations();
    (after.writes - before.writes, durable, after.written_bytes - before.written_bytes)
}

const GROUPS: [u64; 4] = [1, 8, 32, 128];

#[test]
fn commit_is_one_write_of_what_the_format_takes_however_many_share_it() {
    for (io, method) in backends().iter().flat_map(|io| METHODS.map(|method| (io, method))) {
        let dir = temp_dir("bytes");
        let log = still_log(&dir.path().join("log"), Arc::clone(io), method);
        for (entries, payload) in GROUPS.into_iter().flat_map(|group| [(group, 64), (group, 1024)])
        {
            let expected = (5, 5, 5 * frame_len(entries, payload));
            let found = five_commits(&log, entries, payload);
            assert_eq!(found, expected, "{entries} of {payload}: {} {method:?}", io.name());
        }
    }
}

#[test]
fn disk_is_given_no_byte_that_the_log_does_not_count() {
    let disk = SimDisk::new(1);
    let log = still_log(Path::new("/log"), disk.process(), Method::Direct);
    for (entries, payload) in GROUPS.into_iter().flat_map(|group| [(group, 64), (group, 1024)]) {
        let before = disk.counts();
        five_commits(&log, entries, payload);
        let after = disk.counts();
        let bytes = after.written_bytes - before.written_bytes;
        assert_eq!(bytes, 5 * frame_len(entries, payload), "{entries} of {payload}");
        assert_eq!(after.dsync_writes - before.dsync_writes, 5);
        let others = (after.writes - before.writes, after.syncs - before.syncs);
        assert_eq!((others, after.reads - before.reads), ((0, 0), 0));
    }
}

#[test]
fn writers_side_by_side_allocate_nothing_in_an_append_and_next_to_nothing_in_a_wait() {
    for (io, writers) in backends().iter().flat_map(|io| [1, 8, 32].map(|many| (io, many))) {
        let dir = temp_dir("writers");
        let options = Options::new().io(Arc::clone(io)).idle_mark(Duration::from_secs(3600));
        let log = Log::create(dir.path().join("log"), &options).unwrap();
        let (in_appends, in_waits) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    for commit in 0..60 {
                        let mut receipt = None;
                        let append = || Some(log.append_with(1, &[1; 64], Level::Strict).unwrap());
                        let appending = allocations(|| receipt = append());
                        let waiting = allocations(|| log.wait(receipt.unwrap()).unwrap());
                        // Lists grow once, to what this number of writers needs.
                        if commit >= 20 {
                            in_appends.fetch_add(appending, Ordering::Relaxed);
                            in_waits.fetch_add(waiting, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let counts = (in_appends.into_inner(), in_waits.into_inner());
        assert_eq!(counts.0, 0, "{writers} on {}", io.name());
        assert!(counts.1 <= writers * 40 / 20, "{counts:?}: {writers} on {}", io.name());
    }
}

/// A file that notes which memory is written to it.
#[derive(Debug)]
struct Noting(Arc<dyn File>, Arc<Mutex<Vec<usize>>>);

impl Layer for Noting {
    fn file(&self) -> &dyn File {
        &*self.0
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.1.lock().unwrap().push(pieces[0].as_ptr().addr());
        self.0.write_pieces_at(pieces, offset, dsync)
    }
}

#[test]
fn entry_is_copied_once_and_written_from_there() {
    const RING: usize = 64 * 1024;
    let dir = temp_dir("copies");
    let (io, knobs) = WrapIo::new(StdIo::new());
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    knobs.replace.by(Box::new(move |file| Arc::new(Layered(Noting(file, Arc::clone(&notes))))));
    let options = Options::new().io(io).ring_len(RING as u64).manual();
    let log = Log::create(dir.path().join("log"), &options).unwrap();
    for _ in 0..50 {
        let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    // Frame after frame lies where the ring goes on: what is written is the ring itself, into
    // which the append has copied.
    let noted = noted.lock().unwrap();
    assert!(noted.len() >= 50);
    let step = |pair: &[usize]| (pair[1] + RING - pair[0]) % RING;
    assert!(noted.windows(2).all(|pair| step(pair) == 4096), "{noted:x?}");
}

#[test]
fn many_strict_writers_share_syncs() {
    let dir = temp_dir("many");
    let (io, knobs) = WrapIo::new(StdIo::new());
    let log = Log::create(dir.path().join("log"), &Options::new().io(io)).unwrap();
    // As slow as a slow disk, so that grouping does not depend on this machine's.
    knobs.delay_us.store(2_000, Ordering::Relaxed);
    let before = log.stats();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
                    log.wait(receipt).unwrap();
                }
            });
        }
    });
    let after = log.stats();
    let syncs = after.durable_operations() - before.durable_operations();
    assert!(syncs * 10 < 32 * 30, "{syncs} syncs for {} commits", 32 * 30);
}

/// Bytes that reach the disk, per byte that the log writes to its segments.
fn write_amplification(level: Level) -> f64 {
    let disk = SimDisk::new(1);
    let options = Options::new().io(disk.process()).segment_len(1 << 20).ring_len(1 << 20).manual();
    let log = Log::create(Path::new("/log"), &options).unwrap();
    let append_8_mib = || {
        for _ in 0..128 {
            let receipt = log.append_with(1, &[1; 60_000], level).unwrap();
            log.wait(receipt).unwrap();
        }
        log.sync().unwrap();
        (disk.counts().written_bytes as f64, log.stats().written_bytes as f64)
    };
    let (before, after) = (append_8_mib(), append_8_mib());
    (after.0 - before.0) / (after.1 - before.1)
}

#[test]
fn zeros_are_written_ahead_while_commits_are_small_and_only_then() {
    let (small, large) = (write_amplification(Level::Strict), write_amplification(Level::Relaxed));
    assert!((1.9..2.2).contains(&small), "{small}");
    assert!((1.0..1.2).contains(&large), "{large}");
}

/// Runs itself in children, in which one thread may make just the calls of a commit.
#[test]
fn lone_commit_makes_no_other_system_call_than_its_write_and_sync() {
    const CHILD: &str = "BULLA_COUNTS_COMMIT_CHILD";
    const WAYS: [&str; 3] = ["direct", "buffered", "ring"];
    if let Ok(way) = std::env::var(CHILD) {
        commit_under_seccomp(&way);
    }
    for way in WAYS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lone_commit_makes_no_other_system_call_than_its_write_and_sync"])
            .args(["--nocapture"])
            .env(CHILD, way)
            .spawn()
            .unwrap();
        let status = child.wait().unwrap();
        match status.code() {
            Some(77) => bulla_tests::skipped(format_args!(
                "{way}: this machine refuses seccomp or io_uring"
            )),
            _ => assert!(status.success(), "{way}: {status}"),
        }
    }
}

fn commit_under_seccomp(way: &str) -> ! {
    let (io, method, calls): (Arc<dyn Io>, _, &[_]) = match way {
        "direct" => (Arc::new(StdIo::new()), Method::Direct, &[libc::SYS_pwritev2]),
        "buffered" => {
            let calls = &[libc::SYS_pwritev2, libc::SYS_fdatasync];
            (Arc::new(StdIo::new()), Method::Buffered, calls)
        }
        _ => (Arc::new(UringIo::eager()), Method::Direct, &[libc::SYS_io_uring_enter]),
    };
    if way == "ring" && UringIo::refusal().is_some() {
        std::process::exit(77);
    }
    let dir = temp_dir("seccomp-commit");
    let log = still_log(&dir.path().join("log"), io, method);
    let before = log.stats();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let calls: Vec<_> = calls.iter().copied().chain([libc::SYS_write]).collect();
            if seccomp::allow_only(&calls).is_err() {
                std::process::exit(77);
            }
            for _ in 0..100 {
                let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
                log.wait(receipt).unwrap();
            }
            let _ = writer.write_all(&[1]);
            // Leaving the thread would take system calls: the process ends it.
            loop {
                std::hint::spin_loop();
            }
        });
        let read = reader.read_exact(&mut [0]);
        let after = log.stats();
        let _ = std::fs::remove_dir_all(dir.path());
        // Each write and each sync is one call.
        let once = (after.writes - before.writes, after.syncs - before.syncs)
            == (100, if after.method == "buffered" { 100 } else { 0 });
        std::process::exit(if read.is_ok() && once { 0 } else { 1 })
    })
}

/// Runs itself in a child, in which one thread may do nothing but write to a pipe.
#[test]
fn relaxed_append_makes_no_system_call() {
    const CHILD: &str = "BULLA_COUNTS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        append_under_seccomp();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relaxed_append_makes_no_system_call", "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    if status.code() == Some(77) {
        bulla_tests::skipped("this machine refuses seccomp");
        return;
    }
    assert!(status.success(), "the appending thread made a system call: {status}");
}

fn append_under_seccomp() -> ! {
    let dir = temp_dir("seccomp");
    // No other thread: a contended lock would be a system call, and is not what this is
    // about.
    let log = Log::create(dir.path().join("log"), &Options::new().manual()).unwrap();
    let _ = log.append_with(1, &[1; 64], Level::Relaxed).unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let strict = rustix::thread::SecureComputingMode::Strict;
            if rustix::thread::set_secure_computing_mode(strict).is_err() {
                std::process::exit(77);
            }
            for _ in 0..10_000 {
                if log.append_with(1, &[1; 64], Level::Relaxed).is_err() {
                    break;
                }
            }
            let appended = u8::from(log.end().0 > 10_000 * 64);
            let _ = writer.write_all(&[appended]);
            // Leaving the thread would take system calls: the process ends it.
            loop {
                std::hint::spin_loop();
            }
        });
        let mut appended = [0];
        let read = reader.read_exact(&mut appended);
        let _ = std::fs::remove_dir_all(dir.path());
        std::process::exit(if read.is_ok() && appended == [1] { 0 } else { 1 })
    })
}

/// Bytes that an open reads of a log whose segments are mostly zeros, and bytes of its files.
fn open_after(end: impl FnOnce(Log, &SimDisk)) -> (u64, u64) {
    let (disk, dir) = (SimDisk::new(5), Path::new("/log"));
    let options = Options::new().segment_len(32 << 20).ring_len(1 << 20).manual();
    let log = Log::create(dir, &options.clone().io(disk.process())).unwrap();
    log.wait(log.append_with(1, &[7; 64], Level::Strict).unwrap()).unwrap();
    end(log, &disk);
    let io = disk.process();
    let files: u64 = io.list_dir(dir).unwrap().iter().map(|entry| entry.len).sum();
    let before = disk.counts().read_bytes;
    drop(bulla_recovery::open(dir, &options.io(io)).unwrap());
    (disk.counts().read_bytes - before, files)
}

#[test]
fn open_reads_a_spare_once_after_a_kill_and_no_zeros_after_a_close() {
    // CONTROL, headers and the last frames are looked at several times, the latter with what
    // a window holds.
    const LITTLE: u64 = 8 << 20;
    let (read, files) = open_after(|log, disk| {
        disk.kill();
        drop(log);
    });
    assert!(files > 32 << 20, "a segment and its spare");
    assert!(read <= files + LITTLE, "{read} bytes of {files}");
    let (read, files) = open_after(|log, _| log.close().unwrap());
    assert!(files < LITTLE / 64 && read < LITTLE / 64, "{read} bytes of {files}");
}

#[test]
fn look_and_replay_in_one_pass_read_each_byte_of_a_closed_log_once() {
    // CONTROL, and headers of segments and of frames.
    const LITTLE: u64 = 2 << 20;
    let (disk, dir) = (SimDisk::new(5), Path::new("/log"));
    let options = Options::new().segment_len(16 << 20).ring_len(8 << 20).manual();
    let log = Log::create(dir, &options.clone().io(disk.process())).unwrap();
    for _ in 0..100 {
        let _ = log.append_with(1, &[7; 100_000], Level::Relaxed).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    let io = disk.process();
    let files: u64 = io.list_dir(dir).unwrap().iter().map(|entry| entry.len).sum();
    assert!((10_000_000..16 << 20).contains(&files), "one segment: {files} bytes");
    let options = options.io(io);
    let read = |reader: &dyn Fn() -> u64| {
        let before = disk.counts().read_bytes;
        assert_eq!(reader(), 100);
        disk.counts().read_bytes - before
    };
    let look = read(&|| Inspection::read(dir, &options).unwrap().report().entries);
    let go_on = |_: &bulla_recovery::EntryView<'_>| ControlFlow::Continue(());
    let pass = read(&|| bulla_recovery::replay(dir, &options, Range::ALL, go_on).unwrap().entries);
    for bytes in [look, pass] {
        assert!((files..files + LITTLE).contains(&bytes), "{look} and {pass} bytes of {files}");
    }
}

#[test]
fn log_keeps_few_files_open_however_many_segments_it_fills() {
    let temp = temp_dir("descriptors");
    let dir = temp.path().join("log");
    let log = Log::create(&dir, &Options::new().segment_len(16 * 1024).sector(4096)).unwrap();
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").expect("the kernel's account");
        let files = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        files.filter(|file| file.starts_with(&dir)).count()
    };
    for _ in 0..200 {
        log.wait(log.append_with(1, &[7; 1000], Level::Strict).unwrap()).unwrap();
        // Lock, CONTROL, three segments that are written and a spare; one is being made.
        assert!(open() <= 8, "{} files are open", open());
    }
    assert!(log.stats().rotations > 20);
}
