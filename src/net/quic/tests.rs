use super::link::{Endpoints, Link};
use super::listener::{Caller, Listener, Service};
use crate::error::{Error, ErrorKind, Posix};
use crate::net::authority::{self, Revoked, Role};
use crate::net::testing::{Authority, YEAR, now};
use crate::net::tls::Identity;
use crate::net::wire::{Answer, Order, PAYLOAD_BYTES_MAX, Served};
use crate::net::{
    DiskCall, DiskReply, FileId, Operation, Priority, Request, Response, Seal, ShardHeader,
    ShardKey,
};
use crate::sync::{Arc, Mutex};
use crate::types::{ClassId, DiskId, Epoch, MountId, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quinn::ClientConfig;
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MOUNT: MountId = MountId(5);

/// Answers a read with as many bytes as were asked for, and notes who asked.
#[derive(Clone, Default)]
struct Echo {
    callers: Arc<Mutex<Vec<(String, Role, MountId)>>>,
    /// First byte of what was appended, in the order in which it was carried out.
    appended: Arc<Mutex<Vec<u8>>>,
}

/// An append that begins with this byte is refused, and one with the other hangs.
const REFUSED: u8 = 255;
const HANGING: u8 = 254;

impl Echo {
    async fn put(&self, operation: Operation) -> Answer {
        match operation {
            Operation::Append(_key, cells) => {
                let byte = cells[0][0];
                if byte == REFUSED {
                    return Answer::Error(Error::from(Posix::NoSpace));
                }
                if byte == HANGING {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                // One that were carried out beside others would come behind them.
                tokio::time::sleep(Duration::from_millis(u64::from(20 - byte.min(20)))).await;
                self.appended.lock().unwrap().push(byte);
                Answer::Shard(Response::Done)
            }
            Operation::Seal(..) => Answer::Shard(Response::Sealed { root: [9; 32] }),
            _ => Answer::Shard(Response::Done),
        }
    }
}

impl Service for Echo {
    fn serve<'a>(
        &'a self,
        caller: &'a Caller,
        mount: MountId,
        order: Order,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let known = (caller.peer.name.clone(), caller.peer.role, mount);
            self.callers.lock().unwrap().push(known);
            match order {
                Order::Disk { call: DiskCall::Read { length, .. }, .. } => {
                    let bytes = Bytes::from(vec![7; length as usize]);
                    Answer::Disk(DiskReply::Bytes(bytes))
                }
                Order::Disk { call: DiskCall::Write { data, .. }, .. } => {
                    Answer::Disk(DiskReply::Length(data.len() as u64))
                }
                Order::Disk { call: DiskCall::Space, .. } => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    Answer::Disk(DiskReply::Done)
                }
                Order::Disks => Answer::Disks(Served::default()),
                Order::Shard(request) => self.put(request.operation).await,
                Order::Disk { .. } => Answer::Error(Error::refused("not here")),
            }
        })
    }

    fn answer_bytes(&self, _order: &Order) -> u64 {
        0
    }
}

pub(crate) struct Node {
    listener: Arc<Listener>,
    echo: Echo,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    pub(crate) fn start(identity: Identity) -> Self {
        Self::start_with(identity, Duration::from_secs(30))
    }

    /// As `start`; half a request is waited for so long.
    fn start_with(identity: Identity, half_wait: Duration) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::bind(address, Arc::new(identity)).unwrap();
        listener.half_wait = half_wait;
        let (listener, echo) = (Arc::new(listener), Echo::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (listening, service, stopped) = (listener.clone(), echo.clone(), stop.clone());
        tasks.spawn(async move { listening.run(service, stopped, Duration::from_secs(1)).await });
        Self { listener, echo, stop, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address().unwrap()
    }

    fn link(&self, name: &str, identity: &Identity) -> Link {
        let (endpoints, address) = (Endpoints::open().unwrap(), self.address().to_string());
        Link::new(endpoints, (name, &address), identity, MOUNT).unwrap()
    }

    fn callers(&self) -> usize {
        self.echo.callers.lock().unwrap().len()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn read(length: u32) -> Order {
    let file = FileId(1);
    Order::Disk { slot: 0, call: DiskCall::Read { file, offset: 0, length } }
}

async fn kind(link: &Link) -> Option<ErrorKind> {
    let answer = tokio::time::timeout(Duration::from_secs(20), link.call(Order::Disks)).await;
    answer.expect("a refusal is quick").err().map(|error| error.kind())
}

#[tokio::test]
async fn requests_are_answered_side_by_side() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    let lengths = [0_u32, 1, 65_536, 5 << 20, 60 << 20];
    let asked = lengths.iter().map(|length| link.call(read(*length)));
    for (answer, length) in futures_util::future::join_all(asked).await.into_iter().zip(lengths) {
        let Ok(Answer::Disk(DiskReply::Bytes(bytes))) = answer else { panic!("{answer:?}") };
        assert_eq!(bytes.len(), length as usize);
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
    let (file, data) = (FileId(1), Bytes::from(vec![3; 30 << 20]));
    let call = DiskCall::Write { file, offset: 0, data, durable: false };
    let written = link.call(Order::Disk { slot: 0, call }).await.unwrap();
    assert!(matches!(written, Answer::Disk(DiskReply::Length(length)) if length == 30 << 20));
    let refused = link.call(Order::Disk { slot: 0, call: DiskCall::Unlock }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    let known = (String::from("desk"), Role::Client, MOUNT);
    assert!(node.echo.callers.lock().unwrap().iter().all(|caller| *caller == known));
    node.end().await;
}

const KEY: ShardKey = ShardKey { stripe: StripeId(1), index: ShardIndex(2) };

/// A put that appends a cell for each of these bytes.
fn put(bytes: &[u8], cell: usize) -> BoxStream<'static, Order> {
    let header = ShardHeader {
        key: KEY,
        class: ClassId(1),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: 65_600,
        epoch: Epoch(1),
    };
    let append = |byte: &u8| Operation::Append(KEY, vec![Bytes::from(vec![*byte; cell])]);
    let seal = Seal { payload_bytes: 1, slot_table: Bytes::from_static(b"slots") };
    let mut operations = vec![Operation::Begin(header)];
    operations.extend(bytes.iter().map(append));
    operations.push(Operation::Seal(KEY, seal));
    let order = |operation| {
        let (disk, epoch, priority) = (DiskId(1), Epoch(1), Priority::Sync);
        Order::Shard(Request { disk, epoch, priority, operation })
    };
    futures_util::stream::iter(operations).map(order).boxed()
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_on_one_stream_are_carried_out_in_order() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    let bytes: Vec<u8> = (0..40).collect();
    // More than the window of a stream: what is sent ahead waits at the node.
    let answer = link.call_in_order(put(&bytes, 1 << 20), PATIENCE).await;
    assert!(matches!(answer, Ok(Answer::Shard(Response::Sealed { root })) if root == [9; 32]));
    assert_eq!(*node.echo.appended.lock().unwrap(), bytes);
    assert_eq!(node.callers(), 42, "each request is looked at");
    node.end().await;
}

#[tokio::test]
async fn a_refused_request_is_the_last_of_its_stream() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    for (bytes, cell) in [([1, REFUSED, 3, 4, 5, 6], 100), ([1, REFUSED, 3, 4, 5, 6], 8 << 20)] {
        node.echo.appended.lock().unwrap().clear();
        let error = link.call_in_order(put(&bytes, cell), PATIENCE).await.unwrap_err();
        assert!(error.is(Posix::NoSpace), "{error}");
        assert_eq!(*node.echo.appended.lock().unwrap(), [1], "nothing behind it is carried out");
    }
    assert_eq!(kind(&link).await, None, "the connection is as good as before");
    node.end().await;
}

#[tokio::test]
async fn a_request_without_an_answer_ends_its_stream() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    let silence = Duration::from_millis(300);
    let error = link.call_in_order(put(&[1, HANGING, 3], 100), silence).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(*node.echo.appended.lock().unwrap(), [1]);
    assert_eq!(kind(&link).await, None);
    node.end().await;
}

/// The first MiB of a request that has the largest payload.
fn half_a_request() -> Bytes {
    let data = Bytes::from(vec![3; usize::try_from(PAYLOAD_BYTES_MAX).unwrap()]);
    let call = DiskCall::Write { file: FileId(1), offset: 0, data, durable: false };
    let packed = Order::Disk { slot: 0, call }.pack(1, MOUNT);
    let mut half = packed.head.to_vec();
    half.extend_from_slice(&packed.pieces[0][..1 << 20]);
    half.into()
}

#[tokio::test]
async fn room_is_not_held_for_ever_for_half_a_request() {
    let authority = Authority::new();
    // Far more than the whole request takes, on a busy machine too.
    let half_wait = Duration::from_secs(3);
    let node = Node::start_with(authority.holder("alpha", Role::Node), half_wait);
    let desk = authority.holder("desk", Role::Client);
    let mut config = ClientConfig::new(Arc::new(desk.client().unwrap()));
    config.transport_config(super::transport());
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, node.address(), "alpha").unwrap();
    let connection = connecting.await.unwrap();
    // They take all room for requests.
    let (half, mut held) = (half_a_request(), Vec::new());
    for _request in 0..4 {
        let (mut request, answer) = connection.open_bi().await.unwrap();
        request.write_all(&half).await.unwrap();
        held.push((request, answer));
    }
    let link = node.link("alpha", &desk);
    let whole = DiskCall::Write {
        file: FileId(1),
        offset: 0,
        data: vec![3; 1 << 20].into(),
        durable: false,
    };
    let asked = tokio::time::timeout(PATIENCE, link.call(Order::Disk { slot: 0, call: whole }));
    assert!(matches!(asked.await.unwrap(), Ok(Answer::Disk(DiskReply::Length(1_048_576)))));
    for (request, mut answer) in held {
        let stopped = tokio::time::timeout(PATIENCE, request.stopped()).await.unwrap();
        assert!(matches!(stopped, Ok(Some(_code))), "{stopped:?}");
        assert_eq!(answer.read_to_end(1 << 20).await.unwrap(), b"", "there is no answer");
    }
    node.end().await;
}

#[tokio::test]
async fn strangers_get_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let node = Node::start(authority.holder("alpha", Role::Node));
    let good = authority.holder("desk", Role::Client);
    // Another authority's, on either end.
    let theirs = node.link("alpha", &other.holder("desk", Role::Client));
    assert_eq!(kind(&theirs).await, Some(ErrorKind::Refused));
    // Their certificate, our authority in their files: they trust us, we do not trust them.
    let issued = other.issue("desk", Role::Client, -60..YEAR).0;
    let mixed = authority.identity(&issued, None).unwrap();
    assert_eq!(kind(&node.link("alpha", &mixed)).await, Some(ErrorKind::Refused));
    // Not yet, and no longer.
    for valid in [YEAR..2 * YEAR, -YEAR..-60] {
        let issued = authority.issue("desk", Role::Client, valid).0;
        let identity = authority.identity(&issued, None).unwrap();
        assert_eq!(kind(&node.link("alpha", &identity)).await, Some(ErrorKind::Refused));
    }
    // The node is another one than was wanted.
    assert_eq!(kind(&node.link("beta", &good)).await, Some(ErrorKind::Refused));
    assert_eq!(node.callers(), 0, "nothing of these was served");
    // A name of a node and its authority do not make a node of a client.
    let client = Node::start(authority.holder("alpha", Role::Client));
    assert_eq!(kind(&client.link("alpha", &good)).await, Some(ErrorKind::Refused));
    assert_eq!(client.callers(), 0, "it was asked for nothing");
    client.end().await;
    assert_eq!(kind(&node.link("alpha", &good)).await, None);
    node.end().await;
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connection() {
    let authority = Authority::new();
    let own = authority.issue("alpha", Role::Node, -60..YEAR).0;
    let node = Node::start(authority.identity(&own, None).unwrap());
    let (issued, serial) = authority.issue("desk", Role::Client, -60..YEAR);
    let bad = node.link("alpha", &authority.identity(&issued, None).unwrap());
    let good = node.link("alpha", &authority.holder("other", Role::Client));
    assert_eq!((kind(&bad).await, kind(&good).await), (None, None));
    let revoked = [Revoked { serial, time: now() }];
    let list = authority::revocations(&authority.issued, &revoked, 1, now()).unwrap();
    let identity = authority.identity(&own, Some(&list)).unwrap();
    node.listener.set_identity(Arc::new(identity)).unwrap();
    let mut ended = None;
    for _look in 0..100 {
        ended = kind(&bad).await;
        if ended.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ended.is_some(), "its connection goes on");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kind(&bad).await, Some(ErrorKind::Refused), "it does not come back");
    assert_eq!(kind(&good).await, None, "others are served as before");
    node.end().await;
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut state = 1_u32;
    for length in 0..600 {
        let mut packet = vec![0_u8; length * 2];
        for byte in &mut packet {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        // Half of them look like the beginning of a connection.
        if let Some(first) = packet.first_mut().filter(|_first| length % 2 == 0) {
            *first |= 0xc0;
        }
        socket.send_to(&packet, node.address()).await.unwrap();
    }
    assert_eq!(kind(&link).await, None);
    node.end().await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_found() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    assert_eq!(kind(&link).await, None);
    let address = node.address();
    node.end().await;
    assert!(kind(&link).await.is_some(), "it has ended");
    let identity = authority.holder("alpha", Role::Node);
    let again = Listener::bind(address, Arc::new(identity)).unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let stopped = stop.clone();
    tasks.spawn(async move {
        again.run(Echo::default(), stopped, Duration::from_secs(1)).await;
    });
    let mut last = kind(&link).await;
    for _look in 0..100 {
        if last.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = kind(&link).await;
    }
    assert_eq!(last, None);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_its_stream() {
    let authority = Authority::new();
    let node = Node::start(authority.holder("alpha", Role::Node));
    let link = node.link("alpha", &authority.holder("desk", Role::Client));
    assert_eq!(kind(&link).await, None);
    let hanging = || link.call(Order::Disk { slot: 0, call: DiskCall::Space });
    // More than streams are allowed at once.
    for _round in 0..30 {
        let many = (0..100).map(|_one| tokio::time::timeout(Duration::from_millis(30), hanging()));
        let ended = futures_util::future::join_all(many).await;
        assert!(ended.iter().all(Result::is_err));
    }
    let answer = tokio::time::timeout(PATIENCE, link.call(Order::Disks)).await;
    answer.expect("there is a stream for it").expect("the node answers");
    node.end().await;
}
