//! Where things lie: configurations, sockets, logs, and which mount a path belongs to.

use crate::config::{CONFIG_DIR, Config};
use crate::error::{Error, Result};
use crate::identity;
use crate::mountd::mount::{Mounted, mounted};
use crate::volume::World;
use clap::Args;
use std::path::{Path, PathBuf};

/// A mounted volume, and how what it answers is printed.
#[derive(Debug, Args)]
pub(super) struct VolumeArgs {
    /// Name of the volume, path of its configuration, or a path inside the mount
    pub(super) volume: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The configuration that `name` means: a path if it looks like one, else `/etc/ironfs/NAME.toml`.
pub(super) fn config_path(name: &str) -> PathBuf {
    if name.contains('/') || Path::new(name).extension().is_some_and(|end| end == "toml") {
        PathBuf::from(name)
    } else {
        Path::new(CONFIG_DIR).join(format!("{name}.toml"))
    }
}

/// Reads the configuration that `name` means.
///
/// Errors: `Refused`, saying what to do.
pub(super) fn read_config(name: &str) -> Result<Config> {
    let path = config_path(name);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Error::refused(format!(
            "read the configuration {}: {error}; `ironfs scan DIR...` rebuilds it from the disks",
            path.display()
        ))
    })?;
    Config::parse(&text).map_err(|error| error.while_doing(path.display().to_string()))
}

/// Where the disks of `config` come from: this machine and its nodes.
pub(super) fn world(config: &Config) -> Result<World> {
    let identity = config.identity.as_deref().map(identity::load).transpose()?;
    World::reaching(config, identity)
}

/// Directory of sockets: `/run/ironfs` for root, else below the user's runtime directory.
pub(super) fn runtime_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/ironfs");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("ironfs"),
        Some(_) | None => {
            PathBuf::from(format!("/tmp/ironfs-{}", rustix::process::geteuid().as_raw()))
        }
    }
}

/// Socket of the admin API of the volume called `name`.
pub(super) fn socket(name: &str) -> PathBuf {
    runtime_dir().join(format!("{name}.sock"))
}

/// File that a daemon without a terminal logs to.
pub(super) fn log_file(name: &str) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        PathBuf::from(format!("/var/log/ironfs/{name}.log"))
    } else {
        runtime_dir().join(format!("{name}.log"))
    }
}

/// Directory for volumes made by `up`: below the user's data directory.
pub(super) fn data_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("ironfs"));
    }
    match std::env::var_os("HOME").filter(|dir| !dir.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/ironfs")),
        None => {
            Err(Error::refused("HOME is not set: say where to keep the volume with --store DIR"))
        }
    }
}

/// `path` made absolute without touching what it leads to: it may be a mount that does not answer.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::from_io(format!("make {} absolute", path.display()), error))?;
    // The mount table shows real paths: links above the mount point are resolved, the mount point itself is not
    // touched.
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    Ok(parent.canonicalize().map_or_else(|_unresolved| absolute.clone(), |real| real.join(name)))
}

/// The mount that `path` lies in.
pub(super) fn mount_of(path: &Path) -> Result<Option<Mounted>> {
    let path = absolute(path)?;
    let mut mounts: Vec<Mounted> =
        mounted()?.into_iter().filter(|mount| path.starts_with(&mount.directory)).collect();
    mounts.sort_by_key(|mount| mount.directory.as_os_str().len());
    Ok(mounts.pop())
}

/// Socket of the volume that `name_or_path` means: a path inside a mount, the path of a configuration, or a name.
///
/// Errors: `Refused` with what to do if nobody serves it.
pub(super) fn socket_of(name_or_path: &str) -> Result<PathBuf> {
    let socket = socket(&name_of(name_or_path)?);
    match std::os::unix::net::UnixStream::connect(&socket) {
        Ok(_answers) => Ok(socket),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Error::refused(format!("{name_or_path}: only who mounted it may ask: {error}")))
        }
        Err(_nobody) => Err(Error::refused(format!(
            "{name_or_path}: not mounted; `ironfs mount` serves it, `ironfs fsck` checks it offline"
        ))),
    }
}

/// Name of the volume that `name_or_path` means.
fn name_of(name_or_path: &str) -> Result<String> {
    let path = Path::new(name_or_path);
    let looks_like_path = config_path(name_or_path) == path || path.is_dir();
    if !looks_like_path {
        return Ok(name_or_path.to_owned());
    }
    if let Some(mount) = mount_of(path)? {
        return Ok(mount.source);
    }
    if path.is_dir() {
        return Err(Error::refused(format!("{name_or_path} is not inside an ironfs mount")));
    }
    Ok(read_config(name_or_path)?.name)
}

/// Runs a future on a small runtime of its own: for commands that ask a mount.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::from_io("start the runtime", error))?
        .block_on(future)
}
