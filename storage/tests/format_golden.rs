//! The format is pinned: golden files hold the bytes, and no damaged bit passes.
//!
//! A change of the format bumps its version and these files together:
//! `BULLA_BLESS=1 cargo test -p bulla-storage --test main format_golden::`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use bulla_storage::format::{
    CONTROL_LEN, Content, Control, Entries, EntryHeader, EpochStart, FRAME_HEADER_LEN, FormatError,
    Frame, FrameKind, Header, LogId, LowWater, MAX_FRAME_LEN, MAX_START, Truncation, align_up,
    all_zero, entry_len, is_valid_sector, max_truncations,
};
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};
use zerocopy::IntoBytes;

const SECTOR: u32 = 512;

fn control() -> Control {
    Control {
        counter: 41,
        log_id: LogId(*b"0123456789abcdef"),
        sector: SECTOR,
        epoch: Epoch(7),
        nonce: 0x1122_3344_5566_7788,
        compatible: 0xC0,
        low_water: LowWater {
            segment: SegmentNumber(3),
            lsn: Lsn(512 * 9),
            seq: Seq(100),
            prev_crc: 0xDEAD_BEEF,
            epoch: Epoch(5),
            wall_ns: 1_700_000_000_000_000_000,
        },
        content: Content::records("example.com/account", 3, 0xCAFE_F00D),
    }
}

fn header(epoch_start: Option<EpochStart>) -> Header {
    Header {
        log_id: LogId(*b"0123456789abcdef"),
        number: SegmentNumber(4),
        epoch: Epoch(7),
        nonce: 0x1122_3344_5566_7788,
        previous_nonce: 0x99AA_BBCC_DDEE_FF00,
        sector: SECTOR,
        wall_ns: 1_700_000_000_000_000_001,
        epoch_start,
    }
}

fn epoch_start() -> EpochStart {
    EpochStart {
        base: Lsn(512 * 10),
        first_seq: Seq(101),
        replaces_from: Lsn(512 * 10),
        truncated_at: Lsn(512 * 12),
        truncations: vec![
            Truncation { epoch: Epoch(5), truncated_at: Lsn(512 * 9) },
            Truncation { epoch: Epoch(6), truncated_at: Lsn(512 * 10) },
        ],
    }
}

fn body() -> (Vec<u8>, u32) {
    let mut body = Vec::new();
    for (kind, payload) in [(1_u16, &b"first"[..]), (2, b""), (0xFEFF, b"the third entry")] {
        let len = u32::try_from(payload.len()).unwrap();
        body.extend_from_slice(EntryHeader::new(len, kind).as_bytes());
        body.extend_from_slice(payload);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let len = u32::try_from(body.len()).unwrap();
    let padded = align_up(FRAME_HEADER_LEN + u64::from(len), u64::from(SECTOR)) - FRAME_HEADER_LEN;
    body.resize(usize::try_from(padded).unwrap(), 0);
    (body, len)
}

fn frame() -> (Frame, Vec<u8>) {
    let seed = header(None).seed();
    let (body, body_len) = body();
    let frame = Frame {
        kind: FrameKind::Data,
        body_len,
        body_crc: seed.body_crc(&[&body]),
        lsn: Lsn(512 * 11),
        durable_lsn: Lsn(512 * 10),
        first_seq: Seq(101),
        entry_count: 3,
        epoch: Epoch(7),
        wall_ns: 1_700_000_000_000_000_002,
        prev_crc: 0x0102_0304,
    };
    let mut bytes = frame.encode(seed).0.to_vec();
    bytes.extend_from_slice(&body);
    (frame, bytes)
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
fn control_slot_has_its_golden_bytes() {
    let bytes = control().encode();
    assert_eq!(bytes.len(), SECTOR as usize);
    golden("control.bin", &bytes);
    assert_eq!(Control::decode(&bytes), Ok(control()));
}

#[test]
fn segment_headers_have_their_golden_bytes() {
    let plain = header(None);
    golden("segment.bin", &plain.encode());
    assert_eq!(Header::decode(&plain.encode()), Ok(plain));
    let opener = header(Some(epoch_start()));
    golden("opening-segment.bin", &opener.encode());
    assert_eq!(Header::decode(&opener.encode()), Ok(opener));
}

#[test]
fn frame_has_its_golden_bytes() {
    let (frame, bytes) = frame();
    golden("frame.bin", &bytes);
    let (decoded, _) = Frame::decode(&bytes, header(None).seed(), Epoch(7), SECTOR).unwrap();
    assert_eq!(decoded, frame);
    let entries: Vec<_> = Entries::new(&frame, &bytes[64..]).collect::<Result<_, _>>().unwrap();
    let seen: Vec<_> = entries.iter().map(|e| (e.lsn.0, e.seq.0, e.kind, e.payload)).collect();
    let start = 512 * 11 + 64;
    assert_eq!(
        seen,
        [
            (start, 101, 1, &b"first"[..]),
            (start + 16, 102, 2, b""),
            (start + 24, 103, 0xFEFF, b"the third entry"),
        ]
    );
}

#[test]
fn no_single_bit_flip_of_a_header_passes() {
    let seed = header(None).seed();
    let (_, frame) = frame();
    type Check<'a> = &'a dyn Fn(&[u8]) -> bool;
    let opener = header(Some(epoch_start())).encode();
    let cases: [(&str, Vec<u8>, Check<'_>); 4] = [
        ("control", control().encode(), &|b| Control::decode(b).is_ok()),
        ("segment", header(None).encode(), &|b| Header::decode(b).is_ok()),
        ("opening segment", opener, &|b| Header::decode(b).is_ok()),
        ("frame", frame[..64].to_vec(), &|b| Frame::decode(b, seed, Epoch(7), SECTOR).is_ok()),
    ];
    for (name, bytes, passes) in cases {
        assert!(passes(&bytes), "{name}");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!passes(&damaged), "{name}: bit {bit}");
        }
    }
}

#[test]
fn no_truncated_header_passes_or_panics() {
    let seed = header(None).seed();
    let (slot, plain, (_, frame)) = (control().encode(), header(None).encode(), frame());
    for len in 0..SECTOR as usize {
        assert!(Control::decode(&slot[..len]).is_err());
        assert!(Header::decode(&plain[..len]).is_err());
    }
    for len in 0..64 {
        assert!(Frame::decode(&frame[..len], seed, Epoch(7), SECTOR).is_err());
    }
}

#[test]
fn frame_of_another_place_does_not_pass() {
    let (_, bytes) = frame();
    let here = header(None);
    let elsewhere = [
        Header { log_id: LogId([9; 16]), ..here.clone() },
        Header { number: SegmentNumber(5), ..here.clone() },
        Header { epoch: Epoch(8), ..here.clone() },
        Header { nonce: 1, ..here },
    ];
    for header in elsewhere {
        let decoded = Frame::decode(&bytes, header.seed(), Epoch(7), SECTOR);
        assert_eq!(decoded, Err(FormatError::Crc));
    }
}

#[test]
fn newer_version_and_unknown_features_are_told_apart_from_damage() {
    // Byte offsets of version and of the incompatible features in CONTROL.
    for (offset, expected) in [(12, FormatError::Version(9)), (48, FormatError::Features(9))] {
        let mut bytes = control().encode();
        bytes[offset] = 9;
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Control::decode(&bytes), Err(expected));
    }
    // Of a segment's header: its version, a flag, its checksum.
    let cases = [
        (12, FormatError::Version(9)),
        (16, FormatError::Reserved),
        (20, FormatError::Field("checksum")),
    ];
    for (offset, expected) in cases {
        let mut bytes = header(None).encode();
        bytes[offset] = 9;
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(expected));
    }
}

#[test]
fn one_byte_of_any_number_is_enough_not_to_be_all_zero() {
    for len in 0..40 {
        let zeros = vec![0; len];
        assert!(all_zero(&zeros), "{len}");
        for at in 0..len {
            let mut bytes = zeros.clone();
            bytes[at] = 1;
            assert!(!all_zero(&bytes), "byte {at} of {len}");
        }
    }
}

#[test]
fn opening_header_keeps_the_newest_cuts_that_fit() {
    let truncations: Vec<Truncation> = (1..=100)
        .map(|epoch| Truncation { epoch: Epoch(epoch), truncated_at: Lsn(512 * u64::from(epoch)) })
        .collect();
    let bytes =
        header(Some(EpochStart { truncations: truncations.clone(), ..epoch_start() })).encode();
    let kept = Header::decode(&bytes).unwrap().epoch_start.unwrap().truncations;
    assert_eq!(kept, truncations[100 - max_truncations(SECTOR)..]);
}

#[test]
fn entries_that_do_not_fill_their_body_are_refused() {
    let (frame, bytes) = frame();
    let body = &bytes[64..];
    for entry_count in [0, 2, 4] {
        let frame = Frame { entry_count, ..frame };
        assert!(Entries::new(&frame, body).any(|entry| entry.is_err()), "{entry_count}");
    }
    // A length that reaches past the body, and one that overflows 32 bits when padded.
    for len in [1000_u32, u32::MAX] {
        let mut body = body.to_vec();
        body[..4].copy_from_slice(&len.to_le_bytes());
        let mut entries = Entries::new(&frame, &body);
        assert!(matches!(entries.next(), Some(Err(FormatError::Field("entry length")))));
        assert_eq!(entries.next(), None);
    }
    assert_eq!(entry_len(0), 8);
}

#[test]
fn entry_with_flags_or_with_padding_that_is_not_zero_is_refused() {
    let (frame, bytes) = frame();
    // The first entry's flags, and what pads its five bytes.
    for at in [6, 7, 13, 14, 15] {
        let mut body = bytes[64..].to_vec();
        body[at] = 1;
        let mut entries = Entries::new(&frame, &body);
        assert_eq!(entries.next(), Some(Err(FormatError::Reserved)), "byte {at}");
    }
}

/// The structure's bytes with one that is no zero, and a CRC that fits.
fn with_a_byte(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] = 1;
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn control_out_of_its_range_is_refused_by_field_and_its_edges_pass() {
    let max = MAX_START;
    let counter = |counter| Control { counter, ..control() };
    let mark = |segment, lsn, seq| {
        let (segment, lsn, seq) = (SegmentNumber(segment), Lsn(lsn), Seq(seq));
        Control { low_water: LowWater { segment, lsn, seq, ..control().low_water }, ..control() }
    };
    for passes in [counter(max), mark(max, 512, 1), mark(1, max, 1), mark(1, 0, max)] {
        assert_eq!(Control::decode(&passes.encode()), Ok(passes));
    }
    let refused = [
        (counter(max + 1), "counter"),
        (mark(0, 512, 1), "low-water mark"),
        (mark(max + 1, 512, 1), "low-water mark"),
        (mark(1, 512, 0), "low-water mark"),
        (mark(1, 512, max + 1), "low-water mark"),
        (Control { epoch: Epoch(0), ..control() }, "low-water mark"),
        (mark(1, 511, 1), "low-water LSN"),
        (mark(1, max + 512, 1), "low-water LSN"),
    ];
    for (control, field) in refused {
        assert_eq!(Control::decode(&control.encode()), Err(FormatError::Field(field)));
    }
    // Its last field, and the rest of the sector.
    for at in 156..SECTOR as usize {
        let reserved = with_a_byte(control().encode(), at);
        assert_eq!(Control::decode(&reserved), Err(FormatError::Reserved), "byte {at}");
    }
}

#[test]
fn header_out_of_its_range_is_refused_by_field_and_its_edges_pass() {
    let max = MAX_START;
    let number = |number| Header { number: SegmentNumber(number), ..header(None) };
    let opens = |base, truncated_at, first_seq| {
        let (base, truncated_at, first_seq) = (Lsn(base), Lsn(truncated_at), Seq(first_seq));
        let replaces_from = base;
        header(Some(EpochStart { base, truncated_at, first_seq, replaces_from, ..epoch_start() }))
    };
    for passes in [number(max), opens(512, 512, 1), opens(0, max, 1), opens(0, 0, max)] {
        assert_eq!(Header::decode(&passes.encode()), Ok(passes));
    }
    let elsewhere = EpochStart { replaces_from: Lsn(0), ..epoch_start() };
    let refused = [
        (number(0), "number or epoch"),
        (number(max + 1), "number or epoch"),
        (Header { epoch: Epoch(0), ..header(None) }, "number or epoch"),
        (opens(511, 1024, 1), "base or truncation point"),
        (opens(512, 1023, 1), "base or truncation point"),
        (opens(1024, 512, 1), "base or truncation point"),
        (opens(512, max + 512, 1), "base or first Seq"),
        (opens(512, 512, max + 1), "base or first Seq"),
        (opens(512, 512, 0), "replaces_from or first Seq"),
        (header(Some(elsewhere)), "replaces_from or first Seq"),
    ];
    for (header, field) in refused {
        assert_eq!(Header::decode(&header.encode()), Err(FormatError::Field(field)));
    }
    // The last field, or what follows the truncations, and the rest of the sector.
    let truncations = 96 + 32 + 16 * epoch_start().truncations.len();
    for (epoch_start, reserved) in [(None, 84), (Some(epoch_start()), truncations)] {
        for at in reserved..SECTOR as usize {
            let bytes = with_a_byte(header(epoch_start.clone()).encode(), at);
            assert_eq!(Header::decode(&bytes), Err(FormatError::Reserved), "byte {at}");
        }
    }
}

#[test]
fn frame_out_of_its_range_is_refused_by_field_and_its_edges_pass() {
    let seed = header(None).seed();
    let decode = |frame: Frame| {
        let decoded = Frame::decode(&frame.encode(seed).0, seed, Epoch(7), SECTOR);
        decoded.map(|(frame, _)| frame)
    };
    let at = |lsn, durable_lsn| Frame { lsn: Lsn(lsn), durable_lsn: Lsn(durable_lsn), ..frame().0 };
    let first = |seq| Frame { first_seq: Seq(seq), ..frame().0 };
    let holds = |body_len, entry_count| Frame { body_len, entry_count, ..frame().0 };
    let empty = |kind| Frame { kind, durable_lsn: Lsn(512 * 11), ..holds(0, 0) };
    let last_lsn = (u64::MAX - 2 * MAX_FRAME_LEN) / 512 * 512;
    let last_seq = u64::MAX - u64::from(u32::MAX);
    let longest = u32::try_from(MAX_FRAME_LEN - FRAME_HEADER_LEN).unwrap();
    let kinds = [FrameKind::DurableMark, FrameKind::SegmentEnd, FrameKind::CleanShutdown];
    let edges = [
        at(last_lsn, last_lsn),
        at(512, 0),
        first(1),
        first(last_seq),
        holds(8, 1),
        holds(longest, longest / 8),
    ];
    for passes in edges.into_iter().chain(kinds.map(empty)) {
        assert_eq!(decode(passes), Ok(passes));
    }
    let refused = [
        (at(512, 1024), "durable LSN"),
        (at(512, 1), "durable LSN"),
        (at(513, 512), "lsn"),
        (at(last_lsn + 512, 0), "lsn"),
        (first(0), "first Seq"),
        (first(last_seq + 1), "first Seq"),
        (holds(0, 0), "body length or entry count"),
        (holds(12, 1), "body length or entry count"),
        (holds(longest + 8, 1), "body length or entry count"),
        (holds(16, 3), "body length or entry count"),
        (Frame { body_len: 8, ..empty(FrameKind::DurableMark) }, "body length or entry count"),
        (Frame { entry_count: 1, ..empty(FrameKind::CleanShutdown) }, "body length or entry count"),
        (Frame { durable_lsn: Lsn(512), ..empty(FrameKind::SegmentEnd) }, "durable LSN"),
    ];
    for (frame, field) in refused {
        assert_eq!(decode(frame), Err(FormatError::Field(field)), "{frame:?}");
    }
}

#[test]
fn frame_takes_whole_sectors_and_a_rotated_seal_no_positions() {
    let lens = |frame: Frame| (frame.disk_len(SECTOR), frame.end(SECTOR).distance_from(frame.lsn));
    assert_eq!(lens(Frame { body_len: 512 - 64, ..frame().0 }), (512, 512));
    assert_eq!(lens(Frame { body_len: 512 - 56, ..frame().0 }), (1024, 1024));
    for (kind, len) in
        [(FrameKind::DurableMark, 512), (FrameKind::CleanShutdown, 512), (FrameKind::SegmentEnd, 0)]
    {
        assert_eq!(lens(Frame { kind, body_len: 0, entry_count: 0, ..frame().0 }), (512, len));
    }
}

#[test]
fn sectors_and_slots_have_their_sizes() {
    let valid: Vec<u32> = (0..=20).map(|bits| 1 << bits).filter(|s| is_valid_sector(*s)).collect();
    assert_eq!(valid, [512, 1024, 2048, 4096, 8192, 16_384]);
    assert!(!is_valid_sector(768) && !is_valid_sector(0));
    assert_eq!([4, 5].map(Control::slot_offset), [0, 16_384]);
    assert_eq!((CONTROL_LEN, MAX_FRAME_LEN), (32_768, 67_108_864));
}

quickcheck::quickcheck! {
    /// Arbitrary bytes are refused without a panic, whatever they are.
    fn arbitrary_bytes_never_pass_and_never_panic(bytes: Vec<u8>) -> bool {
        let (frame, _) = frame();
        let _ = Entries::new(&frame, &bytes).count();
        Control::decode(&bytes).is_err()
            && Header::decode(&bytes).is_err()
            && Frame::decode(&bytes, header(None).seed(), Epoch(7), SECTOR).is_err()
    }
}
