//! The real program over a medium that forgets: the kill loop, with what was not synced lost or torn each time, and disks that
//! answer EIO or are slow.

use crate::faulty::Medium;
use crate::kill::{begin, round, rounds};
use crate::loss::{check_files, drop_caches, fsynced_write, write_files};
use crate::real::{Volume, ironfs, pattern};
use crate::sim::disk::{Call, SimMachine};
use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

const DISKS: usize = 6;
/// States of a cut: the first two are "nothing" and "everything" of what was not synced, the others are drawn.
const STATES: usize = 6;

fn volume_on(machine: &SimMachine) -> (Volume, Medium) {
    let volume = Volume::prepare(DISKS, &std::env::temp_dir());
    let medium = Medium::mount(machine, &volume.disks);
    volume.format_disks("4+2", &["--allow-same-device"]);
    (volume, medium)
}

fn wait_whole(volume: &Volume) {
    volume.wait_status("the disks are in use, and all is whole", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap();
        status["state"] == "healthy" && margins.keys().all(|margin| margin == "2")
    });
}

/// Nothing may be wrong at the end.
fn end(volume: Volume, medium: Medium) {
    volume.umount();
    volume.fsck();
    drop(volume);
    medium.unmount();
}

/// The power goes: of `states` that this can leave, the last one is there afterwards.
fn cut(machine: &RefCell<SimMachine>, medium: &Medium, states: usize, seed: u64) {
    let after = {
        let machine = machine.borrow();
        let found = machine.crash_states(machine.journal_len(), states, seed);
        SimMachine::from_image(found.last().expect("there is always a state").image)
    };
    medium.replace(&after);
    machine.replace(after);
}

#[test]
fn what_was_fsynced_survives_a_power_cut_below_the_program() {
    let machine = RefCell::new(SimMachine::new(1, DISKS));
    let (volume, medium) = volume_on(&machine.borrow());
    volume.mount();
    let done = begin(&volume);
    for number in 0..rounds() {
        round(&volume, &done, number, || {
            cut(&machine, &medium, STATES, number);
        });
    }
    end(volume, medium);
}

#[test]
fn the_harness_notices_syncs_that_do_nothing() {
    let machine = RefCell::new(SimMachine::new(1, DISKS));
    let (volume, medium) = volume_on(&machine.borrow());
    volume.mount();
    let done = begin(&volume);
    (0..DISKS).for_each(|disk| machine.borrow().skip_syncs(disk, Call::SyncData, u32::MAX));
    let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        round(&volume, &done, 5, || {
            cut(&machine, &medium, 1, 1);
        });
    }));
    assert!(lost.is_err(), "nothing that was synced is there, and nobody has noticed");
    // It may not even have been mounted.
    drop(ironfs().arg("umount").arg(volume.mnt()).output().unwrap());
    drop(volume);
    medium.unmount();
}

/// The disks are full before the program knows, then the power goes, and then there is room again.
#[test]
fn disks_that_fill_up_below_the_program() {
    /// What they have room for beyond what they hold, which is less than the program has measured last.
    const ROOM: u64 = 24 << 20;
    const LARGE: u64 = 1 << 40;
    let machine = RefCell::new(SimMachine::new(1, DISKS));
    let (volume, medium) = volume_on(&machine.borrow());
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let resize = |bytes: &dyn Fn(u64) -> u64| {
        let machine = machine.borrow();
        (0..DISKS).for_each(|disk| machine.full(disk, bytes(machine.used_bytes(disk))));
    };
    resize(&|used| used + ROOM);
    let path = |number: u64| volume.mnt().join(format!("more{number}"));
    let write = |number: u64| -> std::io::Result<()> {
        let mut file = fs::File::create(path(number))?;
        file.write_all(&pattern(number, 3_000_000))?;
        file.sync_all()
    };
    let (fsynced, error) = (0..100)
        .find_map(|number| write(number).err().map(|error| (number, error)))
        .expect("they are full");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "after {fsynced} files: {error}");
    assert!(fsynced > 0, "there was room for some");
    let check = || {
        check_files(&volume.mnt());
        for number in 0..fsynced {
            assert!(fs::read(path(number)).unwrap() == pattern(number, 3_000_000), "{number}");
        }
    };
    drop_caches();
    check();
    volume.kill();
    cut(&machine, &medium, STATES, 3);
    resize(&|_used| LARGE);
    volume.mount();
    check();
    write(100).unwrap();
    wait_whole(&volume);
    end(volume, medium);
}

#[test]
fn disks_that_answer_eio_or_are_slow() {
    let machine = SimMachine::new(1, DISKS);
    let (volume, medium) = volume_on(&machine);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    // A slow disk is waited for, or passed over; nothing is wrong.
    medium.delay(4, Duration::from_millis(30));
    fsynced_write(&volume.mnt().join("slow"), &pattern(3, 2_000_000));
    drop_caches();
    check_files(&volume.mnt());
    medium.delay(4, Duration::ZERO);
    // Two disks fail syncs, writes and reads in turn: each call goes on with the others.
    for (number, call) in
        [Call::SyncData, Call::Write, Call::Read, Call::SyncDir].into_iter().enumerate()
    {
        for disk in [1, 2] {
            machine.fail_next(disk, call, 3);
        }
        let name = format!("despite{number}");
        fsynced_write(&volume.mnt().join(&name), &pattern(number as u64, 2_000_000));
        drop_caches();
        check_files(&volume.mnt());
        assert!(fs::read(volume.mnt().join(&name)).unwrap() == pattern(number as u64, 2_000_000));
        (0..DISKS).for_each(|disk| machine.heal(disk));
        wait_whole(&volume);
    }
    end(volume, medium);
}
