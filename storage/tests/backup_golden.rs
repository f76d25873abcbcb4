//! The files of holds, backups and repairs are pinned: golden files hold the bytes, and no damaged bit passes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use bulla_storage::format::{
    BackedUpCheckpoint, BackedUpSegment, BackupId, BaseBackup, Content, Fate, FormatError,
    HOLD_LEN, HoldRecord, LogId, LowWater, Manifest, RepairRecord, RepairedSegment,
};
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};
use quickcheck::quickcheck;

fn hold() -> HoldRecord {
    HoldRecord {
        log_id: LogId(*b"0123456789abcdef"),
        lsn: Lsn(512 * 9),
        segment: SegmentNumber(3),
        quota_bytes: 1 << 34,
        taken_ns: 1_700_000_000_000_000_000,
        broken_ns: 1_700_000_000_000_000_001,
    }
}

fn manifest() -> Manifest {
    let segment = |number, len, from| BackedUpSegment {
        number: SegmentNumber(number),
        nonce: 0x1122_3344_5566_7788,
        epoch: Epoch(7),
        len,
        from,
        crc: 0xDEAD_BEEF,
    };
    Manifest {
        id: BackupId(*b"a backup, random"),
        log_id: LogId(*b"0123456789abcdef"),
        base: Some(BaseBackup { id: BackupId(*b"another, as this"), path: "../monday".to_owned() }),
        sector: 512,
        epoch: Epoch(8),
        nonce: 0x99AA_BBCC_DDEE_FF00,
        low_water: LowWater { lsn: Lsn(512 * 9), seq: Seq(100), ..LowWater::START },
        content: Content::records("example.com/account", 3, 0xCAFE_F00D),
        end_lsn: Lsn(512 * 40),
        end_seq: Seq(130),
        end_epoch: Epoch(7),
        wall_ns: 1_700_000_000_000_000_002,
        segments: vec![segment(3, 4096, 4096), segment(4, 8192, 1024), segment(5, 512, 0)],
        checkpoints: vec![BackedUpCheckpoint {
            number: 2,
            len: 12_288,
            upto: Lsn(512 * 30),
            crc: 0x0102_0304,
            is_here: true,
        }],
    }
}

fn repair() -> RepairRecord {
    let segment =
        |number, fate| RepairedSegment { number: SegmentNumber(number), from_len: 8192, fate };
    RepairRecord {
        log_id: LogId(*b"0123456789abcdef"),
        epoch: Epoch(9),
        cut_at: Lsn(512 * 40),
        next_seq: Seq(130),
        control_len: 32_768,
        control_crc: 0x0102_0304,
        folders_crc: 0x0506_0708,
        segments: vec![
            segment(3, Fate::Left),
            segment(4, Fate::Cut { to_len: 4096, crc: 0xDEAD_BEEF }),
            segment(5, Fate::Gone { crc: 0xCAFE_F00D }),
        ],
    }
}

fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let pinned = std::fs::read(&path).expect("the golden file is in the repository");
    assert!(pinned == bytes, "{name} differs from its golden file: the format changed");
}

#[test]
fn hold_manifest_and_repair_have_their_golden_bytes() {
    golden("hold.bin", &hold().encode());
    assert_eq!(hold().encode().len(), HOLD_LEN);
    assert_eq!(HoldRecord::decode(&hold().encode()), Ok(hold()));
    golden("manifest.bin", &manifest().encode());
    assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    let full = Manifest { base: None, ..manifest() };
    assert_eq!(Manifest::decode(&full.encode()), Ok(full));
    golden("repair.bin", &repair().encode());
    assert_eq!(RepairRecord::decode(&repair().encode()), Ok(repair()));
}

#[test]
fn no_flipped_bit_and_no_other_length_of_a_hold_a_manifest_or_a_repair_passes() {
    type Check = fn(&[u8]) -> bool;
    let cases: [(Vec<u8>, Check); 3] = [
        (hold().encode(), |bytes| HoldRecord::decode(bytes).is_ok()),
        (manifest().encode(), |bytes| Manifest::decode(bytes).is_ok()),
        (repair().encode(), |bytes| RepairRecord::decode(bytes).is_ok()),
    ];
    for (bytes, passes) in cases {
        assert!(passes(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!passes(&damaged), "bit {bit}");
        }
        assert!((0..bytes.len()).all(|len| !passes(&bytes[..len])));
        assert!(!passes(&[&bytes[..], &[0]].concat()));
    }
}

/// The bytes with one changed, and a CRC that fits.
fn with_a_byte(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    bytes[at] = byte;
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn newer_versions_of_holds_manifests_and_repairs_are_told_apart_from_damage() {
    let newer = with_a_byte(hold().encode(), 12, 9);
    assert_eq!(HoldRecord::decode(&newer), Err(FormatError::Version(9)));
    let newer = with_a_byte(manifest().encode(), 12, 9);
    assert_eq!(Manifest::decode(&newer), Err(FormatError::Version(9)));
    let newer = with_a_byte(repair().encode(), 12, 9);
    assert_eq!(RepairRecord::decode(&newer), Err(FormatError::Version(9)));
}

quickcheck! {
    /// Whatever a manifest with a CRC that fits says, it is decoded or refused.
    fn changed_manifest_whose_checksum_fits_never_panics(at: usize, byte: u8) -> bool {
        let bytes = manifest().encode();
        let at = 12 + at % (bytes.len() - 12);
        let decoded = Manifest::decode(&with_a_byte(bytes, at, byte));
        decoded.is_err() || decoded.is_ok_and(|manifest| manifest.segments.len() <= 3)
    }

    /// Nor does what a repair noted.
    fn changed_repair_whose_checksum_fits_never_panics(at: usize, byte: u8) -> bool {
        let bytes = repair().encode();
        let at = 12 + at % (bytes.len() - 12);
        let decoded = RepairRecord::decode(&with_a_byte(bytes, at, byte));
        decoded.is_err() || decoded.is_ok_and(|repair| repair.segments.len() <= 3)
    }
}
