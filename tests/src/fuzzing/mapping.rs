//! Any CSV file, under any mapping of its columns, returns tokens that are valid or a reason.
//!
//! An input is options of `bulla load`, one in a line, an empty line, and the file.

use bulla_engine::{Token, TokenId};

/// Options of one input at most.
const MAX_OPTIONS: usize = 32;
/// `--join` is not among them: a fuzzer must not choose files.
const OPTIONS: [&str; 6] =
    ["--map=", "--preset=", "--clamp", "--entity-type=", "--domain=", "--first-id="];

/// Maps the rows of a file; returns how many tokens there are, if all rows are valid.
///
/// # Panics
/// When a token is not one by its own rules, or not where it should be.
pub fn mapping(input: &[u8]) -> Option<usize> {
    let (options, csv) = parse(input);
    let tokens = bulla_cli::tokens_of_csv(&options, csv).ok()?;
    // Minus nothing is a number, too, to those who read options.
    let number = |name: &str, default: u32| {
        let value = options.iter().rev().find_map(|option| option.strip_prefix(name));
        let value = value.map(|value| value.parse::<i64>().expect("it was taken"));
        value.map_or(default, |value| value.try_into().expect("it was in range"))
    };
    let (domain, first_id) = (number("--domain=", 0), number("--first-id=", 1));
    let has_ids = options.iter().any(|option| option.starts_with("--map=id="));
    for (row, token) in (0..).zip(&tokens) {
        assert_eq!(Token::from_bytes(token.as_bytes()).as_ref(), Ok(token), "{token:?}");
        assert!(token.id().local() <= TokenId::MAX_LOCAL);
        assert_eq!(u32::from(token.id().domain()), domain);
        assert!(has_ids || token.id().local() == first_id + row, "{token:?} is row {row}");
    }
    Some(tokens.len())
}

fn parse(input: &[u8]) -> (Vec<String>, &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, csv) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 2..]));
    let lines = head.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line));
    let known = |line: &str| OPTIONS.iter().any(|option| line.starts_with(option));
    (lines.map(String::from).filter(|line| known(line)).take(MAX_OPTIONS).collect(), csv)
}
