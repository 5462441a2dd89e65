//! Serves shard requests for the disks of this process: operation to store call, on the disk's own threads. The one
//! implementation of `Peers` that needs no network.

use crate::disk::pace::Pace;
use crate::disk::set::{DiskHandle, DiskSet};
use crate::error::{Error, Result};
use crate::net::{Operation, Peers, Priority, Request, Response, one_by_one};
use crate::shard::store::ShardStore;
use crate::sync::{Arc, PoisonError, RwLock};
use crate::types::{DiskId, Epoch, NodeId};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Carries out one operation. Blocks on the disk.
pub fn serve(store: &ShardStore, operation: Operation) -> Result<Response> {
    match operation {
        Operation::Begin(header) => store.begin(header).map(|()| Response::Done),
        Operation::Append(key, cells) => store.append(key, &cells).map(|()| Response::Done),
        Operation::Seal(key, seal) => store.seal(key, &seal).map(|root| Response::Sealed { root }),
        Operation::Abort(key) => store.abort(key).map(|()| Response::Done),
        Operation::Fetch(key, ranges) => store.fetch(key, &ranges).map(Response::Bytes),
        Operation::Stat(key) => store.stat(key).map(Response::Footer),
        Operation::Verify(key) => store.verify(key).map(|()| Response::Done),
        Operation::Delete(key) => store.delete_many(&[key]).map(|()| Response::Done),
        Operation::List { after, limit, seen: false } => {
            store.list(after, limit).map(Response::Keys)
        }
        Operation::List { after, limit, seen: true } => {
            store.list_seen(after, limit).map(Response::Keys)
        }
        Operation::Adopt { part } => store.adopt(part).map(|()| Response::Done),
        Operation::Space => store.space().map(Response::Space),
        Operation::Gather(gather) => {
            let key = gather.header.key;
            let context = format!("gather shard {}.{}: only nodes do so", key.stripe, key.index);
            Err(Error::refused(context))
        }
    }
}

/// A fetch up to this size is answered in the calling task if it is in memory: that takes less time than another thread
/// needs to wake up. Larger ones are better read side by side.
const FETCH_HERE_BYTES_MAX: u64 = 64 * 1024;

/// Carries out an operation that blocks on nothing; `None` if it may block, or does not succeed.
pub fn serve_now(
    store: &ShardStore,
    operation: &Operation,
    priority: Priority,
) -> Option<Response> {
    let (Operation::Fetch(key, ranges), Priority::Sync | Priority::Read) = (operation, priority)
    else {
        return None;
    };
    let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    if bytes > FETCH_HERE_BYTES_MAX {
        return None;
    }
    store.fetch_now(*key, ranges).map(Response::Bytes)
}

/// Whether an operation changes what is stored: such a one must not come from an old member list.
pub const fn changes(operation: &Operation) -> bool {
    match operation {
        Operation::Begin(_)
        | Operation::Append(..)
        | Operation::Seal(..)
        | Operation::Abort(_)
        | Operation::Delete(_)
        | Operation::Gather(_) => true,
        Operation::Fetch(..)
        | Operation::Stat(_)
        | Operation::Verify(_)
        | Operation::List { .. }
        | Operation::Adopt { .. }
        | Operation::Space => false,
    }
}

/// The disks of this process as peers.
#[derive(Debug)]
pub struct LocalPeers {
    disks: Arc<DiskSet>,
    stores: RwLock<BTreeMap<DiskId, Arc<ShardStore>>>,
    /// Where requests for disks of other processes go.
    remotes: RwLock<BTreeMap<DiskId, Arc<dyn Peers>>>,
    epoch: AtomicU64,
}

impl LocalPeers {
    /// Serves the stores that are added later, on the queues of `disks`.
    pub fn new(disks: Arc<DiskSet>) -> Self {
        let (stores, remotes) = (RwLock::default(), RwLock::default());
        Self { disks, stores, remotes, epoch: AtomicU64::new(0) }
    }

    /// Serves `store` as `disk` from now on, in place of an earlier one.
    pub fn add_store(&self, disk: DiskId, store: Arc<ShardStore>) {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        stores.insert(disk, store);
    }

    /// Hands requests for `disk` to `peers` from now on: another process serves it.
    pub fn add_remote(&self, disk: DiskId, peers: Arc<dyn Peers>) {
        let mut remotes = self.remotes.write().unwrap_or_else(PoisonError::into_inner);
        remotes.insert(disk, peers);
    }

    /// Whether another process serves `disk`.
    pub fn is_remote(&self, disk: DiskId) -> bool {
        self.remote(disk).is_some()
    }

    fn remote(&self, disk: DiskId) -> Option<Arc<dyn Peers>> {
        let remotes = self.remotes.read().unwrap_or_else(PoisonError::into_inner);
        remotes.get(&disk).cloned()
    }

    /// Serves nothing as `disk` any more. Whoever drops the store lets go of its files and its lock.
    pub fn remove_store(&self, disk: DiskId) -> Option<Arc<ShardStore>> {
        self.stores.write().unwrap_or_else(PoisonError::into_inner).remove(&disk)
    }

    /// All stores.
    pub fn stores(&self) -> Vec<(DiskId, Arc<ShardStore>)> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.iter().map(|(disk, store)| (*disk, Arc::clone(store))).collect()
    }

    /// Refuses changes that go by a member list older than `epoch` from now on.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Refuses what goes by a member list that is not in force any more.
    fn check_epoch(&self, disk: DiskId, epoch: Epoch) -> Result<()> {
        if epoch.0 >= self.epoch.load(Ordering::Acquire) {
            return Ok(());
        }
        let context = format!("disk {disk}: the request goes by epoch {epoch}");
        Err(Error::new(crate::error::ErrorKind::Fenced, context))
    }

    /// Has another process carry out what belongs together: a put.
    async fn run_in_order(
        &self,
        remote: Arc<dyn Peers>,
        (node, disk): (NodeId, DiskId),
        requests: BoxStream<'_, Request>,
        silence: Duration,
    ) -> Result<Response> {
        self.disks.get(disk).ok_or_else(|| down(disk))?;
        let oldest = AtomicU64::new(u64::MAX);
        let noted = requests.inspect(|request| {
            oldest.fetch_min(request.epoch.0, Ordering::Relaxed);
        });
        let result = remote.call_in_order((node, disk), noted.boxed(), silence).await;
        if let Err(error) = &result {
            self.disks.report(disk, error);
        }
        // The node may not have heard of the newest list yet.
        self.check_epoch(disk, Epoch(oldest.into_inner()))?;
        result
    }

    async fn run(&self, request: Request) -> Result<Response> {
        let disk = request.disk;
        if changes(&request.operation) {
            self.check_epoch(disk, request.epoch)?;
        }
        let handle = self.disks.get(disk).ok_or_else(|| down(disk))?;
        if let Some(remote) = self.remote(disk) {
            let _paced = Paced::of(&handle, &request);
            // What is gathered is waited for elsewhere: it says nothing about this disk.
            let gathers = matches!(request.operation, Operation::Gather(_));
            let call = remote.call(NodeId::default(), request);
            let result = match gathers {
                true => call.await,
                false => handle.queue.times().follow(call).await,
            };
            if let Err(error) = &result {
                self.disks.report(disk, error);
            }
            return result;
        }
        let store = {
            let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
            stores.get(&disk).cloned().ok_or_else(|| down(disk))?
        };
        if let Some(response) = serve_now(&store, &request.operation, request.priority) {
            return Ok(response);
        }
        let _paced = Paced::of(&handle, &request);
        let work = move || serve(&store, request.operation);
        let result = match request.priority {
            Priority::Sync | Priority::Read => handle.queue.run(work).await,
            Priority::Background => handle.queue.run_background(work).await,
        };
        if let Err(error) = &result {
            self.disks.report(disk, error);
        }
        result
    }
}

fn down(disk: DiskId) -> Error {
    Error::unavailable(format!("disk {disk} is down"))
}

/// Notes how long a read takes, also if whoever waits for it gives up.
struct Paced<'a> {
    pace: &'a Pace,
    began: Instant,
}

impl<'a> Paced<'a> {
    /// Writes and looks take their own time, and what nobody waits for does; they say nothing about reads.
    fn of(handle: &'a DiskHandle, request: &Request) -> Option<Self> {
        let reads = matches!(request.operation, Operation::Fetch(..));
        let reads = reads && request.priority != Priority::Background;
        reads.then(|| Self { pace: handle.queue.pace(), began: Instant::now() })
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        self.pace.note(self.began.elapsed());
    }
}

impl Peers for LocalPeers {
    fn call(&self, _node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(self.run(request))
    }

    fn call_in_order<'a>(
        &'a self,
        at: (NodeId, DiskId),
        requests: BoxStream<'a, Request>,
        silence: Duration,
    ) -> BoxFuture<'a, Result<Response>> {
        match self.remote(at.1) {
            None => Box::pin(one_by_one(self, at, requests, silence)),
            Some(remote) => Box::pin(self.run_in_order(remote, at, requests, silence)),
        }
    }
}
