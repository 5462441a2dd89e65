//! The life of one mount: open the volume, mount, serve, stop. Knows the kernel and signals; the volume does the rest.

use crate::admin;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity;
use crate::mountd::fuse::FuseFs;
use crate::mountd::mount::{self, MountRequest};
use crate::mountd::options::MountOptions;
use crate::process::{abort_on_panic, raise_open_files};
use crate::types::Timestamp;
use crate::volume::status::Status;
use crate::volume::{Volume, VolumeOptions, World};
use fuser::{Session, SessionACL};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Dead mounts that may lie on each other on one directory.
const DEAD_MOUNTS_MAX: usize = 64;
/// How long another server may take to say that it serves the volume.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long an old server may take to end.
const END_WAIT: Duration = Duration::from_secs(10);
/// Pause between looks whether it has.
const END_LOOK: Duration = Duration::from_millis(20);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct ServeRequest {
    /// The volume.
    pub config: Config,
    /// Mount point, absolute.
    pub directory: PathBuf,
    /// Mount options.
    pub options: MountOptions,
    /// Unix socket of the admin API.
    pub socket: PathBuf,
}

/// What is told once the mount answers.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What the volume survives, in words.
    pub survives: String,
}

/// Serves a mount until it is unmounted or the process is asked to stop; calls `ready` once it answers.
///
/// Errors: those of opening the volume and of mounting, with nothing left behind.
pub fn serve(request: ServeRequest, ready: impl FnOnce(&Ready)) -> Result<()> {
    raise_open_files();
    abort_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ironfs")
        .build()
        .map_err(|error| Error::from_io("start the runtime", error))?;
    let result = runtime.block_on(serve_on(request, ready));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn serve_on(request: ServeRequest, ready: impl FnOnce(&Ready)) -> Result<()> {
    refuse_if_served(&request.config.name, &request.socket).await?;
    detach_dead_mount(&request.directory);
    let options = VolumeOptions {
        read_only: request.options.read_only(),
        atime: request.options.atime,
        nodiratime: request.options.nodiratime,
        clock: Arc::new(coarse_clock),
        holder: format!("pid {}, mount {}", std::process::id(), request.directory.display()),
    };
    let identity = request.config.identity.as_deref().map(identity::load).transpose()?;
    let world = World::reaching(&request.config, identity)?;
    let volume = Volume::open(&request.config, options, world).await?;
    let socket = match admin::bind(&request.socket) {
        Ok(socket) => socket,
        Err(error) => return volume.shutdown().await.and(Err(error)),
    };
    // The API answers until all is on the disks, so that whoever unmounts can wait for that.
    let stop = CancellationToken::new();
    let state = admin::AdminState::new(Arc::clone(&volume), request.directory.clone());
    let tasks = TaskTracker::new();
    if let Some(address) = request.config.metrics_listen {
        tasks.spawn(admin::metrics::serve(address, state.clone(), stop.clone()));
    }
    tasks.spawn(admin::serve(socket, state.clone(), stop.clone()));
    let served = serve_volume(&request, &volume, ready).await;
    let closed = volume.shutdown().await;
    state.tell_end(&closed);
    // Removed while the disks are still locked: a server that waits for them has not made its own yet.
    drop(std::fs::remove_file(&request.socket));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    served.and(closed)
}

/// Refuses a volume that another process serves. One whose server is just ending has no mount any more: it is waited for,
/// as what it writes out must be on the disks first, and as it may have given up their locks with disks that are away.
/// Nobody listens for one that died.
///
/// Errors: `Refused`, naming the process.
pub async fn refuse_if_served(name: &str, socket: &Path) -> Result<()> {
    let deadline = Instant::now() + END_WAIT;
    while UnixStream::connect(socket).is_ok() {
        let mount = mount::mounted()?.into_iter().find(|mount| mount.source == name);
        let late = Instant::now() >= deadline;
        // One that is being killed may still listen for a moment, and its mount stays.
        let pid = if mount.is_some() || late { pid_of(socket).await } else { None };
        if pid.is_some() || late {
            let who = pid.map_or_else(
                || "a process that does not answer".into(),
                |pid| format!("pid {pid}"),
            );
            return Err(Error::refused(match mount {
                Some(mount) => format!(
                    "volume {name} is mounted on {}, served by {who}: unmount it first",
                    mount.directory.display()
                ),
                None => format!(
                    "volume {name} is being unmounted, and {who} has to write out what is dirty: wait for it"
                ),
            }));
        }
        tokio::time::sleep(END_LOOK).await;
    }
    Ok(())
}

/// The process that answers at `socket`.
async fn pid_of(socket: &Path) -> Option<u32> {
    let status = admin::client::get::<Status>(socket, "/status");
    tokio::time::timeout(ANSWER_WAIT, status).await.ok()?.ok()?.pid
}

/// Mounts, and serves until the mount is gone.
async fn serve_volume(
    request: &ServeRequest,
    volume: &Arc<Volume>,
    ready: impl FnOnce(&Ready),
) -> Result<()> {
    let device = mount::mount(&MountRequest {
        source: request.config.name.clone(),
        directory: request.directory.clone(),
        flags: request.options.flags,
        allow_other: request.options.allow_other,
    })?;
    let tasks = TaskTracker::new();
    let session = start_session(request, volume, device, &tasks).await.inspect_err(|_error| {
        // The mount exists but nothing serves it: it must not stay behind.
        drop(mount::unmount(&request.directory, true));
    })?;
    ready(&Ready { survives: volume.survives() });
    let ended = wait_for_end(request, session).await;
    tasks.close();
    tasks.wait().await;
    ended
}

/// Performs the handshake with the kernel and starts the loop threads.
async fn start_session(
    request: &ServeRequest,
    volume: &Arc<Volume>,
    device: OwnedFd,
    tasks: &TaskTracker,
) -> Result<fuser::BackgroundSession> {
    let (runtime, metrics) = (tokio::runtime::Handle::current(), volume.request_metrics());
    let fs = FuseFs::new(volume.fs(), runtime, tasks.clone(), metrics);
    let notifications = fs.notifications();
    let mut config = fuser::Config::default();
    config.n_threads = usize::try_from(request.config.limits.loop_threads).ok();
    config.clone_fd = false;
    let start = move || {
        let session = Session::from_fd(fs, device, SessionACL::All, config)?.spawn()?;
        notifications(session.notifier())?;
        Ok::<_, std::io::Error>(session)
    };
    let session = volume
        .cpu()
        .run(start)
        .await
        .map_err(|error| Error::from_io("shake hands with the kernel", error))?;
    // Reads /sys and mountinfo only: nothing here touches the mount itself.
    mount::tune(&request.directory);
    Ok(session)
}

/// Waits until the kernel ends the session (umount), or a signal asks for it and the mount is gone.
async fn wait_for_end(request: &ServeRequest, session: fuser::BackgroundSession) -> Result<()> {
    let (ended, mut end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("ironfs-session".to_owned())
        .spawn(move || drop(ended.send(session.join())))
        .map_err(|error| Error::from_io("start the session thread", error))?;
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Error::from_io("listen for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| Error::from_io("listen for SIGINT", error))?;
    loop {
        tokio::select! {
            biased;
            result = &mut end => {
                return match result {
                    Ok(Ok(())) => Ok(()),
                    // ECONNABORTED follows an abort of the connection: the mount is gone, a normal end.
                    Ok(Err(error)) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
                    Ok(Err(error)) => Err(Error::from_io("serve the kernel", error)),
                    Err(_gone) => Err(Error::internal("the session thread is gone")),
                };
            }
            _ = terminate.recv() => unmount_for_signal(request),
            _ = interrupt.recv() => unmount_for_signal(request),
        }
    }
}

/// Unmounts on a signal. A mount in use is detached: its users keep what they have open until they close it.
fn unmount_for_signal(request: &ServeRequest) {
    if let Err(error) = mount::unmount(&request.directory, false) {
        tracing::warn!("{error}; detaching it");
        if let Err(error) = mount::unmount(&request.directory, true) {
            tracing::error!("{error}");
        }
    }
}

/// A mount point whose server died answers ENOTCONN, and ECONNABORTED to who asked while it died: it is detached so that the
/// new mount does not lie over it.
fn detach_dead_mount(directory: &Path) {
    // The kernel answers a stat of the root from its cache even when the server is gone; statfs always asks.
    let is_dead = || {
        use rustix::io::Errno;
        matches!(rustix::fs::statfs(directory), Err(Errno::NOTCONN | Errno::CONNABORTED))
    };
    for _mount in 0..DEAD_MOUNTS_MAX {
        if !is_dead() {
            return;
        }
        if let Err(error) = mount::unmount(directory, true) {
            tracing::warn!("a dead mount is in the way: {error}");
            return;
        }
    }
}

/// The clock that the kernel stamps FUSE inodes with, so that times never step back between the two.
fn coarse_clock() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Timestamp { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or_default() }
}
