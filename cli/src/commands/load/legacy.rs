//! `bulla load --from legacy`: what is intact of the old log, into a store.
//!
//! Owns what is loaded, what is not and why, and the report of it. The file is read twice:
//! once to know all of it, and again to load it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bulla_engine::{StoreOptions, Token};
use serde_json::Value;

use super::{Args, Loader};
use crate::error::{Error, Result};
use crate::input::progress;
use crate::legacy::{Body, Gap, Part, Reader, Record};
use crate::output::{Fields, Format, Out, grouped};
use crate::signals::Interrupt;
use crate::{Outcome, fields};

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
        let reason = "this is no log of the token store before Bulla: no record of it is intact \
                      (leave --from out if it is CSV)";
        return Err(Error::Input { path: args.file.clone(), reason });
    }
    let Some(dir) = dir.filter(|_| !args.dry_run) else {
        before.check(&args.file)?;
        out.report(&survey.fields(out.format()))?;
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
    let mut fields = survey.fields(out.format());
    fields.insert("loaded".to_owned(), done.loaded().into());
    fields.extend(done.fields(ended.is_ok()));
    out.report(&fields)?;
    done.tell(ended, "tokens", out)
}

fn changed(path: &Path) -> Error {
    Error::Changed { path: path.to_owned() }
}

/// Reads the file and gives every token to `each`, in order.
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
    let bar = progress(reader.len(), "bytes");
    let mut survey = Survey { bytes: reader.len(), ..Survey::default() };
    while let Some((at, part)) = reader.next().map_err(failed)? {
        interrupt.check()?;
        bar.set_position(at);
        if let Part::Record(Record { body: Body::Token(token), .. }) = &part {
            each(token)?;
        }
        survey.add(at, &part);
    }
    bar.finish_and_clear();
    Ok(survey)
}

/// By what a file is known again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::file("look at", path))?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), len: metadata.len(), modified })
    }

    /// # Errors
    /// [`Error::Changed`]: the old store takes no lock, so its writer may be at work.
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
    /// What is wrong with the first one, where that differs.
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

    fn fields(&self, format: Format) -> Fields {
        let time = |us: u64| {
            let time =
                i64::try_from(us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
            time.map_or_else(|| format!("{us} us since 1970"), |time| time.to_string())
        };
        let skipped: Vec<Value> = if format == Format::Table {
            self.skipped.iter().map(|(why, skipped)| skipped.line(*why).into()).collect()
        } else {
            self.skipped.iter().map(|(why, skipped)| skipped.fields(*why).into()).collect()
        };
        fields! {
            "bytes": self.bytes,
            "records": self.records,
            "token_records": self.tokens,
            "first_time": self.times.map(|(first, _)| time(first)),
            "last_time": self.times.map(|(_, last)| time(last)),
            "skipped": skipped,
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

impl Skipped {
    fn fields(&self, why: Why) -> Fields {
        fields! {
            "why": why.name(),
            "kind": why.kind(),
            "count": self.count,
            "bytes": self.bytes,
            "first_at": self.first_at,
            "first": self.first,
        }
    }

    fn line(&self, why: Why) -> String {
        let kind = why.kind().map(|kind| format!(" (kind {kind})")).unwrap_or_default();
        let first = self.first.as_ref().map(|first| format!(": {first}")).unwrap_or_default();
        format!(
            "{} x {}{kind}, {} bytes, first at byte {}{first}",
            grouped(self.count),
            why.name(),
            grouped(self.bytes),
            grouped(self.first_at),
        )
    }
}
