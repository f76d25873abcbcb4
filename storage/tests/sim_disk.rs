//! What the simulated disk models beyond what every backend guarantees (`io_conformance.rs`): each
//! of its faults happens, and stays within its rule.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_storage::io::sim::{ByPath, CrashKind, FaultOp, Lie, SimConfig, SimDisk};
use bulla_storage::io::{Access, AlignedBuf, File, Io, Queue, Request, Ticket, write_full};

use crate::common::{BLOCK, pattern, reap, write_request};

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
fn sector_that_a_power_loss_shears_is_new_up_to_somewhere_and_old_behind_it() {
    let seen = outcomes(|seed| {
        let (disk, _, file) = machine(seed);
        write_full(file.as_ref(), &[1; SECTOR], 0).expect("write");
        file.sync().expect("sync");
        disk.configure(|config| config.shorn_sector_ppm = 500_000);
        write_full(file.as_ref(), &[2; SECTOR], 0).expect("write");
        disk.power_loss();
        let left = disk.read_file("/a");
        let new = left.iter().take_while(|byte| **byte == 2).count();
        assert!(left[new..].iter().all(|byte| *byte == 1), "seed {seed}: {left:?}");
        assert_eq!(left.len(), SECTOR);
        new
    });
    assert!(seen.contains(&0) && seen.contains(&SECTOR), "lost and kept: {seen:?}");
    assert!(seen.len() > 10, "shorn in many places: {seen:?}");
}

#[test]
fn sync_that_takes_long_is_found_by_who_waits_and_not_by_one_look() {
    let looks = |slow_sync_ppm| {
        outcomes(|seed| {
            let (disk, io, file) = machine(seed);
            disk.configure(|config| {
                config.late_completion_ppm = 0;
                config.slow_sync_ppm = slow_sync_ppm;
            });
            let mut queue = io.queue(8).expect("queue");
            queue.submit(Ticket(0), write_request(&file, 0, &[1; SECTOR], false));
            assert!(queue.complete(false).is_some(), "a write is not put off");
            queue.submit(Ticket(1), Request::Sync { file: Arc::clone(&file) });
            let looked = queue.complete(false).is_some();
            assert!(looked || queue.complete(true).is_some(), "seed {seed}: it is never done");
            looked
        })
    };
    assert_eq!(looks(0), BTreeSet::from([true]));
    assert_eq!(looks(1_000_000), BTreeSet::from([false]));
    assert_eq!(looks(500_000), BTreeSet::from([false, true]));
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
    let mut bytes = [0; SECTOR];
    for content in [1, 2] {
        file.write_at(&[content; SECTOR], 0).expect("an honest write");
        disk.lie_next(Lie::RottenRead, "/a", 0);
        file.read_at(&mut bytes, 0).expect("a lie");
        let changed = bytes.iter().map(|byte| (byte ^ content).count_ones()).sum::<u32>();
        assert_eq!(changed, 1, "bits");
        file.read_at(&mut bytes, 0).expect("an honest read");
        assert_eq!(bytes, [content; SECTOR]);
    }
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
    // It was never synced, and is rotten where it is kept.
    let kept = |seed| {
        let fork = disk.fork(seed);
        fork.power_loss();
        fork.read_file("/a").get(..5).map(<[u8]>::to_vec)
    };
    let kept: BTreeSet<_> = (0..20).filter_map(kept).filter(|bytes| bytes[0] == 1).collect();
    assert_eq!(kept, BTreeSet::from([vec![1, 1, 1, 0x81, 1]]));
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
