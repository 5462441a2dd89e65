use super::ChunkCache;
use crate::error::Result;
use crate::meta::changes::Changes;
use crate::meta::client::{MetaClient, Views};
use crate::meta::command::{Command, FileUpdate, Inode, NewNode};
use crate::meta::store::{Totals, View};
use crate::meta::testing::MemLog;
use crate::sync::{Arc, Mutex};
use crate::types::{ChunkIndex, FileKind, Ino, LogPosition, ROOT_INO, Timestamp};
use bytes::Bytes;

const INO: Ino = Ino(10);

/// Views of a log that changes once between the opening of a view and its use.
#[derive(Debug)]
struct Racing {
    log: Arc<MemLog>,
    change: Mutex<Option<Command>>,
}

impl Views for Racing {
    fn view(&self) -> Result<View> {
        let view = self.log.view();
        if let Some(command) = self.change.lock().unwrap().take() {
            self.log.apply(command).unwrap();
        }
        view
    }

    fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)> {
        self.log.inode(ino)
    }

    fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)> {
        self.log.lookup_inode(parent, name)
    }

    fn totals(&self) -> Totals {
        self.log.totals()
    }

    fn changes(&self) -> &Changes {
        self.log.changes()
    }
}

fn log() -> Arc<MemLog> {
    let log = MemLog::formatted("4+2");
    let node = NewNode::new(INO, FileKind::File, 0o600);
    let (name, time) = (b"f".to_vec(), Timestamp::default());
    log.apply(Command::Create { parent: ROOT_INO, name, node, time }).unwrap();
    log
}

fn inline(data: &'static [u8]) -> Command {
    let file = FileUpdate { ino: INO, size: data.len() as u64, mtime: None, ctime: None };
    Command::CommitInline { file, data: Bytes::from_static(data) }
}

fn check(cache: &ChunkCache, meta: &MetaClient, expected: &[u8]) {
    assert_eq!(cache.chunk(meta, INO, ChunkIndex(0)).unwrap().inline, expected);
}

#[test]
fn a_chunk_is_read_anew_after_a_change_and_only_then() {
    let (log, cache) = (log(), ChunkCache::new(1 << 20));
    let meta = log.client();
    check(&cache, &meta, b"");
    log.apply(inline(b"one")).unwrap();
    check(&cache, &meta, b"one");
    let first = cache.chunk(&meta, INO, ChunkIndex(0)).unwrap();
    assert!(Arc::ptr_eq(&first, &cache.chunk(&meta, INO, ChunkIndex(0)).unwrap()));
}

#[test]
fn what_an_older_view_showed_is_not_kept() {
    let (log, cache) = (log(), ChunkCache::new(1 << 20));
    let change = Mutex::new(Some(inline(b"new")));
    let meta = MetaClient::new(log.clone(), Arc::new(Racing { log, change }));
    check(&cache, &meta, b"");
    check(&cache, &meta, b"new");
}
