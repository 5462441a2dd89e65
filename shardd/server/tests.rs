use super::{Server, Surroundings, check_role};
use crate::config::node::NodeConfig;
use crate::disk::local::LocalDisk;
use crate::disk::{Disk, OpenMode};
use crate::erasure::Scheme;
use crate::error::{Error, ErrorKind, Result};
use crate::net::authority::Role;
use crate::net::gather::{Gather, NodeAddress};
use crate::net::wire::{Answer, Order};
use crate::net::{
    DiskCall, DiskReply, FileId, Operation, Peers, Priority, Request, Response, Seal, ShardHeader,
    ShardKey,
};
use crate::shardd::testing::{caller, kind, make_disk};
use crate::sync::Arc;
use crate::types::{ClassId, DiskId, Epoch, MountId, ShardIndex, StripeId};
use bytes::Bytes;
use std::path::Path;
use std::time::Duration;

const A: MountId = MountId(11);
const B: MountId = MountId(22);

async fn server(directory: &Path) -> Server {
    let config = NodeConfig::new(vec![directory.to_path_buf()], directory.to_path_buf());
    let nobody = |node: &NodeAddress| -> Result<Arc<dyn Peers>> {
        Err(Error::unavailable(format!("there is no {node}")))
    };
    Server::open(&config, Surroundings::local(Arc::new(nobody))).await.unwrap()
}

async fn call(server: &Server, mount: MountId, call: DiskCall) -> Result<DiskReply> {
    match server.answer(&caller(Role::Client), mount, Order::Disk { slot: 0, call }).await? {
        Answer::Disk(reply) => Ok(reply),
        other => panic!("{other:?}"),
    }
}

async fn lock(server: &Server, mount: MountId) -> Result<DiskReply> {
    call(server, mount, DiskCall::Lock { holder: format!("mount {mount}") }).await
}

fn open(name: &str, mode: OpenMode) -> DiskCall {
    DiskCall::Open { name: name.to_owned(), mode }
}

async fn opened(server: &Server, mount: MountId, name: &str, mode: OpenMode) -> FileId {
    match call(server, mount, open(name, mode)).await.unwrap() {
        DiskReply::Opened(file) => file,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn changes_need_the_lease() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path()).await;
    let make = || open("superblock", OpenMode::CreateNew);
    assert_eq!(kind(call(&server, A, make()).await), Some(ErrorKind::Unavailable), "nobody has it");
    lock(&server, A).await.unwrap();
    let file = opened(&server, A, "superblock", OpenMode::CreateNew).await;
    let data = Bytes::from_static(b"hello");
    let write = |durable| DiskCall::Write { file, offset: 0, data: data.clone(), durable };
    call(&server, A, write(true)).await.unwrap();
    // Another mount may look, and no more.
    assert_eq!(kind(lock(&server, B).await), Some(ErrorKind::Refused));
    let seen = opened(&server, B, "superblock", OpenMode::Read).await;
    let read = DiskCall::Read { file: seen, offset: 1, length: 4 };
    let reply = call(&server, B, read).await.unwrap();
    assert!(matches!(reply, DiskReply::Bytes(bytes) if bytes[..] == b"ello"[..]));
    for change in [
        open("superblock", OpenMode::Write),
        DiskCall::Remove("superblock".to_owned()),
        DiskCall::CreateDir("log".to_owned()),
        DiskCall::SyncDir(String::new()),
    ] {
        let shown = format!("{change:?}");
        assert_eq!(kind(call(&server, B, change).await), Some(ErrorKind::Superseded), "{shown}");
    }
    // Files belong to who has opened them.
    assert_eq!(kind(call(&server, B, DiskCall::Length(file)).await), Some(ErrorKind::Unavailable));
    call(&server, A, DiskCall::Unlock).await.unwrap();
    lock(&server, B).await.unwrap();
    assert_eq!(kind(call(&server, A, write(false)).await), Some(ErrorKind::Superseded));
    assert_eq!(kind(call(&server, A, DiskCall::Unlock).await), None, "it holds nothing");
    opened(&server, B, "superblock", OpenMode::Write).await;
}

#[tokio::test]
async fn mounts_touch_only_what_is_theirs() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("shards")).unwrap();
    std::fs::write(directory.path().join("shards/x"), "x").unwrap();
    let server = server(directory.path()).await;
    lock(&server, A).await.unwrap();
    for name in ["shards/x", "index.redb", "lock", "../x", "/etc/passwd", "logs/x", "log/../lock"] {
        let refused = kind(call(&server, A, open(name, OpenMode::Read)).await);
        let kinds = [Some(ErrorKind::Refused), Some(ErrorKind::Internal)];
        assert!(kinds.contains(&refused), "{name}: {refused:?}");
        let to = DiskCall::Rename { from: "log/a".to_owned(), to: name.to_owned() };
        assert!(call(&server, A, to).await.is_err(), "{name}");
    }
    let file = opened(&server, A, "superblock", OpenMode::CreateNew).await;
    let long = DiskCall::Read { file, offset: 0, length: u32::MAX };
    assert_eq!(kind(call(&server, A, long).await), Some(ErrorKind::Refused));
    let nowhere = Order::Disk { slot: 7, call: DiskCall::Space };
    let answer = server.answer(&caller(Role::Client), A, nowhere).await;
    assert_eq!(kind(answer), Some(ErrorKind::Refused));
}

#[tokio::test]
async fn an_empty_directory_becomes_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path()).await;
    lock(&server, A).await.unwrap();
    let key = ShardKey { stripe: StripeId(0x1_0000_0001), index: ShardIndex(0) };
    let header = ShardHeader {
        key,
        class: ClassId(0),
        data_shards: 1,
        parity_shards: 0,
        cell_bytes: 64,
        epoch: Epoch(1),
    };
    let begin = |mount| {
        let (disk, epoch, priority) = (DiskId(4), Epoch(1), Priority::Sync);
        let request = Request { disk, epoch, priority, operation: Operation::Begin(header) };
        let server = &server;
        async move {
            let caller = caller(Role::Client);
            server.answer(&caller, mount, Order::Shard(request)).await
        }
    };
    assert_eq!(kind(begin(A).await), Some(ErrorKind::Unavailable), "there is no such disk");
    make_disk(directory.path(), DiskId(4));
    assert!(matches!(begin(A).await, Ok(Answer::Shard(Response::Done))));
    assert_eq!(kind(begin(B).await), Some(ErrorKind::Superseded));
}

#[tokio::test]
async fn a_mount_that_is_about_to_end_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let mount: Arc<dyn Disk> = Arc::new(LocalDisk::open(directory.path()).unwrap());
    mount.lock("a mount").unwrap();
    let opening = server(directory.path());
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(mount);
    };
    let (server, ()) = tokio::join!(opening, ending);
    lock(&server, A).await.unwrap();
}

#[test]
fn roles_bound_what_is_answered() {
    let disk = |call| Order::Disk { slot: 0, call };
    let shard = |operation| {
        let (disk, epoch, priority) = (DiskId(1), Epoch(1), Priority::Read);
        Order::Shard(Request { disk, epoch, priority, operation })
    };
    let key = ShardKey { stripe: StripeId(1), index: ShardIndex(0) };
    let header = ShardHeader {
        key,
        class: ClassId(0),
        data_shards: 1,
        parity_shards: 1,
        cell_bytes: 64,
        epoch: Epoch(1),
    };
    let (scheme, columns, sources) = (Scheme::Replica(2), 0..64, Vec::new());
    let gather = Gather { header, scheme, columns, sources };
    let seal = Seal { payload_bytes: 1, slot_table: Bytes::new() };
    let may = |role, order: &Order| check_role(&caller(role).peer, order).is_ok();
    for (order, node, admin) in [
        (Order::Disks, false, true),
        (disk(DiskCall::Space), false, true),
        (disk(DiskCall::Identity), false, true),
        (disk(DiskCall::Lock { holder: String::new() }), false, false),
        (disk(DiskCall::Unlock), false, false),
        (disk(open("superblock", OpenMode::Read)), false, false),
        (disk(DiskCall::ListDir(String::new())), false, false),
        (shard(Operation::Stat(key)), true, false),
        (shard(Operation::Fetch(key, Vec::new())), true, false),
        (shard(Operation::Verify(key)), false, false),
        (shard(Operation::Begin(header)), false, false),
        (shard(Operation::Append(key, Vec::new())), false, false),
        (shard(Operation::Seal(key, seal)), false, false),
        (shard(Operation::Abort(key)), false, false),
        (shard(Operation::Delete(key)), false, false),
        (shard(Operation::List { after: None, limit: 1, seen: false }), false, false),
        (shard(Operation::Adopt { part: 0 }), false, false),
        (shard(Operation::Space), false, false),
        (shard(Operation::Gather(gather)), false, false),
    ] {
        assert!(may(Role::Client, &order), "{order:?}");
        assert_eq!(may(Role::Node, &order), node, "{order:?}");
        assert_eq!(may(Role::Admin, &order), admin, "{order:?}");
    }
}

#[tokio::test]
async fn a_node_that_begins_anew_knows_no_open_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = {
        let server = server(directory.path()).await;
        lock(&server, A).await.unwrap();
        call(&server, A, DiskCall::CreateDir("repair_log".to_owned())).await.unwrap();
        let file = opened(&server, A, "repair_log/x", OpenMode::CreateNew).await;
        server.close().await;
        file
    };
    let server = server(directory.path()).await;
    lock(&server, A).await.unwrap();
    for name in ["log", "meta"] {
        call(&server, A, DiskCall::CreateDir(name.to_owned())).await.unwrap();
        opened(&server, A, &format!("{name}/x"), OpenMode::CreateNew).await;
    }
    // The same mount means the file of before, and none of those that were opened since.
    let (offset, data) = (0, Bytes::from_static(b"of before"));
    let write = call(&server, A, DiskCall::Write { file, offset, data, durable: true }).await;
    assert_eq!(kind(write), Some(ErrorKind::Unavailable));
    assert_eq!(std::fs::read(directory.path().join("log/x")).unwrap(), b"");
}
