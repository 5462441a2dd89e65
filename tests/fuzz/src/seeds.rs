//! Good input for each target, to start from.

use super::sent;
use super::stored::sealed_record;
use bytes::Bytes;
use ironfs::class::{Class, Compression};
use ironfs::config::labels::Labels;
use ironfs::disk::superblock::{LogMember, Member, MemberList, MemberState, Superblock};
use ironfs::extent::{ChunkMap, FrameRef, Place};
use ironfs::format::Writer;
use ironfs::meta::command::{
    Command, FileUpdate, HotExtent, NewNode, Rename, RenameMode, SegmentCommit, SetAttributes,
    XattrMode,
};
use ironfs::meta::local::state;
use ironfs::meta::log::Chain;
use ironfs::meta::log::record::Header;
use ironfs::meta::tables::rows;
use ironfs::net::{ShardHeader, ShardKey};
use ironfs::shard::file::{FooterBuilder, TRAILER_BYTES, encode_header};
use ironfs::shard::index;
use ironfs::stripe::frame::Frame;
use ironfs::stripe::layout::StripeRecord;
use ironfs::stripe::slots::{Slot, SlotTable};
use ironfs::types::{
    ChunkIndex, ClassId, DiskId, Epoch, FileKind, Incarnation, Ino, LogPosition, ROOT_INO,
    SegmentAddress, SegmentIndex, ShardIndex, SlotIndex, StripeId, Timestamp, Version, VolumeId,
};
use std::collections::BTreeMap;

const VOLUME: VolumeId = VolumeId([7; 16]);

/// Seeds of a target.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "superblock" => superblocks(),
        "shard_header" => vec![encode_header(VOLUME, &shard_header())[..64].to_vec()],
        "shard_footer" => footers().into_iter().map(|footer| footer.0).collect(),
        "shard_trailer" => footers().into_iter().map(|footer| footer.1).collect(),
        "shard_name" => texts(&["0000000000000005.0", "00000000deadbeef.5"]),
        "index_clean" => vec![index::encode_clean(5)],
        "state_clean" => vec![state::encode_clean(Epoch(3), LogPosition(9))],
        "slot_table" => slot_tables(),
        "frame" => frames(),
        "log_header" => {
            vec![Header::new(chain(), Epoch(3), LogPosition(9)).encode()[..56].to_vec()]
        }
        "log_record" => commands().iter().map(|command| sealed_record(command)).collect(),
        "command" => commands(),
        "rows" => table_rows(),
        "chunk_map" => vec![encoded(|writer| chunk_map().encode(writer))],
        "stripe_record" => stripe_records(),
        "wire_order" => sent::orders(),
        "wire_answer" => sent::answers(),
        "identity" => sent::identities(),
        "class" => classes(),
        "labels" => texts(&["zone=a,rack=1,node=n,tag=smr,tag=psu=2", "zone=home"]),
        "config" => texts(&[
            "name = \"media\"\ndisks = [\"/srv/d0\", \"/srv/d1\"]\n",
            "name = \"m\"\ndisks = [\"/a\"]\n[limits]\ndirty_mib = 64\nscrub_days = 0\n[disk.\"/a\"]\nzone = \"z\"\ntags = [\"smr\"]\n",
            "name = \"n\"\ndisks = [\"a:/srv/d\"]\nidentity = \"/i\"\n[peer.a]\naddress = \"10.0.0.2:7440\"\n",
        ]),
        "node_config" => texts(&[
            "disks = [\"/srv/d0\"]\nidentity = \"/etc/i\"\n",
            "listen = \"[::1]:9\"\ndisks = [\"/a\", \"/b\"]\nidentity = \"/i\"\nzone = \"z\"\nrack = \"1\"\n[limits]\ndrain_s = 0\n",
        ]),
        "mount_options" => {
            texts(&["rw,noatime,_netdev", "ro,nosuid,nodev,x-systemd.automount,comment=a"])
        }
        "acl" => vec![acl()],
        "admin" => bodies(),
        "extents" => {
            vec![(0..64).collect(), vec![0, 0, 200, 1, 9, 9, 1, 1, 100, 0, 50, 3, 0, 0, 0, 0]]
        }
        "coder" => (0..6).map(|scheme| vec![scheme, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7]).collect(),
        _ => Vec::new(),
    }
}

fn encoded(encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer);
    writer.into_vec()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn class() -> Class {
    Class::new("2+1".parse().expect("a scheme"))
}

fn superblocks() -> Vec<Vec<u8>> {
    let member = |number: u32, state| Member {
        disk: DiskId(number),
        state,
        capacity_bytes: 1 << 40,
        device: u64::from(number),
        path: format!("/srv/d{number}"),
        labels: Labels::parse("zone=a,tag=smr").expect("labels"),
    };
    let log = LogMember { disk: DiskId(1), start: LogPosition(5) };
    let node = |(name, address): (&str, &str)| (name.to_owned(), address.to_owned());
    let nodes = [("alpha", "10.0.0.2:7440"), ("beta", "[fd00::3]:7441")].map(node);
    let disks = vec![member(1, MemberState::Healthy), member(2, MemberState::Draining)];
    let members = MemberList {
        epoch: Epoch(4),
        previous_epoch: Epoch(3),
        disks,
        log: vec![log],
        previous_log: vec![log],
        tolerance: 1,
        nodes: BTreeMap::new(),
    };
    let with_nodes = MemberList { nodes: nodes.into(), ..members.clone() };
    let slot = |members: MemberList| {
        let (name, disk) = (String::from("media"), DiskId(1));
        let superblock = Superblock { volume: VOLUME, name, disk, sequence: 8, members };
        let mut slot = superblock.encode().expect("it fits");
        let used = slot.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        slot.truncate(used);
        slot
    };
    vec![slot(members), slot(with_nodes)]
}

fn shard_header() -> ShardHeader {
    ShardHeader {
        key: ShardKey { stripe: StripeId(77), index: ShardIndex(1) },
        class: ClassId(1),
        data_shards: 2,
        parity_shards: 1,
        cell_bytes: 128,
        epoch: Epoch(2),
    }
}

/// Footers and their trailers, of one row and of two.
fn footers() -> Vec<(Vec<u8>, Vec<u8>)> {
    let footer = |cells: &[usize], payload_bytes: u64| {
        let mut builder = FooterBuilder::new(VOLUME, shard_header());
        cells.iter().for_each(|length| builder.append(&vec![9; *length]));
        let table = Bytes::from_static(b"a slot table");
        let mut body = builder.finish(payload_bytes, table).expect("the cells fit").encode();
        let trailer = body.split_off(body.len() - usize::try_from(TRAILER_BYTES).expect("few"));
        (body, trailer)
    };
    vec![footer(&[128], 256), footer(&[128, 64], 320)]
}

fn frame(bytes: usize) -> Frame {
    Frame::seal(Compression::None, Bytes::from(vec![3; bytes]))
}

fn slot_tables() -> Vec<Vec<u8>> {
    let mut offset = 0;
    let mut slot = |ino: u64, segment: u16, bytes: usize| {
        let reference = frame(bytes).reference(offset);
        offset += u32::try_from(reference.stored_bytes()).expect("a frame is small");
        let (ino, chunk, segment) = (Ino(ino), ChunkIndex(0), SegmentIndex(segment));
        Slot { owner: SegmentAddress { ino, chunk, segment }, frame: reference }
    };
    let slots = vec![slot(5, 0, 65_536), slot(5, 1, 65_536), slot(5, 2, 100), slot(6, 0, 4096)];
    vec![SlotTable { slots }.encode(), SlotTable { slots: Vec::new() }.encode()]
}

fn frames() -> Vec<Vec<u8>> {
    let words = |raw: u16, start: u16, end: u16, flags: u8| {
        let mut head = Vec::new();
        head.extend((raw - 1).to_le_bytes());
        head.extend([0, 0]);
        head.extend(start.to_le_bytes());
        head.extend(end.to_le_bytes());
        head.push(flags);
        head
    };
    let text = Bytes::from(b"so many words, so little said ".repeat(300));
    let packed = Frame::seal(Compression::Zstd(3), text.clone());
    let raw = frame(9000);
    let length = |bytes: &Bytes| u16::try_from(bytes.len()).expect("short");
    vec![
        [words(9000, 100, 8999, 0), raw.body.to_vec()].concat(),
        [words(length(&text), 5, 5000, 1), packed.body.to_vec()].concat(),
    ]
}

fn chain() -> Chain {
    Chain { volume: VOLUME, base: Epoch(1) }
}

fn commands() -> Vec<Vec<u8>> {
    let time = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
    let mut node = NewNode::new(Ino(9), FileKind::Symlink, 0o777);
    node.target = b"../there".to_vec();
    node.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
    let rename = Rename {
        from: ROOT_INO,
        from_name: b"a".to_vec(),
        to: Ino(2),
        to_name: b"b".to_vec(),
        mode: RenameMode::Exchange,
        whiteout: None,
        time,
    };
    let name = || b"name".to_vec();
    let file = FileUpdate { ino: Ino(9), size: 70_000, mtime: Some(time), ctime: None };
    let address = SegmentAddress { ino: Ino(9), chunk: ChunkIndex(0), segment: SegmentIndex(1) };
    let commit = SegmentCommit {
        address,
        expected: Version(2),
        slot: SlotIndex(0),
        frame: frame(4096).reference(0),
    };
    let hot = HotExtent { chunk: ChunkIndex(0), offset: 5, data: Bytes::from_static(b"hot") };
    let all = [
        Command::StartMount { incarnation: Incarnation(3) },
        Command::SetClass { id: ClassId(2), class: class() },
        Command::Create { parent: ROOT_INO, name: name(), node, time },
        Command::Link { ino: Ino(9), parent: ROOT_INO, name: name(), time },
        Command::Unlink { parent: ROOT_INO, name: name(), keep: true, time },
        Command::Rename(rename),
        Command::SetAccessTimes { times: vec![(Ino(9), time), (Ino(10), time)] },
        Command::SetInodeClass { ino: Ino(9), class: ClassId(2), time },
        Command::ReleaseOrphans { inos: vec![Ino(9), Ino(11)] },
        Command::Reap { chunks: 4 },
        Command::CommitExtents {
            stripe: stripe_record(class(), 0),
            segments: vec![commit],
            files: vec![file],
        },
        Command::CommitHot { file, extents: vec![hot] },
        Command::CommitInline { file, data: Bytes::from_static(b"inline") },
        Command::Truncate { ino: Ino(9), size: 5, set: SetAttributes::default() },
        Command::ForgetStripes { stripes: vec![StripeId(1), StripeId(2)] },
        Command::NoteDamage { shards: vec![(StripeId(1), ShardIndex(2))], time },
        Command::PlaceShard {
            stripe: StripeId(1),
            index: ShardIndex(2),
            from: DiskId(1),
            disk: DiskId(2),
            root: [1; 32],
        },
        Command::SetXattr {
            ino: Ino(9),
            name: b"user.x".to_vec(),
            value: vec![1; 20],
            mode: XattrMode::Create,
            set: SetAttributes { mode: Some(0o644), mtime: Some(time), ..Default::default() },
        },
    ];
    all.iter().map(|command| encoded(|writer| command.encode(writer))).collect()
}

fn table_rows() -> Vec<Vec<u8>> {
    let inode = rows::new_inode(Ino(5), FileKind::File);
    let listing = rows::encode_listing(Ino(5), FileKind::File, b"name");
    let of = |table: u8, row: Vec<u8>| [vec![table], row].concat();
    let dentry = rows::Dentry { ino: Ino(5), kind: FileKind::File, cookie: 3 };
    let mut live = rows::Live::new(20);
    live.set(3, true);
    let entry = rows::RepairEntry::new(Timestamp { seconds: 1, nanoseconds: 2 });
    vec![
        of(0, encoded(|writer| rows::encode_inode(&inode, writer))),
        of(1, rows::encode_dentry(dentry)),
        of(2, listing),
        of(4, rows::encode_scrub(&Default::default())),
        of(5, encoded(|writer| rows::encode_totals(&Default::default(), writer))),
        of(6, live.encode()),
        of(7, rows::ReapEntry { from: ChunkIndex(3), whole: true }.encode()),
        of(8, entry.encode()),
    ]
}

fn chunk_map() -> ChunkMap {
    let mut map = ChunkMap::default();
    let mut offset = 0;
    for segment in (0..5).chain(9..12) {
        let frame: FrameRef = frame(if segment == 11 { 100 } else { 65_536 }).reference(offset);
        offset += u32::try_from(frame.stored_bytes()).expect("a frame is small");
        let slot = SlotIndex(u32::from(segment));
        let place = Place { stripe: StripeId(7), slot, frame, version: Version(3) };
        map.insert(SegmentIndex(segment), place);
    }
    map
}

fn stripe_record(class: Class, missing: u64) -> StripeRecord {
    let n = class.scheme.n();
    StripeRecord {
        id: StripeId(5),
        class_id: ClassId(1),
        class,
        epoch: Epoch(2),
        payload_bytes: 70_000,
        slots: 2,
        disks: (0..u32::from(n)).map(DiskId).collect(),
        missing,
        shard_roots: vec![[4; 32]; usize::from(n)],
    }
}

fn stripe_records() -> Vec<Vec<u8>> {
    let wide = Class::new("32+16".parse().expect("a scheme"));
    let records =
        [stripe_record(class(), 0), stripe_record(class(), 0b100), stripe_record(wide, 0)];
    records.iter().map(|record| encoded(|writer| record.encode(writer))).collect()
}

fn classes() -> Vec<Vec<u8>> {
    let told = [
        "4+2",
        "replica:3",
        "6+3,zstd:9",
        "4+2,cell:16448",
        "2+1,place:round-robin,avoid:smr,apart:psu",
    ];
    let stored = |text: &&str| {
        let class: Class = text.parse().expect("a class");
        encoded(|writer| class.encode(writer))
    };
    let stored: Vec<Vec<u8>> = told.iter().map(stored).collect();
    [texts(&told), stored].concat()
}

/// `u::rw-,u:7:r--,g::r--,m::r--,o::---` in the form of the kernel (linux/posix_acl_xattr.h).
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, mode, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(mode.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn bodies() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"stripe":5,"force":true}"#,
        r#"{"paused":false}"#,
        r#"{"job":"scrub","paused":true}"#,
        r#"{"old":"/srv/d0","new":"/srv/d9","allow_same_device":false}"#,
        r#"{"new":"/srv/d9","allow_same_device":true}"#,
        r#"{"disk":"3"}"#,
        r#"{"disk":"3","zone":"z","rack":null,"node":null,"tags":["smr"]}"#,
        r#"{"node":"beta","address":"10.0.0.3:7440"}"#,
        r#"{"lose":["disk:3","zone:z"],"limit":10}"#,
        r#"{"read_only":true,"atime":"relative","nodiratime":false}"#,
    ];
    let with_kind = |(kind, body): (u8, &str)| [&[kind], body.as_bytes()].concat();
    (0..).zip(bodies).map(with_kind).collect()
}
