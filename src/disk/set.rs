//! The disks of a volume as this process sees them: who is there, who is down, and why. The one place that
//! decides whether a disk is used. Knows nothing of what the disks hold.

use crate::disk::pace::{PATIENCE_MAX, compare};
use crate::disk::queue::DiskQueue;
use crate::disk::{Disk, Space};
use crate::error::{Error, ErrorKind, Posix};
use crate::lane::drop_apart;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::types::DiskId;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::watch;

#[cfg(test)]
mod tests;

/// A disk in use.
#[derive(Debug)]
pub struct DiskHandle {
    /// The disk's number.
    pub id: DiskId,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where its blocking work runs.
    pub queue: DiskQueue,
}

/// Whether a disk is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskState {
    /// In use.
    Healthy,
    /// In use, but slow to answer: it is read, and gets new data, only when others do not suffice.
    Suspect,
    /// Not used since an error, which is told.
    Down(String),
}

/// One disk as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskStatus {
    /// The disk.
    pub id: DiskId,
    /// Its path, for people.
    pub label: String,
    /// Whether it is used.
    pub state: DiskState,
    /// Errors that it answered with since the process started (a full device is none).
    pub errors: u64,
    /// Whether it is out of space, far beyond the reserve: new shards go to others.
    pub full: bool,
}

/// All disks of a volume.
#[derive(Debug)]
pub struct DiskSet {
    slots: RwLock<BTreeMap<DiskId, Slot>>,
    changes: watch::Sender<u64>,
    /// How it was noticed that another mount has taken the disks.
    superseded: OnceLock<String>,
    /// How long an answer may take before others are asked, in microseconds.
    patience: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    label: String,
    /// Present exactly while the disk is in use.
    handle: Option<Arc<DiskHandle>>,
    /// Why it is not in use.
    reason: String,
    errors: u64,
    full: bool,
    suspect: bool,
    /// It is much slower than the others.
    limps: bool,
    /// As it was measured last.
    space: Option<Space>,
    /// Bytes that something else had taken when this volume's shards were counted last.
    foreign_bytes: Option<u64>,
}

impl Slot {
    /// Whether something else than this volume's shards has taken much of the disk. It is not known before the first
    /// count; then it may be.
    fn is_shared(&self) -> bool {
        let (Some(space), Some(foreign)) = (self.space, self.foreign_bytes) else { return true };
        foreign > space.total_bytes / FOREIGN_SHARE
    }
}

/// More than this share of a disk is taken by something else than shards, if that is to blame for its being full. Less
/// than that is the log, the metadata, and what file systems keep for themselves.
const FOREIGN_SHARE: u64 = 4;
/// Below this share of free space somebody should count what is on the disk.
const TIGHT_SHARE: u64 = 8;
/// A disk counts as full until this many times of what shards leave free is free again, so that it does not flap.
const ROOM_FLOORS: u64 = 2;

impl DiskSet {
    /// The disks of the member list: number, path for people, and the opened disk unless it is absent.
    pub fn new(disks: Vec<(DiskId, String, Option<Arc<DiskHandle>>)>) -> Self {
        let slot = |(id, label, handle)| {
            let reason = String::from("it was not there when the volume was opened");
            (id, Slot { label, handle, reason, ..Slot::default() })
        };
        let slots = disks.into_iter().map(slot).collect();
        let (slots, changes) = (RwLock::new(slots), watch::channel(0).0);
        let patience = AtomicU64::new(whole_micros(PATIENCE_MAX));
        Self { slots, changes, superseded: OnceLock::new(), patience }
    }

    /// The disk, if it is in use.
    pub fn get(&self, disk: DiskId) -> Option<Arc<DiskHandle>> {
        self.read().get(&disk)?.handle.clone()
    }

    /// All disks in use, by id.
    pub fn healthy(&self) -> Vec<Arc<DiskHandle>> {
        self.read().values().filter_map(|slot| slot.handle.clone()).collect()
    }

    /// All disks and their states, by id.
    pub fn states(&self) -> Vec<DiskStatus> {
        let status = |(id, slot): (&DiskId, &Slot)| DiskStatus {
            id: *id,
            label: slot.label.clone(),
            state: match slot.handle {
                Some(_) if slot.suspect || slot.limps => DiskState::Suspect,
                Some(_) => DiskState::Healthy,
                None => DiskState::Down(slot.reason.clone()),
            },
            errors: slot.errors,
            full: slot.full,
        };
        self.read().iter().map(status).collect()
    }

    /// Whether the disk is out of space.
    pub fn is_full(&self, disk: DiskId) -> bool {
        self.read().get(&disk).is_some_and(|slot| slot.full)
    }

    /// Whether the disk is out of space though this volume's shards leave it much: something else has filled it, so
    /// that it counts as lost for new data.
    pub fn is_filled_by_others(&self, disk: DiskId) -> bool {
        self.read().get(&disk).is_some_and(|slot| slot.full && slot.is_shared())
    }

    /// Whether a disk in use has so little room that `note_own_bytes` matters soon.
    pub fn is_tight(&self) -> bool {
        let tight = |space: Space| space.free_bytes < space.total_bytes / TIGHT_SHARE;
        let slots = self.read();
        slots.values().any(|slot| slot.handle.is_some() && slot.space.is_some_and(tight))
    }

    /// Takes note of how much this volume's shards take of a disk. They were counted just now, after its room was
    /// measured: what is written between two counts is never taken for somebody else's.
    pub fn note_own_bytes(&self, disk: DiskId, space: Space, own_bytes: u64) {
        let changed = self.write().get_mut(&disk).is_some_and(|slot| {
            let before = slot.is_shared();
            let taken = space.total_bytes.saturating_sub(space.free_bytes);
            slot.foreign_bytes = Some(taken.saturating_sub(own_bytes));
            slot.full && slot.is_shared() != before
        });
        if changed {
            self.changed();
        }
    }

    /// Whether the disk is slow to answer, or much slower than the others.
    pub fn is_suspect(&self, disk: DiskId) -> bool {
        self.read().get(&disk).is_some_and(|slot| slot.suspect || slot.limps)
    }

    /// How long an answer may take before others are asked.
    pub fn patience(&self) -> Duration {
        Duration::from_micros(self.patience.load(Ordering::Relaxed))
    }

    /// Compares how fast the disks in use answer. Called from time to time, because a disk that limps is not asked, and so
    /// shows only by being tried again whether it still does.
    pub fn compare_paces(&self) {
        let mut changed = false;
        let mut slots = self.write();
        let used = slots.iter_mut().filter(|(_disk, slot)| slot.handle.is_some());
        let mut used: Vec<(&DiskId, &mut Slot)> = used.collect();
        let paces = used.iter().filter_map(|(_disk, slot)| {
            let handle = slot.handle.as_ref()?;
            if slot.limps {
                handle.queue.pace().fade();
            }
            Some((handle.queue.pace(), slot.limps))
        });
        let found = compare(&paces.collect::<Vec<_>>());
        self.patience.store(whole_micros(found.patience), Ordering::Relaxed);
        for ((disk, slot), limps) in used.iter_mut().zip(found.limps) {
            if std::mem::replace(&mut slot.limps, limps) == limps {
                continue;
            }
            changed = true;
            let (disk, path) = (disk.get(), &slot.label);
            if limps {
                tracing::warn!(
                    disk,
                    path,
                    "disk is much slower than the others: it is spared for a while"
                );
            } else {
                tracing::info!(disk, path, "disk is used as the others again");
            }
        }
        drop(used);
        drop(slots);
        if changed {
            self.changed();
        }
    }

    /// The disk is slow to answer, or answers again.
    pub fn note_suspect(&self, disk: DiskId, suspect: bool) {
        if self.read().get(&disk).is_none_or(|slot| slot.suspect == suspect) {
            return;
        }
        if let Some(slot) = self.write().get_mut(&disk) {
            slot.suspect = suspect;
            if suspect {
                tracing::warn!(
                    disk = disk.get(),
                    path = slot.label,
                    "disk is slow to answer: the others are used where they suffice"
                );
            } else {
                tracing::info!(disk = disk.get(), path = slot.label, "disk answers again");
            }
        }
        self.changed();
    }

    /// Whether a disk in use has more than `percent` of itself free.
    pub fn has_free(&self, disk: DiskId, percent: u32) -> bool {
        let slots = self.read();
        let Some(slot) = slots.get(&disk) else { return false };
        let free = |space: Space| space.free_bytes > space.total_bytes / 100 * u64::from(percent);
        slot.handle.is_some() && !slot.full && slot.space.is_none_or(free)
    }

    /// Room of a disk as last measured.
    pub fn space(&self, disk: DiskId) -> Option<Space> {
        self.read().get(&disk)?.space
    }

    /// Every error that a disk answers with comes through here, and this alone decides what it means for the
    /// disk. Answers whether the disk is out of use now.
    ///
    /// A full disk stays readable and a bad file says nothing about the others, so only a disk that does not do
    /// its work (`Unavailable`) goes out of use.
    pub fn report(&self, disk: DiskId, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Unavailable => self.fail(disk, error),
            ErrorKind::Posix(Posix::NoSpace) => self.note_full(disk, error),
            ErrorKind::Corrupt => {
                if let Some(slot) = self.write().get_mut(&disk) {
                    slot.errors += 1;
                }
            }
            ErrorKind::Superseded => self.note_superseded(error),
            ErrorKind::Posix(_) | ErrorKind::Fenced | ErrorKind::Refused | ErrorKind::Internal => {}
        }
        self.get(disk).is_none()
    }

    /// Whether another mount has taken the disks, and how that was noticed: nothing may be changed any more.
    pub fn superseded(&self) -> Option<&str> {
        self.superseded.get().map(String::as_str)
    }

    fn note_superseded(&self, error: &Error) {
        if self.superseded.set(error.to_string()).is_ok() {
            tracing::error!(%error, "another mount has taken the volume: unmount this one");
            self.changed();
        }
    }

    /// Takes a disk out of use at once, because of `error`. Idempotent.
    pub fn fail(&self, disk: DiskId, error: &Error) {
        if error.kind() == ErrorKind::Superseded {
            self.note_superseded(error);
        }
        let taken = {
            let mut slots = self.write();
            let Some(slot) = slots.get_mut(&disk) else { return };
            slot.errors += 1;
            let Some(handle) = slot.handle.take() else { return };
            slot.reason = error.to_string();
            tracing::error!(
                disk = disk.get(),
                path = slot.label,
                %error,
                "disk taken out of use; reads and writes go on with the others. Check that the path is \
                 mounted and that the device works: it is used again once it answers"
            );
            handle
        };
        self.changed();
        retire(taken);
    }

    /// Takes a disk out of use for good, because it has left the volume. Idempotent.
    pub fn let_go(&self, disk: DiskId, reason: &str) {
        let taken = {
            let mut slots = self.write();
            let Some(slot) = slots.get_mut(&disk) else { return };
            slot.reason = reason.to_string();
            tracing::info!(
                disk = disk.get(),
                path = slot.label,
                reason,
                "disk has left the volume"
            );
            slot.handle.take()
        };
        self.changed();
        if let Some(taken) = taken {
            retire(taken);
        }
    }

    /// Takes a disk into use (again).
    pub fn admit(&self, handle: Arc<DiskHandle>) {
        let label = handle.disk.label();
        tracing::info!(disk = handle.id.get(), path = label, "disk in use");
        let before = {
            let mut slots = self.write();
            let slot = slots.entry(handle.id).or_default();
            slot.label = label;
            slot.reason.clear();
            (slot.full, slot.suspect, slot.limps) = (false, false, false);
            slot.handle.replace(handle)
        };
        self.changed();
        before.into_iter().for_each(retire);
    }

    /// Takes note of free space that was just measured: begins the state "full" when hardly any is left, whoever took
    /// it, and ends it once there is room again.
    pub fn note_space(&self, disk: DiskId, space: Space) {
        if let Some(slot) = self.write().get_mut(&disk) {
            slot.space = Some(space);
        }
        let floor = space.floor_bytes();
        let room = floor * ROOM_FLOORS;
        if space.free_bytes < floor {
            let left = format!("{} bytes are free", space.free_bytes);
            return self.note_full(disk, &Error::new(ErrorKind::Posix(Posix::NoSpace), left));
        }
        if space.free_bytes < room || !self.is_full(disk) {
            return;
        }
        if let Some(slot) = self.write().get_mut(&disk) {
            slot.full = false;
            tracing::info!(disk = disk.get(), path = slot.label, "disk has room again");
        }
        self.changed();
    }

    /// Changes with each change of any state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn note_full(&self, disk: DiskId, error: &Error) {
        {
            let mut slots = self.write();
            let Some(slot) = slots.get_mut(&disk) else { return };
            if std::mem::replace(&mut slot.full, true) {
                return;
            }
            tracing::warn!(
                disk = disk.get(),
                path = slot.label,
                %error,
                "disk is full; it stays readable and new data goes to other disks. Delete files or add a disk"
            );
        }
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    // No code that holds these guards leaves a slot half changed, so a poisoned lock is still good.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<DiskId, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<DiskId, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Drops a handle where nobody waits: its queue joins threads that may hang on the broken device.
fn retire(handle: Arc<DiskHandle>) {
    if handle.queue.is_inline() { drop(handle) } else { drop_apart(handle) }
}
