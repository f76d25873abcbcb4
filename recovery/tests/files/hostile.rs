//! A hostile directory: a typed error or the right result, in bounded memory.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{
    EntryView, Error, Evidence, Inspection, Proof, Range, Recovery, Status, open,
};
use bulla_storage::files::recovered::create;
use bulla_storage::format::{FRAME_HEADER_LEN, FormatError, Frame, FrameKind, Header};
use bulla_storage::io::sim::SimDisk;
use bulla_storage::{CorruptionKind, FrameDamage, Lsn, Options, SegmentNumber};

use super::image::{DIR, Image, SEGMENT_LEN, contents, options, segment};

/// Three segments of one epoch, all but the last sealed.
pub(crate) fn three() -> Image {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).seal().rotate().frame(&[33]).frame(&[44]).seal().rotate();
    image.frame(&[5]).durable_lsn().frame(&[100]);
    image
}

fn inspect(disk: &SimDisk) -> Result<Inspection, Error> {
    Inspection::read(Path::new(DIR), &options(disk))
}

/// Refused by recovery, with nothing changed; the kind of corruption.
fn refused(disk: &SimDisk) -> CorruptionKind {
    let before = contents(disk);
    let error = Recovery::run(Path::new(DIR), &options(disk)).expect_err("must refuse");
    assert!(contents(disk) == before, "a refusal changed something");
    let kind = error.corruption().unwrap_or_else(|| panic!("no corruption: {error}")).kind;
    let report = inspect(disk).expect("inspect").report().clone();
    assert!(matches!(report.status, Status::Corrupt(found) if found.kind == kind));
    kind
}

fn recovered_entries(disk: &SimDisk, image: &Image) -> u64 {
    let recovery = Recovery::run(Path::new(DIR), &options(disk)).expect("recover");
    let stats = recovery.replay(Range::ALL, |entry| {
        assert_eq!(entry.payload, image.payloads[&entry.seq.0]);
        ControlFlow::Continue(())
    });
    stats.expect("replay").entries
}

/// Changes the header of the last frame, with the CRC renewed.
pub(crate) fn change_last_header(image: &mut Image, change: impl FnOnce(&mut Frame)) {
    let at = *image.frames.last().expect("a frame");
    let mut frame = image.decode(&at);
    change(&mut frame);
    let (bytes, _) = frame.encode(image.headers[&at.segment].seed());
    let file = image.files.get_mut(&at.segment).expect("a segment");
    file[at.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
}

#[test]
fn length_of_4_gib_is_never_believed() {
    let mut wrong_crc = three();
    let at = *wrong_crc.frames.last().expect("a frame");
    let file = wrong_crc.files.get_mut(&at.segment).expect("a segment");
    file[at.offset as usize + 8..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut right_crc = three();
    change_last_header(&mut right_crc, |frame| frame.body_len = u32::MAX - 7);
    let mut longer_than_file = three();
    change_last_header(&mut longer_than_file, |frame| frame.body_len = 60 * 1024 * 1024);
    for image in [wrong_crc, right_crc, longer_than_file] {
        let disk = image.disk();
        let inspection = inspect(&disk).expect("inspect");
        assert_eq!(inspection.report().status, Status::TornTail);
        assert_eq!(recovered_entries(&disk, &image), 5);
    }
}

#[test]
fn body_that_lies_about_its_entries_is_no_frame() {
    for lie in [0_u32, 2, u32::MAX] {
        let mut image = three();
        change_last_header(&mut image, |frame| frame.entry_count = lie);
        let inspection = inspect(&image.disk()).expect("inspect");
        assert_eq!(inspection.report().status, Status::TornTail, "{lie}");
        assert_eq!(inspection.report().entries, 5);
    }
}

#[test]
fn newer_version_is_unsupported_not_corrupt() {
    for (path, version_at) in [(Path::new(DIR).join("CONTROL"), 12), (segment(2), 12)] {
        let disk = three().disk();
        let mut bytes = disk.read_file(&path);
        let is_control = path.ends_with("CONTROL");
        let slots = if is_control { vec![0, 16 * 1024] } else { vec![0] };
        for slot in slots {
            bytes[slot + version_at..][..4].copy_from_slice(&2_u32.to_le_bytes());
            let crc = crc32(&bytes[slot + 12..slot + 512]);
            bytes[slot + 8..][..4].copy_from_slice(&crc.to_le_bytes());
        }
        disk.write_file(&path, &bytes);
        let before = contents(&disk);
        for error in [
            inspect(&disk).map(drop).expect_err("unsupported"),
            Recovery::run(Path::new(DIR), &options(&disk)).map(drop).expect_err("unsupported"),
        ] {
            let Error::Unsupported { reason, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(reason, FormatError::Version(2));
        }
        assert!(contents(&disk) == before);
    }
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}

#[test]
fn segment_with_another_sector_is_refused() {
    let mut image = three();
    let mut header = image.headers[&2].clone();
    header.sector = 4096;
    let bytes = header.encode();
    image.files.get_mut(&2).expect("a segment")[..4096].copy_from_slice(&bytes);
    assert_eq!(refused(&image.disk()), CorruptionKind::SectorSize);
}

#[test]
fn segments_that_are_not_where_they_belong_are_refused() {
    let image = three();
    let swapped = image.disk();
    swapped.write_file(segment(1), &image.files[&2]);
    swapped.write_file(segment(2), &image.files[&1]);
    assert_eq!(refused(&swapped), CorruptionKind::SegmentNumber);

    let duplicated = image.disk();
    duplicated.write_file(segment(4), &image.files[&3]);
    assert_eq!(refused(&duplicated), CorruptionKind::SegmentNumber);

    let mut other = three();
    other.log_id.0[0] ^= 1;
    let mut header = other.headers[&2].clone();
    header.log_id = other.log_id;
    let foreign = image.disk();
    let mut bytes = image.files[&2].clone();
    bytes[..512].copy_from_slice(&header.encode());
    foreign.write_file(segment(2), &bytes);
    assert_eq!(refused(&foreign), CorruptionKind::ForeignSegment);
}

#[test]
fn missing_segment_is_refused() {
    for (number, kind) in [
        (1, CorruptionKind::SegmentMissing),
        (2, CorruptionKind::SegmentMissing),
        // The seal of segment 2 says that there was a third.
        (3, CorruptionKind::SegmentMissing),
    ] {
        let disk = three().disk();
        disk.remove_file(segment(number));
        assert_eq!(refused(&disk), kind, "segment {number}");
    }
    let disk = three().disk();
    for number in 1..=3 {
        disk.remove_file(segment(number));
    }
    // CONTROL was written after its creation, so there were segments.
    assert_eq!(refused(&disk), CorruptionKind::SegmentMissing);
    let mut image = three();
    image.reopen(image.frames[3].lsn);
    let disk = image.disk();
    for number in 1..=4 {
        disk.remove_file(segment(number));
    }
    assert_eq!(refused(&disk), CorruptionKind::SegmentMissing);
}

#[test]
fn segments_without_control_are_refused() {
    let disk = three().disk();
    disk.remove_file(Path::new(DIR).join("CONTROL"));
    let before = contents(&disk);
    for error in [
        inspect(&disk).map(drop).expect_err("refused"),
        open(Path::new(DIR), &options(&disk)).map(drop).expect_err("refused"),
    ] {
        assert_eq!(error.corruption().expect("corrupt").kind, CorruptionKind::ControlMissing);
    }
    assert!(contents(&disk) == before);
}

#[test]
fn stale_segment_of_an_older_epoch_is_refused() {
    let mut image = three();
    let old = image.files[&3].clone();
    image.reopen(image.frames[3].lsn).frame(&[60]).sync().frame(&[61]);
    // An old copy in the place of the segment that opens the new epoch.
    let disk = image.disk();
    disk.write_file(segment(4), &old);
    assert_eq!(refused(&disk), CorruptionKind::SegmentNumber);
    // An old copy of a trimmed segment: what it holds is replaced, and is ignored.
    let disk = image.disk();
    disk.write_file(segment(3), &old);
    let report = inspect(&disk).expect("inspect").report().clone();
    assert_eq!((report.status, report.entries), (Status::Clean, 8), "{:#?}", report.evidence);
    assert_eq!(recovered_entries(&disk, &image), 8);
}

#[test]
fn segment_that_names_another_predecessor_is_refused() {
    let mut image = three();
    image.reopen(image.frames[3].lsn).frame(&[60]).sync().frame(&[61]);
    // In the middle of an epoch, and where the next one opens.
    for number in [2, 4] {
        let mut image = image.clone();
        let mut header = image.headers[&number].clone();
        header.previous_nonce ^= 1;
        let bytes = image.files.get_mut(&number).expect("a segment");
        bytes[..image.sector as usize].copy_from_slice(&header.encode());
        assert_eq!(refused(&image.disk()), CorruptionKind::Epoch, "segment {number}");
    }
}

#[test]
fn segment_that_continues_no_epoch_and_opens_none_is_refused() {
    let mut image = three();
    image.reopen(image.frames[3].lsn).frame(&[60]);
    image.reopen(image.lsn).frame(&[61]);
    type Change = fn(&mut Image, u64);
    let changes: [(u64, Change); 3] = [
        // An opening in the middle of its epoch.
        (2, |image, at| {
            let epoch_start = image.headers[&1].epoch_start.clone();
            image.headers.get_mut(&at).expect("a header").epoch_start = epoch_start;
        }),
        // A new epoch without one.
        (4, |image, at| image.headers.get_mut(&at).expect("a header").epoch_start = None),
        // An epoch that is older than the one before.
        (5, |image, at| {
            let oldest =
                Header { nonce: 1, epoch: image.headers[&1].epoch, ..image.headers[&at].clone() };
            image.headers.insert(at, oldest);
        }),
    ];
    for (number, change) in changes {
        let mut image = image.clone();
        change(&mut image, number);
        let header = image.headers[&number].encode();
        image.files.get_mut(&number).expect("a segment")[..512].copy_from_slice(&header);
        assert_eq!(refused(&image.disk()), CorruptionKind::Epoch, "segment {number}");
    }
}

#[test]
fn epoch_that_does_not_go_on_where_the_log_ends_is_refused() {
    let mut image = three();
    let end = image.lsn;
    image.reopen(end).frame(&[60]);
    let disk = image.disk();
    let mut header = image.headers[&4].clone();
    header.epoch_start.as_mut().expect("an opening").first_seq.0 += 1;
    let mut bytes = image.files[&4].clone();
    bytes[..512].copy_from_slice(&header.encode());
    disk.write_file(segment(4), &bytes);
    assert_eq!(refused(&disk), CorruptionKind::EpochStart);
    // Its first frame, below no durable mark, is none when it continues another one.
    change_last_header(&mut image, |frame| frame.prev_crc ^= 1);
    let report = inspect(&image.disk()).expect("inspect").report().clone();
    assert_eq!((report.status, report.last_lsn), (Status::TornTail, end));
    let damaged = report.evidence.into_iter().find_map(|evidence| match evidence {
        Evidence::Damaged { segment, offset, damage, .. } => Some((segment.0, offset, damage)),
        _ => None,
    });
    assert_eq!(damaged, Some((4, 512, FrameDamage::PrevCrc)));
}

#[test]
fn nothing_behind_the_seal_of_a_closed_log_is_read() {
    let mut image = Image::new(512);
    image.frame(&[10]).close();
    let end = image.lsn;
    image.rotate().frame(&[20]);
    let report = inspect(&image.disk()).expect("inspect").report().clone();
    assert_eq!((report.status, report.entries), (Status::TornTail, 1));
    assert_eq!(report.last_lsn, end);
}

#[test]
fn damaged_seal_is_told_and_ignored_when_its_segment_has_a_successor() {
    let mut image = Image::new(512);
    image.frame(&[10]).seal().rotate().frame(&[20]);
    let seal = image.frames[1];
    let ignored = |disk: &SimDisk| {
        let report = inspect(disk).expect("inspect").report().clone();
        assert_eq!(report.status, Status::Clean, "{report:#?}");
        let ignored = report.evidence.into_iter().filter_map(|evidence| match evidence {
            Evidence::Ignored { segment, offset, .. } => Some((segment.0, offset)),
            _ => None,
        });
        ignored.collect::<Vec<_>>()
    };
    let disk = image.disk();
    assert_eq!(ignored(&disk), []);
    disk.flip(segment(1), seal.offset + 3, 1);
    assert_eq!(ignored(&disk), [(1, seal.offset)]);
    // One that was never written is no damage.
    let mut bytes = image.files[&1].clone();
    bytes[seal.offset as usize..].fill(0);
    disk.write_file(segment(1), &bytes);
    assert_eq!(ignored(&disk), []);
    bytes.truncate(seal.offset as usize);
    disk.write_file(segment(1), &bytes);
    assert_eq!(ignored(&disk), []);
    // Nor is what a later epoch replaces.
    let whole = image.files.clone();
    image.reopen(image.frames[2].lsn);
    image.files.extend(whole);
    assert_eq!(ignored(&image.disk()), []);
}

#[test]
fn time_of_the_log_is_that_of_its_last_frame_and_in_a_segment_never_goes_back() {
    let mut image = Image::new(512);
    image.frame(&[10]).set_clock(9_000).seal().rotate().set_clock(2_000).frame(&[20]);
    let time = |image: &Image| {
        let report = inspect(&image.disk()).expect("inspect").report().clone();
        assert_eq!(report.status, Status::Clean);
        report.wall_ns
    };
    assert_eq!(time(&image), 2_010);
    image.set_clock(1_000).frame(&[30]);
    assert_eq!(time(&image), 2_010);
}

#[test]
fn copies_of_frames_from_several_segments_have_times_that_do_not_go_back() {
    let mut image = Image::new(512);
    image.frame(&[10]).set_clock(9_000).frame(&[20]).rotate().set_clock(2_000).frame(&[30]);
    let disk = image.disk();
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    assert_eq!(recovery.report().rewritten, Some((Lsn(0), image.lsn)));
    let mut times = Vec::new();
    let each = |entry: &EntryView<'_>| {
        times.push(entry.wall_ns);
        ControlFlow::Continue(())
    };
    recovery.replay(Range::ALL, each).expect("replay");
    assert_eq!((times, recovery.report().wall_ns), (vec![1_010, 9_010, 9_010], 9_010));
}

#[test]
fn no_log_is_made_in_a_backup_or_in_a_directory_whose_restore_did_not_end() {
    for name in ["MANIFEST", "RESTORING.tmp"] {
        for has_segment in [true, false] {
            let disk = SimDisk::new(1);
            if has_segment {
                disk.write_file(segment(1), &Image::new(512).files[&1]);
            }
            disk.write_file(Path::new(DIR).join(name), b"anything");
            let before = contents(&disk);
            for error in [
                open(Path::new(DIR), &options(&disk)).map(drop).expect_err("refused"),
                create(Path::new(DIR), &options(&disk)).map(drop).expect_err("refused"),
                inspect(&disk).map(drop).expect_err("refused"),
            ] {
                assert!(matches!(error, Error::OfBackup { .. }), "{name}: {error}");
            }
            let mut after = contents(&disk);
            after.retain(|path, _| !path.ends_with("LOCK"));
            assert!(after == before, "{name}: something was changed");
        }
    }
}

#[test]
fn epoch_start_of_another_log_replaces_nothing() {
    let image = three();
    let mut other = three();
    other.log_id.0[0] ^= 1;
    other.reopen(other.frames[1].lsn);
    let disk = image.disk();
    disk.write_file(segment(4), &other.files[&4]);
    assert_eq!(refused(&disk), CorruptionKind::ForeignSegment);
    let report = inspect(&disk).expect("inspect").report().clone();
    assert_eq!((report.last_lsn, report.entries), (image.lsn, 6));
}

#[test]
fn newest_epoch_of_another_life_is_refused() {
    // Two copies of a log went on, each for itself: what one of them wrote is put into the
    // place of what the other one did. It continues the same segments, in the same epoch.
    let mut image = three();
    image.reopen(image.frames[3].lsn).frame(&[60]);
    let mut header = image.headers[&4].clone();
    header.nonce ^= 1;
    let file = image.files.get_mut(&4).expect("a segment");
    file[..512].copy_from_slice(&header.encode());
    assert_eq!(refused(&image.disk()), CorruptionKind::Epoch);
}

#[test]
fn epoch_that_goes_back_before_another_replaces_what_that_one_kept() {
    let mut image = three();
    let (high, low) = (image.frames[4].lsn, image.frames[1].lsn);
    let untrimmed = image.files.clone();
    // The second opens as a recovery does, the third as a repair that truncations below it; a crash
    // has kept both from trimming the first one's segments.
    image.reopen(high).frame(&[60]).sync();
    image.reopen(low).frame(&[61]).sync();
    image.files.extend(untrimmed);
    let disk = image.disk();
    let report = inspect(&disk).expect("inspect").report().clone();
    assert_eq!(report.status, Status::Clean, "{:#?}", report.evidence);
    assert_eq!(recovered_entries(&disk, &image), image.seq.0 - 1);
}

#[test]
fn log_image_inside_a_payload_is_only_a_payload() {
    // The bytes of a segment as an entry of the same segment, once in a whole frame
    // and once in a torn one: the headers in it are valid, but not in their place.
    for torn in [false, true] {
        let mut image = Image::new(512);
        image.frame(&[10]).sync().frame(&[20]).sync().frame(&[30]);
        let kept = image.seq.0 - 1;
        let inside = image.files[&1][512..512 + 3 * 512].to_vec();
        // Headers of the payload start on sector boundaries.
        let entry_len = 448 - 8 + inside.len();
        let mut body = u32::try_from(entry_len).expect("small").to_le_bytes().to_vec();
        body.extend_from_slice(&[5, 0, 0, 0]);
        body.resize(448, 0);
        body.extend_from_slice(&inside);
        image.payloads.insert(image.seq.0, body[8..].to_vec());
        let body_len = u32::try_from(body.len()).expect("small");
        image.write(FrameKind::Data, &body, body_len, 1);
        let at = *image.frames.last().expect("a frame");
        let disk = image.disk();
        if torn {
            disk.flip(segment(1), at.offset + FRAME_HEADER_LEN + 20, 1);
        }
        let report = inspect(&disk).expect("inspect").report().clone();
        let status = if torn { Status::TornTail } else { Status::Clean };
        assert_eq!(report.status, status, "{report:#?}");
        assert_eq!(recovered_entries(&disk, &image), kept + u64::from(!torn));
    }
}

#[test]
fn header_forged_inside_a_torn_payload_proves_nothing() {
    // Only in its place does a header count, CRC or not.
    let mut image = Image::new(512);
    image.frame(&[10]).sync().frame(&[1500]).frame(&[20]);
    let (torn, other) = (image.frames[1], image.frames[2]);
    let seed = image.headers[&1].seed();
    let durable_lsn = other.lsn_end();
    let forged = Frame { lsn: durable_lsn, durable_lsn, ..image.decode(&other) };
    let file = image.files.get_mut(&1).expect("a segment");
    file[torn.offset as usize + 512..][..64].copy_from_slice(&forged.encode(seed).0);
    let report = inspect(&image.disk()).expect("inspect").report().clone();
    assert_eq!(report.status, Status::TornTail, "{report:#?}");
    assert_eq!(report.entries, 1);
}

#[test]
fn frame_that_does_not_continue_the_one_before_is_none() {
    let changes: [fn(&mut Frame); 4] = [
        |frame| frame.first_seq.0 += 1,
        |frame| frame.prev_crc ^= 1,
        |frame| frame.lsn.0 += 512,
        |frame| frame.epoch.0 += 1,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut image = three();
        change_last_header(&mut image, change);
        let report = inspect(&image.disk()).expect("inspect").report().clone();
        assert_eq!((report.status, report.entries), (Status::TornTail, 5), "change {index}");
    }
    // The first frame of a segment must continue the one before, too.
    type Change = fn(&mut Frame);
    let continues: [(Change, FrameDamage); 2] = [
        (|frame| frame.first_seq.0 += 1, FrameDamage::Seq),
        (|frame| frame.prev_crc ^= 1, FrameDamage::PrevCrc),
    ];
    for (change, damage) in continues {
        let mut image = Image::new(512);
        image.frame(&[10]).seal().rotate().frame(&[20]);
        change_last_header(&mut image, change);
        let report = inspect(&image.disk()).expect("inspect").report().clone();
        assert_eq!((&report.status, report.entries), (&Status::TornTail, 1));
        let named = report.evidence.iter().any(|evidence| {
            matches!(evidence, Evidence::Damaged { damage: found, .. } if *found == damage)
        });
        assert!(named, "{report:#?}");
    }
}

#[test]
fn durable_mark_behind_the_end_makes_lost_frames_a_corruption() {
    let mut image = Image::new(512);
    image.frame(&[10]).frame(&[20]).frame(&[600]).sync().frame(&[30]).frame(&[40]);
    let lost = image.frames[1];
    let disk = image.disk();
    disk.flip(segment(1), lost.offset + 70, 1);
    let error = Recovery::run(Path::new(DIR), &options(&disk)).map(drop).expect_err("corrupt");
    let corruption = error.corruption().expect("corruption").clone();
    assert_eq!(corruption.segment, Some(SegmentNumber(1)));
    assert_eq!(corruption.offset, Some(lost.offset));
    assert_eq!(corruption.lsn, Some(lost.lsn));
    assert_eq!(corruption.durable, Some(image.durable));
    assert_eq!(corruption.kind, CorruptionKind::Frame(FrameDamage::BodyCrc));
    let proof = |disk: &SimDisk| match inspect(disk).expect("inspect").report().evidence[0] {
        Evidence::DurableMark { proof: Proof::Frame { lsn, torn, .. }, .. } => (lsn, torn),
        ref other => panic!("{other:?}"),
    };
    // The first frame whose durable mark covers it is behind the end only in the damaged log.
    let marked_by = image.frames[3].lsn;
    assert_eq!(proof(&disk), (marked_by, true));
    assert_eq!(proof(&image.disk()), (marked_by, false));
    // The same without the mark: the disk may have persisted a later block first.
    let mut image = Image::new(512);
    image.frame(&[10]).frame(&[20]).frame(&[600]).frame(&[30]);
    let disk = image.disk();
    disk.flip(segment(1), image.frames[1].offset + 70, 1);
    assert_eq!(inspect(&disk).expect("inspect").report().status, Status::TornTail);
    assert_eq!(recovered_entries(&disk, &image), 1);
}

#[test]
fn bytes_far_behind_the_end_are_something() {
    let mut image = Image::new(512);
    image.frame(&[10]);
    for far in [1, 2, 3] {
        let disk = image.disk();
        let mut bytes = image.files[&1].clone();
        bytes.resize((far << 20) + SEGMENT_LEN as usize, 0);
        disk.write_file(segment(1), &bytes);
        assert_eq!(inspect(&disk).expect("inspect").report().status, Status::Clean);
        disk.flip(segment(1), bytes.len() as u64 - 1, 1);
        assert_eq!(inspect(&disk).expect("inspect").report().status, Status::TornTail, "{far}");
    }
}

#[test]
fn displaced_frame_is_not_read() {
    // A misdirected write: a later frame's sector where an earlier one was.
    let mut image = three();
    let (from, to) = (image.frames[3], image.frames[2]);
    let file = image.files.get_mut(&2).expect("a segment");
    let sector = file[from.offset as usize..from.end() as usize].to_vec();
    file[to.offset as usize..][..sector.len()].copy_from_slice(&sector);
    assert!(matches!(refused(&image.disk()), CorruptionKind::Frame(_)));
}

#[test]
fn read_error_is_never_an_end() {
    let disk = three().disk();
    let before = contents(&disk);
    let reads = {
        let counted = disk.fork(1);
        inspect(&counted).expect("inspect");
        counted.counts().reads - disk.counts().reads
    };
    assert!(reads > 4);
    for after in 0..reads {
        disk.fail_next(
            bulla_storage::io::sim::FaultOp::Read,
            std::io::ErrorKind::Other,
            DIR,
            after,
        );
        let error = inspect(&disk).map(drop).expect_err("an error");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        disk.clear_faults();
    }
    assert!(contents(&disk) == before);
}

#[test]
fn copied_directory_opens() {
    let image = three();
    let disk = image.disk();
    for (path, bytes) in contents(&disk) {
        let name = path.file_name().expect("a name");
        disk.write_file(Path::new("/copy").join(name), &bytes);
    }
    let recovery = Recovery::run(Path::new("/copy"), &options(&disk)).expect("recover");
    assert_eq!(recovery.report().entries, 6);
    assert_eq!(recovery.report().last_lsn, image.lsn);
}

#[test]
fn extreme_positions_do_not_overflow() {
    let mut image = three();
    image.reopen(image.frames[3].lsn).frame(&[60]);
    for (base, truncated_at) in [(u64::MAX - 511, u64::MAX - 511), (512, u64::MAX - 511)] {
        let mut header = image.headers[&4].clone();
        let epoch_start = header.epoch_start.as_mut().expect("an opening");
        epoch_start.base = Lsn(base);
        epoch_start.replaces_from = Lsn(base);
        epoch_start.truncated_at = Lsn(truncated_at);
        let disk = image.disk();
        let mut bytes = image.files[&4].clone();
        bytes[..512].copy_from_slice(&header.encode());
        disk.write_file(segment(4), &bytes);
        let found = refused(&disk);
        assert!(matches!(found, CorruptionKind::SegmentHeader(_)), "{found}");
    }
    let mut image = three();
    image.low_water.lsn = Lsn(u64::MAX - 511);
    let disk = image.disk();
    let error = open(Path::new(DIR), &options(&disk)).map(drop).expect_err("refused");
    let kind = error.corruption().expect("corruption").kind;
    assert!(matches!(kind, CorruptionKind::Control(_)), "{kind}");
    let disk = three().disk();
    disk.write_file(segment(u64::MAX), &[0; 512]);
    assert_eq!(refused(&disk), CorruptionKind::SegmentMissing);
}

#[test]
fn sector_larger_than_the_logs_is_refused() {
    let disk = three().disk();
    disk.configure(|config| config.physical_sector = Some(4096));
    let error = open(Path::new(DIR), &options(&disk)).map(drop).expect_err("refused");
    assert!(matches!(error, Error::SectorTooSmall { device: 4096, log: 512 }));
}

#[test]
fn locked_log_is_not_recovered_but_can_be_inspected() {
    let disk = three().disk();
    let first = options(&disk);
    let recovery = Recovery::run(Path::new(DIR), &first).expect("recover");
    let error = Recovery::run(Path::new(DIR), &options(&disk)).map(drop).expect_err("locked");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert_eq!(inspect(&disk).expect("inspect").report().entries, 6);
    drop(recovery);
}

#[test]
fn directory_without_a_log_is_told_from_one() {
    let disk = SimDisk::new(1);
    let error = inspect(&disk).map(drop).expect_err("no log");
    assert!(matches!(error, Error::NotALog { .. }));
    let (recovered, report) = open(Path::new(DIR), &options(&disk)).expect("create");
    assert_eq!((report.entries, report.status), (0, Status::Clean));
    drop(recovered);
    assert_eq!(inspect(&disk).expect("inspect").report().entries, 0);
}

/// What has a segment's name and is none, on the real file system.
#[test]
fn links_and_fifos_are_never_followed() {
    use std::os::unix::fs::symlink;
    let image = three();
    let options = Options::new().segment_len(SEGMENT_LEN).ring_len(16 * 1024);
    for what in ["link", "fifo", "directory"] {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = temp.path();
        std::fs::write(dir.join("CONTROL"), image.control()).expect("write");
        for (number, bytes) in &image.files {
            let name = segment(*number);
            std::fs::write(dir.join(name.file_name().expect("a name")), bytes).expect("write");
        }
        let second = dir.join(segment(2).file_name().expect("a name"));
        let elsewhere = dir.join("elsewhere");
        std::fs::rename(&second, &elsewhere).expect("rename");
        match what {
            "link" => symlink(&elsewhere, &second).expect("symlink"),
            "fifo" => {
                let made = std::process::Command::new("mkfifo").arg(&second).status();
                assert!(made.expect("mkfifo").success());
            }
            _ => std::fs::create_dir(&second).expect("mkdir"),
        }
        let error = Recovery::run(dir, &options).map(drop).expect_err("refused");
        // A device with larger sectors refuses this log's before it is looked at.
        if !matches!(error, Error::SectorTooSmall { .. }) {
            assert_eq!(
                error.corruption().expect("corrupt").kind,
                CorruptionKind::NotAFile,
                "{what}"
            );
        }
        let inspection = Inspection::read(dir, &options).expect("inspect");
        let Status::Corrupt(found) = &inspection.report().status else { panic!("{what}") };
        assert_eq!(found.kind, CorruptionKind::NotAFile);
        assert_eq!(found.segment, Some(SegmentNumber(2)));
    }
}
