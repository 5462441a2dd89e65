//! One directory that a node serves: the disk that lies there, its lease, the files that are open, its shards. Knows no
//! connection.

use super::lease::Lease;
use crate::disk::queue::DiskQueue;
use crate::disk::superblock::{self, SUPERBLOCK_FILE};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{DiskCall, DiskReply, FileId, Operation, Priority, Response, ShardHeader};
use crate::shard::serve::{changes, serve, serve_now};
use crate::shard::store::{ShardStore, StoreLimits, has_directory};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, Epoch, MountId, VolumeId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;

/// Files that may be open in one slot.
const FILES_MAX: usize = 1024;
/// Bytes of one read.
const READ_BYTES_MAX: u32 = 16 << 20;
/// Keys of one list: they fit into the body of an answer.
const KEYS_MAX: usize = 65_536;
/// How long the changes that a mount has begun may hold up the one that takes its disk.
const HANDOVER: Duration = Duration::from_secs(5);
/// Pause between attempts to lock a directory.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// What a mount may touch on a disk beside the shards: names of files, and of directories of files.
const OPEN_NAMES: [&str; 4] = [SUPERBLOCK_FILE, "log", "meta", "repair_log"];

/// Opens a directory. Blocks.
pub type OpenDirectory = Arc<dyn Fn(&Path) -> Result<Arc<dyn Disk>> + Send + Sync>;

/// A directory in the node's configuration.
pub struct Slot {
    /// Its place there.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
    open: OpenDirectory,
    queue: DiskQueue,
    limits: StoreLimits,
    served: Mutex<Served>,
    lease: Mutex<Lease>,
    /// Held for reading by each change from its check to its end, for writing while the lease changes hands.
    changing: Arc<RwLock<()>>,
    /// Newest member list that a mount has gone by.
    epoch: AtomicU64,
    next_file: AtomicU64,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("path", &self.path)
            .field("served", &self.served)
            .finish_non_exhaustive()
    }
}

/// What lies in a slot now.
#[derive(Debug, Default)]
struct Served {
    /// The directory, if it is there and locked.
    disk: Option<Arc<dyn Disk>>,
    /// Its shards, if it is a disk of a volume.
    shards: Option<Shards>,
    files: BTreeMap<FileId, OpenFile>,
    /// Why it is not served.
    reason: String,
}

#[derive(Clone, Debug)]
struct Shards {
    volume: VolumeId,
    id: DiskId,
    store: Arc<ShardStore>,
}

#[derive(Clone, Debug)]
struct OpenFile {
    file: Arc<dyn DiskFile>,
    mount: MountId,
}

/// A disk that was opened.
struct Opened {
    disk: Arc<dyn Disk>,
    shards: Option<Shards>,
}

impl Slot {
    /// A slot that serves nothing yet.
    ///
    /// Error: the system has no random numbers.
    pub fn new(
        (number, path): (u32, PathBuf),
        open: OpenDirectory,
        queue: DiskQueue,
        limits: StoreLimits,
    ) -> Result<Self> {
        // A mount may ask for a file that it had opened before this process began: its number must mean nothing here, and
        // not another file.
        let mut first_file = [0; 8];
        getrandom::fill(&mut first_file)
            .map_err(|error| Error::internal(format!("draw the number of a file: {error}")))?;
        Ok(Self {
            number,
            path,
            open,
            queue,
            limits,
            served: Mutex::default(),
            lease: Mutex::default(),
            changing: Arc::default(),
            epoch: AtomicU64::new(0),
            next_file: AtomicU64::new(u64::from_le_bytes(first_file)),
        })
    }

    // Nothing that holds these leaves them half changed: poisoned locks are good.
    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume and disk that it serves.
    pub fn disk(&self) -> Option<(VolumeId, DiskId)> {
        self.served().shards.as_ref().map(|shards| (shards.volume, shards.id))
    }

    /// Why it serves nothing, unless it does.
    pub fn trouble(&self) -> Option<String> {
        let served = self.served();
        served.disk.is_none().then(|| served.reason.clone())
    }

    /// Opens the directory, and its shards if it is a disk already. Waits for `patience` while another process has it, which
    /// may be about to end.
    ///
    /// Errors: `Refused` if another process has it, or it is of a newer format; `NotFound` if it is not there.
    pub async fn open(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let opened = loop {
            match self.try_open().await {
                Ok(Err(_in_use)) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                tried => break tried.flatten(),
            }
        };
        let mut served = self.served();
        match opened {
            Ok(Opened { disk, shards }) => {
                *served = Served { disk: Some(disk), shards, ..Served::default() };
                Ok(())
            }
            Err(error) => {
                served.reason = error.to_string();
                Err(error)
            }
        }
    }

    /// The inner error: another process has the directory.
    async fn try_open(&self) -> Result<Result<Opened>> {
        let (path, limits, opener) = (self.path.clone(), self.limits, self.open.clone());
        let open = move || {
            let disk = opener(&path)?;
            // Before the lock: what is of another kind is left alone.
            superblock::read(&*disk)?;
            match disk.lock(&format!("ironfs-shardd, pid {}", std::process::id())) {
                Err(error) if error.kind() == ErrorKind::Refused => return Ok(Err(error)),
                locked => locked?,
            }
            let shards = open_shards(&disk, limits)?;
            Ok(Ok(Opened { disk, shards }))
        };
        self.queue.run(open).await
    }

    /// Serves nothing until it is opened again.
    pub async fn close(&self, reason: &str) {
        let before = std::mem::replace(
            &mut *self.served(),
            Served { reason: reason.to_owned(), ..Served::default() },
        );
        let close = move || {
            if let Some(shards) = &before.shards {
                shards.store.close();
            }
            drop(before);
            Ok(())
        };
        if let Err(error) = self.queue.run(close).await {
            tracing::warn!(slot = self.number, %error, "a disk was not closed");
        }
    }

    /// Whether the disk is still what its path leads to, with its shards.
    ///
    /// Errors: why not.
    pub async fn probe(&self) -> Result<()> {
        let (disk, has_shards) = {
            let served = self.served();
            (served.disk.clone(), served.shards.is_some())
        };
        let Some(disk) = disk else { return Err(Error::unavailable("it is not there")) };
        let look = move || {
            disk.identity()?;
            if has_shards && !has_directory(&*disk)? {
                return Err(Error::corrupt("its directory of shards is gone"));
            }
            Ok(())
        };
        self.queue.run_probe(look).await
    }

    /// Looks whether an empty directory has become a disk.
    pub async fn recognise(&self) -> Result<()> {
        let disk = {
            let served = self.served();
            served.disk.clone().filter(|_disk| served.shards.is_none())
        };
        let Some(disk) = disk else { return Ok(()) };
        let limits = self.limits;
        let shards = self.queue.run(move || open_shards(&disk, limits)).await?;
        let mut served = self.served();
        if served.shards.is_none() && served.disk.is_some() {
            served.shards = shards;
        }
        Ok(())
    }

    /// Carries out a request about the shards of this disk, for a mount that must hold its lease, or (`None`) for a node,
    /// which only reads.
    pub async fn shard(
        &self,
        (mount, epoch): (Option<MountId>, Epoch),
        priority: Priority,
        mut operation: Operation,
    ) -> Result<Response> {
        let change = changes(&operation);
        let guard = match mount {
            Some(mount) if change => Some(self.begin_change(mount).await?),
            Some(_) | None => None,
        };
        if let Some(mount) = mount {
            self.check_lease(mount)?;
        }
        if change {
            self.check_epoch(epoch)?;
        }
        let shards = self.shards()?;
        if let Some(response) = serve_now(&shards.store, &operation, priority) {
            return Ok(response);
        }
        if let Operation::List { limit, .. } = &mut operation {
            *limit = (*limit).min(KEYS_MAX);
        }
        let work = move || {
            let done = serve(&shards.store, operation);
            drop(guard);
            done
        };
        self.run(priority, work).await
    }

    /// Whether `mount`, by the member list of `epoch`, may change the shards of this disk: asked before work that takes
    /// long, and that holds nothing up meanwhile.
    pub fn may_change(&self, mount: MountId, epoch: Epoch) -> Result<()> {
        self.check_lease(mount)?;
        self.check_epoch(epoch)
    }

    /// Appends cells to a shard behind byte `at` of those that it has, or begins it with them, for a mount that must hold
    /// the lease. `make` makes them, on a thread of the disk.
    pub async fn grow(
        &self,
        (mount, epoch): (MountId, Epoch),
        priority: Priority,
        (header, at): (ShardHeader, u64),
        make: impl FnOnce() -> Result<Vec<Bytes>> + Send + 'static,
    ) -> Result<()> {
        let guard = self.begin_change(mount).await?;
        self.may_change(mount, epoch)?;
        let shards = self.shards()?;
        let work = move || {
            let _still = guard;
            let cells = make()?;
            if at == 0 {
                shards.store.begin(header)?;
            }
            shards.store.append_at(header.key, at, &cells)
        };
        self.run(priority, work).await
    }

    fn check_lease(&self, mount: MountId) -> Result<()> {
        let mut lease = self.lease();
        lease.check(mount)?;
        lease.renew(mount, Instant::now());
        Ok(())
    }

    /// Refuses an older member list than another that a mount has gone by.
    fn check_epoch(&self, epoch: Epoch) -> Result<()> {
        if epoch.get() < self.epoch.fetch_max(epoch.get(), Ordering::AcqRel) {
            let context = format!("{}: the request goes by epoch {epoch}", self.path.display());
            return Err(Error::new(ErrorKind::Fenced, context));
        }
        Ok(())
    }

    fn shards(&self) -> Result<Shards> {
        let gone = || Error::unavailable(format!("{}: no disk is there", self.path.display()));
        self.served().shards.clone().ok_or_else(gone)
    }

    async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match priority {
            Priority::Sync | Priority::Read => self.queue.run(work).await,
            Priority::Background => self.queue.run_background(work).await,
        }
    }

    /// Carries out a call of the other files of this disk.
    pub async fn file(&self, mount: MountId, call: DiskCall) -> Result<DiskReply> {
        check_names(&call)?;
        match call {
            DiskCall::Lock { holder } => return self.hand_over(mount, &holder).await,
            DiskCall::Unlock => return Ok(self.give_back(mount)),
            DiskCall::Close(file) => {
                self.served().files.remove(&file);
                return Ok(DiskReply::Done);
            }
            _ => {}
        }
        let guard = if is_change(&call) { Some(self.begin_change(mount).await?) } else { None };
        self.lease().renew(mount, Instant::now());
        let gone = || Error::unavailable(format!("{}: no disk is there", self.path.display()));
        let disk = self.served().disk.clone().ok_or_else(gone)?;
        let file = file_of(&call).map(|id| self.file_named(id, mount)).transpose()?;
        let looks = matches!(call, DiskCall::Identity | DiskCall::Space);
        let work = move || {
            let done = carry_out(&*disk, file, call);
            drop(guard);
            done
        };
        let done =
            if looks { self.queue.run_probe(work).await } else { self.queue.run(work).await };
        match done? {
            Done::Reply(reply) => Ok(reply),
            Done::Opened(file) => self.keep(file, mount),
        }
    }

    /// Waits until no change of another mount is under way; while the guard lives, the lease stays where it is.
    async fn begin_change(&self, mount: MountId) -> Result<OwnedRwLockReadGuard<()>> {
        let guard = self.changing.clone().read_owned().await;
        self.lease().check(mount)?;
        Ok(guard)
    }

    async fn hand_over(&self, mount: MountId, holder: &str) -> Result<DiskReply> {
        if self.served().disk.is_none() {
            return Err(Error::unavailable(format!("{}: no disk is there", self.path.display())));
        }
        let late = |_late| {
            Error::unavailable("what the mount before has begun does not end: the disk hangs")
        };
        let _still = tokio::time::timeout(HANDOVER, self.changing.write()).await.map_err(late)?;
        let shown = self.path.display();
        let taken = self.lease().take(mount, holder, Instant::now());
        if taken.map_err(|error| error.while_doing(format!("disk {shown}")))? {
            tracing::info!(slot = self.number, path = %shown, holder, "a mount has taken the disk");
            self.tidy_after(mount).await?;
        }
        Ok(DiskReply::Done)
    }

    /// Puts and files of other mounts than this one are of no use to anybody.
    async fn tidy_after(&self, mount: MountId) -> Result<()> {
        let shards = {
            let mut served = self.served();
            served.files.retain(|_id, open| open.mount == mount);
            served.shards.clone()
        };
        match shards {
            Some(shards) => self.queue.run(move || shards.store.abort_all()).await,
            None => Ok(()),
        }
    }

    fn give_back(&self, mount: MountId) -> DiskReply {
        if self.lease().give_back(mount) {
            tracing::info!(slot = self.number, path = %self.path.display(), "a mount has left the disk");
            self.served().files.retain(|_id, open| open.mount != mount);
        }
        DiskReply::Done
    }

    fn file_named(&self, id: FileId, mount: MountId) -> Result<Arc<dyn DiskFile>> {
        let served = self.served();
        let open = served.files.get(&id).filter(|open| open.mount == mount);
        let closed =
            || Error::unavailable(format!("{}: the file is no longer open", self.path.display()));
        open.map(|open| open.file.clone()).ok_or_else(closed)
    }

    fn keep(&self, file: Arc<dyn DiskFile>, mount: MountId) -> Result<DiskReply> {
        let holds = self.lease().check(mount).is_ok();
        let mut served = self.served();
        if served.files.len() >= FILES_MAX {
            // Those who only looked may have gone without a word.
            let lease = self.lease();
            served.files.retain(|_id, open| lease.check(open.mount).is_ok());
        }
        if served.files.len() >= FILES_MAX {
            let context = format!("{}: {FILES_MAX} files are open", self.path.display());
            return Err(if holds { Error::internal(context) } else { Error::unavailable(context) });
        }
        let id = FileId(self.next_file.fetch_add(1, Ordering::Relaxed));
        served.files.insert(id, OpenFile { file, mount });
        Ok(DiskReply::Opened(id))
    }
}

/// The shards of a directory that is a disk.
fn open_shards(disk: &Arc<dyn Disk>, limits: StoreLimits) -> Result<Option<Shards>> {
    let Some(superblock) = superblock::read(&**disk)? else { return Ok(None) };
    let (volume, id) = (superblock.volume, superblock.disk);
    let store = ShardStore::open(volume, id, disk.clone(), limits, false)?;
    Ok(Some(Shards { volume, id, store: Arc::new(store) }))
}

/// What a call has brought.
enum Done {
    Reply(DiskReply),
    Opened(Arc<dyn DiskFile>),
}

/// Carries out a call. Blocks on the disk.
fn carry_out(disk: &dyn Disk, file: Option<Arc<dyn DiskFile>>, call: DiskCall) -> Result<Done> {
    let of_file = || file.as_deref().ok_or_else(|| Error::internal("a call without its file"));
    let reply = match call {
        DiskCall::Open { name, mode } => return disk.open(&name, mode).map(Done::Opened),
        DiskCall::Length(_) => DiskReply::Length(of_file()?.len()?),
        DiskCall::Read { offset, length, .. } => {
            if length > READ_BYTES_MAX {
                return Err(Error::refused(format!("a read of {length} bytes is too long")));
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            of_file()?.read(offset, &mut bytes)?;
            DiskReply::Bytes(Bytes::from(bytes))
        }
        DiskCall::Write { offset, data, durable: true, .. } => {
            of_file()?.write_durably(offset, &data)?;
            DiskReply::Done
        }
        DiskCall::Write { offset, data, durable: false, .. } => {
            of_file()?.write(offset, &data)?;
            DiskReply::Done
        }
        DiskCall::WriteMany { parts, .. } => {
            of_file()?.write_many(parts)?;
            DiskReply::Done
        }
        DiskCall::SetLength { length, .. } => {
            of_file()?.set_len(length)?;
            DiskReply::Done
        }
        DiskCall::Sync(_) => {
            of_file()?.sync_data()?;
            DiskReply::Done
        }
        DiskCall::Remove(name) => {
            disk.remove(&name)?;
            DiskReply::Done
        }
        DiskCall::Rename { from, to } => {
            disk.rename(&from, &to)?;
            DiskReply::Done
        }
        DiskCall::CreateDir(name) => {
            disk.create_dir(&name)?;
            DiskReply::Done
        }
        DiskCall::ListDir(name) => DiskReply::Entries(disk.list(&name)?),
        DiskCall::SyncDir(name) => {
            disk.sync_dir(&name)?;
            DiskReply::Done
        }
        DiskCall::Identity => DiskReply::Identity(disk.identity()?),
        DiskCall::Space => DiskReply::Space(disk.space()?),
        DiskCall::Close(_) | DiskCall::Lock { .. } | DiskCall::Unlock => DiskReply::Done,
    };
    Ok(Done::Reply(reply))
}

const fn file_of(call: &DiskCall) -> Option<FileId> {
    match call {
        DiskCall::Length(file)
        | DiskCall::Sync(file)
        | DiskCall::Close(file)
        | DiskCall::Read { file, .. }
        | DiskCall::Write { file, .. }
        | DiskCall::WriteMany { file, .. }
        | DiskCall::SetLength { file, .. } => Some(*file),
        DiskCall::Open { .. }
        | DiskCall::Remove(_)
        | DiskCall::Rename { .. }
        | DiskCall::CreateDir(_)
        | DiskCall::ListDir(_)
        | DiskCall::SyncDir(_)
        | DiskCall::Identity
        | DiskCall::Space
        | DiskCall::Lock { .. }
        | DiskCall::Unlock => None,
    }
}

/// Whether a call changes the disk, or opens a file to do so.
fn is_change(call: &DiskCall) -> bool {
    match call {
        DiskCall::Open { mode, .. } => *mode != OpenMode::Read,
        DiskCall::Write { .. }
        | DiskCall::WriteMany { .. }
        | DiskCall::SetLength { .. }
        | DiskCall::Sync(_)
        | DiskCall::Remove(_)
        | DiskCall::Rename { .. }
        | DiskCall::CreateDir(_)
        | DiskCall::SyncDir(_) => true,
        DiskCall::Length(_)
        | DiskCall::Read { .. }
        | DiskCall::Close(_)
        | DiskCall::ListDir(_)
        | DiskCall::Identity
        | DiskCall::Space
        | DiskCall::Lock { .. }
        | DiskCall::Unlock => false,
    }
}

/// Refuses names of what only the node itself touches: shards, their index, the lock.
fn check_names(call: &DiskCall) -> Result<()> {
    let allowed = |name: &String| {
        let first = name.split('/').next().unwrap_or_default();
        OPEN_NAMES.contains(&first)
    };
    let names: Vec<&String> = match call {
        DiskCall::Open { name, .. } | DiskCall::Remove(name) | DiskCall::CreateDir(name) => {
            vec![name]
        }
        DiskCall::ListDir(name) | DiskCall::SyncDir(name) if !name.is_empty() => vec![name],
        DiskCall::Rename { from, to } => vec![from, to],
        _ => Vec::new(),
    };
    match names.into_iter().find(|name| !allowed(name)) {
        None => Ok(()),
        Some(name) => Err(Error::refused(format!("{name:?} is not for mounts to touch"))),
    }
}
