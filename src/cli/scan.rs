//! `scan`: finds volumes on directories and rebuilds their configuration.

use super::{format, out};
use crate::config::labels::Labels;
use crate::config::{Config, Peer};
use crate::disk::local::LocalDisk;
use crate::disk::superblock::{self, Superblock};
use crate::error::{Error, Result};
use crate::types::Epoch;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Find volumes on directories (or the directories in them) and rebuild their configuration
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs scan /srv/*\n  ironfs scan /mnt --write /etc/ironfs/media.toml"
)]
pub(super) struct Scan {
    /// Directories to look at; their sub-directories are looked at too
    #[arg(required = true)]
    directories: Vec<PathBuf>,
    /// Write the configuration of the one volume found to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A volume and where its disks are.
#[derive(Serialize)]
struct Found {
    name: String,
    volume: String,
    disks: BTreeMap<u32, PathBuf>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<PathBuf, Labels>,
    missing: Vec<u32>,
    /// Where nodes are, by the newest member list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, String>,
    #[serde(skip)]
    epoch: Epoch,
}

impl Scan {
    pub(super) fn run(self) -> Result<()> {
        let mut found: Vec<Found> = Vec::new();
        for directory in candidates(&self.directories) {
            match look(&directory) {
                Ok(Some(superblock)) => add(&mut found, &superblock, directory)?,
                Ok(None) => {}
                Err(error) => out::tell(&format!("ironfs: {}: {error}", directory.display())),
            }
        }
        if found.is_empty() {
            return Err(Error::refused("no disk of an ironfs volume was found"));
        }
        for volume in found.iter().filter(|volume| !volume.missing.is_empty()) {
            let missing: Vec<String> = volume.missing.iter().map(ToString::to_string).collect();
            out::tell(&format!(
                "ironfs: volume {} has disks that were not found: {}",
                volume.name,
                missing.join(", ")
            ));
        }
        for volume in found.iter().filter(|volume| !volume.nodes.is_empty()) {
            out::tell(&format!(
                "ironfs: volume {} has nodes: add identity, the directory that `ironfs ca issue --role client` has made",
                volume.name
            ));
        }
        if let Some(path) = &self.write {
            return write(&found, path);
        }
        if self.json {
            return out::print_json(&found);
        }
        found.iter().try_for_each(|volume| out::print(&config(volume).to_text()?))
    }
}

/// The directories themselves and their sub-directories.
fn candidates(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for directory in directories {
        let Ok(directory) = directory.canonicalize() else { continue };
        let children = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut below: Vec<PathBuf> =
            children.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        below.sort();
        all.push(directory);
        all.append(&mut below);
    }
    all.dedup();
    all
}

fn look(directory: &Path) -> Result<Option<Superblock>> {
    superblock::read(&LocalDisk::open(directory)?)
}

fn add(found: &mut Vec<Found>, superblock: &Superblock, directory: PathBuf) -> Result<()> {
    let volume = superblock.volume.to_string();
    let disk = superblock.disk.0;
    let known = superblock.members.disks.iter().map(|member| member.disk.0);
    let index = match found.iter().position(|entry| entry.volume == volume) {
        Some(index) => index,
        None => {
            let missing = known.collect();
            let name = superblock.name.clone();
            let (disks, labels) = (BTreeMap::new(), BTreeMap::new());
            let (nodes, epoch) = (BTreeMap::new(), Epoch(0));
            found.push(Found { name, volume, disks, labels, missing, nodes, epoch });
            found.len() - 1
        }
    };
    let Some(entry) = found.get_mut(index) else { return Ok(()) };
    if entry.epoch < superblock.members.epoch {
        entry.epoch = superblock.members.epoch;
        entry.nodes.clone_from(&superblock.members.nodes);
    }
    entry.missing.retain(|missing| *missing != disk);
    let member = superblock.members.member(superblock.disk);
    if let Some(member) = member.filter(|member| !member.labels.is_empty()) {
        entry.labels.insert(directory.clone(), member.labels.clone());
    }
    match entry.disks.insert(disk, directory.clone()) {
        Some(other) if other != directory => Err(Error::refused(format!(
            "{} and {} both say that they are disk {disk} of volume {}: one is a copy; take it away",
            other.display(),
            directory.display(),
            entry.name
        ))),
        Some(_) | None => Ok(()),
    }
}

fn config(volume: &Found) -> Config {
    let config = Config::new(volume.name.clone(), volume.disks.values().cloned().collect());
    let peer =
        |(name, address): (&String, &String)| (name.clone(), Peer { address: address.clone() });
    let peer = volume.nodes.iter().map(peer).collect();
    Config { disk: volume.labels.clone(), peer, ..config }
}

fn write(found: &[Found], path: &Path) -> Result<()> {
    let [volume] = found else {
        return Err(Error::refused(format!("{} volumes were found, not one", found.len())));
    };
    if path.exists() {
        return Err(Error::refused(format!("{} exists already", path.display())));
    }
    format::write_config(&config(volume), path)
}
