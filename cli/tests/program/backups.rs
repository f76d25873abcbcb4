//! Holds, backups and restores, as an operator uses them.

use std::path::Path;

use crate::common::{Dir, append, bulla, code, json, run, stderr, stdout};

/// Lines enough for several segments of 64 KiB.
fn lines(from: u32, to: u32) -> String {
    (from..to).map(|line| format!("line {line:06} {}\n", "x".repeat(400))).collect()
}

fn words(line: &str, paths: &[(&str, &Path)]) -> std::process::Output {
    let path = |word: &str| paths.iter().find(|(name, _)| *name == word).map(|(_, path)| *path);
    let mut command = bulla();
    for word in line.split(' ') {
        match path(word) {
            Some(path) => command.arg(path),
            None => command.arg(word),
        };
    }
    command.output().expect("bulla runs")
}

#[test]
fn holds_are_taken_shown_moved_and_released() {
    let dir = Dir::new("holds");
    let log = dir.join("log");
    append(&log, "strict", &lines(0, 200));
    let (hold, exit) = json("hold DIR replica-1 --from seq:100 --quota 4GiB", &log);
    assert_eq!(exit, 0);
    assert!(hold["lsn"].as_u64() > Some(0));
    assert_eq!(hold["quota_bytes"], 4_u64 << 30);

    let again = run("hold DIR replica-1", &log);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("do:") && stderr(&again).contains("--advance"));
    assert_eq!(code(&run("hold DIR Replica", &log)), 2);

    let (moved, _) = json("hold DIR replica-1 --advance --from seq:150", &log);
    assert!(moved["lsn"].as_u64() > hold["lsn"].as_u64());
    let (holds, _) = json("holds DIR", &log);
    assert_eq!(holds[0]["state"], "ok");
    assert!(holds[0]["kept_bytes"].as_u64() > Some(0) && holds[0]["age"].is_string());
    let (stat, _) = json("stat DIR", &log);
    assert_eq!(stat["hold_list"][0]["hold"], "replica-1");
    assert!(stdout(&run("stat DIR", &log)).contains("replica-1"));

    // Whatever is in its file, a hold can be released.
    std::fs::write(log.join("holds/damaged.hold"), "nothing").expect("written");
    let shown = run("stat DIR", &log);
    assert!(stderr(&shown).contains("hold damaged can't be read"), "{}", stderr(&shown));
    assert_eq!(code(&run("release DIR damaged", &log)), 0);
    assert_eq!(code(&run("release DIR replica-1", &log)), 0);
    let missing = run("release DIR replica-1", &log);
    assert_eq!(code(&missing), 1);
    assert!(stderr(&missing).contains("bulla holds DIR"));
    assert_eq!(json("holds DIR", &log).0.as_array().map(Vec::len), Some(0));
}

#[test]
fn backup_takes_over_a_hold_and_moves_it_and_a_failed_one_puts_it_back() {
    let dir = Dir::new("takes-over");
    let log = dir.join("log");
    let [full, next, third] = ["full", "next", "third"].map(|name| dir.join(name));
    let paths: &[(&str, &Path)] =
        &[("LOG", &log), ("FULL", &full), ("NEXT", &next), ("THIRD", &third)];
    let held = || json("holds DIR", &log).0[0]["lsn"].as_u64();
    // Whatever the hold keeps, a purge of everything else keeps it, too.
    let purge = || {
        let (purged, exit) = json("purge DIR --keep-from end --yes", &log);
        assert_eq!(exit, 0, "{purged}");
        purged["first_lsn"].as_u64()
    };
    let small = "--segment-size 64KiB --ring-size 64KiB";
    let append = |from, to| {
        let mut command = bulla();
        command.arg("append").arg(&log).args(small.split(' '));
        command.stdin(std::process::Stdio::piped());
        let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("runs");
        let mut input = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, lines(from, to).as_bytes()).expect("written");
        drop(input);
        assert!(child.wait().expect("ends").success());
    };
    append(0, 600);
    assert_eq!(code(&run("hold DIR nightly --from seq:300", &log)), 0);
    let (taken, first) = (held(), purge());
    assert!(first > Some(0) && first <= taken, "{first:?} and {taken:?}");
    let done = words("backup LOG FULL --hold nightly --format json", paths);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let end = |output: &std::process::Output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["end_lsn"].as_u64()
    };
    assert_eq!(held(), end(&done));

    append(600, 1_200);
    assert!(purge() <= end(&done), "the next backup needs what comes after the first");
    // One that fails after it has taken the hold over: its folder can't be made.
    std::fs::create_dir(&next).expect("made");
    std::fs::write(next.join("segments"), "in the way").expect("written");
    let refused = words("backup LOG NEXT --since FULL --hold nightly", paths);
    assert_ne!(code(&refused), 0, "{}", stdout(&refused));
    assert_eq!(held(), end(&done), "it is where it was");
    std::fs::remove_dir_all(&next).expect("removed");
    let second = words("backup LOG NEXT --since FULL --hold nightly --format json", paths);
    assert_eq!(code(&second), 0, "{}", stderr(&second));
    assert_eq!(held(), end(&second));
    assert!(purge() > end(&done), "what the second one has can go");

    append(1_200, 1_300);
    let last = words("backup LOG THIRD --since NEXT --hold nightly --format json", paths);
    assert_eq!(code(&last), 0, "{}", stderr(&last));
    let restored = dir.join("restored");
    let whole = words("restore THIRD WHOLE", &[("THIRD", &third), ("WHOLE", &restored)]);
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    assert_eq!(json("verify DIR", &restored).0["next_seq"], 1_301);
}

#[test]
fn backups_are_taken_restored_and_refused_when_damaged() {
    let dir = Dir::new("backups");
    let (log, full, next) = (dir.join("log"), dir.join("full"), dir.join("next"));
    let (whole, part) = (dir.join("whole"), dir.join("part"));
    let paths: &[(&str, &Path)] =
        &[("LOG", &log), ("FULL", &full), ("NEXT", &next), ("WHOLE", &whole), ("PART", &part)];
    append(&log, "strict", &lines(0, 300));
    let taken = words("backup LOG FULL --hold nightly --format json", paths);
    assert_eq!(code(&taken), 0, "{}", stderr(&taken));
    let taken: serde_json::Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!((&taken["next_seq"], &taken["hold"]), (&301.into(), &"nightly".into()));
    let again = words("backup LOG FULL", paths);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("holds a backup already"), "{}", stderr(&again));
    let verified = words("verify FULL", paths);
    assert_eq!(code(&verified), 1);
    assert!(stderr(&verified).contains("bulla restore BACKUP DIR"), "{}", stderr(&verified));

    append(&log, "strict", &lines(300, 350));
    let next_taken = words("backup LOG NEXT --since FULL --hold nightly --format json", paths);
    assert_eq!(code(&next_taken), 0, "{}", stderr(&next_taken));
    let next_taken: serde_json::Value = serde_json::from_slice(&next_taken.stdout).expect("JSON");
    assert!(next_taken["copied_bytes"].as_u64() < taken["copied_bytes"].as_u64());

    let restored = words("restore NEXT WHOLE", paths);
    assert_eq!(code(&restored), 0, "{}", stderr(&restored));
    assert_eq!(json("verify DIR", &whole).0["entries"], 350);
    let restored = words("restore NEXT PART --to-seq 101", paths);
    assert_eq!(code(&restored), 0, "{}", stderr(&restored));
    let (verified, exit) = json("verify DIR", &part);
    assert_eq!((exit, &verified["status"]), (0, &"clean".into()));
    assert!(verified["entries"].as_u64() <= Some(100), "never past the target");
    assert_eq!(code(&words("restore NEXT WHOLE", paths)), 1, "there is a log");

    let segments = std::fs::read_dir(full.join("segments")).expect("listed");
    let segment = segments.map(|entry| entry.expect("an entry").path()).min().expect("one");
    let mut bytes = std::fs::read(&segment).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let other = dir.join("other");
    let refused = words("restore NEXT OTHER", &[("NEXT", &next), ("OTHER", &other)]);
    assert_eq!(code(&refused), 4);
    assert!(stderr(&refused).contains("checksum mismatch"), "{}", stderr(&refused));
    let verified = run("verify DIR", &other);
    assert_eq!(code(&verified), 1);
    assert!(stderr(&verified).contains("did not end, run it again"), "{}", stderr(&verified));
}
