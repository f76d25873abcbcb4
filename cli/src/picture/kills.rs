//! A drill as a page: what was acknowledged before each kill, and what was there after it.

use askama::Template;

use super::drawing::{Drawing, Scale, WIDTH, cleaned};
use super::parts::{Fact, TableRow, footer};
use crate::numbers::grouped;

/// The most kills that are drawn.
const MAX_KILLS: usize = 60;
const LEFT: f64 = 190.0;
const RIGHT: f64 = WIDTH - 150.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
const MIN_DAMAGE: f64 = 5.0;

/// What is known of one kill: positions that the child reported, and what recovery found.
#[derive(Clone, Debug)]
pub(crate) struct KillMarks {
    pub(crate) number: u64,
    pub(crate) aim: &'static str,
    pub(crate) after_ms: f64,
    pub(crate) acknowledged: u64,
    pub(crate) acknowledged_to: Option<u64>,
    pub(crate) written: Option<u64>,
    pub(crate) durable: Option<u64>,
    /// `None` when the next kill came first.
    pub(crate) proved: Option<u64>,
    pub(crate) recovered_to: Option<u64>,
    pub(crate) lost_allowed: u64,
    pub(crate) lost_forbidden: u64,
    pub(crate) verdict: &'static str,
    pub(crate) is_broken: bool,
}

/// A page about a drill.
#[derive(Template)]
#[template(path = "kills.html")]
pub(crate) struct KillsPage {
    heading: String,
    badge: (&'static str, &'static str),
    sentence: String,
    drawing: Drawing,
    facts: Vec<Fact>,
    rows: Vec<TableRow>,
    left_out: usize,
    problems: Vec<String>,
    footer: String,
}

impl KillsPage {
    /// Draws the kills of a drill at a level. `sentence` is its verdict, `problems` what it found.
    pub(crate) fn new(
        level: &'static str,
        is_good: bool,
        sentence: &str,
        kills: &[KillMarks],
        problems: &[String],
    ) -> Self {
        let shown = shown(kills);
        let sum = |of: fn(&KillMarks) -> u64| grouped(kills.iter().map(of).sum());
        let fact = |id, name, value| Fact { id, name, value };
        Self {
            heading: format!("{} kills at {level}", grouped(kills.len() as u64)),
            badge: if is_good { ("good", "passed") } else { ("bad", "failed") },
            sentence: cleaned(sentence),
            drawing: draw(&shown, level),
            facts: vec![
                fact("level", "acknowledged at", level.to_owned()),
                fact("acknowledged", "acknowledged records", sum(|kill| kill.acknowledged)),
                fact("lost-allowed", "lost, as the level allows", sum(|kill| kill.lost_allowed)),
                fact("lost-forbidden", "lost, and forbidden", sum(|kill| kill.lost_forbidden)),
            ],
            rows: shown.iter().map(|kill| row(kill)).collect(),
            left_out: kills.len() - shown.len(),
            problems: problems.iter().map(|words| cleaned(words)).collect(),
            footer: footer(
                "drill",
                "every entry of the log, after each kill that a recovery followed",
            ),
        }
    }
}

/// Returns the kills that are drawn: those that went wrong, then the first ones, in order.
fn shown(kills: &[KillMarks]) -> Vec<&KillMarks> {
    let (mut shown, others): (Vec<_>, Vec<_>) = kills.iter().partition(|kill| kill.is_broken);
    shown.truncate(MAX_KILLS);
    let room = MAX_KILLS - shown.len();
    shown.extend(others.into_iter().take(room));
    shown.sort_by_key(|kill| kill.number);
    shown
}

fn draw(kills: &[&KillMarks], level: &str) -> Drawing {
    let mut drawing = Drawing::new(
        "kills",
        "What was acknowledged before each kill, and what was there after it",
        "A line for each kill along the positions of the log: what recovery kept, how much of it \
         was proved durable, up to where records were acknowledged, and what was lost.",
    );
    let ends = kills.iter().flat_map(|kill| {
        [kill.acknowledged_to, kill.written, kill.durable, kill.recovered_to].into_iter().flatten()
    });
    let scale = Scale { from: 0, to: ends.max().unwrap_or(1), left: LEFT, right: RIGHT };
    let mut y = 8.0;
    for kill in kills {
        draw_kill(&mut drawing, kill, level, &scale, y);
        y += ROW;
    }
    drawing.shape("axis", (LEFT, RIGHT), (y, 1.0), "");
    drawing.label_before("lane", LEFT - 10.0, y + 16.0, "LSN");
    for tick in scale.ticks() {
        let x = scale.x(tick);
        drawing.shape("axis", (x - 0.5, x + 0.5), (y, 5.0), "");
        drawing.label_at("tick", x, y + 16.0, &grouped(tick));
    }
    drawing.height.0 = y + 26.0;
    drawing
}

fn draw_kill(drawing: &mut Drawing, kill: &KillMarks, level: &str, scale: &Scale, y: f64) {
    let at = (y, BAR);
    let name = format!("kill {}, {}", kill.number, kill.aim);
    let class = if kill.is_broken { "lane-bad" } else { "lane" };
    drawing.label_before(class, LEFT - 10.0, y + 11.0, &name);
    if let (Some(proved), Some(end)) = (kill.proved, kill.recovered_to) {
        let proved = proved.min(end);
        let title = format!("{name}: everything below LSN {} was proved durable", grouped(proved));
        drawing.shape("proved", scale.span(0, proved), at, &title);
        if end > proved {
            let title = format!(
                "{name}: LSN {} to {} was whole, and was kept without a durable mark that covers it",
                grouped(proved),
                grouped(end)
            );
            drawing.shape("unproved", scale.span(proved, end), at, &title);
        }
        let lost = kill.lost_allowed + kill.lost_forbidden;
        if lost > 0 {
            let (class, words) = if kill.lost_forbidden > 0 {
                ("lost", "must not be lost")
            } else {
                ("torn", "may lose what was still in memory")
            };
            let title =
                format!("{name}: {} acknowledged records are gone; {level} {words}", grouped(lost));
            let to = kill.acknowledged_to.unwrap_or(end).max(end);
            let x = scale.x(end);
            drawing.shape(class, (x, scale.x(to).max(x + MIN_DAMAGE)), at, &title);
        }
    }
    let marks = [
        ("mark-written", kill.written, "the child had written up to"),
        ("mark", kill.durable, "the child knew to be durable everything below"),
        ("mark-acked", kill.acknowledged_to, "the last record acknowledged before the kill was at"),
    ];
    for (class, lsn, words) in marks {
        let Some(lsn) = lsn else { continue };
        let x = scale.x(lsn);
        let title = format!("{name}: {words} LSN {}", grouped(lsn));
        drawing.shape(class, (x - 1.0, x + 1.0), (y - 3.0, BAR + 6.0), &title);
    }
    let note = if kill.is_broken { "note-bad" } else { "note" };
    drawing.label(note, RIGHT + 12.0, y + 11.0, kill.verdict);
}

fn row(kill: &KillMarks) -> TableRow {
    let lsn = |lsn: Option<u64>| lsn.map_or_else(|| "–".to_owned(), grouped);
    let cells = vec![
        grouped(kill.number),
        kill.aim.to_owned(),
        format!("{} ms", kill.after_ms),
        grouped(kill.acknowledged),
        lsn(kill.acknowledged_to),
        lsn(kill.written),
        lsn(kill.durable),
        lsn(kill.proved),
        lsn(kill.recovered_to),
        grouped(kill.lost_allowed + kill.lost_forbidden),
        kill.verdict.to_owned(),
    ];
    TableRow { class: if kill.is_broken { "bad" } else { "plain" }, cells }
}
