//! Which member list counts. Decides only, reads nothing.

use super::PresentDisk;
use crate::disk::superblock::{MemberList, MemberState};
use crate::error::{Error, Result};
use crate::types::{DiskId, Epoch, VolumeId};

/// What the superblocks say.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) volume: VolumeId,
    pub(super) name: String,
    pub(super) list: MemberList,
}

impl Found {
    /// Log disks whose log and state may be read. One that is older than the list before this one was left behind.
    pub(super) fn believed(&self, present: &[PresentDisk]) -> Vec<DiskId> {
        let epoch_of = |disk: DiskId| -> Option<Epoch> {
            let found = present.iter().find(|present| present.superblock.disk == disk)?;
            Some(found.superblock.members.epoch)
        };
        let members = self.list.log.iter().map(|member| member.disk);
        members
            .filter(|disk| epoch_of(*disk).is_some_and(|epoch| epoch >= self.list.previous_epoch))
            .collect()
    }
}

/// The newest member list.
///
/// Two lists of one epoch exist if a crash stopped the first before it was in force, and the disks that have it were
/// away when the second was made. The second then calls these disks down.
///
/// Errors: `Refused` if the disks belong to several volumes, or have histories of their own.
pub(super) fn choose(present: &[PresentDisk]) -> Result<Found> {
    let first = present.first().ok_or_else(|| Error::refused("no disk of the volume is there"))?;
    let (volume, name) = (first.superblock.volume, first.superblock.name.clone());
    for disk in present {
        let found = &disk.superblock;
        if found.volume != volume {
            return Err(Error::refused(format!(
                "{} belongs to volume {} ({}), {} to {name} ({volume})",
                disk.disk.label(),
                found.name,
                found.volume,
                first.disk.label()
            )));
        }
        let same = |other: &&PresentDisk| other.superblock.disk == found.disk;
        if present.iter().filter(same).count() > 1 {
            return Err(Error::refused(format!(
                "{} is a copy of another disk: both are disk {}",
                disk.disk.label(),
                found.disk
            )));
        }
    }
    let newest = present.iter().map(|disk| disk.superblock.members.epoch).max();
    let holders = present.iter().map(|disk| &disk.superblock);
    let holders: Vec<_> =
        holders.filter(|superblock| Some(superblock.members.epoch) == newest).collect();
    let knows = |list: &MemberList| {
        holders.iter().all(|other| {
            let away = |member: MemberState| !member.is_used();
            other.members == *list
                || list.member(other.disk).is_some_and(|member| away(member.state))
        })
    };
    let mut lists: Vec<&MemberList> = Vec::new();
    for list in holders.iter().map(|superblock| &superblock.members).filter(|list| knows(list)) {
        if !lists.contains(&list) {
            lists.push(list);
        }
    }
    match lists.as_slice() {
        [list] => Ok(Found { volume, name, list: (*list).clone() }),
        _ => Err(Error::refused(format!(
            "the disks of volume {name} have two histories of epoch {}: they were mounted apart from each other. \
             Mount with the disks of one history only",
            newest.unwrap_or_default()
        ))),
    }
}
