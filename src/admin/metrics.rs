//! The metrics page, and the TCP address at which it is served: `/metrics` and `/health`, and nothing else, to whoever can
//! reach it.

use super::{AdminState, ApiError, answer, health};
use crate::metrics::TEXT_FORMAT;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Connections at once: a few scrapers and a few people. Others wait in the kernel.
const CONNECTIONS_MAX: usize = 32;
/// Pause before an address that was taken is tried again: the mount before this one may just be letting go of it.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long answers under way may take when the mount ends.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// All metrics as text.
pub(super) async fn page(
    State(state): State<AdminState>,
) -> Result<impl IntoResponse, (StatusCode, Json<ApiError>)> {
    let Json(text) = answer(state.volume.metrics_page())?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}

/// Serves the page and the state of health at `address` until `stop`. While the address is taken the mount goes on
/// without: that is said once, and tried again.
pub async fn serve(address: SocketAddr, state: AdminState, stop: CancellationToken) {
    let Some(listener) = bind(address, &stop).await else { return };
    tracing::info!("metrics are served at http://{address}/metrics");
    let router =
        Router::new().route("/metrics", get(page)).route("/health", get(health)).with_state(state);
    let listener = Bounded { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let asked = stop.clone();
    let served = async {
        let stopping = async move { asked.cancelled().await };
        axum::serve(listener, router).with_graceful_shutdown(stopping).await
    };
    // A connection on which half a request came is not waited for.
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_WAIT).await;
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::error!("metrics are not served any more: {error}");
            }
        }
        () = overdue => {}
    }
}

/// Listens at `address` as soon as it is free; `None` when it is time to stop.
async fn bind(address: SocketAddr, stop: &CancellationToken) -> Option<TcpListener> {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if told => tracing::debug!(%address, %error, "still no metrics"),
            Err(error) => {
                tracing::error!(
                    "metrics are not served, listening on {address} fails ({error}): the mount goes on without them \
                     and tries again; free the address, or change metrics_listen and mount again"
                );
                told = true;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

/// A listener that has a bounded number of connections.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Admitted { stream, _room: room.ok() }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that has its place until it is closed.
struct Admitted {
    stream: TcpStream,
    /// `None` never comes: nobody closes the semaphore.
    _room: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
