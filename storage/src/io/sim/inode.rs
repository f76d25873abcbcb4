//! A file's bytes: what is durable, what is visible, and what lies between.
//!
//! Decides which bytes a sync, a DSYNC write and a power loss leave. A sector that was
//! written has a list of versions until one is durable; lengths have a list of changes, which
//! reach the disk in order. Knows neither names nor processes. Tested by
//! `storage/tests/sim_disk.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::rng::{Rng, Survival};

/// The most versions of one sector that a power loss can choose from.
const MAX_VERSIONS: usize = 64;

/// The order of everything that changes files: versions and lengths.
pub(super) type Stamp = u64;

/// One written content of a sector that is not durable.
#[derive(Clone, Debug)]
struct Version {
    /// The bytes of the whole write, shared by its sectors.
    bytes: Arc<[u8]>,
    start: usize,
    /// Up to a sector; the rest of the sector is zeros.
    len: usize,
    stamp: Stamp,
    /// A sync of it has failed: no later one makes it durable.
    stuck: bool,
}

impl Version {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

#[derive(Clone, Copy, Debug)]
struct Resize {
    len: usize,
    stamp: Stamp,
    shrinks: bool,
}

/// A file's contents.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    sector: usize,
    /// What survives any power loss; its length is the durable length.
    durable: Vec<u8>,
    /// What processes see.
    cached: Vec<u8>,
    pending: BTreeMap<usize, Vec<Version>>,
    resizes: Vec<Resize>,
    /// Which sectors take up space.
    allocated: Vec<bool>,
    /// Sectors that were reserved, and of which nothing written is durable: a power loss may
    /// show what was there before. Empty unless such blocks are configured.
    raw: BTreeSet<usize>,
}

/// What a power loss is like.
pub(super) struct Loss<'a> {
    pub(super) survival: Survival,
    pub(super) shorn_ppm: u32,
    pub(super) stale_ppm: u32,
    /// Sectors that raw ones may show.
    pub(super) stale: &'a [Vec<u8>],
}

impl Inode {
    pub(super) fn new(sector: usize) -> Self {
        Self {
            sector,
            durable: Vec::new(),
            cached: Vec::new(),
            pending: BTreeMap::new(),
            resizes: Vec::new(),
            allocated: Vec::new(),
            raw: BTreeSet::new(),
        }
    }

    /// Returns what processes see.
    pub(super) fn cached(&self) -> &[u8] {
        &self.cached
    }

    /// Writes all bytes to the cache; they become pending.
    pub(super) fn write(&mut self, offset: usize, pieces: [&[u8]; 2], stamp: Stamp) {
        let [first, second] = pieces;
        let middle = offset + first.len();
        let end = middle + second.len();
        if end == offset {
            return;
        }
        if end > self.cached.len() {
            self.set_len(end, stamp);
        }
        self.cached[offset..middle].copy_from_slice(first);
        self.cached[middle..end].copy_from_slice(second);
        self.remember(offset / self.sector..end.div_ceil(self.sector), stamp);
    }

    /// Writes those of its sectors for which `keep` says so.
    pub(super) fn write_some(
        &mut self,
        offset: usize,
        bytes: &[u8],
        stamp: Stamp,
        mut keep: impl FnMut() -> bool,
    ) {
        let end = offset + bytes.len();
        for sector in offset / self.sector..end.div_ceil(self.sector) {
            if keep() {
                let from = offset.max(sector * self.sector);
                let to = end.min((sector + 1) * self.sector);
                self.write(from, [&bytes[from - offset..to - offset], &[]], stamp);
            }
        }
    }

    /// Adds the cached content of some sectors to their versions.
    fn remember(&mut self, sectors: std::ops::Range<usize>, stamp: Stamp) {
        let start = sectors.start * self.sector;
        let end = self.cached.len().min(sectors.end * self.sector);
        let shrinks = self.resizes.iter().any(|resize| resize.shrinks);
        let mut shared = None;
        for sector in sectors {
            let from = sector * self.sector;
            let to = end.min(from + self.sector);
            // A version that equals the durable content of a sector without others
            // makes no difference, unless a pending cut would tell them apart.
            if !shrinks
                && !self.pending.contains_key(&sector)
                && !self.raw.contains(&sector)
                && self.is_durable(from, to)
            {
                continue;
            }
            let bytes = Arc::clone(
                shared.get_or_insert_with(|| Arc::<[u8]>::from(&self.cached[start..end])),
            );
            let versions = self.pending.entry(sector).or_default();
            if versions.len() == MAX_VERSIONS {
                versions.remove(0);
            }
            let (start, len) = (from - start, to - from);
            versions.push(Version { bytes, start, len, stamp, stuck: false });
        }
    }

    fn is_durable(&self, from: usize, to: usize) -> bool {
        let middle = self.durable.len().clamp(from, to);
        let durable = self.durable.get(from..middle).unwrap_or(&[]);
        self.cached[from..from + durable.len()] == *durable
            // Without an early exit, so that it compiles to wide loads.
            && self.cached[from + durable.len()..to].iter().fold(0, |all, byte| all | byte) == 0
    }

    /// Cuts or extends the file; the change of length becomes pending.
    pub(super) fn set_len(&mut self, len: usize, stamp: Stamp) {
        if len != self.cached.len() {
            self.resizes.push(Resize { len, stamp, shrinks: len < self.cached.len() });
            self.cached.resize(len, 0);
        }
    }

    /// Makes the sectors that hold a range durable, and nothing else but the length
    /// that they need.
    pub(super) fn make_durable(&mut self, offset: usize, len: usize) {
        let sectors = offset / self.sector..(offset + len).div_ceil(self.sector);
        let end = self.cached.len().min(sectors.end * self.sector);
        let pending = self.resizes.iter().map(|resize| resize.len);
        if pending.chain([self.durable.len()]).any(|len| len < end) {
            self.apply_resizes(self.resizes.len());
        }
        let from = sectors.start * self.sector;
        for sector in sectors {
            self.pending.remove(&sector);
            self.raw.remove(&sector);
        }
        self.durable[from..end].copy_from_slice(&self.cached[from..end]);
    }

    /// Makes everything up to a stamp durable, except what a failed sync dropped.
    pub(super) fn sync(&mut self, cover: Stamp) {
        self.apply_resizes(self.resizes.partition_point(|resize| resize.stamp <= cover));
        let Self { pending, durable, raw, sector: size, .. } = self;
        pending.retain(|sector, versions| {
            let covered =
                versions.iter().rposition(|version| !version.stuck && version.stamp <= cover);
            if let Some(newest) = covered {
                put(durable, sector * *size, *size, versions[newest].bytes());
                raw.remove(sector);
                versions.drain(..=newest);
            }
            !versions.is_empty()
        });
    }

    /// Fails a sync: what it covered counts as clean.
    pub(super) fn fail_sync(&mut self, cover: Stamp) {
        for version in self.pending.values_mut().flatten() {
            version.stuck |= version.stamp <= cover;
        }
    }

    /// Decides what is left of everything pending.
    ///
    /// A sector that is kept may be shorn with a chance of `shorn_ppm`: new bytes up to
    /// some point in it, old ones from there on.
    pub(super) fn lose_power(&mut self, rng: &mut Rng, loss: &Loss<'_>) {
        if self.resizes.is_empty() && self.pending.is_empty() && self.raw.is_empty() {
            return;
        }
        let Loss { survival, shorn_ppm, .. } = *loss;
        self.apply_resizes(match survival {
            Survival::None => 0,
            Survival::All => self.resizes.len(),
            Survival::Some { .. } => rng.below(self.resizes.len() + 1),
        });
        self.resizes.clear();
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let version = match survival {
                Survival::None => None,
                Survival::All => versions.last(),
                Survival::Some { .. } if !rng.survives(survival) => None,
                Survival::Some { .. } => versions.get(rng.below(versions.len())),
            };
            if let Some(version) = version {
                let shorn = rng.chance(shorn_ppm);
                // Early rather than late: what matters is at a sector's start.
                let len = if shorn { rng.below(self.sector) >> rng.below(6) } else { self.sector };
                put(&mut self.durable, sector * self.sector, len, version.bytes());
                self.raw.remove(&sector);
            }
        }
        self.expose(rng, loss);
        self.cached.clone_from(&self.durable);
    }

    /// Lets raw sectors show old content, which is their own from then on.
    fn expose(&mut self, rng: &mut Rng, loss: &Loss<'_>) {
        let exposed: Vec<usize> = self
            .raw
            .iter()
            .copied()
            .filter(|sector| (sector + 1) * self.sector <= self.durable.len())
            .filter(|_| !loss.stale.is_empty() && rng.chance(loss.stale_ppm))
            .collect();
        for sector in exposed {
            let old = &loss.stale[rng.below(loss.stale.len())];
            put(&mut self.durable, sector * self.sector, self.sector, old);
            self.raw.remove(&sector);
        }
    }

    /// Returns the sectors that hold something, as far as they are durable.
    pub(super) fn durable_sectors(&self) -> Vec<Vec<u8>> {
        let sectors = self.durable.chunks_exact(self.sector);
        let holds = |sector: &&[u8]| sector.iter().fold(0, |all, byte| all | byte) != 0;
        sectors.filter(holds).map(<[u8]>::to_vec).collect()
    }

    /// Reserves space for the first sectors; newly reserved sectors keep what they held
    /// before.
    pub(super) fn reserve_raw(&mut self, sectors: usize) {
        let new = |sector: &usize| self.allocated.get(*sector) != Some(&true);
        let new: Vec<usize> = (0..sectors).filter(new).collect();
        self.raw.extend(new);
    }

    /// Decides piece by piece what is left of everything pending: `choose` takes how many
    /// ends a piece has, and returns one of them.
    pub(super) fn end(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        if self.resizes.is_empty() && self.pending.is_empty() {
            return;
        }
        let resizes = self.resizes.len();
        self.apply_resizes(if resizes > 0 { choose(resizes + 1) } else { 0 });
        self.resizes.clear();
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let chosen = choose(versions.len() + 1).checked_sub(1);
            if let Some(version) = chosen.and_then(|chosen| versions.get(chosen)) {
                put(&mut self.durable, sector * self.sector, self.sector, version.bytes());
            }
        }
        self.cached.clone_from(&self.durable);
    }

    /// Feeds everything that can still be found out about the file to a hash.
    pub(super) fn hash(&self, hasher: &mut impl Hasher) {
        for bytes in [&self.durable, &self.cached] {
            hash_bytes(bytes, hasher);
        }
        for (sector, versions) in &self.pending {
            for version in versions {
                (sector, version.stuck).hash(hasher);
                hash_bytes(version.bytes(), hasher);
            }
        }
        for resize in &self.resizes {
            resize.len.hash(hasher);
        }
    }

    /// Makes everything visible durable.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.cached);
        self.pending.clear();
        self.resizes.clear();
        self.raw.clear();
    }

    /// Damages one byte wherever it is stored.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) {
        for bytes in [&mut self.durable, &mut self.cached] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
        let within = offset % self.sector;
        for version in self.pending.get_mut(&(offset / self.sector)).into_iter().flatten() {
            if within < version.len {
                let mut bytes = version.bytes().to_vec();
                bytes[within] ^= mask;
                (version.bytes, version.start) = (Arc::from(bytes), 0);
            }
        }
    }

    /// Makes the first changes of length durable.
    fn apply_resizes(&mut self, count: usize) {
        for resize in self.resizes.drain(..count) {
            if resize.shrinks {
                self.raw.retain(|sector| sector * self.sector < resize.len);
                for (sector, versions) in self.pending.range_mut(resize.len / self.sector..) {
                    let left = resize.len.saturating_sub(sector * self.sector);
                    for version in versions {
                        if version.stamp < resize.stamp {
                            version.len = version.len.min(left);
                        }
                    }
                }
            }
            self.durable.resize(resize.len, 0);
        }
    }

    /// Returns how many sectors take up space.
    pub(super) fn allocated_sectors(&self) -> usize {
        self.allocated.iter().filter(|allocated| **allocated).count()
    }

    /// Takes space for the sectors of a range as long as `free` lasts. Returns how many were
    /// taken, and the first that found no space.
    pub(super) fn allocate(
        &mut self,
        sectors: std::ops::Range<usize>,
        free: usize,
    ) -> (usize, Option<usize>) {
        if self.allocated.len() < sectors.end {
            self.allocated.resize(sectors.end, false);
        }
        let mut taken = 0;
        for sector in sectors {
            if !self.allocated[sector] {
                if taken == free {
                    return (taken, Some(sector));
                }
                self.allocated[sector] = true;
                taken += 1;
            }
        }
        (taken, None)
    }

    /// Returns how many sectors of a range take up no space yet.
    pub(super) fn unallocated(&self, sectors: std::ops::Range<usize>) -> usize {
        sectors.filter(|sector| self.allocated.get(*sector) != Some(&true)).count()
    }

    /// Frees the space beyond a length; returns how many sectors.
    pub(super) fn deallocate_beyond(&mut self, len: usize) -> usize {
        let keep = len.div_ceil(self.sector).min(self.allocated.len());
        self.allocated.drain(keep..).filter(|allocated| *allocated).count()
    }
}

/// Hashes bytes; most are zeros, which it skips.
fn hash_bytes(bytes: &[u8], hasher: &mut impl Hasher) {
    bytes.len().hash(hasher);
    for (number, bytes) in bytes.chunks(64).enumerate() {
        if bytes.iter().fold(0, |all, byte| all | byte) != 0 {
            number.hash(hasher);
            hasher.write(bytes);
        }
    }
}

/// Stores a sector's content up to the end of the file; the rest of the sector is zeros.
fn put(durable: &mut [u8], at: usize, sector: usize, bytes: &[u8]) {
    let end = durable.len().min(at + sector);
    if let Some(target) = durable.get_mut(at..end) {
        let len = target.len().min(bytes.len());
        target[..len].copy_from_slice(&bytes[..len]);
        target[len..].fill(0);
    }
}
