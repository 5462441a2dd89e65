use super::{OPEN_COMMANDS_MAX, Store};
use crate::class::Class;
use crate::error::{Error, ErrorKind};
use crate::meta::Reply;
use crate::meta::command::{Command, NewNode, SetAttributes};
use crate::meta::tables::{INODE, Txn};
use crate::types::{FileKind, Ino, LogPosition, ROOT_INO, Timestamp};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const A: Ino = Ino(10);
const B: Ino = Ino(11);

/// A backend that counts writes, and fails when told to.
#[derive(Clone, Debug)]
struct Backend {
    memory: Arc<InMemoryBackend>,
    broken: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
}

impl Backend {
    fn new() -> Self {
        let memory = Arc::new(InMemoryBackend::new());
        Self { memory, broken: Arc::default(), syncs: Arc::default() }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        StorageBackend::read(&*self.memory, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

fn formatted(backend: &Backend, cache_bytes: usize) -> Store {
    let store = Store::open(backend.clone(), cache_bytes).unwrap();
    let class: Class = "4+2".parse().unwrap();
    let genesis = Command::Genesis { class, uid: 0, gid: 0, time: Timestamp::default() };
    apply(&store, &[genesis]).unwrap();
    store
}

fn apply(store: &Store, commands: &[Command]) -> Result<Vec<Reply>, Error> {
    store.apply(store.applied(), commands)
}

fn create(name: &str, ino: Ino) -> Command {
    let (name, time) = (name.as_bytes().to_vec(), Timestamp::default());
    let node = NewNode::new(ino, FileKind::File, 0o600);
    Command::Create { parent: ROOT_INO, name, node, time }
}

fn chmod(ino: Ino, mode: u32) -> Command {
    Command::SetAttributes { ino, set: SetAttributes { mode: Some(mode), ..Default::default() } }
}

fn mode(store: &Store, ino: Ino) -> Option<u32> {
    store.inode(ino).unwrap().0.map(|inode| inode.mode)
}

fn is_open(store: &Store) -> bool {
    store.current().open.is_some()
}

/// What opens anew from the bytes of `backend`, as after a crash.
fn reopened(backend: &Backend) -> Store {
    let copy = Backend::new();
    let mut bytes = vec![0; usize::try_from(backend.memory.len().unwrap()).unwrap()];
    StorageBackend::read(&*backend.memory, 0, &mut bytes).unwrap();
    copy.set_len(bytes.len() as u64).unwrap();
    copy.write(0, &bytes).unwrap();
    Store::open(copy, 1 << 20).unwrap()
}

#[test]
fn small_commands_share_a_transaction_and_are_seen_at_once() {
    let store = formatted(&Backend::new(), 1 << 20);
    apply(&store, &[create("a", A)]).unwrap()[0].as_ref().unwrap();
    assert!(is_open(&store));
    let (found, position) = store.lookup_inode(ROOT_INO, b"a").unwrap();
    assert_eq!((found.unwrap().ino, position), (A, store.applied()));
    assert_eq!(store.inode(B).unwrap().0, None);
    assert_eq!(store.totals().inodes, 2);
    assert!(is_open(&store), "to look at one inode commits nothing");
    apply(&store, &[chmod(A, 0o640)]).unwrap()[0].as_ref().unwrap();
    assert_eq!(mode(&store, A), Some(0o640));

    let view = store.view().unwrap();
    assert!(!is_open(&store));
    assert_eq!(view.inode(A).unwrap().unwrap().mode, 0o640);
    assert_eq!(view.applied().unwrap(), store.applied());
    assert_eq!(view.totals().unwrap(), store.totals());
    apply(&store, &[chmod(A, 0o600)]).unwrap()[0].as_ref().unwrap();
    assert_eq!(view.inode(A).unwrap().unwrap().mode, 0o640, "a view stays as it is");
    assert_eq!(mode(&store, A), Some(0o600));
}

#[test]
fn a_refused_command_leaves_the_transaction_open() {
    let store = formatted(&Backend::new(), 1 << 20);
    let replies = apply(&store, &[create("a", A), create("a", B), chmod(A, 0o644)]).unwrap();
    assert!(replies[0].is_ok() && replies[1].is_err() && replies[2].is_ok());
    assert!(is_open(&store));
    assert_eq!((mode(&store, A), mode(&store, B)), (Some(0o644), None));
    assert_eq!(store.view().unwrap().inode(B).unwrap(), None);
}

#[test]
fn large_and_many_commands_are_committed() {
    let store = formatted(&Backend::new(), 1 << 20);
    apply(&store, &[create("a", A)]).unwrap();
    assert!(is_open(&store));
    apply(&store, &[Command::Reap { chunks: 1 }]).unwrap();
    assert!(!is_open(&store));
    for turn in 0..OPEN_COMMANDS_MAX {
        assert_eq!(is_open(&store), turn > 0);
        apply(&store, &[chmod(A, 0o600)]).unwrap();
    }
    assert!(!is_open(&store));
}

#[test]
fn only_a_checkpoint_is_durable_and_it_has_everything() {
    let backend = Backend::new();
    let store = formatted(&backend, 1 << 20);
    let first = store.checkpoint().unwrap();
    let syncs = backend.syncs.load(Ordering::SeqCst);
    apply(&store, &[create("a", A)]).unwrap();
    drop(store.view().unwrap());
    apply(&store, &[chmod(A, 0o640)]).unwrap();
    assert_eq!(backend.syncs.load(Ordering::SeqCst), syncs);
    let old = reopened(&backend);
    assert_eq!((old.applied(), old.inode(A).unwrap().0), (first, None));

    assert_eq!(store.checkpoint().unwrap(), first.advance(2));
    let new = reopened(&backend);
    assert_eq!((new.applied(), mode(&new, A)), (first.advance(2), Some(0o640)));
    assert_eq!(new.totals(), store.totals());
}

#[test]
fn a_batch_that_fails_half_way_leaves_what_was_answered_before() {
    let store = formatted(&Backend::new(), 1 << 20);
    apply(&store, &[create("bad", B)]).unwrap();
    drop(store.view().unwrap());
    {
        let transaction = store.database.begin_write().unwrap();
        transaction.open_table(INODE).unwrap().insert(B.0, &[2, 0, 0][..]).unwrap();
        transaction.commit().unwrap();
    }
    apply(&store, &[create("a", A)]).unwrap();
    apply(&store, &[chmod(A, 0o640)]).unwrap();
    let before = (store.applied(), store.totals());
    let error = apply(&store, &[create("c", Ino(12)), chmod(A, 0), chmod(B, 0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!((store.applied(), store.totals()), before);
    let view = store.view().unwrap();
    assert_eq!((view.applied().unwrap(), view.totals().unwrap()), before);
    assert_eq!(view.inode(A).unwrap().unwrap().mode, 0o640);
    assert_eq!(view.inode(Ino(12)).unwrap(), None);
    assert_eq!(mode(&store, A), Some(0o640));
}

/// With the backend gone nothing answers from what is older than what was answered: it fails until opened anew.
#[test]
fn a_lost_backend_shows_nothing_old() {
    let backend = Backend::new();
    let store = formatted(&backend, 0);
    let rows: Vec<Command> = (0..2000).map(|i| create(&format!("f{i}"), Ino(100 + i))).collect();
    apply(&store, &rows).unwrap();
    store.checkpoint().unwrap();
    apply(&store, &[create("a", A)]).unwrap();
    assert!(is_open(&store));
    backend.broken.store(true, Ordering::SeqCst);
    let failed = (0..2000).map(|i| chmod(Ino(100 + i), 0)).map(|one| apply(&store, &[one]));
    let failed = failed.filter_map(Result::err).next().expect("without a cache it must read");
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
    assert!(store.view().is_err());
    assert!(store.inode(A).is_err());
    assert!(apply(&store, &[chmod(A, 0)]).is_err());
    assert!(store.checkpoint().is_err());
}

#[test]
fn what_is_dropped_open_is_not_there_afterwards() {
    let backend = Backend::new();
    let store = formatted(&backend, 1 << 20);
    let checkpointed = store.checkpoint().unwrap();
    apply(&store, &[create("a", A)]).unwrap();
    drop(store);
    let store = Store::open(backend, 1 << 20).unwrap();
    assert_eq!(store.applied(), checkpointed);
    assert_eq!(store.inode(A).unwrap(), (None, checkpointed));
}

/// What is in the open transaction is what `Txn` reads there.
#[test]
fn tables_of_an_open_transaction_can_be_opened_again_and_again() {
    let store = formatted(&Backend::new(), 1 << 20);
    apply(&store, &[create("a", A)]).unwrap();
    let current = store.current();
    let open = current.open.as_ref().unwrap();
    for _ in 0..3 {
        let txn = Txn::new(&open.transaction, current.totals);
        assert!(txn.inode(A).unwrap().is_some());
        assert!(txn.dentry(ROOT_INO, b"a").unwrap().is_some());
    }
    assert_eq!(current.applied, LogPosition(2));
}
