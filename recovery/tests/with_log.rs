//! Recovery together with the log that appends: what was acknowledged comes back.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bulla_recovery::{Inspection, Range, Recovery, Status, open};
use bulla_wal::io::sim::SimDisk;
use bulla_wal::{Level, Log, Options};

const DIR: &str = "/log";

fn options(disk: &SimDisk) -> Options {
    Options::new()
        .io(disk.process())
        .sector(512)
        .segment_len(16 * 1024)
        .ring_len(16 * 1024)
        .manual()
}

fn entries(replay: impl FnOnce(&mut dyn FnMut(u64, &[u8]))) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    replay(&mut |seq, payload| found.push((seq, payload.to_vec())));
    found
}

#[test]
fn strict_entries_survive_every_way_to_end_and_reopen() {
    let disk = SimDisk::new(7);
    let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut lsn = 0;
    for round in 0..12_u64 {
        let (recovered, report) = open(Path::new(DIR), &options(&disk)).expect("open");
        assert!(!matches!(report.status, Status::Corrupt(_)), "{report:#?}");
        assert_eq!(report.entries, expected.len() as u64, "round {round}: {report:#?}");
        assert!(report.last_lsn.0 >= lsn);
        let log = Log::start(recovered).expect("start");
        for index in 0..20 {
            let payload = vec![round as u8; 30 + index * 40];
            let receipt = log.append_with(1, &payload, Level::Strict).expect("append");
            log.wait(receipt).expect("wait");
            expected.push((receipt.seq.0, payload));
            lsn = receipt.lsn.0;
        }
        match round % 3 {
            0 => log.close().expect("close"),
            1 => {
                disk.kill();
                drop(log);
            }
            _ => {
                disk.power_loss();
                drop(log);
            }
        }
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let seen = entries(|visit| {
            inspection
                .replay(Range::ALL, |entry| {
                    visit(entry.seq.0, entry.payload);
                    ControlFlow::Continue(())
                })
                .expect("replay");
        });
        assert_eq!(seen.len(), expected.len(), "round {round} {:#?}", inspection.report());
        assert!(seen == expected);
        if round % 3 == 0 {
            assert_eq!(inspection.report().status, Status::Clean, "{:#?}", inspection.report());
        }
    }
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let seen = entries(|visit| {
        recovery
            .replay(Range::ALL, |entry| {
                visit(entry.seq.0, entry.payload);
                ControlFlow::Continue(())
            })
            .expect("replay");
    });
    assert!(seen == expected);
    let _keep: Arc<_> = disk.process();
}
