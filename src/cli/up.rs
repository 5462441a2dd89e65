//! `up`: try it. Makes an embedded volume if there is none, and mounts it in the foreground.

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
    after_help = "Examples:\n  ironfs up /mnt/iron\n  ironfs up ~/iron --store /data/iron-store\n\nCtrl-C unmounts. The volume stays; the next `up` mounts it again."
)]
pub(super) struct Up {
    /// Mount point; made if it is not there
    directory: PathBuf,
    /// Where the six directories are kept [default: ironfs/default below the user's data directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
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
        let config = open_or_make(&store)?;
        let mut options = MountOptions::parse(&self.options, false)?;
        if !rustix::process::geteuid().is_root() {
            // /etc/fuse.conf decides whether users may; without it the mount would fail.
            options.allow_other &= user_allow_other();
        }
        make_mount_point(&self.directory)?;
        // Its output is for somebody who tries it for the first time: trouble only.
        serve::start_logging(LevelFilter::WARN);
        let directory = paths::absolute(&self.directory)?;
        let request = ServeRequest {
            socket: paths::socket(&config.name),
            config,
            directory: directory.clone(),
            options,
        };
        let place = directory.display().to_string();
        daemon::serve(request, move |ready| {
            let text = format!(
                "ironfs is ready at {place} (kept in {})\n\
                 survives {}\n\
                 try:  cp -r /usr/share/doc {place}/ && ironfs status {place}\n\
                 \x20     ironfs info {place}/doc/...\n\
                 stop: Ctrl-C, or `ironfs umount {place}`\n",
                store.display(),
                ready.survives,
            );
            if let Err(error) = out::print(&text) {
                out::complain(&error);
            }
        })
    }
}

/// The volume in `store`, made first if there is none.
fn open_or_make(store: &Path) -> Result<Config> {
    let context = || format!("make {}", store.display());
    let config_path = store.join(CONFIG_NAME);
    if config_path.exists() {
        return paths::read_config(&config_path.display().to_string());
    }
    let mut disks = Vec::with_capacity(DISKS);
    for index in 0..DISKS {
        let disk = store.join(format!("disk{index}"));
        std::fs::create_dir_all(&disk).map_err(|error| Error::from_io(context(), error))?;
        disks.push(disk);
    }
    let config = Config::new(volume_name(store), format::real_directories(&disks)?);
    Ok(format::format(config, CLASS.parse()?, true, &config_path)?.config)
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
