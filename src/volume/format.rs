//! Makes a volume out of empty directories.

use super::prober::disk_queue;
use super::report::survives;
use super::{OpenDisk, World};
use crate::class::Class;
use crate::config::Config;
use crate::config::labels::Labels;
use crate::disk::{Disk, DiskIdentity};
use crate::error::{Error, Result};
use crate::meta::recover::{self, NewVolume};
use crate::placement::{Candidate, Ring};
use crate::types::{DiskId, Timestamp, VolumeId};
use std::path::Path;
use std::sync::Arc;

/// A volume to make.
#[derive(Clone, Debug)]
pub struct FormatRequest {
    /// Its configuration: the disks get their numbers in this order.
    pub config: Config,
    /// Class of the root directory.
    pub class: Class,
    /// Whether several directories may be on one device.
    pub allow_same_device: bool,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// When.
    pub time: Timestamp,
}

/// A volume that was made.
#[derive(Clone, Debug)]
pub struct Formatted {
    /// Its identity.
    pub volume: VolumeId,
    /// Its configuration.
    pub config: Config,
    /// What it survives, in words.
    pub survives: String,
}

/// Makes a volume in `world`.
///
/// Errors: `Refused` with a sentence, and nothing is changed.
pub async fn format_in(request: FormatRequest, world: &World) -> Result<Formatted> {
    let FormatRequest { config, class, .. } = &request;
    crate::config::validate_name(&config.name)?;
    class.validate()?;
    let (n, count) = (usize::from(class.scheme.n()), config.disks.len());
    if count < n {
        return Err(Error::refused(format!(
            "class {class} puts {n} shards on {n} different disks; {count} were given: add {} more, or choose \
             another class",
            n - count
        )));
    }
    let mut disks: Vec<Arc<dyn Disk>> = Vec::with_capacity(count);
    for path in &config.disks {
        disks.push(open_empty(path, world)?.disk);
    }
    let labels = check_labels(config, class, &disks)?;
    let shared = check_places(&disks, request.allow_same_device)?;
    for disk in &disks {
        disk.lock("ironfs format")?;
    }
    let held = disks.clone();
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Error::internal(format!("draw the identity of the volume: {error}")))?;
    let mut with_queues = Vec::with_capacity(count);
    for ((number, disk), labels) in (1..).map(DiskId).zip(disks).zip(labels) {
        with_queues.push((disk, disk_queue(&config.limits, number, world.inline)?, labels));
    }
    let new = NewVolume {
        volume: VolumeId(id),
        name: config.name.clone(),
        class: *class,
        uid: request.uid,
        gid: request.gid,
        time: request.time,
        nodes: config.addresses(),
    };
    let made = recover::format(with_queues, new).await;
    held.iter().for_each(|disk| disk.release());
    made?;
    Ok(Formatted {
        volume: VolumeId(id),
        survives: survives(class.scheme.m().into(), shared),
        config: request.config,
    })
}

/// The labels of the disks, by which `class` must find enough of them.
fn check_labels(config: &Config, class: &Class, disks: &[Arc<dyn Disk>]) -> Result<Vec<Labels>> {
    let places = config.disks.iter().zip(disks);
    let labels = places.map(|(path, disk)| Ok(config.labels(path)?.with_place(&disk.labels())));
    let labels = labels.collect::<Result<Vec<_>>>()?;
    let candidate = |(disk, labels): (DiskId, &Labels)| Candidate {
        disk,
        weight: 1,
        room: None,
        labels: labels.clone(),
    };
    let candidates: Vec<_> = (1..).map(DiskId).zip(&labels).map(candidate).collect();
    if Ring::new(&candidates, &class.wanted(&config.node)).is_wide_enough() {
        return Ok(labels);
    }
    let n = class.scheme.n();
    Err(Error::refused(format!(
        "class {class} needs {n} disks that it allows and may put beside each other: give other disks or other labels, \
         or choose another class"
    )))
}

/// Opens a directory that must be empty.
pub(super) fn open_empty(path: &Path, world: &World) -> Result<OpenDisk> {
    let open = (world.opener)(path)?;
    let disk = &open.disk;
    if let Some(superblock) = crate::disk::superblock::read(&**disk)? {
        return Err(Error::refused(format!(
            "{} is disk {} of volume {} already: choose an empty directory",
            path.display(),
            superblock.disk,
            superblock.name
        )));
    }
    let own = |name: &str| name == crate::disk::LOCK_FILE || name == "lost+found";
    if let Some(entry) = disk.list("")?.into_iter().find(|entry| !own(&entry.name)) {
        return Err(Error::refused(format!(
            "{} is not empty (it contains {}): choose an empty directory",
            path.display(),
            entry.name
        )));
    }
    Ok(open)
}

/// No two paths may lead to one directory, nor (unless allowed) to one device. Answers whether devices are shared.
fn check_places(disks: &[Arc<dyn Disk>], allow_same_device: bool) -> Result<bool> {
    let mut seen: Vec<(DiskIdentity, String)> = Vec::new();
    let mut shared = false;
    for disk in disks {
        let (identity, label) = (disk.identity()?, disk.label());
        for (other, other_label) in &seen {
            if *other == identity {
                return Err(Error::refused(format!(
                    "{label} and {other_label} are the same directory: give each disk its own"
                )));
            }
            shared |= other.device == identity.device;
            if shared && !allow_same_device {
                return Err(Error::refused(format!(
                    "{label} and {other_label} are on the same device, which would lose both: use different \
                     devices, or --allow-same-device"
                )));
            }
        }
        seen.push((identity, label));
    }
    Ok(shared)
}
