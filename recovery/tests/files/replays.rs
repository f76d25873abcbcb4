//! Replay: exactly the entries of the range, in order.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{EntryView, Error, Inspection, Position, Range, Recovery, Status, replay};
use bulla_storage::files::dir::{Directory, segment_name};
use bulla_storage::format::{FRAME_HEADER_LEN, Frame, FrameKind};
use bulla_storage::frames::read_buffer::ReadBuffer;
use bulla_storage::frames::reader::{Batch, Cursor, End, FrameReader, Start};
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};

use super::image::{DIR, Image, options, segment};

fn image() -> Image {
    let mut image = Image::new(512);
    image.frame(&[10, 300, 2]).frame(&[3]).seal().rotate().durable_lsn().frame(&[33, 0]);
    image.rotate().frame(&[5]).durable_lsn().frame(&[100, 1, 1]);
    image
}

fn go_on(_: &EntryView<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_range_gives_exactly_its_entries() {
    let image = image();
    let disk = image.disk();
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let mut all: Vec<(Lsn, Seq, u64)> = Vec::new();
    let each = |entry: &EntryView<'_>| {
        all.push((entry.lsn, entry.seq, entry.wall_ns));
        ControlFlow::Continue(())
    };
    let stats = inspection.replay(Range::ALL, each).expect("replay");
    assert_eq!(all.len(), image.payloads.len());
    let bytes: usize = image.payloads.values().map(Vec::len).sum();
    assert_eq!((stats.entries, stats.payload_bytes), (all.len() as u64, bytes as u64));
    // Those with entries: no SegmentEnd, no mark.
    assert_eq!((stats.frames, stats.stopped), (5, false));
    assert_eq!(inspection.report().last_entry, all.last().map(|(lsn, seq, _)| (*lsn, *seq)));
    let (first, last) = (all[0].2, image.wall_ns());
    assert!(first < last);
    // Recovery re-homes a part; the ranges stay the same, those of times too.
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let positions: Vec<Position> = (0..=11)
        .map(|seq| Seq(seq).into())
        .chain((0..=image.lsn.0).step_by(8).map(|lsn| Lsn(lsn).into()))
        .chain((first - 1..=last + 1).map(Position::at_wall_ns))
        .chain([Position::Start, Position::End])
        .collect();
    let below = |entry: &(Lsn, Seq, u64), position: Position| match position {
        Position::Start => false,
        Position::Lsn { lsn, .. } => entry.0 < lsn,
        Position::Seq(seq) => entry.1 < seq,
        Position::Time(_) => (first - 1..=entry.2).all(|ns| Position::at_wall_ns(ns) != position),
        Position::End => true,
        position => panic!("the model does not know {position:?}"),
    };
    for from in &positions {
        for to in positions.iter().step_by(7).chain([&Position::Start, &Position::End]) {
            let expected: Vec<(Lsn, Seq, u64)> = all
                .iter()
                .filter(|entry| !below(entry, *from) && below(entry, *to))
                .copied()
                .collect();
            let mut found = Vec::new();
            let range = Range { from: *from, to: *to };
            let each = |entry: &EntryView<'_>| {
                found.push((entry.lsn, entry.seq, entry.wall_ns));
                ControlFlow::Continue(())
            };
            let stats = recovery.replay(range, each).expect("replay");
            assert_eq!(found, expected, "{range:?}");
            assert_eq!(stats.entries, expected.len() as u64);
            assert_eq!(stats.last, expected.last().map(|(lsn, seq, _)| (*lsn, *seq)));
            let frame = stats.last.zip(stats.last_frame);
            assert_eq!(stats.last_frame.map(|(_, ns)| ns), expected.last().map(|last| last.2));
            assert!(frame.is_none_or(|((lsn, _), (end, _))| lsn < end));
            let mut again = found.iter();
            let owned = recovery.replay_owned(range, |entry| {
                assert_eq!(Some(&(entry.lsn, entry.seq, entry.wall_ns)), again.next());
                assert_eq!(entry.payload, image.payloads[&entry.seq.0]);
                ControlFlow::Continue(())
            });
            assert_eq!(owned.expect("replay of owned entries"), stats);
            let mut again = found.iter();
            let once = replay(Path::new(DIR), &options(&disk), range, |entry| {
                assert_eq!(Some(&(entry.lsn, entry.seq, entry.wall_ns)), again.next());
                ControlFlow::Continue(())
            });
            assert_eq!(once.expect("replay in one pass"), stats);
        }
    }
}

#[test]
fn time_comes_behind_the_last_frame_from_before_it_though_a_clock_was_set_back() {
    let mut image = Image::new(512);
    image.frame(&[10]).frame(&[20]).set_clock(90_000).frame(&[30]).seal();
    image.rotate().set_clock(2_000).frame(&[40]).set_clock(70_000).frame(&[50]).seal();
    image.rotate().set_clock(3_000).frame(&[60]).frame(&[70]);
    let disk = image.disk();
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    assert_eq!(inspection.report().wall_ns, 3_020);
    let times: Vec<u64> = image.frames.iter().map(|at| image.decode(at).wall_ns).collect();
    let seqs: Vec<u64> = image.frames.iter().map(|at| image.decode(at).first_seq.0).collect();
    for wall_ns in times.iter().flat_map(|ns| [ns - 1, *ns, ns + 1]) {
        let last = times.iter().rposition(|ns| *ns < wall_ns);
        // The number of the first entry behind that frame.
        let first = last.map_or(1, |last| seqs.get(last + 1).copied().unwrap_or(image.seq.0));
        let time = Position::at_wall_ns(wall_ns);
        let shown = |range: Range| {
            let mut shown = Vec::new();
            let each = |entry: &EntryView<'_>| {
                shown.push(entry.seq.0);
                ControlFlow::Continue(())
            };
            inspection.replay(range, each).expect("replay");
            let mut again = Vec::new();
            let each = |entry: &EntryView<'_>| {
                again.push(entry.seq.0);
                ControlFlow::Continue(())
            };
            replay(Path::new(DIR), &options(&disk), range, each).expect("replay");
            assert_eq!(shown, again, "{range}");
            shown
        };
        let whole = (1..image.seq.0).collect::<Vec<_>>();
        let at = (first - 1) as usize;
        assert_eq!(shown((time..).into()), whole[at..], "{wall_ns}..");
        assert_eq!(shown((..time).into()), whole[..at], "..{wall_ns}");
    }
}

#[test]
fn corruption_behind_the_range_is_not_told_in_one_pass() {
    let image = image();
    let frame = image.frames[4];
    let Frame { first_seq: seq, wall_ns, .. } = image.decode(&frame);
    // Its header, and its body.
    for offset in [0, FRAME_HEADER_LEN] {
        let disk = image.disk();
        disk.flip(segment(frame.segment), frame.offset + offset, 1);
        let up_to = |to| replay(Path::new(DIR), &options(&disk), Range { to, ..Range::ALL }, go_on);
        for to in [seq.into(), frame.lsn.into()] {
            assert_eq!(up_to(to).expect("replay").entries, seq.0 - 1, "{to:?}");
        }
        let before = up_to(Position::at_wall_ns(image.decode(&image.frames[1]).wall_ns));
        match offset {
            // Behind a header that can't be read may be entries from before any time.
            0 => assert!(before.expect_err("nobody knows").corruption().is_some()),
            _ => assert_eq!(before.expect("replay").entries, 3),
        }
        let seen = |_: &EntryView<'_>| ControlFlow::Break(());
        let broken_off = replay(Path::new(DIR), &options(&disk), Range::ALL, seen);
        assert_eq!(broken_off.expect("replay").entries, 1);
        for to in [
            Seq(seq.0 + 1).into(),
            image.lsn.into(),
            Position::at_wall_ns(wall_ns + 1),
            Position::End,
        ] {
            let error = up_to(to).expect_err("the range goes on behind the damage");
            let corruption = error.corruption().expect("corruption");
            assert_eq!(corruption.lsn, Some(frame.lsn), "{to:?}");
            assert!(corruption.durable > corruption.lsn, "{to:?}: {corruption}");
        }
    }
}

#[test]
fn nothing_is_given_from_behind_damage() {
    let image = image();
    let data: Vec<_> =
        image.frames.iter().filter(|at| at.kind == FrameKind::Data).copied().collect();
    let mut refused = 0;
    for frame in &data {
        let disk = image.disk();
        disk.flip(segment(frame.segment), frame.offset + FRAME_HEADER_LEN, 1);
        let look = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        for from in 1..=image.payloads.len() as u64 {
            let range = Range::from(Seq(from)..);
            let mut given = [Vec::new(), Vec::new()];
            let [looked, passed] = &mut given;
            look.replay(range, |entry| {
                looked.push(entry.seq);
                ControlFlow::Continue(())
            })
            .expect("replay");
            let once = replay(Path::new(DIR), &options(&disk), range, |entry| {
                passed.push(entry.seq);
                ControlFlow::Continue(())
            });
            assert_eq!(looked, passed, "from {from}, damaged {frame:?}");
            let is_corrupt = matches!(look.report().status, Status::Corrupt(_));
            assert_eq!(once.is_err(), is_corrupt, "from {from}, damaged {frame:?}");
            refused += u64::from(is_corrupt);
        }
    }
    assert!(refused > 0);
}

/// A recovery copies what no durable mark covers into a new epoch, and cuts it off where it was.
#[test]
fn log_that_is_opened_while_it_is_replayed_has_changed_and_is_not_corrupt() {
    let mut image = Image::new(512);
    image.frame(&[10]).frame(&[20]).seal().rotate().frame(&[33]).frame(&[44]);
    let disk = image.disk();
    let durable =
        Inspection::read(Path::new(DIR), &options(&disk)).expect("look").report().durable_lsn;
    assert!(durable < image.lsn);
    for after_a_look in [true, false] {
        let disk = disk.fork(1);
        let mut opened = None;
        let open = |_: &EntryView<'_>| {
            opened.get_or_insert_with(|| {
                Recovery::run(Path::new(DIR), &options(&disk)).expect("recover")
            });
            ControlFlow::Continue(())
        };
        let result = if after_a_look {
            let look = Inspection::read(Path::new(DIR), &options(&disk)).expect("look");
            look.replay(Range::ALL, open)
        } else {
            replay(Path::new(DIR), &options(&disk), Range::ALL, open)
        };
        assert!(matches!(result, Err(Error::Changed { lsn }) if lsn >= durable), "{result:?}");
        drop(opened);
        let again = replay(Path::new(DIR), &options(&disk), Range::ALL, go_on);
        assert_eq!(again.expect("replay").entries, image.payloads.len() as u64);
    }
}

#[test]
fn damaged_body_that_no_mark_covers_is_the_end_in_one_pass() {
    let image = image();
    let mut short = Image::new(512);
    short.frame(&[10]).frame(&[20]);
    // The last frames of both, and the one before the idle mark, which covers it.
    for (image, index, entries) in [(&image, 7, Some(7)), (&short, 1, Some(1)), (&image, 5, None)] {
        let frame = image.frames[index];
        let disk = image.disk();
        disk.flip(segment(frame.segment), frame.offset + FRAME_HEADER_LEN, 1);
        let once = replay(Path::new(DIR), &options(&disk), Range::ALL, go_on);
        assert_eq!(once.ok().map(|stats| stats.entries), entries, "frame {index}");
    }
}

#[test]
fn bodies_below_a_durable_mark_are_read_once_in_one_pass() {
    let mut image = Image::new(512);
    image.files.get_mut(&1).expect("a segment").resize(4 << 20, 0);
    for _ in 0..6 {
        image.frame(&[500_000]);
    }
    image.close();
    let len = image.frames.last().expect("frames").end();
    image.files.get_mut(&1).expect("a segment").truncate(len as usize);
    let disk = image.disk();
    let before = disk.counts().read_bytes;
    let stats = replay(Path::new(DIR), &options(&disk), Range::ALL, go_on).expect("replay");
    assert_eq!(stats.entries, 6);
    let read = disk.counts().read_bytes - before;
    assert!(read < len * 3 / 2, "{read} of {len}");
}

#[test]
fn owned_entries_of_a_frame_share_one_buffer() {
    let image = image();
    let disk = image.disk();
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let mut kept = Vec::new();
    let stats = inspection.replay_owned(..Seq(4), |entry| {
        kept.push(entry.payload);
        ControlFlow::Continue(())
    });
    assert_eq!((stats.expect("replay").frames, kept.len()), (1, 3));
    let [first, .., last] = &kept[..] else { panic!("three entries") };
    let distance = last.as_ptr().addr() - first.as_ptr().addr();
    assert!(distance < 10 + 300 + 3 * 64, "{distance} bytes apart");
    assert!(kept.iter().all(|payload| !payload.is_unique()));
}

#[test]
fn visitor_can_break_off() {
    let disk = image().disk();
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let stats = inspection.replay(Range::ALL, |entry| match entry.seq.0 {
        5 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let stats = stats.expect("replay");
    assert!(stats.stopped);
    assert_eq!(stats.entries, 5);
    let once = replay(Path::new(DIR), &options(&disk), Range::ALL, |_| ControlFlow::Break(()));
    assert_eq!(once.map(|stats| (stats.stopped, stats.entries)).ok(), Some((true, 1)));
}

#[test]
fn purged_positions_are_told() {
    let mut image = image();
    // What `purge` leaves: the mark at the second segment, the first one gone.
    let first = image.frames[3];
    let frame = image.decode(&first);
    image.low_water.segment = bulla_storage::SegmentNumber(2);
    image.low_water.lsn = first.lsn;
    image.low_water.seq = frame.first_seq;
    image.low_water.prev_crc = frame.prev_crc;
    for removed in [true, false] {
        let disk = image.disk();
        if removed {
            disk.remove_file(super::image::segment(1));
        }
        let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
        assert_eq!((recovery.report().first_lsn, recovery.report().entries), (first.lsn, 6));
        assert!(!disk.paths().contains(&super::image::segment(1)), "the dead segment is gone");
        for from in [Position::from(Lsn(0)), Seq(4).into()] {
            let error = recovery.replay(from, |_| ControlFlow::Continue(()));
            assert!(matches!(error, Err(Error::Purged { .. })), "{error:?}");
        }
        let stats = recovery.replay(Seq(5).., |_| ControlFlow::Continue(())).expect("replay");
        assert_eq!(stats.entries, 6);
    }
}

#[test]
fn positions_that_were_cut_off_under_their_epoch_are_refused() {
    let image = image();
    let disk = image.disk();
    // The next epoch cuts the log where it ends.
    drop(Recovery::run(Path::new(DIR), &options(&disk)).expect("recover"));
    let (old, end) = (image.headers[&1].epoch, image.lsn);
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    for (epoch, lsn, lost) in
        [(old, end, false), (old, Lsn(end.0 + 8), true), (Epoch(99), Lsn(end.0 + 8), false)]
    {
        let position = Position::from((epoch, lsn));
        for range in [Range::from(position), Range { to: position, ..Range::ALL }] {
            for result in [
                inspection.replay(range, go_on),
                recovery.replay(range, go_on),
                replay(Path::new(DIR), &options(&disk), range, go_on),
            ] {
                let diverged = matches!(result, Err(Error::Diverged { .. }));
                assert_eq!(diverged, lost, "{range}: {result:?}");
            }
        }
    }
}

/// Blocks that are read are longer than a sector, and may show the next header.
#[test]
fn frames_of_a_batch_begin_within_its_chunk() {
    const CHUNK: u64 = 4096;
    let mut image = Image::new(512);
    for _ in 0..10 {
        image.frame(&[1300]);
    }
    let (disk, header) = (image.disk(), &image.headers[&1]);
    let dir = Directory::open(disk.process().as_ref(), Path::new(DIR)).expect("open");
    let read_buffer = ReadBuffer::open(&dir, &segment_name(SegmentNumber(1)), true)
        .expect("open")
        .with_chunk(CHUNK);
    let start = Start::At { base: Lsn(0), cursor: Cursor::from(&image.low_water) };
    let mut frame_reader = FrameReader::new(read_buffer, header, start, image.lsn);
    let (mut batch, mut found) = (Batch::default(), Vec::new());
    loop {
        let end = frame_reader.gather(&mut batch).expect("read");
        let offsets: Vec<u64> = batch.frames.iter().map(|located| located.offset).collect();
        assert!(offsets.iter().all(|offset| *offset < offsets[0] + CHUNK), "{offsets:?}");
        assert!(batch.frames.iter().all(|located| batch.check(located) == Ok(())));
        found.extend(offsets);
        match end {
            Some(end) => break assert_eq!(end, End::Ceiling),
            None => assert!(!batch.frames.is_empty()),
        }
    }
    let expected: Vec<u64> = image.frames.iter().map(|at| at.offset).collect();
    assert_eq!(found, expected);
}
