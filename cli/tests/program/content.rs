//! What a log holds: commands that do not understand it leave it alone.

use bulla_engine::{RECORD_LEN, Store, StoreOptions};

use crate::common::{Account, Dir, code, few_flights, image, json, run, stderr, stdout};

#[test]
fn store_of_other_records_is_left_to_the_program_that_made_it() {
    let dir = Dir::new("accounts");
    let log = dir.join("store");
    let store = Store::<Account>::open_records(&log, &StoreOptions::new()).expect("created");
    for id in 1..=9 {
        store.put(&Account([id; RECORD_LEN])).expect("put");
    }
    store.checkpoint().expect("taken");
    store.put(&Account([10; RECORD_LEN])).expect("put");
    store.close().expect("closed");
    let before = image(&log);

    let load = format!("load {} DIR", few_flights(&dir, 3).display());
    for line in ["checkpoint DIR", "scan DIR", "get DIR 1", "put DIR --id 1", "delete DIR 1", &load]
    {
        let refused = run(line, &log);
        let message = stderr(&refused);
        let both = ["example.com/account version 1", "bulla.token version 1", "do:"];
        assert!(both.iter().all(|part| message.contains(part)), "{line}: {message}");
        assert_eq!(code(&refused), 1, "{line}");
    }
    let refused = run("append DIR", &log);
    assert_eq!((code(&refused), stdout(&refused).as_str()), (1, ""));
    assert!(stderr(&refused).contains("plain entries"), "{}", stderr(&refused));
    for line in
        ["verify DIR", "stat DIR", "dump DIR", "segments DIR", "repair DIR", "replay DIR --dry-run"]
    {
        assert_eq!(code(&run(line, &log)), 0, "{line}: {}", stderr(&run(line, &log)));
    }
    assert_eq!(json("verify DIR", &log).0["content"], "records of example.com/account version 1");
    assert_eq!(image(&log), before, "nothing was changed");

    assert_eq!(code(&run("replay DIR", &log)), 0);
    let store = Store::<Account>::open_records(&log, &StoreOptions::new()).expect("opened");
    assert_eq!(store.len(), 10);
}

#[test]
fn line_is_not_appended_to_a_store_of_tokens() {
    let dir = Dir::new("append-to-store");
    let log = dir.join("store");
    assert_eq!(code(&run("put DIR --id 7", &log)), 0);
    let before = image(&log);
    let refused = run("append DIR", &log);
    assert_eq!((code(&refused), stdout(&refused).as_str()), (1, ""));
    assert_eq!(image(&log), before);
    assert_eq!(code(&run("scan DIR", &log)), 0);
}
