//! Finds and locks the disks of a volume. Decides only what belongs together; which metadata is believed is decided by
//! recovery.

use super::prober::disk_queue;
use super::{OpenDisk, Volume, VolumeOptions, World};
use crate::config::Config;
use crate::disk::superblock::{self, MemberList, MemberState, Superblock};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::recover::PresentDisk;
use crate::net::Peers;
use crate::types::DiskId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between looks at disks that are not there yet.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an old server may take to let go of a disk ...
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// ... and how long until a node takes the mount before for gone: its lease, and somewhat.
const LEASE_WAIT: Duration = Duration::from_secs(15);
/// Pause between attempts to lock a disk: an old server is often just about to end.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A disk that was found.
struct Found {
    path: PathBuf,
    open: OpenDisk,
    superblock: Superblock,
}

/// Where requests for the shards of disks go that other processes serve.
pub(super) type Remotes = Vec<(DiskId, Arc<dyn Peers>)>;

/// The disks of `config` that are there, locked, and those that came into the volume later. Waits for those that are
/// late. One that has left the volume is not among them.
///
/// Errors: `Refused` when a directory belongs to something else, or another process holds it.
pub(super) async fn disks(
    config: &Config,
    options: &VolumeOptions,
    world: &World,
) -> Result<(Vec<PresentDisk>, Remotes)> {
    let deadline = Instant::now() + Duration::from_secs(u64::from(config.limits.disk_wait_s));
    let mut found: Vec<Found> = Vec::new();
    loop {
        learn_nodes(config, world, newest(&found))?;
        let mut late = Vec::new();
        for path in places(config, &found) {
            let configured = config.disks.contains(&path);
            let looked = look(&path, world);
            match if configured { looked? } else { looked.unwrap_or_default() } {
                Some((open, superblock)) if configured || fits(&found, &superblock) => {
                    found.push(Found { path, open, superblock });
                }
                Some(_) | None => late.push(path),
            }
        }
        // What was found last may know of others, or that some have left.
        let open = places(config, &found);
        late.retain(|path| open.contains(path));
        if open.iter().any(|path| !late.contains(path)) {
            continue;
        }
        if late.is_empty() || Instant::now() >= deadline {
            for path in late {
                tracing::warn!("{}: no disk of volume {} is there", path.display(), config.name);
            }
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    check(config, &found)?;
    let members = newest(&found).cloned().unwrap_or_default();
    found.retain(|disk| !has_left(&members, disk.superblock.disk));
    let (mut present, mut remotes) = (Vec::with_capacity(found.len()), Vec::new());
    for Found { open, superblock, .. } in found {
        if let Err(error) = lock(&open, options).await {
            // Others need not wait for the leases of a mount that comes to nothing.
            present.iter().for_each(|taken: &PresentDisk| taken.disk.release());
            return Err(error);
        }
        let queue = disk_queue(&config.limits, superblock.disk, world.inline)?;
        remotes.extend(open.remote.map(|remote| (superblock.disk, remote)));
        let device = open.disk.identity().ok().map(|identity| identity.device);
        present.push(PresentDisk { disk: open.disk, queue, superblock, device });
    }
    Ok((present, remotes))
}

/// Has the world know the nodes that the disks know of. Where the configuration says another address, that one counts: it is
/// how the first disks were found.
fn learn_nodes(config: &Config, world: &World, members: Option<&MemberList>) -> Result<()> {
    let (Some(nodes), Some(members)) = (&world.nodes, members) else { return Ok(()) };
    let new = members.nodes.iter().filter(|(name, _address)| !config.peer.contains_key(*name));
    new.into_iter().try_for_each(|(name, address)| nodes.learn(name, address))
}

/// The member list of the newest superblock.
fn newest(found: &[Found]) -> Option<&MemberList> {
    let lists = found.iter().map(|disk| &disk.superblock.members);
    lists.max_by_key(|list| list.epoch)
}

/// Whether what lies where a member was last seen is a disk of this volume.
fn fits(found: &[Found], superblock: &Superblock) -> bool {
    found.iter().all(|other| {
        other.superblock.volume == superblock.volume && other.superblock.disk != superblock.disk
    })
}

fn has_left(members: &MemberList, disk: DiskId) -> bool {
    members.member(disk).is_some_and(|member| member.state == MemberState::Removed)
}

/// Where disks may be that are not found yet: those of the configuration that have not left, and members that came
/// later.
fn places(config: &Config, found: &[Found]) -> Vec<PathBuf> {
    let members = newest(found).map_or_else(Vec::new, |list| list.disks.clone());
    let here = |disk| found.iter().any(|other| other.superblock.disk == disk);
    let left = |path: &Path| {
        let mut at = members.iter().filter(|member| Path::new(&member.path) == path).peekable();
        at.peek().is_some() && at.all(|member| member.state == MemberState::Removed)
    };
    let configured = config.disks.iter().filter(|path| !left(path)).cloned();
    let later = members.iter().filter(|member| {
        member.state != MemberState::Removed && !member.path.is_empty() && !here(member.disk)
    });
    let mut places: Vec<PathBuf> = configured.collect();
    for path in later.map(|member| PathBuf::from(&member.path)) {
        if !places.contains(&path) {
            places.push(path);
        }
    }
    places.retain(|path| found.iter().all(|disk| disk.path != *path));
    places
}

/// Opens one directory. `None` if it is not there, or empty: the disk may be mounted late.
fn look(path: &Path, world: &World) -> Result<Option<(OpenDisk, Superblock)>> {
    let read = (world.opener)(path).and_then(|open| Ok((superblock::read(&*open.disk)?, open)));
    match read {
        Ok((Some(superblock), open)) => Ok(Some((open, superblock))),
        Ok((None, _open)) => Ok(None),
        Err(error) => match error.kind() {
            ErrorKind::Refused => Err(error),
            ErrorKind::Posix(_)
            | ErrorKind::Unavailable
            | ErrorKind::Fenced
            | ErrorKind::Superseded
            | ErrorKind::Corrupt
            | ErrorKind::Internal => {
                tracing::warn!("{}: {error}", path.display());
                Ok(None)
            }
        },
    }
}

/// All must be disks of one volume, each once.
fn check(config: &Config, found: &[Found]) -> Result<()> {
    let Some(first) = found.first() else {
        return Err(Error::refused(format!(
            "none of the {} disks of volume {} is there: check that they are mounted",
            config.disks.len(),
            config.name
        )));
    };
    let mut seen: BTreeMap<DiskId, &Path> = BTreeMap::new();
    for disk in found {
        let (path, superblock) = (disk.path.display(), &disk.superblock);
        if superblock.name != config.name {
            return Err(Error::refused(format!(
                "{path} belongs to volume {}, not to {}: correct the configuration",
                superblock.name, config.name
            )));
        }
        if superblock.volume != first.superblock.volume {
            return Err(Error::refused(format!(
                "{path} and {} belong to two volumes of the same name: correct the configuration",
                first.path.display()
            )));
        }
        if let Some(other) = seen.insert(superblock.disk, &disk.path) {
            return Err(Error::refused(format!(
                "{path} and {} both say that they are disk {}: one is a copy; take it out of the configuration",
                other.display(),
                superblock.disk
            )));
        }
    }
    Ok(())
}

/// Takes the lock of a disk; one that is just being unmounted is waited for.
pub(super) async fn lock(open: &OpenDisk, options: &VolumeOptions) -> Result<()> {
    let patience = if open.remote.is_some() { LEASE_WAIT } else { LOCK_WAIT };
    let deadline = Instant::now() + patience;
    loop {
        match open.disk.lock(&options.holder) {
            Err(error) if error.kind() == ErrorKind::Refused && Instant::now() < deadline => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            result => return result,
        }
    }
}

impl Volume {
    /// Number of the disk that `name` means: its number or its path.
    pub(super) fn disk_named(&self, name: &str) -> Result<DiskId> {
        let members = self.log.members();
        let by_path = members.disks.iter().find(|member| member.path == name);
        let by_number = || {
            let number = name.parse().ok().map(DiskId)?;
            members.member(number)
        };
        match by_path.or_else(by_number) {
            Some(member) => Ok(member.disk),
            None => {
                let known: Vec<&str> = members
                    .disks
                    .iter()
                    .filter(|member| member.state != MemberState::Removed)
                    .map(|member| member.path.as_str())
                    .collect();
                Err(Error::refused(format!(
                    "{name} is no disk of volume {}: its disks are {}",
                    self.config.name,
                    known.join(", ")
                )))
            }
        }
    }
}
