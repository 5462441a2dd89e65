//! Configuration of a volume: TOML text to structs. Unknown keys are errors; every limit has a default and a unit.
//! Reads no file and no environment: its callers do.
#![warn(missing_docs)]

use crate::error::{Error, Result};
use labels::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub mod labels;
pub mod node;

/// Where the configuration of a volume lies unless a path is given.
pub const CONFIG_DIR: &str = "/etc/ironfs";
/// Longest volume name.
pub const VOLUME_NAME_BYTES_MAX: usize = 64;

/// What the mounting process has to know of a volume before it has opened it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the volume; it must be the one in the superblocks.
    pub name: String,
    /// Directories, one for each disk, in any order: of this machine (`/srv/d0`), or of a node (`alpha:/srv/d0`).
    pub disks: Vec<PathBuf>,
    /// Directory with the certificate and key by which nodes know this machine; needed if there are nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// TCP address, such as `127.0.0.1:9464`, at which `/metrics` and `/health` are served to whoever can reach it, and
    /// nothing else; absent for none. An address that is taken does not keep the volume from being mounted: the log says
    /// so once, and it is served as soon as it is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,
    /// Name of this machine, for the placement rule `local-first`: disks with this node label are near.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Limits of memory, concurrency and time.
    #[serde(default)]
    pub limits: Limits,
    /// Where the nodes are that serve disks, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peer: BTreeMap<String, Peer>,
    /// Labels that disks get when they join the volume, by directory; `ironfs disk label` changes them later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disk: BTreeMap<PathBuf, Labels>,
}

/// A node that serves disks of the volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// `host:port` or `host`; the usual port is 7440.
    pub address: String,
}

impl Peer {
    /// `host:port`.
    pub fn host_and_port(&self) -> String {
        // The colons of a bare IPv6 address stand in brackets when a port follows.
        match self.address.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => {
                self.address.clone()
            }
            Some(_) | None => format!("{}:{}", self.address, node::PORT),
        }
    }
}

/// Where a disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place<'a> {
    /// A directory of this machine.
    Here(&'a Path),
    /// A directory of a node.
    Node {
        /// Name of the node.
        node: &'a str,
        /// Path there.
        path: &'a str,
    },
}

impl<'a> Place<'a> {
    /// Reads `/srv/d0` or `alpha:/srv/d0`.
    pub fn of(disk: &'a Path) -> Self {
        let text = disk.to_str().filter(|_text| !disk.is_absolute());
        match text.and_then(|text| text.split_once(':')) {
            Some((node, path)) if path.starts_with('/') => Place::Node { node, path },
            Some(_) | None => Place::Here(disk),
        }
    }
}

/// Bounds of what a mount may use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Written data that is not yet on disks, in MiB. Bounds the stripes in flight too.
    pub dirty_mib: u32,
    /// Verified file data kept for reading again, in MiB.
    pub read_cache_mib: u32,
    /// Extents and stripe records kept decoded for reading, in MiB.
    pub extent_cache_mib: u32,
    /// Pages of the metadata kept in memory, in MiB.
    pub metadata_cache_mib: u32,
    /// Footers of shards kept in memory, in MiB.
    pub footer_cache_mib: u32,
    /// Files open at once on each disk.
    pub open_shards: u32,
    /// Stripes being written at once.
    pub stripes_in_flight: u32,
    /// Age in milliseconds at which dirty data is written out.
    pub flush_age_ms: u32,
    /// How often the log is made durable without being asked, in milliseconds.
    pub log_flush_ms: u32,
    /// How often the metadata is checkpointed, in seconds.
    pub checkpoint_s: u32,
    /// Bytes of log after which the metadata is checkpointed early, in MiB.
    pub checkpoint_mib: u32,
    /// Size of one log file, in MiB.
    pub log_segment_mib: u32,
    /// Threads that do the blocking work of one disk.
    pub disk_threads: u32,
    /// Requests that may wait for one disk.
    pub disk_queue: u32,
    /// How long a mount waits for disks that are late, in seconds.
    pub disk_wait_s: u32,
    /// How long a change or an fsync waits while more disks are away than the volume can do without, in seconds. Then it
    /// fails; the volume goes on once they are back.
    pub outage_s: u32,
    /// How long a disk in use may be silent before others are preferred, in milliseconds.
    pub disk_suspect_ms: u32,
    /// How long it may be silent before it is taken out of use, in milliseconds.
    pub disk_down_ms: u32,
    /// How long a disk may be away before it is given up and what it held is placed anew, in seconds, if the others can
    /// take it; 0 for never.
    pub disk_out_s: u32,
    /// From the beginning of one scrub of all shards to that of the next, in days; 0 for never.
    pub scrub_days: u32,
    /// Most that scrub reads in a second, and how much when it is started by hand, in MiB.
    pub scrub_mib_s: u32,
    /// Stripes that are repaired at once.
    pub repair_stripes: u32,
    /// Most that repair and moves read and write in a second, in MiB; 0 for no limit. They give way to users anyway.
    pub repair_mib_s: u32,
    /// The same on one disk.
    pub repair_disk_mib_s: u32,
    /// Threads that read requests from the kernel.
    pub loop_threads: u32,
    /// Computations (coding, compression) at once; 0 means one for each processor.
    pub cpu_threads: u32,
    /// Largest fsync that goes into the log instead of a stripe, in KiB for each file, at most 64.
    pub hot_fsync_kib: u32,
    /// Small data in the log and metadata before it is packed into stripes, in MiB.
    pub hot_mib: u32,
    /// Share of each disk that only repair, cleaning and deletion may use, in percent.
    pub reserve_percent: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dirty_mib: 256,
            read_cache_mib: 128,
            extent_cache_mib: 16,
            metadata_cache_mib: 128,
            footer_cache_mib: 32,
            open_shards: 256,
            stripes_in_flight: 3,
            flush_age_ms: 5000,
            log_flush_ms: 1000,
            checkpoint_s: 5,
            checkpoint_mib: 32,
            log_segment_mib: 8,
            disk_threads: 2,
            disk_queue: 64,
            disk_wait_s: 10,
            outage_s: 60,
            disk_suspect_ms: 1000,
            disk_down_ms: 5000,
            disk_out_s: 600,
            scrub_days: 14,
            scrub_mib_s: 100,
            repair_stripes: 4,
            repair_mib_s: 0,
            repair_disk_mib_s: 0,
            loop_threads: 2,
            cpu_threads: 0,
            hot_fsync_kib: 64,
            hot_mib: 64,
            reserve_percent: 5,
        }
    }
}

impl Limits {
    /// Name, value, smallest and largest allowed value of each limit.
    fn ranges(&self) -> [(&'static str, u32, u32, u32); 29] {
        [
            ("dirty_mib", self.dirty_mib, 64, 65_536),
            ("read_cache_mib", self.read_cache_mib, 1, 1_048_576),
            ("extent_cache_mib", self.extent_cache_mib, 1, 65_536),
            ("metadata_cache_mib", self.metadata_cache_mib, 1, 1_048_576),
            ("footer_cache_mib", self.footer_cache_mib, 1, 65_536),
            ("open_shards", self.open_shards, 8, 65_536),
            ("stripes_in_flight", self.stripes_in_flight, 1, 64),
            ("flush_age_ms", self.flush_age_ms, 100, 3_600_000),
            ("log_flush_ms", self.log_flush_ms, 10, 60_000),
            ("checkpoint_s", self.checkpoint_s, 1, 3600),
            ("checkpoint_mib", self.checkpoint_mib, 1, 65_536),
            ("log_segment_mib", self.log_segment_mib, 1, 1024),
            ("disk_threads", self.disk_threads, 1, 64),
            ("disk_queue", self.disk_queue, 4, 65_536),
            ("disk_wait_s", self.disk_wait_s, 0, 3600),
            ("outage_s", self.outage_s, 1, 3600),
            ("disk_suspect_ms", self.disk_suspect_ms, 10, 600_000),
            ("disk_down_ms", self.disk_down_ms, 100, 600_000),
            ("disk_out_s", self.disk_out_s, 0, 31_536_000),
            ("scrub_days", self.scrub_days, 0, 3650),
            ("scrub_mib_s", self.scrub_mib_s, 1, 1_048_576),
            ("repair_stripes", self.repair_stripes, 1, 64),
            ("repair_mib_s", self.repair_mib_s, 0, 1_048_576),
            ("repair_disk_mib_s", self.repair_disk_mib_s, 0, 1_048_576),
            ("loop_threads", self.loop_threads, 1, 64),
            ("cpu_threads", self.cpu_threads, 0, 1024),
            ("hot_fsync_kib", self.hot_fsync_kib, 0, 64),
            ("hot_mib", self.hot_mib, 1, 65_536),
            ("reserve_percent", self.reserve_percent, 1, 50),
        ]
    }
}

impl Config {
    /// A configuration with default limits.
    pub fn new(name: impl Into<String>, disks: Vec<PathBuf>) -> Self {
        Self {
            name: name.into(),
            disks,
            identity: None,
            metrics_listen: None,
            peer: BTreeMap::new(),
            node: String::new(),
            limits: Limits::default(),
            disk: BTreeMap::new(),
        }
    }

    /// Reads and validates TOML text.
    ///
    /// Errors: `Refused`, naming the key.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)
            .map_err(|error| Error::refused(format!("read the configuration: {error}")))?;
        config.validate()?;
        Ok(config)
    }

    /// Labels of the disk at `path`.
    pub fn labels(&self, path: &Path) -> Result<Labels> {
        self.disk.get(path).cloned().unwrap_or_default().validate()
    }

    /// `host:port` of each node, by name.
    pub fn addresses(&self) -> BTreeMap<String, String> {
        self.peer.iter().map(|(name, peer)| (name.clone(), peer.host_and_port())).collect()
    }

    /// The TOML text that `parse` reads back.
    pub fn to_text(&self) -> Result<String> {
        let body = toml::to_string(self)
            .map_err(|error| Error::internal(format!("write the configuration: {error}")))?;
        Ok(format!("# ironfs volume {}; README explains the keys\n{body}", self.name))
    }

    /// Refuses a disk that nobody can find.
    fn validate_place(&self, disk: &Path) -> Result<()> {
        let (shown, place) = (disk.display(), Place::of(disk));
        match place {
            Place::Here(path) if path.is_absolute() => Ok(()),
            Place::Here(_) => Err(Error::refused(format!(
                "disk {shown}: give an absolute path, or a node and an absolute path there (alpha:/srv/d0)"
            ))),
            Place::Node { node, .. } if !self.peer.contains_key(node) => {
                Err(Error::refused(format!(
                    "disk {shown}: say where node {node} is: [peer.{node}] with address = \"HOST:PORT\""
                )))
            }
            Place::Node { .. } if self.identity.is_none() => Err(Error::refused(format!(
                "disk {shown}: set identity to the directory that `ironfs ca issue --role client` has made"
            ))),
            Place::Node { .. } => Ok(()),
        }
    }

    fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        if self.disks.is_empty() {
            return Err(Error::refused("the configuration lists no disks"));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            self.validate_place(disk)?;
            if self.disks.iter().skip(index + 1).any(|other| other == disk) {
                return Err(Error::refused(format!("disk {} is listed twice", disk.display())));
            }
        }
        self.peer.iter().try_for_each(|(name, peer)| validate_peer(name, peer))?;
        if self.metrics_listen.is_some_and(|address| address.port() == 0) {
            return Err(Error::refused("metrics_listen: give a port, such as 127.0.0.1:9464"));
        }
        Labels { node: self.node.clone(), ..Labels::default() }.validate()?;
        for (disk, labels) in &self.disk {
            if !self.disks.contains(disk) {
                let disk = disk.display();
                return Err(Error::refused(format!(
                    "[disk.\"{disk}\"] labels a disk that is not listed in disks"
                )));
            }
            labels.clone().validate()?;
        }
        for (name, value, least, most) in self.limits.ranges() {
            if !(least..=most).contains(&value) {
                return Err(Error::refused(format!(
                    "limits.{name} is {value}; it must be from {least} to {most}"
                )));
            }
        }
        Ok(())
    }
}

fn validate_peer(name: &str, peer: &Peer) -> Result<()> {
    validate_holder(name)?;
    if peer.address.is_empty() || peer.address.contains(char::is_whitespace) {
        return Err(Error::refused(format!(
            "peer.{name}.address is {:?}: give a host and a port, such as 10.0.0.2:{}",
            peer.address,
            node::PORT
        )));
    }
    Ok(())
}

/// Longest name of whoever holds a certificate: it is a label of DNS (RFC 1035), and nodes are labels of disks.
pub const HOLDER_BYTES_MAX: usize = labels::DOMAIN_BYTES_MAX;

/// Refuses what cannot name the holder of a certificate: it is a label of DNS, and the name of a folder.
pub fn validate_holder(name: &str) -> Result<()> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if (1..=HOLDER_BYTES_MAX).contains(&name.len()) && name.bytes().all(letter) && ends {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{name:?} cannot name a node, client or admin: use 1 to {HOLDER_BYTES_MAX} of a-z, 0-9 and -, with no - at an end"
    )))
}

/// Checks the name of a volume: 1 to 64 of `A-Z a-z 0-9 . _ -`, starting with a letter or digit, so that it can be
/// part of a path and of a command line.
pub fn validate_name(name: &str) -> Result<()> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if starts_well && name.len() <= VOLUME_NAME_BYTES_MAX && name.bytes().all(inner) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{name:?} cannot name a volume: use 1 to {VOLUME_NAME_BYTES_MAX} letters, digits, dots, hyphens and \
         underscores, with a letter or digit first"
    )))
}

#[cfg(test)]
mod tests;
