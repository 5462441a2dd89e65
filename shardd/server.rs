//! Answers the requests of peers: looks at their role, finds the slot, and hands over. Knows no connection.

use super::gather::{Asker, FETCHED_BYTES_MAX, Reach};
use super::slot::{OpenDirectory, Slot};
use crate::config::node::{NodeConfig, NodeLimits};
use crate::disk::Disk;
use crate::disk::local::LocalDisk;
use crate::disk::queue::DiskQueue;
use crate::error::{Error, ErrorKind, Result};
use crate::net::authority::Role;
use crate::net::quic::listener::{Caller, Service};
use crate::net::tls::PeerIdentity;
use crate::net::wire::{Answer, Order, PAYLOAD_BYTES_MAX, Served, ServedSlot};
use crate::net::{DiskCall, Operation, Request};
use crate::shard::store::StoreLimits;
use crate::sync::Arc;
use crate::types::{DiskId, MountId, VolumeId};
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// How often each directory is looked at.
const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// How long a directory may be silent before it is called away.
const SILENT: Duration = Duration::from_secs(5);
/// How long a process that has a directory may take to end: a mount that is just over, most often.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

/// Where the directories of a node come from, how their work is run, and how it reaches other nodes.
#[expect(missing_debug_implementations, reason = "an opener has nothing to show")]
pub struct Surroundings {
    /// Opens a directory.
    pub open: OpenDirectory,
    /// Disks answer in the calling task: simulated ones.
    pub inline: bool,
    /// Finds another node.
    pub reach: Reach,
}

impl Surroundings {
    /// The directories of this machine.
    pub fn local(reach: Reach) -> Self {
        let open = |path: &Path| Ok(Arc::new(LocalDisk::open(path)?) as Arc<dyn Disk>);
        Self { open: Arc::new(open), inline: false, reach }
    }
}

/// The directories of a node.
pub struct Server {
    slots: Vec<Arc<Slot>>,
    rack: String,
    zone: String,
    /// Held while empty directories are looked at.
    recognising: tokio::sync::Mutex<()>,
    /// The way to other nodes.
    pub(super) reach: Reach,
    /// Bytes that may still be fetched from them at once.
    pub(super) fetched: Semaphore,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the directories of `config`. One that is not there is served when it comes.
    ///
    /// Errors: `Refused` if one is in use, of a newer format, or the copy of another; or if they belong to several volumes.
    pub async fn open(config: &NodeConfig, surroundings: Surroundings) -> Result<Self> {
        let mut slots = Vec::with_capacity(config.disks.len());
        for (number, path) in (0..).zip(&config.disks) {
            slots.push(Arc::new(slot((number, path.clone()), &surroundings, &config.limits)?));
        }
        let opened = join_all(slots.iter().map(|slot| slot.open(LOCK_WAIT))).await;
        for (slot, opened) in slots.iter().zip(opened) {
            let shown = slot.path.display();
            match opened {
                Err(error) if error.kind() == ErrorKind::Refused => {
                    return Err(error.while_doing(format!("serve {shown}")));
                }
                Err(error) => {
                    tracing::warn!("{shown} is not there: {error}; it is served once it is");
                }
                Ok(()) => {}
            }
        }
        let server = Self {
            slots,
            rack: config.rack.clone(),
            zone: config.zone.clone(),
            recognising: tokio::sync::Mutex::default(),
            reach: surroundings.reach,
            fetched: Semaphore::new(FETCHED_BYTES_MAX),
        };
        server.check_copies()?;
        Ok(server)
    }

    /// All disks must be of one volume, each once.
    fn check_copies(&self) -> Result<()> {
        let mut seen: BTreeMap<DiskId, &PathBuf> = BTreeMap::new();
        let mut first: Option<(VolumeId, &PathBuf)> = None;
        for slot in &self.slots {
            let Some((volume, disk)) = slot.disk() else { continue };
            let shown = slot.path.display();
            let (known, at) = *first.get_or_insert((volume, &slot.path));
            if known != volume {
                return Err(Error::refused(format!(
                    "{shown} and {} belong to two volumes: a node serves one",
                    at.display()
                )));
            }
            if let Some(other) = seen.insert(disk, &slot.path) {
                return Err(Error::refused(format!(
                    "{shown} and {} both say that they are disk {disk}: one is a copy; take it away",
                    other.display()
                )));
            }
        }
        Ok(())
    }

    /// What is served, for people: each path, and the trouble with it if there is some.
    pub fn slots(&self) -> Vec<(PathBuf, Option<DiskId>, Option<String>)> {
        let shown = |slot: &Arc<Slot>| {
            (slot.path.clone(), slot.disk().map(|(_volume, disk)| disk), slot.trouble())
        };
        self.slots.iter().map(shown).collect()
    }

    /// Looks after the directories until `stop`: what goes is let go, what comes is served.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(PROBE_PERIOD);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _at = interval.tick() => {}
            }
            join_all(self.slots.iter().map(|slot| self.look_at(slot))).await;
        }
    }

    async fn look_at(&self, slot: &Slot) {
        let (shown, before) = (slot.path.display(), slot.trouble());
        if before.is_none() {
            let late = |_late| Err(Error::unavailable(format!("no answer for {SILENT:?}")));
            let probed = tokio::time::timeout(SILENT, slot.probe()).await.unwrap_or_else(late);
            let Err(error) = probed else { return };
            tracing::error!("{shown} is out of use: {error}");
            slot.close(&error.to_string()).await;
        }
        if slot.open(Duration::ZERO).await.is_err() {
            return;
        }
        if let Err(error) = self.check_copies() {
            let reason = error.to_string();
            if before.as_ref() != Some(&reason) {
                tracing::error!("{reason}");
            }
            slot.close(&reason).await;
            return;
        }
        tracing::info!("{shown} is in use again");
    }

    /// Closes all directories: their indexes are whole afterwards.
    pub async fn close(&self) {
        join_all(self.slots.iter().map(|slot| slot.close("the node ends"))).await;
    }

    async fn answer(&self, caller: &Caller, mount: MountId, order: Order) -> Result<Answer> {
        check_role(&caller.peer, &order)?;
        match order {
            Order::Disks => Ok(Answer::Disks(self.served())),
            Order::Disk { slot, call } => {
                let at = usize::try_from(slot).unwrap_or(usize::MAX);
                let none = || Error::refused(format!("there is no slot {slot} here"));
                let slot = self.slots.get(at).ok_or_else(none)?;
                slot.file(mount, call).await.map(Answer::Disk)
            }
            Order::Shard(request) => {
                let Request { disk, epoch, priority, operation } = request;
                let slot = self.slot_of(disk).await?;
                let reader = (caller.peer.role == Role::Client).then_some(mount);
                let response = match operation {
                    Operation::Gather(gather) => {
                        self.gather(slot, Asker { mount, epoch, priority }, gather).await
                    }
                    operation => slot.shard((reader, epoch), priority, operation).await,
                };
                response.map(Answer::Shard)
            }
        }
    }

    fn served(&self) -> Served {
        let slot = |slot: &Arc<Slot>| ServedSlot {
            slot: slot.number,
            disk: slot.disk().map(|(_volume, disk)| disk),
            path: slot.path.display().to_string(),
        };
        let slots = self.slots.iter().map(slot).collect();
        Served { rack: self.rack.clone(), zone: self.zone.clone(), slots }
    }

    /// The slot where a disk lies, if it is one of this node.
    pub(super) fn slot_with(&self, disk: DiskId) -> Option<&Arc<Slot>> {
        let is_it = |slot: &&Arc<Slot>| slot.disk().is_some_and(|(_volume, found)| found == disk);
        self.slots.iter().find(is_it)
    }

    /// The slot where a disk lies: an empty directory may have become it just now.
    async fn slot_of(&self, disk: DiskId) -> Result<&Arc<Slot>> {
        if let Some(slot) = self.slot_with(disk) {
            return Ok(slot);
        }
        let _one = self.recognising.lock().await;
        for slot in &self.slots {
            if let Err(error) = slot.recognise().await {
                tracing::warn!("{}: {error}", slot.path.display());
            }
        }
        self.check_copies()?;
        let away = || Error::unavailable(format!("disk {disk} is not there"));
        self.slot_with(disk).ok_or_else(away)
    }
}

fn slot(
    (number, path): (u32, PathBuf),
    surroundings: &Surroundings,
    limits: &NodeLimits,
) -> Result<Slot> {
    let threads = usize::try_from(limits.disk_threads).unwrap_or(1);
    let depth = usize::try_from(limits.disk_queue).unwrap_or(1);
    let queue = if surroundings.inline {
        DiskQueue::inline()
    } else {
        DiskQueue::threads(&format!("slot-{number}"), threads, depth)?
    };
    let limits = StoreLimits {
        footer_bytes: u64::from(limits.footer_cache_mib) * MIB,
        open_files: usize::try_from(limits.open_shards).unwrap_or(usize::MAX),
    };
    Slot::new((number, path), surroundings.open.clone(), queue, limits)
}

/// What a role may ask for: another node reads shards, to make others of them, and no more.
fn check_role(peer: &PeerIdentity, order: &Order) -> Result<()> {
    let looks = match order {
        Order::Disks => true,
        Order::Disk { call, .. } => matches!(call, DiskCall::Identity | DiskCall::Space),
        Order::Shard(_) => false,
    };
    let reads = match order {
        Order::Shard(request) => {
            matches!(request.operation, Operation::Fetch(..) | Operation::Stat(_))
        }
        Order::Disk { .. } | Order::Disks => false,
    };
    let may = match peer.role {
        Role::Client => true,
        Role::Node => reads,
        Role::Admin => looks,
    };
    if may {
        return Ok(());
    }
    tracing::warn!(%peer, "asked for what its role may not");
    let context = format!("{peer}: a certificate with role {} may not do this", peer.role);
    Err(Error::refused(context))
}

/// The server of a node, as its connections share it.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<Server>);

impl Service for Shared {
    fn serve<'a>(
        &'a self,
        caller: &'a Caller,
        mount: MountId,
        order: Order,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match self.0.answer(caller, mount, order).await {
                Ok(answer) => answer,
                Err(error) => Answer::Error(error),
            }
        })
    }

    fn answer_bytes(&self, order: &Order) -> u64 {
        match order {
            Order::Shard(request) => match &request.operation {
                Operation::Fetch(_key, ranges) => ranges
                    .iter()
                    .map(|range| range.end.saturating_sub(range.start))
                    .fold(0, u64::saturating_add)
                    .min(PAYLOAD_BYTES_MAX),
                _ => 0,
            },
            Order::Disk { call: DiskCall::Read { length, .. }, .. } => (*length).into(),
            Order::Disk { .. } | Order::Disks => 0,
        }
    }
}
