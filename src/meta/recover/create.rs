//! Makes a new volume on empty disks.

use super::NewVolume;
use crate::config::labels::Labels;
use crate::disk::mirror::MirrorFile;
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskHandle;
use crate::disk::superblock::{self, LogMember, Member, MemberList, MemberState, Superblock};
use crate::disk::{Disk, DiskFile, LOCK_FILE};
use crate::error::{Error, Result};
use crate::limits::DISKS_MAX;
use crate::meta::command::Command;
use crate::meta::local::state::{create_copy, encode};
use crate::meta::log::record::Batch;
use crate::meta::log::{Chain, LogDisk, LogWriter, SEGMENT_BYTES};
use crate::meta::store::Store;
use crate::types::{DiskId, Epoch, LogPosition};
use std::sync::Arc;

/// Epoch of a new volume.
const FIRST_EPOCH: Epoch = Epoch(1);
/// redb's cache for a state with one directory.
const CACHE_BYTES: usize = 1 << 20;

/// Makes a new volume on empty disks (locked by the caller), numbered from 1 in their order. Durable on return.
///
/// Errors: `Refused` if a disk is not empty.
pub async fn format(disks: Vec<(Arc<dyn Disk>, DiskQueue, Labels)>, new: NewVolume) -> Result<()> {
    crate::config::validate_name(&new.name)?;
    new.class.validate()?;
    if disks.is_empty() || disks.len() > DISKS_MAX {
        return Err(Error::refused(format!("a volume has 1 to {DISKS_MAX} disks")));
    }
    let mut handles = Vec::new();
    let mut members = Vec::new();
    for (id, (disk, queue, labels)) in (1..).map(DiskId).zip(disks) {
        let handle = Arc::new(DiskHandle { id, disk, queue });
        let target = handle.disk.clone();
        let space = handle.queue.run(move || check_empty(&*target).and_then(|()| target.space()));
        let space = space.await?;
        members.push(Member {
            disk: id,
            state: MemberState::Healthy,
            capacity_bytes: space.total_bytes,
            device: space.device,
            path: handle.disk.label(),
            labels: labels.validate()?,
        });
        handles.push(handle);
    }
    let tolerance = new.class.scheme.m();
    let log_disks = log_disks(&members, 1 + usize::from(tolerance));
    let log = log_disks.iter().map(|disk| LogMember { disk: *disk, start: LogPosition(0) });
    let list = MemberList {
        epoch: FIRST_EPOCH,
        previous_epoch: Epoch(0),
        disks: members,
        log: log.collect(),
        previous_log: Vec::new(),
        tolerance,
        nodes: new.nodes.clone(),
    };
    for handle in &handles {
        let (disk, id, members) = (handle.disk.clone(), handle.id, list.clone());
        let (volume, name) = (new.volume, new.name.clone());
        let create = move || {
            superblock::create(&*disk, &Superblock { volume, name, disk: id, sequence: 1, members })
        };
        handle.queue.run(create).await?;
    }
    handles.retain(|handle| log_disks.contains(&handle.id));
    fill(&handles, new).await
}

/// The disks for the log: as far from each other as possible.
fn log_disks(members: &[Member], wanted: usize) -> Vec<DiskId> {
    let mut chosen: Vec<&Member> = Vec::new();
    for _disk in 0..wanted.min(members.len()) {
        let free = members.iter().filter(|member| chosen.iter().all(|c| c.disk != member.disk));
        chosen.extend(free.min_by_key(|member| (member.closeness(&chosen), member.disk)));
    }
    let mut chosen: Vec<_> = chosen.into_iter().map(|member| member.disk).collect();
    chosen.sort_unstable();
    chosen
}

fn check_empty(disk: &dyn Disk) -> Result<()> {
    let own = |name: &str| name == LOCK_FILE || name == "lost+found";
    match disk.list("")?.into_iter().find(|entry| !own(&entry.name)) {
        None => Ok(()),
        Some(entry) => Err(Error::refused(format!(
            "{} is not empty: it contains {:?}",
            disk.label(),
            entry.name
        ))),
    }
}

/// Log and state with the first command: the log first, as ever.
async fn fill(handles: &[Arc<DiskHandle>], new: NewVolume) -> Result<()> {
    let NewVolume { volume, class, uid, gid, time, .. } = new;
    let genesis = Command::Genesis { class, uid, gid, time };
    let chain = Chain { volume, base: FIRST_EPOCH };
    let batch = Arc::new(Batch::seal(chain, FIRST_EPOCH, LogPosition(0), &[encode(&genesis)]));
    let mut files: Vec<(DiskId, Arc<dyn DiskFile>)> = Vec::new();
    for handle in handles {
        let disk = handle.disk.clone();
        let begin = move || LogWriter::begin(disk, chain, SEGMENT_BYTES, None);
        let log = LogDisk::new(handle.clone(), handle.queue.run(begin).await?);
        log.append(batch.clone()).await?;
        let disk = handle.disk.clone();
        files.push((handle.id, handle.queue.run(move || create_copy(&*disk)).await?));
    }
    let first = handles.first().ok_or_else(|| Error::internal("no log disk"))?;
    let failed = move |disk: DiskId, error: &Error| {
        tracing::error!(disk = disk.get(), %error, "cannot write the metadata");
    };
    let work = move || {
        let mirror = MirrorFile::create(files, Arc::new(failed))?;
        let store = Store::open(mirror.clone(), CACHE_BYTES)?;
        for reply in store.apply(LogPosition(0), &[genesis])? {
            reply?;
        }
        store.checkpoint()?;
        drop(store);
        match mirror.replicas().into_iter().find(|(_disk, alive)| !alive) {
            Some((disk, _alive)) => Err(Error::unavailable(format!("disk {disk} failed"))),
            None => Ok(()),
        }
    };
    first.queue.run(work).await
}
