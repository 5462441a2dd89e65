//! What is done to a volume as a whole, and what goes wrong with its disks.

use super::{Driver, must, pick};
use crate::compare::{Checked, root_user};
use crate::model::ops::{Kind, Op, call, data, length, offset};
use crate::work::Work;
use ironfs::error::Posix;
use ironfs::fs::file::WriteHow;
use std::ops::Range;
use std::time::Duration;

/// Seconds after which a mount has looked at the room of its disks again.
const LOOK: Duration = Duration::from_secs(15);
/// Size of a disk that is not to be full.
const LARGE_BYTES: u64 = 1 << 40;
/// How long an fsync may try before it fails: 60 s, and what its last attempt takes.
const OUTAGE: Range<Duration> = Duration::from_secs(55)..Duration::from_secs(130);
/// States of the disks after a power cut, of which one is taken.
const STATES: usize = 4;

impl Driver {
    pub(super) async fn maintain(&mut self, op: &Op) -> Checked {
        match op.kind {
            Kind::Sync => must("sync", self.volume().sync().await),
            Kind::Checkpoint => must("checkpoint", self.volume().checkpoint().await),
            Kind::Remount => self.remount().await,
            Kind::SyncAndKill => {
                must("sync", self.volume().sync().await)?;
                let (volume, fs) = self.mounted.take().unwrap();
                drop(fs);
                self.rig.kill(volume).await;
                self.reopen().await
            }
            Kind::SyncAndCut => self.sync_and_cut(op).await,
            Kind::Wait => {
                tokio::time::sleep(Duration::from_secs(1 + op.a % 90)).await;
                Ok(())
            }
            Kind::Repair => self.repair().await,
            Kind::HoldRepair => {
                // So that other things happen while it has work.
                self.holds_repair = !op.a.is_multiple_of(8);
                self.volume().pause_repair(self.holds_repair);
                Ok(())
            }
            Kind::LoseDisk => {
                let index = usize::try_from(op.a % 2).unwrap();
                self.lost[index] = true;
                self.rig.machine.set_offline(self.frail[index], true);
                Ok(())
            }
            Kind::ReturnDisk => {
                self.bring_back(usize::try_from(op.a % 2).unwrap());
                Ok(())
            }
            Kind::Outage => self.outage(op).await,
            Kind::LongOutage => self.long_outage(op).await,
            Kind::FailCalls => {
                let disk = self.frail[usize::try_from(op.a % 2).unwrap()];
                self.rig.machine.fail_next(disk, call(op.b), 1 + u32::try_from(op.c % 4).unwrap());
                Ok(())
            }
            Kind::Squeeze => self.squeeze(op).await,
            Kind::Enlarge => {
                self.enlarge();
                tokio::time::sleep(LOOK).await;
                Ok(())
            }
            _ => {
                self.rot(op);
                Ok(())
            }
        }
    }

    pub(super) async fn repair(&mut self) -> Checked {
        self.holds_repair = false;
        self.volume().pause_repair(false);
        must("repair", self.volume().repair_run().await).map(drop)
    }

    /// Leaves a few MiB on each disk. What was acknowledged has its room before that.
    async fn squeeze(&mut self, op: &Op) -> Checked {
        must("sync", self.volume().sync().await)?;
        let machine = &self.rig.machine;
        // Half of a disk is its reserve.
        let size = |disk| (machine.used_bytes(disk) + (1 + op.a % 16) * (1 << 20)) * 2;
        self.squeezed = Some((0..machine.disk_count()).map(size).collect());
        self.set_sizes();
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    pub(super) fn enlarge(&mut self) {
        self.squeezed = None;
        self.set_sizes();
    }

    fn set_sizes(&self) {
        for disk in 0..self.rig.machine.disk_count() {
            let size = self.squeezed.as_ref().map_or(LARGE_BYTES, |sizes| sizes[disk]);
            self.rig.machine.full(disk, size);
        }
    }

    /// The power goes; all that was synced is there.
    async fn sync_and_cut(&mut self, op: &Op) -> Checked {
        must("sync", self.volume().sync().await)?;
        let machine = &self.rig.machine;
        let mut states = machine.crash_states(machine.journal_len(), STATES, op.a);
        let state = states.nth(usize::try_from(op.b % STATES as u64).unwrap());
        let image = state.map_or_else(|| machine.live_image(), |state| state.image);
        let (volume, fs) = self.mounted.take().unwrap();
        drop(fs);
        self.rig.kill(volume).await;
        self.rig = self.rig.after_crash(image);
        self.set_sizes();
        for (disk, lost) in self.frail.into_iter().zip(self.lost) {
            self.rig.machine.set_offline(disk, lost);
        }
        self.reopen().await
    }

    fn bring_back(&mut self, index: usize) {
        if std::mem::take(&mut self.lost[index]) {
            self.rig.machine.set_offline(self.frail[index], false);
        }
    }

    /// All disks are away for less time than a change waits for them.
    async fn outage(&self, op: &Op) -> Checked {
        self.all_away();
        tokio::time::sleep(Duration::from_secs(1 + op.a % 30)).await;
        let page =
            must("metrics without any disk", self.mounted.as_ref().unwrap().0.metrics_page());
        self.all_back().await;
        page.map(drop)
    }

    /// All disks are away for longer than an fsync waits for them: it must fail, and what it was for stays until they return.
    async fn long_outage(&mut self, op: &Op) -> Checked {
        if self.squeezed.is_some() {
            return Ok(());
        }
        let Some(open) = self.open_file(op.a).await? else { return Ok(()) };
        let (handle, id, _own) = open;
        let (ino, fs) = (self.inos[&id], self.mounted.as_ref().unwrap().1.clone());
        let at = offset(op.b, self.reference.node(id).content.len());
        let bytes = data(op.d, length(op.c).max(1));
        let how = WriteHow::default();
        must("write", fs.write(&root_user(), (ino, handle), at as u64, &bytes, how).await)?;
        self.reference.write(id, at, &bytes);
        self.all_away();
        let start = tokio::time::Instant::now();
        let synced = fs.fsync(ino, handle, op.a.is_multiple_of(2)).await;
        let waited = start.elapsed();
        let (status, page) =
            (self.volume().status(), self.mounted.as_ref().unwrap().0.metrics_page());
        self.all_back().await;
        let page = must("metrics without any disk", page)?;
        let down = status.disks.iter().all(|disk| disk.state == "down" || disk.state == "out");
        if status.state != "waiting" || !down || !page.contains("\nironfs_writable 0\n") {
            return Err(format!("without any disk it says {status:?} and {page}"));
        }
        if !synced.as_ref().is_err_and(|error| error.posix() == Posix::Io)
            || !OUTAGE.contains(&waited)
        {
            return Err(format!("fsync answers {synced:?} after {waited:?} without any disk"));
        }
        must("fsync", fs.fsync(ino, handle, false).await)?;
        self.close(open).await
    }

    fn all_away(&self) {
        let machine = &self.rig.machine;
        (0..machine.disk_count()).for_each(|disk| machine.set_offline(disk, true));
    }

    /// But for those that are lost.
    async fn all_back(&self) {
        let machine = &self.rig.machine;
        let stays = |disk: &usize| {
            self.frail.into_iter().zip(self.lost).any(|(frail, lost)| frail == *disk && lost)
        };
        let back = (0..machine.disk_count()).filter(|disk| !stays(disk));
        back.for_each(|disk| machine.set_offline(disk, false));
        tokio::time::sleep(LOOK).await;
    }

    /// Flips a bit of a shard on a frail disk.
    fn rot(&self, op: &Op) {
        let disk = self.frail[usize::try_from(op.a % 2).unwrap()];
        let names = self.rig.machine.file_names(disk);
        let shards: Vec<&String> =
            names.iter().filter(|name| name.starts_with("shards/")).collect();
        if let Some(name) = pick(&shards, op.b) {
            let size = self.rig.machine.contents(disk, name).map_or(0, |bytes| bytes.len() as u64);
            self.rig.machine.flip(disk, name, (op.c * 7919 + op.d) % size.max(1));
        }
    }

    pub(super) async fn unmount(&mut self) -> Checked {
        let (volume, _fs) = self.mounted.take().unwrap();
        must("shutdown", volume.shutdown().await)
    }

    pub(super) async fn remount(&mut self) -> Checked {
        self.unmount().await?;
        self.reopen().await
    }

    async fn reopen(&mut self) -> Checked {
        // What is behind is certain: the journal of the disks stays short.
        self.rig.machine.settle();
        let volume = must("open", self.rig.open().await)?;
        volume.pause_repair(self.holds_repair);
        self.mounted = Some((volume.clone(), volume.fs()));
        self.work = Work::default();
        self.handles.clear();
        self.truncating.clear();
        self.reference.close_all();
        Ok(())
    }
}
