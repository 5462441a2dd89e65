//! What would become of the data if some disks were gone: an answer from what is recorded. Changes nothing, and reads
//! no shard. What is still dirty in memory is not looked at: `sync` first.

mod survey;

use super::Volume;
use super::membership::candidates;
use crate::class::Class;
use crate::disk::superblock::{Member, MemberList};
use crate::error::{Error, Result};
use crate::types::DiskId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use survey::Survey;

/// Most files that an answer lists.
const LISTED_MAX: usize = 1000;

/// Which disks are thought away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhatIf {
    /// `disk:NUMBER`, `disk:PATH`, `zone:Z`, `rack:R`, `node:N`: all of them at once.
    pub lose: Vec<String>,
    /// Most files to list; the counts are complete.
    pub limit: usize,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhatIfReport {
    /// Name of the volume.
    pub name: String,
    /// Whether everything stays readable and writable, also after the next mount.
    pub safe: bool,
    /// The same in one sentence.
    pub verdict: String,
    /// Disks that are thought away.
    pub lose: Vec<NamedDisk>,
    /// Disks that are away already, and counted as such.
    pub away: Vec<NamedDisk>,
    /// Disks with the metadata that would be left; without any all is lost.
    pub log_left: Vec<u32>,
    /// Disks with the metadata now.
    pub log_disks: Vec<u32>,
    /// Whether the volume could be mounted read-write again before the disks are back or given up.
    pub mountable: bool,
    /// Each class, by its text.
    pub classes: BTreeMap<String, ClassFate>,
    /// All files.
    pub files: FileFates,
    /// The first files that are lost, then the first that are degraded.
    pub listed: Vec<FileFate>,
}

/// A disk and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamedDisk {
    /// Its number.
    pub id: u32,
    /// Its path.
    pub path: String,
}

/// What becomes of a class. Bytes are those of live frames, before redundancy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClassFate {
    /// Whether new data can be written.
    pub writable: bool,
    /// How many more disks a new stripe could lose.
    pub new_margin: i64,
    /// Live stripes.
    pub stripes: u64,
    /// Those that stay readable with less than all of their shards.
    pub degraded_stripes: u64,
    /// Bytes in them.
    pub degraded_bytes: u64,
    /// Those that could not be read.
    pub lost_stripes: u64,
    /// Bytes in them.
    pub lost_bytes: u64,
    /// Those that cannot be read now, before anything is taken away.
    pub lost_already: u64,
}

/// Files by what becomes of them. A file counts once, by its worst part; bytes are those of the parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileFates {
    /// Regular files, unlinked ones that are open included.
    pub checked: u64,
    /// Files that stay readable with less redundancy.
    pub degraded: u64,
    /// Bytes of files in degraded stripes.
    pub degraded_bytes: u64,
    /// Files of which a part could not be read.
    pub lost: u64,
    /// Bytes that could not be read.
    pub lost_bytes: u64,
}

/// A file that is affected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileFate {
    /// Its path in the volume.
    pub path: String,
    /// `lost` or `degraded`.
    pub state: String,
    /// Bytes of it that are.
    pub bytes: u64,
}

impl Volume {
    /// What would become of the data if these disks were gone. Looks at all stripes and files, page by page; others are
    /// served meanwhile. May be cancelled.
    ///
    /// Errors: `Refused` with a sentence if no disk is meant.
    pub async fn what_if(self: &Arc<Self>, question: &WhatIf) -> Result<WhatIfReport> {
        let members = self.log.members();
        let lose = self.meant(&members, &question.lose)?;
        let here: BTreeSet<DiskId> = self.disks.healthy().iter().map(|handle| handle.id).collect();
        let left: BTreeSet<DiskId> = here.difference(&lose).copied().collect();
        let log_disks = self.log.status().disks;
        let log_left: Vec<u32> =
            log_disks.iter().filter(|disk| left.contains(disk)).map(|disk| disk.get()).collect();
        let counted = members.disks.iter().filter(|member| member.state.is_expected());
        let counted: Vec<&Member> = counted.collect();
        let absent = counted.iter().filter(|member| !left.contains(&member.disk)).count();
        let named = |member: &&&Member| NamedDisk { id: member.disk.0, path: member.path.clone() };
        let gone = counted.iter().filter(|member| lose.contains(&member.disk));
        let away = counted.iter().filter(|member| !here.contains(&member.disk));

        let survey = Survey::new(self.clone(), (here.clone(), left.clone()), log_left.is_empty());
        let found = survey.run(question.limit.min(LISTED_MAX)).await?;
        let mut report = WhatIfReport {
            name: self.config.name.clone(),
            safe: false,
            verdict: String::new(),
            lose: gone.map(|member| named(&member)).collect(),
            away: away.map(|member| named(&member)).collect(),
            log_left,
            log_disks: log_disks.iter().map(|disk| disk.get()).collect(),
            mountable: absent <= usize::from(members.tolerance),
            classes: found.classes,
            files: found.files,
            listed: found.listed,
        };
        for (_id, class) in self.meta.view()?.classes()? {
            let fate = report.classes.entry(class.to_string()).or_default();
            (fate.writable, fate.new_margin) = self.is_writable(&class, &members, &left);
        }
        let (safe, verdict) = judge(&report, (absent, members.tolerance));
        Ok(WhatIfReport { safe, verdict, ..report })
    }

    /// The disks that the words mean.
    fn meant(&self, members: &MemberList, words: &[String]) -> Result<BTreeSet<DiskId>> {
        let mut meant = BTreeSet::new();
        for word in words {
            let label = |of: &dyn Fn(&Member) -> bool| {
                let with = members.disks.iter().filter(|member| member.state.is_expected());
                let found: Vec<DiskId> =
                    with.filter(|member| of(member)).map(|member| member.disk).collect();
                if found.is_empty() {
                    return Err(Error::refused(format!("no disk of the volume has {word}")));
                }
                Ok(found)
            };
            meant.extend(match word.split_once(':') {
                Some(("disk", disk)) => vec![self.disk_named(disk)?],
                Some(("zone", name)) => label(&|member| member.labels.zone == name)?,
                Some(("rack", name)) => label(&|member| member.labels.rack == name)?,
                Some(("node", name)) => label(&|member| member.labels.node == name)?,
                Some(_) | None => {
                    return Err(Error::refused(format!(
                        "{word:?} names no disks: say disk:PATH, disk:NUMBER, zone:Z, rack:R or node:N"
                    )));
                }
            });
        }
        if meant.is_empty() {
            return Err(Error::refused("say which disks: disk:PATH, zone:Z, rack:R or node:N"));
        }
        Ok(meant)
    }

    /// Whether stripes of a class can be written on the disks that are left, and what they could lose: as the placer
    /// decides it.
    fn is_writable(
        &self,
        class: &Class,
        members: &MemberList,
        left: &BTreeSet<DiskId>,
    ) -> (bool, i64) {
        let found = candidates(&self.disks, members, self.config.limits.reserve_percent);
        let usable = found.into_iter().filter(|(disk, _full)| {
            left.contains(&disk.disk) && class.placement.allows(&disk.labels)
        });
        let (full, roomy): (Vec<_>, Vec<_>) = usable.partition(|(_disk, full)| *full);
        let (k, n) = (usize::from(class.scheme.k()), usize::from(class.scheme.n()));
        let blocked = roomy.len() < k || roomy.len() < n && full.len() > n - k;
        let shards = i64::try_from(roomy.len().min(n)).unwrap_or(0);
        (!blocked, shards - i64::from(class.scheme.k()))
    }
}

/// Whether it is safe, and why, in one sentence.
fn judge(report: &WhatIfReport, (absent, tolerance): (usize, u8)) -> (bool, String) {
    let WhatIfReport { files, classes, .. } = report;
    let readonly: Vec<&str> = classes
        .iter()
        .filter(|(_class, fate)| !fate.writable && fate.new_margin < 0)
        .map(|(class, _fate)| class.as_str())
        .collect();
    let stuck = classes.values().any(|fate| !fate.writable && fate.new_margin >= 0);
    if report.log_left.is_empty() {
        let disks: Vec<String> = report.log_disks.iter().map(ToString::to_string).collect();
        let disks = disks.join(", ");
        return (
            false,
            format!(
                "Not safe: all copies of the metadata are on them (disks {disks}), so nothing could be read."
            ),
        );
    }
    if files.lost > 0 {
        let already = classes.values().any(|fate| fate.lost_already > 0);
        let already = if already { ", some of it is lost already" } else { "" };
        return (
            false,
            format!(
                "Not safe: {} of {} files would be lost, wholly or in part, with {} bytes{already}.",
                files.lost, files.checked, files.lost_bytes
            ),
        );
    }
    if !readonly.is_empty() {
        return (
            false,
            format!(
                "Not safe: everything stays readable, but nothing could be written in class {}: too few disks are left.",
                readonly.join(" and ")
            ),
        );
    }
    if stuck {
        let why = "the disks that are left are too full";
        return (false, format!("Not safe: everything stays readable, but not writable: {why}."));
    }
    if !report.mountable {
        return (
            false,
            format!(
                "Not safe: everything stays readable and writable while it is mounted, but with {absent} disks away it could \
                 not be mounted again, as at most {tolerance} may be, until they are given up."
            ),
        );
    }
    match files.degraded {
        0 => (true, "Safe: every file keeps all of its redundancy.".into()),
        degraded => (
            true,
            format!(
                "Safe: everything stays readable and writable; {degraded} of {} files have less redundancy until they are \
                 repaired.",
                files.checked
            ),
        ),
    }
}
