//! What every I/O backend promises, and what the simulated disk models beyond it.
//!
//! The first part runs one suite against the operating system's files (in a folder
//! under the temporary directory), with and without `io_uring`, and the simulated disk,
//! buffered and direct. The second
//! shows each fault of the simulator: that it happens, and that it stays within its rule.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_wal::RingBytes;
use bulla_wal::io::sim::{CrashKind, FaultOp, Lie, SimConfig, SimDisk};
use bulla_wal::io::std::StdIo;
use bulla_wal::io::uring::UringIo;
use bulla_wal::io::{
    Access, AlignedBuf, Completion, File, FileKind, Io, Queue, Request, Ticket, read_full,
    write_full,
};

const BLOCK: usize = 4096;

/// A backend, an empty directory in it, and how files are opened.
struct Bench {
    io: Arc<dyn Io>,
    dir: PathBuf,
    direct: bool,
    on_disk: bool,
}

impl Bench {
    fn std(direct: bool) -> Self {
        Self::on_disk(Arc::new(StdIo::new()), direct)
    }

    /// `None`, and a line that says why, where the kernel gives no ring.
    fn uring(direct: bool) -> Option<Self> {
        if let Some(reason) = UringIo::refusal() {
            println!("SKIPPED: {reason}");
            return None;
        }
        Some(Self::on_disk(Arc::new(UringIo::eager()), direct))
    }

    fn on_disk(io: Arc<dyn Io>, direct: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bulla-io-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).expect("a folder of our own");
        Self { io, dir, direct, on_disk: true }
    }

    fn sim(direct: bool) -> Self {
        let config =
            SimConfig { short_read_ppm: 300_000, short_write_ppm: 300_000, ..SimConfig::default() };
        let io = SimDisk::with_config(1, config).process();
        io.create_dir(Path::new("/dir")).expect("create");
        Self { io, dir: PathBuf::from("/dir"), direct, on_disk: false }
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

impl Drop for Bench {
    fn drop(&mut self) {
        if self.on_disk {
            // What is left in a temporary directory harms no other test.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Blocks whose bytes all differ from their neighbours'.
fn pattern(blocks: usize, salt: u8) -> AlignedBuf {
    let mut bytes = AlignedBuf::zeroed(blocks * BLOCK);
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(at % 251).expect("below 251") ^ salt;
    }
    bytes
}

fn contents(file: &dyn File) -> Vec<u8> {
    let len = usize::try_from(file.len().expect("length")).expect("short");
    let mut bytes = AlignedBuf::zeroed(len.next_multiple_of(BLOCK));
    let count = read_full(file, &mut bytes, 0).expect("read");
    bytes[..count].to_vec()
}

fn write_request(file: &Arc<dyn File>, offset: u64, bytes: &[u8], dsync: bool) -> Request {
    let bytes = RingBytes::from_heap(AlignedBuf::copy_of(bytes));
    Request::Write { file: Arc::clone(file), offset, bytes, dsync }
}

fn reap(queue: &mut dyn Queue) -> Vec<Completion> {
    std::iter::from_fn(|| queue.complete(true)).collect()
}

// Every backend.

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
    if !bench.on_disk {
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
    assert!(bench.io.try_lock(&bench.path("OTHER")).expect("lock").is_some());
    drop(lock);
    assert!(bench.io.try_lock(&path).expect("lock").is_some());
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
    a_queue_completes_each_ticket_once
    a_dropped_queue_has_done_its_work
    clocks_run_and_randomness_differs
}

// The simulator alone.

const SECTOR: usize = 512;
const SEEDS: u64 = 1000;

/// A machine with a durable, empty file `/a`, a process and its handle.
fn machine(seed: u64) -> (SimDisk, Arc<dyn Io>, Arc<dyn File>) {
    let disk = SimDisk::new(seed);
    disk.write_file("/a", b"");
    let io: Arc<dyn Io> = disk.process();
    let file = io.open(Path::new("/a"), Access::WRITE).expect("open");
    (disk, io, file)
}

/// What is left of `/a`, one byte per sector.
fn sectors(disk: &SimDisk) -> Vec<u8> {
    disk.read_file("/a").chunks(SECTOR).map(|sector| sector[0]).collect()
}

/// What `run` leaves over all seeds.
fn outcomes<T: Ord>(run: impl FnMut(u64) -> T) -> BTreeSet<T> {
    (0..SEEDS).map(run).collect()
}

#[test]
fn each_unsynced_sector_and_length_is_lost_or_kept_by_itself() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        file.set_len(2 * SECTOR as u64).expect("extend");
        file.sync().expect("sync");
        write_full(file.as_ref(), &[1; 2 * SECTOR], 0).expect("write");
        write_full(file.as_ref(), &[2; SECTOR], 0).expect("write");
        write_full(file.as_ref(), &[3; SECTOR], 2 * SECTOR as u64).expect("write");
        disk.power_loss();
        sectors(&disk)
    });
    // Sector 0 has three contents, sector 1 two, sector 2 is cut off, zeros or written.
    assert_eq!(seen.len(), 3 * 2 * 3, "{seen:?}");
}

#[test]
fn what_was_synced_survives_every_power_loss() {
    for seed in 0..SEEDS {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; 3 * SECTOR], 0).expect("write");
        file.sync().expect("sync");
        write_full(file.as_ref(), &[2; SECTOR], 0).expect("write");
        disk.power_loss();
        disk.power_loss();
        assert_eq!(sectors(&disk)[1..], [1, 1], "seed {seed}");
    }
}

#[test]
fn a_dsync_write_covers_itself_alone() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; 3 * SECTOR], 0).expect("write");
        file.write_pieces_at([&[2; SECTOR], &[]], SECTOR as u64, true).expect("write");
        disk.power_loss();
        sectors(&disk)
    });
    assert!(seen.iter().all(|left| left[1] == 2), "{seen:?}");
    assert_eq!(seen.len(), 4, "its neighbours may be lost: {seen:?}");
}

#[test]
fn a_dsync_write_brings_the_length_it_needs() {
    for seed in 0..SEEDS {
        let (disk, _, file) = machine(seed);
        file.set_len(100 * SECTOR as u64).expect("extend");
        file.set_len(0).expect("cut");
        file.write_pieces_at([&[2; SECTOR], &[]], SECTOR as u64, true).expect("write");
        disk.power_loss();
        assert_eq!(sectors(&disk), [0, 2], "seed {seed}");
    }
}

#[test]
fn a_sync_does_not_cover_a_write_in_flight_at_its_submission() {
    let seen = outcomes(|seed| {
        let (disk, io, file) = machine(seed);
        file.set_len(2 * SECTOR as u64).expect("extend");
        file.sync().expect("sync");
        let mut queue = io.queue(8).expect("queue");
        queue.submit(Ticket(0), write_request(&file, 0, &[1; SECTOR], false));
        assert_eq!(reap(queue.as_mut()).len(), 1);
        queue.submit(Ticket(1), write_request(&file, SECTOR as u64, &[2; SECTOR], false));
        queue.submit(Ticket(2), Request::Sync { file: Arc::clone(&file) });
        let first = reap(queue.as_mut())[0].ticket;
        assert_eq!(sectors(&disk), [1, 2], "both are visible");
        disk.power_loss();
        (first, sectors(&disk))
    });
    // Even where the write completed before the sync did.
    let all = [1, 2].map(|first| [0, 2].map(|left| (Ticket(first), vec![1, left])));
    assert_eq!(seen, all.into_iter().flatten().collect());
}

#[test]
fn completions_come_in_any_order() {
    let seen = outcomes(|seed| {
        let (_disk, io, file) = machine(seed);
        let mut queue = io.queue(8).expect("queue");
        for ticket in 0..3 {
            queue.submit(Ticket(ticket), write_request(&file, 0, &[1; SECTOR], false));
        }
        reap(queue.as_mut()).iter().map(|done| done.ticket.0).collect::<Vec<_>>()
    });
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn a_crash_tears_a_write_in_flight() {
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        let seen = outcomes(|seed| {
            let (disk, io, file) = machine(seed);
            file.set_len(2 * SECTOR as u64).expect("extend");
            file.sync().expect("sync");
            let mut queue = io.queue(8).expect("queue");
            queue.submit(Ticket(9), write_request(&file, 0, &[1; 2 * SECTOR], true));
            match kind {
                CrashKind::Kill => disk.kill(),
                CrashKind::PowerLoss => disk.power_loss(),
            }
            let done = reap(queue.as_mut());
            assert_eq!((done.len(), done[0].ticket), (1, Ticket(9)));
            assert!(done[0].result.is_err());
            sectors(&disk)
        });
        assert_eq!(seen.len(), 4, "{kind:?}: {seen:?}");
    }
}

/// A machine with something of each kind that is not durable, and writes in flight.
fn undecided_machine() -> (SimDisk, Box<dyn Queue>) {
    let (disk, io, file) = machine(3);
    file.set_len(2 * SECTOR as u64).expect("extend");
    file.sync().expect("sync");
    io.sync_dir(Path::new("/")).expect("sync");
    file.write_at(&[1; 2 * SECTOR], 0).expect("write");
    file.write_at(&[2; SECTOR], 0).expect("write");
    file.set_len(3 * SECTOR as u64).expect("extend");
    io.create(Path::new("/new"), false).expect("create");
    let mut queue = io.queue(8).expect("queue");
    queue.submit(Ticket(0), write_request(&file, SECTOR as u64, &[3; 2 * SECTOR], false));
    (disk, queue)
}

#[test]
fn ends_of_a_halt_are_all_that_crashes_leave_and_nothing_else() {
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        let (halted, _queue) = undecided_machine();
        halted.halt();
        let open = halted.open_ends(kind);
        let count: usize = open.iter().product();
        let mut ends = BTreeSet::new();
        for mut number in 0..count {
            let chosen: Vec<usize> = open
                .iter()
                .map(|count| {
                    let end = number % count;
                    number /= count;
                    end
                })
                .collect();
            ends.insert(halted.end(1, kind, &chosen).fingerprint());
        }
        let (disk, _queue) = undecided_machine();
        let drawn: BTreeSet<u64> = (0..20_000)
            .map(|seed| {
                let disk = disk.fork(seed);
                match kind {
                    CrashKind::Kill => disk.kill(),
                    CrashKind::PowerLoss => disk.power_loss(),
                }
                disk.fingerprint()
            })
            .collect();
        assert!(ends.len() >= 4, "{kind:?}: {open:?}");
        assert_eq!(ends, drawn, "{kind:?}: {open:?}");
    }
}

#[test]
fn halt_lets_what_it_strikes_be_done_or_not() {
    for done in [true, false] {
        let disk = SimDisk::new(1);
        let io = disk.process();
        disk.halt_after(1, done);
        io.create(Path::new("/first"), false).expect("create");
        assert!(io.create(Path::new("/second"), false).is_err(), "the process is dead");
        let killed = disk.end(1, CrashKind::Kill, &[]);
        assert_eq!(killed.paths().len(), 1 + usize::from(done));
    }
}

#[test]
fn device_lies_once_about_what_it_was_told_to_and_nobody_gets_an_error() {
    let (disk, io, file) = machine(1);
    file.write_at(&[1; 2 * SECTOR], 0).expect("write");
    file.sync().expect("sync");
    io.sync_dir(Path::new("/")).expect("sync");
    disk.lie_next(Lie::LostWrite, "/a", 1);
    file.write_at(&[2; SECTOR], 0).expect("an honest write");
    assert_eq!(file.write_at(&[3; SECTOR], 0).expect("a lie"), SECTOR);
    assert_eq!((sectors(&disk), disk.is_honest()), (vec![2, 1], true));
    disk.lie_next(Lie::MisdirectedWrite, "/a", 0);
    assert_eq!(file.write_at(&[4; SECTOR], 0).expect("a lie"), SECTOR);
    assert_eq!(sectors(&disk), [2, 4]);
    disk.lie_next(Lie::RottenRead, "/a", 0);
    let mut bytes = [0; SECTOR];
    file.read_at(&mut bytes, 0).expect("a lie");
    assert_eq!(bytes.iter().filter(|byte| **byte != 2).count(), 1);
    file.read_at(&mut bytes, 0).expect("an honest read");
    assert_eq!(bytes, [2; SECTOR]);
    disk.lie_next(Lie::LostSync, "/a", 0);
    file.sync().expect("a lie");
    disk.drop_pending();
    assert_eq!(sectors(&disk), [1, 1], "what was synced before is there");
}

#[test]
fn reserved_blocks_show_old_content_until_something_written_there_is_durable() {
    let config = SimConfig { stale_block_ppm: 1_000_000, ..SimConfig::default() };
    for seed in 0..20 {
        let disk = SimDisk::with_config(seed, config.clone());
        disk.write_file("/old", &[9; SECTOR]);
        let io = disk.process();
        let file = io.create(Path::new("/a"), false).expect("create");
        file.preallocate(3 * SECTOR as u64).expect("reserve");
        file.write_at(&[0; SECTOR], 0).expect("write");
        file.sync().expect("sync");
        io.sync_dir(Path::new("/")).expect("sync");
        file.write_at(&[0; SECTOR], SECTOR as u64).expect("write");
        disk.drop_pending();
        assert_eq!(sectors(&disk), [0, 9, 9]);
    }
}

#[test]
fn unsynced_names_are_lost_or_kept_and_synced_ones_stay() {
    let seen = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        let io = disk.process();
        io.create(Path::new("/synced"), false).expect("create");
        io.create(Path::new("/removed"), false).expect("create");
        io.sync_dir(Path::new("/")).expect("sync");
        let file = io.create(Path::new("/new"), false).expect("create");
        file.sync().expect("a file's sync is not its name's");
        io.unlink(Path::new("/removed")).expect("unlink");
        disk.power_loss();
        disk.paths()
    });
    assert!(seen.iter().all(|paths| paths.contains(&PathBuf::from("/synced"))));
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_lost_directory_takes_everything_below_with_it() {
    let seen = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        let io = disk.process();
        io.create_dir(Path::new("/log")).expect("create");
        io.create(Path::new("/log/a"), false).expect("create").sync().expect("sync");
        io.sync_dir(Path::new("/log")).expect("sync");
        disk.power_loss();
        let io = disk.process();
        (io.list_dir(Path::new("/log")).is_ok(), disk.paths().len())
    });
    assert_eq!(seen, BTreeSet::from([(false, 0), (true, 1)]));
}

#[test]
fn a_rename_is_one_unit() {
    let seen = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        disk.write_file("/old", b"old");
        disk.write_file("/new", b"new");
        disk.process().rename(Path::new("/new"), Path::new("/old")).expect("rename");
        disk.power_loss();
        disk.paths().iter().map(|path| (path.clone(), disk.read_file(path))).collect::<Vec<_>>()
    });
    let entry = |path: &str, bytes: &[u8]| (PathBuf::from(path), bytes.to_vec());
    let undone = vec![entry("/new", b"new"), entry("/old", b"old")];
    assert_eq!(seen, BTreeSet::from([undone, vec![entry("/old", b"new")]]));
}

#[test]
fn a_kill_keeps_what_was_completed_but_makes_nothing_durable() {
    let seen = outcomes(|seed| {
        let (disk, io, file) = machine(seed);
        write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
        io.create(Path::new("/b"), false).expect("create");
        disk.kill();
        assert_eq!((sectors(&disk), disk.paths().len()), (vec![1], 2), "seed {seed}");
        disk.power_loss();
        (sectors(&disk), disk.paths().len())
    });
    assert_eq!(seen.len(), 3 * 2, "{seen:?}");
}

#[test]
fn a_dead_process_can_do_nothing_and_holds_no_lock() {
    let (disk, io, file) = machine(1);
    let lock = io.try_lock(Path::new("/LOCK")).expect("lock").expect("free");
    let mut queue = io.queue(4).expect("queue");
    disk.kill();
    assert!(disk.is_crashed());
    queue.submit(Ticket(3), write_request(&file, 0, &[1; SECTOR], false));
    assert!(queue.complete(false).expect("at once").result.is_err());
    for error in [
        file.write_at(&[1], 0).expect_err("dead"),
        file.sync().expect_err("dead"),
        io.sync_dir(Path::new("/")).expect_err("dead"),
        io.create(Path::new("/b"), false).expect_err("dead"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Other);
    }
    let next = disk.process();
    assert!(!disk.is_crashed());
    let held = next.try_lock(Path::new("/LOCK")).expect("lock").expect("released by the crash");
    drop(lock);
    assert!(next.try_lock(Path::new("/LOCK")).expect("lock").is_none(), "a dead guard is no key");
    drop(held);
}

#[test]
fn no_later_sync_saves_what_a_failed_one_covered() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        file.set_len(2 * SECTOR as u64).expect("extend");
        file.sync().expect("sync");
        write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
        disk.fail_next(FaultOp::Sync, ErrorKind::Other, "/a", 0);
        file.sync().expect_err("fails once");
        write_full(file.as_ref(), &[2; SECTOR], SECTOR as u64).expect("write");
        file.sync().expect("the second one lies");
        assert_eq!(sectors(&disk), [1, 2], "still visible");
        disk.power_loss();
        sectors(&disk)
    });
    assert_eq!(seen, BTreeSet::from([vec![0, 2], vec![1, 2]]));
}

#[test]
fn a_sector_written_again_after_a_failed_sync_can_be_saved() {
    for seed in 0..SEEDS {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
        disk.fail_next(FaultOp::Sync, ErrorKind::Other, "", 0);
        file.sync().expect_err("fails once");
        write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
        file.sync().expect("sync");
        disk.power_loss();
        assert_eq!(sectors(&disk), [1], "seed {seed}");
    }
}

#[test]
fn a_cut_is_undone_with_its_bytes_or_done() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; 2 * SECTOR], 0).expect("write");
        file.sync().expect("sync");
        file.set_len(SECTOR as u64).expect("cut");
        file.set_len(2 * SECTOR as u64).expect("extend");
        disk.power_loss();
        sectors(&disk)
    });
    assert_eq!(seen, BTreeSet::from([vec![1], vec![1, 0], vec![1, 1]]));
}

#[test]
fn the_same_bytes_written_again_after_a_cut_are_saved() {
    let (disk, _, file) = machine(1);
    write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
    file.sync().expect("sync");
    file.set_len(0).expect("cut");
    write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
    file.sync().expect("sync");
    write_full(file.as_ref(), &[2; SECTOR], SECTOR as u64).expect("write");
    disk.drop_pending();
    assert_eq!(sectors(&disk), [1]);
}

#[test]
fn a_durable_cut_brings_no_older_bytes_back() {
    for seed in 0..SEEDS {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; 2 * SECTOR], 0).expect("write");
        disk.fail_next(FaultOp::Sync, ErrorKind::Other, "", 0);
        file.sync().expect_err("fails once");
        file.set_len(SECTOR as u64).expect("cut");
        file.set_len(2 * SECTOR as u64).expect("extend");
        file.sync().expect("sync");
        disk.power_loss();
        assert_eq!(sectors(&disk)[1..], [0], "seed {seed}");
    }
}

#[test]
fn scripted_faults_strike_where_they_should() {
    let (disk, io, _) = machine(1);
    disk.fail_next(FaultOp::Create, ErrorKind::PermissionDenied, "/b", 1);
    io.create(Path::new("/c"), false).expect("another path");
    io.create(Path::new("/b1"), false).expect("one more");
    let error = io.create(Path::new("/b2"), false).expect_err("struck");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    io.create(Path::new("/b2"), false).expect("once only");
    disk.fail_next(FaultOp::Rename, ErrorKind::Other, "/d", 0);
    io.rename(Path::new("/c"), Path::new("/d")).expect_err("matches the target");
    io.rename(Path::new("/c"), Path::new("/d")).expect("once only");
    disk.fail_next(FaultOp::SyncDir, ErrorKind::Other, "/", 0);
    disk.fail_next(FaultOp::Unlink, ErrorKind::Other, "/d", 0);
    io.sync_dir(Path::new("/")).expect_err("struck");
    io.unlink(Path::new("/d")).expect_err("struck");
    disk.fail_next(FaultOp::Read, ErrorKind::Other, "/d", 0);
    disk.fail_next(FaultOp::Preallocate, ErrorKind::Other, "/d", 0);
    let file = io.open(Path::new("/d"), Access::WRITE).expect("open");
    file.read_at(&mut [0], 0).expect_err("struck");
    file.preallocate(1).expect_err("struck");
}

#[test]
fn a_failed_write_leaves_any_of_its_sectors() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        file.set_len(2 * SECTOR as u64).expect("extend");
        disk.fail_next(FaultOp::Write, ErrorKind::Other, "/a", 0);
        file.write_at(&[1; 2 * SECTOR], 0).expect_err("struck");
        sectors(&disk)
    });
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_full_disk_says_so_and_recovers_when_space_is_back() {
    let config = SimConfig { capacity: Some(4 * SECTOR as u64), ..SimConfig::default() };
    let disk = SimDisk::with_config(1, config);
    let io = disk.process();
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    let first = io.create(a, false).expect("create");
    first.preallocate(3 * SECTOR as u64).expect("fits");
    assert_eq!(
        first.preallocate(5 * SECTOR as u64).expect_err("full").kind(),
        ErrorKind::StorageFull
    );
    let second = io.create(b, false).expect("create");
    assert_eq!(second.write_at(&[1; 2 * SECTOR], 0).expect("in part"), SECTOR);
    let full = second.write_at(&[1; SECTOR], SECTOR as u64).expect_err("full");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    second.write_at(&[2; SECTOR], 0).expect("space it has");
    first.write_at(&[2; SECTOR], 0).expect("space it reserved");
    io.unlink(a).expect("unlink");
    second.write_at(&[1; SECTOR], SECTOR as u64).expect("space is back");
    second.set_len(0).expect("cut");
    disk.set_capacity(Some(SECTOR as u64));
    second.write_at(&[1; SECTOR], 0).expect("fits");
    disk.set_capacity(None);
    second.write_at(&[1; 9 * SECTOR], 0).expect("no end");
}

/// A little of everything, and what a crash left of it.
fn story(disk: &SimDisk, crash: Option<(u64, CrashKind)>) -> Vec<(PathBuf, Vec<u8>)> {
    if let Some((steps, kind)) = crash {
        disk.crash_after(steps, kind);
    }
    let io = disk.process();
    // A crash may strike anywhere: then the rest of the story does not happen.
    let _ = (|| -> std::io::Result<()> {
        io.create_dir(Path::new("/log"))?;
        io.sync_dir(Path::new("/"))?;
        let file = io.create(Path::new("/log/a.tmp"), true)?;
        file.preallocate(8 * BLOCK as u64)?;
        write_full(file.as_ref(), &pattern(2, 1), 0)?;
        file.sync()?;
        io.rename(Path::new("/log/a.tmp"), Path::new("/log/a"))?;
        io.sync_dir(Path::new("/log"))?;
        let mut queue = io.queue(4)?;
        for block in 2..6 {
            let request = write_request(&file, block * BLOCK as u64, &[9; BLOCK], block == 3);
            queue.submit(Ticket(block), request);
        }
        queue.submit(Ticket(9), Request::Sync { file });
        while let Some(done) = queue.complete(true) {
            done.result?;
        }
        Ok(())
    })();
    disk.paths().into_iter().map(|path| (path.clone(), disk.read_file(path))).collect()
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let runs = |seed| {
        let disk = SimDisk::new(seed);
        story(&disk, None);
        disk.power_loss();
        (disk.steps(), disk.counts(), story(&disk, Some((seed % 20, CrashKind::PowerLoss))))
    };
    let mut differ = BTreeSet::new();
    for seed in 0..SEEDS {
        assert_eq!(runs(seed), runs(seed), "seed {seed}");
        differ.insert(runs(seed).2);
    }
    assert!(differ.len() > 100, "only {} different outcomes", differ.len());
}

#[test]
fn a_crash_can_strike_at_every_step_and_keeps_what_was_synced() {
    let disk = SimDisk::new(7);
    story(&disk, None);
    let steps = disk.steps();
    assert!(steps > 15);
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        for step in 0..steps {
            for seed in 0..20 {
                let disk = SimDisk::new(seed);
                let left = story(&disk, Some((step, kind)));
                assert!(disk.is_crashed(), "step {step}");
                assert_eq!(disk.steps(), step + 1, "nothing happens after a crash");
                // Step 8 is the directory's second sync; from then on the file is safe.
                if step >= 8 {
                    assert_eq!(left.len(), 1, "step {step}, seed {seed}");
                    let (path, bytes) = &left[0];
                    assert_eq!((path.as_path(), bytes.len()), (Path::new("/log/a"), 8 * BLOCK));
                    assert_eq!(bytes[..2 * BLOCK], pattern(2, 1)[..]);
                }
            }
        }
        let disk = SimDisk::new(7);
        story(&disk, Some((steps, kind)));
        assert!(!disk.is_crashed(), "the story was over");
    }
}

#[test]
fn a_struck_operation_is_done_or_not() {
    let seen = outcomes(|seed| {
        let (disk, io, _) = machine(seed);
        disk.crash_after(0, CrashKind::Kill);
        io.create(Path::new("/b"), false).expect_err("dead");
        disk.paths().len()
    });
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_struck_write_leaves_any_of_its_sectors() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        disk.write_file("/a", &[0; 2 * SECTOR]);
        disk.crash_after(0, CrashKind::Kill);
        file.write_at(&[1; 2 * SECTOR], 0).expect_err("dead");
        sectors(&disk)
    });
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn a_fork_goes_its_own_way() {
    let (disk, io, file) = machine(1);
    let mut queue = io.queue(4).expect("queue");
    file.write_at(&[1; 8 * SECTOR], 0).expect("write");
    queue.submit(Ticket(1), write_request(&file, 0, &[2; SECTOR], false));
    let ends = outcomes(|seed| {
        let fork = disk.fork(seed);
        fork.power_loss();
        sectors(&fork)
    });
    assert!(ends.len() > 50, "{}", ends.len());
    assert_eq!(sectors(&disk), [1; 8], "the original lives on");
    assert!(queue.complete(true).expect("in flight").result.is_ok());
    disk.settle();
    disk.drop_pending();
    assert_eq!(sectors(&disk), [2, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn tampering_is_durable_and_rot_is_everywhere() {
    let (disk, _, file) = machine(1);
    disk.write_file("/x/y/z", &[5; 700]);
    file.write_at(&[1; SECTOR], 0).expect("write");
    disk.flip("/x/y/z", 600, 0xff);
    disk.flip("/a", 3, 0x80);
    let fork = disk.fork(1);
    fork.drop_pending();
    assert_eq!(fork.read_file("/x/y/z")[598..602], [5, 5, 0xfa, 5]);
    disk.settle();
    disk.power_loss();
    assert_eq!(disk.read_file("/a")[..5], [1, 1, 1, 0x81, 1]);
    disk.remove_file("/x/y/z");
    disk.power_loss();
    assert_eq!(disk.paths(), [PathBuf::from("/a")]);
}

#[test]
fn time_goes_on_across_processes_and_the_wall_clock_may_go_back() {
    let disk = SimDisk::new(1);
    let io = disk.process();
    io.sleep_ns(5);
    disk.advance(7);
    let wall = io.wall_ns();
    disk.power_loss();
    let io = disk.process();
    assert_eq!(io.now_ns(), 12);
    disk.set_wall_offset(-1000);
    assert_eq!(io.wall_ns(), wall - 1000);
}

#[test]
fn direct_access_must_be_aligned() {
    let disk = SimDisk::new(1);
    let file = disk.process().create(Path::new("/a"), true).expect("create");
    let bytes = AlignedBuf::zeroed(2 * SECTOR);
    for (range, offset) in [(0..100, 0), (0..SECTOR, 100), (8..8 + SECTOR, 0)] {
        let error = file.write_at(&bytes[range], offset).expect_err("unaligned");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    file.write_at(&bytes[SECTOR..], SECTOR as u64).expect("aligned");
}

/// Any calls at all: what a sync covered is what a power loss that loses all else leaves.
#[test]
fn a_synced_file_is_what_was_visible_whatever_came_before() {
    for seed in 0..2000_u64 {
        let (disk, io, file) = machine(seed);
        let mut state = seed;
        let mut draw = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for round in 1..=40 {
            let offset = draw(3000);
            let bytes = vec![round; usize::try_from(1 + draw(1500)).expect("small")];
            match draw(8) {
                0..=2 => drop(file.write_at(&bytes, offset).expect("write")),
                3 => drop(file.write_pieces_at([&bytes, &[]], offset, true).expect("write")),
                4 => file.set_len(offset).expect("resize"),
                5 => file.preallocate(offset).expect("reserve"),
                6 => {
                    let mut queue = io.queue(2).expect("queue");
                    queue.submit(Ticket(0), write_request(&file, offset, &bytes, false));
                    queue.submit(Ticket(1), write_request(&file, offset / 2, &bytes, true));
                }
                _ => {
                    file.sync().expect("sync");
                    let synced = disk.read_file("/a");
                    let fork = disk.fork(seed);
                    fork.power_loss();
                    assert_eq!(fork.read_file("/a"), synced, "seed {seed}, round {round}");
                }
            }
        }
        let visible = disk.read_file("/a");
        file.sync().expect("sync");
        disk.drop_pending();
        assert_eq!(disk.read_file("/a"), visible, "seed {seed}");
    }
}
