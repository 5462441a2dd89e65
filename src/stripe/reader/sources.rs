//! Which shards of a stripe can be believed in the course of one read. Pure; does no I/O.

use crate::erasure::Scheme;
use crate::error::{Error, ErrorKind, Posix};
use crate::types::ShardIndex;
use std::collections::BTreeMap;

/// Most combinations of shards that are left out to find one that lies.
const COMBINATIONS_MAX: usize = 256;

/// Shards of one stripe: those that may be asked, and those that turned out bad.
#[derive(Debug)]
pub(in crate::stripe) struct Sources {
    scheme: Scheme,
    usable: u64,
    /// Bits of shards that are asked only when the others do not suffice: their disks are slow to answer.
    reserve: u64,
    answered: u64,
    /// All are asked by now, also those that are late.
    patient: bool,
    failed: BTreeMap<ShardIndex, Error>,
}

impl Sources {
    /// Bit i of `usable` says that shard i may be asked.
    pub(super) const fn new(scheme: Scheme, usable: u64) -> Self {
        let failed = BTreeMap::new();
        Self { scheme, usable, reserve: 0, answered: 0, patient: false, failed }
    }

    /// Asks the shards with the bits `slow` only when the others do not suffice.
    pub(super) const fn spare(mut self, slow: u64) -> Self {
        let quick = self.usable & !slow;
        if quick.count_ones() >= self.scheme.k() as u32 {
            (self.reserve, self.usable) = (self.usable & slow, quick);
        }
        self
    }

    /// From now on those that were spared are asked too. Answers whether there were any.
    pub(super) const fn call_reserve(&mut self) -> bool {
        let any = self.reserve != 0;
        self.patient = true;
        self.usable |= self.reserve;
        self.reserve = 0;
        any
    }

    /// Does without a shard whose disk does not answer. When the others do not suffice it is asked again, with them.
    pub(super) const fn put_off(&mut self, index: ShardIndex) {
        self.usable &= !(1 << index.0);
        self.reserve |= 1 << index.0;
        if self.usable.count_ones() < self.scheme.k() as u32 {
            self.call_reserve();
        }
    }

    /// Whether nobody is left who was not asked: the first that suffice are to be taken.
    pub(super) const fn is_patient(&self) -> bool {
        self.patient
    }

    /// Bits of the shards that may be asked.
    pub(in crate::stripe) const fn usable(&self) -> u64 {
        self.usable
    }

    /// Whether this shard may be asked.
    pub(super) const fn is_usable(&self, index: ShardIndex) -> bool {
        self.usable >> index.0 & 1 == 1
    }

    /// Does without a shard that nothing is known against.
    pub(in crate::stripe) const fn leave_out(&mut self, index: ShardIndex) {
        self.usable &= !(1 << index.0);
        self.reserve &= !(1 << index.0);
    }

    /// Notes that a shard gave what it was asked for.
    pub(super) const fn answered(&mut self, index: ShardIndex) {
        self.answered |= 1 << index.0;
    }

    /// Notes that a shard is not good; it is not asked again.
    pub(in crate::stripe) fn fail(&mut self, index: ShardIndex, error: Error) {
        self.usable &= !(1 << index.0);
        self.failed.insert(index, error);
        if self.usable.count_ones() < u32::from(self.scheme.k()) {
            self.call_reserve();
        }
    }

    /// The bad shards and what was wrong.
    pub(super) fn failed(&self) -> impl Iterator<Item = (&ShardIndex, &Error)> {
        self.failed.iter()
    }

    /// Sets of shards whose absence may make wrong bytes right: each one, then each two, ... as many as the
    /// scheme can do without. The first that helps is a smallest one, so exactly the liars.
    pub(in crate::stripe) fn suspects(&self) -> Vec<u64> {
        let spare = self.usable.count_ones().saturating_sub(u32::from(self.scheme.k()));
        let mut all: Vec<u64> = Vec::new();
        let mut sets = vec![0_u64];
        for _size in 0..spare {
            let mut larger = Vec::new();
            for set in &sets {
                let first = u64::BITS - set.leading_zeros();
                for bit in first..u32::from(self.scheme.n()) {
                    if self.usable >> bit & 1 == 1 && all.len() + larger.len() < COMBINATIONS_MAX {
                        larger.push(set | 1 << bit);
                    }
                }
            }
            all.extend_from_slice(&larger);
            sets = larger;
        }
        all
    }

    /// Why too few shards are left.
    pub(in crate::stripe) fn verdict(&self) -> Error {
        let kinds = |kind| self.failed.values().filter(move |error| error.kind() == kind);
        let absent = kinds(ErrorKind::Posix(Posix::NotFound)).count();
        let corrupt = u32::try_from(kinds(ErrorKind::Corrupt).count()).unwrap_or(u32::MAX);
        let (k, good) = (u32::from(self.scheme.k()), self.answered & self.usable);
        let kind = if absent > 0 && absent == self.failed.len() && good == 0 {
            ErrorKind::Posix(Posix::NotFound)
        } else if self.usable.count_ones().saturating_add(corrupt) >= k {
            ErrorKind::Corrupt
        } else {
            ErrorKind::Unavailable
        };
        let context = format!("{} of {k} needed shards are good", self.usable.count_ones());
        match self.failed.values().next_back() {
            Some(error) => Error::with_source(kind, context, error.clone()),
            None => Error::new(kind, context),
        }
    }
}
