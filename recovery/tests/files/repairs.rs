//! Repair: it keeps a copy, cuts where it is told, and the next open is clean.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{
    CutRefused, Inspection, Range, Recovery, RepairPlan, Report, Status, preview_repair, repair,
};
use bulla_storage::Lsn;
use bulla_storage::io::sim::{CrashKind, SimDisk};

use super::image::{DIR, Image, contents, options, segment};

fn three() -> Image {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).frame(&[3]).seal().rotate().frame(&[33]).frame(&[44]).seal().rotate();
    image.frame(&[5]).durable_lsn().frame(&[100]).sync().frame(&[4]);
    image
}

fn look(disk: &SimDisk) -> Report {
    Inspection::read(Path::new(DIR), &options(disk)).expect("inspect").report().clone()
}

/// Repairs what must be corrupt, and checks what is left.
fn repaired(image: &Image, disk: &SimDisk, cut_at: Option<Lsn>) -> u64 {
    let before = look(disk);
    assert!(matches!(before.status, Status::Corrupt(_)), "{before:#?}");
    let bytes = contents(disk);
    let plan = cut_at.map_or(RepairPlan::keep_readable(&before), |cut_at| RepairPlan { cut_at });
    let preview = preview_repair(Path::new(DIR), &options(disk), plan).expect("preview");
    assert!(contents(disk) == bytes, "a preview changed something");
    let report = repair(Path::new(DIR), &options(disk), plan).expect("repair");
    // It cut the files that it had said, to the length that it had said, and no others.
    let lens = |files: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        let files = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
        files.map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect::<Vec<_>>()
    };
    let mut expected = lens(&bytes);
    expected.retain(|(path, _)| !preview.removed.iter().any(|number| *path == segment(number.0)));
    for (path, len) in &mut expected {
        let cut = preview.cut.iter().find(|file| *path == segment(file.number.0));
        assert!(cut.is_none_or(|file| file.from_len == *len));
        *len = cut.map_or(*len, |file| file.to_len);
    }
    let mut left = lens(&contents(disk));
    left.retain(|(path, _)| !path.starts_with(Path::new(DIR).join("quarantine")));
    left.retain(|(path, _)| expected.iter().any(|(expected, _)| expected == path));
    assert_eq!(left, expected);
    disk.drop_pending();
    // Whatever changed is in a copy.
    for (path, old) in bytes.iter().filter(|(path, _)| !path.ends_with("CONTROL")) {
        let now = contents(disk).remove(path);
        if now.as_ref() != Some(old) {
            let copied = report.copies.iter().any(|copy| disk.read_file(copy) == *old);
            assert!(copied, "{} changed and has no copy: {:?}", path.display(), report.copies);
        }
    }
    let after = look(disk);
    assert_eq!(after.status, Status::Clean, "{after:#?}");
    assert_eq!(after.last_lsn, plan.cut_at);
    let recovery = Recovery::run(Path::new(DIR), &options(disk)).expect("recover");
    let stats = recovery.replay(Range::ALL, |entry| {
        assert_eq!(entry.payload, image.payloads[&entry.seq.0]);
        ControlFlow::Continue(())
    });
    let entries = stats.expect("replay").entries;
    assert_eq!(entries, after.entries);
    // It did what it had said.
    assert_eq!((preview.kept_entries, preview.first_lost), (entries, after.next_seq));
    assert!(preview.lost_intact <= preview.lost_entries, "{preview:?}");
    assert!(preview.lost_intact >= before.entries - entries, "what can be read is intact");
    assert!(entries + preview.lost_entries <= image.payloads.len() as u64, "{preview:?}");
    assert_eq!(preview.removed, report.removed);
    entries
}

#[test]
fn damaged_frame_is_cut_off_with_all_that_follows() {
    let image = three();
    for (index, entries) in [(0, 0), (1, 2), (3, 3), (4, 4), (6, 5), (7, 6)] {
        let at = image.frames[index];
        let disk = image.disk();
        disk.flip(segment(at.segment), at.offset + 65, 8);
        assert_eq!(repaired(&image, &disk, None), entries, "frame {index}");
    }
}

#[test]
fn plan_counts_what_it_gives_up_and_what_of_that_is_intact() {
    let image = three();
    let all = image.payloads.len() as u64;
    let plan_for = |damage: &dyn Fn(&SimDisk)| {
        let disk = image.disk();
        damage(&disk);
        let plan = RepairPlan::keep_readable(&look(&disk));
        preview_repair(Path::new(DIR), &options(&disk), plan).expect("a preview")
    };
    let mut intact_behind = 0;
    for at in image.frames.iter().filter(|at| at.entries > 0) {
        for (offset, entries) in [(at.offset + 65, at.entries), (at.offset + 20, at.entries)] {
            let preview = plan_for(&|disk| disk.flip(segment(at.segment), offset, 8));
            let is_last = preview.kept_entries + entries == all;
            let of_it = preview.kept_entries + preview.lost_entries;
            assert!(of_it == all || is_last && offset < at.offset + 64, "{preview:?}");
            assert_eq!(preview.kept_entries + entries + preview.lost_intact, all, "{preview:?}");
            intact_behind += preview.lost_intact;
        }
    }
    assert!(intact_behind > 0);
    let in_second: u64 =
        image.frames.iter().filter(|at| at.segment == 2).map(|at| at.entries).sum();
    for header_alone in [true, false] {
        let preview = plan_for(&|disk| match header_alone {
            true => disk.flip(segment(2), 40, 8),
            false => disk.remove_file(segment(2)),
        });
        assert_eq!(preview.kept_entries + preview.lost_entries, all, "{preview:?}");
        assert_eq!(preview.lost_entries - preview.lost_intact, in_second, "{preview:?}");
    }
}

#[test]
fn damaged_header_or_missing_segment_ends_the_log_there() {
    let image = three();
    for (number, entries) in [(1, 0), (2, 3), (3, 5)] {
        let disk = image.disk();
        disk.flip(segment(number), 40, 8);
        assert_eq!(repaired(&image, &disk, None), entries, "header {number}");
        let disk = image.disk();
        disk.remove_file(segment(number));
        assert_eq!(repaired(&image, &disk, None), entries, "missing {number}");
    }
}

#[test]
fn damaged_opening_keeps_what_older_epochs_hold() {
    let mut image = three();
    image.reopen(image.frames[4].lsn).frame(&[60]).sync().frame(&[61]);
    let disk = image.disk();
    disk.flip(segment(4), 30, 8);
    assert_eq!(repaired(&image, &disk, None), 4);
}

#[test]
fn control_that_fell_behind_its_segments_loses_nothing() {
    let mut image = three();
    image.reopen(image.frames[4].lsn).frame(&[60]).sync().frame(&[61]);
    let disk = image.disk();
    disk.flip(Path::new(DIR).join("CONTROL"), image.newest_slot() + 30, 8);
    assert_eq!(repaired(&image, &disk, None), image.payloads.len() as u64);
}

#[test]
fn cut_below_what_is_readable_is_obeyed() {
    let image = three();
    let disk = image.disk();
    disk.flip(segment(3), image.frames[6].offset + 3, 1);
    assert_eq!(repaired(&image, &disk, Some(image.frames[1].lsn)), 2);
}

#[test]
fn impossible_cut_is_refused_and_changes_nothing() {
    let mut image = three();
    image.frame(&[900]);
    let disk = image.disk();
    let before = contents(&disk);
    let end = image.lsn;
    for (cut_at, reason) in [
        (end.plus(512), CutRefused::PastEnd(end)),
        (Lsn(end.0 - 512), CutRefused::InsideFrame(Lsn(end.0 - 1024))),
        (Lsn(1), CutRefused::InsideFrame(Lsn(0))),
    ] {
        let error = repair(Path::new(DIR), &options(&disk), RepairPlan { cut_at }).map(drop);
        let Err(bulla_recovery::RepairError::Cut { reason: found, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(found, reason);
        assert!(contents(&disk) == before);
    }
}

#[test]
fn repair_can_crash_at_any_step_and_be_run_again() {
    let image = three();
    for damage in 0..3 {
        let disk = image.disk();
        match damage {
            0 => disk.flip(segment(2), image.frames[4].offset + 65, 8),
            1 => disk.flip(segment(2), 40, 8),
            _ => disk.remove_file(segment(2)),
        }
        let plan = RepairPlan::keep_readable(&look(&disk));
        let mut steps = 0;
        loop {
            let victim = disk.fork(steps);
            victim.crash_after(steps, CrashKind::PowerLoss);
            let done = repair(Path::new(DIR), &options(&victim), plan).is_ok();
            victim.disarm();
            victim.power_loss();
            let context = format!("damage {damage}, step {steps}");
            if matches!(look(&victim).status, Status::Corrupt(_)) {
                assert!(!done, "{context}");
                repair(Path::new(DIR), &options(&victim), plan).expect(&context);
            }
            let after = look(&victim);
            assert_eq!((after.status, after.last_lsn), (Status::Clean, plan.cut_at), "{context}");
            if done {
                break;
            }
            steps += 1;
        }
        assert!(steps > 10);
    }
}
