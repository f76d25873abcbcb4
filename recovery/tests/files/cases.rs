//! Every case of the recovery table on a disk, with its verdict.
//!
//! The table itself is tested in `verdict.rs`; here the facts are gathered from real bytes.

use std::path::Path;

use bulla_recovery::{Case, Inspection, RepairPlan, SegmentState, Status, preview_repair};
use bulla_storage::format::Header;
use bulla_storage::io::sim::SimDisk;
use bulla_storage::{CorruptionKind, Lsn, SegmentNumber};

use super::hostile::{change_last_header, three};
use super::image::{DIR, Image, options, segment};

/// Frames of one entry each in one segment, with no durable mark.
fn unmarked(frames: usize) -> Image {
    let mut image = Image::new(512);
    for _ in 0..frames {
        image.frame(&[1200]);
    }
    image
}

/// A second epoch that rewrote everything from the fourth frame on.
fn reopened() -> Image {
    let mut image = three();
    image.reopen(image.frames[3].lsn).frame(&[60]);
    image
}

/// Overwrites 64 bytes of a frame: its header at offset 0, its body elsewhere.
fn spoil(image: &mut Image, frame: usize, offset: u64, byte: u8) {
    let at = image.frames[frame];
    let from = (at.offset + offset) as usize;
    let file = image.files.get_mut(&at.segment).expect("a segment");
    file[from..from + 64].fill(byte);
}

fn with_header(image: &Image, number: u64, change: impl FnOnce(&mut Header)) -> SimDisk {
    let mut header = image.headers[&number].clone();
    change(&mut header);
    let disk = image.disk();
    let mut bytes = image.files[&number].clone();
    let header = header.encode();
    bytes[..header.len()].copy_from_slice(&header);
    disk.write_file(segment(number), &bytes);
    disk
}

fn without(image: &Image, segments: &[u64]) -> SimDisk {
    let disk = image.disk();
    for number in segments {
        disk.remove_file(segment(*number));
    }
    disk
}

/// A log of which only CONTROL was created.
fn created() -> SimDisk {
    let image = Image::new(512);
    let disk = without(&image, &[1]);
    let mut control = image.control();
    let newest = image.newest_slot() as usize;
    control[newest..newest + 512].fill(0);
    disk.write_file(Path::new(DIR).join("CONTROL"), &control);
    disk
}

fn whole_and_torn() -> Vec<(&'static str, SimDisk)> {
    let mut closed = unmarked(1);
    closed.close();
    let mut torn_body = unmarked(2);
    spoil(&mut torn_body, 1, 600, 0xEE);
    let mut torn_header = unmarked(2);
    spoil(&mut torn_header, 1, 0, 0xEE);
    let mut gap = unmarked(3);
    spoil(&mut gap, 1, 0, 0);
    vec![
        ("new_log", created()),
        ("clean", three().disk()),
        ("clean_shutdown", closed.disk()),
        ("torn_tail", torn_body.disk()),
        ("torn_tail", torn_header.disk()),
        ("frames_beyond_gap", gap.disk()),
    ]
}

fn lost_frames() -> Vec<(&'static str, SimDisk)> {
    let mut before_mark = unmarked(1);
    before_mark.sync().frame(&[1200]);
    let mut torn_mark = before_mark.clone();
    spoil(&mut before_mark, 0, 0, 0);
    spoil(&mut torn_mark, 0, 600, 0xEE);
    spoil(&mut torn_mark, 1, 600, 0xEE);
    let mut epoch_start = unmarked(2);
    epoch_start.reopen(epoch_start.frames[1].lsn);
    let rewritten = epoch_start.files.get_mut(&2).expect("the new epoch");
    rewritten[512..].fill(0);
    let mut inside = unmarked(2);
    change_last_header(&mut inside, |frame| frame.durable_lsn = Lsn(512));
    let mut older = reopened();
    spoil(&mut older, 0, 0, 0xEE);
    vec![
        ("durable_frames_lost_before_mark", before_mark.disk()),
        ("durable_frames_lost_before_mark", torn_mark.disk()),
        ("durable_frames_lost", epoch_start.disk()),
        ("durable_mark_inside_frame", inside.disk()),
        ("older_epoch_cut_short", older.disk()),
    ]
}

fn wrong_segments() -> Vec<(&'static str, SimDisk)> {
    let three = three();
    let header_damaged = three.disk();
    header_damaged.flip(segment(2), 40, 1);
    let not_a_file = without(&three, &[2]);
    not_a_file.write_file(segment(2).join("inside"), b"a directory in its place");
    let behind = reopened();
    let control_behind = behind.disk();
    control_behind.flip(Path::new(DIR).join("CONTROL"), behind.newest_slot() + 20, 1);
    let epoch_start = |header: &mut Header, change: fn(&mut bulla_storage::format::EpochStart)| {
        change(header.epoch_start.as_mut().expect("an opening"));
    };
    vec![
        ("no_segment_left", without(&three, &[1, 2, 3])),
        ("segment_gap", without(&three, &[2])),
        ("successor_missing", without(&three, &[3])),
        ("segment_not_a_file", not_a_file),
        ("segment_header_damaged", header_damaged),
        ("segment_foreign", with_header(&three, 2, |header| header.log_id.0[0] ^= 1)),
        ("segment_misnumbered", with_header(&three, 2, |h| h.number = SegmentNumber(3))),
        ("segment_sector_size", with_header(&three, 2, |header| header.sector = 1024)),
        ("segment_epoch", with_header(&three, 2, |header| header.previous_nonce ^= 1)),
        (
            "segment_opening_out_of_log",
            with_header(&three, 1, |header| {
                epoch_start(header, |o| {
                    (o.base, o.replaces_from, o.truncated_at) = (Lsn(512), Lsn(512), Lsn(512));
                });
            }),
        ),
        (
            "opening_misfit",
            with_header(&reopened(), 4, |header| epoch_start(header, |o| o.first_seq.0 += 1)),
        ),
        ("control_behind", control_behind),
    ]
}

fn found(disk: &SimDisk) -> (Case, Status) {
    let inspection = Inspection::read(Path::new(DIR), &options(disk)).expect("inspect");
    (inspection.report().case, inspection.report().status.clone())
}

#[test]
fn report_names_the_case_that_decided() {
    for (name, disk) in whole_and_torn() {
        let (case, status) = found(&disk);
        assert_eq!(case.name(), name, "{status}");
        let torn = matches!(name, "torn_tail" | "frames_beyond_gap");
        assert_eq!(status, if torn { Status::TornTail } else { Status::Clean }, "{name}");
    }
    for (name, disk) in lost_frames().into_iter().chain(wrong_segments()) {
        let (case, status) = found(&disk);
        assert_eq!(case.name(), name, "{status}");
        assert!(matches!(status, Status::Corrupt(_)), "{name}: {status}");
    }
}

#[test]
fn missing_first_segment_beside_a_damaged_slot_is_told_as_either() {
    let control = Path::new(DIR).join("CONTROL");
    let image = three();
    for newest in [true, false] {
        let disk = without(&image, &[1]);
        disk.flip(&control, (16 * 1024 * u64::from(!newest)) ^ image.newest_slot(), 1);
        let Status::Corrupt(fault) = found(&disk).1 else { panic!("not corrupt") };
        assert!(matches!(fault.kind, CorruptionKind::ControlOrSegment(_)), "{fault}");
        assert_eq!(fault.segment, Some(SegmentNumber(1)));
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let plan = RepairPlan::keep_readable(inspection.report());
        let preview = preview_repair(Path::new(DIR), &options(&disk), plan).expect("a preview");
        let all = image.payloads.len() as u64;
        assert_eq!((preview.perhaps_lost, preview.lost_entries), (2, all - 2));
    }
    // An epoch that the other slot does not know proves that it is outdated.
    let image = reopened();
    let disk = without(&image, &[1]);
    disk.flip(&control, image.newest_slot() + 20, 1);
    let Status::Corrupt(fault) = found(&disk).1 else { panic!("not corrupt") };
    assert!(matches!(fault.kind, CorruptionKind::ControlSlot(_)) && fault.segment.is_none());
}

#[test]
fn segment_behind_damage_is_neither_spare_nor_replaced() {
    use SegmentState::{Live, Replaced, Unread};
    let image = reopened();
    for (frame, expected) in
        [(0, [Live, Unread, Replaced, Unread]), (2, [Live, Live, Replaced, Unread])]
    {
        let disk = image.disk();
        let at = image.frames[frame];
        disk.flip(segment(at.segment), at.offset + 3, 1);
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let report = inspection.report();
        assert!(matches!(report.status, Status::Corrupt(_)), "frame {frame}: {}", report.status);
        let states: Vec<_> = report.segments.iter().map(|segment| segment.state).collect();
        assert_eq!(states, expected, "frame {frame}");
    }
}
