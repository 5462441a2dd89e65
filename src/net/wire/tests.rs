use super::{Answer, HEADER_BYTES, Header, Order, PAYLOAD_BYTES_MAX, Packed, Served, ServedSlot};
use crate::disk::{DiskEntry, DiskIdentity, OpenMode, Space};
use crate::erasure::Scheme;
use crate::error::{Error, ErrorKind, Posix};
use crate::format::{Decoded, FormatError};
use crate::net::gather::{Gather, NodeAddress, Source};
use crate::net::{
    DiskCall, DiskReply, FileId, Operation, Priority, Request, Response, Seal, ShardFooter,
    ShardHeader, ShardKey,
};
use crate::types::{ClassId, DiskId, Epoch, MountId, ShardIndex, StripeId};
use bytes::Bytes;

const ID: u64 = 0x1122_3344_5566_7788;
const MOUNT: MountId = MountId(0x99aa_bbcc_ddee_ff00);

fn key() -> ShardKey {
    ShardKey { stripe: StripeId(0x0102_0304_0506_0708), index: ShardIndex(5) }
}

fn header() -> ShardHeader {
    ShardHeader {
        key: key(),
        class: ClassId(3),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: 65_600,
        epoch: Epoch(9),
    }
}

fn source(index: u8) -> Source {
    let node = NodeAddress { name: format!("n{index}"), address: format!("10.0.0.{index}:7440") };
    Source { index: ShardIndex(index), disk: DiskId(u32::from(index) + 10), node }
}

/// Shards that nodes make of what others hold: one is computed, one copied.
fn gathers() -> [Gather; 2] {
    let columns = 131_200..196_864;
    let sources = [0, 1, 2, 4].map(source).to_vec();
    let computed =
        Gather { header: header(), scheme: Scheme::ReedSolomon { k: 4, m: 2 }, columns, sources };
    let key = ShardKey { index: ShardIndex(1), ..key() };
    let header = ShardHeader { key, data_shards: 1, parity_shards: 2, ..header() };
    let (scheme, sources) = (Scheme::Replica(3), vec![source(1)]);
    [computed, Gather { header, scheme, columns: 0..65_600, sources }]
}

fn orders() -> Vec<Order> {
    let shard = |operation| {
        let (disk, epoch) = (DiskId(7), Epoch(9));
        Order::Shard(Request { disk, epoch, priority: Priority::Read, operation })
    };
    let call = |call| Order::Disk { slot: 2, call };
    let (file, name) = (FileId(77), || "log/1-2.log".to_owned());
    let seal = Seal { payload_bytes: 4321, slot_table: Bytes::from_static(b"slots") };
    let [computed, copied] = gathers();
    vec![
        shard(Operation::Begin(header())),
        shard(Operation::Append(key(), vec![Bytes::from_static(b"one"), Bytes::from_static(b"2")])),
        shard(Operation::Seal(key(), seal)),
        shard(Operation::Abort(key())),
        shard(Operation::Fetch(key(), vec![0..100, 8192..9000])),
        shard(Operation::Stat(key())),
        shard(Operation::Verify(key())),
        shard(Operation::Delete(key())),
        shard(Operation::List { after: Some(key()), limit: 100, seen: true }),
        shard(Operation::List { after: None, limit: 1, seen: false }),
        shard(Operation::Adopt { part: 12 }),
        shard(Operation::Space),
        call(DiskCall::Open { name: name(), mode: OpenMode::CreateNew }),
        call(DiskCall::Length(file)),
        call(DiskCall::Read { file, offset: 5, length: 6 }),
        call(DiskCall::Write { file, offset: 5, data: Bytes::from_static(b"abc"), durable: true }),
        call(DiskCall::SetLength { file, length: 1 << 40 }),
        call(DiskCall::Sync(file)),
        call(DiskCall::Close(file)),
        call(DiskCall::Remove(name())),
        call(DiskCall::Rename { from: name(), to: "meta/x".to_owned() }),
        call(DiskCall::CreateDir("log".to_owned())),
        call(DiskCall::ListDir(String::new())),
        call(DiskCall::SyncDir("log".to_owned())),
        call(DiskCall::Identity),
        call(DiskCall::Space),
        call(DiskCall::Lock { holder: "pid 1".to_owned() }),
        call(DiskCall::Unlock),
        Order::Disks,
        call(DiskCall::WriteMany {
            file,
            parts: vec![(5, Bytes::from_static(b"abc")), (1 << 33, Bytes::from_static(b"d"))],
        }),
        shard(Operation::Gather(computed)),
        shard(Operation::Gather(copied)),
    ]
}

fn answers() -> Vec<Answer> {
    let space = Space { total_bytes: 1000, free_bytes: 10, device: 42 };
    let footer = ShardFooter {
        header: header(),
        payload_bytes: 1,
        cells_bytes: 2,
        root: [7; 32],
        slot_table: Bytes::from_static(b"table"),
    };
    let entry = DiskEntry { name: "log".to_owned(), is_dir: true };
    let slot = |slot, disk| ServedSlot { slot, disk, path: format!("/srv/d{slot}") };
    let slots = vec![slot(0, Some(DiskId(4))), slot(1, None)];
    vec![
        Answer::Shard(Response::Done),
        Answer::Shard(Response::Sealed { root: [9; 32] }),
        Answer::Shard(Response::Bytes(vec![Bytes::from_static(b"x"), Bytes::new()])),
        Answer::Shard(Response::Footer(footer)),
        Answer::Shard(Response::Keys(vec![key(), key()])),
        Answer::Shard(Response::Space(space)),
        Answer::Disk(DiskReply::Done),
        Answer::Disk(DiskReply::Opened(FileId(3))),
        Answer::Disk(DiskReply::Length(12)),
        Answer::Disk(DiskReply::Bytes(Bytes::from_static(b"bytes"))),
        Answer::Disk(DiskReply::Entries(vec![entry])),
        Answer::Disk(DiskReply::Space(space)),
        Answer::Disk(DiskReply::Identity(DiskIdentity { device: 1, inode: 2 })),
        Answer::Disks(Served { rack: "r1".to_owned(), zone: String::new(), slots }),
        Answer::Error(Error::from(Posix::NoSpace)),
        Answer::Error(Error::new(ErrorKind::Fenced, "gone over")),
        Answer::Error(Error::new(ErrorKind::Superseded, "gone over")),
        Answer::Error(Error::refused("no")),
        Answer::Shard(Response::Lacking {
            index: ShardIndex(4),
            error: Error::unavailable("no way"),
        }),
    ]
}

/// Header, body and payload of a message.
fn parts(packed: Packed) -> (Vec<u8>, Vec<u8>, Bytes) {
    let all: Vec<u8> = packed.chunks().concat();
    let (head, rest) = all.split_at(HEADER_BYTES);
    let header = Header::decode(head.try_into().unwrap()).unwrap();
    let (body, payload) = rest.split_at(header.body_bytes as usize);
    assert_eq!(payload.len() as u64, header.payload_bytes);
    (head.to_vec(), body.to_vec(), Bytes::copy_from_slice(payload))
}

fn unpack_order(head: &[u8], body: &[u8], payload: Bytes) -> Decoded<Order> {
    let header = Header::decode(head.try_into().unwrap())?;
    Order::unpack(&header, body, payload)
}

fn unpack_answer(head: &[u8], body: &[u8], payload: Bytes) -> Decoded<Answer> {
    let header = Header::decode(head.try_into().unwrap())?;
    Answer::unpack(&header, body, payload)
}

#[test]
fn orders_come_back_as_they_were() {
    for order in orders() {
        let shown = format!("{order:?}");
        let (head, body, payload) = parts(order.pack(ID, MOUNT));
        let header = Header::decode(head.as_slice().try_into().unwrap()).unwrap();
        assert_eq!((header.id, header.mount), (ID, MOUNT));
        assert_eq!(format!("{:?}", unpack_order(&head, &body, payload).unwrap()), shown);
    }
}

#[test]
fn answers_come_back_as_they_were() {
    for answer in answers() {
        let shown = format!("{answer:?}");
        let error = if let Answer::Error(error) = &answer { Some(error.clone()) } else { None };
        let (head, body, payload) = parts(answer.pack(ID));
        let back = unpack_answer(&head, &body, payload).unwrap();
        match (back, error) {
            (Answer::Error(back), Some(error)) => {
                assert_eq!((back.kind(), back.to_string()), (error.kind(), error.to_string()));
            }
            (back, _) => assert_eq!(format!("{back:?}"), shown),
        }
    }
}

#[test]
fn a_changed_byte_never_passes() {
    let append = Operation::Append(key(), vec![Bytes::from_static(b"cell")]);
    let request =
        Request { disk: DiskId(1), epoch: Epoch(2), priority: Priority::Sync, operation: append };
    let (head, body, payload) = parts(Order::Shard(request).pack(ID, MOUNT));
    let whole = [head.clone(), body.clone(), payload.to_vec()].concat();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        let (head, rest) = bad.split_at(HEADER_BYTES);
        let (body, payload) = rest.split_at(body.len());
        let unpacked = unpack_order(head, body, Bytes::copy_from_slice(payload));
        assert!(unpacked.is_err(), "byte {at}");
    }
}

#[test]
fn what_is_too_long_or_newer_is_refused() {
    let (head, _body, _payload) = parts(Order::Disks.pack(1, MOUNT));
    let seal = |mut bytes: Vec<u8>| {
        let sum = crate::sum::xxh3(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        Header::decode(bytes.as_slice().try_into().unwrap())
    };
    let mut long = head.clone();
    long[32..40].copy_from_slice(&(PAYLOAD_BYTES_MAX + 1).to_le_bytes());
    assert_eq!(seal(long), Err(FormatError::Invalid("length of the payload")));
    let mut long = head.clone();
    long[12..16].copy_from_slice(&((1_u32 << 20) + 1).to_le_bytes());
    assert_eq!(seal(long), Err(FormatError::Invalid("length of the body")));
    let mut newer = head.clone();
    newer[4] = 2;
    assert_eq!(seal(newer), Err(FormatError::Newer { known: 1, found: 2 }));
    let mut other = head;
    other[0] = b'X';
    assert_eq!(seal(other), Err(FormatError::Invalid("magic")));
}

#[test]
fn sources_are_bounded() {
    let unpacked = |change: &dyn Fn(&mut Gather)| {
        let [mut gather, _copied] = gathers();
        change(&mut gather);
        let (disk, epoch, priority) = (DiskId(1), Epoch(2), Priority::Background);
        let request = Request { disk, epoch, priority, operation: Operation::Gather(gather) };
        let (head, body, payload) = parts(Order::Shard(request).pack(ID, MOUNT));
        unpack_order(&head, &body, payload).map(drop)
    };
    assert_eq!(unpacked(&|_gather| {}), Ok(()));
    assert_eq!(unpacked(&|gather| gather.sources = (0..32).map(source).collect()), Ok(()));
    let many = unpacked(&|gather| gather.sources = (0..33).map(source).collect());
    assert_eq!(many, Err(FormatError::Invalid("sources")));
    let name = unpacked(&|gather| gather.sources[0].node.name = "n".repeat(33));
    assert_eq!(name, Err(FormatError::Invalid("text")));
    let address = unpacked(&|gather| gather.sources[0].node.address = "a".repeat(262));
    assert_eq!(address, Err(FormatError::Invalid("text")));
    // A whole copy has one data shard.
    let scheme = unpacked(&|gather| gather.scheme = Scheme::Replica(3));
    assert_eq!(scheme, Err(FormatError::Invalid("scheme")));
}

#[test]
fn the_bytes_of_version_1() {
    let shown = |packed: Packed| {
        let bytes = packed.chunks().concat();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut all = String::new();
    for order in orders() {
        all.push_str(&shown(order.pack(ID, MOUNT)));
        all.push('\n');
    }
    for answer in answers() {
        all.push_str(&shown(answer.pack(ID)));
        all.push('\n');
    }
    assert_eq!(all, include_str!("golden.txt"), "the wire format must not change under us");
}
