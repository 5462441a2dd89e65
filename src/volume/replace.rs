//! Gives the place of one disk to another.

use super::prober::disk_queue;
use super::status::RepairReport;
use super::{Volume, find, format};
use crate::disk::set::DiskHandle;
use crate::disk::superblock::{Member, MemberState};
use crate::error::{Error, Result};
use crate::types::DiskId;
use std::path::Path;
use std::sync::Arc;

impl Volume {
    /// Takes the empty directory `new` into the volume, lets `old` (a path or number) go, and rebuilds on it and the
    /// others what was on `old`. A volume whose repair ends early is as safe as before: run the repair again.
    ///
    /// Errors: `Refused` with a sentence, and nothing is changed.
    pub async fn replace_disk(
        &self,
        old: &str,
        new: &Path,
        allow_same_device: bool,
    ) -> Result<RepairReport> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: disks cannot be replaced"));
        }
        let old = self.disk_named(old)?;
        let members = self.log.members();
        if members.member(old).is_some_and(|member| member.state == MemberState::Out) {
            return Err(Error::refused(format!("disk {old} has been replaced already")));
        }
        let disk = format::open_empty(new, &self.world)?;
        let identity = disk.identity()?;
        let sharing = members.disks.iter().find(|member| {
            let used = member.state != MemberState::Out && member.disk != old;
            used && member.device == identity.device
        });
        if let Some(member) = sharing.filter(|_member| !allow_same_device) {
            return Err(Error::refused(format!(
                "{} and {} are on the same device, which would lose both: use another device, or \
                 --allow-same-device",
                new.display(),
                member.path
            )));
        }
        find::lock(&*disk, &self.options).await?;
        let space = disk.space()?;
        let id = members.disks.iter().map(|member| member.disk.0).max().map_or(1, |id| id + 1);
        let id = DiskId(id);
        let member = Member {
            disk: id,
            state: MemberState::Healthy,
            capacity_bytes: space.total_bytes,
            device: space.device,
            path: new.display().to_string(),
        };
        let queue = disk_queue(&self.config.limits, id, self.world.inline)?;
        let handle = Arc::new(DiskHandle { id, disk, queue });
        self.log.add_disk(handle.clone(), member).await?;
        self.admit_disk(handle).await?;
        self.log.set_disk_state(old, MemberState::Out).await?;
        let gone = Error::refused("it was replaced");
        self.disks.fail(old, &gone);
        self.peers.remove_store(old);
        self.repair_run().await
    }
}
