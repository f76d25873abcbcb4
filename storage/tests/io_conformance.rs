//! What every I/O backend guarantees: one suite, run against the operating system's files (in a
//! folder under the temporary directory), with and without `io_uring`, and against the simulated
//! disk, buffered and direct. What that models beyond it is in `sim_disk.rs`.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_storage::io::sim::{ByPath, SimConfig, SimDisk};
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_storage::io::{
    Access, AlignedBuf, File, FileKind, Io, Request, Ticket, read_full, write_full,
};
use tempfile::TempDir;

use crate::common::{BLOCK, pattern, reap, write_request};

/// A backend, an empty directory in it, and how files are opened.
struct Bench {
    io: Arc<dyn Io>,
    dir: PathBuf,
    direct: bool,
    /// What it is in, unless that is the simulated disk.
    on_disk: Option<TempDir>,
}

impl Bench {
    fn std(direct: bool) -> Self {
        Self::on_disk(Arc::new(StdIo::new()), direct)
    }

    /// `None`, and a line that says why, where the kernel gives no ring.
    fn uring(direct: bool) -> Option<Self> {
        if let Some(reason) = UringIo::refusal() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            return None;
        }
        Some(Self::on_disk(Arc::new(UringIo::eager()), direct))
    }

    fn on_disk(io: Arc<dyn Io>, direct: bool) -> Self {
        let temp = tempfile::tempdir().expect("a folder of our own");
        Self { io, dir: temp.path().to_owned(), direct, on_disk: Some(temp) }
    }

    fn sim(direct: bool) -> Self {
        let config =
            SimConfig { short_read_ppm: 300_000, short_write_ppm: 300_000, ..SimConfig::default() };
        let io = SimDisk::with_config(1, config).process();
        io.create_dir(Path::new("/dir")).expect("create");
        Self { io, dir: PathBuf::from("/dir"), direct, on_disk: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn create(&self, name: &str) -> Arc<dyn File> {
        self.io.create(&self.path(name), self.direct).expect("create")
    }

    fn open(&self, name: &str) -> Arc<dyn File> {
        let access = Access { write: true, direct: self.direct };
        self.io.open(&self.path(name), access).expect("open")
    }

    fn open_error(&self, name: &str, write: bool) -> ErrorKind {
        let access = Access { write, direct: self.direct };
        self.io.open(&self.path(name), access).expect_err("open").kind()
    }
}

fn contents(file: &dyn File) -> Vec<u8> {
    let len = usize::try_from(file.len().expect("length")).expect("short");
    let mut bytes = AlignedBuf::zeroed(len.next_multiple_of(BLOCK));
    let count = read_full(file, &mut bytes, 0).expect("read");
    bytes[..count].to_vec()
}

fn a_name_is_created_once(bench: &Bench) {
    drop(bench.create("a"));
    let again = bench.io.create(&bench.path("a"), bench.direct);
    assert_eq!(again.expect_err("exists").kind(), ErrorKind::AlreadyExists);
    bench.io.create_dir(&bench.dir).expect("a directory that exists is fine");
    let over_file = bench.io.create_dir(&bench.path("a"));
    assert_eq!(over_file.expect_err("a file").kind(), ErrorKind::AlreadyExists);
}

fn what_is_missing_is_not_found(bench: &Bench) {
    let (gone, other) = (bench.path("gone"), bench.path("other"));
    assert_eq!(bench.open_error("gone", false), ErrorKind::NotFound);
    assert_eq!(bench.open_error("gone", true), ErrorKind::NotFound);
    let below = bench.io.create(&gone.join("file"), bench.direct);
    assert_eq!(below.expect_err("no directory").kind(), ErrorKind::NotFound);
    assert_eq!(bench.io.unlink(&gone).expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(bench.io.rename(&gone, &other).expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(bench.io.list_dir(&gone).expect_err("gone").kind(), ErrorKind::NotFound);
    assert_eq!(bench.io.sync_dir(&gone).expect_err("gone").kind(), ErrorKind::NotFound);
}

fn only_regular_files_are_opened(bench: &Bench) {
    bench.io.create_dir(&bench.path("folder")).expect("create");
    for write in [false, true] {
        assert_eq!(bench.open_error("folder", write), ErrorKind::InvalidInput);
    }
    assert_eq!(
        bench.io.unlink(&bench.path("folder")).expect_err("a directory").kind(),
        ErrorKind::IsADirectory
    );
}

fn links_and_fifos_are_refused(bench: &Bench) {
    if bench.on_disk.is_none() {
        return;
    }
    drop(bench.create("target"));
    std::os::unix::fs::symlink(bench.path("target"), bench.path("link")).expect("symlink");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("mkfifo");
    for (name, write) in [("link", false), ("link", true), ("fifo", false), ("fifo", true)] {
        assert_eq!(bench.open_error(name, write), ErrorKind::InvalidInput, "{name} {write}");
    }
    let over_link = bench.io.create(&bench.path("link"), bench.direct);
    assert_eq!(over_link.expect_err("a link").kind(), ErrorKind::AlreadyExists);
    assert!(bench.io.try_lock(&bench.path("link")).is_err());
    let kinds = bench.io.list_dir(&bench.dir).expect("list");
    let others = kinds.iter().filter(|entry| entry.kind == FileKind::Other).count();
    assert_eq!(others, 2, "a link and a FIFO: {kinds:?}");
}

fn bytes_read_are_the_bytes_written(bench: &Bench) {
    let file = bench.create("a");
    assert!(file.is_empty().expect("length"));
    let (first, second) = (pattern(4, 0), pattern(3, 0x55));
    write_full(file.as_ref(), &first, 0).expect("write");
    write_full(file.as_ref(), &second, 2 * BLOCK as u64).expect("write");
    assert_eq!(file.len().expect("length"), 5 * BLOCK as u64);
    let mut expected = first[..2 * BLOCK].to_vec();
    expected.extend_from_slice(&second);
    assert_eq!(contents(file.as_ref()), expected);
    file.sync().expect("sync");
    assert_eq!(contents(bench.open("a").as_ref()), expected);

    let mut tail = AlignedBuf::zeroed(4 * BLOCK);
    let count = read_full(file.as_ref(), &mut tail, 3 * BLOCK as u64).expect("read");
    assert_eq!((count, &tail[..count]), (2 * BLOCK, &expected[3 * BLOCK..]));
    assert_eq!(read_full(file.as_ref(), &mut tail, 100 * BLOCK as u64).expect("read"), 0);
}

fn unaligned_bytes_go_through_the_cache(bench: &Bench) {
    if bench.direct {
        return;
    }
    let file = bench.create("a");
    write_full(file.as_ref(), b"hello world", 3000).expect("write");
    write_full(file.as_ref(), b"W", 3006).expect("write");
    let bytes = contents(file.as_ref());
    assert_eq!(bytes.len(), 3011);
    assert!(bytes[..3000].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[3000..], b"hello World");
}

fn a_write_in_two_pieces_is_one_range(bench: &Bench) {
    let file = bench.create("a");
    let bytes = pattern(3, 0);
    for dsync in [false, true] {
        let (mut offset, mut rest) = (0, &bytes[..]);
        while !rest.is_empty() {
            let pieces = rest.split_at(rest.len().min(BLOCK));
            let count = file.write_pieces_at(pieces.into(), offset, dsync).expect("write");
            assert!(count > 0);
            rest = &rest[count..];
            offset += count as u64;
            if bench.direct && rest.len() % BLOCK != 0 {
                // A short write may leave memory that direct access does not take.
                rest = &bytes[bytes.len() - rest.len().next_multiple_of(BLOCK)..];
                offset = (bytes.len() - rest.len()) as u64;
            }
        }
        assert_eq!(contents(file.as_ref()), bytes.to_vec());
    }
}

fn reserved_space_reads_as_zeros(bench: &Bench) {
    let file = bench.create("a");
    let bytes = pattern(1, 0);
    write_full(file.as_ref(), &bytes, 0).expect("write");
    match file.preallocate(4 * BLOCK as u64) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        result => result.expect("reserve"),
    }
    let after = contents(file.as_ref());
    assert_eq!(after.len(), 4 * BLOCK);
    assert_eq!(&after[..BLOCK], &bytes[..]);
    assert!(after[BLOCK..].iter().all(|byte| *byte == 0));
    file.preallocate(BLOCK as u64).expect("reserve");
    assert_eq!(file.len().expect("length"), 4 * BLOCK as u64, "a reservation never cuts");
}

fn a_length_cuts_and_extends_with_zeros(bench: &Bench) {
    let file = bench.create("a");
    write_full(file.as_ref(), &pattern(2, 0), 0).expect("write");
    file.set_len(100).expect("cut");
    assert_eq!(file.len().expect("length"), 100);
    file.set_len(BLOCK as u64 + 7).expect("extend");
    let bytes = contents(file.as_ref());
    assert_eq!(bytes.len(), BLOCK + 7);
    assert_eq!(bytes[..100], pattern(1, 0)[..100]);
    assert!(bytes[100..].iter().all(|byte| *byte == 0));
}

fn a_rename_replaces_its_target(bench: &Bench) {
    let (old, new) = (bench.create("old"), bench.create("new"));
    write_full(old.as_ref(), &pattern(1, 1), 0).expect("write");
    write_full(new.as_ref(), &pattern(1, 2), 0).expect("write");
    bench.io.rename(&bench.path("new"), &bench.path("old")).expect("rename");
    bench.io.sync_dir(&bench.dir).expect("sync");
    assert_eq!(contents(bench.open("old").as_ref()), pattern(1, 2).to_vec());
    assert_eq!(bench.open_error("new", false), ErrorKind::NotFound);
    assert_eq!(contents(old.as_ref()), pattern(1, 1).to_vec(), "an open file stays readable");
    bench.io.rename(&bench.path("old"), &bench.path("old")).expect("onto itself");
    assert_eq!(contents(bench.open("old").as_ref()), pattern(1, 2).to_vec());
}

fn an_unlinked_file_is_gone_but_stays_open(bench: &Bench) {
    let file = bench.create("a");
    write_full(file.as_ref(), &pattern(1, 0), 0).expect("write");
    bench.io.unlink(&bench.path("a")).expect("unlink");
    assert_eq!(bench.open_error("a", false), ErrorKind::NotFound);
    assert_eq!(contents(file.as_ref()), pattern(1, 0).to_vec());
    assert!(bench.create("a").is_empty().expect("length"), "the name is free");
}

fn a_listing_tells_kinds_and_lengths(bench: &Bench) {
    write_full(bench.create("a").as_ref(), &pattern(2, 0), 0).expect("write");
    bench.io.create_dir(&bench.path("folder")).expect("create");
    write_full(bench.create("folder/b").as_ref(), &pattern(1, 0), 0).expect("write");
    let list = |dir: &Path| {
        let mut entries = bench.io.list_dir(dir).expect("list");
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    };
    let entries = list(&bench.dir);
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!(names, [("a", FileKind::Regular), ("folder", FileKind::Directory)]);
    assert_eq!(entries[0].len, 2 * BLOCK as u64);
    let below = list(&bench.path("folder"));
    assert_eq!((below.len(), below[0].name.as_str(), below[0].len), (1, "b", BLOCK as u64));
    let of_file = bench.io.list_dir(&bench.path("a")).expect_err("a file").kind();
    assert_eq!(of_file, ErrorKind::NotADirectory);
}

fn a_file_opened_for_reading_refuses_writes(bench: &Bench) {
    write_full(bench.create("a").as_ref(), &pattern(1, 0), 0).expect("write");
    let file = bench.io.open(&bench.path("a"), Access::READ).expect("open");
    assert!(!file.is_direct());
    assert!(file.write_at(&pattern(1, 1), 0).is_err());
    assert!(file.set_len(0).is_err());
    assert_eq!(contents(file.as_ref()), pattern(1, 0).to_vec());
}

fn a_lock_excludes_until_it_is_dropped(bench: &Bench) {
    let path = bench.path("LOCK");
    let lock = bench.io.try_lock(&path).expect("lock").expect("free");
    assert!(bench.io.try_lock(&path).expect("lock").is_none());
    assert!(bench.io.try_lock(&bench.path("OTHER")).expect("lock").is_none(), "of a directory");
    bench.io.unlink(&path).expect("ours");
    assert!(bench.io.try_lock(&path).expect("lock").is_none(), "without its file");
    drop(bench.create("LOCK"));
    assert!(bench.io.try_lock(&path).expect("lock").is_none(), "with another file");
    drop(lock);
    assert!(bench.io.try_lock(&path).expect("lock").is_some());
}

fn a_lock_of_a_file_excludes_only_others_of_that_file(bench: &Bench) {
    let (path, other) = (bench.path("a"), bench.path("b"));
    let missing = bench.io.try_lock_file(&path).expect_err("there is no such file");
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    drop((bench.create("a"), bench.create("b")));
    let lock = bench.io.try_lock_file(&path).expect("lock").expect("free");
    assert!(bench.io.try_lock_file(&path).expect("lock").is_none());
    assert!(bench.io.try_lock_file(&other).expect("lock").is_some(), "another file");
    assert!(bench.io.try_lock(&bench.path("LOCK")).expect("lock").is_some(), "the writer's lock");
    drop(lock);
    assert!(bench.io.try_lock_file(&path).expect("lock").is_some());
}

fn a_rename_to_a_new_name_replaces_nothing(bench: &Bench) {
    let parent = bench.path("a");
    let dir = bench.io.open_dir(parent.parent().expect("a directory")).expect("open");
    drop((bench.create("a"), bench.create("b")));
    let refused = dir.rename_new("a", "b").expect_err("taken");
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    dir.rename_new("a", "c").expect("free");
    let mut names: Vec<_> = dir.list().expect("list").into_iter().map(|entry| entry.name).collect();
    names.retain(|name| name.len() == 1);
    names.sort();
    assert_eq!(names, ["b", "c"]);
}

fn a_queue_completes_each_ticket_once(bench: &Bench) {
    let file = bench.create("a");
    let bytes = pattern(8, 0);
    let mut queue = bench.io.queue(4).expect("queue");
    assert!(queue.depth() >= 1);
    let mut pending = BTreeSet::new();
    let mut left: Vec<(usize, u64)> = (0..8).map(|block| (block, block as u64)).collect();
    while let Some((block, ticket)) = left.pop() {
        let range = &bytes[block * BLOCK..(block + 1) * BLOCK];
        let dsync = block % 2 == 0;
        queue.submit(Ticket(ticket), write_request(&file, (block * BLOCK) as u64, range, dsync));
        pending.insert(ticket);
        if pending.len() < queue.depth().min(4) && !left.is_empty() {
            continue;
        }
        for done in reap(queue.as_mut()) {
            assert!(pending.remove(&done.ticket.0), "an unknown ticket");
            let count = done.result.expect("write");
            if count < BLOCK as u64 {
                let block = usize::try_from(done.ticket.0 % 8).expect("small");
                left.push((block, done.ticket.0 + 8));
            }
        }
    }
    assert!(pending.is_empty());
    queue.submit(Ticket(1000), Request::Sync { file: Arc::clone(&file) });
    let done = reap(queue.as_mut());
    assert_eq!(done.len(), 1);
    assert_eq!((done[0].ticket, done[0].result.as_ref().ok()), (Ticket(1000), Some(&0)));
    assert!(queue.complete(false).is_none() && queue.complete(true).is_none());
    assert_eq!(contents(file.as_ref()), bytes.to_vec());
}

fn a_dropped_queue_has_done_its_work(bench: &Bench) {
    let file = bench.create("a");
    file.set_len(4 * BLOCK as u64).expect("extend");
    let mut queue = bench.io.queue(4).expect("queue");
    for block in 0..4 {
        queue.submit(Ticket(block), write_request(&file, block * BLOCK as u64, &[7; BLOCK], false));
    }
    drop(queue);
    assert!(contents(file.as_ref()).chunks(BLOCK).all(|block| block[0] == 7));
}

fn clocks_run_and_randomness_differs(bench: &Bench) {
    let (now, wall) = (bench.io.now_ns(), bench.io.wall_ns());
    bench.io.sleep_ns(1_000_000);
    assert!(bench.io.now_ns() >= now + 1_000_000);
    assert!(wall > 1_600_000_000_000_000_000);
    let mut bytes = [[0; 16]; 2];
    for bytes in &mut bytes {
        bench.io.random(bytes).expect("random");
    }
    assert_ne!(bytes[0], bytes[1]);
}

fn on_uring(direct: bool, property: fn(&Bench)) {
    if let Some(bench) = Bench::uring(direct) {
        property(&bench);
    }
}

macro_rules! suite {
    ($($property:ident)*) => {
        mod std_buffered { $(#[test] fn $property() { super::$property(&super::Bench::std(false)); })* }
        mod std_direct { $(#[test] fn $property() { super::$property(&super::Bench::std(true)); })* }
        mod uring_buffered { $(#[test] fn $property() { super::on_uring(false, super::$property); })* }
        mod uring_direct { $(#[test] fn $property() { super::on_uring(true, super::$property); })* }
        mod sim_buffered { $(#[test] fn $property() { super::$property(&super::Bench::sim(false)); })* }
        mod sim_direct { $(#[test] fn $property() { super::$property(&super::Bench::sim(true)); })* }
    };
}

suite! {
    a_name_is_created_once
    what_is_missing_is_not_found
    only_regular_files_are_opened
    links_and_fifos_are_refused
    bytes_read_are_the_bytes_written
    unaligned_bytes_go_through_the_cache
    a_write_in_two_pieces_is_one_range
    reserved_space_reads_as_zeros
    a_length_cuts_and_extends_with_zeros
    a_rename_replaces_its_target
    an_unlinked_file_is_gone_but_stays_open
    a_listing_tells_kinds_and_lengths
    a_file_opened_for_reading_refuses_writes
    a_lock_excludes_until_it_is_dropped
    a_lock_of_a_file_excludes_only_others_of_that_file
    a_rename_to_a_new_name_replaces_nothing
    a_queue_completes_each_ticket_once
    a_dropped_queue_has_done_its_work
    clocks_run_and_randomness_differs
}
