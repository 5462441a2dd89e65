//! Labels of disks: changing them, and what a volume survives because of them.

use super::Volume;
use crate::config::labels::Labels;
use crate::disk::superblock::MemberList;
use crate::error::{Error, Result};
use crate::types::DiskId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kinds of domains, the widest first.
const KINDS: [&str; 3] = ["zone", "rack", "node"];

/// Other labels for a disk; what is not told stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LabelChange {
    /// Path or number of the disk.
    pub disk: String,
    /// Its zone; empty for none.
    pub zone: Option<String>,
    /// Its rack; empty for none.
    pub rack: Option<String>,
    /// Its node; empty for the one that mounts.
    pub node: Option<String>,
    /// All its tags.
    pub tags: Option<Vec<String>>,
}

/// A disk with its labels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskLabels {
    /// Number of the disk.
    pub id: u32,
    /// Where it is.
    pub path: String,
    /// Its labels.
    pub labels: Labels,
}

impl Volume {
    /// Changes labels of a disk: stripes are placed by them from now on. Durable on return.
    ///
    /// Errors: `Refused` with a sentence, and nothing is changed.
    pub async fn label_disk(&self, change: &LabelChange) -> Result<DiskLabels> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: labels cannot be changed"));
        }
        let disk = self.disk_named(&change.disk)?;
        let members = self.log.members();
        let member = members.member(disk);
        let member = member.ok_or_else(|| Error::refused(format!("there is no disk {disk}")))?;
        let old = member.labels.clone();
        let labels = Labels {
            zone: change.zone.clone().unwrap_or(old.zone),
            rack: change.rack.clone().unwrap_or(old.rack),
            node: change.node.clone().unwrap_or(old.node),
            tags: change.tags.clone().unwrap_or(old.tags),
        };
        let labels = labels.validate()?;
        self.log.set_disk_labels(disk, labels.clone()).await?;
        Ok(DiskLabels { id: disk.get(), path: member.path.clone(), labels })
    }
}

/// Whether any one domain may be lost, found out stripe by stripe.
#[derive(Debug)]
pub(super) struct Together {
    /// Zone, rack and node of each disk, by number.
    domains: BTreeMap<DiskId, [usize; 3]>,
    /// Kinds of which there are several, and of which any one may still be lost.
    survived: [bool; 3],
}

impl Together {
    pub(super) fn new(members: &MemberList) -> Self {
        let mut numbers: [BTreeMap<[&str; 3], usize>; 3] = Default::default();
        let mut domains = BTreeMap::new();
        for member in members.disks.iter().filter(|member| member.state.is_expected()) {
            let Labels { zone, rack, node, .. } = &member.labels;
            let (zone, rack, node) = (zone.as_str(), rack.as_str(), node.as_str());
            let names = [[zone, "", ""], [zone, rack, ""], [zone, rack, node]];
            let mut own = [0; 3];
            for ((numbers, name), own) in numbers.iter_mut().zip(names).zip(&mut own) {
                let next = numbers.len();
                *own = *numbers.entry(name).or_insert(next);
            }
            domains.insert(member.disk, own);
        }
        Self { domains, survived: numbers.map(|numbers| numbers.len() > 1) }
    }

    /// Takes note of what has good parts on these disks, of which `margin` may be lost.
    pub(super) fn note(&mut self, good: &[DiskId], margin: i64) {
        for (kind, survived) in self.survived.iter_mut().enumerate().filter(|(_kind, s)| **s) {
            let own = |disk: &DiskId| self.domains.get(disk).and_then(|own| own.get(kind));
            let held = good.iter().filter_map(|disk| {
                let here = own(disk)?;
                Some(good.iter().filter(|other| own(other) == Some(here)).count())
            });
            let most = held.max().unwrap_or(0);
            *survived = i64::try_from(most).is_ok_and(|most| most <= margin);
        }
    }

    /// The widest kind of domain of which any one may be lost.
    pub(super) fn survived(&self) -> Option<&'static str> {
        KINDS
            .into_iter()
            .zip(self.survived)
            .find(|(_kind, survived)| *survived)
            .map(|(kind, _)| kind)
    }
}

#[cfg(test)]
mod tests;
