//! The log along its positions: segments, frames and durable marks to scale, what checkpoints
//! stand for and what holds keep, and over all of it the damage.
//!
//! Owns the drawing. A position whose place in the log is not known (a missing segment, one behind
//! a gap) is drawn at the right, not to scale, and says so.

use bulla_recovery::{FrameRun, Report, Status};

use super::drawing::{Drawing, Scale, WIDTH};
use super::parts::{counted, time};
use super::problems::{Problem, Severity};
use super::rows::{Kind, Row};
use crate::commands::holds::HoldRow;
use crate::commands::inspection::CheckpointRow;
use crate::numbers::{grouped, size};
use crate::times;

/// Where the lanes begin: their names are left of it.
const LEFT: f64 = 118.0;
const RIGHT: f64 = WIDTH - 24.0;
/// Width of the part that is not to scale.
const UNPLACED: f64 = 210.0;
/// Blocks narrower than this are drawn as one.
const MIN_WIDTH: f64 = 3.0;
/// Frames narrower than this are drawn as one.
const MIN_FRAME: f64 = 1.7;
/// The narrowest blocks that have gaps between them.
const MIN_GAPPED: f64 = 7.0;
/// The shortest way between two durable marks, and between two cuts.
const MIN_MARK: f64 = 4.0;
/// The narrowest that damage is drawn.
const MIN_DAMAGE: f64 = 5.0;
/// The most lanes of checkpoints, and of holds.
const MAX_LANES: usize = 8;
/// The most words at places of damage.
const MAX_FLAGS: usize = 4;
const FLAG: f64 = 20.0;
/// The shortest way between two times on the axis.
const MIN_TIMES: f64 = 125.0;

/// What the picture shows.
pub(super) struct Subject<'a> {
    pub(super) found: &'a Report,
    pub(super) rows: &'a [Row],
    pub(super) runs: &'a [&'a [FrameRun]],
    pub(super) checkpoints: &'a [CheckpointRow],
    pub(super) holds: &'a [HoldRow],
    pub(super) problems: &'a [Problem],
}

/// A block of the lane of segments.
struct Block {
    class: &'static str,
    from: u64,
    to: u64,
    title: String,
    numbers: (u64, u64),
}

pub(super) fn draw(subject: &Subject<'_>) -> Drawing {
    let found = subject.found;
    let blocks = blocks(subject);
    let unplaced = unplaced(subject);
    let scale = scale(subject, &blocks, !unplaced.is_empty());
    let mut drawing = Drawing::new(
        "timeline",
        "The log along its positions",
        "Segments, frames and durable marks from the first position to the last, to scale; what \
         checkpoints stand for, what holds keep, and where damage is. The tables below say the same.",
    );
    let flags = flags(subject, &scale);
    #[expect(clippy::cast_precision_loss, reason = "at most a few")]
    let mut y = 8.0 + FLAG * flags.len() as f64;
    let top = y;
    lane(&mut drawing, y, 46.0, "segments");
    // Damage last: nothing hides it.
    let is_damage = |block: &Block| matches!(block.class, "lost" | "torn");
    let (damage, others): (Vec<_>, Vec<_>) =
        joined(blocks, &scale).into_iter().partition(is_damage);
    for block in others.iter().chain(&damage) {
        draw_block(&mut drawing, block, &scale, (y, 46.0));
    }
    draw_unplaced(&mut drawing, &unplaced, &scale, (y, 46.0));
    y += 54.0;
    lane(&mut drawing, y, 20.0, "frames");
    frames(&mut drawing, subject, &scale, (y, 20.0));
    y += 28.0;
    lane(&mut drawing, y, 16.0, "durable");
    durable(&mut drawing, subject, &scale, (y, 16.0));
    y += 24.0;
    y = epochs(&mut drawing, found, &scale, y);
    y = checkpoints(&mut drawing, subject.checkpoints, &scale, y);
    y = holds(&mut drawing, subject.holds, found, &scale, y);
    draw_flags(&mut drawing, &flags, (top, y - 4.0));
    axis(&mut drawing, subject, &scale, y);
    drawing.height.0 = y + 44.0;
    drawing
}

/// Returns what is drawn where, from the first position that anything has to the last.
fn scale(subject: &Subject<'_>, blocks: &[Block], has_unplaced: bool) -> Scale {
    let found = subject.found;
    let ends = blocks.iter().flat_map(|block| [block.from, block.to]);
    let marks = [found.first_lsn.0, found.last_lsn.0, found.durable_lsn.0];
    let checkpoints = subject.checkpoints.iter().filter_map(|checkpoint| checkpoint.lsn);
    let holds = subject.holds.iter().filter_map(|hold| hold.lsn);
    let all = || ends.clone().chain(marks).chain(checkpoints.clone()).chain(holds.clone());
    let right = if has_unplaced { RIGHT - UNPLACED } else { RIGHT };
    let (from, to) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    Scale { from, to, left: LEFT, right }
}

/// Returns the segments whose positions are known, and what is damaged between them.
fn blocks(subject: &Subject<'_>) -> Vec<Block> {
    let found = subject.found;
    let is_corrupt = matches!(found.status, Status::Corrupt(_));
    let mut blocks = Vec::new();
    let mut behind: Option<u64> = None;
    for (row, runs) in subject.rows.iter().filter(|row| row.kind != Kind::Missing).zip(subject.runs)
    {
        let (class, words, span) = match (row.live.filter(|(from, to)| from < to), *runs) {
            (Some(live), _) => ("live", row.state(), Some(live)),
            (None, [first, .., last] | [first @ last]) if is_corrupt => {
                ("behind", "behind the damage", Some((first.lsn.0, last.end.0)))
            }
            _ => continue,
        };
        let Some((from, to)) = span else { continue };
        if class == "behind" {
            behind.get_or_insert(from);
        }
        let title = format!("segment {}, {words}: {}", row.numbers.0, words_of(row, (from, to)));
        blocks.push(Block { class, from, to, title, numbers: row.numbers });
    }
    // From the end of what can be read up to what is known to follow.
    let end = found.last_lsn.0;
    let until = behind.unwrap_or(found.durable_lsn.0).max(end);
    if is_corrupt && until > end {
        let title = format!(
            "LSN {} to {}, {}: damaged, or behind the damage in the same segment; it can't be read \
             in order",
            grouped(end),
            grouped(until),
            size(until - end),
        );
        let (class, numbers) = ("lost", (0, 0));
        blocks.push(Block { class, from: end, to: until, title, numbers });
        blocks.sort_by_key(|block| block.from);
    } else if found.bytes_cut > 0 {
        let title = format!(
            "{} behind LSN {}: never marked durable; an open cuts them off and keeps a copy",
            size(found.bytes_cut),
            grouped(end)
        );
        let to = end.saturating_add(found.bytes_cut);
        blocks.push(Block { class: "torn", from: end, to, title, numbers: (0, 0) });
    }
    blocks
}

/// Joins segments that would be too narrow to be seen one by one.
fn joined(blocks: Vec<Block>, scale: &Scale) -> Vec<Block> {
    let mut joined: Vec<Block> = Vec::new();
    for block in blocks {
        match joined.last_mut() {
            Some(last)
                if last.class == block.class
                    && last.to == block.from
                    && scale.x(last.to) - scale.x(last.from) < MIN_WIDTH =>
            {
                last.to = block.to;
                last.numbers.1 = block.numbers.1;
                last.title = format!(
                    "segments {} to {}: LSN {} to {}",
                    last.numbers.0,
                    last.numbers.1,
                    grouped(last.from),
                    grouped(last.to)
                );
            }
            _ => joined.push(block),
        }
    }
    joined
}

fn words_of(row: &Row, (from, to): (u64, u64)) -> String {
    let mut words = format!(
        "LSN {} to {}, {}, {}, file {}",
        grouped(from),
        grouped(to),
        counted(row.frames, "frame", "frames"),
        counted(row.entries, "entry", "entries"),
        size(row.file_len)
    );
    if let Some((epoch, _)) = row.epochs {
        words += &format!(", epoch {epoch}");
    }
    if let Some((first, last)) = row.written {
        words += &format!(", written {} to {}", time(first), time(last));
    }
    words
}

fn draw_block(drawing: &mut Drawing, block: &Block, scale: &Scale, at: (f64, f64)) {
    let (mut x, mut end) = scale.span(block.from, block.to);
    let is_damage = matches!(block.class, "lost" | "torn");
    if is_damage && end - x < MIN_DAMAGE {
        // However short it is, it must be seen.
        end = (x + MIN_DAMAGE).min(RIGHT);
        x = end - MIN_DAMAGE;
    }
    let gap = if end - x > MIN_GAPPED && !is_damage { 1.0 } else { 0.0 };
    drawing.shape(block.class, (x, end - gap), at, &block.title);
    let (first, last) = block.numbers;
    let name = if first == last { format!("{first}") } else { format!("{first}–{last}") };
    #[expect(clippy::cast_precision_loss, reason = "a few digits")]
    let width = 8.0 * name.len() as f64 + 6.0;
    if !is_damage && end - x > width && first > 0 {
        let class = if block.class == "live" { "on" } else { "off" };
        drawing.label(class, x + 5.0, at.0 + 17.0, &name);
    }
}

/// Segments whose positions are not known: their names, classes and words.
fn unplaced(subject: &Subject<'_>) -> Vec<(&'static str, String, String)> {
    let is_unplaced = |row: &&Row| {
        row.kind == Kind::Missing || (row.kind == Kind::Segments("unread") && row.live.is_none())
    };
    let mut groups: Vec<Row> = Vec::new();
    for row in subject.rows.iter().filter(is_unplaced) {
        match groups.last_mut() {
            Some(last) if last.kind == row.kind && last.numbers.1 + 1 == row.numbers.0 => {
                last.numbers.1 = row.numbers.1;
                last.count += row.count;
                last.file_len += row.file_len;
            }
            _ => groups.push(row.clone()),
        }
    }
    let mut named: Vec<_> = groups.iter().take(MAX_LANES).map(named).collect();
    if groups.len() > MAX_LANES {
        let rest = format!("{} more gaps and parts: see the table", groups.len() - MAX_LANES);
        named.push(("behind", "…".to_owned(), rest));
    }
    named
}

fn named(row: &Row) -> (&'static str, String, String) {
    let (first, last) = row.numbers;
    let numbers = if first == last { format!("{first}") } else { format!("{first}–{last}") };
    if row.kind == Kind::Missing {
        let title = format!("segment {numbers} is missing: what it held is not known");
        return ("missing", format!("{numbers} missing"), title);
    }
    let title = format!(
        "segment {numbers}, {}: behind what is missing or damaged; its positions are not known",
        size(row.file_len)
    );
    ("behind", numbers, title)
}

fn draw_unplaced(
    drawing: &mut Drawing,
    unplaced: &[(&'static str, String, String)],
    scale: &Scale,
    (y, height): (f64, f64),
) {
    if unplaced.is_empty() {
        return;
    }
    let left = scale.right + 14.0;
    #[expect(clippy::cast_precision_loss, reason = "at most a few")]
    let width = (RIGHT - left) / unplaced.len() as f64;
    let mut x = left;
    for (class, name, title) in unplaced {
        drawing.shape(class, (x, x + width - 3.0), (y, height), title);
        #[expect(clippy::cast_precision_loss, reason = "a few letters")]
        if width > 7.0 * name.chars().count() as f64 + 8.0 {
            drawing.label(
                if *class == "missing" { "on-bad" } else { "off" },
                x + 6.0,
                y + 28.0,
                name,
            );
        }
        x += width;
    }
    drawing.label("small", left, y + height + 12.0, "positions unknown, not to scale");
}

/// Draws the frames, those that are too narrow together.
fn frames(drawing: &mut Drawing, subject: &Subject<'_>, scale: &Scale, at: (f64, f64)) {
    let (end, durable) = (subject.found.last_lsn.0, subject.found.durable_lsn.0);
    let class_of = |run: &FrameRun| {
        if run.end.0 > end {
            "frame-behind"
        } else if run.end.0 > durable {
            "frame-above"
        } else {
            "frame"
        }
    };
    let mut pending: Option<(FrameRun, &'static str)> = None;
    let mut draw = |run: &FrameRun, class: &'static str| {
        let (x, to) = scale.span(run.lsn.0, run.end.0);
        let gap = if to - x > MIN_GAPPED { 0.7 } else { 0.0 };
        drawing.shape(class, (x, to.max(x + 0.8) - gap), at, &words_of_run(run));
    };
    let runs = subject.runs.iter().copied().flatten().filter(|run| run.lsn < run.end);
    for run in runs {
        let class = class_of(run);
        match &mut pending {
            Some((last, of)) if *of == class && last.end == run.lsn => {
                let (x, to) = scale.span(last.lsn.0, last.end.0);
                if to - x < MIN_FRAME {
                    last.append(run);
                    continue;
                }
                draw(last, of);
                *last = *run;
            }
            Some((last, of)) => {
                draw(last, of);
                (*last, *of) = (*run, class);
            }
            None => pending = Some((*run, class)),
        }
    }
    if let Some((last, class)) = pending {
        draw(&last, class);
    }
}

fn words_of_run(run: &FrameRun) -> String {
    let frames = if run.frames == 1 {
        if run.data_frames == 0 {
            "a frame without entries".to_owned()
        } else {
            "a frame".to_owned()
        }
    } else {
        format!("{} frames", grouped(run.frames))
    };
    let (first, last) = (time(run.first_wall_ns), time(run.last_wall_ns));
    let written = if first == last { first } else { format!("{first} to {last}") };
    format!(
        "{frames}, LSN {} to {}: {}, written {written}; durable mark: LSN {}",
        grouped(run.lsn.0),
        grouped(run.end.0),
        counted(run.entries, "entry", "entries"),
        grouped(run.durable_lsn.0)
    )
}

/// Draws up to where the log is proved to be durable, and the marks that prove it.
fn durable(drawing: &mut Drawing, subject: &Subject<'_>, scale: &Scale, (y, height): (f64, f64)) {
    let found = subject.found;
    let (first, durable, end) = (found.first_lsn.0, found.durable_lsn.0, found.last_lsn.0);
    if durable > first {
        let title =
            format!("everything below LSN {} is proved to have been durable", grouped(durable));
        drawing.shape("proved", scale.span(first, durable), (y, height), &title);
    }
    if end > durable {
        let title = format!(
            "LSN {} to {}: whole, and no durable mark covers it. An open keeps it and makes it \
             durable",
            grouped(durable),
            grouped(end)
        );
        drawing.shape("unproved", scale.span(durable, end), (y, height), &title);
    }
    let mut last_x = f64::MIN;
    let mut last = first;
    for run in subject.runs.iter().copied().flatten() {
        let (mark, x) = (run.durable_lsn.0, scale.x(run.durable_lsn.0));
        if mark > last && x - last_x > MIN_MARK {
            let title = format!(
                "frames up to LSN {} mark LSN {} as durable",
                grouped(run.end.0),
                grouped(mark)
            );
            drawing.shape("mark", (x - 0.5, x + 0.5), (y, height), &title);
            (last, last_x) = (mark, x);
        }
    }
}

/// Draws where recoveries and repairs ended the log, and new epochs began.
fn epochs(drawing: &mut Drawing, found: &Report, scale: &Scale, y: f64) -> f64 {
    let truncations = found.timeline.truncations();
    let mut last_x = f64::MIN;
    for truncation in truncations.iter().filter(|one| one.truncated_at >= found.first_lsn) {
        let x = scale.x(truncation.truncated_at.0);
        if x - last_x > MIN_MARK {
            let title = format!(
                "epoch {}: an open or a repair ended the log at LSN {}, and went on there",
                truncation.epoch,
                grouped(truncation.truncated_at.0)
            );
            drawing.shape("cut", (x - 1.0, x + 1.0), (y, 10.0), &title);
            last_x = x;
        }
    }
    lane(drawing, y, 10.0, "epochs, cuts");
    y + 18.0
}

fn checkpoints(
    drawing: &mut Drawing,
    checkpoints: &[CheckpointRow],
    scale: &Scale,
    mut y: f64,
) -> f64 {
    let shown = checkpoints.iter().take(MAX_LANES);
    for row in shown {
        lane(drawing, y, 14.0, &format!("checkpoint {}", row.checkpoint));
        let class = match (row.usable, row.tokens) {
            (true, _) => "checkpoint",
            (false, Some(_)) => "checkpoint-unusable",
            (false, None) => "checkpoint-damaged",
        };
        let stands = row.lsn.map_or_else(String::new, |lsn| {
            format!(", stands for everything below LSN {}", grouped(lsn))
        });
        let records =
            row.tokens.map_or_else(String::new, |count| format!(", {} records", grouped(count)));
        let title = format!("checkpoint {}: {}{records}{stands}", row.checkpoint, row.state);
        // Of a damaged one the position is not known: it takes the whole lane.
        let end = row.lsn.map_or(scale.right, |lsn| scale.x(lsn).max(scale.left + MIN_DAMAGE));
        let span = (scale.left, end);
        drawing.shape(class, span, (y, 14.0), &title);
        if class == "checkpoint-damaged" {
            drawing.label("on-bad", scale.left + 6.0, y + 11.0, &row.state);
        }
        y += 20.0;
    }
    if checkpoints.len() > MAX_LANES {
        drawing.label(
            "small",
            LEFT,
            y + 10.0,
            &format!("and {} more", checkpoints.len() - MAX_LANES),
        );
        y += 18.0;
    }
    y
}

fn holds(
    drawing: &mut Drawing,
    holds: &[HoldRow],
    found: &Report,
    scale: &Scale,
    mut y: f64,
) -> f64 {
    for row in holds.iter().take(MAX_LANES) {
        lane(drawing, y, 12.0, &format!("hold {}", row.hold));
        let is_ok = row.state == "ok";
        let from = row.lsn.unwrap_or(found.first_lsn.0);
        let keeps = row.lsn.map_or_else(String::new, |lsn| {
            format!(
                ", keeps the log from LSN {} on ({})",
                grouped(lsn),
                size(row.kept_bytes.unwrap_or(0))
            )
        });
        let title = format!("hold {}: {}{keeps}", row.hold, row.state);
        let class = if is_ok { "hold" } else { "hold-broken" };
        let (x, end) = scale.span(from, found.last_lsn.0.max(from));
        drawing.shape(class, (x, end.max(x + MIN_WIDTH)), (y, 12.0), &title);
        y += 18.0;
    }
    if holds.len() > MAX_LANES {
        drawing.label("small", LEFT, y + 10.0, &format!("and {} more", holds.len() - MAX_LANES));
        y += 18.0;
    }
    y
}

/// A place of damage, with words.
struct Flag {
    x: f64,
    class: &'static str,
    place: String,
    words: String,
}

/// Returns the places where something is wrong, the worst first.
fn flags(subject: &Subject<'_>, scale: &Scale) -> Vec<Flag> {
    let mut bad: Vec<_> =
        subject.problems.iter().filter(|problem| problem.severity > Severity::Note).collect();
    bad.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    let mut flags: Vec<Flag> = Vec::new();
    for problem in bad {
        // A missing segment is where what was there before it ends.
        let lsn = match problem.lsn {
            Some(lsn) => lsn,
            None if problem.is_missing_segment => subject.found.last_lsn.0,
            None => continue,
        };
        let x = scale.x(lsn);
        if flags.len() < MAX_FLAGS && flags.iter().all(|flag| (flag.x - x).abs() > 1.0) {
            let class = if problem.severity == Severity::Damage { "bad" } else { "warn" };
            flags.push(Flag { x, class, place: problem.place(), words: problem.words.clone() });
        }
    }
    flags
}

fn draw_flags(drawing: &mut Drawing, flags: &[Flag], (top, bottom): (f64, f64)) {
    let mut y = top - FLAG;
    for Flag { x, class, place, words } in flags {
        let line = if *class == "bad" { "flag-bad" } else { "flag-warn" };
        drawing.shape(line, (x - 1.0, x + 1.0), (y, bottom - y), words);
        let text = if *class == "bad" { "words-bad" } else { "words-warn" };
        // The words go where there is room.
        if *x < WIDTH / 2.0 {
            drawing.label(text, x + 7.0, y + 11.0, place);
        } else {
            drawing.label_before(text, x - 7.0, y + 11.0, place);
        }
        y -= FLAG;
    }
}

fn axis(drawing: &mut Drawing, subject: &Subject<'_>, scale: &Scale, y: f64) {
    drawing.shape("axis", (scale.left, scale.right), (y, 1.0), "");
    drawing.label_before("lane", LEFT - 10.0, y + 16.0, "LSN");
    drawing.label_before("lane", LEFT - 10.0, y + 31.0, "written");
    let runs: Vec<&FrameRun> = subject.runs.iter().copied().flatten().collect();
    let written = |run: &&FrameRun| (run.first_wall_ns, run.last_wall_ns);
    let first = runs.iter().map(|run| written(run).0).min().unwrap_or(0);
    let last = runs.iter().map(|run| written(run).1).max().unwrap_or(0);
    let mut free = f64::MIN;
    for tick in scale.ticks() {
        let x = scale.x(tick);
        drawing.shape("axis", (x - 0.5, x + 0.5), (y, 5.0), "");
        drawing.label_at("tick", x, y + 16.0, &grouped(tick));
        let run = runs.iter().find(|run| run.lsn.0 <= tick && tick < run.end.0);
        if let Some(run) = run.filter(|_| x >= free) {
            drawing.label_at("tick", x, y + 31.0, &time_of_tick(run.first_wall_ns, last - first));
            free = x + MIN_TIMES;
        }
    }
}

/// Returns a wall time as exactly as a log that was written in `len_ns` needs.
fn time_of_tick(ns: u64, len_ns: u64) -> String {
    let text = times::of_nanoseconds(ns).unwrap_or_default();
    let part = if len_ns < 60_000_000_000 { text.get(11..23) } else { text.get(5..19) };
    part.unwrap_or(&text).trim_end_matches('Z').replace('T', " ")
}

/// Names a lane, and draws its ground.
fn lane(drawing: &mut Drawing, y: f64, height: f64, name: &str) {
    let mut short: String = name.chars().take(17).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    drawing.label_before("lane", LEFT - 10.0, y + height / 2.0 + 4.0, &short);
}
