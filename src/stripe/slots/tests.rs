use super::*;
use crate::limits::STRIPE_PAYLOAD_BYTES_MAX;

fn table(slots: &[(u64, u16, u32, bool)]) -> SlotTable {
    let mut payload = 0;
    let slots = slots.iter().map(|(ino, segment, bytes, compressed)| {
        let frame = FrameRef {
            payload_offset: payload,
            body_bytes: *bytes,
            raw_bytes: if *compressed { 65536 } else { *bytes },
            compressed: *compressed,
            header_sum: 0x0102_0304_0506_0708,
        };
        payload += u32::try_from(frame.stored_bytes()).unwrap();
        let (ino, segment) = (Ino(*ino), SegmentIndex(*segment));
        Slot { owner: SegmentAddress { ino, chunk: ChunkIndex(3), segment }, frame }
    });
    SlotTable { slots: slots.collect() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn stored_form_is_pinned() {
    let bytes = table(&[(7, 5, 65536, false), (7, 6, 100, true), (9, 0, 1, false)]).encode();
    let slots = concat!(
        "4946534c",
        "0200",
        "03000000",
        "08",
        "0700000000000000",
        "03000000",
        "0500",
        "ffff",
        "0807060504030201",
        "03",
        "6300",
        "ffff",
        "0807060504030201",
        "08",
        "0900000000000000",
        "03000000",
        "0000",
        "0000",
        "0807060504030201",
    );
    let (content, sum) = bytes.split_at(bytes.len() - 8);
    assert_eq!(hex(content), slots);
    assert_eq!(sum, xxh3(content).to_le_bytes());
}

#[test]
fn round_trip() {
    let last = SEGMENTS_PER_CHUNK - 1;
    for slots in [
        vec![],
        vec![(1, 0, 1, false)],
        vec![(1, last - 1, 65, false), (1, last, 64, false), (1, 0, 63, false), (1, 1, 9, true)],
        (0..SEGMENTS_PER_CHUNK).map(|segment| (4, segment, 65536, false)).collect(),
    ] {
        let table = table(&slots);
        let bytes = table.encode();
        assert!(bytes.len() <= TABLE_BYTES_MAX);
        assert_eq!(SlotTable::decode(&bytes).unwrap(), table);
    }
    let full: Vec<_> = (0..SEGMENTS_PER_CHUNK).map(|segment| (4, segment, 65536, false)).collect();
    assert_eq!(table(&full).payload_bytes(), STRIPE_PAYLOAD_BYTES_MAX);
}

#[test]
fn small_files_in_order_store_no_owners() {
    let frame = FrameRef {
        payload_offset: 0,
        body_bytes: 4096,
        raw_bytes: 4096,
        compressed: false,
        header_sum: 1,
    };
    let slot = |index: u32| Slot {
        owner: SegmentAddress {
            ino: Ino(70 + u64::from(index)),
            chunk: ChunkIndex(0),
            segment: SegmentIndex(0),
        },
        frame: FrameRef { payload_offset: index * 4160, ..frame },
    };
    let table = SlotTable { slots: (0..100).map(slot).collect() };
    assert_eq!(table.encode().len(), 10 + 14 + 100 * 11 + SUM_BYTES);
    assert_eq!(SlotTable::decode(&table.encode()).unwrap(), table);
}

/// What version 1 wrote: two neighbouring segments, the second one compressed.
#[test]
fn tables_of_version_1_are_read() {
    let content = concat!(
        "4946534c",
        "0100",
        "02000000",
        "00",
        "0700000000000000",
        "03000000",
        "0500",
        "ffff",
        "ffff",
        "0807060504030201",
        "03",
        "6300",
        "ffff",
        "0807060504030201",
    );
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let expected = table(&[(7, 5, 65536, false), (7, 6, 100, true)]);
    assert_eq!(SlotTable::decode(&with_sum(&bytes(content))).unwrap(), expected);
    // Its flags are no others.
    let newer = content.replacen("00070000", "08070000", 1);
    assert!(SlotTable::decode(&with_sum(&bytes(&newer))).is_err());
}

/// The stored form with a sum that fits, whatever it says.
fn with_sum(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&xxh3(content).to_le_bytes());
    bytes
}

#[test]
fn damage_is_refused() {
    let bytes = table(&[(7, 5, 1000, false), (7, 6, 100, true)]).encode();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(SlotTable::decode(&damaged).is_err(), "byte {at}");
        assert!(SlotTable::decode(&bytes[..at]).is_err(), "length {at}");
    }
    let content = &bytes[..bytes.len() - 8];
    let mut count = content.to_vec();
    count[6..10].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(SlotTable::decode(&with_sum(&count)), Err(FormatError::Invalid("count of slots")));
    let mut newer = content.to_vec();
    newer[4] = 3;
    assert_eq!(
        SlotTable::decode(&with_sum(&newer)),
        Err(FormatError::Newer { known: 2, found: 3 })
    );
    let mut trailing = content.to_vec();
    trailing.push(0);
    assert_eq!(SlotTable::decode(&with_sum(&trailing)), Err(FormatError::Trailing));
    for flags in [NEXT_SEGMENT, NEXT_FILE, NEXT_SEGMENT | NEXT_FILE, 16] {
        let mut first = content.to_vec();
        first[10] = flags;
        assert!(SlotTable::decode(&with_sum(&first)).is_err(), "flags {flags}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    for length in 0..400 {
        let mut content: Vec<u8> = (0..length).map(|_each| next()).collect();
        assert!(SlotTable::decode(&content).is_err());
        // Past the checks in front, so that the slots themselves are random.
        if length >= 10 {
            content[..4].copy_from_slice(&MAGIC);
            content[4..10].copy_from_slice(&[2, 0, next() % 16, 0, 0, 0]);
            content.iter_mut().skip(10).step_by(27).for_each(|flags| *flags &= 15);
            if let Ok(table) = SlotTable::decode(&with_sum(&content)) {
                assert_eq!(SlotTable::decode(&table.encode()).unwrap(), table);
            }
        }
    }
}
