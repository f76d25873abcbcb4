//! `--html FILE`: a log, or a drill, as one page that needs nothing else: no script, no network.
//!
//! Owns what a page shows and in which order: the verdict, the picture, the evidence, the tables.
//! It draws what an inspection has found, and judges nothing. The page's length is bounded by
//! [`MAX_LEN`], whatever the log holds. Tested by `cli/tests/program/picture.rs`.
//!
//! ```text
//! problems  what is wrong, and where     rows      which segments are summed up
//! drawing   shapes, words, scales        timeline  the log along its positions
//! save      the file                     files     what each byte of the files is
//! kills     a drill                       parts     what pages have in common
//! ```

mod drawing;
mod files;
mod kills;
mod parts;
mod problems;
mod rows;
mod save;
mod timeline;

use std::path::{Path, PathBuf};

use askama::Template;
use bulla_recovery::{FrameRun, Inspection, Status};
use bulla_storage::files::dir::QUARANTINE;
use bulla_wal::Corruption;

use self::drawing::{Drawing, cleaned};
pub(crate) use self::kills::{KillMarks, KillsPage};
use self::parts::{Fact, TableRow, footer, time};
use self::problems::{Problem, Severity};
use self::rows::{Row, Segments};
pub(crate) use self::save::Destination;
use crate::commands::holds::HoldRow;
use crate::commands::inspection::{CheckpointRow, Checkpoints};
use crate::commands::report;
use crate::error::{Error, Result};
use crate::numbers::{grouped, size};
use crate::outcome::Outcome;

/// The most bytes that a page has.
pub(crate) const MAX_LEN: usize = 512 * 1024;
/// The most lines of evidence, and of files in quarantine.
const MAX_LINES: usize = 40;

/// The option of the commands that draw.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct HtmlArg {
    /// Also draw what was found, as one HTML file that needs nothing else. It replaces a file of
    /// this name, and nothing but a regular file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl HtmlArg {
    /// Checks that a picture can be written there, if one is wanted: before the work is done.
    pub(crate) fn destination(&self) -> Result<Option<Destination>> {
        self.html.as_deref().map(Destination::check).transpose()
    }
}

impl Destination {
    /// Draws a page, and writes it.
    pub(crate) fn save(&self, page: &impl Template) -> Result<()> {
        let page = page.render().map_err(|error| Error::System {
            what: "draw the page",
            source: std::io::Error::other(error),
        })?;
        debug_assert!(page.len() <= MAX_LEN, "{} bytes", page.len());
        self.write(&page)
    }
}

/// What a page about a log is drawn from.
pub(crate) struct Subject<'a> {
    /// The command, such as `verify`.
    pub(crate) command: &'static str,
    pub(crate) dir: &'a Path,
    pub(crate) inspection: &'a Inspection,
    pub(crate) checkpoints: &'a Checkpoints,
    pub(crate) holds: &'a [HoldRow],
    pub(crate) outcome: Outcome,
    /// What was read, in words.
    pub(crate) checked: &'static str,
}

/// What a class of shapes stands for.
struct Legend {
    class: &'static str,
    words: &'static str,
}

const LEGEND: [(&str, &str); 15] = [
    ("live", "can be read in order"),
    ("lost", "damaged, or lost behind damage"),
    ("missing", "missing"),
    ("behind", "behind the damage"),
    ("torn", "torn: never marked durable"),
    ("proved", "proved durable"),
    ("mark", "a durable mark"),
    ("unproved", "whole, no mark covers it"),
    ("checkpoint", "what a checkpoint stands for"),
    ("checkpoint-unusable", "a checkpoint that can't be used"),
    ("checkpoint-damaged", "a damaged checkpoint"),
    ("hold", "what a hold keeps"),
    ("cut", "an epoch began"),
    ("zero", "not used yet"),
    ("dead", "replaced or purged"),
];

/// Returns the meaning of what is in the pictures.
fn legend(drawings: &[&Drawing]) -> Vec<Legend> {
    let is_drawn = |class| {
        drawings.iter().any(|drawing| drawing.shapes.iter().any(|shape| shape.class == class))
    };
    let drawn = LEGEND.into_iter().filter(|(class, _)| is_drawn(*class));
    drawn.map(|(class, words)| Legend { class, words }).collect()
}

/// A line of evidence.
struct Line {
    class: &'static str,
    words: String,
}

/// A page about a log.
#[derive(Template)]
#[template(path = "log.html")]
pub(crate) struct LogPage {
    heading: String,
    badge: (&'static str, &'static str),
    sentence: String,
    advice: Option<String>,
    drawing: Option<Drawing>,
    files: Option<Drawing>,
    legend: Vec<Legend>,
    facts: Vec<Fact>,
    durability: Option<Durability>,
    evidence: Vec<Line>,
    segments: Vec<TableRow>,
    checkpoints: Vec<TableRow>,
    holds: Vec<TableRow>,
    quarantine: Vec<TableRow>,
    footer: String,
}

/// What the log says of what was acknowledged: positions, in words.
struct Durability {
    first: String,
    durable: String,
    end: String,
    is_closed: bool,
    cut: Option<String>,
    is_corrupt: bool,
    /// Above the end: known to have been durable up to here.
    lost: Option<String>,
}

impl LogPage {
    pub(crate) fn new(subject: &Subject<'_>) -> Result<Self> {
        let inspection = subject.inspection;
        let found = inspection.report();
        let problems = problems::of_report(found);
        let runs: Vec<&[FrameRun]> = inspection.frame_runs().collect();
        let bytes = inspection.measure()?;
        let segments = Segments { reports: &found.segments, runs: &runs, bytes: &bytes };
        let all = rows::all(&segments, &problems);
        let short = rows::summed_up(&all);
        let checkpoints: Vec<_> = subject.checkpoints.rows().collect();
        let drawn = timeline::Subject {
            found,
            rows: &all,
            runs: &runs,
            checkpoints: &checkpoints,
            holds: subject.holds,
            problems: &problems,
        };
        let timeline = timeline::draw(&drawn);
        let files = files::draw(&short, &problems, found.durable_lsn.0, found.sector.into());
        Ok(Self {
            heading: cleaned(&subject.dir.display().to_string()),
            badge: badge(subject.outcome, &found.status, subject.checkpoints.is_damaged()),
            sentence: sentence(subject, &problems),
            advice: advice(subject).as_deref().map(cleaned),
            legend: legend(&[&timeline, &files]),
            drawing: Some(timeline),
            files: Some(files),
            facts: facts(subject),
            durability: Some(durability(subject)),
            evidence: evidence(&problems),
            segments: short.iter().map(segment_row).collect(),
            checkpoints: checkpoints.iter().take(MAX_LINES).map(checkpoint_row).collect(),
            holds: subject.holds.iter().take(MAX_LINES).map(hold_row).collect(),
            quarantine: quarantine(subject.dir)?,
            footer: footer(subject.command, subject.checked),
        })
    }

    /// Returns the page of a log of which nothing can be read.
    pub(crate) fn of_unreadable(
        command: &'static str,
        dir: &Path,
        corruption: &Corruption,
        advice: &str,
    ) -> Result<Self> {
        let problems = [problems::of_corruption(corruption)];
        Ok(Self {
            heading: cleaned(&dir.display().to_string()),
            badge: ("bad", "corrupt"),
            sentence: "CONTROL can't be read: without it nothing of the log can be.".to_owned(),
            advice: Some(cleaned(advice)),
            drawing: None,
            files: None,
            legend: Vec::new(),
            facts: Vec::new(),
            durability: None,
            evidence: evidence(&problems),
            segments: Vec::new(),
            checkpoints: Vec::new(),
            holds: Vec::new(),
            quarantine: quarantine(dir)?,
            footer: footer(command, "CONTROL"),
        })
    }
}

fn badge(
    outcome: Outcome,
    status: &Status,
    is_checkpoint_damaged: bool,
) -> (&'static str, &'static str) {
    match (outcome, status) {
        (_, Status::Corrupt(_)) => ("bad", "corrupt"),
        (Outcome::Corrupt, _) => ("bad", "store lost"),
        (Outcome::Failed, _) if is_checkpoint_damaged => ("warn", "checkpoint damaged"),
        (Outcome::Failed, _) => ("warn", "CONTROL damaged"),
        (_, Status::TornTail) => ("warn", "torn tail"),
        (_, Status::Clean) => ("good", "clean"),
    }
}

/// Returns what the user can do: advice for a store includes that for its log.
fn advice(subject: &Subject<'_>) -> Option<String> {
    let found = subject.inspection.report();
    let of_store = subject.checkpoints.advice(found);
    of_store.or_else(|| report::advice(&found.status).map(str::to_owned))
}

/// Returns what was found in a sentence.
fn sentence(subject: &Subject<'_>, problems: &[Problem]) -> String {
    let found = subject.inspection.report();
    let entries = format!(
        "{} entries from LSN {} to {}",
        grouped(found.entries),
        grouped(found.scanned_from.0),
        grouped(found.last_lsn.0)
    );
    let words = match (&found.status, subject.outcome) {
        (Status::Corrupt(_), _) => {
            let damage = problems.iter().find(|problem| problem.severity == Severity::Damage);
            let damage = damage.map_or_else(String::new, |problem| problem.words.clone());
            format!("Corrupt: {damage}. {entries} can be read in order.")
        }
        (_, Outcome::Corrupt) => {
            format!(
                "The log is whole from its low-water mark on, but no checkpoint replaces what was purged. {entries}."
            )
        }
        (Status::TornTail, _) => format!(
            "The end is torn: {} behind LSN {} were never marked durable. {entries} are whole.",
            size(found.bytes_cut),
            grouped(found.last_lsn.0)
        ),
        (Status::Clean, Outcome::Failed) if !subject.checkpoints.is_damaged() => format!(
            "One of the two copies in CONTROL is damaged, and the log fits the other. The next open \
             writes it anew. {entries}."
        ),
        (Status::Clean, Outcome::Failed) => {
            format!("The log is whole, and a checkpoint beside it is damaged. {entries}.")
        }
        (Status::Clean, _) => format!("The log is whole: {entries}."),
    };
    cleaned(&words)
}

fn facts(subject: &Subject<'_>) -> Vec<Fact> {
    let found = subject.inspection.report();
    let fact = |id, name, value: String| Fact { id, name, value: cleaned(&value) };
    let mut facts = vec![
        fact("entries", "entries", grouped(found.entries)),
        fact("first-lsn", "first LSN", grouped(found.first_lsn.0)),
        fact("durable-lsn", "proved durable", format!("LSN {}", grouped(found.durable_lsn.0))),
        fact("last-lsn", "end of what can be read", format!("LSN {}", grouped(found.last_lsn.0))),
        fact("segments", "segment files", grouped(found.segments.len() as u64)),
        fact("epoch", "epoch", found.epoch.to_string()),
        fact("case", "case of the recovery table", found.case.name().to_owned()),
        fact("last-write", "last write", time(found.wall_ns)),
        fact("content", "content", found.content.to_string()),
        fact("log-id", "log", found.log_id.to_string()),
    ];
    if found.status == Status::TornTail {
        facts.push(fact("cut", "bytes that an open cuts off", size(found.bytes_cut)));
    }
    facts
}

fn durability(subject: &Subject<'_>) -> Durability {
    let found = subject.inspection.report();
    let is_corrupt = matches!(found.status, Status::Corrupt(_));
    let is_closed =
        found.evidence.iter().any(|one| matches!(one, bulla_recovery::Evidence::Closed { .. }));
    let lost = is_corrupt && found.durable_lsn > found.last_lsn;
    Durability {
        first: grouped(found.first_lsn.0),
        durable: grouped(found.durable_lsn.min(found.last_lsn).0),
        end: grouped(found.last_lsn.0),
        is_closed: is_closed && !is_corrupt,
        cut: (found.bytes_cut > 0 && !is_corrupt).then(|| size(found.bytes_cut)),
        is_corrupt,
        lost: lost.then(|| grouped(found.durable_lsn.0)),
    }
}

fn evidence(problems: &[Problem]) -> Vec<Line> {
    let mut worst: Vec<&Problem> = problems.iter().collect();
    worst.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    let line = |problem: &&Problem| Line {
        class: match problem.severity {
            Severity::Damage => "bad",
            Severity::Torn => "warn",
            Severity::Note => "plain",
        },
        words: cleaned(&problem.words),
    };
    let mut lines: Vec<Line> = worst.iter().take(MAX_LINES).map(line).collect();
    if worst.len() > MAX_LINES {
        let words = format!("and {} more", worst.len() - MAX_LINES);
        lines.push(Line { class: "plain", words });
    }
    lines
}

/// A cell of what may be unknown.
fn or_dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn segment_row(row: &Row) -> TableRow {
    let class = match row.severity {
        Severity::Damage => "bad",
        Severity::Torn => "warn",
        Severity::Note => "plain",
    };
    let is_there = row.kind != rows::Kind::Missing;
    let (from, to) = row.live.unzip();
    let (first, last) = row.written.unzip();
    let epochs =
        row.epochs.map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}–{last}") }
            },
        );
    let cells = vec![
        files::name(row),
        row.ended
            .map_or_else(|| row.state().to_owned(), |ended| format!("{}, {ended}", row.state())),
        or_dash(epochs),
        or_dash(from.map(grouped)),
        or_dash(to.map(grouped)),
        or_dash(is_there.then(|| grouped(row.frames))),
        or_dash(is_there.then(|| grouped(row.entries))),
        or_dash(is_there.then(|| size(row.file_len))),
        or_dash(first.map(time)),
        or_dash(last.map(time)),
    ];
    TableRow { class, cells }
}

fn checkpoint_row(row: &CheckpointRow) -> TableRow {
    let class = match (row.usable, row.tokens) {
        (true, _) => "plain",
        (false, Some(_)) => "warn",
        (false, None) => "bad",
    };
    let cells = vec![
        row.checkpoint.to_string(),
        cleaned(&row.state),
        or_dash(row.lsn.map(grouped)),
        or_dash(row.tokens.map(grouped)),
        or_dash(row.taken.clone()),
        or_dash(row.file_bytes.map(size)),
    ];
    TableRow { class, cells }
}

fn hold_row(row: &HoldRow) -> TableRow {
    let cells = vec![
        cleaned(&row.hold),
        cleaned(&row.state),
        or_dash(row.lsn.map(grouped)),
        or_dash(row.kept_bytes.map(size)),
        or_dash(row.quota_bytes.map(size)),
        or_dash(row.age.clone()),
    ];
    TableRow { class: if row.state == "ok" { "plain" } else { "bad" }, cells }
}

/// Lists what recoveries and repairs have cut off and kept, in order of name.
fn quarantine(dir: &Path) -> Result<Vec<TableRow>> {
    let folder = dir.join(QUARANTINE);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file("list", &folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.metadata() {
            // A folder of what one repair gave up.
            Ok(metadata) if metadata.is_dir() => {
                let inner = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let len =
                    |inner: &std::fs::DirEntry| inner.metadata().map_or(0, |found| found.len());
                files.extend(inner.map(|inner| {
                    (format!("{name}/{}", inner.file_name().to_string_lossy()), len(&inner))
                }));
            }
            Ok(metadata) => files.push((name, metadata.len())),
            // It has gone since.
            Err(_) => {}
        }
    }
    files.sort();
    let row = |(name, len): &(String, u64)| TableRow {
        class: "plain",
        cells: vec![cleaned(name), size(*len)],
    };
    let mut rows: Vec<TableRow> = files.iter().take(MAX_LINES).map(row).collect();
    if let Some(rest) = files.get(MAX_LINES..).filter(|rest| !rest.is_empty()) {
        let len = rest.iter().map(|(_, len)| len).sum();
        let cells = vec![format!("and {} more", rest.len()), size(len)];
        rows.push(TableRow { class: "plain", cells });
    }
    Ok(rows)
}
