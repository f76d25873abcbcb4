//! What every command has in common: colour, verbosity, progress, version.

use std::process::Output;

use crate::common::{Dir, append, bulla, code, run, stderr, stdout};

/// The first byte of every sequence that colours text.
const ESCAPE: &str = "\u{1b}[";

/// Variables of the environment.
type Env<'a> = &'a [(&'a str, &'a str)];

/// Runs `bulla`, with nothing of the tests' own environment that concerns colour.
fn with_env(words: &[&str], dir: &std::path::Path, env: Env<'_>) -> Output {
    let mut command = bulla();
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG"] {
        command.env_remove(name);
    }
    command.args(words).arg(dir).envs(env.iter().copied()).output().expect("runs")
}

#[test]
fn colour_is_for_people_who_want_it_and_never_in_json() {
    let dir = Dir::new("colour");
    let log = dir.join("log");
    append(&log, "strict", "a line\n");
    let force = [("CLICOLOR_FORCE", "1")];
    let cases: [(&[&str], Env<'_>, bool); 7] = [
        (&["verify"], &[], false),
        (&["verify"], &force, true),
        (&["verify"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        (&["verify", "--color", "always"], &[], true),
        (&["verify", "--color", "always"], &[("NO_COLOR", "1")], true),
        (&["verify", "--color", "never"], &force, false),
        (&["verify", "--format", "json"], &force, false),
    ];
    for (words, env, coloured) in cases {
        let output = with_env(words, &log, env);
        assert_eq!(code(&output), 0, "{words:?}");
        assert_eq!(stdout(&output).contains(ESCAPE), coloured, "{words:?} {env:?}");
    }
    for words in [&["verify", "--help"][..], &["verify", "--nonsense"]] {
        for (color, coloured) in [("always", true), ("never", false)] {
            let mut command = bulla();
            command.args(words).arg(format!("--color={color}")).env("CLICOLOR_FORCE", "1");
            let output = command.output().expect("runs");
            let printed = stdout(&output) + &stderr(&output);
            assert_eq!(printed.contains(ESCAPE), coloured, "{words:?} {color}: {printed}");
        }
    }
    // An error and its advice.
    let missing = with_env(&["verify"], &dir.join("none"), &force);
    assert!(stderr(&missing).contains(ESCAPE) && stderr(&missing).contains("do:"));
    assert!(!stderr(&with_env(&["verify"], &dir.join("none"), &[])).contains(ESCAPE));
    assert_eq!(code(&run("verify DIR --color sometimes", &log)), 2);
}

#[test]
fn quiet_leaves_data_and_errors_and_verbose_adds_details() {
    let dir = Dir::new("verbosity");
    let put = |more: &str| {
        let output = run(&format!("put DIR --id 1 --type event{more}"), &dir.join("store"));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains("durable lsn"));
        stderr(&output)
    };
    assert_eq!(put(" -q"), "");
    let normal = put("");
    assert!(normal.contains("durable") && !normal.contains("took"), "{normal}");
    let verbose = put(" --verbose");
    assert!(verbose.contains("took") && verbose.contains("writes in flight"), "{verbose}");
    let refused = run("delete DIR 9 -q", &dir.join("store"));
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("do: "), "{}", stderr(&refused));
    assert_eq!(code(&run("-q put DIR --id 1", &dir.join("store"))), 0);
    assert_eq!(code(&run("put DIR --id 1 -q -v", &dir.join("store"))), 2);
}

#[test]
fn progress_stays_off_what_is_no_terminal() {
    let dir = Dir::new("progress");
    let log = dir.join("log");
    append(&log, "strict", "a line\n");
    for line in ["verify DIR", "replay DIR --dry-run", "dump DIR", "segments DIR", "stat DIR"] {
        let output = run(line, &log);
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{line}");
    }
}

#[test]
fn map_of_segments_is_drawn_in_blocks_or_in_ascii() {
    let dir = Dir::new("map");
    let log = dir.join("log");
    append(&log, "strict", "a line\n");
    let ascii = stdout(&with_env(&["segments", "--map"], &log, &[]));
    let first = ascii.lines().next().expect("a segment");
    assert!(first.contains("H#") && first.contains("#|#") && ascii.is_ascii(), "{ascii}");
    assert!(ascii.contains("H header") && ascii.contains("one block is"), "{ascii}");
    let blocks = stdout(&with_env(&["segments", "--map"], &log, &[("LANG", "en_US.UTF-8")]));
    assert!(blocks.contains('▌') && blocks.contains('·'), "{blocks}");
    let forced = with_env(&["segments", "--map", "--color", "always"], &log, &[]);
    assert!(stdout(&forced).contains(ESCAPE));
    let json = |words: &[&str]| stdout(&with_env(words, &log, &[]));
    let plain = json(&["segments", "--format", "json"]);
    assert_eq!(json(&["segments", "--map", "--format", "json"]), plain);
}

#[test]
fn version_is_a_line_and_with_verbose_a_report() {
    let line = |words: &[&str]| stdout(&bulla().args(words).output().expect("runs"));
    for words in [&["-V"][..], &["--version"]] {
        assert_eq!(line(words), concat!("bulla ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    for words in [&["-V", "-v"][..], &["--version", "--verbose"]] {
        let text = line(words);
        for name in ["version", "commit", "format version", "features", "target"] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
    let json = line(&["--version", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["format_version"], bulla_storage::format::VERSION);
    let has_uring = json["features"].as_array().is_some_and(|all| all.contains(&"uring".into()));
    assert_eq!(has_uring, cfg!(feature = "uring"), "{json}");
    let nothing = bulla().arg("-v").output().expect("runs");
    assert_eq!(code(&nothing), 2);
    assert!(stderr(&nothing).contains("bulla --help"), "{}", stderr(&nothing));
}
