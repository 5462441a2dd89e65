//! What lies on disks.

use ironfs::disk::superblock::{SLOT_BYTES, Superblock};
use ironfs::extent::{ChunkMap, FrameRef};
use ironfs::format::{Reader, Writer};
use ironfs::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use ironfs::meta::command::Command;
use ironfs::meta::local::state;
use ironfs::meta::log::record::{Found, Header, RECORD_HEADER_BYTES, find};
use ironfs::meta::tables::rows;
use ironfs::shard::file::{
    Footer, HEADER_BYTES, TRAILER_BYTES, decode_header, decode_trailer, encode_header,
};
use ironfs::shard::index;
use ironfs::shard::store::parse_name;
use ironfs::stripe::frame;
use ironfs::stripe::layout::StripeRecord;
use ironfs::stripe::slots::SlotTable;
use ironfs::sum::{blake3, crc32c, xxh3};

/// A seed of the log's sums.
pub(super) const LOG_SEED: u64 = 0x1234_5678_9abc_def0;

/// `part` at `at`, if there is room.
fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

/// The sum of the bytes before `at`, at `at`.
fn seal(bytes: &mut [u8], at: usize) {
    if let Some(summed) = bytes.get(..at) {
        let sum = xxh3(summed).to_le_bytes();
        put(bytes, at, &sum);
    }
}

/// Whether `accepts` the bytes as they are, or with their sums put right: it is asked of both.
fn either(data: &[u8], sealed: &[u8], accepts: impl Fn(&[u8]) -> bool) -> bool {
    accepts(data) | accepts(sealed)
}

/// What `encode` writes.
fn encoded(encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    encode(&mut writer);
    writer.into_vec()
}

/// What `decode` reads, if it is all of `bytes`.
fn decoded<T>(
    bytes: &[u8],
    decode: impl FnOnce(&mut Reader<'_>) -> ironfs::format::Decoded<T>,
) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = decode(&mut reader).ok()?;
    reader.finish().ok()?;
    Some(value)
}

pub(super) fn superblock(data: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 16..24;
    let mut slot = data.to_vec();
    slot.resize(SLOT_BYTES, 0);
    slot[SUM].fill(0);
    let sum = xxh3(&slot).to_le_bytes();
    put(&mut slot, SUM.start, &sum);
    either(data, &slot, |bytes| {
        let Ok(found) = Superblock::decode(bytes) else { return false };
        // Labels that no program would write are read all the same, and refused when they are written.
        let Ok(again) = found.encode() else { return false };
        assert_eq!(Superblock::decode(&again), Ok(found));
        true
    })
}

/// Where the sum of a shard's header lies.
const SHARD_SUM_AT: usize = 51;

pub(super) fn shard_header(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    seal(&mut sealed, SHARD_SUM_AT);
    either(data, &sealed, |bytes| {
        let Ok((volume, header)) = decode_header(bytes) else { return false };
        let again = encode_header(volume, &header);
        assert_eq!(again.len() as u64, HEADER_BYTES);
        assert_eq!(decode_header(&again), Ok((volume, header)));
        true
    })
}

pub(super) fn shard_footer(data: &[u8]) -> bool {
    const ROOT_AT: usize = 80;
    let mut sealed = data.to_vec();
    seal(&mut sealed, SHARD_SUM_AT);
    // The hashes are at the end: of one row, or of two.
    let tail = |rows: usize| sealed.len().checked_sub(rows * 32).and_then(|at| sealed.get(at..));
    let roots = [tail(1).map(blake3), tail(2).map(blake3)];
    let mut accepted = false;
    for root in [None].into_iter().chain(roots) {
        let mut bytes = sealed.clone();
        if let Some(root) = root {
            put(&mut bytes, ROOT_AT, &root);
        }
        if let Ok((_volume, footer)) = Footer::decode(&bytes) {
            check_footer(&footer);
            accepted = true;
        }
    }
    let _as_it_is = Footer::decode(data);
    accepted
}

/// A footer that decodes answers any question about its cells, and encodes to what decodes.
fn check_footer(footer: &Footer) {
    let encoded = footer.encode();
    let body = encoded.len() - usize::try_from(TRAILER_BYTES).expect("a few bytes");
    let (body, trailer) = encoded.split_at(body);
    let (length, sum) = decode_trailer(trailer).expect("it was just encoded");
    assert_eq!((length, sum), (body.len() as u64, xxh3(body)));
    assert_eq!(Footer::decode(body).as_ref().map(|(_volume, found)| found), Ok(footer));
    for range in [0..1, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
        if let Some(cover) = footer.cover(&range) {
            assert!(cover.start <= range.start && range.end <= cover.end);
        }
    }
    for row in [0, footer.rows(), u64::MAX] {
        assert!(!footer.check_cell(row, b"not this") || footer.rows() > row);
    }
}

pub(super) fn shard_trailer(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    seal(&mut sealed, 24);
    either(data, &sealed, |bytes| decode_trailer(bytes).is_ok())
}

pub(super) fn shard_name(data: &[u8]) -> bool {
    let Some(name) = std::str::from_utf8(data).ok() else { return false };
    parse_name(name).is_some_and(|key| {
        assert_eq!(format!("{}.{}", key.stripe, key.index), name);
        true
    })
}

/// Both notes of a clean end have their sum behind 16 bytes.
const CLEAN_SUM_AT: usize = 16;

pub(super) fn index_clean(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    seal(&mut sealed, CLEAN_SUM_AT);
    either(data, &sealed, |bytes| {
        let Ok(sum) = index::decode_clean(bytes) else { return false };
        assert_eq!(index::decode_clean(&index::encode_clean(sum)), Ok(sum));
        true
    })
}

pub(super) fn state_clean(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    seal(&mut sealed, CLEAN_SUM_AT);
    either(data, &sealed, |bytes| {
        let Ok((epoch, position)) = state::decode_clean(bytes) else { return false };
        let again = state::encode_clean(epoch, position);
        assert_eq!(state::decode_clean(&again), Ok((epoch, position)));
        true
    })
}

pub(super) fn slot_table(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    let at = sealed.len().saturating_sub(8);
    seal(&mut sealed, at);
    either(data, &sealed, |bytes| {
        let Ok(table) = SlotTable::decode(bytes) else { return false };
        assert_eq!(SlotTable::decode(&table.encode()), Ok(table));
        true
    })
}

/// Four bytes of length, four of the range that is wanted, one of flags; then the body.
pub(super) fn frame(data: &[u8]) -> bool {
    let Some((head, body)) = data.split_at_checked(9) else { return false };
    let number = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let raw_bytes = number(0) + 1;
    let (start, end) = (number(4).min(number(6)).min(raw_bytes), number(6).min(raw_bytes));
    let compressed = head[8] & 1 == 1;
    let mut header = [0; 64];
    if compressed {
        put(&mut header, 0, &xxh3(body).to_le_bytes());
        put(&mut header, 8, &u64::from(raw_bytes).to_le_bytes());
        put(&mut header, 16, &(body.len() as u64).to_le_bytes());
    } else {
        for (number, block) in body.chunks(BLOCK_BYTES as usize).enumerate() {
            put(&mut header, number * 8, &xxh3(block).to_le_bytes());
        }
    }
    let frame = FrameRef {
        payload_offset: 0,
        body_bytes: u32::try_from(body.len()).unwrap_or(SEGMENT_BYTES + 1),
        raw_bytes,
        compressed,
        header_sum: xxh3(&header),
    };
    if frame.check().is_err() || start > end {
        return false;
    }
    match frame::open(&frame, start..end, 0, &header, body.to_vec()) {
        Ok(bytes) => {
            assert_eq!(bytes.len(), (end - start) as usize);
            true
        }
        Err(_refused) => false,
    }
}

pub(super) fn log_header(data: &[u8]) -> bool {
    let mut sealed = data.to_vec();
    seal(&mut sealed, 48);
    either(data, &sealed, |bytes| {
        let Ok(header) = Header::decode(bytes) else { return false };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        true
    })
}

pub(super) fn log_record(data: &[u8]) -> bool {
    let _as_it_is = find(data, LOG_SEED);
    let mut sealed = data.to_vec();
    if let Some(fields) = data.get(12..RECORD_HEADER_BYTES) {
        let length = u32::from_le_bytes([fields[0], fields[1], fields[2], fields[3]]) as usize;
        let [half, _high] = halves(LOG_SEED);
        put(&mut sealed, 8, &(crc32c(fields) ^ half).to_le_bytes());
        if let Some(summed) = sealed.get(8..RECORD_HEADER_BYTES.saturating_add(length)) {
            let sum = (xxh3(summed) ^ LOG_SEED).to_le_bytes();
            put(&mut sealed, 0, &sum);
        }
    }
    match find(&sealed, LOG_SEED) {
        Found::Record(record, taken) => {
            assert!(taken >= RECORD_HEADER_BYTES + record.command.len());
            assert!(sealed.len() >= RECORD_HEADER_BYTES + record.command.len());
            true
        }
        Found::Damaged(_) | Found::Nothing => false,
    }
}

fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_le_bytes();
    let half =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

pub(super) fn command(data: &[u8]) -> bool {
    let Some(found) = decoded(data, Command::decode) else { return false };
    let again = encoded(|writer| found.encode(writer));
    assert_eq!(decoded(&again, Command::decode), Some(found));
    true
}

/// The first byte says of which table.
pub(super) fn rows(data: &[u8]) -> bool {
    let Some((table, row)) = data.split_first() else { return false };
    match table % 9 {
        0 => rows::decode_inode(row).is_ok_and(|inode| {
            let again = encoded(|writer| rows::encode_inode(&inode, writer));
            assert_eq!(rows::decode_inode(&again).ok().as_ref(), Some(&inode));
            true
        }),
        1 => rows::decode_dentry(row).is_ok(),
        2 => rows::decode_listing(row).is_ok(),
        3 => rows::decode_hot(row).is_ok(),
        4 => rows::decode_scrub(row).is_ok_and(|state| {
            assert_eq!(rows::decode_scrub(&rows::encode_scrub(&state)).ok(), Some(state));
            true
        }),
        5 => rows::decode_totals(row).is_ok_and(|totals| {
            let again = encoded(|writer| rows::encode_totals(&totals, writer));
            assert_eq!(rows::decode_totals(&again).ok(), Some(totals));
            true
        }),
        6 => rows::Live::decode(row).is_ok_and(|live| {
            assert_eq!(rows::Live::decode(&live.encode()).ok(), Some(live));
            true
        }),
        7 => rows::ReapEntry::decode(row).is_ok_and(|entry| {
            assert_eq!(rows::ReapEntry::decode(&entry.encode()).ok(), Some(entry));
            true
        }),
        _ => rows::RepairEntry::decode(row).is_ok_and(|entry| {
            assert_eq!(rows::RepairEntry::decode(&entry.encode()).ok(), Some(entry));
            true
        }),
    }
}

pub(super) fn chunk_map(data: &[u8]) -> bool {
    let Some(map) = decoded(data, ChunkMap::decode) else { return false };
    let again = encoded(|writer| map.encode(writer));
    assert_eq!(decoded(&again, ChunkMap::decode), Some(map));
    true
}

pub(super) fn stripe_record(data: &[u8]) -> bool {
    let Some(record) = decoded(data, StripeRecord::decode) else { return false };
    let again = encoded(|writer| record.encode(writer));
    assert_eq!(decoded(&again, StripeRecord::decode), Some(record));
    true
}

/// For the seeds: the record of one command.
pub(super) fn sealed_record(command: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes.extend(u32::try_from(command.len()).expect("a short command").to_le_bytes());
    bytes.extend([0; RECORD_HEADER_BYTES - 16]);
    bytes.extend_from_slice(command);
    bytes
}
