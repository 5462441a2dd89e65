//! The admin API of a mount: HTTP and JSON on a Unix socket. The CLI and scripts use the same. Knows the volume, not
//! the kernel.

use crate::error::{Error, Result};
use crate::types::Ino;
use crate::volume::Volume;
use crate::volume::status::Remount;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub mod client;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct AdminState {
    volume: Arc<Volume>,
    directory: PathBuf,
}

impl AdminState {
    /// The API of `volume`, mounted at `directory`.
    pub const fn new(volume: Arc<Volume>, directory: PathBuf) -> Self {
        Self { volume, directory }
    }
}

/// Binds the socket, for its owner only. A socket that nobody listens on is replaced.
///
/// Errors: `Refused` if another process serves it.
pub fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Error::from_io(format!("make {}", parent.display()), error))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let path = path.display();
        return Err(Error::refused(format!("{path}: another mount of this name is being served")));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::from_io(format!("remove {}", path.display()), error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)
        .map_err(|error| Error::from_io(format!("listen on {}", path.display()), error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| Error::from_io(format!("protect {}", path.display()), error))?;
    Ok(listener)
}

/// Serves the API until `stop`.
pub async fn serve(listener: UnixListener, state: AdminState, stop: CancellationToken) {
    let router = Router::new()
        .route("/health", get(health))
        .route("/status", get(status))
        .route("/df", get(df))
        .route("/info", get(info))
        .route("/sync", post(sync))
        .route("/remount", post(remount))
        .route("/repair", post(repair))
        .route("/disk/replace", post(replace_disk))
        .with_state(state);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::error!("the admin API ended: {error}; the mount goes on without it");
    }
}

/// An error as the API tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// One sentence.
    pub error: String,
}

type Answer<T> = Result<Json<T>, (StatusCode, Json<ApiError>)>;

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Json).map_err(|error| {
        let code = match error.kind() {
            crate::error::ErrorKind::Refused => StatusCode::CONFLICT,
            crate::error::ErrorKind::Posix(crate::error::Posix::NotFound) => StatusCode::NOT_FOUND,
            crate::error::ErrorKind::Posix(_)
            | crate::error::ErrorKind::Unavailable
            | crate::error::ErrorKind::Fenced
            | crate::error::ErrorKind::Corrupt
            | crate::error::ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, Json(ApiError { error: error.to_string() }))
    })
}

/// Answer where there is nothing to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

const DONE: Done = Done { done: true };

async fn health(State(state): State<AdminState>) -> Answer<Done> {
    answer(state.volume.health().map(|()| DONE))
}

async fn status(State(state): State<AdminState>) -> Answer<crate::volume::status::Status> {
    let mut status = answer(state.volume.status())?;
    status.0.mount = Some(state.directory.display().to_string());
    Ok(status)
}

async fn df(State(state): State<AdminState>) -> Answer<Vec<crate::volume::status::ClassSpace>> {
    answer(state.volume.class_spaces())
}

/// Which inode `info` is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InfoQuery {
    /// Inode number.
    pub ino: u64,
}

async fn info(
    State(state): State<AdminState>,
    Query(query): Query<InfoQuery>,
) -> Answer<crate::volume::info::FileInfo> {
    answer(state.volume.file_info(Ino(query.ino)))
}

async fn sync(State(state): State<AdminState>) -> Answer<Done> {
    answer(state.volume.sync().await.map(|()| DONE))
}

async fn remount(State(state): State<AdminState>, Json(remount): Json<Remount>) -> Answer<Done> {
    answer(state.volume.remount(remount).await.map(|()| DONE))
}

async fn repair(State(state): State<AdminState>) -> Answer<crate::volume::status::RepairReport> {
    answer(state.volume.repair_run().await)
}

/// Which directory takes the place of which.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplaceDisk {
    /// Path or id of the disk that goes.
    pub old: String,
    /// Empty directory that comes.
    pub new: PathBuf,
    /// Whether it may share a device with others.
    pub allow_same_device: bool,
}

async fn replace_disk(
    State(state): State<AdminState>,
    Json(replace): Json<ReplaceDisk>,
) -> Answer<crate::volume::status::RepairReport> {
    let ReplaceDisk { old, new, allow_same_device } = replace;
    answer(state.volume.replace_disk(&old, &new, allow_same_device).await)
}
