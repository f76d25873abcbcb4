//! `bulla glossary`, and `bulla help glossary`: the words that messages use.
//!
//! Owns how `cli/glossary.md` is read: it is the only list of these words.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::terminal::HEADING;

const SOURCE: &str = include_str!("../../glossary.md");

/// Print what the words of messages mean, all of them or those that are named.
#[derive(clap::Args, Debug)]
#[command(
    long_about = help(),
    after_help = "Examples:\n  bulla glossary durable\n  bulla glossary torn tail"
)]
pub(crate) struct Args {
    /// A word, or the beginning of one, in upper or lower case.
    word: Vec<String>,
}

/// A word and what it means.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
struct Word {
    word: String,
    meaning: String,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let wanted = args.word.join(" ").to_lowercase();
    let mut found = words();
    found.retain(|word| word.word.to_lowercase().starts_with(&wanted));
    if found.is_empty() {
        return Err(Error::NoWord(args.word.join(" ")));
    }
    if out.is_table() {
        for Word { word, meaning } in &found {
            let word = out.painted(HEADING, word);
            out.line(format_args!("{word}: {meaning}"))?;
        }
    } else {
        let mut rows = out.rows();
        found.iter().try_for_each(|word| rows.push(word))?;
        rows.end()?;
    }
    Ok(Outcome::Clean)
}

/// Returns the help of the command: the glossary itself.
fn help() -> String {
    let words = words().into_iter().map(|Word { word, meaning }| format!("{word}: {meaning}"));
    let intro = "What the words of messages mean.".to_owned();
    std::iter::once(intro).chain(words).collect::<Vec<_>>().join("\n\n")
}

/// Returns the words in their order.
fn words() -> Vec<Word> {
    let items = SOURCE.split("\n- **").skip(1);
    let word = |item: &str| {
        let (word, meaning) = item.split_once("**: ")?;
        let meaning: Vec<&str> = meaning.split_whitespace().collect();
        Some(Word { word: word.to_owned(), meaning: meaning.join(" ") })
    };
    items.filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use bulla_recovery::{SegmentState, Status};

    use super::*;

    #[test]
    fn words_are_in_order_and_explained_in_one_or_two_sentences() {
        let words = words();
        assert_eq!(words.len(), SOURCE.matches("\n- **").count(), "one was not understood");
        let order: Vec<_> = words.iter().map(|word| word.word.to_lowercase()).collect();
        assert!(order.is_sorted() && order.len() > 40, "{order:?}");
        for Word { word, meaning } in &words {
            let sentences = meaning.matches(". ").count() + 1;
            assert!(meaning.ends_with('.') && sentences <= 2, "{word}: {meaning}");
        }
    }

    #[test]
    fn every_state_and_level_that_is_printed_is_explained() {
        use SegmentState as S;
        let states = [S::Live, S::Dead, S::Spare, S::Replaced, S::Covered, S::Unread];
        let names = states.map(S::name).into_iter().map(str::to_owned);
        let levels = bulla_wal::Level::ALL.iter().map(|level| level.name().to_owned());
        let status =
            [Status::Clean.to_string(), Status::TornTail.to_string(), "corrupt".to_owned()];
        let printed = ["quarantine", "checkpoint", "hold", "LSN", "Seq", "evidence", "case"];
        let printed = printed.map(str::to_owned);
        let words: Vec<_> = words().into_iter().map(|word| word.word.to_lowercase()).collect();
        for name in names.chain(levels).chain(status).chain(printed) {
            assert!(words.contains(&name.to_lowercase()), "{name}");
        }
    }
}
