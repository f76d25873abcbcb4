#!/usr/bin/env bash
# Guess:   messages are durable when `CommitLog::flush` returns.
# Seen:    commitlog 0.2.0: `flush` calls `File::flush` on the segment, which does nothing, and
#          syncs at most the index. No file of messages is ever synced: a power loss can take
#          messages that were flushed, and leave an index that has them.
# Matters: to a program that acknowledges after `flush`.
# Needs:   cargo, strace. Ends with 1 when this has changed.
#
# Output:
#   1000 messages, 10 flushes: fsync and fdatasync 0
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
commitlog = "=0.2.0"
TOML
cat >src/main.rs <<'RUST'
use commitlog::{CommitLog, LogOptions};

fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let mut log = CommitLog::new(LogOptions::new(dir)).unwrap();
    for _ in 0..10 {
        for _ in 0..100 {
            log.append_msg([7_u8; 64]).unwrap();
        }
        log.flush().unwrap();
    }
}
RUST
cargo build --quiet
strace -f -qq -e trace=fsync,fdatasync,sync_file_range,syncfs -o trace target/debug/finding "$work/log"
syncs=$(grep -c '(' trace || true)
echo "1000 messages, 10 flushes: fsync and fdatasync $syncs"
[[ $syncs -eq 0 ]] || { echo "this has changed"; exit 1; }
