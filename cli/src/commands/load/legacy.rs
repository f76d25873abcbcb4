//! `bulla load --from legacy`: loads the intact records of the old log into a store.
//!
//! Owns the choice of what is loaded, and the report of it. The file is read twice: once to
//! survey it, and again to load it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bulla_engine::{StoreOptions, Token};
use serde::Serialize;

use super::{Args, DoneReport, Loader};
use crate::error::{Error, Result};
use crate::legacy::{Body, Gap, Part, Reader, Record};
use crate::numbers::grouped;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::signals::Interrupt;
use crate::{progress, times};

pub(super) fn run(
    args: &Args,
    dir: Option<&Path>,
    interrupt: &Interrupt,
    out: &mut Out,
) -> Result<Outcome> {
    if let Some(option) = args.mapping.given() {
        return Err(Error::NotForLegacy { option });
    }
    let before = Stamp::of(&args.file)?;
    let survey = read(&args.file, interrupt, |_| Ok(()))?;
    if survey.records == 0 && survey.gaps([Gap::TornTail]) > 0 {
        let reason = "this is not a log of the token store before Bulla: it holds no intact \
                      record (leave --from out if it is CSV)";
        return Err(Error::Input { path: args.file.clone(), reason });
    }
    let Some(dir) = dir.filter(|_| !args.dry_run) else {
        before.check(&args.file)?;
        report(&survey, None, out)?;
        return Ok(survey.outcome());
    };
    if let Some(damage) = survey.skipped.get(&Why::Gap(Gap::Damaged)).filter(|_| !args.skip_damaged)
    {
        let (path, places, at) = (args.file.clone(), damage.count, damage.first_at);
        return Err(Error::LegacyDamaged { path, places, at });
    }
    // The old store took tokens of any time.
    let options = StoreOptions::new().max_ahead(Duration::MAX);
    let mut loader = Loader::new(args, dir, options);
    let ended = read(&args.file, interrupt, |token| loader.put(token)).and_then(|again| {
        if again == survey { before.check(&args.file) } else { Err(changed(&args.file)) }
    });
    let ended = match ended {
        Err(error) if loader.opened.is_none() => return Err(error),
        ended => ended,
    };
    let done = loader.finish()?;
    let loaded = Loaded { loaded: done.loaded(), done: done.report(ended.is_ok()) };
    report(&survey, Some(loaded), out)?;
    done.tell(ended, "tokens", out)
}

fn changed(path: &Path) -> Error {
    Error::Changed { path: path.to_owned() }
}

/// Reads the file and passes every token to `each`, in order.
fn read(
    path: &Path,
    interrupt: &Interrupt,
    mut each: impl FnMut(&Token) -> Result<()>,
) -> Result<Survey> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => changed(path),
        _ => Error::file("read", path)(source),
    };
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut reader = Reader::new(file).map_err(failed)?;
    let bar = progress::bytes(reader.len());
    let mut survey = Survey { bytes: reader.len(), ..Survey::default() };
    while let Some((at, part)) = reader.next().map_err(failed)? {
        interrupt.check()?;
        bar.set_position(at);
        if let Part::Record(Record { body: Body::Token(token), .. }) = &part {
            each(token)?;
        }
        survey.add(at, &part);
    }
    Ok(survey)
}

/// What shows whether a file has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::file("inspect", path))?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), len: metadata.len(), modified })
    }

    /// # Errors
    /// [`Error::Changed`]: the old store takes no lock, so its writer may be running.
    fn check(self, path: &Path) -> Result<()> {
        if Self::of(path)? == self { Ok(()) } else { Err(changed(path)) }
    }
}

/// What is in a file.
#[derive(Clone, PartialEq, Debug, Default)]
struct Survey {
    bytes: u64,
    /// Intact records of all kinds.
    records: u64,
    tokens: u64,
    skipped: BTreeMap<Why, Skipped>,
    /// Earliest and latest time of a record, in us since 1970.
    times: Option<(u64, u64)>,
}

/// Why something is not loaded. There are a few hundred at most: kinds are bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Why {
    Kind(u8),
    Refused,
    Gap(Gap),
}

/// What is not loaded for one reason.
#[derive(Clone, PartialEq, Debug)]
struct Skipped {
    /// Records, or places without one.
    count: u64,
    /// Bytes: of records those of their payload.
    bytes: u64,
    first_at: u64,
    /// What is wrong with the first one, where records differ in that.
    first: Option<String>,
}

impl Survey {
    fn add(&mut self, at: u64, part: &Part) {
        match part {
            Part::Record(record) => {
                self.records += 1;
                let (first, last) = self.times.unwrap_or((record.time_us, record.time_us));
                self.times = Some((first.min(record.time_us), last.max(record.time_us)));
                match &record.body {
                    Body::Token(_) => self.tokens += 1,
                    Body::Refused(error) => {
                        let len = bulla_engine::TOKEN_LEN as u64;
                        self.skip(Why::Refused, at, len, || Some(error.to_string()));
                    }
                    Body::Other { kind, len } => self.skip(Why::Kind(*kind), at, *len, || None),
                }
            }
            Part::Gap { len, why } => self.skip(Why::Gap(*why), at, *len, || None),
        }
    }

    fn skip(&mut self, why: Why, at: u64, len: u64, first: impl FnOnce() -> Option<String>) {
        let skipped = self.skipped.entry(why).or_insert_with(|| Skipped {
            count: 0,
            bytes: 0,
            first_at: at,
            first: first(),
        });
        skipped.count += 1;
        skipped.bytes += len;
    }

    fn gaps<const N: usize>(&self, whys: [Gap; N]) -> u64 {
        let count = |why| self.skipped.get(&Why::Gap(why)).map_or(0, |skipped| skipped.count);
        whys.into_iter().map(count).sum()
    }

    fn outcome(&self) -> Outcome {
        if self.gaps([Gap::Damaged]) > 0 {
            Outcome::Corrupt
        } else if self.gaps([Gap::TornTail, Gap::Zeros]) > 0 {
            Outcome::TornTail
        } else {
            Outcome::Clean
        }
    }
}

/// What was found in the file, for people with `Skip` as lines.
#[derive(Serialize)]
struct Found<Skip> {
    bytes: u64,
    records: u64,
    token_records: u64,
    first_time: Option<String>,
    last_time: Option<String>,
    skipped: Vec<Skip>,
    #[serde(flatten)]
    loaded: Option<Loaded>,
}

/// What was loaded of it.
#[derive(Serialize)]
struct Loaded {
    loaded: u64,
    #[serde(flatten)]
    done: DoneReport,
}

fn report(survey: &Survey, loaded: Option<Loaded>, out: &mut Out) -> Result<()> {
    let skipped = survey.skipped.iter();
    if out.is_table() {
        let lines = skipped.map(|(why, skipped)| skipped.line(*why)).collect();
        out.report(&survey.found(lines, loaded))
    } else {
        let rows = skipped.map(|(why, skipped)| skipped.row(*why)).collect();
        out.report(&survey.found(rows, loaded))
    }
}

impl Survey {
    fn found<Skip>(&self, skipped: Vec<Skip>, loaded: Option<Loaded>) -> Found<Skip> {
        Found {
            bytes: self.bytes,
            records: self.records,
            token_records: self.tokens,
            first_time: self.times.map(|(first, _)| times::of_microseconds(first)),
            last_time: self.times.map(|(_, last)| times::of_microseconds(last)),
            skipped,
            loaded,
        }
    }
}

impl Why {
    const fn name(self) -> &'static str {
        match self {
            Self::Kind(1) => "token of another length",
            Self::Kind(2) => "experience added",
            Self::Kind(3) => "connection updated",
            Self::Kind(4) => "snapshot",
            Self::Kind(_) => "unknown kind",
            Self::Refused => "invalid token",
            Self::Gap(Gap::CutShort) => "cut short",
            Self::Gap(Gap::Damaged) => "damaged",
            Self::Gap(Gap::TornTail) => "torn tail",
            Self::Gap(Gap::Zeros) => "zeros at the end",
        }
    }

    const fn kind(self) -> Option<u8> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Refused | Self::Gap(_) => None,
        }
    }
}

/// What was skipped for one reason.
#[derive(Serialize)]
struct SkippedRow<'a> {
    why: &'static str,
    kind: Option<u8>,
    count: u64,
    bytes: u64,
    first_at: u64,
    first: Option<&'a str>,
}

impl Skipped {
    fn row(&self, why: Why) -> SkippedRow<'_> {
        SkippedRow {
            why: why.name(),
            kind: why.kind(),
            count: self.count,
            bytes: self.bytes,
            first_at: self.first_at,
            first: self.first.as_deref(),
        }
    }

    fn line(&self, why: Why) -> String {
        let kind = why.kind().map(|kind| format!(" (kind {kind})")).unwrap_or_default();
        let first = self.first.as_ref().map(|first| format!(": {first}")).unwrap_or_default();
        format!(
            "{} x {}{kind}, {} bytes, the first at byte {}{first}",
            grouped(self.count),
            why.name(),
            grouped(self.bytes),
            grouped(self.first_at),
        )
    }
}
