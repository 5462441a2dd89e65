//! Opens the metadata of a volume: which epoch counts, which log and state copies are believed, what is replayed.
//! Knows nothing of stripes and files.
//!
//! Nothing that the epoch found needs is touched before the next one is in force: the tail of the log goes into files
//! of a new chain, copies of the state are made beside the old ones, and only then the superblocks follow. So a crash
//! in here leaves either the old epoch as it was, or the new one complete.

use crate::class::Class;
use crate::config::labels::Labels;
use crate::disk::Disk;
use crate::disk::mirror::{MirrorFile, OnDead};
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskSet};
use crate::disk::superblock::{Member, MemberList, MemberState, Superblock};
use crate::error::{Error, Posix, Result};
use crate::meta::Log;
use crate::meta::client::Views;
use crate::meta::command::Command;
use crate::meta::local::state::{
    Deaths, Keep, Overlay, StateHandle, attach, open_mirror, read_clean,
};
use crate::meta::local::{LocalLog, Start};
use crate::meta::log::merge::Merged;
use crate::meta::log::scan::scan;
use crate::types::{DiskId, Epoch, Incarnation, LogPosition, Timestamp, VolumeId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod choose;
mod create;
#[cfg(test)]
mod tests;

pub use create::format;

/// redb's cache while a copy of the state is only asked for its position.
const PEEK_CACHE_BYTES: usize = 1 << 20;
/// Most jobs that wait for the thread that changes the state.
const QUEUE_DEPTH: usize = 1024;

/// A disk that is there and has a superblock. The caller has locked it.
#[derive(Debug)]
pub struct PresentDisk {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where its blocking work runs.
    pub queue: DiskQueue,
    /// What it says about itself.
    pub superblock: Superblock,
    /// Its device now, if it tells.
    pub device: Option<u64>,
}

/// How a volume's metadata is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Replay in memory and write nothing anywhere.
    pub read_only: bool,
    /// Disks may be reached from several machines, as those at nodes always may: only who reaches more than half of them may
    /// change anything, so that no two mounts do.
    pub shared: bool,
    /// Bound of redb's cache.
    pub cache_bytes: usize,
    /// Size of a log file.
    pub segment_bytes: u64,
    /// Most bytes of the log that wait for a sync; proposers wait beyond.
    pub buffer_bytes: usize,
    /// How often the log is made durable without being asked.
    pub flush_every: Duration,
    /// How often the state is made durable.
    pub checkpoint_every: Duration,
    /// Bytes of log after which the state is made durable early.
    pub checkpoint_bytes: u64,
    /// How long a change or a sync waits while too many disks are away.
    pub patience: Duration,
}

/// Metadata that is open.
#[derive(Debug)]
pub struct Opened {
    /// The log, which also gives views.
    pub log: Arc<LocalLog>,
    /// All members' disks; those that are absent are down.
    pub disks: Arc<DiskSet>,
    /// Identity of the volume.
    pub volume: VolumeId,
    /// Name of the volume.
    pub name: String,
    /// This mount, durable in the state (read-only: the latest mount).
    pub incarnation: Incarnation,
    /// Whether the mount before ended with a shutdown.
    pub clean: bool,
    /// Whether every member that is not out was there, so that the newest epoch was seen completely.
    pub complete: bool,
}

/// What a new volume is.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Identity, random.
    pub volume: VolumeId,
    /// Name.
    pub name: String,
    /// Class of the root directory.
    pub class: Class,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// When.
    pub time: Timestamp,
    /// Where nodes are, `host:port` by name.
    pub nodes: BTreeMap<String, String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            shared: false,
            cache_bytes: 128 << 20,
            segment_bytes: crate::meta::log::SEGMENT_BYTES,
            buffer_bytes: crate::meta::log::BUFFER_BYTES,
            flush_every: Duration::from_secs(1),
            checkpoint_every: Duration::from_secs(5),
            checkpoint_bytes: 32 << 20,
            patience: Duration::from_secs(60),
        }
    }
}

/// Opens the metadata on the disks that are present; the others are taken for absent.
///
/// Errors: `Refused` with a sentence that names what is missing, or what does not belong together.
pub async fn open(present: Vec<PresentDisk>, options: OpenOptions) -> Result<Opened> {
    let mut found = choose::choose(&present)?;
    note_places(&mut found.list, &present);
    let absent = found.list.disks.iter().filter(|member| {
        let here = present.iter().any(|disk| disk.superblock.disk == member.disk);
        member.state.is_expected() && !here
    });
    let absent: Vec<_> = absent.cloned().collect();
    if absent.len() > usize::from(found.list.tolerance) && !options.read_only {
        let paths: Vec<_> = absent.iter().map(|m| format!("{} ({})", m.disk, m.path)).collect();
        return Err(Error::refused(format!(
            "volume {} needs more of its disks: {} are absent, at most {} may be, or newer changes could be \
             overlooked. Connect disks {}, or mount read-only",
            found.name,
            absent.len(),
            found.list.tolerance,
            paths.join(", ")
        )));
    }
    check_majority(&found.list, &present, options)?;
    let places = present.iter().map(Standing::of).collect::<Vec<_>>();
    let queue = match present.iter().any(|disk| disk.queue.is_inline()) {
        true => DiskQueue::inline(),
        false => DiskQueue::threads("meta", 1, QUEUE_DEPTH)?,
    };
    let believed: Vec<_> = found.believed(&present);
    let disks = disk_set(&found.list, present);
    let survey = Survey::take(&found, &disks, believed).await?;
    let state = {
        let (disks, survey) = (disks.clone(), survey.clone());
        queue.run(move || survey.state(&disks, options)).await?
    };
    let end = state.at.advance(state.tail.len() as u64);
    let clean = survey.clean.contains(&(found.list.epoch, end)) && state.tail.is_empty();
    let preferred = [state.handle.used(), survey.disks()].concat();
    let log = Arc::new(LocalLog::new(Start {
        volume: found.volume,
        name: found.name.clone(),
        disks: disks.clone(),
        members: found.list.clone(),
        queue,
        options,
        state: state.handle,
        checkpointed: state.at,
        recent: state.tail.into(),
        stopped: options.read_only.then(|| String::from("it was mounted so")),
    }));
    let mut incarnation = log.view()?.totals()?.incarnation;
    if !options.read_only {
        log.begin(next_list(&found.list, &disks, &places), dedup(preferred), survey.base).await?;
        incarnation = Incarnation(incarnation.get() + 1);
        let (replies, _end) = log.propose(vec![Command::StartMount { incarnation }]).await?;
        replies.into_iter().collect::<Result<Vec<_>, _>>()?;
        log.sync().await?;
        log.checkpoint().await?;
    }
    let (volume, name, complete) = (found.volume, found.name, absent.is_empty());
    Ok(Opened { log, disks, volume, name, incarnation, clean, complete })
}

/// What the log disks hold.
#[derive(Clone, Debug)]
struct Survey {
    log: Arc<Merged>,
    /// Base of the newest chain.
    base: Epoch,
    /// Copies of the state that open, and how far each is; the furthest first.
    copies: Vec<(DiskId, LogPosition)>,
    /// What was wrong with others.
    complaints: Vec<String>,
    /// Where the volume was closed, as the disks say.
    clean: Vec<(Epoch, LogPosition)>,
    /// Disks with a log, whatever their state.
    members: Vec<DiskId>,
}

/// The state, recovered.
#[derive(Debug)]
struct Recovered {
    handle: StateHandle,
    /// Where the copies are durable.
    at: LogPosition,
    /// Commands from there on; they are applied.
    tail: Vec<Bytes>,
}

impl Survey {
    async fn take(
        found: &choose::Found,
        disks: &Arc<DiskSet>,
        believed: Vec<DiskId>,
    ) -> Result<Self> {
        let (volume, epoch) = (found.volume, found.list.epoch);
        let mut logs = Vec::new();
        let mut survey = Self {
            log: Arc::default(),
            base: epoch,
            copies: Vec::new(),
            complaints: Vec::new(),
            clean: Vec::new(),
            members: Vec::new(),
        };
        for handle in believed.into_iter().filter_map(|disk| disks.get(disk)) {
            let (id, disk) = (handle.id, handle.disk.clone());
            let log = handle.queue.run(move || scan(&*disk, volume, epoch)).await;
            match log {
                Ok(Some(log)) => {
                    if log.damaged > 0 {
                        tracing::warn!(disk = id.get(), count = log.damaged, "damaged log records");
                    }
                    logs.push(log);
                    survey.members.push(id);
                }
                Ok(None) => survey.complaints.push(format!("disk {id} has no log")),
                Err(error) => {
                    disks.report(id, &error);
                    survey.complaints.push(format!("disk {id}: {error}"));
                }
            }
            let peeked = handle.clone();
            match handle.queue.run(move || peek(&peeked)).await {
                Ok(at) => survey.copies.push((id, at)),
                Err(error) => survey.complaints.push(format!("disk {id}: {error}")),
            }
            let disk = handle.disk.clone();
            survey.clean.extend(handle.queue.run(move || Ok(read_clean(&*disk))).await?);
        }
        let newest = logs.iter().map(|log| log.base).max();
        let Some(base) = newest else {
            return Err(Error::refused(format!(
                "no log disk of epoch {epoch} of volume {} is there and intact ({}). Connect one of disks {}",
                found.name,
                survey.complaints.join("; "),
                ids(found.list.log.iter().map(|member| member.disk))
            )));
        };
        logs.retain(|log| log.base == base);
        survey.base = base;
        survey.log = Arc::new(Merged::new(logs));
        survey.copies.sort_by_key(|(disk, at)| (std::cmp::Reverse(*at), *disk));
        Ok(survey)
    }

    fn disks(&self) -> Vec<DiskId> {
        self.members.clone()
    }

    /// The furthest copy of the state that the log reaches and that takes the rest of it.
    fn state(&self, disks: &Arc<DiskSet>, options: OpenOptions) -> Result<Recovered> {
        let mut complaints = self.complaints.clone();
        for (disk, at) in &self.copies {
            let tail = match self.log.tail(*at) {
                Ok(tail) => tail,
                Err(error) => {
                    complaints.push(format!("disk {disk}: {error}"));
                    continue;
                }
            };
            let Some(handle) = disks.get(*disk) else { continue };
            let rest = |found: LogPosition| match found == *at {
                true => Ok(tail.clone()),
                false => Err(Error::corrupt(format!("the state is at {found}, not {at}"))),
            };
            let take = |keep: Keep| {
                if options.read_only {
                    return private(&handle, options.cache_bytes, rest);
                }
                let deaths = Deaths::default();
                let mirror = self.equals(&handle, *at, keep, disks, &deaths)?;
                StateHandle::open(mirror, deaths, keep, options.cache_bytes, rest)
            };
            let opened = match take(Keep::OnDisks) {
                Err(error) if error.is(Posix::NoSpace) => take(Keep::InMemory),
                other => other,
            };
            match opened {
                Ok(handle) => return Ok(Recovered { handle, at: *at, tail }),
                Err(error) => complaints.push(format!("disk {disk}: {error}")),
            }
        }
        Err(Error::refused(format!(
            "the metadata cannot be recovered from these disks: {}",
            complaints.join("; ")
        )))
    }

    /// The copy on one disk and those that are equal to it.
    fn equals(
        &self,
        handle: &DiskHandle,
        at: LogPosition,
        keep: Keep,
        disks: &Arc<DiskSet>,
        deaths: &Deaths,
    ) -> Result<MirrorFile> {
        let mirror = open_mirror(handle, deaths.listener(disks.clone()))?;
        let equals = self.copies.iter().filter(|(disk, other)| *disk != handle.id && *other == at);
        for other in equals.filter_map(|(disk, _at)| disks.get(*disk)) {
            match attach(&mirror, &other, keep) {
                Ok(_is_equal) => {}
                Err(error) if error.is(Posix::NoSpace) => return Err(error),
                Err(error) => {
                    disks.report(other.id, &error);
                }
            }
        }
        Ok(mirror)
    }
}

/// How far the copy of the state on a disk is. Writes nothing there.
fn peek(handle: &DiskHandle) -> Result<LogPosition> {
    let nothing = |_at| Ok(Vec::new());
    Ok(private(handle, PEEK_CACHE_BYTES, nothing)?.store.applied())
}

/// The copy of the state on a disk with the rest of the log applied, of which nothing reaches the disk.
fn private(
    handle: &DiskHandle,
    cache_bytes: usize,
    rest: impl FnOnce(LogPosition) -> Result<Vec<Bytes>>,
) -> Result<StateHandle> {
    let quiet: OnDead = Arc::new(|disk, error| {
        tracing::warn!(disk = disk.get(), %error, "a copy of the metadata is damaged");
    });
    let overlay = Overlay::open(handle, quiet)?;
    let store = overlay.store(cache_bytes, rest)?;
    Ok(StateHandle { store, mirror: None, overlay: None, deaths: Deaths::default() })
}

fn disk_set(list: &MemberList, present: Vec<PresentDisk>) -> Arc<DiskSet> {
    let mut handles: Vec<_> = present
        .into_iter()
        .map(|disk| {
            let PresentDisk { disk, queue, superblock, .. } = disk;
            Arc::new(DiskHandle { id: superblock.disk, disk, queue })
        })
        .collect();
    let slot = |member: &Member| {
        let at = handles.iter().position(|handle| handle.id == member.disk);
        (member.disk, member.path.clone(), at.map(|at| handles.swap_remove(at)))
    };
    Arc::new(DiskSet::new(list.disks.iter().map(slot).collect()))
}

/// A mount of disks that another machine may reach too needs more than half of them.
fn check_majority(list: &MemberList, present: &[PresentDisk], options: OpenOptions) -> Result<()> {
    let here = |member: &&Member| present.iter().any(|disk| disk.superblock.disk == member.disk);
    let expected = || list.disks.iter().filter(|member| member.state.is_expected());
    let (here, all) = (expected().filter(here).count(), expected().count());
    let shared = options.shared || list.is_shared();
    if options.read_only || !shared || 2 * here > all {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{here} of {all} disks answer: more than half must, or another machine could mount the volume at the same time. \
         Start the other nodes, or mount read-only"
    )))
}

/// Disks may lie elsewhere than they were seen last.
fn note_places(list: &mut MemberList, present: &[PresentDisk]) {
    for member in &mut list.disks {
        let here = present.iter().find(|disk| disk.superblock.disk == member.disk);
        if let Some(here) = here {
            member.path = here.disk.label();
        }
    }
}

/// Where a disk was found.
#[derive(Clone, Debug)]
struct Standing {
    disk: DiskId,
    device: Option<u64>,
    labels: Labels,
}

impl Standing {
    fn of(present: &PresentDisk) -> Self {
        let (disk, device) = (present.superblock.disk, present.device);
        Self { disk, device, labels: present.disk.labels() }
    }
}

/// The list for this mount: who is there is healthy, who is not is down.
fn next_list(list: &MemberList, disks: &DiskSet, places: &[Standing]) -> MemberList {
    let mut next = list.clone();
    for member in next.disks.iter_mut().filter(|member| member.state != MemberState::Removed) {
        member.state = match (disks.get(member.disk), member.state) {
            (_, MemberState::Draining) => MemberState::Draining,
            (Some(_), _) => MemberState::Healthy,
            (None, MemberState::Out) => MemberState::Out,
            (None, _) => MemberState::Down,
        };
        if let Some(place) = places.iter().find(|place| place.disk == member.disk) {
            member.device = place.device.unwrap_or(member.device);
            member.labels = std::mem::take(&mut member.labels).with_place(&place.labels);
        }
    }
    next
}

fn dedup(disks: Vec<DiskId>) -> Vec<DiskId> {
    let mut seen = Vec::new();
    for disk in disks {
        if !seen.contains(&disk) {
            seen.push(disk);
        }
    }
    seen
}

fn ids(disks: impl Iterator<Item = DiskId>) -> String {
    disks.map(|disk| disk.to_string()).collect::<Vec<_>>().join(", ")
}
