#!/usr/bin/env bash
# Guess:   after `Engine::write(batch, false)`, a call of `Engine::sync()` makes the batch durable.
# Seen:    raft-engine 0.4.2: `sync` writes an empty batch, finds nothing to write, and returns
#          without a sync. A write with `sync = true`, however small, does sync what came before.
# Matters: to a program that batches its syncs, and to anyone who times this log against others.
# Needs:   cargo, a C compiler, strace. Ends with 1 when this has changed.
#
# Output:
#   written, not synced:         fdatasync N
#   written, then Engine::sync:  fdatasync N
#   written with sync = true:    fdatasync N + 1
set -euo pipefail
command -v strace >/dev/null || { echo "install strace first" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
raft-engine = { version = "=0.4.2", default-features = false }
TOML
cat >src/main.rs <<'RUST'
use raft_engine::{Config, Engine, LogBatch};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (dir, mode) = (arguments.next().unwrap(), arguments.next().unwrap());
    let engine = Engine::open(Config { dir, ..Config::default() }).unwrap();
    let mut batch = LogBatch::default();
    batch.put(1, b"key".to_vec(), b"value".to_vec()).unwrap();
    engine.write(&mut batch, mode == "synced").unwrap();
    if mode == "sync" {
        engine.sync().unwrap();
    }
    // Without the destructors, which sync.
    std::process::exit(0);
}
RUST
cargo build --quiet
syncs() {
    strace -f -qq -e trace=fsync,fdatasync -o "$work/$1.trace" target/debug/finding "$work/$1" "$1"
    grep -c 'fdatasync(\|fsync(' "$work/$1.trace" || true
}
written=$(syncs written) sync=$(syncs sync) synced=$(syncs synced)
echo "written, not synced:         fdatasync $written"
echo "written, then Engine::sync:  fdatasync $sync"
echo "written with sync = true:    fdatasync $synced"
[[ $sync -eq $written && $synced -eq $((written + 1)) ]] || { echo "this has changed"; exit 1; }
