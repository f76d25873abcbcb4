//! The ring's memory is there before appends come to it: by the kernel's account of what
//! this process has, so that no other test may run in it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bulla_tests::temp_dir;
use bulla_wal::{Level, Log, Options};

/// Pages that this thread had to wait for the system to find.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("the kernel's account");
    // The second field is a name in brackets; minor faults are the tenth.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    fields.split(' ').nth(7).and_then(|faults| faults.parse().ok()).expect("a number")
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("its release");
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn append_finds_the_ring_populated() {
    if kernel() < (5, 14) {
        bulla_tests::skipped("a kernel before Linux 5.14 does not populate memory when asked");
        return;
    }
    // Below a huge page: of those there would be too few to count.
    const RING: u64 = 1024 * 1024;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel's account");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number")
    };
    let dir = temp_dir("populated");
    let before = resident();
    let log = Log::create(dir.path().join("log"), &Options::new().ring_len(RING)).unwrap();
    // A log that is hardly used needs no memory.
    for _ in 0..RING / 4096 / 4 {
        let _ = log.append_with(1, &[1; 4096], Level::Relaxed).unwrap();
    }
    let start = Instant::now();
    while resident().saturating_sub(before) < RING / 4096 {
        assert!(start.elapsed().as_secs() < 20, "the ring was not populated");
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(100));
    let payload = vec![1; 16 * 1024];
    let _ = log.append_with(1, &payload, Level::Relaxed).unwrap();
    let before = page_faults();
    for _ in 0..RING / (payload.len() as u64) * 3 / 4 {
        let _ = log.append_with(1, &payload, Level::Relaxed).unwrap();
    }
    let faults = page_faults() - before;
    assert!(faults <= 16, "{faults} page faults in appends of {RING} bytes");
}
