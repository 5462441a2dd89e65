//! `disk`: directories that come into a volume, leave it, and where they stand.

use super::{out, paths, repair};
use crate::admin::{AddDisk, NamedDisk, RemoveDisk, ReplaceDisk, client};
use crate::config::Place;
use crate::error::{Error, Result};
use crate::volume::labels::{DiskLabels, LabelChange};
use crate::volume::status::{DiskStatus, Job, RepairReport, Status};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a drain is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Add, replace, remove and label disks
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs disk add media /srv/d6\n  ironfs disk add media beta:/srv/d0\n  ironfs disk remove --drain /srv/d2\n  ironfs disk replace /srv/d3 \
                  /srv/d7\n  ironfs disk list media\n  ironfs disk label /srv/d3 --zone attic --tag smr"
)]
pub(super) enum DiskCommand {
    /// Take an empty directory into a mounted volume; its room is used at once
    #[command(
        after_help = "Examples:\n  ironfs disk add media /srv/d6\n  ironfs disk add media beta:/srv/d0"
    )]
    Add {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Empty directory that comes; NODE:DIR for one that a node serves
        new: PathBuf,
        /// Let the new directory share a device with another disk
        #[arg(long)]
        allow_same_device: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a disk go: at once, or once what it holds has been moved
    #[command(
        after_help = "Examples:\n  ironfs disk remove --drain /srv/d2\n  ironfs disk remove /srv/d2 --volume media --yes\n  ironfs disk remove --cancel /srv/d2"
    )]
    Remove {
        /// Directory (or number) of the disk that goes
        disk: String,
        /// Move what it holds to the others first, and wait until it is safe to unplug
        #[arg(long)]
        drain: bool,
        /// With --drain: do not wait, it goes on by itself
        #[arg(long, requires = "drain")]
        no_wait: bool,
        /// Keep a disk that drains
        #[arg(long, conflicts_with_all = ["drain", "yes"])]
        cancel: bool,
        /// Let it go though stripes cannot be read without it: they are lost
        #[arg(long, conflicts_with_all = ["drain", "cancel"])]
        lose_data: bool,
        /// The volume; found by the disk's path if one mounted volume has it
        #[arg(long, value_name = "NAME|DIR")]
        volume: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let an empty directory take the place of a disk, and rebuild there what the old one held
    #[command(
        after_help = "Examples:\n  ironfs disk replace /srv/d3 /srv/d7\n  ironfs disk replace 4 beta:/srv/d1 --volume media"
    )]
    Replace {
        /// Directory (or number) of the disk that goes; it may be dead
        old: String,
        /// Empty directory that comes
        new: PathBuf,
        /// The volume; found by the old disk's path if one mounted volume has it
        #[arg(long, value_name = "NAME|DIR")]
        volume: Option<String>,
        /// Let the new directory share a device with another disk
        #[arg(long)]
        allow_same_device: bool,
        /// Replace it though stripes cannot be read without it: they are lost
        #[arg(long)]
        lose_data: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the disks of a volume
    #[command(
        after_help = "Examples:\n  ironfs disk list media\n  ironfs disk list /mnt/media --json"
    )]
    List {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where a disk stands: new data is placed by it, and what is not told stays
    Label(Label),
}

/// Where a disk stands.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ironfs disk label /srv/d3 --zone attic --tag smr\n  ironfs disk label 4 --rack '' --volume media"
)]
pub(super) struct Label {
    /// Directory (or number) of the disk
    disk: String,
    /// Zone: a room or a site; '' for none
    #[arg(long)]
    zone: Option<String>,
    /// Rack in the zone; '' for none
    #[arg(long)]
    rack: Option<String>,
    /// Node in the rack; '' for the one that mounts
    #[arg(long)]
    node: Option<String>,
    /// All tags: `smr`, or with a value, `psu=2`; '' for none
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The volume; found by the disk's path if one mounted volume has it
    #[arg(long, value_name = "NAME|DIR")]
    volume: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Label {
    fn run(self) -> Result<()> {
        let tags = (!self.tags.is_empty()).then_some(self.tags);
        if [&self.zone, &self.rack, &self.node].iter().all(|name| name.is_none()) && tags.is_none()
        {
            return Err(Error::refused("say what to change: --zone, --rack, --node or --tag"));
        }
        let disk = named(&self.disk)?;
        let volume = self.volume.map_or_else(|| volume_with_disk(&disk), Ok)?;
        let tags = tags.map(|tags| tags.into_iter().filter(|tag| !tag.is_empty()).collect());
        let (zone, rack, node) = (self.zone, self.rack, self.node);
        let change = LabelChange { disk, zone, rack, node, tags };
        let socket = paths::socket_of(&volume)?;
        let told: DiskLabels = paths::block_on(client::post(&socket, "/disk/label", &change))?;
        if self.json {
            return out::print_json(&told);
        }
        let labels =
            if told.labels.is_empty() { "no labels".into() } else { told.labels.to_string() };
        out::print(&format!("disk {} ({}): {labels}\n", told.id, told.path))
    }
}

impl DiskCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Label(label) => label.run(),
            Self::Add { volume, new, allow_same_device, json } => {
                let socket = paths::socket_of(&volume)?;
                let body = AddDisk { new: absolute(&new)?, allow_same_device };
                let disk: DiskStatus = paths::block_on(client::post(&socket, "/disk/add", &body))?;
                if json {
                    return out::print_json(&disk);
                }
                out::print(&format!(
                    "{} is disk {}; `ironfs jobs {volume}` shows how shards are moved to it\n",
                    disk.path, disk.id
                ))
            }
            Self::Remove { disk, drain, no_wait, cancel, lose_data, volume, yes, json } => {
                let disk = named(&disk)?;
                let volume = volume.map_or_else(|| volume_with_disk(&disk), Ok)?;
                remove(&disk, &volume, How { drain, wait: !no_wait, cancel, lose_data, yes, json })
            }
            Self::Replace { old, new, volume, allow_same_device, lose_data, yes, json } => {
                let (old, new) = (named(&old)?, absolute(&new)?);
                let volume = volume.map_or_else(|| volume_with_disk(&old), Ok)?;
                let text = format!(
                    "{} is to take the place of {old}, which leaves volume {volume} for good",
                    new.display()
                );
                out::confirm(&plan(&text, lose_data), yes)?;
                let socket = paths::socket_of(&volume)?;
                let body = ReplaceDisk { old, new, allow_same_device, lose_data };
                let report: RepairReport =
                    paths::block_on(client::post(&socket, "/disk/replace", &body))?;
                repair::show(&report, json)
            }
            Self::List { volume, json } => {
                let status: Status =
                    paths::block_on(client::get(&paths::socket_of(&volume)?, "/status"))?;
                if json {
                    return out::print_json(&status.disks);
                }
                out::print(&super::status::disks_table(&status))
            }
        }
    }
}

/// How a disk is removed.
struct How {
    drain: bool,
    wait: bool,
    cancel: bool,
    lose_data: bool,
    yes: bool,
    json: bool,
}

impl How {
    /// Says what has become of the disk.
    fn tell(&self, disk: &DiskStatus, text: &str) -> Result<()> {
        if self.json {
            out::print_json(disk)
        } else {
            out::print(&format!("{}{text}\n", disk.path))
        }
    }
}

/// What is asked before a disk leaves.
fn plan(what: &str, lose_data: bool) -> String {
    let losing = ", and what cannot be read without it is lost";
    format!("{what}{}", if lose_data { losing } else { "" })
}

fn remove(disk: &str, volume: &str, how: How) -> Result<()> {
    let socket = paths::socket_of(volume)?;
    let named = NamedDisk { disk: disk.to_owned() };
    let post = |path: &'static str| -> Result<DiskStatus> {
        paths::block_on(client::post(&socket, path, &named))
    };
    if how.cancel {
        let kept = post("/disk/keep")?;
        return how.tell(&kept, " is used as before");
    }
    if !how.drain {
        let text = format!(
            "{disk} is to leave volume {volume} at once and for good; what it holds is rebuilt from the others"
        );
        out::confirm(&plan(&text, how.lose_data), how.yes)?;
        let body = RemoveDisk { disk: named.disk, lose_data: how.lose_data };
        let gone: DiskStatus = paths::block_on(client::post(&socket, "/disk/remove", &body))?;
        return how.tell(&gone, &format!(" has left; `ironfs jobs {volume}` shows the repair"));
    }
    let leaving = post("/disk/drain")?;
    if !how.wait {
        let text =
            " drains; `ironfs jobs` shows how far it is, `ironfs disk list` when it is removed";
        return how.tell(&leaving, text);
    }
    let gone = wait_for_drain(&socket, leaving)?;
    how.tell(&gone, ": it is safe to unplug")
}

/// Shows how a disk drains until it has left; answers what it is then.
fn wait_for_drain(socket: &Path, leaving: DiskStatus) -> Result<DiskStatus> {
    let name = format!("drain:{}", leaving.id);
    let bar = out::bar(0);
    loop {
        let status: Status = paths::block_on(client::get(socket, "/status"))?;
        let now = status.disks.into_iter().find(|disk| disk.id == leaving.id);
        match now.as_ref().map(|disk| disk.state.as_str()) {
            Some("removed") | None => {
                bar.finish_and_clear();
                return Ok(now.unwrap_or(leaving));
            }
            Some("healthy" | "full") => {
                bar.finish_and_clear();
                let context = format!("{} no longer drains: somebody kept it", leaving.path);
                return Err(Error::refused(context));
            }
            Some(_draining) => {}
        }
        // They are not told while the volume waits for disks; the drain goes on after that.
        let jobs: Result<Vec<Job>> = paths::block_on(client::get(socket, "/jobs"));
        if let Err(error) = &jobs {
            bar.set_message(error.to_string());
        }
        if let Some(job) = jobs.into_iter().flatten().find(|job| job.name == name) {
            let total = bar.length().unwrap_or(0).max(job.left_bytes);
            bar.set_length(total);
            bar.set_position(total - job.left_bytes);
            let eta = job.eta_seconds.map(|eta| format!("{} to go, ", out::span(eta)));
            let detail = job.detail.clone().unwrap_or_default();
            bar.set_message(format!("{}{detail}", eta.unwrap_or_default()));
        }
        paths::block_on(async {
            tokio::time::sleep(LOOK_PERIOD).await;
            Ok(())
        })?;
    }
}

/// A disk as the server knows it: its number or its whole path.
fn named(disk: &str) -> Result<String> {
    match disk.parse::<u32>() {
        Ok(_) => Ok(disk.to_owned()),
        Err(_path) => Ok(absolute(Path::new(disk))?.display().to_string()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if let Place::Node { .. } = Place::of(path) {
        return Ok(path.to_path_buf());
    }
    std::path::absolute(path)
        .map_err(|error| Error::from_io(format!("find {}", path.display()), error))
}

/// The one mounted volume with a disk at `path`.
fn volume_with_disk(path: &str) -> Result<String> {
    let mut found = Vec::new();
    for mount in crate::mountd::mount::mounted()? {
        let socket = paths::socket(&mount.source);
        let status: Result<Status> = paths::block_on(client::get(&socket, "/status"));
        if status.is_ok_and(|status| status.disks.iter().any(|disk| disk.path == path)) {
            found.push(mount.source);
        }
    }
    match found.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Error::refused(format!(
            "no single mounted volume has a disk {path}: mount it, or name it with --volume"
        ))),
    }
}
