//! What a store takes of the machine's memory. Alone in its process: it reads `VmRSS` and `VmSize`.

mod common;

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bulla_engine::{Batch, Error, Level, Store, TokenId};
use common::{options, temp_dir, token};

/// What is measured is the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    of_process("VmRSS:")
}

fn of_process(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let kib = line.split_whitespace().next().expect("a number");
    kib.parse::<u64>().expect("a number") * 1024
}

#[test]
fn sparse_ids_cost_the_pages_that_they_touch_and_give_their_records_back() {
    const IDS: u32 = 4_000;
    const PAGE: u64 = 4096;
    /// What the log needs while it makes a segment, which can be at any time, and as much again.
    const LOG: u64 = (2 << 20) / IDS as u64;
    let _alone = ALONE.lock();
    let dir = temp_dir("memory");
    let store = Store::open(dir.path(), &options()).expect("created");
    // All of the ring is touched, and little of the table.
    for _ in 0..50_000 {
        store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
    }
    store.sync().expect("synced");
    let each = |start| resident().saturating_sub(start) / u64::from(IDS);
    // Each in a slab of its own, with what a slab needs.
    let ids = (1..=IDS).map(|number| number * 1_000_000);
    let start = resident();
    for id in ids.clone() {
        store.at(Level::Relaxed).put(&token(id, 1.0)).expect("put");
    }
    let full = each(start);
    assert!(full >= PAGE, "{full} bytes: is this measuring anything?");
    // Its records, its header, and a little for maps and the directory of slabs.
    assert!(full <= 2 * PAGE + 1024, "{full} bytes for each id");
    let rest = (u64::from(IDS) + 1) * PAGE;
    // Others, far from those that stay. Of those that expire another page is touched, and given
    // back, too.
    let ids = ids.map(|id| id ^ (1 << 14));
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    for (expiry, pages) in [(None, 1), (Some(far), 2)] {
        let start = resident();
        for id in ids.clone() {
            let mut batch = Batch::new();
            batch.put(&token(id, 1.0));
            if expiry.is_some() {
                batch.expire_at(TokenId(id), expiry).expect("an id");
            }
            store.at(Level::Relaxed).apply(&batch).expect("put");
        }
        let full = each(start);
        assert!(full + LOG >= pages * PAGE, "{full} bytes: is this measuring anything?");
        assert!(full <= (pages + 1) * PAGE + LOG, "{full} bytes for each id");
        assert_eq!(store.stats().quota.bytes, rest + u64::from(IDS) * PAGE);
        for id in ids.clone() {
            assert!(store.at(Level::Relaxed).delete(TokenId(id)).expect("deleted"));
        }
        let empty = each(start);
        assert!(empty + pages * PAGE <= full + LOG, "of {full} bytes for each id {empty} are left");
        assert_eq!(store.stats().quota.bytes, rest);
    }
}

#[test]
fn a_record_that_was_looked_for_in_vain_costs_no_memory() {
    const IDS: u32 = 1_000;
    /// Address space of a slab.
    const SLAB: u64 = 2 << 20;
    let _alone = ALONE.lock();
    let dir = temp_dir("in-vain");
    let store = Store::open(dir.path(), &options()).expect("created");
    store.at(Level::Relaxed).put(&token(1, 1.0)).expect("put");
    let before = of_process("VmSize:");
    for number in 1..=IDS {
        let made = store.at(Level::Relaxed).transact(|t| -> Result<(), Error> {
            assert_eq!(t.get(TokenId(number * 1_000_000))?, None);
            t.put(&token(1, 1.0))
        });
        made.expect("made");
    }
    // The log maps some, too.
    let grown = of_process("VmSize:").saturating_sub(before);
    assert!(grown < u64::from(IDS) * SLAB / 4, "{grown} bytes for {IDS} absent records");
}
