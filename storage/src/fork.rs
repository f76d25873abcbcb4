//! Tells the process that opened a log from its children by `fork`.
//!
//! Owns one page of memory that the kernel clears in a child (`MADV_WIPEONFORK`, Linux 4.14), so
//! that the question costs one load, and no system call. What a child inherits of a log is of no
//! use: its threads are not there, locks may be held for good, the ring's memory is missing, and
//! whatever it wrote would land in the parent's files. Tested by `tests/tests/forks.rs`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapRaw};
use rustix::mm::{Advice, madvise};

const LEN: usize = 4096;

static WORD: OnceLock<Option<Word>> = OnceLock::new();
/// The number of the next process that asks. A child inherits it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The number of this process; 0 in a child that has not asked for one yet.
struct Word(MmapRaw);

impl Word {
    fn new() -> Option<Self> {
        let map = MmapRaw::from(MmapMut::map_anon(LEN).ok()?);
        // SAFETY: the range is that of the map. The advice changes what a child sees of it, and
        // nothing in this process.
        let advised = unsafe { madvise(map.as_mut_ptr().cast(), LEN, Advice::LinuxWipeOnFork) };
        // An older kernel does not know it: then a child is not told from its parent.
        advised.ok().map(|()| Self(map))
    }

    fn get(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped as long as `self`, aligned, and touched as this atomic only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast()) }
    }
}

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    word: Option<&'static AtomicU64>,
    number: u64,
}

impl Process {
    /// Returns the process that calls.
    #[must_use]
    pub fn current() -> Self {
        let word = WORD.get_or_init(Word::new).as_ref().map(Word::get);
        // Relaxed: only the number itself counts, and a child has one thread at first.
        let number = word.map_or(0, |word| match word.load(Ordering::Relaxed) {
            0 => {
                let new = NEXT.fetch_add(1, Ordering::Relaxed);
                let set = word.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                set.map_or_else(|number| number, |_| new)
            }
            number => number,
        });
        Self { word, number }
    }

    /// Returns whether the caller is a child, by `fork`, of this process.
    #[inline]
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.word.is_some_and(|word| word.load(Ordering::Relaxed) != self.number)
    }
}
