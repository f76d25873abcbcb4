//! What the bytes of segment files are said to be, against where the image put them.

use std::path::Path;

use bulla_recovery::{FrameRun, Inspection, Seal, SegmentBytes};
use bulla_storage::Lsn;
use bulla_storage::io::sim::SimDisk;

use super::image::{DIR, Image, contents, options, segment};

const SECTOR: u64 = 512;

fn image() -> Image {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).frame(&[900]).seal().rotate().frame(&[33]).frame(&[5]);
    image.rotate().frame(&[700]).durable_lsn().frame(&[9]);
    image
}

fn measured(disk: &SimDisk) -> Vec<SegmentBytes> {
    let before = contents(disk);
    let inspection = Inspection::read(Path::new(DIR), &options(disk)).expect("inspect");
    let measured = inspection.measure().expect("measure");
    assert!(contents(disk) == before, "a look changed something");
    let measured: Vec<_> = measured.into_iter().map(|bytes| bytes.expect("is there")).collect();
    for (bytes, report) in measured.iter().zip(inspection.segments()) {
        let SegmentBytes { header, live, dead, torn, unread, zero } = bytes;
        assert_eq!(header + live + dead + torn + unread + zero, report.file_len);
    }
    measured
}

/// Bytes of the image's frames in a segment, seals included.
fn frames(image: &Image, number: u64) -> u64 {
    image.frames.iter().filter(|at| at.segment == number).map(|at| at.len).sum()
}

fn whole(live: u64, len: u64) -> SegmentBytes {
    SegmentBytes { header: SECTOR, live, zero: len - SECTOR - live, ..SegmentBytes::default() }
}

#[test]
fn bytes_of_a_whole_log_are_live_or_zero() {
    let mut image = image();
    image.close().spare();
    let disk = image.disk();
    for (bytes, (number, file)) in measured(&disk).iter().zip(&image.files) {
        assert_eq!(*bytes, whole(frames(&image, *number), file.len() as u64), "{number}");
    }
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let seals: Vec<_> = inspection.segments().iter().map(|segment| segment.seal).collect();
    assert_eq!(seals, [Some(Seal::Rotated), None, Some(Seal::Closed), None]);
    for segment in inspection.segments() {
        let frames = image.frames.iter().filter(|at| at.segment == segment.number.0);
        let entries = frames.clone().map(|at| at.entries).sum();
        assert_eq!((segment.frames, segment.entries), (frames.count() as u64, entries));
    }
}

#[test]
fn bytes_behind_the_end_are_torn_also_in_a_spare() {
    let mut image = image();
    image.spare();
    let disk = image.disk();
    let at = image.frames.last().expect("frames").end();
    disk.flip(segment(3), at + 2 * SECTOR, 1);
    disk.flip(segment(4), 5 * SECTOR + 7, 1);
    let measured = measured(&disk);
    assert_eq!((measured[2].torn, measured[3].torn), (SECTOR, SECTOR));
    assert_eq!(measured[2].live, frames(&image, 3));
    assert!(measured.iter().all(|bytes| bytes.dead == 0 && bytes.unread == 0));
}

#[test]
fn bytes_that_a_later_epoch_replaces_are_dead() {
    let old = image();
    let mut image = old.clone();
    image.reopen(old.frames[4].lsn).frame(&[60]);
    let disk = image.disk();
    // As if the recovery had been cut short before it trimmed.
    for (number, bytes) in &old.files {
        disk.write_file(segment(*number), bytes);
    }
    let measured = measured(&disk);
    assert_eq!(measured[0], whole(frames(&old, 1), old.files[&1].len() as u64));
    for number in 2..=3 {
        let bytes = measured[number as usize - 1];
        assert_eq!(bytes.live, frames(&image, number), "{number}");
        assert_eq!(bytes.dead, frames(&old, number) - bytes.live, "{number}");
        assert_eq!((bytes.torn, bytes.unread), (0, 0));
    }
    assert_eq!(measured[3].live, frames(&image, 4));
}

#[test]
fn bytes_behind_damage_are_unread() {
    let image = image();
    let disk = image.disk();
    let hit = image.frames[1];
    disk.flip(segment(1), hit.offset + 70, 1);
    let found = measured(&disk);
    assert_eq!(found[0].live, hit.offset - SECTOR);
    assert_eq!(found[0].unread, frames(&image, 1) - found[0].live);
    assert_eq!(found[1].unread, frames(&image, 2));
    // A segment that does not fit is not even known to have a header.
    let disk = image.disk();
    disk.flip(segment(2), 40, 1);
    let found = measured(&disk);
    assert_eq!((found[0].live, found[0].unread), (frames(&image, 1), 0));
    assert_eq!((found[1].header, found[1].unread), (0, SECTOR + frames(&image, 2)));
}

#[test]
fn each_segment_says_what_became_of_it() {
    let states = |image: &Image| {
        let disk = image.disk();
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let segments = &inspection.report().segments;
        segments.iter().map(|segment| segment.state.name()).collect::<Vec<_>>()
    };
    let mut image = Image::new(512);
    image.frame(&[10]).seal().rotate().durable_lsn().frame(&[20]).seal().rotate().durable_lsn();
    assert_eq!(states(&image), ["live", "live", "live"]);
    image.spare();
    assert_eq!(states(&image), ["live", "live", "live", "spare"]);
    // All that the second one held went on in a later epoch.
    let mut image = Image::new(512);
    image.frame(&[10]).seal().rotate().frame(&[20]);
    image.reopen(image.frames[2].lsn).frame(&[30]);
    assert_eq!(states(&image), ["live", "replaced", "live"]);
}

/// The runs of frames of every segment, with what must be right of any.
fn runs(disk: &SimDisk) -> Vec<Vec<FrameRun>> {
    let inspection = Inspection::read(Path::new(DIR), &options(disk)).expect("inspect");
    let all: Vec<_> = inspection.frame_runs().map(<[_]>::to_vec).collect();
    assert_eq!(all.len(), inspection.segments().len());
    for (runs, segment) in all.iter().zip(inspection.segments()) {
        let (mut offset, mut lsn) = (SECTOR, runs.first().map_or(Lsn(0), |run| run.lsn));
        for run in runs {
            assert_eq!((run.offset, run.lsn), (offset, lsn), "a gap");
            assert!(run.data_frames <= run.frames && run.first_wall_ns <= run.last_wall_ns);
            (offset, lsn) = (run.offset + run.len, run.end);
        }
        let sum = |of: fn(&FrameRun) -> u64| runs.iter().map(of).sum::<u64>();
        assert_eq!(sum(|run| run.frames), segment.frames);
        assert_eq!(sum(|run| run.entries), segment.entries);
    }
    all
}

#[test]
fn runs_of_frames_are_the_frames_that_were_written() {
    let mut image = image();
    image.close().spare();
    let runs = runs(&image.disk());
    for (index, runs) in runs.iter().enumerate() {
        let frames = image.frames.iter().filter(|at| at.segment == index as u64 + 1);
        let frames: Vec<_> = frames.map(|at| (at.offset, at.len, at.lsn, at.durable_lsn)).collect();
        let found = runs.iter().map(|run| (run.offset, run.len, run.lsn, run.durable_lsn));
        assert_eq!(found.collect::<Vec<_>>(), frames);
        assert!(runs.iter().all(|run| run.frames == 1));
    }
}

#[test]
fn many_segments_share_the_runs_of_a_log() {
    let mut image = Image::new(512);
    for _ in 0..600 {
        (0..8).for_each(|_| {
            image.frame(&[8]);
        });
        image.seal().rotate();
    }
    let runs = runs(&image.disk());
    assert!(runs.iter().map(Vec::len).sum::<usize>() <= 2_048, "unbounded");
    assert!(runs.iter().take(600).all(|runs| (2..=3).contains(&runs.len())));
}
