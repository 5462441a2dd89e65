//! The life of one node: open its directories, listen, serve, stop. Knows signals and where files are.

use super::server::{Server, Shared, Surroundings};
use crate::config::node::NodeConfig;
use crate::error::{Error, Result};
use crate::identity;
use crate::net::gather::NodeAddress;
use crate::net::neighbours::Neighbours;
use crate::net::quic::listener::Listener;
use crate::process::{abort_on_panic, raise_open_files};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Serves the directories of `config` until the process is asked to stop; calls `ready` with the address once it listens.
///
/// Errors: `Refused` with a sentence for whoever has to put it right.
pub fn serve(config: &NodeConfig, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    raise_open_files();
    abort_on_panic();
    // Threads of the network that wake each other for every packet take more than they give while disks and coding need the
    // processors too.
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads((processors / 2).max(1))
        .enable_all()
        .thread_name("ironfs-shardd")
        .build()
        .map_err(|error| Error::from_io("start the runtime", error))?;
    let result = runtime.block_on(serve_on(config, ready));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn serve_on(config: &NodeConfig, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    config.validate()?;
    let identity = Arc::new(identity::load(&config.identity)?);
    let neighbours = Arc::new(Neighbours::open(identity.clone())?);
    let reached = neighbours.clone();
    let surroundings = Surroundings::local(Arc::new(move |node: &NodeAddress| reached.reach(node)));
    let server = Arc::new(Server::open(config, surroundings).await?);
    let listener = Arc::new(Listener::bind(config.listen, identity)?);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (kept, keeping) = (server.clone(), stop.clone());
    tasks.spawn(async move { kept.keep(keeping).await });
    let (links, keeping) = (neighbours.clone(), stop.clone());
    tasks.spawn(async move { links.keep(keeping).await });
    let (listening, stopped, shared) = (listener.clone(), stop.clone(), Shared(server.clone()));
    let drain = Duration::from_secs(config.limits.drain_s.into());
    tasks.spawn(async move { listening.run(shared, stopped, drain).await });
    for (path, disk, trouble) in server.slots() {
        let path = path.display();
        match (disk, trouble) {
            (Some(disk), _) => tracing::info!("{path}: disk {disk}"),
            (None, None) => tracing::info!("{path}: empty, ready to become a disk"),
            (None, Some(trouble)) => tracing::warn!("{path}: {trouble}"),
        }
    }
    ready(listener.address()?);
    wait_for_end(config, &listener, &neighbours).await?;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    server.close().await;
    Ok(())
}

/// Waits for SIGTERM or SIGINT; reads the identity anew at each SIGHUP.
async fn wait_for_end(
    config: &NodeConfig,
    listener: &Listener,
    neighbours: &Neighbours,
) -> Result<()> {
    let listen = |kind, name: &str| {
        signal(kind).map_err(|error| Error::from_io(format!("listen for {name}"), error))
    };
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut reload = listen(SignalKind::hangup(), "SIGHUP")?;
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = reload.recv() => {
                let read = identity::load(&config.identity).map(Arc::new);
                let taken = read.and_then(|identity| {
                    listener.set_identity(identity.clone())?;
                    neighbours.set_identity(identity);
                    Ok(())
                });
                match taken {
                    Ok(()) => tracing::info!("the identity was read anew"),
                    Err(error) => tracing::error!("the identity stays as it was: {error}"),
                }
            }
        }
    }
}
