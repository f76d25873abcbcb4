//! The changes of a store as its log shows them, and records that have expired but are still there.

use std::collections::BTreeMap;
use std::time::Duration;

use bulla_engine::entries::Mutation;
use bulla_engine::{Batch, Changes, Error, Level, Store, Token, TokenId};
use bulla_storage::io::Io;
use bulla_storage::io::std::StdIo;
use bulla_wal::{Position, Reader, Visibility};

use crate::common::{options, temp_dir, token};

/// Applies changes as a replica would.
fn apply(records: &mut BTreeMap<TokenId, Token>, changes: &mut Changes) -> Result<usize, Error> {
    let mut count = 0;
    while let Some(change) = changes.next()? {
        for mutation in change.mutations() {
            count += 1;
            match mutation {
                Mutation::Put(token) => records.insert(token.id(), token),
                Mutation::Delete(id) => records.remove(&id),
                Mutation::Expire(..) => None,
            };
        }
    }
    Ok(count)
}

#[test]
fn changes_behind_a_snapshot_make_the_store_of_it() {
    let dir = temp_dir("changes");
    let store = Store::open(dir.path(), &options()).expect("opened");
    (1..200).for_each(|id| store.put(&token(id, 1.0)).expect("put"));
    let snapshot = store.snapshot().expect("snapshot");
    let mut replica: BTreeMap<TokenId, Token> = snapshot
        .iter()
        .map(|token| token.expect("live"))
        .map(|token| (token.id(), token))
        .collect();
    let mut changes = store.changes(snapshot.lsn().., Visibility::Written).expect("changes");
    assert_eq!(apply(&mut replica, &mut changes).expect("none yet"), 0);
    let mut batch = Batch::new();
    for id in 150..300 {
        batch.put(&token(id, 2.0));
    }
    for id in 10..20 {
        batch.delete(token(id, 0.0).id()).expect("an id");
    }
    store.apply(&batch).expect("applied");
    store.put_for(&token(5, 3.0), Duration::from_secs(3_600)).expect("put");
    store.delete(token(6, 0.0).id()).expect("deleted");
    assert_eq!(apply(&mut replica, &mut changes).expect("changes"), 150 + 10 + 2 + 1);
    let records: BTreeMap<_, _> =
        store.iter().expect("records").map(|token| (token.id(), token)).collect();
    assert_eq!(replica, records);

    // From where it was, in another process's way.
    let (_, lsn) = changes.position();
    store.at(Level::Strict).put(&token(999, 1.0)).expect("put");
    store.close().expect("closed");
    let io = std::sync::Arc::new(StdIo::new());
    let reader = Reader::open(io, dir.path(), lsn.., Visibility::Durable).expect("a reader");
    assert_eq!(apply(&mut replica, &mut Changes::of(reader)).expect("changes"), 1);
    assert!(replica.contains_key(&token(999, 0.0).id()));
}

#[test]
fn entry_that_is_no_change_is_a_typed_error_and_what_follows_is_shown() {
    let dir = temp_dir("changes-foreign");
    let log_options = bulla_wal::Options::new().segment_len(1 << 20);
    let log = bulla_wal::Log::create(dir.path(), &log_options).expect("log");
    let _ = log.append_with(9, b"not a change", Level::Strict).expect("append");
    let good = bulla_engine::entries::PUT;
    let _ = log.append_with(good, token(1, 1.0).as_bytes(), Level::Strict).expect("append");
    log.sync().expect("sync");
    let mut changes: Changes =
        Changes::of(log.reader(Position::Start, Visibility::Durable).expect("reader"));
    assert!(matches!(changes.next(), Err(Error::Entry { .. })));
    assert!(changes.next().expect("a change").is_some());
}

#[test]
fn expired_record_is_there_until_it_is_deleted_but_not_live() {
    let dir = temp_dir("live");
    let store = Store::open(dir.path(), &options()).expect("opened");
    let id = token(7, 1.0).id();
    assert_eq!(store.get_live(id).expect("read"), None);
    store.put(&token(7, 1.0)).expect("put");
    assert_eq!(store.get_live(id).expect("read"), Some(token(7, 1.0)));
    store.expire_in(id, Some(Duration::from_secs(3_600))).expect("set");
    assert_eq!(store.get_live(id).expect("read"), Some(token(7, 1.0)));
    store.expire_in(id, Some(Duration::ZERO)).expect("set");
    let clock = StdIo::new();
    let set = clock.wall_ns();
    while clock.wall_ns() < set + 2_000_000 {}
    assert_eq!(store.get_live(id).expect("read"), None);
    assert_eq!(store.get(id).expect("read"), Some(token(7, 1.0)));
    assert_eq!(store.expire_due(10).expect("deleted"), 1);
    assert_eq!(store.get(id).expect("read"), None);
}
