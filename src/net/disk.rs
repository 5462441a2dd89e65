//! A disk that another machine serves, for the files beside the shards: superblock, log, copies of the state. Knows
//! nothing of what they hold.
//!
//! Calls block, as those of a local disk do, and come from the threads of its queue. A file is open at the node; if the
//! node has forgotten it, because it began anew or another mount has taken the disk, each call fails, and the disk is
//! opened again like one that was away.

use super::way::Way;
use super::wire::{Answer, Order};
use super::{DiskCall, DiskReply, FileId};
use crate::config::labels::Labels;
use crate::disk::{Disk, DiskEntry, DiskFile, DiskIdentity, OpenMode, Space};
use crate::error::{Error, Result};
use crate::sum::xxh3;
use crate::sync::Arc;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;
use std::time::Duration;

/// How long a call may take: whoever waits has deadlines of their own, shorter ones.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long giving the lease back may take: it ends by itself otherwise.
const RELEASE: Duration = Duration::from_secs(2);
/// Bytes of one read or write call; more go in pieces.
const PIECE_BYTES: usize = 4 << 20;

/// One slot of a node.
#[derive(Clone, Debug)]
pub struct RemoteDisk {
    shared: Arc<Shared>,
}

struct Shared {
    way: Arc<dyn Way>,
    slot: u32,
    /// `node:path`.
    label: String,
    /// Where the node says that it stands.
    labels: Labels,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Shared {
    fn call(&self, call: DiskCall) -> Result<DiskReply> {
        let order = Order::Disk { slot: self.slot, call };
        match self.way.ask(order, DEADLINE)? {
            Answer::Disk(reply) => Ok(reply),
            Answer::Shard(_) | Answer::Disks(_) | Answer::Error(_) => Err(self.odd()),
        }
    }

    fn odd(&self) -> Error {
        Error::corrupt(format!("{}: an answer to another question", self.label))
    }

    fn done(&self, call: DiskCall) -> Result<()> {
        match self.call(call)? {
            DiskReply::Done => Ok(()),
            _ => Err(self.odd()),
        }
    }

    /// Directories of different machines are on different devices, whatever numbers their systems give them.
    fn device(&self, device: u64) -> u64 {
        if self.way.is_here() {
            return device;
        }
        let mut text = self.way.node().as_bytes().to_vec();
        text.extend_from_slice(&device.to_le_bytes());
        xxh3(&text)
    }
}

impl RemoteDisk {
    /// The directory `path` of the node at the end of `way`. Blocks.
    ///
    /// Errors: `Refused` if the node does not serve it; `Unavailable` if it does not answer.
    pub fn open(way: Arc<dyn Way>, path: &str) -> Result<Self> {
        let label = format!("{}:{path}", way.node());
        let labels = Labels { node: way.node().to_owned(), ..Labels::default() };
        let mut shared = Shared { way, slot: u32::MAX, label, labels };
        let served = match shared.way.ask(Order::Disks, DEADLINE)? {
            Answer::Disks(served) => served,
            Answer::Shard(_) | Answer::Disk(_) | Answer::Error(_) => return Err(shared.odd()),
        };
        let Some(found) = served.slots.iter().find(|served| served.path == path) else {
            let paths: Vec<_> = served.slots.into_iter().map(|served| served.path).collect();
            return Err(Error::refused(format!(
                "{}: node {} serves {} only: correct the path, or add it to what the node serves",
                shared.label,
                shared.way.node(),
                paths.join(", ")
            )));
        };
        shared.slot = found.slot;
        (shared.labels.rack, shared.labels.zone) = (served.rack, served.zone);
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Disk for RemoteDisk {
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        match self.shared.call(DiskCall::Open { name: name.to_owned(), mode })? {
            DiskReply::Opened(file) => {
                Ok(Arc::new(RemoteFile { shared: self.shared.clone(), file }))
            }
            _ => Err(self.shared.odd()),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.shared.done(DiskCall::Remove(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.shared.done(DiskCall::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn create_dir(&self, name: &str) -> Result<()> {
        self.shared.done(DiskCall::CreateDir(name.to_owned()))
    }

    fn list(&self, dir: &str) -> Result<Vec<DiskEntry>> {
        match self.shared.call(DiskCall::ListDir(dir.to_owned()))? {
            DiskReply::Entries(entries) => Ok(entries),
            _ => Err(self.shared.odd()),
        }
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.shared.done(DiskCall::SyncDir(dir.to_owned()))
    }

    fn space(&self) -> Result<Space> {
        match self.shared.call(DiskCall::Space)? {
            DiskReply::Space(space) => {
                Ok(Space { device: self.shared.device(space.device), ..space })
            }
            _ => Err(self.shared.odd()),
        }
    }

    fn identity(&self) -> Result<DiskIdentity> {
        match self.shared.call(DiskCall::Identity)? {
            DiskReply::Identity(identity) => {
                Ok(DiskIdentity { device: self.shared.device(identity.device), ..identity })
            }
            _ => Err(self.shared.odd()),
        }
    }

    fn lock(&self, holder: &str) -> Result<()> {
        self.shared.done(DiskCall::Lock { holder: holder.to_owned() })
    }

    fn release(&self) {
        let order = Order::Disk { slot: self.shared.slot, call: DiskCall::Unlock };
        if let Err(error) = self.shared.way.ask(order, RELEASE) {
            tracing::info!(%error, "a lease was not given back: it ends by itself");
        }
    }

    fn label(&self) -> String {
        self.shared.label.clone()
    }

    fn labels(&self) -> Labels {
        self.shared.labels.clone()
    }
}

/// A file that is open at the server.
#[derive(Debug)]
struct RemoteFile {
    shared: Arc<Shared>,
    file: FileId,
}

impl DiskFile for RemoteFile {
    fn len(&self) -> Result<u64> {
        match self.shared.call(DiskCall::Length(self.file))? {
            DiskReply::Length(length) => Ok(length),
            _ => Err(self.shared.odd()),
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut at = offset;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            match self.shared.call(DiskCall::Read { file: self.file, offset: at, length })? {
                DiskReply::Bytes(bytes) if bytes.len() == piece.len() => {
                    piece.copy_from_slice(&bytes);
                }
                _ => return Err(self.shared.odd()),
            }
            at += u64::from(length);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.put(offset, data, false)
    }

    fn write_many(&self, parts: Vec<(u64, Bytes)>) -> Result<()> {
        self.shared.done(DiskCall::WriteMany { file: self.file, parts })
    }

    fn write_durably(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.put(offset, data, true)
    }

    fn durable_write(&self, offset: u64, data: &Bytes) -> Option<BoxFuture<'static, Result<()>>> {
        if data.len() > PIECE_BYTES {
            return None;
        }
        let (shared, file, data) = (self.shared.clone(), self.file, data.clone());
        Some(Box::pin(async move {
            let call = DiskCall::Write { file, offset, data, durable: true };
            let order = Order::Disk { slot: shared.slot, call };
            let asked = tokio::time::timeout(DEADLINE, shared.way.call(order)).await;
            let late =
                |_late| Error::unavailable(format!("{}: no answer for {DEADLINE:?}", shared.label));
            match asked.map_err(late)?? {
                Answer::Disk(DiskReply::Done) => Ok(()),
                Answer::Disk(_) | Answer::Shard(_) | Answer::Disks(_) | Answer::Error(_) => {
                    Err(shared.odd())
                }
            }
        }))
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.shared.done(DiskCall::SetLength { file: self.file, length })
    }

    fn sync_data(&self) -> Result<()> {
        self.shared.done(DiskCall::Sync(self.file))
    }
}

impl RemoteFile {
    fn put(&self, offset: u64, data: &[u8], durable: bool) -> Result<()> {
        let (mut at, end) = (offset, offset + data.len() as u64);
        for piece in data.chunks(PIECE_BYTES) {
            let next = at + piece.len() as u64;
            let (file, data) = (self.file, Bytes::copy_from_slice(piece));
            let durable = durable && next == end;
            self.shared.done(DiskCall::Write { file, offset: at, data, durable })?;
            at = next;
        }
        Ok(())
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        // The node forgets it with the lease otherwise.
        self.shared
            .way
            .tell(Order::Disk { slot: self.shared.slot, call: DiskCall::Close(self.file) });
    }
}
