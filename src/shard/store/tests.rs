use super::{ShardStore, StoreLimits, directories, file_name};
use crate::disk::local::LocalDisk;
use crate::disk::sim::SimMachine;
use crate::disk::{Disk, OpenMode};
use crate::error::{ErrorKind, Posix};
use crate::net::{ADOPT_PARTS, Seal, ShardHeader, ShardKey};
use crate::types::{ClassId, DiskId, Epoch, ShardIndex, StripeId, VolumeId};
use bytes::Bytes;
use std::sync::Arc;

const CELL: u32 = 65600;
const LIMITS: StoreLimits = StoreLimits { footer_bytes: 1 << 20, open_files: 8 };

fn volume() -> VolumeId {
    VolumeId([7; 16])
}

fn open(disk: &Arc<dyn Disk>) -> ShardStore {
    ShardStore::open(volume(), DiskId(0), Arc::clone(disk), LIMITS, false).unwrap()
}

fn key(stripe: u64) -> ShardKey {
    ShardKey { stripe: StripeId(stripe), index: ShardIndex(1) }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(seed * 2 + 7) >> 3).to_le_bytes()[0]).collect()
}

/// Puts two full rows and a short one; answers the bytes of all cells.
fn put(store: &ShardStore, stripe: u64) -> Vec<u8> {
    let header = ShardHeader {
        key: key(stripe),
        class: ClassId(1),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: CELL,
        epoch: Epoch(3),
    };
    store.begin(header).unwrap();
    let cells = bytes(stripe, 2 * CELL as usize + 9024);
    for cell in cells.chunks(CELL as usize) {
        store.append(key(stripe), &[Bytes::copy_from_slice(cell)]).unwrap();
    }
    let payload_bytes = 4 * 2 * u64::from(CELL) + 4 * 9000;
    let seal = Seal { payload_bytes, slot_table: Bytes::from_static(b"slots") };
    store.seal(key(stripe), &seal).unwrap();
    cells
}

#[test]
fn ranges_read_back_at_every_boundary() {
    let machine = SimMachine::new(1, 1);
    let store = open(&machine.disk(0));
    let cells = put(&store, 5);
    let edges = [0, 1, 63, 64, 65, 8255, 8256, 8257, 65599, 65600, 65664, 131_200, cells.len()];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end > start) {
            let read = store.fetch(key(5), &[start as u64..end as u64]).unwrap();
            assert!(read[0] == cells[start..end], "{start}..{end}");
        }
    }
    assert!(store.fetch(key(5), &[0..cells.len() as u64 + 1]).is_err());
    assert!(store.fetch(key(6), &[0..1]).unwrap_err().is(Posix::NotFound));
    let footer = store.stat(key(5)).unwrap();
    assert_eq!((footer.cells_bytes, &footer.slot_table[..]), (cells.len() as u64, &b"slots"[..]));
    store.verify(key(5)).unwrap();
}

#[test]
fn what_is_in_memory_is_fetched_at_once_and_checked_as_well() {
    // tmpfs, where all of it is in memory.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk::open(dir.path()).unwrap());
    let cells = put(&open(&disk), 5);
    let store = open(&disk);
    let ranges = [70..9000, 65_000..66_000];
    assert!(store.fetch_now(key(5), &ranges).is_none(), "the shard is not open yet");
    let fetched = store.fetch(key(5), &ranges).unwrap();
    assert!(fetched[0] == cells[70..9000] && fetched[1] == cells[65_000..66_000]);
    assert_eq!(store.fetch_now(key(5), &ranges), Some(fetched));
    let beyond = cells.len() as u64..cells.len() as u64 + 1;
    assert!(store.fetch_now(key(5), &[beyond]).is_none());
    let file = disk.open(&file_name(key(5)), OpenMode::Write).unwrap();
    file.write(8192 + 5000, b"damage").unwrap();
    assert!(store.fetch_now(key(5), &ranges).is_none(), "a CRC fails");
    assert_eq!(store.fetch(key(5), &ranges).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn cells_that_come_late_are_not_appended() {
    let machine = SimMachine::new(1, 1);
    let store = open(&machine.disk(0));
    put(&store, 5);
    let header = store.stat(key(5)).unwrap().header;
    let cells = |count: usize| vec![Bytes::from(vec![7; CELL as usize]); count];
    let end = 2 * u64::from(CELL);
    let refused = |at| store.append_at(key(5), at, &cells(1)).unwrap_err().kind();
    assert_eq!(refused(0), ErrorKind::Internal, "it is sealed");
    store.begin(header).unwrap();
    store.append_at(key(5), 0, &cells(2)).unwrap();
    assert_eq!([refused(0), refused(end + 1)], [ErrorKind::Internal; 2]);
    store.append_at(key(5), end, &cells(1)).unwrap();
    // Begun anew meanwhile.
    store.begin(header).unwrap();
    assert_eq!(refused(end), ErrorKind::Internal);
}

#[test]
fn every_damaged_byte_is_seen() {
    let machine = SimMachine::new(2, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    let cells = put(&store, 5);
    let name = file_name(key(5));
    let length = machine.contents(0, &name).unwrap().len() as u64;
    // Header zeros behind its fields are the only bytes that nothing depends on.
    for at in (0..50).chain((8192..length).step_by(977)).chain(length - 40..length) {
        machine.flip(0, &name, at);
        let store = open(&disk);
        let whole = [0..cells.len() as u64];
        let error = store.fetch(key(5), &whole).map(|_read| at).expect_err("damage is seen");
        assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Posix(_) | ErrorKind::Refused),
            "{error}"
        );
        drop(store);
        // The rebuild of the index takes a file whose trailer fails for a leftover.
        if machine.contents(0, &name).is_none() {
            put(&open(&disk), 5);
        } else {
            machine.flip(0, &name, at);
        }
        assert!(open(&disk).fetch(key(5), &whole).is_ok(), "byte {at} mended");
    }
}

#[test]
fn a_file_of_another_shard_is_not_believed() {
    let machine = SimMachine::new(3, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    put(&store, 5);
    put(&store, 6);
    let other = machine.contents(0, &file_name(key(6))).unwrap();
    machine.damage(0, &file_name(key(5)), |bytes| *bytes = other.to_vec());
    let error = store.stat(key(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn the_index_is_rebuilt_and_leftovers_go() {
    let machine = SimMachine::new(4, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    for stripe in [3, 1, 2] {
        put(&store, stripe);
    }
    store
        .begin(ShardHeader {
            key: key(9),
            class: ClassId(1),
            data_shards: 4,
            parity_shards: 2,
            cell_bytes: CELL,
            epoch: Epoch(3),
        })
        .unwrap();
    store.append(key(9), &[bytes(9, CELL as usize).into()]).unwrap();
    assert_eq!(store.list(None, 10).unwrap(), [key(1), key(2), key(3)]);
    assert_eq!(store.list(Some(key(1)), 1).unwrap(), [key(2)]);
    drop(store);
    let store = open(&disk);
    assert_eq!(store.list(None, 10).unwrap(), [key(1), key(2), key(3)]);
    assert!(machine.contents(0, &file_name(key(9))).is_none());
    store.delete_many(&[key(2), key(7)]).unwrap();
    store.close();
    drop(store);
    let store = open(&disk);
    assert_eq!(store.list(None, 10).unwrap(), [key(1), key(3)]);
    put(&store, 3);
    store.verify(key(3)).unwrap();
}

#[test]
fn a_sealed_shard_survives_every_power_cut_behind_its_seal() {
    let machine = SimMachine::new(5, 1);
    let store = open(&machine.disk(0));
    let cells = put(&store, 5);
    let sealed = machine.journal_len();
    put(&store, 6);
    let end = machine.journal_len();
    for at in (sealed..=end).step_by(3) {
        for state in machine.crash_states(at, 8, 11) {
            let after = SimMachine::from_image(state.image);
            let store = open(&after.disk(0));
            let read = store.fetch(key(5), &[0..cells.len() as u64]).unwrap();
            assert!(read[0] == cells, "cut at {at}");
            store.verify(key(5)).unwrap();
            // The other was not acknowledged: it is whole, or its checks say that it is not.
            if let Err(error) = store.verify(key(6)) {
                assert!(error.kind() == ErrorKind::Corrupt || error.is(Posix::NotFound), "{error}");
            }
        }
    }
}

#[test]
fn an_index_that_is_wrong_is_put_right() {
    let machine = SimMachine::new(4, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    // Of several directories, some of which lose all they have.
    let keys: Vec<ShardKey> = [1, 2, 3, 500, 501, 9000, 70_000].map(key).to_vec();
    keys.iter().for_each(|key| drop(put(&store, key.stripe.get())));
    assert_eq!(store.list_seen(None, 99).unwrap(), keys);
    let moved = machine.contents(0, &file_name(key(501))).unwrap();
    for stripe in [2, 500, 501, 70_000] {
        disk.remove(&file_name(key(stripe))).unwrap();
    }
    assert_eq!(store.list(None, 99).unwrap(), keys, "the index does not know");
    let left = [1, 3, 9000].map(key);
    assert_eq!(store.list_seen(Some(key(3)), 2).unwrap(), [key(9000)], "a page of none is passed");
    assert_eq!(store.list_seen(None, 99).unwrap(), left);
    assert_eq!(store.list(None, 99).unwrap(), left, "now it knows");
    assert_eq!(store.stat(key(2)).unwrap_err().kind(), ErrorKind::Posix(Posix::NotFound));
    // One comes back, and a file that is no shard lies beside it.
    let write = |name: &str, bytes: &[u8]| {
        disk.open(name, OpenMode::CreateNew).unwrap().write(0, bytes).unwrap();
    };
    write(&file_name(key(501)), &moved);
    write(&format!("{}/notes.txt", directories(key(501)).1), b"not ours");
    for part in 0..ADOPT_PARTS {
        store.adopt(part).unwrap();
    }
    assert_eq!(store.list(None, 99).unwrap(), [1, 3, 501, 9000].map(key));
    store.verify(key(501)).unwrap();
    store.close();
    drop(store);
    assert_eq!(open(&disk).list(None, 99).unwrap(), [1, 3, 501, 9000].map(key));
}

#[test]
fn an_index_that_has_changed_since_it_was_closed_is_not_believed() {
    let machine = SimMachine::new(4, 1);
    let disk = machine.disk(0);
    let keys = [5, 6, 7, 8, 9].map(key);
    let store = open(&disk);
    keys.iter().for_each(|key| drop(put(&store, key.stripe.get())));
    store.close();
    drop(store);
    let length = machine.contents(0, "index.redb").unwrap().len() as u64;
    assert_eq!(machine.contents(0, "index.clean").unwrap().len(), 24);
    // Every page, in several places of it; what redb makes of them is its own affair.
    for at in (0..length).step_by(1021).chain(0..64) {
        machine.flip(0, "index.redb", at);
        let store = open(&disk);
        assert_eq!(machine.contents(0, "index.clean"), None, "it counts once");
        assert_eq!(store.list(None, 99).unwrap(), keys, "byte {at} of {length}");
        store.close();
    }
    for at in 0..24 {
        machine.flip(0, "index.clean", at);
        let store = open(&disk);
        assert_eq!(store.list(None, 99).unwrap(), keys, "byte {at} of the note");
        store.close();
    }
}

#[test]
fn whatever_a_power_cut_leaves_of_the_index_it_is_made_anew() {
    let machine = SimMachine::new(5, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    put(&store, 5);
    store.close();
    drop(store);
    machine.settle();
    let store = open(&disk);
    (6..40).for_each(|stripe| drop(put(&store, stripe)));
    store.close();
    drop(store);
    for at in (0..=machine.journal_len()).step_by(7).chain([machine.journal_len()]) {
        for state in machine.crash_states(at, 6, 1) {
            let left = SimMachine::from_image(state.image);
            let store = open(&left.disk(0));
            let listed = store.list(None, 99).unwrap();
            assert!(listed.contains(&key(5)), "cut at {at}: {listed:?}");
            store.verify(key(5)).unwrap();
        }
    }
}

/// The log and the metadata have to go on growing, be the shards those of users, of repair or of moves.
#[test]
fn shards_leave_a_part_of_the_disk_free() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let store = open(&disk);
    let before = machine.used_bytes(0);
    put(&store, 1);
    let shard = machine.used_bytes(0) - before;
    // The floor is a part of what the disk then has.
    let room_for = |bytes: u64| (machine.used_bytes(0) + bytes) * 128 / 127 + 128;
    machine.full(0, room_for(shard / 2));
    let header = ShardHeader {
        key: key(2),
        class: ClassId(1),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: CELL,
        epoch: Epoch(3),
    };
    store.begin(header).unwrap();
    let cell = Bytes::from(bytes(2, CELL as usize));
    let appended = (0..3).map(|_row| store.append(key(2), std::slice::from_ref(&cell)));
    let error = appended.collect::<Result<Vec<_>, _>>().unwrap_err();
    assert!(error.is(Posix::NoSpace) && error.to_string().contains("metadata"), "{error}");
    let space = disk.space().unwrap();
    // Files take whole blocks.
    assert!(
        space.free_bytes + 4096 > space.floor_bytes() && space.floor_bytes() > 4096,
        "{space:?}"
    );
    store.abort(key(2)).unwrap();
    machine.full(0, machine.used_bytes(0) + 1000);
    assert!(store.begin(header).unwrap_err().is(Posix::NoSpace));
    machine.full(0, room_for(2 * shard));
    put(&store, 2);
}
