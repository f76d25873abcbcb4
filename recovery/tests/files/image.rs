//! Log images made by hand from the format alone: what the log would write, with the
//! place of every frame known, so that a test can say independently what must follow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulla_storage::files::dir;
use bulla_storage::format::{
    CONTROL_LEN, Content, Control, ENTRY_ALIGN, EpochStart, FRAME_HEADER_LEN, Frame, FrameKind,
    Header, LogId, LowWater, Truncation, align_up,
};
use bulla_storage::io::sim::SimDisk;
use bulla_storage::{Epoch, Lsn, Options, SegmentNumber, Seq};

/// Where the logs are on the simulated disk.
pub(crate) const DIR: &str = "/log";

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Bytes on disk.
    pub(crate) len: u64,
    pub(crate) lsn: Lsn,
    pub(crate) durable_lsn: Lsn,
    pub(crate) kind: FrameKind,
    pub(crate) entries: u64,
    pub(crate) epoch: u32,
}

impl At {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    pub(crate) fn lsn_end(&self) -> Lsn {
        match self.kind {
            FrameKind::SegmentEnd => self.lsn,
            _ => self.lsn.plus(self.len),
        }
    }
}

/// A log that is being made.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) sector: u32,
    pub(crate) log_id: LogId,
    pub(crate) low_water: LowWater,
    pub(crate) headers: BTreeMap<u64, Header>,
    pub(crate) files: BTreeMap<u64, Vec<u8>>,
    pub(crate) frames: Vec<At>,
    /// Payloads by Seq.
    pub(crate) payloads: BTreeMap<u64, Vec<u8>>,
    pub(crate) lsn: Lsn,
    pub(crate) seq: Seq,
    pub(crate) prev_crc: u32,
    /// The durable mark of frames from now on.
    pub(crate) durable: Lsn,
    pub(crate) epoch: u32,
    segment: u64,
    base: Lsn,
    wall_ns: u64,
}

pub(crate) const SEGMENT_LEN: u64 = 16 * 1024;

fn nonce(epoch: u32) -> u64 {
    0xABCD_EF00 + u64::from(epoch)
}

impl Image {
    /// A log of one empty segment.
    pub(crate) fn new(sector: u32) -> Self {
        let mut image = Self {
            sector,
            log_id: LogId([7; 16]),
            low_water: LowWater::START,
            headers: BTreeMap::new(),
            files: BTreeMap::new(),
            frames: Vec::new(),
            payloads: BTreeMap::new(),
            lsn: Lsn(0),
            seq: Seq(1),
            prev_crc: 0,
            durable: Lsn(0),
            epoch: 1,
            segment: 0,
            base: Lsn(0),
            wall_ns: 1_000,
        };
        image.add_segment(Some(EpochStart {
            base: Lsn(0),
            first_seq: Seq(1),
            replaces_from: Lsn(0),
            truncated_at: Lsn(0),
            truncations: Vec::new(),
        }));
        image
    }

    fn add_segment(&mut self, epoch_start: Option<EpochStart>) {
        let previous = self.headers.get(&self.segment).map_or(0, |header| header.nonce);
        self.segment += 1;
        self.base = epoch_start.as_ref().map_or(self.lsn, |epoch_start| epoch_start.base);
        let header = Header {
            log_id: self.log_id,
            number: SegmentNumber(self.segment),
            epoch: Epoch(self.epoch),
            nonce: nonce(self.epoch),
            previous_nonce: previous,
            sector: self.sector,
            wall_ns: 5,
            epoch_start,
        };
        let mut bytes = header.encode();
        bytes.resize(SEGMENT_LEN as usize, 0);
        self.files.insert(self.segment, bytes);
        self.headers.insert(self.segment, header);
    }

    /// Wall time of the last frame.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.wall_ns
    }

    /// Sets the clock that the next frames are sealed by.
    pub(crate) fn set_clock(&mut self, wall_ns: u64) -> &mut Self {
        self.wall_ns = wall_ns;
        self
    }

    /// Goes on in a new segment of the same epoch.
    pub(crate) fn rotate(&mut self) -> &mut Self {
        self.add_segment(None);
        self
    }

    /// A segment made ahead, not gone on in.
    pub(crate) fn spare(&mut self) -> &mut Self {
        let (segment, base) = (self.segment, self.base);
        self.add_segment(None);
        (self.segment, self.base) = (segment, base);
        self
    }

    /// Ends the current segment with a seal.
    pub(crate) fn seal(&mut self) -> &mut Self {
        self.durable = self.lsn;
        self.put(FrameKind::SegmentEnd, &[])
    }

    /// Everything so far is durable, and frames from now on say so.
    pub(crate) fn sync(&mut self) -> &mut Self {
        self.durable = self.lsn;
        self
    }

    /// A frame of entries of these lengths.
    pub(crate) fn frame(&mut self, lens: &[usize]) -> &mut Self {
        self.put(FrameKind::Data, lens)
    }

    /// An idle mark.
    pub(crate) fn durable_lsn(&mut self) -> &mut Self {
        self.durable = self.lsn;
        self.put(FrameKind::DurableMark, &[])
    }

    /// The seal of a closed log.
    pub(crate) fn close(&mut self) -> &mut Self {
        self.durable = self.lsn;
        self.put(FrameKind::CleanShutdown, &[])
    }

    /// What a recovery does that found D at `durable` and X at the end: a new epoch with
    /// the tail copied, older segments trimmed.
    pub(crate) fn reopen(&mut self, durable: Lsn) -> &mut Self {
        let x = self.lsn;
        let tail: Vec<At> = self
            .frames
            .iter()
            .filter(|at| at.lsn >= durable && at.kind != FrameKind::SegmentEnd)
            .copied()
            .collect();
        let old = self.clone();
        self.frames.retain(|at| at.lsn < durable);
        for (number, bytes) in &mut self.files {
            let keep = self.frames.iter().filter(|at| at.segment == *number).map(At::end).max();
            bytes.truncate(keep.unwrap_or(u64::from(self.sector)) as usize);
        }
        let first = tail.first().map(|at| old.decode(at));
        self.prev_crc = first.map_or(old.prev_crc, |first| first.prev_crc);
        self.seq = first.map_or(old.seq, |first| first.first_seq);
        self.lsn = durable;
        self.durable = durable;
        self.epoch += 1;
        self.add_segment(Some(EpochStart {
            base: durable,
            first_seq: self.seq,
            replaces_from: durable,
            truncated_at: x,
            truncations: Vec::<Truncation>::new(),
        }));
        for at in tail {
            let frame = old.decode(&at);
            let body =
                &old.files[&at.segment][(at.offset + FRAME_HEADER_LEN) as usize..at.end() as usize];
            let kind =
                if at.kind == FrameKind::CleanShutdown { FrameKind::DurableMark } else { at.kind };
            self.write(kind, body, frame.body_len, frame.entry_count);
        }
        self.durable = x;
        self
    }

    pub(crate) fn decode(&self, at: &At) -> Frame {
        let header = &self.headers[&at.segment];
        let bytes = &self.files[&at.segment][at.offset as usize..];
        Frame::decode(bytes, header.seed(), header.epoch, self.sector).expect("our own frame").0
    }

    fn put(&mut self, kind: FrameKind, lens: &[usize]) -> &mut Self {
        let mut body = Vec::new();
        for (index, len) in lens.iter().enumerate() {
            let seq = self.seq.0 + index as u64;
            let payload: Vec<u8> = (0..*len).map(|at| (seq as usize * 31 + at) as u8).collect();
            self.payloads.insert(seq, payload.clone());
            body.extend_from_slice(entry_header(*len).as_slice());
            body.extend_from_slice(&payload);
            body.resize(align_up(body.len() as u64, ENTRY_ALIGN) as usize, 0);
        }
        let body_len = u32::try_from(body.len()).expect("small");
        let len = align_up(FRAME_HEADER_LEN + u64::from(body_len), u64::from(self.sector));
        body.resize((len - FRAME_HEADER_LEN) as usize, 0);
        self.write(kind, &body, body_len, u32::try_from(lens.len()).expect("small"));
        self
    }

    /// Writes a frame with a body made by the caller, padding included.
    pub(crate) fn write(&mut self, kind: FrameKind, body: &[u8], body_len: u32, entry_count: u32) {
        let seed = self.headers[&self.segment].seed();
        self.wall_ns += 10;
        let frame = Frame {
            kind,
            body_len,
            body_crc: seed.body_crc(&[body]),
            lsn: self.lsn,
            durable_lsn: self.durable,
            first_seq: self.seq,
            entry_count,
            epoch: Epoch(self.epoch),
            wall_ns: self.wall_ns,
            prev_crc: self.prev_crc,
        };
        let (header, crc) = frame.encode(seed);
        let offset = u64::from(self.sector) + self.lsn.distance_from(self.base);
        let len = FRAME_HEADER_LEN + body.len() as u64;
        let file = self.files.get_mut(&self.segment).expect("made before");
        assert!(offset + len <= file.len() as u64, "the image's segment is full");
        file[offset as usize..][..64].copy_from_slice(&header);
        file[offset as usize + 64..][..body.len()].copy_from_slice(body);
        let at = At {
            segment: self.segment,
            offset,
            len,
            lsn: self.lsn,
            durable_lsn: self.durable,
            kind,
            entries: u64::from(entry_count),
            epoch: self.epoch,
        };
        self.frames.push(at);
        self.lsn = at.lsn_end();
        self.seq = Seq(self.seq.0 + u64::from(entry_count));
        if !kind.is_seal() {
            self.prev_crc = crc;
        }
    }

    /// CONTROL of this log: the older slot is of the epoch before.
    pub(crate) fn control(&self) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_LEN as usize];
        for age in [1, 0] {
            let counter = u64::from(self.epoch) + 1 - age;
            let epoch = u32::try_from(u64::from(self.epoch) - age).expect("small").max(1);
            let control = Control {
                counter,
                log_id: self.log_id,
                sector: self.sector,
                epoch: Epoch(epoch),
                nonce: nonce(epoch),
                compatible: 0,
                low_water: self.low_water,
                content: Content::PLAIN,
            };
            let at = Control::slot_offset(counter) as usize;
            let slot = control.encode();
            bytes[at..at + slot.len()].copy_from_slice(&slot);
        }
        bytes
    }

    /// Offset of CONTROL's newest slot.
    pub(crate) fn newest_slot(&self) -> u64 {
        Control::slot_offset(u64::from(self.epoch) + 1)
    }

    /// A disk with this log.
    pub(crate) fn disk(&self) -> SimDisk {
        let disk = SimDisk::new(1);
        self.store(&disk);
        disk
    }

    pub(crate) fn store(&self, disk: &SimDisk) {
        disk.write_file(Path::new(DIR).join("CONTROL"), &self.control());
        for (number, bytes) in &self.files {
            disk.write_file(segment(*number), bytes);
        }
    }
}

fn entry_header(len: usize) -> Vec<u8> {
    // Length, kind 5, no flags.
    let mut header = u32::try_from(len).expect("small").to_le_bytes().to_vec();
    header.extend_from_slice(&5_u16.to_le_bytes());
    header.extend_from_slice(&[0; 2]);
    header
}

pub(crate) fn segment(number: u64) -> PathBuf {
    dir::segment_path(Path::new(DIR), SegmentNumber(number))
}

pub(crate) fn options(disk: &SimDisk) -> Options {
    Options::simulated(disk).segment_len(SEGMENT_LEN)
}

/// All files but the lock's, which any writer leaves behind.
pub(crate) fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = disk.paths().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), disk.read_file(&path))).collect()
}
