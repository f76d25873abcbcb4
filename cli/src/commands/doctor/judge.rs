//! Judges the facts and the measurements. Pure.

use std::time::Duration;

use serde::Serialize;

use super::ROUNDS;
use super::measure::{Blocks, Measured, Test};
use crate::args::{Backend, LevelArg};
use crate::facts::Facts;
use crate::numbers::grouped;

/// A test and its result.
pub(super) type Outcome = (Test, Result<Measured, String>);

/// The conclusion.
#[derive(Serialize, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Verdict {
    /// Reasons not to trust an acknowledgement here.
    pub(super) warnings: Vec<String>,
    /// Facts worth knowing.
    pub(super) notes: Vec<String>,
    pub(super) recommended: Option<Recommended>,
}

#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct Recommended {
    pub(super) backend: Backend,
    pub(super) level: LevelArg,
    pub(super) reason: String,
}

/// A disk turns at most 250 times per second (15,000 per minute), and a synced write waits
/// until its sector comes round. Four times as many writes can't have reached it.
const MOST_SYNCS_OF_A_DISK: u64 = 1_000;
/// A write that a device confirms passes its bus and its controller. The fastest drives,
/// whose memory is protected against power loss, take 10 us for that.
const FASTEST_SYNC: Duration = Duration::from_micros(8);
/// A single writer that waits for each commit gets at least a thousand per second: Strict
/// is cheap enough to be the rule.
const STRICT_AS_A_RULE: Duration = Duration::from_millis(1);
/// The default backend stays recommended unless another is faster by this factor.
const CLEARLY_FASTER: f64 = 1.1;

/// If one sync in a hundred takes this many times the median, the disk did other work.
const NOISY: u64 = 20;

const LAYERED: [&str; 3] = ["overlay", "overlayfs", "aufs"];
const COPY_ON_WRITE: [&str; 4] = ["btrfs", "zfs", "bcachefs", "nilfs2"];
/// Served by another machine, the host of this one, or a program.
const REMOTE: [&str; 12] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "virtiofs",
    "ceph",
    "glusterfs",
    "afs",
    "lustre",
    "fuse",
];

pub(super) fn judge(facts: &Facts, outcomes: &[Outcome]) -> Verdict {
    let mut verdict = Verdict::default();
    judge_file_system(facts, &mut verdict);
    judge_speed(facts, outcomes, &mut verdict);
    note_device(facts, &mut verdict);
    note_noise(outcomes, &mut verdict);
    verdict.recommended = recommend(outcomes, verdict.warnings.is_empty());
    verdict
}

fn judge_file_system(facts: &Facts, verdict: &mut Verdict) {
    let Some(mount) = &facts.mount else {
        verdict.notes.push("the file system is unknown".to_owned());
        return;
    };
    let kind = mount.kind.as_str();
    let warnings = &mut verdict.warnings;
    if facts.is_in_memory() {
        warnings.push(format!("{kind} is memory: nothing on it survives a power loss or reboot"));
    } else if LAYERED.contains(&kind) {
        warnings.push(format!(
            "{kind} is a layer over another file system, often deleted with its container: put \
             a log on a volume"
        ));
    } else if REMOTE.contains(&kind) || kind.starts_with("fuse.") {
        warnings.push(format!(
            "{kind} is served from elsewhere: whether syncs and locks hold depends on the server, \
             and Bulla was not tested on it"
        ));
    } else if COPY_ON_WRITE.contains(&kind) {
        verdict.notes.push(format!(
            "{kind} copies on write: written blocks are not faster than new ones, and on a full \
             disk the write of an accepted entry can fail (the log is then poisoned)"
        ));
    }
}

fn judge_speed(facts: &Facts, outcomes: &[Outcome], verdict: &mut Verdict) {
    let Some(fastest) = fastest_sync(outcomes) else { return };
    if facts.is_in_memory() {
        return;
    }
    if Duration::from_nanos(fastest.p50_ns) < FASTEST_SYNC {
        verdict.warnings.push(format!(
            "a synced 4 KiB write took {}: no device confirms one in less than {} us, so a cache, \
             an emulated disk or a hypervisor answers before the data is durable",
            micros(fastest.p50_ns),
            FASTEST_SYNC.as_micros(),
        ));
    }
    let rotational = facts.device.as_ref().and_then(|device| device.rotational) == Some(true);
    if rotational && fastest.per_second > MOST_SYNCS_OF_A_DISK {
        verdict.warnings.push(format!(
            "the device says that it rotates, and made {} synced 4 KiB writes per second; a \
             rotating disk can't make {}. Either it does not rotate (virtual disks are often \
             described wrongly: ask the host), or its cache answers before the data is durable",
            grouped(fastest.per_second),
            grouped(MOST_SYNCS_OF_A_DISK),
        ));
    }
}

/// Returns the fastest synced 4 KiB writes into written blocks.
fn fastest_sync(outcomes: &[Outcome]) -> Option<&Measured> {
    outcomes
        .iter()
        .filter(|(test, _)| matches!(test, Test::Raw { blocks: Blocks::Written, len: 4096, .. }))
        .filter_map(|(_, measured)| measured.as_ref().ok())
        .min_by_key(|measured| measured.p50_ns)
}

fn note_device(facts: &Facts, verdict: &mut Verdict) {
    if facts.is_in_memory() {
        return;
    }
    let Some(device) = &facts.device else {
        verdict.notes.push("what the device says about its cache is unknown".to_owned());
        return;
    };
    match device.write_cache.as_deref() {
        Some("write back") => verdict.notes.push(
            "the device has a volatile cache, which the kernel flushes at every sync: durable, \
             provided the device honours flushes"
                .to_owned(),
        ),
        Some("write through") => verdict.notes.push(
            "the device says that it has no volatile cache, so the kernel never flushes one: \
             durable, provided that is true (a virtual disk repeats what its host says)"
                .to_owned(),
        ),
        _ => {}
    }
    if device.physical_sector.is_some_and(|sector| sector > 4096) {
        verdict
            .notes
            .push("the device's sectors are above 4 KiB: create logs with --sector".into());
    }
}

fn note_noise(outcomes: &[Outcome], verdict: &mut Verdict) {
    let is_noisy = |(test, measured): &Outcome| {
        let small = matches!(test, Test::Raw { blocks: Blocks::Written, len: 4096, .. });
        let alone = matches!(test, Test::Log { writers: 1, .. });
        let noisy = |found: &Measured| found.p99_ns / NOISY > found.p50_ns;
        (small || alone) && measured.as_ref().is_ok_and(noisy)
    };
    if outcomes.iter().any(is_noisy) {
        verdict.notes.push(format!(
            "one sync in a hundred took more than {NOISY} times the median: the disk did other \
             work meanwhile, so measure again when it is idle, or with a longer --seconds"
        ));
    }
}

/// Returns the fastest backend for a single Strict writer, by the median, and what Strict
/// costs there.
fn recommend(outcomes: &[Outcome], trusted: bool) -> Option<Recommended> {
    let of = |wanted: Backend, many: bool| {
        outcomes.iter().find_map(|(test, measured)| match test {
            Test::Log { backend, writers } if *backend == wanted && (*writers > 1) == many => {
                measured.as_ref().ok()
            }
            _ => None,
        })
    };
    let fastest = Backend::all()
        .filter_map(|backend| Some((of(backend, false)?, backend)))
        .min_by_key(|(measured, _)| measured.p50_ns);
    let (best, fastest) = fastest?;
    // In its slowest round, too, against the best round of the default.
    let is_clearly_faster = |direct: &Measured| {
        direct.p50_ns as f64 > best.p50_ns as f64 * CLEARLY_FASTER
            && direct.p50_range_ns.0 > best.p50_range_ns.1
    };
    let backend = match of(Backend::Direct, false) {
        Some(direct) if !is_clearly_faster(direct) => Backend::Direct,
        _ => fastest,
    };
    let (lone, many) = (of(backend, false)?, of(backend, true));
    let level = if Duration::from_nanos(lone.p50_ns) <= STRICT_AS_A_RULE {
        LevelArg::Strict
    } else {
        LevelArg::Balanced
    };
    let many = many.map_or_else(String::new, |many| {
        format!(
            ", and writers that share syncs make {} commits per second",
            grouped(many.per_second)
        )
    });
    let (low, high) = lone.p50_range_ns;
    let cost = format!(
        "a single strict commit takes {} ({} to {} in {ROUNDS} rounds){many}",
        micros(lone.p50_ns),
        micros(low),
        micros(high)
    );
    let reason = match (trusted, level) {
        (false, _) => format!("{cost}; but see the warnings: it may not survive a power loss"),
        (true, LevelArg::Strict) => cost,
        (true, _) => {
            format!("{cost}: use strict only where an entry must survive a power loss")
        }
    };
    Some(Recommended { backend, level, reason })
}

fn micros(ns: u64) -> String {
    format!("{:.1} us", ns as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Device, Facts};

    fn facts(kind: &str, rotational: bool) -> Facts {
        let line = format!("1 0 8:1 / / rw - {kind} /dev/sda1 rw");
        let write_cache = Some("write back".to_owned());
        let rotational = Some(rotational);
        Facts {
            dir: "/".into(),
            mount: crate::facts::parse(&line),
            device: Some(Device { rotational, write_cache, ..Device::default() }),
        }
    }

    fn measured(p50_us: u64) -> Result<Measured, String> {
        let ns = p50_us * 1000;
        Ok(Measured {
            operations: 1,
            per_second: 1_000_000 / p50_us,
            p50_ns: ns,
            p99_ns: ns,
            max_ns: ns,
            p50_range_ns: (ns, ns),
        })
    }

    /// Returns results in which both methods take `sync_us` for a sync, and logs of each backend
    /// the given time for a commit.
    fn outcomes(sync_us: u64, direct_us: u64, buffered_us: u64) -> Vec<Outcome> {
        let of = |test| match test {
            Test::Raw { .. } => measured(sync_us),
            Test::Log { backend: Backend::Direct, .. } => measured(direct_us),
            Test::Log { .. } => measured(buffered_us),
        };
        Test::all().into_iter().map(|test| (test, of(test))).collect()
    }

    #[test]
    fn file_systems_that_do_not_keep_data_are_warned_of() {
        for (kind, warned) in [
            ("ext4", false),
            ("xfs", false),
            ("btrfs", false),
            ("tmpfs", true),
            ("overlay", true),
            ("nfs4", true),
            ("9p", true),
            ("fuse.sshfs", true),
        ] {
            let verdict = judge(&facts(kind, false), &outcomes(100, 100, 100));
            assert_eq!(!verdict.warnings.is_empty(), warned, "{kind}: {verdict:?}");
            let reason = verdict.recommended.expect("a recommendation").reason;
            assert_eq!(reason.contains("see the warnings"), warned, "{kind}: {reason}");
        }
    }

    #[test]
    fn syncs_that_are_too_fast_to_be_true_are_warned_of() {
        for (rotational, us, warned) in [
            (false, 9, false),
            (false, 7, true),
            (true, 1100, false),
            (true, 900, true),
            (false, 900, false),
        ] {
            let verdict = judge(&facts("ext4", rotational), &outcomes(us, us, us));
            assert_eq!(!verdict.warnings.is_empty(), warned, "{rotational} {us}: {verdict:?}");
        }
    }

    #[test]
    fn fastest_backend_is_recommended_and_the_default_when_it_is_close() {
        for (direct, buffered, backend, level) in [
            (100, 95, Backend::Direct, LevelArg::Strict),
            (100, 80, Backend::Buffered, LevelArg::Strict),
            (80, 100, Backend::Direct, LevelArg::Strict),
            (8_000, 5_000, Backend::Buffered, LevelArg::Balanced),
        ] {
            let verdict = judge(&facts("ext4", false), &outcomes(5_000, direct, buffered));
            let found = verdict.recommended.expect("a recommendation");
            assert_eq!((found.backend, found.level), (backend, level), "{direct} {buffered}");
        }
        // Medians that overlap decide nothing.
        let mut overlapping = outcomes(5_000, 100, 80);
        for (_, measured) in &mut overlapping {
            let measured = measured.as_mut().expect("measured");
            measured.p50_range_ns = (measured.p50_ns - 15_000, measured.p50_ns + 15_000);
        }
        let verdict = judge(&facts("ext4", false), &overlapping);
        assert_eq!(verdict.recommended.expect("one").backend, Backend::Direct);
        let mut only_buffered = outcomes(100, 100, 200);
        for (test, measured) in &mut only_buffered {
            if matches!(test, Test::Log { backend: Backend::Direct, .. }) {
                *measured = Err("O_DIRECT is not supported here".to_owned());
            }
        }
        let verdict = judge(&facts("ext4", false), &only_buffered);
        assert_eq!(verdict.recommended.expect("one").backend, Backend::Buffered);
        assert_eq!(judge(&facts("ext4", false), &[]).recommended, None);
    }
}
