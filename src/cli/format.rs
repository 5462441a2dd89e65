//! `format`: makes a volume out of empty directories.

use super::{out, paths};
use crate::class::Class;
use crate::config::labels::Labels;
use crate::config::{Config, Peer, Place};
use crate::error::{Error, Result};
use crate::types::Timestamp;
use crate::volume::format::{FormatRequest, Formatted, format_in};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Make a volume out of empty directories, each standing for a disk
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs format media --class 4+2 --disk /srv/d0 --disk /srv/d1 --disk /srv/d2 \\\n      --disk /srv/d3 --disk /srv/d4 --disk /srv/d5\n  ironfs format lab --class replica:2 --disk /a /b --allow-same-device --config ./lab.toml\n  ironfs format lab --class 2+1 --disk a:/srv/d b:/srv/d c:/srv/d --identity /etc/ironfs/identity \\\n      --peer a=10.0.0.2:7440 --peer b=10.0.0.3:7440 --peer c=10.0.0.4:7440\n  ironfs format far --class 2+1 --disk /a /b /c --label /a,zone=home --label /b,zone=office \\\n      --label /c,zone=attic,tag=smr"
)]
pub(super) struct Format {
    /// Name of the volume: letters, digits, dot, dash and underscore
    name: String,
    /// Redundancy of the root directory: `4+2`, `6+3`, `replica:3`, with `,zstd` for compression
    #[arg(long, default_value = "4+2")]
    class: String,
    /// Empty directories, one for each disk; NODE:DIR for one that a node serves
    #[arg(long = "disk", value_name = "DIR", required = true, num_args = 1..)]
    disks: Vec<PathBuf>,
    /// Where a node is that serves disks, once for each
    #[arg(long = "peer", value_name = "NODE=HOST:PORT", requires = "identity")]
    peers: Vec<String>,
    /// Directory with certificate and key by which nodes know this machine
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Where a disk stands, once for each: zone, rack, node and tags
    #[arg(long = "label", value_name = "DIR,zone=Z,rack=R,node=N,tag=T")]
    labels: Vec<String>,
    /// Where to write the configuration [default: /etc/ironfs/NAME.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let several directories share a device: they are lost together with it
    #[arg(long)]
    allow_same_device: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    volume: String,
    class: String,
    config: String,
    disks: Vec<String>,
    survives: &'a str,
}

impl Format {
    pub(super) fn run(self) -> Result<()> {
        let class: Class = self.class.parse()?;
        let path = self.config.clone().unwrap_or_else(|| paths::config_path(&self.name));
        let mut config = Config::new(&self.name, real_directories(&self.disks)?);
        config.identity = self.identity.as_deref().map(real_directory).transpose()?;
        for text in &self.peers {
            let (name, address) = text.split_once('=').unwrap_or((text, ""));
            let address = address.to_owned();
            config.peer.insert(name.to_owned(), Peer { address });
        }
        for text in &self.labels {
            let (directory, labels) = text.split_once(',').unwrap_or((text, ""));
            config.disk.insert(real_directory(Path::new(directory))?, Labels::parse(labels)?);
        }
        let formatted = format(config, class, self.allow_same_device, &path)?;
        let shown = Shown {
            name: &self.name,
            volume: formatted.volume.to_string(),
            class: class.to_string(),
            config: path.display().to_string(),
            disks: formatted.config.disks.iter().map(|disk| disk.display().to_string()).collect(),
            survives: &formatted.survives,
        };
        if self.json {
            return out::print_json(&shown);
        }
        out::print(&format!(
            "volume {} is ready: class {}, {} disks, survives {}\nconfiguration: {}\nnext: ironfs mount {} DIR\n",
            shown.name,
            shown.class,
            shown.disks.len(),
            shown.survives,
            shown.config,
            if self.config.is_some() { &shown.config } else { &self.name },
        ))
    }
}

/// Formats, then writes the configuration; an existing configuration is never replaced.
pub(super) fn format(
    config: Config,
    class: Class,
    allow_same_device: bool,
    config_path: &Path,
) -> Result<Formatted> {
    if config_path.exists() {
        return Err(Error::refused(format!(
            "{} exists already: choose another name or --config FILE",
            config_path.display()
        )));
    }
    // Refuses bad names and doubled directories before anything is touched.
    Config::parse(&config.to_text()?)?;
    let request = FormatRequest {
        config,
        class,
        allow_same_device,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        time: now(),
    };
    let world = paths::world(&request.config)?;
    // Written before the disks are touched: a place that cannot take it leaves them empty.
    let waiting = write_beside(&request.config, config_path)?;
    let formatted = paths::block_on(format_in(request, &world)).inspect_err(|_refused| {
        drop(std::fs::remove_file(&waiting));
    })?;
    put_in_place(&waiting, config_path)?;
    Ok(formatted)
}

/// The directories as the kernel names them.
///
/// Errors: `Refused` if one is none.
pub(super) fn real_directories(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths.iter().map(|path| real_directory(path)).collect()
}

fn real_directory(path: &Path) -> Result<PathBuf> {
    if let Place::Node { .. } = Place::of(path) {
        return Ok(path.to_path_buf());
    }
    match path.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => Err(Error::refused(format!("{} is not a directory", path.display()))),
        Err(error) => {
            let path = path.display();
            Err(Error::refused(format!("disk {path}: {error}; make the directory first")))
        }
    }
}

/// Writes a configuration durably: beside its place, then renamed.
pub(super) fn write_config(config: &Config, path: &Path) -> Result<()> {
    put_in_place(&write_beside(config, path)?, path)
}

/// Writes a configuration beside its place, and answers where.
fn write_beside(config: &Config, path: &Path) -> Result<PathBuf> {
    let wrong = |error: std::io::Error| {
        Error::refused(format!("write the configuration {}: {error}", path.display()))
    };
    std::fs::create_dir_all(parent_of(path)).map_err(wrong)?;
    let beside = path.with_extension("toml.new");
    std::fs::write(&beside, config.to_text()?).map_err(wrong)?;
    std::fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(wrong)?;
    Ok(beside)
}

fn put_in_place(beside: &Path, path: &Path) -> Result<()> {
    let renamed = std::fs::rename(beside, path)
        .and_then(|()| std::fs::File::open(parent_of(path))?.sync_all());
    renamed.map_err(|error| {
        Error::from_io(format!("write the configuration {}", path.display()), error)
    })
}

fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// The wall clock, read once at the edge.
pub(super) fn now() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or_default() }
}
