//! `disk replace`: an empty directory takes the place of a disk.

use super::{out, paths, repair};
use crate::admin::{ReplaceDisk, client};
use crate::error::{Error, Result};
use crate::volume::status::RepairReport;
use clap::Subcommand;
use std::path::PathBuf;

/// Replace disks
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  ironfs disk replace /srv/disk3 /srv/disk6")]
pub(super) enum DiskCommand {
    /// Let an empty directory take the place of a disk, and rebuild there what the old one held
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
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl DiskCommand {
    pub(super) fn run(self) -> Result<()> {
        let Self::Replace { old, new, volume, allow_same_device, yes, json } = self;
        let new = std::path::absolute(&new)
            .map_err(|error| Error::from_io("find the new directory", error))?;
        let old = match old.parse::<u32>() {
            Ok(_) => old,
            Err(_path) => std::path::absolute(&old)
                .map_err(|error| Error::from_io("find the old directory", error))?
                .display()
                .to_string(),
        };
        let volume = volume.map_or_else(|| volume_with_disk(&old), Ok)?;
        out::confirm(
            &format!(
                "{} takes the place of {old}, which leaves volume {volume} for good",
                new.display()
            ),
            yes,
        )?;
        let socket = paths::socket_of(&volume)?;
        let body = ReplaceDisk { old, new, allow_same_device };
        let report: RepairReport = paths::block_on(client::post(&socket, "/disk/replace", &body))?;
        repair::show(&report, json)
    }
}

/// The one mounted volume with a disk at `path`.
fn volume_with_disk(path: &str) -> Result<String> {
    let mut found = Vec::new();
    for mount in crate::mountd::mount::mounted()? {
        let socket = paths::socket(&mount.source);
        let status: Result<crate::volume::status::Status> =
            paths::block_on(client::get(&socket, "/status"));
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
