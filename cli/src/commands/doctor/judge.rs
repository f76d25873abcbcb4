//! What the facts and the measurements mean. Pure.

use std::time::Duration;

use super::measure::{Blocks, Measured, Test};
use crate::args::{Backend, LevelArg};
use crate::facts::Facts;
use crate::output::grouped;

/// A test, and what came of it.
pub(super) type Outcome = (Test, Result<Measured, String>);

/// What is concluded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Verdict {
    /// Reasons not to trust an acknowledgement here.
    pub(super) warnings: Vec<String>,
    /// What is good to know.
    pub(super) notes: Vec<String>,
    pub(super) recommended: Option<Recommended>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recommended {
    pub(super) backend: Backend,
    pub(super) level: LevelArg,
    pub(super) reason: String,
}

/// A disk turns 250 times a second at most (15,000 a minute), and a synced write waits
/// until its sector has come round. Four times as many can't have reached it.
const MOST_SYNCS_OF_A_DISK: u64 = 1_000;
/// A write that a device confirms goes over its bus and through its controller. The
/// quickest drives, whose memory is protected against power loss, take 10 us for that.
const QUICKEST_SYNC: Duration = Duration::from_micros(8);
/// A lone writer that waits for each of its commits gets at least a thousand a second:
/// Strict costs little enough to be the rule.
const STRICT_AS_A_RULE: Duration = Duration::from_millis(1);
/// The default backend stays recommended unless another is quicker by this.
const CLEARLY_QUICKER: f64 = 1.1;

/// Where one sync in a hundred takes so many times the median, the disk did other work.
const NOISY: u64 = 20;

const LAYERED: [&str; 3] = ["overlay", "overlayfs", "aufs"];
const COPY_ON_WRITE: [&str; 4] = ["btrfs", "zfs", "bcachefs", "nilfs2"];
/// Served by something else than this kernel: another machine, a host, a program.
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
        verdict.notes.push("the file system could not be found out".to_owned());
        return;
    };
    let kind = mount.kind.as_str();
    let warnings = &mut verdict.warnings;
    if facts.is_in_memory() {
        warnings.push(format!("{kind} is memory: nothing on it survives a power loss or reboot"));
    } else if LAYERED.contains(&kind) {
        warnings.push(format!(
            "{kind} is a layer over another file system, often thrown away with its container: \
             put a log on a volume"
        ));
    } else if REMOTE.contains(&kind) || kind.starts_with("fuse.") {
        warnings.push(format!(
            "{kind} is served from elsewhere: what a sync or a lock is worth there is the \
             server's word, and Bulla was not tested on one"
        ));
    } else if COPY_ON_WRITE.contains(&kind) {
        verdict.notes.push(format!(
            "{kind} copies on write: written blocks are no quicker than new ones, and a full \
             disk can fail the write of an accepted entry (the log is then poisoned)"
        ));
    }
}

fn judge_speed(facts: &Facts, outcomes: &[Outcome], verdict: &mut Verdict) {
    let Some(quickest) = quickest_sync(outcomes) else { return };
    if facts.is_in_memory() {
        return;
    }
    if Duration::from_nanos(quickest.p50_ns) < QUICKEST_SYNC {
        verdict.warnings.push(format!(
            "a synced 4 KiB write took {}: no device confirms one in less than {} us, so a cache, \
             an emulated disk or a hypervisor answers before the data are durable",
            micros(quickest.p50_ns),
            QUICKEST_SYNC.as_micros(),
        ));
    }
    let rotational = facts.device.as_ref().and_then(|device| device.rotational) == Some(true);
    if rotational && quickest.per_second > MOST_SYNCS_OF_A_DISK {
        verdict.warnings.push(format!(
            "the device says that it rotates, and made {} synced 4 KiB writes a second; a disk \
             can't make {}. Either it is none (virtual disks often say so wrongly: ask its \
             host), or its cache answers before the data are durable",
            grouped(quickest.per_second),
            grouped(MOST_SYNCS_OF_A_DISK),
        ));
    }
}

/// The synced 4 KiB writes into written blocks that were the quickest.
fn quickest_sync(outcomes: &[Outcome]) -> Option<&Measured> {
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
        verdict.notes.push("what the device says of its cache could not be found out".to_owned());
        return;
    };
    match device.write_cache.as_deref() {
        Some("write back") => verdict.notes.push(
            "the device has a volatile cache, which the kernel flushes at every sync: durable, \
             if the device obeys"
                .to_owned(),
        ),
        Some("write through") => verdict.notes.push(
            "the device says that it has no volatile cache, so the kernel never flushes one: \
             durable, if that is true (of a virtual disk it is the host's word)"
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
             work meanwhile, so measure again when it is quiet, or with a longer --seconds"
        ));
    }
}

/// The quickest backend for a lone Strict writer, by the median, and what Strict costs there.
fn recommend(outcomes: &[Outcome], trusted: bool) -> Option<Recommended> {
    let of = |wanted: Backend, many: bool| {
        outcomes.iter().find_map(|(test, measured)| match test {
            Test::Log { backend, writers } if *backend == wanted && (*writers > 1) == many => {
                measured.as_ref().ok()
            }
            _ => None,
        })
    };
    let p50 = |backend| of(backend, false).map(|measured| measured.p50_ns);
    let quickest = Backend::all()
        .filter_map(|backend| Some((p50(backend)?, backend)))
        .min_by_key(|(p50_ns, _)| *p50_ns);
    let (best, quickest) = quickest?;
    let backend = match p50(Backend::Direct) {
        Some(direct) if direct as f64 <= best as f64 * CLEARLY_QUICKER => Backend::Direct,
        _ => quickest,
    };
    let (lone, many) = (of(backend, false)?, of(backend, true));
    let level = if Duration::from_nanos(lone.p50_ns) <= STRICT_AS_A_RULE {
        LevelArg::Strict
    } else {
        LevelArg::Balanced
    };
    let many = many.map_or_else(String::new, |many| {
        format!(", and writers that share syncs make {} commits/s", grouped(many.per_second))
    });
    let cost = format!("a lone strict commit takes {}{many}", micros(lone.p50_ns));
    let reason = match (trusted, level) {
        (false, _) => format!("{cost}; but see the warnings: that may not survive a power loss"),
        (true, LevelArg::Strict) => cost,
        (true, _) => {
            format!("{cost}: ask for strict only where an entry must survive a power loss")
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
        })
    }

    /// Both methods take so long for a sync, and logs of each backend so long for a commit.
    fn outcomes(sync_us: u64, direct_us: u64, buffered_us: u64) -> Vec<Outcome> {
        let of = |test| match test {
            Test::Raw { .. } => measured(sync_us),
            Test::Log { backend: Backend::Direct, .. } => measured(direct_us),
            Test::Log { .. } => measured(buffered_us),
        };
        Test::all().into_iter().map(|test| (test, of(test))).collect()
    }

    #[test]
    fn file_systems_that_keep_no_promise_are_warned_of() {
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
    fn syncs_that_are_too_quick_to_be_true_are_warned_of() {
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
    fn quickest_backend_is_recommended_and_the_default_when_it_is_close() {
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
        let mut only_buffered = outcomes(100, 100, 200);
        for (test, measured) in &mut only_buffered {
            if matches!(test, Test::Log { backend: Backend::Direct, .. }) {
                *measured = Err("no O_DIRECT here".to_owned());
            }
        }
        let verdict = judge(&facts("ext4", false), &only_buffered);
        assert_eq!(verdict.recommended.expect("one").backend, Backend::Buffered);
        assert_eq!(judge(&facts("ext4", false), &[]).recommended, None);
    }
}
