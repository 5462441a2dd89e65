//! `fsck`: checks a volume that is not mounted, changing nothing.

use super::{format, out, paths};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mountd::daemon::refuse_if_served;
use crate::mountd::mount::mounted;
use crate::volume::fsck::{FsckReport, check_in};
use clap::Args;
use std::path::{Path, PathBuf};

/// Check the metadata of an unmounted volume against itself and against the shards; changes nothing
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs fsck media\n  ironfs fsck --read-data media\n  ironfs fsck /srv/d0 /srv/d1 /srv/d2 /srv/d3 /srv/d4 /srv/d5\n\nExit codes: 0 clean, 1 something is wrong, 2 it could not be checked"
)]
pub(super) struct Fsck {
    /// Name of the volume, path of its configuration, or all its disks
    #[arg(required = true)]
    targets: Vec<String>,
    /// Read and verify every shard
    #[arg(long)]
    read_data: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Fsck {
    pub(super) fn run(self) -> Result<()> {
        let config = self.config()?;
        let report = paths::block_on(async {
            refuse_if_served(&config.name, &paths::socket(&config.name)).await?;
            check_in(&config, self.read_data, format::now(), paths::world(&config)?).await
        })?;
        if self.json {
            out::print_json(&report)?;
        } else {
            out::print(&text(&report))?;
        }
        if report.findings.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("{} findings in volume {}", report.findings.len(), config.name)))
    }

    fn config(&self) -> Result<Config> {
        let directories = self.targets.iter().all(|target| Path::new(target).is_dir());
        if !directories {
            return match self.targets.as_slice() {
                [target] => {
                    let mount = mounted()?.into_iter().find(|mount| mount.source == *target);
                    match (paths::read_config(target), mount) {
                        (Err(_elsewhere), Some(mount)) => Err(Error::refused(format!(
                            "volume {target} is mounted on {}: unmount it first, and give the path of its configuration",
                            mount.directory.display()
                        ))),
                        (config, _mount) => config,
                    }
                }
                _ => Err(Error::refused("give one volume, or the directories of all its disks")),
            };
        }
        let disks = self
            .targets
            .iter()
            .map(|target| PathBuf::from(target).canonicalize())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::from_io("find the disks", error))?;
        let first = disks.first().ok_or_else(|| Error::refused("give the disks"))?;
        let disk = crate::disk::local::LocalDisk::open(first)?;
        let superblock = crate::disk::superblock::read(&disk)?.ok_or_else(|| {
            Error::refused(format!("{} is not a disk of an ironfs volume", first.display()))
        })?;
        Ok(Config::new(superblock.name, disks))
    }
}

fn text(report: &FsckReport) -> String {
    let mut text = format!(
        "{} inodes, {} stripes, {} shards checked ({} read), log position {}\n",
        report.inodes,
        report.stripes,
        report.shards_checked,
        out::size(report.bytes_read),
        report.position
    );
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for finding in &report.findings {
        text.push_str(&format!("wrong: {finding}\n"));
    }
    text.push_str(if report.findings.is_empty() { "clean\n" } else { "not clean\n" });
    text
}
