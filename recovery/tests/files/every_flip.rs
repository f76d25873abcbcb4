//! Every single-byte flip and every truncation of small three-segment logs: the verdict
//! is the one that the layout implies, and a refusal changes nothing.
//!
//! The expectation is worked out here from where the frames are, never from a scan.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_recovery::{Inspection, Range, Recovery, Report, Status};
use bulla_storage::format::{FRAME_HEADER_LEN, FrameKind};
use bulla_storage::io::sim::SimDisk;
use bulla_storage::{CorruptionKind, Lsn};

use super::image::{At, DIR, Image, contents, options, segment};

/// What damage left of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Whole,
    /// Not valid, but its header is.
    Header,
    /// Not even its header, but something.
    Debris,
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Clean,
    Torn,
    Corrupt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    verdict: Verdict,
    x: Lsn,
    entries: u64,
    /// Of a corruption: segment and offset where the log can't be read on. No offset
    /// when it is the segment's header, or all of it.
    place: Option<(u64, Option<u64>)>,
}

/// The rule, from the layout: X is the first frame that is not whole, D the highest
/// durable mark of the newest epoch that can still be read.
fn expect(image: &Image, left: impl Fn(&At) -> Left, junk: bool) -> Expected {
    let in_order: Vec<&At> =
        image.frames.iter().filter(|at| at.kind != FrameKind::SegmentEnd).collect();
    let whole = in_order.iter().take_while(|at| left(at) == Left::Whole).count();
    let x = in_order.get(whole).map_or(image.lsn, |at| at.lsn);
    let entries = in_order[..whole].iter().map(|at| at.entries).sum();
    let newest = image.frames.iter().filter(|at| at.epoch == image.epoch);
    let epoch_start = image
        .headers
        .values()
        .filter(|header| header.epoch.0 == image.epoch)
        .find_map(|header| header.epoch_start.as_ref());
    let d = newest
        .clone()
        .filter(|at| matches!(left(at), Left::Whole | Left::Header))
        .map(|at| at.durable_lsn)
        .chain(epoch_start.map(|epoch_start| epoch_start.truncated_at))
        .max()
        .expect("an opening");
    let something = newest
        .filter(|at| at.lsn >= x && at.kind != FrameKind::SegmentEnd)
        .any(|at| left(at) != Left::Nothing);
    let verdict = if x < d {
        Verdict::Corrupt
    } else if something || junk {
        Verdict::Torn
    } else {
        Verdict::Clean
    };
    let place = in_order.get(whole).map(|missing| place_of(image, missing, &left));
    Expected { verdict, x, entries, place }.of_a_corruption()
}

/// Where a reader that comes from the frames before finds that `missing` is not there.
/// Behind a seal, and where an epoch begins, that is its own place. Else the frame could
/// as well have been behind the last one in the segment before.
fn place_of(image: &Image, missing: &At, left: &impl Fn(&At) -> Left) -> (u64, Option<u64>) {
    let sector = u64::from(image.sector);
    let before = image.frames.iter().filter(|at| at.segment + 1 == missing.segment);
    let sealed =
        before.clone().any(|at| at.kind == FrameKind::SegmentEnd && left(at) == Left::Whole);
    let begins = image.headers[&missing.segment].epoch_start.is_some();
    if missing.offset > sector || sealed || begins {
        return (missing.segment, Some(missing.offset));
    }
    let frames = before.filter(|at| at.kind != FrameKind::SegmentEnd);
    (missing.segment - 1, frames.map(At::end).max().or(Some(sector)))
}

/// One epoch; two rotations, one with and one without a seal; a durable beginning of
/// the third segment, and a tail that nobody vouches for.
fn one_epoch(sector: u32) -> Image {
    let mut image = Image::new(sector);
    image.frame(&[10, 300]).sync().frame(&[40]);
    if sector == 512 {
        image.frame(&[900, 1, 0]).frame(&[64, 64]);
    }
    image.seal().rotate().frame(&[33]).sync().frame(&[500, 500]);
    image.rotate().frame(&[5]).durable_lsn().frame(&[100]);
    if sector == 512 {
        image.frame(&[700, 7]).frame(&[9]);
    }
    image
}

/// The third segment opens a second epoch, with a tail that was re-homed.
fn two_epochs(sector: u32) -> Image {
    let mut image = Image::new(sector);
    image.frame(&[10, 300]).frame(&[40]).seal().rotate().frame(&[33]).frame(&[500]);
    let durable = image.frames[3].lsn;
    image.reopen(durable).frame(&[77]);
    if sector == 512 {
        image.frame(&[600]);
    }
    image
}

/// Closed in order, with a spare behind.
fn closed(sector: u32) -> Image {
    let mut image = Image::new(sector);
    image.frame(&[10, 300]).seal().rotate().frame(&[33]).close().spare();
    image
}

/// Idle at last: its end is a durable mark that nothing proves.
fn idle(sector: u32) -> Image {
    let mut image = Image::new(sector);
    image.frame(&[10]).seal().rotate().frame(&[300]).durable_lsn();
    image
}

fn images(sector: u32) -> [(&'static str, Image); 4] {
    [
        ("one epoch", one_epoch(sector)),
        ("two epochs", two_epochs(sector)),
        ("closed", closed(sector)),
        ("idle", idle(sector)),
    ]
}

fn check(context: &str, image: &Image, disk: &SimDisk, expected: Expected, thorough: bool) {
    let before = contents(disk);
    let inspection = Inspection::read(Path::new(DIR), &options(disk));
    let inspection = inspection.unwrap_or_else(|error| panic!("{context}: {error}"));
    let report = inspection.report();
    let verdict = match &report.status {
        Status::Clean => Verdict::Clean,
        Status::TornTail => Verdict::Torn,
        Status::Corrupt(_) => Verdict::Corrupt,
    };
    let place = inspection_place(&report.status);
    let found = Expected { verdict, x: report.last_lsn, entries: report.entries, place };
    assert_eq!(found, expected, "{context}: {report:#?}");
    let stats = inspection.replay(Range::ALL, |entry| {
        assert_eq!(entry.payload, image.payloads[&entry.seq.0], "{context}");
        ControlFlow::Continue(())
    });
    assert_eq!(stats.expect("replay").entries, expected.entries, "{context}");
    replay_in_one_pass(context, image, disk, expected, report);
    assert!(contents(disk) == before, "{context}: an inspection changed something");
    if expected.verdict == Verdict::Corrupt {
        let error = Recovery::run(Path::new(DIR), &options(disk)).expect_err("must refuse");
        assert!(error.corruption().is_some(), "{context}: {error}");
        assert!(contents(disk) == before, "{context}: a refusal changed something");
    } else if thorough {
        recover(context, image, &disk.fork(3), expected);
    }
}

/// Without a look before it the same entries are given, and the same corruption after them.
fn replay_in_one_pass(
    context: &str,
    image: &Image,
    disk: &SimDisk,
    expected: Expected,
    looked: &Report,
) {
    let mut given = 0;
    let result = bulla_recovery::replay(Path::new(DIR), &options(disk), Range::ALL, |entry| {
        assert_eq!(entry.payload, image.payloads[&entry.seq.0], "{context}");
        given += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(given, expected.entries, "{context}");
    match result {
        Ok(stats) => {
            assert_ne!(expected.verdict, Verdict::Corrupt, "{context}");
            assert_eq!(stats.entries, given, "{context}");
        }
        Err(error) => {
            assert_eq!(expected.verdict, Verdict::Corrupt, "{context}: {error}");
            let corruption = error.corruption().unwrap_or_else(|| panic!("{context}: {error}"));
            let status = Status::Corrupt(corruption.clone());
            assert_eq!(inspection_place(&status), expected.place, "{context}");
            let Status::Corrupt(found) = &looked.status else { panic!("{context}: {looked:#?}") };
            let header = corruption.segment.and_then(|number| image.headers.get(&number.0));
            if header.is_some_and(|header| header.epoch.0 == image.epoch) {
                assert_eq!(corruption.durable, found.durable, "{context}");
            }
        }
    }
}

/// What a corruption names; it never names a place without the position that is lost.
fn inspection_place(status: &Status) -> Option<(u64, Option<u64>)> {
    let Status::Corrupt(corruption) = status else { return None };
    if matches!(corruption.kind, CorruptionKind::Frame(_)) {
        assert!(corruption.lsn.is_some() && corruption.lsn < corruption.durable, "{corruption:?}");
    }
    Some((corruption.segment?.0, corruption.offset))
}

/// Recovers, and looks again after a power loss: what was shown must still be there.
fn recover(context: &str, image: &Image, disk: &SimDisk, expected: Expected) {
    let recovery = Recovery::run(Path::new(DIR), &options(disk));
    let recovery = recovery.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut shown = 0;
    let each = |entry: &bulla_recovery::EntryView<'_>| {
        assert_eq!(entry.payload, image.payloads[&entry.seq.0], "{context}");
        shown += 1;
        ControlFlow::Continue(())
    };
    recovery.replay(Range::ALL, each).expect("replay");
    assert_eq!(shown, expected.entries, "{context}");
    disk.drop_pending();
    drop(recovery);
    let again = Inspection::read(Path::new(DIR), &options(disk)).expect("inspect");
    assert_eq!(again.report().status, Status::Clean, "{context}: {:#?}", again.report());
    assert_eq!(again.report().last_lsn, expected.x, "{context}");
    assert_eq!(again.report().entries, expected.entries, "{context}");
}

fn flip_expectation(image: &Image, number: u64, offset: u64) -> Expected {
    let whole = expect(image, |_| Left::Whole, false);
    if offset < u64::from(image.sector) {
        // The frames of the segments before it, as far as none replaces them.
        let at = image.frames.iter().find(|at| at.segment >= number);
        let entries =
            image.frames.iter().filter(|at| at.segment < number).map(|at| at.entries).sum();
        let x = at.map_or(image.lsn, |at| at.lsn);
        let place = Some((number, None));
        return Expected { verdict: Verdict::Corrupt, x, entries, place };
    }
    let hit = |at: &At| at.segment == number && (at.offset..at.end()).contains(&offset);
    if image.frames.iter().any(hit) {
        let left = |at: &At| match hit(at) {
            true if offset < at.offset + FRAME_HEADER_LEN => Left::Debris,
            true => Left::Header,
            false => Left::Whole,
        };
        return expect(image, left, false);
    }
    // Behind the last frame nothing may be; behind an earlier segment's nothing counts.
    let last = image.frames.iter().map(|at| at.segment).max();
    expect(image, |_| Left::Whole, Some(number) >= last).min_entries(whole)
}

impl Expected {
    /// Only a corruption has a place.
    fn of_a_corruption(self) -> Self {
        Self { place: self.place.filter(|_| self.verdict == Verdict::Corrupt), ..self }
    }

    fn min_entries(self, other: Self) -> Self {
        assert_eq!((self.x, self.entries), (other.x, other.entries));
        self
    }
}

fn every_flip(sector: u32) {
    let mut seen = [0_u64; 3];
    for (name, image) in images(sector) {
        let disk = image.disk();
        for (number, bytes) in &image.files {
            for offset in 0..bytes.len() as u64 {
                // Another bit for each byte.
                let mask = 1 << (offset.wrapping_mul(0x9E37_79B9) >> 7 & 7);
                let expected = flip_expectation(&image, *number, offset);
                disk.flip(segment(*number), offset, mask);
                let context = format!("{name}, sector {sector}, {number}.seg byte {offset}");
                check(&context, &image, &disk, expected, offset % 97 == 0);
                disk.flip(segment(*number), offset, mask);
                seen[expected.verdict as usize] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn every_flip_gets_the_verdict_of_the_layout_with_small_sectors() {
    every_flip(512);
}

#[test]
fn every_flip_gets_the_verdict_of_the_layout_with_large_sectors() {
    every_flip(4096);
}

#[test]
fn every_flip_of_control_falls_back_or_is_refused() {
    for (name, image) in images(512) {
        let disk = image.disk();
        let control: PathBuf = Path::new(DIR).join("CONTROL");
        let whole = expect(&image, |_| Left::Whole, false);
        let newest = image.newest_slot();
        for offset in 0..image.control().len() as u64 {
            disk.flip(&control, offset, 0x10);
            let in_newest = (newest..newest + u64::from(image.sector)).contains(&offset);
            // The older slot knows nothing of the second epoch.
            let behind = in_newest && image.epoch > 1;
            let verdict = if behind { Verdict::Corrupt } else { whole.verdict };
            // It is CONTROL that is damaged, not the segments of that epoch.
            let place = whole.place.filter(|_| !behind);
            let expected = Expected { verdict, place, ..whole };
            check(
                &format!("{name}, CONTROL byte {offset}"),
                &image,
                &disk,
                expected,
                offset % 61 == 0,
            );
            disk.flip(&control, offset, 0x10);
        }
    }
}

fn truncation_expectation(image: &Image, number: u64, len: u64) -> Expected {
    if len < u64::from(image.sector) {
        return flip_expectation(image, number, 0);
    }
    let left = |at: &At| {
        if at.segment != number || at.end() <= len {
            Left::Whole
        } else if at.offset + FRAME_HEADER_LEN <= len {
            Left::Header
        } else if at.offset < len {
            Left::Debris
        } else {
            Left::Nothing
        }
    };
    expect(image, left, false)
}

#[test]
fn every_truncation_gets_the_verdict_of_the_layout() {
    for sector in [512, 4096] {
        for (name, image) in images(sector) {
            let disk = image.disk();
            for (number, bytes) in &image.files {
                for len in 0..bytes.len() {
                    disk.write_file(segment(*number), &bytes[..len]);
                    let expected = truncation_expectation(&image, *number, len as u64);
                    let context = format!("{name}, sector {sector}, {number}.seg cut to {len}");
                    check(&context, &image, &disk, expected, len % 97 == 0);
                }
                disk.write_file(segment(*number), bytes);
            }
        }
    }
}
