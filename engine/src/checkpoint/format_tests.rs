//! The format of checkpoints is pinned: golden files hold the bytes. And no bytes at all, not
//! even those whose checksums fit, make one show what is no record.
//!
//! A change of the format bumps its version and these files together:
//! `BULLA_BLESS=1 cargo test -p bulla-engine --lib format_tests`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_storage::files::dir::Directory;
use bulla_storage::format::{LogId, LowWater, MAX_START};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::frames::reader::Cursor;
use bulla_storage::io::Io;
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Epoch, Lsn, SegmentNumber, Seq};
use quickcheck::{QuickCheck, quickcheck};
use zerocopy::IntoBytes;

use super::fault_in::Unloaded;
use super::files::{Checkpoint, CheckpointDir};
use super::format::{BLOCK, CheckpointDamage, Head, SlabView, decode_index};
use super::source::{CheckpointSource, Fallback};
use super::write::Writer;
use super::{CheckpointError, CheckpointFault};
use crate::error::Error;
use crate::table::{Found, PageId, SLAB_RECORDS, SLABS, Table};
use crate::token::{Token, TokenId};

const STORE: &str = "/store";
const NUMBER: u64 = 7;
const WALL_NS: u64 = 1_700_000_000_000_000_000;

/// Offsets of the header's fields, and of those in an entry of the index.
const HEADER_CRC: usize = 8;
const VERSION: usize = 12;
const SLABS_FIELD: usize = 160;
const INDEX_CRC: usize = 164;
const INDEX_OFFSET: usize = 168;
const HEADER_END: usize = 192;
const ENTRY_LEN: usize = 32;
const ENTRY_FLAGS: usize = 4;
const ENTRY_RECORDS: usize = 8;
const ENTRY_OFFSET: usize = 16;
const ENTRY_CRC: usize = 24;

fn anchor(last: Option<Lsn>) -> Anchor {
    let segment = LowWater {
        segment: SegmentNumber(4),
        lsn: Lsn(512 * 10),
        seq: Seq(100),
        prev_crc: 0x0102_0304,
        epoch: Epoch(3),
        wall_ns: WALL_NS - 2_000,
    };
    let at =
        Cursor { lsn: Lsn(512 * 30), seq: Seq(222), prev_crc: 0xDEAD_BEEF, wall_ns: WALL_NS - 1 };
    let at = if last.is_some() { at } else { Cursor::from(&segment) };
    Anchor {
        log_id: LogId(*b"0123456789abcdef"),
        epoch: Epoch(3),
        nonce: 0x1122_3344_5566_7788,
        upto: Lsn(512 * 30 + 24),
        segment,
        at,
        last,
    }
}

fn found(id: u32, weight: f32, expiry: u64) -> Found {
    let token = Token::builder(TokenId(id)).weight(weight).timestamp(1_700_000_000).build();
    Found { id, record: zerocopy::transmute!(*token.expect("valid").as_bytes()), expiry }
}

/// Two slabs, one of them with times to live.
fn records() -> Vec<Found> {
    let last = u32::MAX;
    vec![
        found(1, 1.0, 0),
        found(63, 2.0, 1_800_000_000_000),
        found(200, 3.0, 0),
        found(last, 4.0, 0),
    ]
}

fn directory(disk: &SimDisk) -> (Arc<dyn Io>, CheckpointDir) {
    let io: Arc<dyn Io> = disk.process();
    io.create_dir(Path::new(STORE)).expect("made");
    let dir = CheckpointDir::of(&Directory::open(io.as_ref(), Path::new(STORE)).expect("opened"));
    dir.create().expect("made");
    (io, dir)
}

/// The bytes of a checkpoint with these records, as it is written, and what it says of itself.
fn written(records: &[Found], last: Option<Lsn>) -> (Head, Vec<u8>) {
    let disk = SimDisk::new(1);
    let (_, dir) = directory(&disk);
    let mut writer = Writer::create(&dir, NUMBER, false).expect("created");
    for page in records.chunk_by(|a, b| PageId::of(a.id) == PageId::of(b.id)) {
        writer.push(PageId::of(page[0].id), page).expect("written");
    }
    let written = writer.finish(WALL_NS, anchor(last)).expect("written");
    (written.publish().expect("published"), disk.read_file(dir.path_of(NUMBER)))
}

/// All records that a file with these bytes makes a store show, read as a store reads it.
fn load(bytes: &[u8]) -> Result<Vec<Found>, Error> {
    let disk = SimDisk::new(1);
    let (io, dir) = directory(&disk);
    let path = dir.path_of(NUMBER);
    disk.write_file(&path, bytes);
    let newest = Checkpoint::open(&dir, NUMBER)
        .map_err(|fault| CheckpointError::Unreadable { path, fault })?;
    let (unloaded, table) = (Unloaded::default(), Table::new(false));
    let store = dir.store().clone();
    unloaded.begin(CheckpointSource { newest, fallback: Fallback::Nothing, io, store });
    unloaded.load_all::<Token>(&table, 1, |_| true)?;
    let (mut all, mut page) = (Vec::new(), Vec::new());
    let mut next = Some(PageId::of(0));
    while let Some(at) = next.and_then(|from| table.copy_from(from, &mut page)) {
        all.append(&mut page);
        next = at.next();
    }
    Ok(all)
}

fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&path, bytes).expect("the dir is in the repository");
    }
    let pinned = std::fs::read(&path).expect("the golden file is in the repository");
    assert!(pinned == bytes, "{name} differs from its golden file: the format changed");
}

/// To be compared: id, bytes and expiry of each.
fn plain(records: &[Found]) -> Vec<(u32, &[u8], u64)> {
    records.iter().map(|found| (found.id, found.record.as_bytes(), found.expiry)).collect()
}

#[test]
fn checkpoint_has_its_golden_bytes() {
    let cases = [
        ("checkpoint.bin", records(), Some(Lsn(512 * 28))),
        // Of an empty store, at the start of the segment that opens its epoch.
        ("empty-checkpoint.bin", Vec::new(), None),
    ];
    for (name, records, last) in cases {
        let (head, bytes) = written(&records, last);
        golden(name, &bytes);
        assert_eq!(head.anchor, anchor(last));
        assert_eq!(Head::decode(&bytes[..BLOCK], bytes.len() as u64), Ok(head));
        assert_eq!(plain(&load(&bytes).expect("whole")), plain(&records));
    }
}

#[test]
fn newer_version_of_a_checkpoint_is_told_apart_from_damage() {
    let (_, mut bytes) = written(&records(), None);
    bytes[VERSION] = 9;
    mend(&mut bytes);
    let decoded = Head::decode(&bytes[..BLOCK], bytes.len() as u64);
    assert_eq!(decoded, Err(CheckpointDamage::Version(9)));
}

#[test]
fn most_that_a_header_can_claim_is_bounded_by_its_file() {
    let (head, bytes) = written(&records(), None);
    let claims = |slabs: usize, index_offset: usize, file_len: u64| {
        let slabs = u32::try_from(slabs).expect("small");
        let all = Head { slabs, index_offset: index_offset as u64, ..head };
        let all = Head { records: u64::from(slabs), pages: u64::from(slabs), ..all };
        Head::decode(&all.encode(), file_len).map(|head| head.index_len())
    };
    let len = bytes.len() as u64;
    let index_len = SLABS * ENTRY_LEN;
    assert_eq!(claims(SLABS, BLOCK, (BLOCK + index_len) as u64), Ok(index_len));
    assert_eq!(claims(SLABS, BLOCK, len), Err(CheckpointDamage::Length));
    assert_eq!(claims(SLABS + 1, BLOCK, len), Err(CheckpointDamage::Field("slabs")));
    assert_eq!(claims(2, usize::MAX, len), Err(CheckpointDamage::Field("index")));
}

#[test]
fn field_out_of_its_range_is_refused_by_name() {
    let (head, bytes) = written(&records(), Some(Lsn(512 * 28)));
    let refused = |change: &dyn Fn(&mut Head)| {
        let mut head = head;
        change(&mut head);
        match Head::decode(&head.encode(), bytes.len() as u64) {
            Err(CheckpointDamage::Field(name)) => name,
            other => panic!("{other:?}: {head:?}"),
        }
    };
    let over = MAX_START + 1;
    assert_eq!(Head::decode(&head.encode(), bytes.len() as u64), Ok(head));
    assert_eq!(refused(&|head| head.number = 0), "number");
    assert_eq!(refused(&|head| head.number = over), "number");
    assert_eq!(refused(&|head| head.anchor.upto = Lsn(over)), "LSN");
    assert_eq!(refused(&|head| head.anchor.last = Some(Lsn(over))), "LSN");
    assert_eq!(refused(&|head| head.anchor.at.lsn = Lsn(head.anchor.upto.0 + 1)), "LSN");
    assert_eq!(refused(&|head| head.anchor.segment.lsn = Lsn(head.anchor.at.lsn.0 + 1)), "LSN");
    for seq in [Seq(0), Seq(over)] {
        assert_eq!(refused(&|head| head.anchor.at.seq = seq), "Seq");
        assert_eq!(refused(&|head| head.anchor.segment.seq = seq), "Seq");
        assert_eq!(refused(&|head| head.anchor.segment.segment = SegmentNumber(seq.0)), "Seq");
    }
    assert_eq!(refused(&|head| head.anchor.epoch = Epoch(0)), "epoch");
    let (slabs, most) = (u64::from(head.slabs), u64::from(head.slabs) * SLAB_RECORDS as u64);
    assert!(slabs > 1 && head.pages > slabs, "{head:?}");
    assert_eq!(refused(&|head| head.records = slabs - 1), "records");
    assert_eq!(refused(&|head| head.records = most + 1), "records");
    assert_eq!(refused(&|head| head.pages = slabs - 1), "pages");
    assert_eq!(refused(&|head| head.pages = head.records + 1), "pages");
    assert_eq!(refused(&|head| head.index_offset = BLOCK as u64 - 1), "index");
}

quickcheck! {
    /// Whatever they are: of a file, of a header, of an index, of a slab.
    fn arbitrary_bytes_are_no_checkpoint(bytes: Vec<u8>, len: u16) -> bool {
        let bytes: Vec<u8> = bytes.iter().copied().cycle().take(usize::from(len)).collect();
        let (head, whole) = written(&records(), None);
        let checkpoint = |disk: &SimDisk| Checkpoint::open(&directory(disk).1, NUMBER).expect("whole");
        let disk = SimDisk::new(1);
        disk.write_file(directory(&disk).1.path_of(NUMBER), &whole);
        let places = checkpoint(&disk).places;
        load(&bytes).is_err()
            && Head::decode(&bytes, u64::from(len)).is_err()
            && decode_index(&head, &bytes).is_err()
            && places.iter().all(|place| SlabView::decode(place, &bytes).is_err())
    }
}

/// One with every record that it can have is read on a way of its own.
#[test]
fn full_slab_whose_checksums_fit_is_refused_for_any_record_that_is_none() {
    let full: Vec<_> = (32_768..65_536).map(|id| found(id, 1.0, 0)).collect();
    let (_, whole) = written(&full, None);
    assert_eq!(plain(&load(&whole).expect("whole")), plain(&full));
    let record = 2 * BLOCK + 64 * 20_000;
    let changes: [(usize, &[u8]); 3] =
        // The id, the weight, and whether it is there at all.
        [(record + 48, &[0]), (record + 54, &f32::NAN.to_le_bytes()), (BLOCK + 100, &[0])];
    for (at, new) in changes {
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        assert_ne!(bytes, whole);
        mend(&mut bytes);
        let loaded = load(&bytes);
        assert!(
            matches!(loaded, Err(Error::Checkpoint(CheckpointError::Slab { slab: 1, .. }))),
            "byte {at}: {loaded:?}"
        );
    }
}

/// Changes a part of the file: which one, where in it, and to what.
type Edit = (u8, u16, u8, u64);
/// Edits of one file at most: with more, one of the first checks refuses it always.
const MAX_EDITS: usize = 3;
const CASES: u64 = 3_000;

fn edit(bytes: &mut Vec<u8>, (part, at, width, value): Edit) {
    let at = usize::from(at);
    let index = bytes.len().saturating_sub(BLOCK);
    let start = match part % 11 {
        0 | 1 => VERSION + at % (HEADER_END - VERSION),
        2 => index + at % (2 * ENTRY_LEN),
        3 => BLOCK + at % 40,
        4..=6 => 2 * BLOCK + at % (3 * 72),
        7 => 4 * BLOCK + at % 64,
        8 => return bytes.resize((at % 32) * 1024, 0),
        // Other places for the records of a page, or too few.
        9 => return occupy(bytes, at % 5, |word| word.rotate_left(u32::from(width))),
        _ => return occupy(bytes, at % 5, |word| word & value),
    };
    let width = 1 << (width % 4);
    let run = bytes.iter_mut().skip(start).take(width);
    run.zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
}

/// Changes which records of a page of the first slab are there.
fn occupy(bytes: &mut [u8], page: usize, change: impl FnOnce(u64) -> u64) {
    let word = bytes.get_mut(BLOCK + 8 * page..).and_then(|rest| rest.first_chunk_mut::<8>());
    if let Some(word) = word {
        *word = change(u64::from_le_bytes(*word)).to_le_bytes();
    }
}

/// Makes every checksum fit again, the header's last.
fn mend(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        word.map_or(0, |word| u32::from_le_bytes(*word) as usize)
    };
    let put = |bytes: &mut [u8], at: usize, covered: Option<u32>| {
        let word = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>());
        if let (Some(word), Some(crc)) = (word, covered) {
            *word = crc.to_le_bytes();
        }
    };
    let (slabs, index) = (word(bytes, SLABS_FIELD), word(bytes, INDEX_OFFSET));
    for entry in (0..slabs.min(2)).map(|number| index + number * ENTRY_LEN) {
        let each = if word(bytes, entry + ENTRY_FLAGS) & 1 == 1 { 72 } else { 64 };
        let len = BLOCK + word(bytes, entry + ENTRY_RECORDS) * each;
        let start = word(bytes, entry + ENTRY_OFFSET);
        let crc = bytes.get(start..start + len).map(crc32fast::hash);
        put(bytes, entry + ENTRY_CRC, crc);
    }
    let crc = bytes.get(index..index + slabs * ENTRY_LEN).map(crc32fast::hash);
    put(bytes, INDEX_CRC, crc);
    let crc = bytes.get(VERSION..BLOCK).map(crc32fast::hash);
    put(bytes, HEADER_CRC, crc);
}

#[test]
fn changed_checkpoint_whose_checksums_fit_shows_records_or_is_refused() {
    // How often: shown as it was, other records, refused for a record, for all else.
    static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    fn check(edits: Vec<Edit>) -> bool {
        let (_, whole) = written(&records(), Some(Lsn(512 * 28)));
        let mut bytes = whole.clone();
        let count = 1 + edits.len() % MAX_EDITS;
        edits.into_iter().take(count).for_each(|one| edit(&mut bytes, one));
        mend(&mut bytes);
        let (seen, holds) = match load(&bytes) {
            Ok(shown) => {
                let is_record = |found: &Found| {
                    let token = Token::from_bytes(zerocopy::transmute_ref!(&found.record));
                    found.id != 0 && token.is_ok_and(|token| token.id().0 == found.id)
                };
                let head = Head::decode(&bytes[..BLOCK], bytes.len() as u64).expect("it was read");
                let holds = shown.iter().all(is_record)
                    && shown.is_sorted_by(|a, b| a.id < b.id)
                    && shown.len() as u64 == head.records
                    && head.index_len() < bytes.len();
                let is_same = plain(&shown) == plain(&records());
                (usize::from(!is_same), holds)
            }
            Err(Error::Checkpoint(CheckpointError::Slab { fault, .. })) => {
                let of_a_record =
                    matches!(fault, CheckpointFault::Damage(CheckpointDamage::Record(_)));
                (if of_a_record { 2 } else { 3 }, true)
            }
            Err(Error::Checkpoint(CheckpointError::Unreadable { .. })) => (3, true),
            Err(_) => (3, false),
        };
        SEEN[seen].fetch_add(1, Ordering::Relaxed);
        holds
    }
    QuickCheck::new().tests(CASES).quickcheck(check as fn(Vec<Edit>) -> bool);
    let seen = SEEN.each_ref().map(|count| count.load(Ordering::Relaxed));
    // One that never gets past a check proves nothing of what is behind it.
    assert!(seen.iter().all(|count| *count > CASES / 100), "{seen:?}");
}
