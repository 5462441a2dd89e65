//! The admin API of a mount: HTTP and JSON on a Unix socket. The CLI and scripts use the same. Knows the volume, not
//! the kernel.

use crate::error::{Error, Result};
use crate::types::{Ino, StripeId};
use crate::volume::status::Remount;
use crate::volume::{Losing, Volume};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod client;
pub mod metrics;

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct AdminState {
    volume: Arc<Volume>,
    directory: PathBuf,
    ended: watch::Sender<Option<Ended>>,
}

impl AdminState {
    /// The API of `volume`, mounted at `directory`.
    pub fn new(volume: Arc<Volume>, directory: PathBuf) -> Self {
        Self { volume, directory, ended: watch::Sender::new(None) }
    }

    /// Tells whoever waits for the end of the mount that it has come, and how.
    pub fn tell_end(&self, result: &Result<()>) {
        let error = result.as_ref().err().map(ToString::to_string);
        self.ended.send_replace(Some(Ended { error }));
    }
}

/// How a mount has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// What is lost of what was written, and why; nothing if all is on the disks.
    pub error: Option<String>,
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
        .route("/metrics", get(metrics::page))
        .route("/ended", get(ended))
        .route("/status", get(status))
        .route("/df", get(df))
        .route("/info", get(info))
        .route("/sync", post(sync))
        .route("/remount", post(remount))
        .route("/repair", post(repair))
        .route("/repair/history", get(repair_history))
        .route("/repair/stripe", post(repair_stripe))
        .route("/repair/pause", post(pause_repair))
        .route("/scrub", get(scrub_status))
        .route("/scrub/start", post(start_scrub))
        .route("/scrub/pause", post(pause_scrub))
        .route("/jobs", get(jobs))
        .route("/jobs/pause", post(pause_job))
        .route("/disk/add", post(add_disk))
        .route("/disk/replace", post(replace_disk))
        .route("/disk/drain", post(drain_disk))
        .route("/disk/keep", post(keep_disk))
        .route("/disk/remove", post(remove_disk))
        .route("/disk/label", post(label_disk))
        .route("/nodes", get(nodes))
        .route("/node/add", post(add_node))
        .route("/what-if", post(what_if))
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

/// Most attempts that one answer tells.
const HISTORY_MAX: usize = 10_000;

type Answer<T> = Result<Json<T>, (StatusCode, Json<ApiError>)>;

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Json).map_err(|error| {
        let code = match error.kind() {
            crate::error::ErrorKind::Refused => StatusCode::CONFLICT,
            crate::error::ErrorKind::Posix(crate::error::Posix::NotFound) => StatusCode::NOT_FOUND,
            crate::error::ErrorKind::Posix(_)
            | crate::error::ErrorKind::Unavailable
            | crate::error::ErrorKind::Fenced
            | crate::error::ErrorKind::Superseded
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

/// Answers at once that it will tell, and how the mount has ended when it has.
async fn ended(State(state): State<AdminState>) -> Body {
    let mut told = state.ended.subscribe();
    let end = async move {
        // The sender lives as long as the server.
        let ended = told.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        serde_json::to_vec(&ended)
    };
    Body::from_stream(stream::once(end))
}

async fn status(State(state): State<AdminState>) -> Json<crate::volume::status::Status> {
    let mount = Some(state.directory.display().to_string());
    Json(crate::volume::status::Status { mount, ..state.volume.status() })
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

/// Which stripe is to be repaired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairStripe {
    /// Number of the stripe.
    pub stripe: u64,
    /// Whether all its shards are written anew.
    pub force: bool,
}

async fn repair_stripe(
    State(state): State<AdminState>,
    Json(wanted): Json<RepairStripe>,
) -> Answer<crate::volume::status::RepairReport> {
    answer(state.volume.repair_stripe(StripeId(wanted.stripe), wanted.force).await)
}

/// Whether background work is to be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pause {
    /// Held, or let go on.
    pub paused: bool,
}

async fn pause_repair(State(state): State<AdminState>, Json(wanted): Json<Pause>) -> Answer<Done> {
    state.volume.pause_repair(wanted.paused);
    answer(Ok(DONE))
}

async fn scrub_status(
    State(state): State<AdminState>,
) -> Answer<crate::volume::status::ScrubStatus> {
    answer(state.volume.scrub_status())
}

async fn start_scrub(State(state): State<AdminState>) -> Answer<Done> {
    answer(state.volume.start_scrub().await.map(|()| DONE))
}

async fn pause_scrub(State(state): State<AdminState>, Json(wanted): Json<Pause>) -> Answer<Done> {
    answer(state.volume.pause_scrub(wanted.paused).await.map(|()| DONE))
}

async fn jobs(State(state): State<AdminState>) -> Answer<Vec<crate::volume::status::Job>> {
    answer(state.volume.jobs())
}

/// Which job is to be held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PauseJob {
    /// Its name.
    pub job: String,
    /// Held, or let go on.
    pub paused: bool,
}

async fn pause_job(State(state): State<AdminState>, Json(wanted): Json<PauseJob>) -> Answer<Done> {
    answer(state.volume.pause_job(&wanted.job, wanted.paused).await.map(|()| DONE))
}

/// How much of the history is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Most attempts.
    pub limit: usize,
}

async fn repair_history(
    State(state): State<AdminState>,
    Query(query): Query<HistoryQuery>,
) -> Answer<crate::volume::status::RepairHistory> {
    answer(Ok(state.volume.repair_history(query.limit.min(HISTORY_MAX)).await))
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
    /// Whether what cannot be read without the disk that goes may be lost.
    #[serde(default)]
    pub lose_data: bool,
}

/// Which directory comes into the volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddDisk {
    /// An empty directory.
    pub new: PathBuf,
    /// Whether it may share a device with others.
    pub allow_same_device: bool,
}

/// A disk of the volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamedDisk {
    /// Path or id.
    pub disk: String,
}

/// Which disk leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoveDisk {
    /// Path or id.
    pub disk: String,
    /// Whether what cannot be read without it may be lost.
    #[serde(default)]
    pub lose_data: bool,
}

type DiskAnswer = Answer<crate::volume::status::DiskStatus>;

async fn add_disk(State(state): State<AdminState>, Json(wanted): Json<AddDisk>) -> DiskAnswer {
    let added = state.volume.add_disk(&wanted.new, wanted.allow_same_device).await;
    answer(added.and_then(|disk| state.volume.disk_status(disk)))
}

async fn drain_disk(State(state): State<AdminState>, Json(wanted): Json<NamedDisk>) -> DiskAnswer {
    let leaving = state.volume.drain_disk(&wanted.disk).await;
    answer(leaving.and_then(|disk| state.volume.disk_status(disk)))
}

async fn keep_disk(State(state): State<AdminState>, Json(wanted): Json<NamedDisk>) -> DiskAnswer {
    let kept = state.volume.keep_disk(&wanted.disk).await;
    answer(kept.and_then(|disk| state.volume.disk_status(disk)))
}

async fn remove_disk(
    State(state): State<AdminState>,
    Json(wanted): Json<RemoveDisk>,
) -> DiskAnswer {
    let gone = state.volume.remove_disk(&wanted.disk, Losing::data(wanted.lose_data)).await;
    answer(gone.and_then(|disk| state.volume.disk_status(disk)))
}

async fn replace_disk(
    State(state): State<AdminState>,
    Json(replace): Json<ReplaceDisk>,
) -> Answer<crate::volume::status::RepairReport> {
    let ReplaceDisk { old, new, allow_same_device, lose_data } = replace;
    let losing = Losing::data(lose_data);
    answer(state.volume.replace_disk(&old, &new, allow_same_device, losing).await)
}

async fn label_disk(
    State(state): State<AdminState>,
    Json(change): Json<crate::volume::labels::LabelChange>,
) -> Answer<crate::volume::labels::DiskLabels> {
    answer(state.volume.label_disk(&change).await)
}

async fn nodes(State(state): State<AdminState>) -> Answer<Vec<crate::volume::status::NodeStatus>> {
    answer(Ok(state.volume.nodes().await))
}

/// Where a node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddNode {
    /// Its name.
    pub node: String,
    /// `host:port`, or `host`.
    pub address: String,
}

async fn add_node(
    State(state): State<AdminState>,
    Json(wanted): Json<AddNode>,
) -> Answer<crate::volume::status::AddedNode> {
    answer(state.volume.add_node(&wanted.node, &wanted.address).await)
}

async fn what_if(
    State(state): State<AdminState>,
    Json(question): Json<crate::volume::what_if::WhatIf>,
) -> Answer<crate::volume::what_if::WhatIfReport> {
    answer(state.volume.what_if(&question).await)
}
