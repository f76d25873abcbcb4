//! Any options are refused, by name, or give a store that keeps the contract.

use std::path::Path;
use std::time::Duration;

use arbitrary::Arbitrary;
use bulla_engine::{Error, OnExceed, Quota, Store, StoreOptions, Token, TokenId};
use bulla_storage::io::sim::{SimConfig, SimDisk};
use bulla_wal::{Error as LogError, Level, Method, Options, Overflow};

const DIR: &str = "/store";
/// What the disk holds: what options ask for beyond it must be refused for that reason.
const CAPACITY: u64 = 2 * 1024 * 1024;
/// The ring's memory is real: the default would cost more time than it shows.
const DEFAULT_RING: u64 = 64 * 1024;
const MAX_RING: u64 = 8 * 1024 * 1024;

/// A number that is often at an edge of something.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Any(u64),
    Power(u8),
    NearPower(u8, i8),
    Small(u8),
}

impl Number {
    const fn value(self) -> u64 {
        match self {
            Self::Any(value) => value,
            Self::Power(power) => 1 << (power % 64),
            Self::NearPower(power, offset) => {
                (1_u64 << (power % 64)).wrapping_add_signed(offset as i64)
            }
            Self::Small(value) => value as u64,
        }
    }
}

/// Values for all options; what is not there keeps its default (the ring's is smaller).
#[derive(Arbitrary, Clone, Debug)]
pub struct Settings {
    sector: Option<Number>,
    segment_len: Option<Number>,
    ring_len: Option<Number>,
    max_frame_len: Option<Number>,
    depth: Option<Number>,
    intervals_ns: [Option<Number>; 4],
    balanced_entries: Option<Number>,
    balanced_max_unsynced: Option<Number>,
    is_buffered: bool,
    refuses_when_full: bool,
    max_records: Option<Number>,
    max_bytes: Option<Number>,
    thresholds: [Option<f64>; 2],
    reclaims: bool,
    max_ahead_s: Option<Number>,
    payloads: u8,
}

/// Options with a value of an input, if it has one for them.
fn set<T>(options: T, number: Option<Number>, set: impl FnOnce(T, u64) -> T) -> T {
    match number {
        Some(number) => set(options, number.value()),
        None => options,
    }
}

/// What became of options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// An option is out of its range.
    Refused,
    /// The disk has no room for what they ask for.
    NoSpace,
    /// They gave a store.
    Used,
}

impl Settings {
    fn log(&self, disk: &SimDisk) -> Options {
        let mut options = Options::new()
            .io(disk.process())
            .method(if self.is_buffered { Method::Buffered } else { Method::Direct })
            .overflow(if self.refuses_when_full { Overflow::Full } else { Overflow::Block })
            .ring_len(DEFAULT_RING)
            .lock_timeout(Duration::ZERO)
            .manual();
        let [flush, sync, balanced, idle] = self.intervals_ns;
        let ns = Duration::from_nanos;
        options = set(options, flush, |options, value| options.flush_interval(ns(value)));
        options = set(options, sync, |options, value| options.sync_interval(ns(value)));
        options = set(options, balanced, |options, value| options.balanced_interval(ns(value)));
        options = set(options, idle, |options, value| options.idle_mark(ns(value)));
        options = set(options, self.sector, |options, value| {
            options.sector(u32::try_from(value).unwrap_or(u32::MAX))
        });
        options = set(options, self.depth, |options, value| {
            options.depth(usize::try_from(value).unwrap_or(usize::MAX))
        });
        options = set(options, self.segment_len, Options::segment_len);
        options = set(options, self.ring_len, Options::ring_len);
        options = set(options, self.max_frame_len, Options::max_frame_len);
        options = set(options, self.balanced_entries, Options::balanced_entries);
        set(options, self.balanced_max_unsynced, Options::balanced_max_unsynced)
    }

    fn store(&self, disk: &SimDisk) -> StoreOptions {
        let mut quota =
            Quota::new().on_exceed(if self.reclaims { OnExceed::Evict } else { OnExceed::Reject });
        quota = set(quota, self.max_records, Quota::max_records);
        quota = set(quota, self.max_bytes, Quota::max_bytes);
        let [warn, clean] = self.thresholds;
        if let Some(part) = warn {
            quota = quota.warn_at(part);
        }
        if let Some(part) = clean {
            quota = quota.clean_at(part);
        }
        let options = StoreOptions::new().log(self.log(disk)).quota(quota);
        set(options, self.max_ahead_s, |options, value| {
            options.max_ahead(Duration::from_secs(value))
        })
    }

    /// Rings above what a test machine has to spare are not tried.
    fn is_affordable(&self) -> bool {
        self.ring_len.is_none_or(|number| number.value() <= MAX_RING)
    }
}

/// Opens a store with these options, changes it, and opens it again after a power loss.
///
/// # Panics
/// When a refusal is not for an option or for space, when options that are refused leave
/// a file behind, or when the store forgets what was durable.
pub fn settings(settings: &Settings) -> Taken {
    let config = SimConfig { capacity: Some(CAPACITY), ..SimConfig::default() };
    let disk = SimDisk::with_config(1, config);
    let options = settings.store(&disk);
    if let Err(error) = settings.log(&disk).checked(settings.log(&disk).sector) {
        assert!(matches!(error, LogError::Options { .. }), "{error:?}");
        return refused(&disk, &options);
    }
    if !settings.is_affordable() {
        return Taken::NoSpace;
    }
    let store = match Store::open(Path::new(DIR), &options) {
        Ok(store) => store,
        Err(error) if is_no_space(&error) => return Taken::NoSpace,
        Err(error) => panic!("{settings:?}: {error:?}"),
    };
    let mut kept = Vec::new();
    for local in 1..=u32::from(settings.payloads) + 1 {
        let token = Token::builder(TokenId(local)).build().expect("in range");
        match store.at(Level::Strict).put(&token) {
            Ok(_) => kept.push(token),
            Err(Error::Quota(_)) => {}
            Err(error) if is_no_space(&error) => break,
            Err(error) => panic!("{settings:?}: put {local}: {error:?}"),
        }
    }
    if settings.reclaims {
        kept.clear();
        kept.extend(store.iter().expect("all is in memory"));
        store.sync().expect("the disk has no faults");
    }
    disk.power_loss();
    drop(store);
    disk.set_capacity(None);
    let store = Store::open(Path::new(DIR), &settings.store(&disk)).expect("it is intact");
    assert!(store.iter().expect("it is whole").eq(kept), "{settings:?}");
    Taken::Used
}

fn refused(disk: &SimDisk, options: &StoreOptions) -> Taken {
    match Store::open(Path::new(DIR), options) {
        Err(Error::Log(LogError::Options { .. })) => {}
        other => panic!("options that are refused gave {other:?}"),
    }
    let files = disk.paths();
    assert!(files.iter().all(|path| path.ends_with("LOCK")), "{files:?} are left behind");
    Taken::Refused
}

fn is_no_space(error: &Error) -> bool {
    matches!(error, Error::Log(error) if error.is_out_of_space())
}
