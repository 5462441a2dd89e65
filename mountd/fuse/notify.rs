//! The one thread that sends invalidations to the kernel. It serves no requests: `inval_inode` writes back dirty
//! pages through the very loop that would wait for it.

use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::{Mutex, PoisonError};
use fuser::{INodeNo, Notifier};
use std::sync::OnceLock;
use tokio::sync::oneshot;

/// Invalidations that may wait; a requester beyond that waits for room.
const QUEUE_MAX: usize = 256;

/// "Write back and drop the pages of this inode, then say so."
struct Job {
    ino: INodeNo,
    done: oneshot::Sender<()>,
}

/// Sends invalidations once the session has given its notifier.
#[derive(Debug)]
pub(super) struct Notifications {
    sender: SyncSender<Job>,
    receiver: Mutex<Option<Receiver<Job>>>,
    /// For what may be sent from anywhere: it takes no lock that a request holds.
    notifier: OnceLock<Notifier>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({:?})", self.ino)
    }
}

impl Notifications {
    pub(super) fn new() -> Self {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let receiver = Mutex::new(Some(receiver));
        Self { sender, receiver, notifier: OnceLock::new() }
    }

    /// Starts the thread. It ends when the `Notifications` are dropped.
    pub(super) fn start(&self, notifier: Notifier) -> std::io::Result<()> {
        let taken = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = taken else { return Ok(()) };
        let again = notifier.clone();
        std::thread::Builder::new().name("ironfs-notify".to_owned()).spawn(move || {
            for job in receiver {
                // ENOENT says that nothing was cached; any other failure leaves the pages as they are, and the
                // caller answers from what it has.
                drop(notifier.inval_inode(job.ino, 0, 0));
                job.done.send(()).unwrap_or_default();
            }
        })?;
        drop(self.notifier.set(again));
        Ok(())
    }

    /// Has the kernel ask for the attributes of an inode again. Leaves its pages alone, and so waits for nobody.
    pub(super) fn outdate(&self, ino: INodeNo) {
        if let Some(notifier) = self.notifier.get() {
            // ENOENT says that the kernel does not know the inode.
            drop(notifier.inval_inode(ino, -1, 0));
        }
    }

    /// Has the kernel write back and drop the pages of a file; returns when it has, or at once without a thread.
    pub(super) async fn write_back(&self, ino: INodeNo) {
        if self.notifier.get().is_none() {
            return;
        }
        let (done, wait) = oneshot::channel();
        if self.sender.try_send(Job { ino, done }).is_ok() {
            drop(wait.await);
        }
    }
}
