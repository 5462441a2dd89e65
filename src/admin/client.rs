//! Client of the admin API, for the CLI and the mount helper.

use super::ApiError;
use crate::error::{Error, ErrorKind, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use tokio::net::UnixStream;

/// Longest answer that is read: a status of the largest volume is far below it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// GET `path` on the API at `socket`.
///
/// Errors: `Unavailable` if nobody serves it, or it cannot do what is asked now; else `Refused`, with the API's sentence.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    call(socket, Method::GET, path, Vec::new()).await
}

/// POST `body` as JSON to `path` on the API at `socket`.
///
/// Errors: as `get`.
pub async fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
) -> Result<T> {
    let body = serde_json::to_vec(body)
        .map_err(|error| Error::internal(format!("encode a request: {error}")))?;
    call(socket, Method::POST, path, body).await
}

/// As `get`, of an answer that begins at once and ends when there is something to tell: calls `begun` in between.
///
/// Errors: as `get`, and those of `begun`.
pub async fn follow<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    begun: impl FnOnce() -> Result<()>,
) -> Result<T> {
    exchange(socket, (Method::GET, path), Vec::new(), begun).await
}

async fn call<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T> {
    exchange(socket, (method, path), body, || Ok(())).await
}

async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    (method, path): (Method, &str),
    body: Vec<u8>,
    begun: impl FnOnce() -> Result<()>,
) -> Result<T> {
    let doing = || format!("ask the mount at {}", socket.display());
    let wrong = |error: &dyn std::fmt::Display| Error::unavailable(format!("{}: {error}", doing()));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| Error::with_source(ErrorKind::Unavailable, doing(), error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| wrong(&error))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(hyper::body::Bytes::from(body)))
        .map_err(|error| wrong(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| wrong(&error))?;
        let status = response.status();
        if status.is_success() {
            begun()?;
        }
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| wrong(&error))?
            .to_bytes();
        drop(sender);
        Ok::<_, Error>((status, body))
    };
    let (answer, _closed) = tokio::join!(exchange, connection);
    let (status, body) = answer?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| wrong(&error));
    }
    match serde_json::from_slice::<ApiError>(&body) {
        // It tried, and could not: nobody has asked for something wrong.
        Ok(error) if status.is_server_error() => Err(Error::unavailable(error.error)),
        Ok(error) => Err(Error::refused(error.error)),
        Err(_not_ours) => Err(wrong(&status)),
    }
}
