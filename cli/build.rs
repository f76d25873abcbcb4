//! Records what the program is built from, for `bulla --version --verbose`.
//!
//! A package has no repository around it: then there is no commit, and nothing fails.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=BULLA_TARGET={target}");
    println!("cargo::rustc-env=BULLA_FEATURES={}", features());
    if let Some(commit) = commit() {
        println!("cargo::rustc-env=BULLA_COMMIT={commit}");
    }
}

/// Returns the names of the enabled features, separated by spaces.
fn features() -> String {
    let names = env::vars().filter_map(|(name, _)| {
        let name = name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-");
        (name != "default").then_some(name)
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.join(" ")
}

/// Returns the commit of the checkout that holds this package, if there is one.
fn commit() -> Option<String> {
    // A repository that merely surrounds an unpacked package does not track its files.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // The log of HEAD changes with every commit and checkout.
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={head}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(words: &[&str]) -> Option<String> {
    // Cargo runs this in the package's directory.
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
