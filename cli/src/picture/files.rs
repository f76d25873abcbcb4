//! The files of a log: what each byte of them is, to scale.
//!
//! Owns the drawing; `rows` owns which files are drawn one by one.

use super::drawing::{Drawing, Scale};
use super::parts::counted;
use super::problems::{Problem, Severity};
use super::rows::{Kind, Row};
use crate::numbers::{grouped, size};

const LEFT: f64 = 140.0;
const RIGHT: f64 = 800.0;
const ROW: f64 = 22.0;
const BAR: f64 = 15.0;
/// The narrowest that a part is drawn.
const MIN_PART: f64 = 1.5;
const MIN_DAMAGE: f64 = 5.0;
/// CONTROL is short, and not to scale.
const CONTROL: f64 = 40.0;

pub(super) fn draw(rows: &[Row], problems: &[Problem], durable: u64, sector: u64) -> Drawing {
    let mut drawing = Drawing::new(
        "files",
        "The segment files",
        "A line for each segment file, or for several alike, to scale: header, frames that count, \
         what is damaged, torn, replaced, or not used yet. The table below says the same.",
    );
    let single = || rows.iter().filter(|row| row.count == 1);
    let longest = single().map(|row| row.file_len).max().unwrap_or(0).max(1);
    // What is not used yet may be much longer than the rest, and is cut off where it is.
    let used = |row: &Row| row.file_len - row.bytes.map_or(0, |bytes| bytes.zero);
    let used = single().map(used).max().unwrap_or(0);
    let longest = longest.min(used.saturating_add(used / 4)).max(1);
    let scale = Scale { from: 0, to: longest, left: LEFT, right: RIGHT };
    let mut y = 6.0;
    if let Some(control) =
        problems.iter().filter(|one| one.is_of_control).max_by_key(|one| one.severity)
    {
        let (name, class, note) = match control.severity {
            Severity::Damage => ("lane-bad", "lost", "note-bad"),
            _ => ("lane", "torn", "note"),
        };
        drawing.label_before(name, LEFT - 10.0, y + 12.0, "CONTROL");
        drawing.shape(class, (LEFT, LEFT + CONTROL), (y, BAR), &control.words);
        drawing.label(note, RIGHT + 14.0, y + 12.0, "damaged: see the evidence");
        y += ROW;
    }
    for row in rows {
        draw_row(&mut drawing, row, problems, (durable, sector), &scale, y);
        y += ROW;
    }
    if rows.iter().any(|row| row.count > 1 && row.kind != Kind::Missing) {
        drawing.label("small", LEFT, y + 8.0, "thin: several files together, not to scale");
        y += 12.0;
    }
    drawing.height.0 = y + 4.0;
    drawing
}

fn draw_row(
    drawing: &mut Drawing,
    row: &Row,
    problems: &[Problem],
    (durable, sector): (u64, u64),
    scale: &Scale,
    y: f64,
) {
    let at = (y, BAR);
    let text_y = y + 12.0;
    let is_bad = row.severity == Severity::Damage;
    drawing.label_before(if is_bad { "lane-bad" } else { "lane" }, LEFT - 10.0, text_y, &name(row));
    if row.kind == Kind::Missing {
        drawing.shape("missing", (LEFT, RIGHT), at, &format!("{} missing: no file", name(row)));
    } else if row.count > 1 {
        draw_sum(drawing, row, at);
    } else {
        draw_parts(drawing, row, scale, at);
    }
    if row.count == 1 {
        draw_mark(drawing, row, (durable, sector), scale, at);
        let own = problems.iter().filter(|problem| problem.segment == Some(row.numbers.0));
        for problem in own.filter(|problem| problem.severity > Severity::Note) {
            let Some(offset) = problem.offset else { continue };
            let class = if problem.severity == Severity::Damage { "flag-bad" } else { "flag-warn" };
            let x = scale.x(offset).min(RIGHT - MIN_DAMAGE);
            let end = scale.x(offset.saturating_add(problem.len)).max(x + MIN_DAMAGE);
            drawing.shape(class, (x, end.min(RIGHT)), (y - 2.0, BAR + 4.0), &problem.words);
        }
    }
    let class = if is_bad { "note-bad" } else { "note" };
    drawing.label(class, RIGHT + 14.0, text_y, &note(row));
}

pub(super) fn name(row: &Row) -> String {
    match row.numbers {
        (first, last) if first == last => format!("segment {first}"),
        (first, last) => format!("segments {first}–{last}"),
    }
}

fn note(row: &Row) -> String {
    if row.kind == Kind::Missing {
        return "missing".to_owned();
    }
    let files =
        if row.count > 1 { format!("{} files, ", grouped(row.count)) } else { String::new() };
    let mut words = format!("{files}{}, {}", row.state(), size(row.file_len));
    if row.frames > 0 {
        let frames = counted(row.frames, "frame", "frames");
        words += &format!(": {frames}, {}", counted(row.entries, "entry", "entries"));
    }
    words
}

/// The parts of a file in their order: class, words, length.
fn parts(row: &Row) -> Vec<(&'static str, &'static str, u64)> {
    let Some(bytes) = row.bytes else { return Vec::new() };
    // A file that only lies behind the damage does not hide the damaged one.
    let unread = match row.severity {
        Severity::Damage => ("lost", "damaged or behind the damage: can't be read in order"),
        _ => ("behind", "behind the damage: can't be read in order"),
    };
    let all = [
        ("header", "header", bytes.header),
        ("live", "frames that count", bytes.live),
        ("dead", "no part of the log any more", bytes.dead),
        ("torn", "torn: behind the end, never marked durable", bytes.torn),
        (unread.0, unread.1, bytes.unread),
        ("zero", "not used yet", bytes.zero),
    ];
    all.into_iter().filter(|(_, _, len)| *len > 0).collect()
}

fn draw_parts(drawing: &mut Drawing, row: &Row, scale: &Scale, at: (f64, f64)) {
    if row.bytes.is_none() {
        let title = format!("{}: the file was removed while this was read", name(row));
        drawing.shape("zero", scale.span(0, row.file_len), at, &title);
    }
    let (mut offset, mut last) = (0, scale.left);
    for (class, words, len) in parts(row) {
        let title = format!("{}: {}, {words}", name(row), size(len));
        let x = scale.x(offset).max(last);
        offset += len;
        let least = if matches!(class, "torn" | "lost" | "behind") { MIN_DAMAGE } else { MIN_PART };
        let end = scale.x(offset).max(x + least).min(RIGHT);
        drawing.shape(class, (x.min(end), end), at, &title);
        last = end;
    }
}

/// Draws several files as one thin bar, in which their parts have their shares.
fn draw_sum(drawing: &mut Drawing, row: &Row, at: (f64, f64)) {
    let scale = Scale { from: 0, to: row.file_len.max(1), left: LEFT, right: RIGHT };
    let mut sum = row.clone();
    sum.count = 1;
    let (y, height) = at;
    draw_parts(drawing, &sum, &scale, (y + height / 3.0, height / 3.0));
}

/// Draws where the part that is proved to be durable ends, if that is in this file.
fn draw_mark(
    drawing: &mut Drawing,
    row: &Row,
    (durable, sector): (u64, u64),
    scale: &Scale,
    (y, height): (f64, f64),
) {
    let Some((from, to)) = row.live.filter(|(from, to)| *from < durable && durable <= *to) else {
        return;
    };
    // The live part begins behind the header, but in a segment that a tail rewrite began.
    let live = row.bytes.map_or(0, |bytes| bytes.live);
    let offset = sector + live.min(to - from).saturating_sub(to - durable);
    let x = scale.x(offset);
    let title = format!("everything below LSN {} is proved to have been durable", grouped(durable));
    drawing.shape("durable-end", (x - 1.0, x + 1.0), (y - 3.0, height + 6.0), &title);
}
