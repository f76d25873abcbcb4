//! A real store in a real process that kills itself by SIGKILL: in a checkpoint, in the purge
//! after it, and while it reclaims.
//!
//! The child counts the operations on the disk that belong to what it is to be killed in, and
//! ends itself at one of them. Each of its clients puts ever higher numbers into records of
//! its own, and tells on standard output what was acknowledged. The parent opens the store
//! after each kill: each record must be what was acknowledged last, or what was begun after
//! that, and records that are never reclaimed must be there.

use std::fs::File as PipeFile;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulla_engine::{
    CheckpointError, Error, Flags, Level, OnExceed, Quota, Store, StoreOptions, Token, TokenId,
};
use bulla_storage::io::std::StdIo;
use bulla_storage::io::{Access, Dir, DirEntry, File, Io, Lock, Queue};
use bulla_wal::Options;

use crate::layer::{Layer, Layered};
use crate::rng::Rng;

/// Threads that put records.
const CLIENTS: u32 = 3;
/// Records of each.
const RECORDS: u32 = 200;
/// A child that was not killed by then is stuck.
const TIMEOUT_NS: u64 = 60_000_000_000;

/// In what the child is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum During {
    /// Writing, syncing or naming a checkpoint.
    Checkpoint,
    /// Moving the low-water mark, removing segments and older checkpoints.
    Purge,
    /// Deleting records to make room, with checkpoints meanwhile.
    Reclaim,
}

impl During {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Checkpoint, Self::Purge, Self::Reclaim];

    /// Its name as an argument.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Purge => "purge",
            Self::Reclaim => "reclaim",
        }
    }

    fn is_at(self, operation: &str, path: &Path) -> bool {
        let path = path.to_string_lossy();
        match self {
            Self::Checkpoint => path.contains("checkpoints") && operation != "unlink",
            Self::Purge => operation == "unlink" || path.ends_with("CONTROL"),
            Self::Reclaim => operation == "write" && path.contains(".seg"),
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Killed {
    pub kills: u64,
    pub acknowledged: u64,
    pub opened_from_checkpoints: u64,
    pub reclaimed: u64,
}

/// Kills children one after the other in a directory, each opening what the one before has left; `child`
/// makes the command that runs [`child()`].
///
/// # Errors
/// The first violation; the directory is left as it is then.
pub fn run(
    dir: &Path,
    during: During,
    kills: u64,
    seed: u64,
    child: impl Fn() -> Command,
) -> Result<Killed, String> {
    let text = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let mut rng = Rng::new(seed);
    let mut killed = Killed::default();
    let mut least = vec![0_u64; (CLIENTS * RECORDS) as usize];
    for kill in 0..kills {
        let after = 1 + rng.below(if during == During::Reclaim { 400 } else { 25 });
        let mut process = child()
            .args([dir.as_os_str(), during.name().as_ref()])
            .args([after.to_string(), rng.bits().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| text(&error))?;
        let mut told = Vec::new();
        if let Some(mut pipe) = process.stdout.take() {
            pipe.read_to_end(&mut told).map_err(|error| text(&error))?;
        }
        let status = process.wait().map_err(|error| text(&error))?;
        if status.signal() != Some(libc::SIGKILL) {
            return Err(format!("kill {kill}: the child ended with {status}"));
        }
        let (mut acked, mut begun) = (least.clone(), least.clone());
        for message in told.as_chunks::<16>().0 {
            let word = |at: usize| {
                let bytes = message.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                u64::from_le_bytes(bytes.unwrap_or_default())
            };
            let (slot, number) = ((word(0) >> 1) as usize, word(8));
            // A record that was reclaimed begins anew: what was told last counts.
            let numbers = if word(0) & 1 == 0 { &mut begun } else { &mut acked };
            if let Some(last) = numbers.get_mut(slot) {
                *last = number;
            }
            killed.acknowledged += word(0) & 1;
        }
        let store = open(dir, during, Arc::new(StdIo::new())).map_err(|error| text(&error))?;
        killed.opened_from_checkpoints += u64::from(store.opened_from().checkpoint.is_some());
        if !store.opened_from().refused.is_empty() {
            return Err(format!("kill {kill}: {}", store.opened_from()));
        }
        for (slot, least) in (0_u32..).zip(&mut least) {
            let found = store.get(TokenId(slot + 1)).map_err(|error| text(&error))?;
            let (told, begun) = (acked[slot as usize], begun[slot as usize]);
            let Some(found) = found else {
                if told > 0 && (during != During::Reclaim || is_persistent(slot)) {
                    return Err(format!("kill {kill}: {slot} is gone, {told} was acknowledged"));
                }
                killed.reclaimed += u64::from(told > 0);
                *least = 0;
                continue;
            };
            let number = number_of(&found);
            if number != told && number != begun {
                return Err(format!("kill {kill}: {slot} is {number}, not {told} or {begun}"));
            }
            *least = number;
        }
        store.close().map_err(|error| text(&error))?;
        killed.kills += 1;
    }
    Ok(killed)
}

fn open(dir: &Path, during: During, io: Arc<dyn Io>) -> Result<Store, bulla_engine::Error> {
    let log = Options::new().io(io).segment_len(64 * 1024).ring_len(64 * 1024);
    let quota = if during == During::Reclaim {
        let max = u64::from(CLIENTS * RECORDS) / 2;
        Quota::new().max_records(max).on_exceed(OnExceed::Evict)
    } else {
        Quota::new()
    };
    let options = StoreOptions::new().log(log).quota(quota);
    Store::open(dir, &options.checkpoint_bytes(Some(100_000)).checkpoint_close_bytes(None))
}

const fn is_persistent(slot: u32) -> bool {
    slot.is_multiple_of(10)
}

pub(crate) fn token(slot: u32, number: u64) -> Token {
    // The number, in 16 bits each of four coordinates.
    let parts = [number, number >> 14, number >> 28].map(|part| (part & 0x3FFF) as f64 / 100.0);
    let flags = if is_persistent(slot) { Flags::PERSISTENT } else { Flags::empty() };
    let token = Token::builder(TokenId(slot + 1)).flags(flags).weight((number % 90) as f32);
    token.coordinates(bulla_engine::Space::Physical, parts).build().expect("in range")
}

pub(crate) fn number_of(token: &Token) -> u64 {
    let parts = token.coordinates(bulla_engine::Space::Physical);
    let [low, middle, high] = parts.map(|part| (part * 100.0).round() as u64);
    low | middle << 14 | high << 28
}

/// What the child does, with the arguments that [`run`] gives; it never returns in peace.
///
/// # Errors
/// What went wrong before it was killed.
pub fn child(args: &[String]) -> Result<(), String> {
    let [dir, during, after, seed] = args else { return Err("four arguments".to_owned()) };
    let during =
        During::ALL.into_iter().find(|known| known.name() == during).ok_or("during what?")?;
    let number = |text: &String| text.parse::<u64>().map_err(|error| error.to_string());
    let (after, seed) = (number(after)?, number(seed)?);
    let fuse = Arc::new(Fuse { during, left: AtomicU64::new(u64::MAX) });
    let io = Arc::new(KillIo { io: StdIo::new(), fuse: Arc::clone(&fuse) });
    let store = open(Path::new(dir), during, io.clone()).map_err(|error| format!("{error:?}"))?;
    // From now on: an open by itself is not what is looked at.
    fuse.left.store(after, Ordering::Relaxed);
    let pipe =
        PipeFile::from(io::stdout().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?);
    let begin = io.now_ns();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (store, pipe) = (&store, &pipe);
            scope.spawn(move || client_runs(store, pipe, client, seed));
        }
        while io.now_ns() - begin < TIMEOUT_NS {
            match store.checkpoint() {
                // The last segment is full to its last sector, and nobody appends right now.
                Ok(_) | Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
                Err(error) => give_up("checkpoint", &error),
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        eprintln!("nothing has killed the child");
        std::process::exit(1);
    })
}

/// Ends the child before it is killed, which its parent takes for a failure.
fn give_up(operation: &str, error: &Error) -> ! {
    eprintln!("a {operation} failed: {error:?}");
    std::process::exit(1)
}

fn client_runs(store: &Store, mut pipe: &PipeFile, client: u32, seed: u64) {
    let mut rng = Rng::new(seed ^ u64::from(client));
    // A write of 16 bytes is taken whole by a pipe.
    let mut tell = |kind: u64, slot: u32, number: u64| {
        let mut message = [0; 16];
        message[..8].copy_from_slice(&(u64::from(slot) << 1 | kind).to_le_bytes());
        message[8..].copy_from_slice(&number.to_le_bytes());
        pipe.write_all(&message).expect("the parent listens");
    };
    loop {
        let slot = client * RECORDS + rng.below(u64::from(RECORDS)) as u32;
        let current = store.get(TokenId(slot + 1)).unwrap_or_else(|error| give_up("read", &error));
        let number = current.map_or(0, |token| number_of(&token)) + 1;
        let level = if rng.one_in(4) { Level::Strict } else { Level::Balanced };
        tell(0, slot, number);
        let put = store.at(level).put(&token(slot, number));
        put.unwrap_or_else(|error| give_up("put", &error));
        tell(1, slot, number);
    }
}

/// Ends the process when enough operations have come.
#[derive(Debug)]
struct Fuse {
    during: During,
    left: AtomicU64,
}

impl Fuse {
    fn burn(&self, operation: &str, path: &Path) {
        if self.during.is_at(operation, path)
            && self.left.load(Ordering::Relaxed) < u64::MAX
            && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

/// The real disk, with a fuse.
#[derive(Debug)]
struct KillIo {
    io: StdIo,
    fuse: Arc<Fuse>,
}

impl Io for KillIo {
    fn name(&self) -> &'static str {
        self.io.name()
    }
    fn is_deterministic(&self) -> bool {
        self.io.is_deterministic()
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.io.create_dir(path)
    }
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let (dir, fuse) = (self.io.open_dir(path)?, Arc::clone(&self.fuse));
        Ok(Arc::new(KillDir { dir, path: path.to_owned(), fuse }))
    }
    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        self.io.queue(depth)
    }
    fn now_ns(&self) -> u64 {
        self.io.now_ns()
    }
    fn wall_ns(&self) -> u64 {
        self.io.wall_ns()
    }
    fn sleep_ns(&self, ns: u64) {
        self.io.sleep_ns(ns);
    }
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.io.random(bytes)
    }
}

#[derive(Debug)]
struct KillDir {
    dir: Arc<dyn Dir>,
    path: PathBuf,
    fuse: Arc<Fuse>,
}

impl KillDir {
    fn burn(&self, operation: &str, name: &str) {
        self.fuse.burn(operation, &self.path.join(name));
    }

    fn wrap(&self, name: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        let (path, fuse) = (self.path.join(name), Arc::clone(&self.fuse));
        Arc::new(Layered(KillFile { file, path, fuse }))
    }
}

impl Dir for KillDir {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.dir.create_dir(name)
    }
    fn open_dir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let (dir, path) = (self.dir.open_dir(name)?, self.path.join(name));
        Ok(Arc::new(Self { dir, path, fuse: Arc::clone(&self.fuse) }))
    }
    fn list(&self) -> io::Result<Vec<DirEntry>> {
        self.dir.list()
    }
    fn sync(&self) -> io::Result<()> {
        self.fuse.burn("sync", &self.path);
        self.dir.sync()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.burn("rename", to);
        self.dir.rename(from, to)
    }
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.burn("rename", to);
        self.dir.rename_new(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.burn("unlink", name);
        self.dir.unlink(name)
    }
    fn create(&self, name: &str, direct: bool) -> io::Result<Arc<dyn File>> {
        self.burn("create", name);
        Ok(self.wrap(name, self.dir.create(name, direct)?))
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(name, self.dir.open(name, access)?))
    }
    fn create_as(&self, name: &str) -> io::Result<()> {
        self.dir.create_as(name)
    }
    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.dir.try_lock(name)
    }
    fn try_lock_file(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        self.dir.try_lock_file(name)
    }
    fn physical_sector(&self) -> Option<u32> {
        self.dir.physical_sector()
    }
}

#[derive(Debug)]
struct KillFile {
    file: Arc<dyn File>,
    path: PathBuf,
    fuse: Arc<Fuse>,
}

impl Layer for KillFile {
    fn file(&self) -> &dyn File {
        &*self.file
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd()
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.fuse.burn("write", &self.path);
        self.file.write_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.fuse.burn("write", &self.path);
        self.file.write_pieces_at(pieces, offset, dsync)
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn("sync", &self.path);
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.burn("write", &self.path);
        self.file.set_len(len)
    }
}
