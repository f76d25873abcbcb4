//! Readers of a log that is written, purged, crashed and opened again.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bulla_recovery::{Evidence, Range, Recovery, RepairPlan};
use bulla_storage::io::sim::{FaultOp, SimDisk};
use bulla_storage::io::std::StdIo;
use bulla_tests::reading::{self, Tally};
use bulla_tests::temp_dir;
use bulla_tests::wrap::WrapIo;
use bulla_wal::{
    CorruptionKind, Entry, Epoch, Error, Level, Log, Lsn, Method, Options, Position, Reader, Seq,
    Visibility,
};

/// Far beyond anything that a healthy log needs, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
const DIR: &str = "/log";

fn small() -> Options {
    Options::new().sector(512).segment_len(16 * 1024).ring_len(16 * 1024).manual()
}

fn elsewhere(disk: &SimDisk, from: Position, visibility: Visibility) -> Result<Reader, Error> {
    Reader::open(disk.process(), Path::new(DIR), from, visibility)
}

fn elsewhere_in(disk: &SimDisk, range: Range, visibility: Visibility) -> Reader {
    Reader::open(disk.process(), Path::new(DIR), range, visibility).unwrap()
}

fn open(disk: &SimDisk) -> Log {
    let options = small().io(disk.process());
    let (recovered, _) = bulla_recovery::open(Path::new(DIR), &options).unwrap();
    Log::start(recovered).unwrap()
}

/// Lets the log say that all is durable.
fn idle(disk: &SimDisk, log: &Log) {
    let end = log.end();
    disk.advance(60_000_000);
    while log.step() {}
    assert!(log.end() > end, "there is room for the mark");
}

fn strict(log: &Log, payload: &[u8]) -> Lsn {
    let receipt = log.append_with(1, payload, Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    receipt.lsn
}

/// Everything that a reader shows now: position, number, wall time.
fn rest(reader: &mut Reader) -> Result<Vec<(Lsn, u64, u64)>, Error> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        assert_eq!(entry.payload, payload_of(entry.seq.0), "entry {}", entry.seq);
        entries.push((entry.lsn, entry.seq.0, entry.wall_ns));
    }
    Ok(entries)
}

fn payload_of(seq: u64) -> Vec<u8> {
    vec![seq as u8; seq as usize * 37 % 900]
}

/// A log of three epochs and several segments, all below the durable mark.
fn some_log(disk: &SimDisk) -> Log {
    let mut seq = 0;
    for life in 0..3 {
        let log = open(disk);
        for _ in 0..43 {
            seq += 1;
            strict(&log, &payload_of(seq));
            disk.advance(1_000_000);
        }
        idle(disk, &log);
        if life == 2 {
            return log;
        }
        if life == 0 {
            log.close().unwrap();
        } else {
            disk.kill();
        }
    }
    unreachable!("the third life ends it")
}

#[test]
fn readers_show_what_was_appended_and_never_more_than_their_watermark() {
    let seeds = std::env::var("BULLA_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = seeds.unwrap_or(5_000_u64);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match reading::run(seed) {
                        Ok(one) => total.lock().unwrap().add(&one),
                        Err(violation) => panic!("{violation}"),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{total:#?}");
    // A campaign that never meets what it is for proves nothing.
    if seeds >= 1_000 {
        assert!(total.rarest() > seeds / 100, "{total:#?}");
    } else {
        bulla_tests::skipped("what the campaign met is judged from 1,000 seeds on");
    }
}

/// Fills the last segment to its last sector.
fn fill(log: &Log) -> u64 {
    let mut entries = 0;
    // Less than a sector each: 30 fit between a header and the place of a seal.
    while log.end() < Lsn(30 * 512) {
        strict(log, &[]);
        entries += 1;
    }
    entries
}

#[test]
fn log_whose_segment_is_full_to_its_last_sector_says_all_the_same_that_all_is_durable() {
    for close in [false, true] {
        let disk = SimDisk::new(5);
        let log = open(&disk);
        let entries = fill(&log);
        assert_eq!(log.stats().rotations, 0, "the segment holds just that");
        let mut reader = elsewhere(&disk, Position::Start, Visibility::Durable).unwrap();
        if close {
            log.close().unwrap();
        } else {
            idle(&disk, &log);
        }
        let shown = std::iter::from_fn(|| reader.next().unwrap().map(|_| ())).count() as u64;
        assert_eq!(shown, entries, "closed: {close}");
        disk.drop_pending();
        let options = small().io(disk.process());
        let recovery = Recovery::run(Path::new(DIR), &options).unwrap();
        assert_eq!(recovery.report().entries, entries);
        assert!(recovery.report().durable_lsn >= Lsn(30 * 512));
        let closed = |e: &Evidence| matches!(e, Evidence::Closed { .. });
        assert_eq!(recovery.report().evidence.iter().any(closed), close);
    }
}

#[test]
fn log_that_was_given_up_can_be_opened_while_a_reader_of_it_lives() {
    for end in ["close", "drop", "fail"] {
        let disk = SimDisk::new(5);
        let log = open(&disk);
        strict(&log, b"an entry");
        let mut reader = log.reader(Position::Start, Visibility::Durable).unwrap();
        match end {
            "close" => log.close().unwrap(),
            "drop" => drop(log),
            _ => {
                disk.fail_next(FaultOp::Write, std::io::ErrorKind::Other, "", 0);
                let receipt = log.append_with(1, b"another", Level::Strict).unwrap();
                log.wait(receipt).unwrap_err();
                drop(log);
            }
        }
        let log = open(&disk);
        assert_eq!(reader.next().unwrap().unwrap().payload, b"an entry", "{end}");
        drop((log, reader));
    }
}

#[test]
fn range_with_an_end_shows_nothing_from_there_on() {
    let disk = SimDisk::new(9);
    let log = some_log(&disk);
    let all = rest(&mut log.reader(.., Visibility::Durable).unwrap()).unwrap();
    let at_or_after = |time: u64| all.iter().position(|(_, _, at)| *at >= time).unwrap();
    for (index, (lsn, seq, wall_ns)) in all.iter().enumerate() {
        let (seq, time) = (Seq(*seq), Position::at_wall_ns(*wall_ns));
        let half = index / 2;
        let ranges: [(Range, _); 6] = [
            ((..*lsn).into(), 0..index),
            ((..Lsn(lsn.0 + 1)).into(), 0..index + 1),
            ((..seq).into(), 0..index),
            ((..time).into(), 0..at_or_after(*wall_ns)),
            ((all[half].0..*lsn).into(), half..index),
            ((Seq(all[half].1)..seq).into(), half..index),
        ];
        for (range, expected) in ranges {
            for visibility in [Visibility::Durable, Visibility::Written] {
                let here = log.reader(range, visibility).unwrap();
                let there = Reader::open(disk.process(), DIR, range, visibility).unwrap();
                for mut reader in [here, there] {
                    assert_eq!(rest(&mut reader).unwrap(), all[expected.clone()], "{range}");
                    assert!(reader.is_finished(), "{range}");
                    assert_eq!(reader.wait_next(PATIENCE).unwrap(), None, "{range}");
                    let (epoch, lsn) = reader.position();
                    let rest = rest(&mut log.reader(lsn.., visibility).unwrap()).unwrap();
                    assert_eq!(rest, all[expected.end..], "from {lsn} of {epoch} after {range}");
                }
            }
        }
    }
    let mut open = log.reader(.., Visibility::Durable).unwrap();
    rest(&mut open).unwrap();
    assert!(!open.is_finished(), "more may come");
    let mut none = log.reader(Position::Start..Position::Start, Visibility::Durable).unwrap();
    assert_eq!(none.next().unwrap(), None);
    assert!(none.is_finished());
    let mut backwards = log.reader(Seq(9)..Seq(3), Visibility::Durable).unwrap();
    assert_eq!(backwards.next().unwrap(), None);
    assert!(backwards.is_finished());
}

/// Returns how many of the entries come before a time: all up to the last one from before it.
fn before_time(all: &[(Lsn, u64, u64)], wall_ns: u64) -> usize {
    all.iter().rposition(|(_, _, at)| *at < wall_ns).map_or(0, |last| last + 1)
}

/// A log whose clock is set forward by years and back again, while it runs and between two lives.
fn log_of_a_wrong_clock(disk: &SimDisk) -> Log {
    const YEAR: i64 = 365 * 24 * 3_600_000_000_000;
    let mut seq = 0;
    for years in [0, 60, 1, 40, 2] {
        let log = open(disk);
        for offset in [years * YEAR, (years + 1) * YEAR, years * YEAR] {
            disk.set_wall_offset(offset);
            // A segment ends early for the clock once an hour at most.
            disk.advance(3_600_000_000_000);
            for _ in 0..5 {
                seq += 1;
                strict(&log, &payload_of(seq));
                while log.step() {}
                disk.advance(1_000_000);
            }
        }
        log.close().unwrap();
    }
    open(disk)
}

#[test]
fn time_comes_behind_the_last_entry_from_before_it_though_a_clock_was_set_back() {
    let disk = SimDisk::new(9);
    let log = log_of_a_wrong_clock(&disk);
    let all = rest(&mut log.reader(.., Visibility::Durable).unwrap()).unwrap();
    let back = all.windows(2).filter(|pair| pair[1].2 < pair[0].2).count();
    assert_eq!(back, 5 + 2, "in each life once, and between two");
    let times: Vec<u64> = all.iter().flat_map(|(_, _, at)| [*at, at + 1]).collect();
    for (index, wall_ns) in times.iter().enumerate() {
        let time = Position::at_wall_ns(*wall_ns);
        let other = times[index * 7 % times.len()];
        let (first, last) = (before_time(&all, *wall_ns), before_time(&all, other));
        let ranges: [(Range, _, _); 3] = [
            ((time..).into(), first, all.len()),
            ((..time).into(), 0, first),
            ((time..Position::at_wall_ns(other)).into(), first.min(last), last),
        ];
        for (range, from, to) in ranges {
            for visibility in [Visibility::Durable, Visibility::Written] {
                let here = log.reader(range, visibility).unwrap();
                let there = elsewhere_in(&disk, range, visibility);
                for mut reader in [here, there] {
                    assert_eq!(rest(&mut reader).unwrap(), all[from..to], "{range}");
                    assert!(reader.is_finished() || to == all.len(), "{range}");
                }
            }
        }
    }
}

#[test]
fn reader_of_a_time_range_shows_what_a_clock_that_is_set_back_brings_later() {
    const YEAR: i64 = 365 * 24 * 3_600_000_000_000;
    let disk = SimDisk::new(11);
    let log = open(&disk);
    strict(&log, &payload_of(1));
    disk.set_wall_offset(YEAR);
    strict(&log, &payload_of(2));
    let last = rest(&mut log.reader(.., Visibility::Written).unwrap()).unwrap()[1].2;
    let next_year = Position::at_wall_ns(last);
    let mut until = log.reader(..next_year, Visibility::Written).unwrap();
    let mut from = log.reader(next_year.., Visibility::Written).unwrap();
    assert_eq!(rest(&mut from).unwrap().len(), 1);
    assert!(until.next().unwrap().is_some(), "the first entry");
    disk.set_wall_offset(0);
    strict(&log, &payload_of(3));
    while log.step() {}
    strict(&log, &payload_of(4));
    // The range that begins goes on without a gap; the one that ends moves its end.
    assert_eq!(rest(&mut from).unwrap().len(), 2);
    let seqs = rest(&mut until).unwrap().into_iter().map(|(_, seq, _)| seq);
    assert_eq!(seqs.collect::<Vec<_>>(), [2, 3, 4]);
    assert!(!until.is_finished());
    disk.set_wall_offset(2 * YEAR);
    strict(&log, &payload_of(5));
    assert_eq!(until.next().unwrap(), None);
    assert!(until.is_finished());
}

#[test]
fn every_entry_is_found_by_its_number_and_none_beyond_what_may_be_shown() {
    let disk = SimDisk::new(10);
    let log = some_log(&disk);
    let mut readers = [
        log.reader(.., Visibility::Durable).unwrap(),
        elsewhere(&disk, Position::End, Visibility::Durable).unwrap(),
    ];
    let all = rest(&mut log.reader(.., Visibility::Durable).unwrap()).unwrap();
    let last = all.len() as u64;
    for reader in &mut readers {
        // In any order.
        for seq in (1..=last).map(|n| 1 + n * 50 % last) {
            let entry = reader.read_seq(Seq(seq)).unwrap().expect("it is durable");
            let (lsn, ..) = all[seq as usize - 1];
            assert_eq!((entry.seq, entry.lsn), (Seq(seq), lsn));
            assert_eq!(entry.payload, payload_of(seq));
        }
        for seq in [0, last + 1, last + 2, u64::MAX] {
            assert_eq!(reader.read_seq(Seq(seq)).unwrap(), None, "{seq}");
        }
    }
    strict(&log, &payload_of(last + 1));
    idle(&disk, &log);
    let low_water = log.purge(log.durable()).unwrap();
    let first = all.iter().position(|(lsn, ..)| *lsn >= low_water).unwrap_or(all.len());
    assert!(first > 0, "something was purged");
    for reader in &mut readers {
        let entry = reader.read_seq(Seq(last + 1)).unwrap().expect("it is durable by now");
        assert_eq!(entry.payload, payload_of(last + 1));
        let gone = Seq(first as u64);
        let error = reader.read_seq(gone).unwrap_err();
        assert!(
            matches!(error, Error::Purged { position: Position::Seq(seq), .. } if seq == gone),
            "{error}"
        );
    }
}

#[test]
fn owned_entries_are_those_that_are_lent_and_stay_whole_when_the_reader_goes_on() {
    let disk = SimDisk::new(8);
    let log = some_log(&disk);
    let readers = || {
        let here = log.reader(Position::Start, Visibility::Durable).unwrap();
        [here, elsewhere(&disk, Position::Start, Visibility::Durable).unwrap()]
    };
    for (mut lending, mut owning) in readers().into_iter().zip(readers()) {
        let entries: Vec<Entry> = owning.entries().collect::<Result<_, _>>().unwrap();
        assert_eq!(owning.next_owned().unwrap(), None);
        assert_eq!(owning.position(), lending_to_the_end(&mut lending, &entries));
        drop(owning);
        // What they are slices of is theirs, on any thread.
        let check = move || entries.iter().all(|entry| entry.payload == payload_of(entry.seq.0));
        assert!(thread::spawn(check).join().unwrap());
    }
}

/// Reads on to the end, and compares.
fn lending_to_the_end(reader: &mut Reader, expected: &[Entry]) -> (Epoch, Lsn) {
    for expected in expected {
        let entry = reader.next().unwrap().expect("as many");
        assert_eq!(entry, expected.view());
        assert_eq!(Entry::from(entry), *expected);
    }
    assert_eq!(reader.next().unwrap(), None);
    reader.position()
}

#[test]
fn every_start_gives_the_same_entries_as_a_whole_read() {
    let disk = SimDisk::new(7);
    let log = some_log(&disk);
    let (mut here, mut there) = (
        log.reader(Position::Start, Visibility::Durable).unwrap(),
        elsewhere(&disk, Position::Start, Visibility::Durable).unwrap(),
    );
    let all = rest(&mut here).unwrap();
    assert_eq!(all.len(), 129);
    assert_eq!(rest(&mut there).unwrap(), all);
    for (index, (lsn, seq, wall_ns)) in all.iter().enumerate() {
        let time = all.iter().position(|(_, _, at)| at >= wall_ns).unwrap();
        let starts = [
            (Position::Lsn { epoch: None, lsn: *lsn }, index),
            (Position::Lsn { epoch: None, lsn: Lsn(lsn.0 + 1) }, index + 1),
            (Position::Seq(Seq(*seq)), index),
            (Position::at_wall_ns(*wall_ns), time),
        ];
        for (from, first) in starts {
            for visibility in [Visibility::Durable, Visibility::Written] {
                let mut here = log.reader(from, visibility).unwrap();
                assert_eq!(rest(&mut here).unwrap(), all[first..], "{from}");
                let mut there = elsewhere(&disk, from, visibility).unwrap();
                assert_eq!(rest(&mut there).unwrap(), all[first..], "{from}");
            }
        }
    }
    let mut end = elsewhere(&disk, Position::End, Visibility::Durable).unwrap();
    assert_eq!(end.next().unwrap(), None);
    let mut written = elsewhere(&disk, Position::End, Visibility::Written).unwrap();
    strict(&log, &payload_of(130));
    idle(&disk, &log);
    assert_eq!(rest(&mut end).unwrap().len(), 1);
    assert_eq!(rest(&mut written).unwrap().len(), 1);
}

#[test]
fn damage_below_a_durable_mark_is_a_typed_corruption_and_never_an_end() {
    let disk = SimDisk::new(8);
    let log = some_log(&disk);
    let durable = log.durable();
    let options = small().io(disk.process());
    let inspection = bulla_recovery::Inspection::read(Path::new(DIR), &options).unwrap();
    let durable_mark = inspection.report().durable_lsn;
    assert!(durable_mark.plus(512) >= durable, "{durable_mark} of {durable}");
    drop(log);
    let mut damaged = 0;
    for segment in inspection.segments() {
        let Some((start, end)) = segment.live else { continue };
        let end = end.min(durable_mark);
        let path = bulla_storage::files::dir::segment_path(Path::new(DIR), segment.number);
        let offset_of = |lsn: Lsn| 512 + lsn.0 - segment.base.unwrap().0;
        for lsn in (start.0..end.0).step_by(61) {
            let disk = disk.fork(lsn);
            disk.flip(&path, offset_of(Lsn(lsn)), 1 << (lsn % 8));
            is_corrupt(&disk, &format!("flip at {lsn}"));
            damaged += 1;
        }
        for lsn in (start.0..end.0).step_by(512) {
            let disk = disk.fork(lsn);
            let mut bytes = disk.read_file(&path);
            let at = offset_of(Lsn(lsn)) as usize;
            bytes[at..at + 512].fill(0);
            disk.write_file(&path, &bytes);
            is_corrupt(&disk, &format!("lost sector at {lsn}"));
            damaged += 1;
        }
    }
    assert!(damaged > 500, "{damaged}");
}

fn is_corrupt(disk: &SimDisk, what: &str) {
    for visibility in [Visibility::Durable, Visibility::Written] {
        let mut reader = elsewhere(disk, Position::Start, visibility).unwrap();
        match rest(&mut reader) {
            Err(Error::Corrupt(corruption)) => {
                assert!(matches!(corruption.kind, CorruptionKind::Frame(_)), "{what}");
                assert!(corruption.lsn < corruption.durable, "{what}");
            }
            other => panic!("{what}, {visibility:?}: {other:?}"),
        }
        // It does not go away.
        assert!(matches!(reader.next(), Err(Error::Corrupt(_))), "{what}");
    }
}

#[test]
fn read_error_is_an_error_and_the_reader_goes_on_after_it() {
    let disk = SimDisk::new(9);
    let log = some_log(&disk);
    for after in 0..40 {
        let mut reader = elsewhere(&disk, Position::Start, Visibility::Durable).unwrap();
        disk.fail_next(FaultOp::Read, std::io::ErrorKind::Other, ".seg", after);
        let mut shown = 0;
        let mut failed = 0;
        while shown < 129 {
            match reader.next() {
                Ok(Some(entry)) => {
                    shown += 1;
                    assert_eq!(entry.seq.0, shown);
                }
                Err(Error::Io { .. }) => failed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(failed, u64::from(failed > 0), "one fault is one error");
        disk.clear_faults();
    }
    drop(log);
}

#[test]
fn read_error_at_the_end_of_a_time_range_leaves_nothing_out() {
    let disk = SimDisk::new(9);
    let log = log_of_a_wrong_clock(&disk);
    let all = rest(&mut log.reader(.., Visibility::Durable).unwrap()).unwrap();
    // Entries of later times come before the last one from before it.
    let time = all[44].2 + 1;
    let expected: Vec<u64> = all[..before_time(&all, time)].iter().map(|entry| entry.1).collect();
    assert!(all[..expected.len()].iter().any(|entry| entry.2 >= time));
    let mut after = 0;
    loop {
        let range = Range::from(..Position::at_wall_ns(time));
        let mut reader = elsewhere_in(&disk, range, Visibility::Durable);
        disk.fail_next(FaultOp::Read, std::io::ErrorKind::Other, "", after);
        let (mut shown, mut failed) = (Vec::new(), false);
        loop {
            match reader.next() {
                Ok(Some(entry)) => shown.push(entry.seq.0),
                Ok(None) => break,
                Err(Error::Io { .. }) => failed = true,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(shown, expected, "read {after} fails");
        disk.clear_faults();
        if !failed {
            break;
        }
        after += 1;
    }
    assert!(after > 10, "{after} reads");
}

#[test]
fn reader_whose_next_entry_is_purged_is_told_so() {
    let disk = SimDisk::new(10);
    let log = some_log(&disk);
    let mut readers = [
        log.reader(Position::Start, Visibility::Durable).unwrap(),
        elsewhere(&disk, Position::Start, Visibility::Durable).unwrap(),
        elsewhere(&disk, Position::Start, Visibility::Written).unwrap(),
    ];
    let last = log.durable();
    let low_water = log.purge(last).unwrap();
    assert!(low_water > Lsn(0));
    for reader in &mut readers {
        // What is in the segment that it has open it may still read.
        let position = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Err(Error::Purged { position: Position::Lsn { lsn, .. }, low_water: told }) => {
                    assert_eq!(told, low_water);
                    break lsn;
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(position < low_water);
    }
    for from in [Position::Lsn { epoch: None, lsn: Lsn(0) }, Position::Seq(Seq(1))] {
        assert!(matches!(log.reader(from, Visibility::Durable), Err(Error::Purged { .. })));
        let there = elsewhere(&disk, from, Visibility::Durable);
        assert!(matches!(there, Err(Error::Purged { .. })));
    }
    let mut anew = log.reader(Position::Start, Visibility::Durable).unwrap();
    assert!(rest(&mut anew).unwrap().iter().all(|(lsn, ..)| *lsn >= low_water));
}

#[test]
fn reader_past_what_a_crash_took_diverges_and_no_other_does() {
    let disk = SimDisk::new(11);
    let log = open(&disk);
    let kept = strict(&log, b"kept");
    idle(&disk, &log);
    let lost = log.append_with(1, b"lost", Level::Balanced).unwrap();
    log.wait(lost).unwrap();
    let mut ahead = elsewhere(&disk, Position::Start, Visibility::Written).unwrap();
    let mut behind = elsewhere(&disk, Position::Start, Visibility::Durable).unwrap();
    assert_eq!(ahead.next().unwrap().unwrap().lsn, kept);
    let between = ahead.position();
    assert_eq!(ahead.next().unwrap().unwrap().lsn, lost.lsn);
    assert_eq!(behind.next().unwrap().unwrap().lsn, kept);
    assert_eq!(behind.next().unwrap(), None);
    let ahead = ahead.position();
    let behind = behind.position();
    disk.drop_pending();
    let log = open(&disk);
    let again = strict(&log, b"another");
    idle(&disk, &log);
    let at = |(epoch, lsn): (Epoch, Lsn)| Position::Lsn { epoch: Some(epoch), lsn };
    for visibility in [Visibility::Durable, Visibility::Written] {
        let diverged = elsewhere(&disk, at(ahead), visibility);
        assert!(matches!(diverged, Err(Error::Diverged { by: Epoch(2), .. })), "{diverged:?}");
        assert!(matches!(log.reader(at(ahead), visibility), Err(Error::Diverged { .. })));
        for position in [behind, between] {
            let mut reader = elsewhere(&disk, at(position), visibility).unwrap();
            let entry = reader.next().unwrap().unwrap();
            assert_eq!((entry.lsn, entry.payload), (again, &b"another"[..]));
        }
    }
    let mut reader = log.reader(Position::Start, Visibility::Durable).unwrap();
    assert_eq!(reader.read(Epoch(1), kept).unwrap().unwrap().payload, b"kept");
    assert!(matches!(reader.read(Epoch(1), lost.lsn), Err(Error::Diverged { .. })));
    assert_eq!(reader.read(Epoch(2), again).unwrap().unwrap().payload, b"another");
    assert_eq!(reader.read(Epoch(2), Lsn(1 << 40)).unwrap(), None);
}

#[test]
fn reader_that_lives_through_a_repair_diverges_when_it_is_past_the_cut() {
    let disk = SimDisk::new(12);
    let log = some_log(&disk);
    let mut readers: Vec<_> = [10, 128]
        .map(|count| {
            let mut reader = elsewhere(&disk, Position::Start, Visibility::Durable).unwrap();
            for _ in 0..count {
                reader.next().unwrap().unwrap();
            }
            reader
        })
        .into();
    drop(log);
    let options = small().io(disk.process());
    let inspection = bulla_recovery::Inspection::read(Path::new(DIR), &options).unwrap();
    // Where the last segment begins: past the first reader, before the second.
    let live = inspection.segments().iter().filter_map(|segment| segment.live);
    let truncated_at = live.map(|(start, _)| start).next_back().unwrap();
    bulla_recovery::repair(Path::new(DIR), &options, RepairPlan { cut_at: truncated_at }).unwrap();
    let past = loop {
        match readers[1].next() {
            // It has read this before the repair.
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(past, Err(Error::Diverged { .. })), "{past:?}");
    let mut count = 10;
    while let Some(entry) = readers[0].next().unwrap() {
        count += 1;
        assert!(entry.lsn < truncated_at);
    }
    let recovery = Recovery::run(Path::new(DIR), &options).unwrap();
    assert_eq!(recovery.report().entries, count);
    let mut kept = 0;
    recovery
        .replay(Range::ALL, |_| {
            kept += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(kept, count);
}

#[test]
fn readers_follow_concurrent_appends_through_rotations_and_purges() {
    const ENTRIES: u64 = 20_000;
    for method in [Method::Direct, Method::Buffered] {
        let dir = temp_dir("follow");
        let path = dir.path().join("log");
        let options = Options::new().segment_len(256 * 1024).ring_len(64 * 1024).method(method);
        let log = Log::create(&path, &options).unwrap();
        let slowest = [const { AtomicU64::new(0) }; 4];
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for (index, slot) in slowest.iter().enumerate() {
                let visibility = if index < 2 { Visibility::Durable } else { Visibility::Written };
                let mut reader = if index % 2 == 0 {
                    log.reader(Position::Start, visibility).unwrap()
                } else {
                    let io = Arc::new(StdIo::new());
                    Reader::open(io, &path, Position::Start, visibility).unwrap()
                };
                scope.spawn(move || {
                    for seq in 1..=ENTRIES {
                        let entry = reader.wait_next(PATIENCE).unwrap().expect("within a minute");
                        assert_eq!(entry.seq.0, seq);
                        assert_eq!(entry.payload, payload_of(seq), "entry {seq}");
                        slot.store(reader.position().1.0, Ordering::Release);
                    }
                });
            }
            let (log, slowest, done) = (&log, &slowest, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let keep = slowest.iter().map(|slot| slot.load(Ordering::Acquire)).min();
                    log.purge(Lsn(keep.unwrap_or(0))).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            });
            for seq in 1..=ENTRIES {
                let level = Level::ALL[seq as usize % 3];
                let receipt = log.append_with(1, &payload_of(seq), level).unwrap();
                if seq % 500 == 0 {
                    log.wait(receipt).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        assert!(log.stats().rotations > 4, "the test is to rotate");
        assert!(log.low_water() > Lsn(0), "the test is to purge");
        // A reader must not have harmed the writer.
        log.close().unwrap();
    }
}

#[test]
fn waiting_reader_is_woken_by_an_entry_by_poison_and_by_the_end() {
    for end in ["poison", "close"] {
        let dir = temp_dir("woken");
        let (io, knobs) = WrapIo::new(StdIo::new());
        let options = Options::new().segment_len(256 * 1024).ring_len(64 * 1024).io(io);
        let log = Log::create(dir.path().join("log"), &options).unwrap();
        let mut reader = log.reader(Position::Start, Visibility::Written).unwrap();
        let start = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let entry = reader.wait_next(PATIENCE).unwrap().expect("woken by the entry");
                assert_eq!(entry.payload, b"an entry");
                match reader.wait_next(PATIENCE) {
                    Err(error) => error,
                    Ok(entry) => panic!("{entry:?}"),
                }
            });
            thread::sleep(Duration::from_millis(50));
            let receipt = log.append_with(1, b"an entry", Level::Strict).unwrap();
            log.wait(receipt).unwrap();
            thread::sleep(Duration::from_millis(50));
            if end == "poison" {
                knobs.fail.store(true, Ordering::Relaxed);
                let receipt = log.append_with(1, b"never", Level::Strict).unwrap();
                assert!(matches!(log.wait(receipt), Err(Error::Poisoned { .. })));
                assert!(matches!(waiting.join().unwrap(), Error::Poisoned { .. }));
            } else {
                log.close().unwrap();
                assert!(matches!(waiting.join().unwrap(), Error::Closed));
            }
        });
        assert!(start.elapsed() < PATIENCE, "woken, not timed out");
    }
}

#[test]
fn reader_that_waits_in_vain_comes_back_in_time() {
    let dir = temp_dir("in-vain");
    let path = dir.path().join("log");
    let log = Log::create(&path, &Options::new().segment_len(256 * 1024)).unwrap();
    let io = Arc::new(StdIo::new());
    let there = Reader::open(io, &path, Position::Start, Visibility::Durable).unwrap();
    let here = log.reader(Position::Start, Visibility::Durable).unwrap();
    for mut reader in [here, there] {
        let start = Instant::now();
        assert_eq!(reader.wait_next(Duration::from_millis(100)).unwrap(), None);
        assert!((100..10_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
