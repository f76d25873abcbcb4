//! Commands that root runs on the log of a service, which goes on with it afterwards.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{Dir, code, stderr};

/// The user and the group of the service.
const SERVICE: (u32, u32) = (1234, 1235);
const SMALL: &str = "--segment-size 64KiB --ring-size 64KiB";

/// Everything in a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in std::fs::read_dir(dir).expect("listed").map(Result::unwrap) {
        if entry.file_type().expect("known").is_dir() {
            found.extend(entries(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn service_goes_on_after_every_command_that_root_ran_on_its_store() {
    if !rustix::process::geteuid().is_root() {
        return bulla_tests::skipped("only root can act for another user");
    }
    let dir = Dir::new("owners");
    // The service can't see the directory in which programs are built.
    let program = dir.join("bulla");
    // Copied by a process of its own: a child that another test starts meanwhile would inherit a
    // descriptor that writes it, and a file that is written can't be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_bulla")).arg(&program).status();
    assert!(copied.expect("cp").success());
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, open.clone()).expect("set");
    std::fs::set_permissions(program.parent().expect("a folder"), open).expect("set");
    let home = dir.join("home");
    std::fs::create_dir(&home).expect("made");
    chown(&home, Some(SERVICE.0), Some(SERVICE.1)).expect("given away");
    let (store, backup) = (home.join("store"), dir.join("backup"));
    let run = |line: &str, is_service: bool| -> Output {
        let mut command = Command::new(&program);
        for word in line.split(' ') {
            match word {
                "STORE" => command.arg(&store),
                "BACKUP" => command.arg(&backup),
                word => command.arg(word),
            };
        }
        command.stdin(std::process::Stdio::null());
        if is_service {
            command.uid(SERVICE.0).gid(SERVICE.1);
        }
        command.output().expect("runs")
    };
    let service = |id: u32| {
        for line in [format!("put STORE --id {id} {SMALL}"), format!("checkpoint STORE {SMALL}")] {
            let done = run(&line, true);
            assert_eq!(code(&done), 0, "the service, {line}: {}", stderr(&done));
        }
    };
    service(1);
    let commands = [
        format!("put STORE --id 90001 {SMALL}"),
        format!("checkpoint STORE {SMALL}"),
        "hold STORE replica".to_owned(),
        "hold STORE replica --advance --from 40960".to_owned(),
        "backup STORE BACKUP --hold nightly".to_owned(),
        "release STORE replica".to_owned(),
        "release STORE nightly".to_owned(),
        format!("replay STORE {SMALL}"),
        format!("delete STORE 90001 {SMALL}"),
        "purge STORE --keep-from end --yes".to_owned(),
        "stat STORE".to_owned(),
        "verify STORE".to_owned(),
        "segments STORE".to_owned(),
        "dump STORE".to_owned(),
        "scan STORE".to_owned(),
    ];
    for (id, line) in (2..).zip(&commands) {
        let done = run(line, false);
        assert!(matches!(code(&done), 0 | 3), "root, {line}: {}", stderr(&done));
        for path in entries(&store) {
            let found = std::fs::symlink_metadata(&path).expect("there");
            let owner = (found.uid(), found.gid());
            assert_eq!(owner, SERVICE, "{} after {line}", path.display());
        }
        service(id);
    }
}
