//! `mount` and `umount`.

use super::{out, paths};
use crate::admin::{Done, Ended, client};
use crate::error::{Error, Result};
use crate::mountd::mount as kernel;
use crate::mountd::options::MountOptions;
use crate::volume::status::Status;
use clap::Args;
use std::cell::OnceCell;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A log file larger than this is put aside when a daemon starts.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A server that takes longer than this to end is asked what it is waiting for.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether a server that has ended is gone.
const END_LOOK: Duration = Duration::from_millis(20);

/// Mount a volume; returns when the file system answers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs mount media /mnt/media\n  ironfs mount ./lab.toml /mnt/lab -o ro,noatime\n  ironfs mount media /mnt/media --foreground"
)]
pub(super) struct Mount {
    /// Name of the volume, or path of its configuration
    volume: String,
    /// Mount point: an existing directory
    directory: PathBuf,
    /// Mount options, separated by commas: ro, noatime, relatime, strictatime, nodev, nosuid, noexec, remount, ...
    #[arg(short = 'o', value_name = "OPTIONS", default_value = "")]
    options: String,
    /// Stay in the foreground and log to the terminal
    #[arg(long)]
    foreground: bool,
}

impl Mount {
    pub(super) fn run(self) -> Result<()> {
        if self.foreground {
            check_mount_point(&self.directory)?;
            let executable = this_executable()?;
            let failed = Command::new(executable)
                .arg0("ironfs-mountd")
                .args(["serve", &self.volume, "-o", &self.options])
                .arg(&self.directory)
                .exec();
            return Err(Error::from_io("start the server", failed));
        }
        mount(&self.volume, &self.directory, &self.options)
    }
}

/// Mounts in the background; returns when the file system answers.
pub(super) fn mount(volume: &str, directory: &Path, options: &str) -> Result<()> {
    let parsed = MountOptions::parse(options, false)?;
    if parsed.remount {
        return remount(directory, &parsed);
    }
    let config = paths::read_config(volume)?;
    check_mount_point(directory)?;
    let volume = std::path::absolute(paths::config_path(volume))
        .map_err(|error| Error::from_io("find the configuration", error))?;
    let log = open_log(&config.name)?;
    let mut child = Command::new(this_executable()?)
        .arg0("ironfs-mountd")
        .args(["serve", "--detached", "-o", options])
        .arg(volume)
        .arg(paths::absolute(directory)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| Error::from_io("start the server", error))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // No line at all is a child that died: told below.
        drop(BufReader::new(stdout).read_line(&mut line));
    }
    match line.trim_end() {
        "ready" => Ok(()),
        "" => Err(Error::refused(format!(
            "the server ended without a word; see {}",
            paths::log_file(&config.name).display()
        ))),
        line => Err(Error::refused(line.strip_prefix("error ").unwrap_or(line).to_owned())),
    }
}

/// Changes a mount that is there: the kernel's flags first, then the server's.
fn remount(directory: &Path, options: &MountOptions) -> Result<()> {
    let directory = paths::absolute(directory)?;
    let mount = paths::mount_of(&directory)?
        .filter(|mount| mount.directory == directory)
        .ok_or_else(|| {
            let directory = directory.display();
            Error::refused(format!("remount {directory}: no ironfs volume is mounted there"))
        })?;
    let body = crate::volume::status::Remount {
        read_only: options.read_only(),
        atime: options.atime,
        nodiratime: options.nodiratime,
    };
    let socket = paths::socket(&mount.source);
    // To read-only: the kernel stops writers before the server refuses them; to read-write the other way round.
    let tell = || paths::block_on(client::post::<Done>(&socket, "/remount", &body));
    if body.read_only {
        kernel::remount(&directory, options.flags)?;
        tell()?;
    } else {
        tell()?;
        kernel::remount(&directory, options.flags)?;
    }
    Ok(())
}

/// A mount point must be a directory; a dead mount there is the server's business.
fn check_mount_point(directory: &Path) -> Result<()> {
    match std::fs::metadata(directory) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::refused(format!("{} is not a directory", directory.display()))),
        Err(error) if super::is_dead_mount(&error) => Ok(()),
        Err(error) => Err(Error::refused(format!("mount point {}: {error}", directory.display()))),
    }
}

/// The program to start for serving: this one, also when it was replaced on disk since.
pub(super) fn this_executable() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Error::from_io("find this program", error))
}

fn open_log(name: &str) -> Result<std::fs::File> {
    let path = paths::log_file(name);
    let context = || format!("open the log {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Error::from_io(context(), error))?;
    }
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        let old = path.with_extension("log.old");
        std::fs::rename(&path, old).map_err(|error| Error::from_io(context(), error))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| Error::from_io(context(), error))
}

/// Unmount; what is dirty is written out by the server, which ends after it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ironfs umount /mnt/media\n  ironfs umount --lazy /mnt/media")]
pub(super) struct Umount {
    /// Mount point
    directory: PathBuf,
    /// Detach a mount that is in use
    #[arg(long, short)]
    lazy: bool,
    /// Return at once instead of waiting until the server has written everything and ended
    #[arg(long)]
    no_wait: bool,
}

impl Umount {
    pub(super) fn run(self) -> Result<()> {
        let how = Unmount { lazy: self.lazy, wait: !self.no_wait && !self.lazy };
        unmount(&self.directory, how)
    }
}

/// How to unmount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmount {
    /// Detach a mount that is in use.
    pub(super) lazy: bool,
    /// Return when everything is on the disks.
    pub(super) wait: bool,
}

/// Unmounts an ironfs mount; other file systems are left alone.
pub(super) fn unmount(directory: &Path, how: Unmount) -> Result<()> {
    let directory = paths::absolute(directory)?;
    let mount = paths::mount_of(&directory)?.filter(|mount| mount.directory == directory);
    let Some(mount) = mount else {
        let directory = directory.display();
        return Err(Error::refused(format!("{directory}: no ironfs volume is mounted there")));
    };
    if !how.wait {
        return kernel::unmount(&directory, how.lazy);
    }
    let log = paths::log_file(&mount.source);
    let server = Server { socket: paths::socket(&mount.source), log };
    paths::block_on(server.end(|| kernel::unmount(&directory, how.lazy)))
}

/// Who serves a mount that is being unmounted.
struct Server {
    socket: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Unmounts, and waits until the server has ended.
    ///
    /// Errors: that of unmounting; what is lost of what was written.
    async fn end(&self, unmount: impl Fn() -> Result<()>) -> Result<()> {
        let (unmounted, inode) = (OnceCell::new(), self.inode());
        // Asked before the mount is gone: the server may end at once.
        let first = tokio::select! {
            biased;
            ended = self.ended(|| unmounted.get_or_init(&unmount).clone()) => Some(ended),
            () = is_silent(&unmounted) => None,
        };
        let ended = match (first, unmounted.into_inner()) {
            (_, Some(Err(error))) => return Err(error),
            (Some(ended), Some(Ok(()))) => ended,
            (_, None | Some(Ok(()))) => {
                unmount()?;
                if UnixStream::connect(&self.socket).is_err() {
                    // It had died, and only its mount was left.
                    return Ok(());
                }
                self.ended(|| Ok(())).await
            }
        };
        // It gives its disks back before the socket is gone. Another server may make its own at once.
        while self.inode() == inode && UnixStream::connect(&self.socket).is_ok() {
            tokio::time::sleep(END_LOOK).await;
        }
        match ended {
            Ok(Ended { error: None }) => Ok(()),
            Ok(Ended { error: Some(lost) }) => Err(Error::unavailable(lost)),
            Err(_gone) => Err(Error::unavailable(format!(
                "the server ended before it said that everything is on the disks; see {}",
                self.log.display()
            ))),
        }
    }

    /// Tells its socket from that of another server.
    fn inode(&self) -> Option<u64> {
        std::fs::metadata(&self.socket).ok().map(|meta| meta.ino())
    }

    /// How the server has ended; calls `begun` once it has heard the question.
    async fn ended(&self, begun: impl FnOnce() -> Result<()>) -> Result<Ended> {
        tokio::select! {
            biased;
            ended = client::follow(&self.socket, "/ended", begun) => ended,
            never = self.tell_waits() => match never {},
        }
    }

    /// Says what a server that does not end is waiting for.
    async fn tell_waits(&self) -> Infallible {
        tokio::time::sleep(END_PATIENCE).await;
        let status = client::get::<Status>(&self.socket, "/status");
        let status = tokio::time::timeout(END_PATIENCE, status).await;
        let waiting = status.ok().and_then(Result::ok).filter(|status| status.state == "waiting");
        out::tell(&match waiting.and_then(|status| status.problems.into_iter().next()) {
            Some(problem) => format!(
                "{problem}; what was not synced is lost if they do not come back within `outage_s`"
            ),
            None => "waiting until the server has written out what was dirty".into(),
        });
        std::future::pending().await
    }
}

/// Returns when a server has not begun to answer for too long.
async fn is_silent(unmounted: &OnceCell<Result<()>>) {
    tokio::time::sleep(END_PATIENCE).await;
    if unmounted.get().is_some() {
        std::future::pending::<()>().await;
    }
}
