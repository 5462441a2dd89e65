//! Programs that people use, on a mount.

use super::mounted;
use crate::real::succeed;
use std::path::Path;
use std::process::Command;

fn sh(script: &str, place: &Path) -> String {
    let output = succeed(Command::new("sh").args(["-ec", script]).current_dir(place));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn git_clones_and_checks() {
    let volume = mounted();
    let script = format!(
        "git init -q origin && cp -r '{0}/src' '{0}/tests' origin/ && cd origin && git add -A \
         && git -c user.name=t -c user.email=t@t commit -qm all && cd .. && git clone -q origin copy \
         && git -C copy fsck --strict && git -C copy gc -q && git -C copy status --porcelain",
        env!("CARGO_MANIFEST_DIR")
    );
    assert_eq!(sh(&script, &volume.mnt()).trim(), "");
    volume.remount();
    sh("git -C copy fsck --strict && git -C copy status --porcelain", &volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn sqlite_in_both_journal_modes() {
    let volume = mounted();
    for mode in ["wal", "delete"] {
        let script = format!(
            "sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t(a integer primary key, b text);' >/dev/null
             for i in 1 2 3 4 5 6 7 8 9 10; do sqlite3 {mode}.db \"insert into t(b) values('row '||$i)\"; done
             sqlite3 {mode}.db 'with recursive c(x) as (select 1 union all select x+1 from c where x<5000)
                insert into t(b) select hex(randomblob(40)) from c; delete from t where a % 3 = 0; vacuum;'
             sqlite3 {mode}.db 'pragma integrity_check; select count(*) from t;'"
        );
        assert_eq!(sh(&script, &volume.mnt()), "ok\n3340\n");
    }
    volume.remount();
    for mode in ["wal", "delete"] {
        assert_eq!(
            sh(&format!("sqlite3 {mode}.db 'pragma integrity_check'"), &volume.mnt()),
            "ok\n"
        );
    }
}

#[test]
fn rsync_and_tar_round_trips() {
    let volume = mounted();
    let source = env!("CARGO_MANIFEST_DIR");
    let script = format!(
        "mkdir tree && cp -a '{source}/src' '{source}/mountd' '{source}/tests' tree/
         ln tree/src/lib.rs tree/hard; ln -s nowhere tree/dangling; mkfifo tree/fifo
         touch -d '1969-07-20 20:17:40.5 UTC' tree/old; setfattr -n user.note -v text tree/old
         setfacl -m u:1001:rw tree/old; truncate -s 10M tree/sparse"
    );
    let local = tempfile::tempdir().unwrap();
    sh(&script, local.path());
    let (there, back) = (volume.mnt(), local.path().join("back"));
    let copy = format!(
        "rsync -aHAXS tree/ '{0}/tree/' && rsync -aHAXS '{0}/tree/' '{1}/'",
        there.display(),
        back.display()
    );
    sh(&copy, local.path());
    volume.remount();
    for (from, to) in
        [(local.path().join("tree"), there.join("tree")), (local.path().join("tree"), back)]
    {
        let compare = format!(
            "rsync -aHAXn --checksum --delete -i '{}/' '{}/'",
            from.display(),
            to.display()
        );
        assert_eq!(sh(&compare, local.path()), "", "rsync sees a difference");
    }
    let tar = format!(
        "tar cf - tree | tar xpf - -C '{0}' --transform 's/^tree/tarred/' && diff -r --no-dereference tree/src '{0}/tarred/src'",
        there.display()
    );
    sh(&tar, local.path());
}

#[test]
fn cargo_builds_inside() {
    let volume = mounted();
    let script = "cargo init -q --vcs none --name inside . && cargo build -q --offline && target/debug/inside
                  touch src/main.rs && cargo build -q --offline && target/debug/inside";
    let place = volume.mnt().join("crate");
    std::fs::create_dir(&place).unwrap();
    let output = succeed(
        Command::new("sh").args(["-ec", script]).current_dir(&place).env_remove("CARGO_TARGET_DIR"),
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\nHello, world!\n");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let volume = mounted();
    let script = "fio --name=v --filename=v --size=24m --rw=randrw --bsrange=512-128k --verify=crc32c --verify_fatal=1 \
                  --do_verify=1 --fsync=50 --fallocate=none --minimal --randseed=7 >/dev/null
                  fio --name=m --filename=m --size=8m --rw=randwrite --bs=4k --ioengine=mmap --verify=crc32c --do_verify=1 \
                  --verify_fatal=1 --fallocate=none --minimal >/dev/null";
    sh(script, &volume.mnt());
    volume.umount();
    volume.fsck();
}
