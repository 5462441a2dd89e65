//! Configuration of a node: TOML text to structs. Unknown keys are errors; every limit has a default and a unit.

use super::labels::Labels;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// UDP port of a node unless another is given.
pub const PORT: u16 = 7440;

/// What `ironfs-shardd` serves, and where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// UDP address to listen on.
    #[serde(default = "everywhere")]
    pub listen: SocketAddr,
    /// Directories, one for each disk. The place in this list is the number of the slot: add new ones at the end.
    pub disks: Vec<PathBuf>,
    /// Directory with the certificate, key and authority of the node.
    pub identity: PathBuf,
    /// The room or site that the node is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The rack that the node is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rack: String,
    /// Limits of memory and concurrency.
    #[serde(default)]
    pub limits: NodeLimits,
}

/// Bounds of what a node may use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeLimits {
    /// Footers of shards kept in memory for each disk, in MiB.
    pub footer_cache_mib: u32,
    /// Files of shards open at once on each disk.
    pub open_shards: u32,
    /// Threads that do the blocking work of one disk.
    pub disk_threads: u32,
    /// Requests that may wait for one disk.
    pub disk_queue: u32,
    /// How long requests under way get when the node ends, in seconds.
    pub drain_s: u32,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            footer_cache_mib: 32,
            open_shards: 256,
            disk_threads: 2,
            disk_queue: 64,
            drain_s: 10,
        }
    }
}

fn everywhere() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, PORT).into()
}

impl NodeLimits {
    /// Name, value, smallest and largest allowed value of each limit.
    fn ranges(&self) -> [(&'static str, u32, u32, u32); 5] {
        [
            ("footer_cache_mib", self.footer_cache_mib, 1, 65_536),
            ("open_shards", self.open_shards, 8, 65_536),
            ("disk_threads", self.disk_threads, 1, 64),
            ("disk_queue", self.disk_queue, 4, 65_536),
            ("drain_s", self.drain_s, 0, 600),
        ]
    }
}

impl NodeConfig {
    /// A configuration with the usual port and limits.
    pub fn new(disks: Vec<PathBuf>, identity: PathBuf) -> Self {
        Self {
            listen: everywhere(),
            disks,
            identity,
            zone: String::new(),
            rack: String::new(),
            limits: NodeLimits::default(),
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

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.disks.is_empty() {
            return Err(Error::refused(
                "disks is empty: list the directories that the node serves",
            ));
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let shown = disk.display();
            if !disk.is_absolute() {
                return Err(Error::refused(format!("disk {shown}: give an absolute path")));
            }
            if self.disks.iter().skip(index + 1).any(|other| other == disk) {
                return Err(Error::refused(format!("disk {shown} is listed twice")));
            }
        }
        let labels =
            Labels { rack: self.rack.clone(), zone: self.zone.clone(), ..Labels::default() };
        labels.validate()?;
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
