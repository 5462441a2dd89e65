//! `up`: try it. Makes an embedded volume if there is none, and mounts it in the foreground.

use super::nodes::{self, Nodes};
use super::{format, out, paths, serve};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mountd::daemon::{self, ServeRequest};
use crate::mountd::options::MountOptions;
use clap::Args;
use std::path::{Path, PathBuf};
use tracing::level_filters::LevelFilter;

/// Directories of a volume made by `up`.
const DISKS: usize = 6;
/// Its class.
const CLASS: &str = "4+2";
/// Its configuration, in the store.
const CONFIG_NAME: &str = "ironfs.toml";

/// Try it: make a 4+2 volume of six directories if there is none, and mount it in the foreground
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs up /mnt/iron\n  ironfs up ~/iron --store /data/iron-store\n  ironfs up /mnt/iron --nodes 6\n\nCtrl-C unmounts. The volume stays; the next `up` mounts it again."
)]
pub(super) struct Up {
    /// Mount point; made if it is not there
    directory: PathBuf,
    /// Where the six directories are kept [default: ironfs/default below the user's data directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Have so many nodes serve the directories, as in a cluster: processes on loopback, with certificates of their own. A
    /// volume that was made without nodes can be used with them, and the other way round
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=6))]
    nodes: Option<u8>,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS", default_value = "")]
    options: String,
}

impl Up {
    pub(super) fn run(self) -> Result<()> {
        let store = match &self.store {
            Some(store) => store.clone(),
            None => paths::data_dir()?.join("default"),
        };
        let directories = make_directories(&store)?;
        // Its output is for somebody who tries it for the first time: trouble only.
        serve::start_logging(LevelFilter::WARN);
        let nodes = self.nodes.map(|count| nodes::start(&store, &directories, count.into()));
        let nodes = nodes.transpose()?;
        let config = open_or_make(&store, directories, nodes.as_ref())?;
        let mut options = MountOptions::parse(&self.options, false)?;
        if !rustix::process::geteuid().is_root() {
            // /etc/fuse.conf decides whether users may; without it the mount would fail.
            options.allow_other &= user_allow_other();
        }
        make_mount_point(&self.directory)?;
        let directory = paths::absolute(&self.directory)?;
        let request = ServeRequest {
            socket: paths::socket(&config.name),
            config,
            directory: directory.clone(),
            options,
        };
        let place = directory.display().to_string();
        let served_by = match self.nodes {
            Some(count) => format!("kept in {}, served by {count} nodes", store.display()),
            None => format!("kept in {}", store.display()),
        };
        let served = daemon::serve(request, move |ready| {
            let text = format!(
                "ironfs is ready at {place} ({served_by})\n\
                 survives {}\n\
                 try:  cp -r /usr/share/doc {place}/ && ironfs status {place}\n\
                 \x20     ironfs info {place}/doc/...\n\
                 stop: Ctrl-C, or `ironfs umount {place}`\n",
                ready.survives,
            );
            if let Err(error) = out::print(&text) {
                out::complain(&error);
            }
        });
        // They end when nobody needs them any more.
        drop(nodes);
        served
    }
}

/// The directories in `store`, made if they are not there.
fn make_directories(store: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("make {}", store.display());
    let mut disks = Vec::with_capacity(DISKS);
    for index in 0..DISKS {
        let disk = store.join(format!("disk{index}"));
        std::fs::create_dir_all(&disk).map_err(|error| Error::from_io(context(), error))?;
        disks.push(disk);
    }
    format::real_directories(&disks)
}

/// The volume in `store`, made first if there is none, on these directories or on `nodes` that serve them.
fn open_or_make(store: &Path, directories: Vec<PathBuf>, nodes: Option<&Nodes>) -> Result<Config> {
    let config_path = store.join(CONFIG_NAME);
    let exists = config_path.exists();
    let before = match exists {
        true => paths::read_config(&config_path.display().to_string())?,
        false => Config::new(volume_name(store), directories.clone()),
    };
    // Nodes are elsewhere at each start.
    let mut config = before.clone();
    config.disks = nodes.map_or(directories, |nodes| nodes.disks.clone());
    config.peer = nodes.map(|nodes| nodes.peers.clone()).unwrap_or_default();
    config.identity = nodes.map(|nodes| nodes.identity.clone());
    if !exists {
        return Ok(format::format(config, CLASS.parse()?, true, &config_path)?.config);
    }
    if config != before {
        format::write_config(&config, &config_path)?;
    }
    Ok(config)
}

/// A name that tells stores apart: sockets and logs go by it.
fn volume_name(store: &Path) -> String {
    let path = store.canonicalize().unwrap_or_else(|_unresolved| store.to_path_buf());
    let hash = crate::sum::blake3(path.as_os_str().as_encoded_bytes());
    let tag: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("up-{tag}")
}

fn make_mount_point(directory: &Path) -> Result<()> {
    match std::fs::create_dir_all(directory) {
        Ok(()) => Ok(()),
        // A dead mount or one of ours is in the way: the server says what to do about it.
        Err(error) if super::is_dead_mount(&error) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            Err(Error::refused(format!("make the mount point {}: {error}", directory.display())))
        }
    }
}

fn user_allow_other() -> bool {
    std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}
