use super::core::*;
use crate::ring::{Closed, Tail};
use bulla_storage::format::FrameKind;
use bulla_storage::{Lsn, SegmentNumber, Seq};

const SECTOR: u64 = 4096;
const MS: u64 = 1_000_000;

fn config(write_through: bool, depth: usize) -> Config {
    Config {
        write_through,
        depth,
        flush_interval: 10 * MS,
        sync_interval: 1000 * MS,
        balanced_interval: 100 * MS,
        balanced_entries: 50,
        balanced_max_unsynced: 32 * SECTOR,
        idle_mark: 50 * MS,
        spares: 1,
    }
}

/// A disk and a ring that do what the core says, and know what is truly durable.
struct World {
    core: Core,
    now: u64,
    /// What was appended and not taken out: (entries, relaxed) per frame.
    pending: Vec<(u32, bool)>,
    end: Lsn,
    taken: Lsn,
    seq: u64,
    segment: u64,
    segment_left: u64,
    base: Lsn,
    frames: Vec<(Op, Closed, Truth)>,
    /// Operations in flight; with a sync, the frames that it surely makes durable.
    in_flight: Vec<(Action, Vec<Op>)>,
    marks: Watermarks,
    log: Vec<Action>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Truth {
    Unwritten,
    Written,
    Durable,
}

const SEGMENT_FRAMES: u64 = 8;

impl World {
    fn new(config: Config) -> Self {
        Self {
            core: Core::new(config, Lsn(0), SegmentNumber(1), 0),
            now: 0,
            pending: Vec::new(),
            end: Lsn(0),
            taken: Lsn(0),
            seq: 1,
            segment: 1,
            segment_left: SEGMENT_FRAMES,
            base: Lsn(0),
            frames: Vec::new(),
            in_flight: Vec::new(),
            marks: Watermarks::default(),
            log: Vec::new(),
        }
    }

    fn append(&mut self, entries: u32, relaxed: bool) -> Lsn {
        self.pending.push((entries, relaxed));
        let lsn = self.end.plus(64);
        self.end = self.end.plus(SECTOR);
        lsn
    }

    /// Lets the core act until it has nothing to do.
    fn run(&mut self) {
        let closed = self.pending.len().saturating_sub(1);
        self.core.tick(self.now, Tail { end: self.end, closed, ..Tail::default() });
        while let Some(action) = self.core.next() {
            self.log.push(action);
            match action {
                Action::Seal => self.seal(FrameKind::Data),
                Action::SealEmpty(kind) => {
                    self.end = self.end.plus(SECTOR);
                    self.pending.push((0, false));
                    self.seal(kind);
                }
                Action::Prepare => self.core.spare_ready(),
                Action::Advance(marks) => {
                    assert!(marks.written >= self.marks.written, "watermarks never go back");
                    assert!(marks.synced >= self.marks.synced, "watermarks never go back");
                    self.marks = marks;
                    self.check();
                }
                Action::Write { .. } | Action::Sync { .. } | Action::SealSegment { .. } => {
                    let covered = self.covered(action);
                    self.in_flight.push((action, covered));
                    self.check_unsynced_segments();
                }
            }
        }
    }

    fn seal(&mut self, kind: FrameKind) {
        let (entries, relaxed) = self.pending.remove(0);
        if self.segment_left == 0 {
            self.segment += 1;
            self.segment_left = SEGMENT_FRAMES;
            self.base = self.taken;
        }
        self.segment_left -= 1;
        let closed = Closed {
            kind,
            start: self.taken,
            end: self.taken.plus(SECTOR),
            body_len: 0,
            first_seq: Seq(self.seq),
            entries,
            segment: SegmentNumber(self.segment),
            base: self.base,
            relaxed,
        };
        self.seq += u64::from(entries);
        self.taken = closed.end;
        let op = self.core.sealed(closed);
        self.frames.push((op, closed, Truth::Unwritten));
    }

    /// The frames that were completely written when this sync is submitted.
    fn covered(&self, action: Action) -> Vec<Op> {
        let Action::Sync { segment, .. } = action else { return Vec::new() };
        let written = |(_, frame, truth): &&(Op, Closed, Truth)| {
            frame.segment == segment && *truth == Truth::Written
        };
        self.frames.iter().filter(written).map(|frame| frame.0).collect()
    }

    /// Completes the operation at `index` of those in flight.
    fn complete(&mut self, index: usize) {
        let (action, covered) = self.in_flight.remove(index);
        let op = match action {
            Action::Write { op, dsync } => {
                let frame = self.frames.iter_mut().find(|frame| frame.0 == op).unwrap();
                frame.2 = if dsync { Truth::Durable } else { Truth::Written };
                op
            }
            Action::Sync { op, .. } => {
                for frame in self.frames.iter_mut().filter(|frame| covered.contains(&frame.0)) {
                    frame.2 = Truth::Durable;
                }
                op
            }
            Action::SealSegment { op, .. } => op,
            _ => unreachable!("only operations are in flight"),
        };
        self.core.completed(op);
    }

    /// Completes everything, and what follows from it, in order.
    fn finish(&mut self) {
        self.run();
        while !self.in_flight.is_empty() {
            self.complete(0);
            self.run();
        }
    }

    /// No watermark passes a frame that is not there.
    fn check(&self) {
        for (_, frame, truth) in &self.frames {
            if frame.end <= self.marks.written {
                assert_ne!(*truth, Truth::Unwritten, "{frame:?} is not written");
            }
            if frame.end <= self.marks.synced {
                assert_eq!(*truth, Truth::Durable, "{frame:?} is not durable");
            }
        }
        assert!(self.marks.balanced <= self.marks.written);
        let bound = self.marks.synced.plus(config(true, 1).balanced_max_unsynced);
        assert!(self.marks.balanced <= bound, "more bytes than the bound are acknowledged");
        let started: Vec<Op> = self.in_flight.iter().flat_map(|(_, ops)| ops.clone()).collect();
        let unsynced: u64 = self
            .frames
            .iter()
            .filter(|(op, frame, truth)| {
                *truth == Truth::Written
                    && frame.end <= self.marks.balanced
                    && !started.contains(op)
            })
            .map(|(_, frame, _)| frame.bounded_entries())
            .sum();
        // A sync in flight on the same segment may hold the next one back.
        let syncing = self.in_flight.iter().any(|(a, _)| matches!(a, Action::Sync { .. }));
        assert!(syncing || unsynced < config(true, 1).balanced_entries, "a sync must have started");
    }

    fn check_unsynced_segments(&self) {
        let mut segments: Vec<u64> = self
            .in_flight
            .iter()
            .filter_map(|(action, _)| match action {
                Action::Write { op, .. } => Some(*op),
                _ => None,
            })
            .chain(self.frames.iter().filter(|f| f.2 == Truth::Written).map(|f| f.0))
            .filter_map(|op| self.frames.iter().find(|frame| frame.0 == op))
            .map(|frame| frame.1.segment.0)
            .collect();
        segments.sort_unstable();
        segments.dedup();
        assert!(segments.len() <= 2, "unsynced frames in segments {segments:?}");
    }

    fn request(&mut self, synced: Lsn) {
        self.core.request(Lsn(0), synced.plus(1));
    }

    fn count(&self, kind: impl Fn(&Action) -> bool) -> usize {
        self.log.iter().filter(|action| kind(action)).count()
    }
}

fn is_sync(action: &Action) -> bool {
    matches!(action, Action::Sync { .. } | Action::Write { dsync: true, .. })
}

#[test]
fn lone_strict_writer_costs_exactly_one_sync_per_commit() {
    for write_through in [true, false] {
        let mut world = World::new(config(write_through, 1));
        for commit in 1..=20 {
            let lsn = world.append(1, false);
            world.request(lsn);
            world.finish();
            assert!(lsn < world.marks.synced);
            assert_eq!(world.count(is_sync), commit, "write_through {write_through}");
        }
    }
}

#[test]
fn what_is_appended_during_a_sync_shares_the_next_one() {
    for write_through in [true, false] {
        let mut world = World::new(config(write_through, 1));
        let first = world.append(1, false);
        world.request(first);
        world.run();
        let last = world.append(30, false);
        world.request(last);
        world.finish();
        assert!(last < world.marks.synced);
        assert_eq!(world.count(is_sync), 2, "write_through {write_through}");
    }
}

#[test]
fn small_groups_go_one_at_a_time_and_full_frames_side_by_side() {
    let mut world = World::new(config(true, 4));
    let is_write = |action: &Action| matches!(action, Action::Write { .. });
    let append_and_count = |world: &mut World| {
        let lsn = world.append(2, false);
        world.request(lsn);
        world.run();
        world.count(is_write)
    };
    assert_eq!(append_and_count(&mut world), 1, "somebody waits");
    assert_eq!(append_and_count(&mut world), 1, "gathers while the first is on its way");
    // The world closes a frame when it opens another.
    assert_eq!(append_and_count(&mut world), 2, "nothing more can gather in the second");
    assert_eq!(append_and_count(&mut world), 3, "nor in the third");
    world.complete(0);
    world.run();
    assert_eq!(world.count(is_write), 4, "the first is done: the next group goes");
    world.finish();
    assert_eq!(world.marks.synced, world.end);
}

#[test]
fn lone_entry_does_not_hold_the_next_group_back_and_a_third_one_gathers() {
    for (write_through, writes) in [(true, &[1, 2, 2][..]), (false, &[1, 1])] {
        let mut world = World::new(config(write_through, 4));
        for &expected in writes {
            let lsn = world.append(1, false);
            world.request(lsn);
            world.run();
            let written = world.count(|action| matches!(action, Action::Write { .. }));
            assert_eq!(written, expected, "write_through {write_through}");
        }
        world.finish();
        assert_eq!(world.marks.synced, world.end);
    }
}

#[test]
fn nothing_is_written_before_the_flush_interval_unless_somebody_waits() {
    let mut world = World::new(config(true, 1));
    world.append(1, false);
    world.now = 9 * MS;
    world.finish();
    assert_eq!(world.marks.written, Lsn(0));
    assert_eq!(world.core.deadline(), Some(10 * MS));
    world.now = 10 * MS;
    world.finish();
    assert_eq!(world.marks.written, Lsn(SECTOR));
}

#[test]
fn syncs_start_at_the_interval_of_their_level() {
    for (relaxed, interval) in [(false, 100 * MS), (true, 1000 * MS)] {
        let mut world = World::new(config(true, 1));
        world.append(1, relaxed);
        world.now = 10 * MS;
        world.finish();
        assert_eq!(world.core.deadline(), Some(interval), "relaxed {relaxed}");
        world.now = interval - 1;
        world.finish();
        assert_eq!(world.marks.synced, Lsn(0));
        world.now = interval;
        world.finish();
        assert!(world.marks.synced >= Lsn(SECTOR));
    }
}

#[test]
fn relaxed_entries_do_not_count_against_the_bound_of_balanced() {
    for (relaxed, syncs) in [(false, 1), (true, 0)] {
        let mut world = World::new(config(true, 1));
        let many = u32::try_from(config(true, 1).balanced_entries).unwrap();
        world.append(many, relaxed);
        world.now = 10 * MS;
        world.finish();
        assert_eq!(world.marks.written, Lsn(SECTOR));
        assert_eq!(world.count(is_sync), syncs, "relaxed {relaxed}");
    }
}

#[test]
fn dsync_write_does_not_stand_in_for_a_plain_write_below_it() {
    let mut world = World::new(config(true, 4));
    let plain = world.append(1, false);
    world.now = 10 * MS;
    world.run();
    world.complete(0);
    // Its sync is on its way when the other write is submitted, and is overtaken.
    world.now = 200 * MS;
    world.run();
    assert_eq!(world.count(|a| matches!(a, Action::Sync { .. })), 1);
    let strict = world.append(1, false);
    world.request(strict);
    world.run();
    assert_eq!(world.count(|a| matches!(a, Action::Write { dsync: true, .. })), 1);
    world.complete(world.in_flight.len() - 1);
    world.run();
    assert_eq!(world.marks.synced, Lsn(0));
    world.finish();
    assert!(plain < world.marks.synced && strict < world.marks.synced);
}

#[test]
fn write_above_a_plain_one_is_plain_so_that_one_sync_does_for_both() {
    // The plain write is in flight; or it has landed, and waits for a sync on its way.
    for landed in [false, true] {
        let mut world = World::new(config(true, 4));
        let mut syncs = 1;
        if landed {
            world.append(1, false);
            world.now = 100 * MS - 1;
            world.run();
            world.complete(0);
            world.now = 100 * MS;
            world.run();
            assert_eq!(world.count(|a| matches!(a, Action::Sync { .. })), 1);
            syncs += 1;
        }
        let plain = world.append(1, false);
        world.now += 10 * MS;
        world.run();
        if landed {
            world.complete(world.in_flight.len() - 1);
            world.run();
        }
        let strict = world.append(1, false);
        world.request(strict);
        world.finish();
        assert!(plain < world.marks.synced && strict < world.marks.synced);
        assert_eq!(world.count(is_sync), syncs, "landed {landed}");
    }
}

#[test]
fn write_above_a_plain_one_of_the_segment_before_is_durable_by_itself() {
    let mut world = World::new(config(true, 4));
    for _ in 1..SEGMENT_FRAMES {
        let lsn = world.append(1, false);
        world.request(lsn);
    }
    world.finish();
    let plain = world.append(1, false);
    world.now += 10 * MS;
    world.run();
    let before = world.log.len();
    let strict = world.append(1, false);
    world.request(strict);
    world.finish();
    assert!(plain < world.marks.synced && strict < world.marks.synced);
    // A sync of the old segment does nothing for the new one.
    world.log.drain(..before);
    assert_eq!(world.count(|a| matches!(a, Action::Write { dsync: true, .. })), 1);
    assert_eq!(world.count(|a| matches!(a, Action::Sync { .. })), 1);
}

#[test]
fn persisted_mark_is_only_what_a_durable_frame_carries() {
    for write_through in [false, true] {
        let mut world = World::new(config(write_through, 2));
        let mut persisted_mark = Lsn(0);
        for _ in 0..2 {
            let lsn = world.append(1, false);
            world.request(lsn);
            world.finish();
            assert_eq!(
                world.core.persisted_mark(),
                persisted_mark,
                "its own frame does not carry it"
            );
            persisted_mark = world.marks.synced;
        }
        for _ in 0..2 {
            // Without an idle moment, and again for the frame of the durable mark itself.
            world.core.request_mark();
            world.finish();
            assert_eq!(world.core.persisted_mark(), persisted_mark);
            assert_eq!(world.marks.synced, persisted_mark.plus(SECTOR));
            persisted_mark = world.marks.synced;
        }
        world.finish();
        assert_eq!(world.marks.synced, persisted_mark, "a mark does not call for another");
    }
}

#[test]
fn idle_log_writes_one_mark_and_sleeps() {
    for write_through in [true, false] {
        let mut world = World::new(config(write_through, 1));
        let lsn = world.append(1, false);
        world.request(lsn);
        world.finish();
        assert_eq!(world.core.deadline(), Some(50 * MS));
        world.now = 50 * MS;
        world.finish();
        assert_eq!(world.marks.synced, Lsn(2 * SECTOR), "the mark is durable itself");
        assert_eq!(world.core.deadline(), None, "a mark does not call for another");
        world.now = 5000 * MS;
        world.finish();
        assert_eq!(world.count(|a| matches!(a, Action::SealEmpty(_))), 1);
    }
}

#[test]
fn durable_mark_without_room_waits_for_the_next_segment() {
    let mut world = World::new(config(true, 1));
    let lsn = world.append(1, false);
    world.request(lsn);
    world.finish();
    world.now = 50 * MS;
    world.core.tick(world.now, Tail { end: world.end, ..Tail::default() });
    let durable_lsn = Some(Action::SealEmpty(FrameKind::DurableMark));
    assert_eq!(world.core.next(), durable_lsn);
    world.core.no_room_for(FrameKind::DurableMark);
    assert_eq!((world.core.next(), world.core.deadline()), (None, None));
    world.core.spare_ready();
    assert_eq!(world.core.next(), durable_lsn);
}

#[test]
fn durable_mark_that_an_entry_came_before_is_written_after_it() {
    let mut world = World::new(config(true, 1));
    let lsn = world.append(1, false);
    world.request(lsn);
    world.finish();
    world.core.request_mark();
    let durable_mark = Some(Action::SealEmpty(FrameKind::DurableMark));
    assert_eq!(world.core.next(), durable_mark);
    let lsn = world.append(1, false);
    world.core.entry_before(FrameKind::DurableMark);
    world.core.tick(world.now, Tail { end: world.end, ..Tail::default() });
    assert_ne!(world.core.next(), durable_mark, "the entry comes first");
    world.core.request_mark();
    world.request(lsn);
    world.finish();
    assert!(world.core.persisted_mark() > lsn, "the mark that was asked for is durable");
}

#[test]
fn close_makes_everything_durable_and_seals_last() {
    for write_through in [true, false] {
        let mut world = World::new(config(write_through, 2));
        for _ in 0..20 {
            world.append(1, true);
        }
        world.core.close();
        world.finish();
        assert!(world.core.is_closed());
        assert_eq!(world.marks.synced, Lsn(21 * SECTOR));
        let last = world.frames.last().unwrap();
        assert_eq!((last.1.kind, last.2), (FrameKind::CleanShutdown, Truth::Durable));
    }
}

#[test]
fn nothing_advances_after_a_failure() {
    let mut world = World::new(config(true, 2));
    let lsn = world.append(1, false);
    world.append(1, false);
    world.request(lsn);
    world.run();
    world.core.fail();
    world.complete(0);
    world.now = 10_000 * MS;
    world.core.close();
    let before = world.log.len();
    world.run();
    assert_eq!(world.log.len(), before, "no action after the failure");
    assert_eq!(world.marks, Watermarks::default());
}

#[test]
fn failed_spare_is_not_tried_again_before_there_may_be_space() {
    let mut core = Core::new(config(true, 1), Lsn(0), SegmentNumber(1), 0);
    core.tick(0, Tail { end: Lsn(SECTOR), ..Tail::default() });
    assert_eq!(core.next(), Some(Action::Prepare));
    core.spare_failed();
    assert_eq!(core.next(), None);
    core.space();
    assert_eq!(core.next(), Some(Action::Prepare));
}

#[test]
fn balanced_receipts_are_ready_once_written_and_before_any_sync() {
    let mut world = World::new(config(true, 1));
    world.append(1, false);
    world.now = 10 * MS;
    world.finish();
    assert_eq!((world.marks.balanced, world.marks.synced), (Lsn(SECTOR), Lsn(0)));
}

#[test]
fn sync_for_the_bound_starts_at_half_of_it() {
    let config = Config { balanced_max_unsynced: 12 * SECTOR, ..config(false, 1) };
    let mut world = World::new(config);
    let half = 6;
    for frame in 1..=half {
        assert_eq!(world.count(is_sync), 0, "before frame {frame}");
        // Relaxed: neither their number nor their time calls for a sync.
        world.append(1, true);
        world.now += 10 * MS;
        world.run();
        world.complete(0);
        world.run();
    }
    assert_eq!(world.count(is_sync), 1);
}

#[test]
fn lateness_is_what_passed_since_a_write_was_due() {
    let mut world = World::new(config(true, 1));
    for (at, late) in [(10, 0), (30, 0), (53, 3)] {
        world.now = at * MS - if late == 0 { 10 * MS } else { 13 * MS };
        world.run();
        world.append(1, true);
        world.now = at * MS;
        world.finish();
        assert_eq!(world.core.take_lateness(), late * MS, "at {at} ms");
        assert_eq!(world.core.take_lateness(), 0, "it is told once");
    }
    // A durable mark is not data: it is written when there is time.
    world.now = 2000 * MS;
    world.finish();
    world.now = 2060 * MS;
    world.finish();
    assert_eq!(world.count(|a| matches!(a, Action::SealEmpty(_))), 1);
    assert_eq!(world.core.take_lateness(), 0);
}

#[test]
fn what_came_while_the_flusher_slept_is_as_new_as_its_wake_up() {
    let mut core = Core::new(config(true, 1), Lsn(0), SegmentNumber(1), 0);
    let tail = Tail { end: Lsn(SECTOR), after_sleep: true, ..Tail::default() };
    core.tick(1000 * MS, tail);
    assert_eq!(core.next(), Some(Action::Prepare));
    assert_eq!(core.next(), None);
    assert_eq!(core.deadline(), Some(1010 * MS));
    core.tick(1010 * MS, Tail { after_sleep: false, ..tail });
    assert_eq!(core.next(), Some(Action::Seal));
}

#[test]
fn interval_of_what_comes_after_a_frame_begins_with_its_seal() {
    let mut world = World::new(config(true, 4));
    world.append(1, true);
    world.now = 10 * MS;
    world.run();
    world.append(1, true);
    world.now = 15 * MS;
    world.run();
    assert_eq!((world.count(|a| *a == Action::Seal), world.core.deadline()), (1, Some(20 * MS)));
}

#[test]
fn idle_time_begins_with_the_last_data_and_not_with_a_mark() {
    let mut world = World::new(config(true, 1));
    for at in [0, 30] {
        world.now = at * MS;
        let lsn = world.append(1, false);
        world.request(lsn);
        world.finish();
        assert_eq!(world.core.deadline(), Some((at + 50) * MS));
    }
    world.now = 79 * MS;
    world.finish();
    assert_eq!(world.count(|a| matches!(a, Action::SealEmpty(_))), 0);
    world.now = 80 * MS;
    world.finish();
    assert_eq!(world.count(|a| matches!(a, Action::SealEmpty(_))), 1);
}

#[test]
fn frame_that_nobody_waits_for_does_not_hold_a_group_back() {
    let mut world = World::new(config(true, 4));
    // Somebody waits for all below the frame, and for nothing of it.
    world.core.request(Lsn(0), Lsn(SECTOR));
    world.append(1, false);
    world.finish();
    world.append(2, false);
    world.now = 10 * MS;
    world.run();
    let waited_for = world.append(2, false);
    world.request(waited_for);
    world.run();
    assert_eq!((world.count(|a| *a == Action::Seal), world.in_flight.len()), (3, 2));
}

#[test]
fn no_segment_is_prepared_before_the_first_append() {
    let mut world = World::new(config(true, 1));
    world.now = 10_000 * MS;
    world.finish();
    assert_eq!(world.count(|a| *a == Action::Prepare), 0);
    world.append(1, false);
    world.finish();
    assert_eq!(world.count(|a| *a == Action::Prepare), 1);
}

#[test]
fn a_segment_is_prepared_once_for_each_that_is_used() {
    let mut world = World::new(config(true, 1));
    let prepared = |world: &World| world.count(|a| *a == Action::Prepare);
    for frame in 0..3 * SEGMENT_FRAMES {
        let lsn = world.append(1, false);
        world.request(lsn);
        world.finish();
        assert_eq!(prepared(&world) as u64, 1 + frame / SEGMENT_FRAMES, "after frame {frame}");
    }
}

#[test]
fn closed_frame_is_due_at_once() {
    let mut core = Core::new(config(true, 1), Lsn(0), SegmentNumber(1), 0);
    core.tick(3 * MS, Tail { end: Lsn(2 * SECTOR), closed: 1, ..Tail::default() });
    assert_eq!(core.deadline(), Some(3 * MS));
    core.tick(3 * MS, Tail { end: Lsn(2 * SECTOR), closed: 0, ..Tail::default() });
    assert_eq!(core.deadline(), Some(10 * MS));
}

#[test]
fn durable_position_is_the_published_one() {
    let mut world = World::new(config(true, 1));
    let lsn = world.append(1, false);
    world.request(lsn);
    world.finish();
    assert_eq!((world.core.synced(), world.marks.synced), (Lsn(SECTOR), Lsn(SECTOR)));
    assert!(!world.core.is_closed());
}

#[test]
fn one_sync_is_for_all_writes_that_somebody_waits_for_and_no_other_holds_it_back() {
    let mut world = World::new(config(false, 4));
    world.append(2, false);
    world.append(2, false);
    // All below the third frame, which is on its way, too.
    world.core.request(Lsn(0), Lsn(2 * SECTOR));
    world.append(2, false);
    world.append(2, false);
    world.run();
    assert_eq!(world.in_flight.len(), 3);
    world.complete(0);
    world.run();
    assert_eq!(world.count(is_sync), 0, "the second frame is not written yet");
    let before = world.log.len();
    world.complete(0);
    world.run();
    assert_eq!(world.count(is_sync), 1, "nobody waits for the third one");
    let did = &world.log[before..];
    assert!(matches!(did[0], Action::Advance(_)), "written is told before a sync: {did:?}");
}

#[test]
fn two_segments_may_be_unsynced_and_a_third_one_waits() {
    let mut world = World::new(config(false, 64));
    for _ in 0..3 * SEGMENT_FRAMES {
        world.append(1, true);
    }
    world.run();
    let writes = world.count(|action| matches!(action, Action::Write { .. }));
    assert_eq!(writes as u64, 2 * SEGMENT_FRAMES);
}

#[test]
fn no_frame_is_closed_before_it_can_be_written() {
    let mut world = World::new(config(true, 1));
    for _ in 0..5 {
        world.append(1, false);
    }
    world.run();
    assert_eq!(world.count(|action| *action == Action::Seal), 1);
}

#[test]
fn without_dsync_a_group_gathers_until_the_write_before_it_landed_or_it_is_due() {
    let sealed = |world: &World| world.count(|action| *action == Action::Seal);
    for lands_early in [true, false] {
        let mut world = World::new(config(false, 4));
        world.append(2, false);
        world.now = 10 * MS;
        world.run();
        let last = world.append(2, false);
        world.request(last);
        world.now = 12 * MS;
        world.run();
        assert_eq!(sealed(&world), 1, "its sync comes first");
        if lands_early {
            world.complete(0);
        } else {
            world.now = 20 * MS;
        }
        world.run();
        assert_eq!(sealed(&world), 2);
    }
}

#[test]
fn seal_without_room_ends_the_log_and_a_mark_without_room_does_not() {
    let mut world = World::new(config(true, 1));
    let lsn = world.append(1, false);
    world.request(lsn);
    world.finish();
    world.core.no_room_for(FrameKind::DurableMark);
    assert!(!world.core.is_closed());
    world.core.close();
    assert_eq!(world.core.next(), Some(Action::SealEmpty(FrameKind::CleanShutdown)));
    world.core.no_room_for(FrameKind::CleanShutdown);
    assert_eq!((world.core.next(), world.core.is_closed()), (None, true));
}

#[test]
fn log_is_sealed_only_when_the_segments_before_have_theirs() {
    let mut world = World::new(config(true, 4));
    for _ in 0..=SEGMENT_FRAMES {
        world.append(1, false);
    }
    world.core.close();
    world.run();
    let is_seal = |action: &Action| matches!(action, Action::SealSegment { .. });
    while world.count(is_seal) == 0 {
        world.complete(0);
        world.run();
    }
    let seal = world.in_flight.iter().position(|(action, _)| is_seal(action)).unwrap();
    while world.in_flight.len() > 1 {
        world.complete(usize::from(seal == 0));
        world.run();
    }
    assert_eq!(world.count(|action| matches!(action, Action::SealEmpty(_))), 0);
    world.finish();
    assert!(world.core.is_closed());
    assert_eq!(world.count(|action| matches!(action, Action::SealEmpty(_))), 1);
}

quickcheck::quickcheck! {
    /// Whatever the order of appends, waits, time and completions: watermarks tell the
    /// truth, bounds hold (checked at every step), and in the end all is durable.
    fn watermarks_tell_the_truth_under_any_order(
        script: Vec<(u8, u8)>,
        write_through: bool,
        depth: u8
    ) -> bool {
        let mut world = World::new(config(write_through, usize::from(depth % 6) + 1));
        for (what, argument) in script {
            match what % 8 {
                0..=2 => {
                    world.append(u32::from(argument % 20) + 1, argument & 1 == 0);
                }
                3 => {
                    let upto = Lsn(world.end.0 * u64::from(argument) / 256);
                    world.request(upto);
                }
                4 => world.now += u64::from(argument) * MS,
                _ if world.in_flight.is_empty() => {}
                _ => world.complete(usize::from(argument) % world.in_flight.len()),
            }
            world.run();
        }
        world.core.close();
        world.finish();
        world.core.is_closed() && world.marks.synced == world.taken
    }
}
