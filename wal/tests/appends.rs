//! What appends take and return: payloads in pieces, batches, owned receipts, and a close
//! while others have the log.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bulla_storage::io::sim::{FaultOp, SimDisk};
use bulla_wal::recovery::Evidence;
use bulla_wal::{EntryStream, Error, Level, Log, Lsn, Options, Position, Receipt, Seq, Visibility};
use bytes::{Buf, Bytes};

use crate::common::DIR;

fn options(disk: &SimDisk) -> Options {
    Options::new().io(disk.process()).sector(512).segment_len(64 * 1024).ring_len(16 * 1024)
}

fn create(disk: &SimDisk) -> Log {
    Log::create(Path::new(DIR), &options(disk).manual()).expect("a new log")
}

/// All entries, once they are durable.
fn entries(log: &Log) -> Vec<(u16, Vec<u8>)> {
    log.sync().expect("a disk that works");
    let mut reader = log.reader(.., Visibility::Durable).expect("a whole log");
    let entries = reader.entries().map(|entry| entry.expect("a whole log"));
    entries.map(|entry| (entry.kind, entry.payload.to_vec())).collect()
}

/// A payload of several slices. Tells as many of them as it is asked for, or only the first.
#[derive(Clone)]
struct Pieces {
    pieces: Vec<Bytes>,
    tells: bool,
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        for piece in &mut self.pieces {
            let here = count.min(piece.len());
            piece.advance(here);
            count -= here;
        }
        assert_eq!(count, 0, "no more than there is");
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let most = if self.tells { slices.len() } else { 1 };
        let pairs = slices.iter_mut().zip(&self.pieces).take(most);
        pairs.map(|(slice, piece)| *slice = std::io::IoSlice::new(piece)).count()
    }
}

#[test]
fn payload_in_pieces_is_appended_as_if_it_were_joined() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    let mut expected = Vec::new();
    // Enough bytes that the ring wraps, inside pieces of every length.
    for round in 0..400_usize {
        let count = round % 40;
        let byte = |at: usize| u8::try_from((round + at) % 251).expect("below 251");
        let piece = |at: usize| Bytes::from(vec![byte(at); (round * 7 + at * 13) % 60]);
        let payload = Pieces { pieces: (0..count).map(piece).collect(), tells: round % 3 != 0 };
        let joined = payload.clone().copy_to_bytes(payload.remaining());
        let mut rest = payload;
        let receipt = log.append_buf(3, &mut rest, Level::Strict).unwrap();
        assert_eq!(rest.remaining(), 0, "it was taken whole");
        log.wait(receipt).unwrap();
        expected.push((3, joined.to_vec()));
    }
    assert!(log.end() > Lsn(3 * 16 * 1024), "the ring wrapped");
    assert_eq!(entries(&log), expected);
}

#[test]
fn payload_in_pieces_is_refused_as_one_slice_is() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    let max = usize::try_from(log.max_entry_len()).unwrap();
    let (head, body) = (vec![1; 100], vec![2; max]);
    let (end, mut payload) = (log.end(), head.chain(&body[..]));
    let error = log.append_buf(1, &mut payload, Level::Strict).unwrap_err();
    let whole = log.append(&vec![0; max + 100]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
    assert_eq!(error.to_string(), whole.to_string());
    assert_eq!(payload.remaining(), max + 100, "nothing was taken");
    let error = log.append_buf(0xFF00, &b"x"[..], Level::Strict).unwrap_err();
    assert!(matches!(error, Error::ReservedKind(0xFF00)), "{error}");
    assert_eq!(log.end(), end);
    let receipt = log.append_buf(1, (&body[..100]).chain(&body[100..]), Level::Strict).unwrap();
    assert_eq!(receipt.seq.0, 1);
}

#[test]
fn every_entry_of_a_batch_has_the_receipt_under_which_it_is_read() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    let _ = log.append(b"before").unwrap();
    for count in 1..20_u8 {
        let payloads: Vec<Vec<u8>> = (0..count).map(|n| vec![n; usize::from(n) * 5]).collect();
        let batch: Vec<(u16, &[u8])> = payloads.iter().map(|bytes| (1, &bytes[..])).collect();
        let appended = log.append_batch(&batch, Level::Strict).unwrap();
        log.wait(appended.last()).unwrap();
        let receipts: Vec<Receipt> = appended.receipts().collect();
        assert_eq!((receipts.len(), appended.receipts().len()), (batch.len(), batch.len()));
        assert_eq!(receipts.last(), Some(&appended.last()));
        let mut reader = log.reader(.., Visibility::Durable).unwrap();
        for (receipt, payload) in receipts.iter().zip(&payloads) {
            let entry = reader.read(receipt.epoch, receipt.lsn).unwrap().expect("durable");
            assert_eq!((entry.seq, entry.payload), (receipt.seq, &payload[..]));
            assert!(log.is_ready(*receipt).unwrap());
        }
    }
}

/// Unparks a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(Duration::from_secs(60)),
        }
    }
}

#[test]
fn owned_receipt_is_waited_for_by_a_thread_that_has_nothing_else_of_the_log() {
    let disk = SimDisk::new(1);
    let log = Arc::new(Log::create(Path::new(DIR), &options(&disk)).unwrap());
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let ready = log.ready_owned(receipt);
    assert_eq!(ready.receipt(), receipt);
    let watching = Arc::downgrade(&log);
    drop(log);
    thread::spawn(move || block_on(ready)).join().unwrap().unwrap();
    assert!(watching.upgrade().is_none(), "the last handle was the future's");
}

#[test]
fn close_by_one_of_many_handles_makes_all_durable_and_lets_go_of_the_lock() {
    let disk = SimDisk::new(1);
    let log = Arc::new(create(&disk));
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let mut reader = log.reader(.., Visibility::Durable).unwrap();
    Arc::clone(&log).close().unwrap();
    assert!(log.is_ready(receipt).unwrap());
    log.wait(receipt).unwrap();
    log.sync().unwrap();
    log.close().unwrap();
    assert!(matches!(log.append(b"another"), Err(Error::Closed)));
    assert!(matches!(log.append_buf(1, &b"one"[..], Level::Strict), Err(Error::Closed)));
    assert!(matches!(log.purge(Lsn::MAX), Err(Error::Closed)));
    assert!(!log.step(), "there is nothing to do");
    assert_eq!(reader.next().unwrap().unwrap().payload, b"entry");
    assert!(matches!(reader.wait_next(Duration::from_secs(60)), Err(Error::Closed)));
    // Another writer has it while the old handles are there.
    let (recovered, report) = bulla_wal::recovery::open(Path::new(DIR), &options(&disk)).unwrap();
    let closed = |evidence: &Evidence| matches!(evidence, Evidence::Closed { .. });
    assert!(report.evidence.iter().any(closed), "{report:?}");
    let other = Log::start(recovered).unwrap();
    let _ = other.append(b"another").unwrap();
    drop(log);
    assert_eq!(entries(&other).len(), 2);
}

#[test]
fn close_ends_every_thread_that_waits_or_appends() {
    let disk = SimDisk::new(1);
    let log = Arc::new(Log::create(Path::new(DIR), &options(&disk)).unwrap());
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut last = None;
                loop {
                    match log.append_with(1, &[7; 700], Level::Strict) {
                        Ok(receipt) => last = Some(receipt),
                        Err(Error::Closed) => return last,
                        Err(error) => panic!("{error}"),
                    }
                    log.wait(last.unwrap()).unwrap();
                }
            })
        })
        .collect();
    let closers: Vec<_> = (0..2)
        .map(|_| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                log.close().unwrap();
            })
        })
        .collect();
    closers.into_iter().for_each(|closer| closer.join().unwrap());
    let appended: Vec<Receipt> = writers.into_iter().filter_map(|w| w.join().unwrap()).collect();
    assert!(!appended.is_empty());
    for receipt in appended {
        assert!(log.is_ready(receipt).unwrap());
    }
    let options = options(&disk);
    let (_, report) = bulla_wal::recovery::open(Path::new(DIR), &options).unwrap();
    assert_eq!(report.entries, log.stats().entries);
}

#[test]
fn close_of_a_poisoned_log_says_so_each_time_and_lets_go_of_the_lock() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    // Makes the spare segment, too: what is written next is a frame.
    log.wait(log.append_with(1, b"entry", Level::Strict).unwrap()).unwrap();
    while log.step() {}
    disk.fail_next(FaultOp::Write, std::io::ErrorKind::Other, "", 0);
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    log.wait(receipt).unwrap_err();
    for _ in 0..2 {
        assert!(matches!(log.close(), Err(Error::Poisoned { .. })));
    }
    assert!(matches!(log.append(b"another"), Err(Error::Poisoned { .. })));
    bulla_wal::recovery::open(Path::new(DIR), &options(&disk)).unwrap();
}

#[test]
fn stream_is_woken_by_the_log_and_ends_with_its_range_or_the_log() {
    let disk = SimDisk::new(1);
    let log = Log::create(Path::new(DIR), &options(&disk)).unwrap();
    let next = |stream: &mut EntryStream| block_on(poll_fn(|context| stream.poll_entry(context)));
    for visibility in [Visibility::Durable, Visibility::Written] {
        let first = log.stats().entries + 1;
        let mut stream = log.stream(Seq(first).., visibility).unwrap();
        let mut bounded = log.stream(Seq(first)..Seq(first + 20), visibility).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..40 {
                    thread::sleep(Duration::from_millis(if number % 8 == 0 { 20 } else { 0 }));
                    // The clock of the simulated disk stands still: no time bound writes it.
                    let receipt = log.append_with(1, &[number; 300], Level::Strict).unwrap();
                    log.wait(receipt).unwrap();
                }
            });
            for number in 0..40_u8 {
                let entry = next(&mut stream).expect("the log is open").unwrap();
                assert_eq!(
                    (entry.seq.0, &entry.payload[..]),
                    (first + u64::from(number), &[number; 300][..])
                );
            }
            for number in 0..20 {
                assert_eq!(next(&mut bounded).unwrap().unwrap().seq.0, first + number);
            }
            assert!(next(&mut bounded).is_none());
            assert!(bounded.has_ended());
        });
    }
    let mut stream = log.stream(Position::End, Visibility::Durable).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let last = next(&mut stream).map(|entry| entry.unwrap().payload);
            (last, next(&mut stream).is_none())
        });
        thread::sleep(Duration::from_millis(50));
        let _ = log.append(b"the last").unwrap();
        log.close().unwrap();
        assert_eq!(reader.join().unwrap(), (Some(Bytes::from_static(b"the last")), true));
    });
    assert!(stream.into_reader().next().unwrap().is_none());
}

#[test]
fn stream_of_a_poisoned_log_is_woken_and_says_so_once() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    log.wait(log.append_with(1, b"entry", Level::Strict).unwrap()).unwrap();
    while log.step() {}
    let mut stream = log.stream(Position::End, Visibility::Durable).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(stream.poll_entry(&mut context).is_pending());
    assert!(stream.poll_entry(&mut context).is_pending());
    disk.fail_next(FaultOp::Write, std::io::ErrorKind::Other, "", 0);
    log.wait(log.append_with(1, b"lost", Level::Strict).unwrap()).unwrap_err();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "once, however often it was polled");
    let Poll::Ready(Some(Err(error))) = stream.poll_entry(&mut context) else { panic!("an error") };
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert!(matches!(stream.poll_entry(&mut context), Poll::Ready(None)));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
