//! `bulla put` and `bulla delete`: one token, durable when the command says so.

use serde_json::Value;

use crate::common::{Dir, code, json, run, stderr, stdout};

#[test]
fn token_that_was_put_is_found_changed_and_deleted() {
    let dir = Dir::new("put");
    let store = dir.join("store");
    let line = "put DIR --id 42 --type event --set weight=14.16 --set 1.x=-40.69 \
                --set timestamp=2013-01-01T10:00:00Z --flag ACTIVE";
    let (put, exit) = json(line, &store);
    assert_eq!((exit, &put["done"], &put["level"]), (0, &"put".into(), &"strict".into()));
    assert!(put["durable_lsn"].as_u64() > put["lsn"].as_u64(), "{put}");
    let (token, exit) = json("get DIR 42 --type event", &store);
    assert_eq!((exit, &token["id"]), (0, &put["id"]));
    assert_eq!(token["weight"].to_string(), "14.16");
    assert_eq!((&token["physical"][0], &token["flags"][0]), (&(-40.69).into(), &"ACTIVE".into()));
    assert_eq!(token["timestamp"], "2013-01-01T10:00:00Z");

    for level in ["relaxed", "balanced"] {
        let (again, exit) = json(&format!("put DIR --id 42 --type event --level {level}"), &store);
        assert_eq!((exit, &again["done"], &again["tokens"]), (0, &"replaced".into(), &1.into()));
        assert!(again["durable_lsn"].as_u64() > again["lsn"].as_u64(), "{again}");
    }
    assert_eq!(json("get DIR 42 --type event", &store).0["weight"], 0.0);

    let (deleted, exit) = json("delete DIR 42 --type event", &store);
    assert_eq!((exit, &deleted["done"], &deleted["tokens"]), (0, &"deleted".into(), &0.into()));
    for line in ["delete DIR 42 --type event", "delete DIR 42", "get DIR 42 --type event"] {
        let missing = run(line, &store);
        assert_eq!(code(&missing), 1, "{line}");
        let words = stderr(&missing);
        assert!(words.contains("no token has id 42") && words.contains("do: "), "{words}");
        assert_eq!(words.contains("add `--type event`"), !line.contains("--type"), "{words}");
    }
    assert_eq!(json("verify DIR", &store).1, 0);
}

#[test]
fn nonsense_is_refused_before_a_store_is_created_or_changed() {
    let dir = Dir::new("put-nonsense");
    let store = dir.join("store");
    let wrong = [
        ("put DIR", 2),
        ("put DIR --id 0", 2),
        ("put DIR --id 0 --type undefined", 2),
        ("put DIR --id 16777216 --type event", 2),
        ("put DIR --id 4294967296", 2),
        ("put DIR --id 1 --domain 1", 2),
        ("put DIR --id 1 --type event --domain 16", 2),
        ("put DIR --id 1 --type flight", 2),
        ("put DIR --id 1 --set weight", 2),
        ("put DIR --id 1 --set weight=101", 2),
        ("put DIR --id 1 --set weight=NaN", 2),
        ("put DIR --id 1 --set 9.x=1", 2),
        ("put DIR --id 1 --set 1.x=1 --set physical.x=2", 2),
        ("put DIR --id 1 --flag LOUD", 2),
        ("put DIR --id 1 --level certain", 2),
        ("put DIR --id 1 --set timestamp=2100-01-01", 1),
        ("delete DIR", 2),
        ("delete DIR forty-two", 2),
        ("delete DIR 1", 1),
    ];
    for (line, exit) in wrong {
        let refused = run(line, &store);
        assert_eq!(code(&refused), exit, "{line}: {}", stderr(&refused));
        assert!(stdout(&refused).is_empty() && !stderr(&refused).is_empty(), "{line}");
        assert!(!store.exists(), "{line}");
    }
    assert_eq!(code(&run("put DIR --id 1", &store)), 0);
    let before = json("scan DIR", &store);
    for (line, exit) in wrong.into_iter().filter(|(line, _)| *line != "delete DIR 1") {
        assert_eq!(code(&run(line, &store)), exit, "{line}");
    }
    assert_eq!(json("scan DIR", &store), before);
}

#[test]
fn decoded_dump_shows_operations_and_any_dump_time_and_epoch() {
    let dir = Dir::new("decode");
    let store = dir.join("store");
    assert_eq!(code(&run("put DIR --id 7 --type event --set weight=14.16", &store)), 0);
    assert_eq!(code(&run("delete DIR 7 --type event", &store)), 0);
    let text = stdout(&run("dump DIR --decode", &store));
    assert!(text.contains("put 7 --type event, weight 14.16"), "{text}");
    assert!(text.contains("delete 7 --type event"), "{text}");
    let lines = stdout(&run("dump DIR --decode --format jsonl", &store));
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [put, delete] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(put["operations"][0]["operation"], "put");
    assert_eq!(put["operations"][0]["weight"].to_string(), "14.16");
    assert_eq!(delete["operations"][0]["operation"], "delete");
    assert_eq!(delete["operations"][0]["local_id"], 7);
    for row in rows {
        let time = row["time"].as_str().expect("a time");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert!(row["epoch"].as_u64() > Some(0), "{row}");
    }
    assert!(!stdout(&run("dump DIR --format jsonl", &store)).contains("operations"));
    assert!(stdout(&run("dump DIR", &store)).lines().next().is_some_and(|head| {
        ["epoch", "time", "payload"].iter().all(|title| head.contains(title))
    }));
}

#[test]
fn id_0_is_not_there_for_a_delete_as_for_a_get() {
    let dir = Dir::new("id-0");
    let store = dir.join("store");
    assert_eq!(code(&run("put DIR --id 7", &store)), 0);
    let [got, deleted] = ["get DIR 0", "delete DIR 0"].map(|line| run(line, &store));
    assert_eq!((code(&got), code(&deleted)), (1, 1));
    assert_eq!(stderr(&got), stderr(&deleted));
    assert!(stderr(&got).contains("no token has id 0"), "{}", stderr(&got));
}

#[test]
fn row_without_a_whole_id_is_refused_with_its_number_and_makes_no_token() {
    let dir = Dir::new("ids");
    let (file, store) = (dir.join("ids.csv"), dir.join("store"));
    for (id, why) in [("1.4", "the id 1.4 is not a whole number"), ("", "column id has no id")] {
        std::fs::write(&file, format!("id,w\n3,1\n{id},2\n4,3\n")).expect("written");
        let line = format!("load {} DIR --map id=id --map weight=w", file.display());
        for line in [format!("{line} --dry-run"), line] {
            let refused = run(&line, &store);
            assert_eq!(code(&refused), 1, "{line}");
            let words = stderr(&refused);
            assert!(words.contains("row 2") && words.contains(why), "{words}");
            assert!(words.contains("do: map a column of whole numbers to id"), "{words}");
        }
        assert_eq!(json("scan DIR", &store).0.as_array().map(Vec::len), Some(1));
    }
}
