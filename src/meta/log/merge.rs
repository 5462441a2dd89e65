//! One log out of several copies, and where it ends. Knows nothing of disks.

use crate::error::{Error, Result};
use crate::meta::command::APPLY_VERSION;
use crate::meta::log::record::Record;
use crate::meta::log::scan::Copy;
use crate::types::LogPosition;
use bytes::Bytes;
use std::collections::BTreeMap;

/// All that the copies of a log have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// Position at which the oldest file starts.
    first: LogPosition,
    records: BTreeMap<LogPosition, Record>,
    apply_versions: Vec<u16>,
}

impl Merged {
    /// Takes the good records of all copies; at least one copy.
    pub fn new(copies: Vec<Copy>) -> Self {
        let first = copies.iter().map(|copy| copy.first).min().unwrap_or_default();
        let mut merged = Self { first, ..Self::default() };
        for copy in copies {
            merged.apply_versions.extend(copy.apply_versions);
            for (position, record) in copy.records {
                match merged.records.get(&position) {
                    Some(known) if known.epoch >= record.epoch => {}
                    Some(_) | None => drop(merged.records.insert(position, record)),
                }
            }
        }
        merged
    }

    /// Commands from `from` (what a state copy has applied) to the end of the log.
    ///
    /// Errors: `Corrupt` if the log does not reach `from`, starts behind it, or has lost a record that was durable;
    /// `Refused` if another version of `apply` has to replay it.
    pub fn tail(&self, from: LogPosition) -> Result<Vec<Bytes>> {
        if from < self.first {
            return Err(Error::corrupt(format!(
                "the state is at {from}, the log starts at {} only",
                self.first
            )));
        }
        let before = from.get().checked_sub(1).map(LogPosition);
        let reached = from == self.first
            || before.is_some_and(|before| self.records.contains_key(&before))
            || self.durable_before(from);
        if !reached {
            return Err(Error::corrupt(format!("the state at {from} is ahead of the log")));
        }
        let mut tail = Vec::new();
        let mut end = from;
        while let Some(record) = self.records.get(&end) {
            tail.push(record.command.clone());
            end = end.advance(1);
        }
        // A record that was durable is missing everywhere, if a later batch was begun after it.
        if self.records.range(end..).any(|(_position, record)| record.batch > end) {
            return Err(Error::corrupt(format!(
                "record {end} of the log is damaged in every copy, and later ones are not: this is not the \
                 trace of a crash. Bring back the other log disks, or rescue the files"
            )));
        }
        if !tail.is_empty() && self.apply_versions.iter().any(|found| *found != APPLY_VERSION) {
            return Err(Error::refused(format!(
                "the log was written by another version of this program (apply {:?}, this one {APPLY_VERSION}) \
                 and was not closed: mount it once with that version",
                self.apply_versions
            )));
        }
        Ok(tail)
    }

    /// Whether some record proves that everything before `position` was durable.
    fn durable_before(&self, position: LogPosition) -> bool {
        self.records.range(position..).any(|(_position, record)| record.batch >= position)
    }
}
