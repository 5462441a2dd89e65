//! Counts of what commands have changed, so that whoever keeps decoded content knows when it is out of date. Knows
//! commands, no table.

use crate::meta::command::Command;
use crate::stripe::layout::StripeRecord;
use crate::types::Ino;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files share counters; one that is bumped for a neighbour costs a reader one look at the tables.
const COUNTERS: usize = 4096;

/// Counters of changes. Whoever applies commands notes them, after the state has them and before anyone is answered; so
/// what was read behind a look at a counter holds for as long as the counter stays.
#[derive(Debug)]
pub struct Changes {
    /// Changes of stripe records.
    stripes: AtomicU64,
    /// Stripes that were committed without all their shards.
    degraded: AtomicU64,
    /// Changes of the content of files.
    files: Box<[AtomicU64]>,
}

impl Default for Changes {
    fn default() -> Self {
        let files = (0..COUNTERS).map(|_each| AtomicU64::new(0)).collect();
        Self { stripes: AtomicU64::new(0), degraded: AtomicU64::new(0), files }
    }
}

impl Changes {
    /// How often the content of `ino` (or of a file that shares its counter) has changed.
    pub fn of_content(&self, ino: Ino) -> u64 {
        self.counter(ino).map_or(0, |counter| counter.load(Ordering::SeqCst))
    }

    /// How often records of stripes have changed that some file may name.
    pub fn of_stripes(&self) -> u64 {
        self.stripes.load(Ordering::SeqCst)
    }

    /// How many stripes were committed without all their shards.
    pub fn of_degraded(&self) -> u64 {
        self.degraded.load(Ordering::SeqCst)
    }

    fn counter(&self, ino: Ino) -> Option<&AtomicU64> {
        let at = usize::try_from(ino.0 % COUNTERS as u64).ok()?;
        self.files.get(at)
    }

    fn file(&self, ino: Ino) {
        if let Some(counter) = self.counter(ino) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn stripe(&self, record: &StripeRecord) {
        if record.missing != 0 {
            self.degraded.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn every_file(&self) {
        for counter in &self.files {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Notes a command that was applied.
    pub fn note(&self, command: &Command) {
        match command {
            Command::Truncate { ino, .. } | Command::Punch { ino, .. } => self.file(*ino),
            Command::CommitHot { file, .. } | Command::CommitInline { file, .. } => {
                self.file(file.ino);
            }
            Command::CloneExtents { to, .. } => self.file(*to),
            Command::CommitExtents { stripe, segments, files } => {
                self.stripe(stripe);
                segments.iter().for_each(|segment| self.file(segment.address.ino));
                files.iter().for_each(|file| self.file(file.ino));
            }
            Command::MoveExtents { stripe, segments } => {
                self.stripe(stripe);
                segments.iter().for_each(|segment| self.file(segment.address.ino));
            }
            // It does not say whose chunks it removes.
            Command::Reap { .. } => self.every_file(),
            Command::PlaceShard { .. } => {
                self.stripes.fetch_add(1, Ordering::SeqCst);
            }
            // Names, attributes, and stripes that no file names any more.
            Command::StartMount { .. }
            | Command::SetClass { .. }
            | Command::Create { .. }
            | Command::Link { .. }
            | Command::Unlink { .. }
            | Command::Rmdir { .. }
            | Command::Rename(_)
            | Command::SetAttributes { .. }
            | Command::SetAccessTimes { .. }
            | Command::Reserve { .. }
            | Command::SetXattr { .. }
            | Command::RemoveXattr { .. }
            | Command::SetInodeClass { .. }
            | Command::ReleaseOrphans { .. }
            | Command::ForgetStripes { .. }
            | Command::NoteDamage { .. }
            | Command::NoteRepair { .. }
            | Command::SetScrub { .. }
            | Command::Genesis { .. } => {}
        }
    }
}
