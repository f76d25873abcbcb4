//! Whatever the files of checkpoints hold, a store opens to what its log says, or says why not.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bulla_engine::{Level, Store, StoreOptions, Token, TokenId};
use bulla_storage::io::sim::SimDisk;
use bulla_wal::Options;

use super::{logs, repair};
use crate::Rng;

const DIR: &str = "/store";
const CHECKPOINTS: &str = "/store/checkpoints";
/// Bytes of a checkpoint's header, with its CRC where CONTROL's is.
const BLOCK: usize = 4096;
/// Changes that one input makes at most.
const MAX_EDITS: usize = 12;
/// Changes of a byte are made below this offset, the others anywhere.
const NEAR: u64 = 0x1_0000;

type Files = Vec<(PathBuf, Vec<u8>)>;

/// How a store with damaged checkpoints was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// It was not opened, or a record could not be read.
    Refused,
    /// All of its records are there.
    Whole,
    /// Its checkpoints say, with a checksum that fits, what never was.
    Deceived,
}

/// Damages the checkpoints of a store, opens it, and reads all of it.
///
/// # Panics
/// When it shows other records than it had, with checksums as the damage left them.
pub fn checkpoint(input: &[u8]) -> Loaded {
    let mut rng = Rng::from_script(input);
    let (files, expected) = store();
    let mut files = files.clone();
    let mends = rng.one_in(2);
    let mut edits = 0;
    while !rng.is_exhausted() && edits < MAX_EDITS {
        edit(&mut rng, &mut files);
        edits += 1;
    }
    if mends {
        let checkpoints = files.iter_mut().filter(|(path, _)| path.starts_with(CHECKPOINTS));
        for (_, bytes) in checkpoints {
            if let Some(header) = bytes.get_mut(..BLOCK) {
                repair::sector(header);
            }
        }
    }
    let disk = logs::disk(&files);
    let Ok(store) = Store::open(Path::new(DIR), &options(&disk)) else { return Loaded::Refused };
    let Ok(shown) = store.iter() else { return Loaded::Refused };
    let is_same = shown.eq(expected.iter().copied());
    assert!(is_same || mends, "the store shows other records than it had");
    if is_same { Loaded::Whole } else { Loaded::Deceived }
}

fn edit(rng: &mut Rng, files: &mut Files) {
    let of_checkpoints = |(path, _): &(PathBuf, Vec<u8>)| path.starts_with(CHECKPOINTS);
    let there: Vec<usize> =
        (0..files.len()).filter(|index| of_checkpoints(&files[*index])).collect();
    if there.is_empty() {
        return;
    }
    let index = there[rng.below(there.len() as u64) as usize];
    let other = files[there[rng.below(there.len() as u64) as usize]].1.clone();
    let bytes = &mut files[index].1;
    let at = rng.below(NEAR) as usize;
    match rng.below(6) {
        0 => {
            files.remove(index);
        }
        1 => *bytes = other,
        2 => bytes.truncate(at),
        3 => bytes.iter_mut().skip(at).take(BLOCK).for_each(|byte| *byte = 0),
        4 => {
            let value = rng.bits().to_le_bytes();
            let width = [1, 2, 4, 8][rng.below(4) as usize];
            // Most fields are in the header's first bytes.
            let run = bytes.iter_mut().skip(at % 256).take(width);
            run.zip(value).for_each(|(byte, new)| *byte = new);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
    }
}

/// A store with two checkpoints and changes before, between and after them, made once.
fn store() -> &'static (Files, Vec<Token>) {
    static STORE: OnceLock<(Files, Vec<Token>)> = OnceLock::new();
    STORE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let store = Store::open(Path::new(DIR), &options(&disk)).expect("a fresh disk");
        let put = |ids: std::ops::Range<u32>, weight: f32| {
            for id in ids {
                let token = Token::builder(TokenId(id * 7)).weight(weight).build();
                store.at(Level::Balanced).put(&token.expect("in range")).expect("no faults");
            }
        };
        put(1..40, 1.0);
        store.checkpoint().expect("no faults");
        put(20..80, 2.0);
        store.checkpoint().expect("no faults");
        put(70..90, 3.0);
        store.sync().expect("no faults");
        let tokens = store.iter().expect("no damage").collect();
        disk.kill();
        drop(store);
        let files = disk.paths().into_iter().map(|path| (path.clone(), disk.read_file(path)));
        (files.collect(), tokens)
    })
}

fn options(disk: &SimDisk) -> StoreOptions {
    StoreOptions::new().log(Options::simulated(disk)).checkpoint_reserve_bytes(None)
}
