#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use super::*;
use crate::disk::local::LocalDisk;
use crate::error::ErrorKind;
use proptest::prelude::*;

fn example(sequence: u64) -> Superblock {
    let member = |disk: u32, state| Member {
        disk: DiskId(disk),
        state,
        capacity_bytes: 1 << 40,
        device: 2049,
        path: format!("/srv/iron/{disk}"),
        labels: match disk {
            2 => Labels::parse("zone=a,rack=17,node=n1,tag=smr,tag=psu=2").unwrap(),
            _ => Labels::default(),
        },
    };
    let start = |disk, start| LogMember { disk: DiskId(disk), start: LogPosition(start) };
    Superblock {
        volume: VolumeId(*b"0123456789abcdef"),
        name: "iron".into(),
        disk: DiskId(2),
        sequence,
        members: MemberList {
            epoch: Epoch(7),
            previous_epoch: Epoch(5),
            disks: vec![
                member(1, MemberState::Healthy),
                member(2, MemberState::Down),
                member(9, MemberState::Out),
            ],
            log: vec![start(1, 100), start(2, 0)],
            previous_log: vec![start(9, 3)],
            tolerance: 2,
            nodes: BTreeMap::new(),
        },
    }
}

/// The example with nodes.
fn with_nodes(sequence: u64, nodes: &[(&str, &str)]) -> Superblock {
    let mut superblock = example(sequence);
    let node = |(name, address): &(&str, &str)| ((*name).to_owned(), (*address).to_owned());
    superblock.members.nodes = nodes.iter().map(node).collect();
    superblock
}

/// Puts the sum of a slot right.
fn seal(slot: &mut [u8]) {
    slot[SUM_OFFSET..BODY_OFFSET].fill(0);
    let sum = xxh3(slot);
    slot[SUM_OFFSET..BODY_OFFSET].copy_from_slice(&sum.to_le_bytes());
}

fn disk() -> (tempfile::TempDir, LocalDisk) {
    let dir = tempfile::tempdir().unwrap();
    let disk = LocalDisk::open(dir.path()).unwrap();
    (dir, disk)
}

fn flip(disk: &dyn Disk, offset: u64) {
    let file = disk.open(SUPERBLOCK_FILE, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read(offset, &mut byte).unwrap();
    file.write(offset, &[byte[0] ^ 0x40]).unwrap();
}

#[test]
fn the_bytes_never_change() {
    let slot = example(3).encode().unwrap();
    assert_eq!(slot.len(), SLOT_BYTES);
    let hash = crate::sum::blake3(&slot);
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(&slot[..16], b"IRONFSSB\x01\0\0\0\xec\0\0\0");
    assert_eq!(&slot[24..48], b"\x03\x00\x00\x00\x00\x00\x00\x000123456789abcdef");
    assert_eq!(hex, "3377e1a0fee8f4e2");
    assert_eq!(Superblock::decode(&slot), Ok(example(3)));
}

const NODES: [(&str, &str); 2] = [("alpha", "10.0.0.2:7440"), ("beta", "[fd00::3]:7441")];

#[test]
fn the_bytes_with_nodes_never_change() {
    let slot = with_nodes(3, &NODES).encode().unwrap();
    let hash = crate::sum::blake3(&slot);
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(&slot[..16], b"IRONFSSB\x02\0\0\0\x24\x01\0\0");
    let nodes =
        b"\x02\0\0\0\x05\0\0\0alpha\x0d\0\0\x0010.0.0.2:7440\x04\0\0\0beta\x0e\0\0\0[fd00::3]:7441";
    let (start, end) = (BODY_OFFSET + 0xec, BODY_OFFSET + 0x124);
    assert_eq!(&slot[start..end], nodes);
    assert_eq!(hex, "ab7620233128991e");
    assert_eq!(Superblock::decode(&slot), Ok(with_nodes(3, &NODES)));
}

#[test]
fn long_lists_are_read_and_checked_to_their_end() {
    let (_dir, disk) = disk();
    let mut long = example(1);
    let member = long.members.disks[0].clone();
    let more = (10..200).map(|number| Member { disk: DiskId(number), ..member.clone() });
    long.members.disks.extend(more);
    let body = u32::from_le_bytes(long.encode().unwrap()[12..16].try_into().unwrap());
    assert!(body as usize > FRONT_BYTES, "{body} bytes");
    create(&disk, &long).unwrap();
    assert_eq!(read(&disk).unwrap(), Some(long.clone()));
    let last = BODY_OFFSET as u64 + u64::from(body) - 1;
    flip(&disk, last);
    flip(&disk, SLOT_BYTES as u64 + last);
    assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
    // What says how much there is may be wrong too.
    let short = example(1);
    let file = disk.open(SUPERBLOCK_FILE, OpenMode::Write).unwrap();
    for slot in 0..2 {
        let mut bytes = short.encode().unwrap();
        bytes[12..16].fill(0xff);
        file.write(slot * SLOT_BYTES as u64, &bytes).unwrap();
    }
    assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn the_newest_valid_slot_counts() {
    let (_dir, disk) = disk();
    assert_eq!(read(&disk).unwrap(), None);
    create(&disk, &example(1)).unwrap();
    assert_eq!(read(&disk).unwrap(), Some(example(1)));
    write(&disk, &example(2)).unwrap();
    assert_eq!(read(&disk).unwrap(), Some(example(2)));
    write(&disk, &example(3)).unwrap();
    assert_eq!(read(&disk).unwrap(), Some(example(3)));
    flip(&disk, SLOT_BYTES as u64 + 100);
    assert_eq!(read(&disk).unwrap(), Some(example(2)));
    flip(&disk, 40);
    let error = read(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("both slots"), "{error}");
}

#[test]
fn a_cut_file_is_corrupt_and_never_panics() {
    for length in [0, 1, 100, SLOT_BYTES as u64, 2 * SLOT_BYTES as u64 - 1] {
        let (_dir, disk) = disk();
        create(&disk, &example(1)).unwrap();
        disk.open(SUPERBLOCK_FILE, OpenMode::Write).unwrap().set_len(length).unwrap();
        match read(&disk) {
            Ok(found) => {
                assert!(length >= SLOT_BYTES as u64);
                assert_eq!(found, Some(example(1)));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
}

#[test]
fn a_newer_format_is_refused() {
    let mut slot = example(1).encode().unwrap();
    slot[8] = 3;
    assert_eq!(Superblock::decode(&slot), Err(FormatError::Sum));
    seal(&mut slot);
    assert_eq!(Superblock::decode(&slot), Err(FormatError::Newer { known: 2, found: 3 }));
    let (_dir, disk) = disk();
    create(&disk, &example(1)).unwrap();
    disk.open(SUPERBLOCK_FILE, OpenMode::Write).unwrap().write(0, &slot).unwrap();
    assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn only_an_empty_directory_becomes_a_disk() {
    let (dir, disk) = disk();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    disk.lock("pid 1").unwrap();
    std::fs::write(dir.path().join("letter"), "dear").unwrap();
    let error = create(&disk, &example(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("letter"), "{error}");
    std::fs::remove_file(dir.path().join("letter")).unwrap();
    create(&disk, &example(1)).unwrap();
    let error = create(&disk, &example(1)).unwrap_err();
    assert!(error.to_string().contains("volume already"), "{error}");
}

#[test]
fn as_many_disks_as_a_volume_may_have_fit() {
    let mut superblock = example(1);
    let mut member = superblock.members.disks[0].clone();
    member.path = "p".repeat(96);
    superblock.members.disks = vec![member.clone(); DISKS_MAX];
    let slot = superblock.encode().unwrap();
    assert_eq!(Superblock::decode(&slot), Ok(superblock.clone()));
    superblock.members.disks.push(member);
    assert_eq!(superblock.encode().unwrap_err().kind(), ErrorKind::Refused);
    // They leave room for few nodes.
    superblock.members.disks.pop();
    let node = |number: usize| (format!("n{number}"), format!("rack{number}.example.org:7440"));
    superblock.members.nodes = (0..10).map(node).collect();
    assert_eq!(Superblock::decode(&superblock.encode().unwrap()), Ok(superblock.clone()));
    superblock.members.nodes = (0..100).map(node).collect();
    let error = superblock.encode().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("and 100 nodes do not fit"), "{error}");
}

#[test]
fn as_many_nodes_as_a_volume_may_have_fit() {
    let node = |number: usize| {
        let name = format!("{number:0>width$}", width = HOLDER_BYTES_MAX);
        (name, format!("{}:65535", "h".repeat(ADDRESS_BYTES_MAX - 6)))
    };
    let mut superblock = example(1);
    superblock.members.nodes = (0..NODES_MAX).map(node).collect();
    let slot = superblock.encode().unwrap();
    assert_eq!(Superblock::decode(&slot), Ok(superblock.clone()));
    superblock.members.nodes.extend([node(NODES_MAX)]);
    let error = superblock.encode().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("129 nodes are too many"), "{error}");
}

#[test]
fn nodes_that_are_cut_off_or_followed_by_more_are_refused() {
    let slot = with_nodes(1, &NODES).encode().unwrap();
    let with_length = |body_bytes: u32| {
        let mut slot = slot.clone();
        slot[12..16].copy_from_slice(&body_bytes.to_le_bytes());
        seal(&mut slot);
        Superblock::decode(&slot)
    };
    assert_eq!(with_length(0x124), Ok(with_nodes(1, &NODES)));
    for body_bytes in 0..0x124 {
        assert!(with_length(body_bytes).is_err(), "{body_bytes}");
    }
    assert_eq!(with_length(0x125), Err(FormatError::Trailing));
    assert_eq!(with_length(u32::MAX), Err(FormatError::Short));
    // The first version ends before them.
    let mut older = slot.clone();
    older[8] = 1;
    seal(&mut older);
    assert_eq!(Superblock::decode(&older), Err(FormatError::Trailing));
}

#[test]
fn nodes_are_within_their_limits() {
    let check = |nodes: &[(&str, &str)], field: &'static str| {
        let mut writer = Writer::new();
        writer.count(nodes.len());
        for (name, address) in nodes {
            writer.bytes(name.as_bytes());
            writer.bytes(address.as_bytes());
        }
        let found = decode_nodes(&mut Reader::new(writer.as_slice()));
        assert_eq!(found, Err(FormatError::Invalid(field)), "{nodes:?}");
        if field != "order of nodes" {
            let error = with_nodes(1, nodes).encode().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{nodes:?}");
        }
    };
    check(&[("", "a:1")], "node");
    check(&[("A", "a:1")], "node");
    let (long_name, long_host) = ("n".repeat(HOLDER_BYTES_MAX + 1), "h".repeat(258));
    check(&[(long_name.as_str(), "a:1")], "node");
    let long_address = format!("{long_host}:1");
    for address in ["", "a", ":1", "a:0", "a:65536", "a b:1", "a\n:1", &long_address] {
        check(&[("n", address)], "address of a node");
    }
    check(&[("b", "a:1"), ("a", "a:1")], "order of nodes");
    check(&[("a", "a:1"), ("a", "a:2")], "order of nodes");
    let decode = |bytes: &[u8]| decode_nodes(&mut Reader::new(bytes));
    assert_eq!(decode(b"\0\0\0\0"), Ok(BTreeMap::new()));
    assert_eq!(decode(b"\x02\0\0\0\0\0\0\0"), Err(FormatError::Invalid("nodes")));
    assert_eq!(
        decode(&[&[129, 0, 0, 0][..], &[0; 2000]].concat()),
        Err(FormatError::Invalid("nodes"))
    );
    assert_eq!(decode(b"\x01\0\0\0\x01\0\0\0\xff\x03\0\0\0a:1"), Err(FormatError::Invalid("node")));
}

#[test]
fn a_disk_at_a_node_is_within_the_reach_of_others() {
    let mut members = with_nodes(1, &NODES).members;
    assert!(!members.is_shared(), "no disk is there");
    members.disks[1].path = "beta:/srv/d0".into();
    assert!(members.is_shared(), "it is down");
    members.disks[1].state = MemberState::Removed;
    assert!(!members.is_shared());
}

#[test]
fn a_probe_tells_what_is_wrong() {
    let (dir, disk) = disk();
    let volume = example(1).volume;
    let kind = |volume, id| probe(&disk, volume, DiskId(id)).map_err(|error| error.kind());
    assert_eq!(kind(volume, 2), Err(ErrorKind::Unavailable));
    create(&disk, &example(1)).unwrap();
    assert_eq!(kind(volume, 2), Ok(example(1)));
    assert_eq!(kind(volume, 3), Err(ErrorKind::Refused));
    assert_eq!(kind(VolumeId([0; 16]), 2), Err(ErrorKind::Refused));
    drop(dir);
    assert_eq!(kind(volume, 2), Err(ErrorKind::Unavailable));
}

#[test]
fn labels_are_within_their_limits() {
    let mut superblock = example(1);
    superblock.members.disks[0].labels.zone = "z".repeat(33);
    assert_eq!(superblock.encode().unwrap_err().kind(), ErrorKind::Refused);
    let check = |bytes: &[u8], expected: Decoded<&str>| {
        let found = decode_labels(&mut Reader::new(bytes)).map(|labels| labels.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{bytes:?}");
    };
    check(b"\0\0\0\0", Ok(""));
    check(b"\x01n\x01r\x01z\x02\x01a\x03b=1", Ok("zone=z,rack=r,node=n,tag=a,tag=b=1"));
    check(b"\0\0\0\x02\x01b\x01a", Err(FormatError::Invalid("order of tags")));
    check(b"\0\0\0\x02\x01a\x01a", Err(FormatError::Invalid("order of tags")));
    check(b"\0\0\0\x01\0", Err(FormatError::Invalid("label")));
    check(b"\0\0\x01 \0", Err(FormatError::Invalid("label")));
    check(b"\0\0\x01\xff\0", Err(FormatError::Invalid("label")));
    check(b"\0\0\0\x09", Err(FormatError::Invalid("tags")));
    check(b"\0\0\xff", Err(FormatError::Short));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Superblock::decode(&bytes).is_err());
        // The body decoder behind a sum that fits: random bytes, padded to a slot.
        let mut body = Reader::new(&bytes);
        drop(Superblock::decode_body(&mut body));
        drop(decode_nodes(&mut Reader::new(&bytes)));
        let mut slot = example(1).encode().unwrap();
        slot[BODY_OFFSET..BODY_OFFSET + bytes.len()].copy_from_slice(&bytes);
        seal(&mut slot);
        drop(Superblock::decode(&slot));
    }

    #[test]
    fn any_flipped_byte_is_found(offset in 0..SLOT_BYTES, bit in 0..8_u32) {
        let mut slot = example(1).encode().unwrap();
        slot[offset] ^= 1_u8 << bit;
        prop_assert!(Superblock::decode(&slot).is_err());
    }
}
