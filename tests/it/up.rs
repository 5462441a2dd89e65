//! `ironfs up`: a volume of six directories in one store, with and without nodes that serve them.

use crate::real::{ironfs, pattern, succeed};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

/// A volume that `up` serves.
struct Up {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    mnt: PathBuf,
    /// What it said when it was ready.
    said: String,
}

impl Up {
    fn start(root: &Path, words: &[&str]) -> Self {
        let mnt = root.join("mnt");
        let mut command = ironfs();
        command.arg("up").arg(&mnt).arg("--store").arg(root.join("store")).args(words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut up = Self { child, lines, mnt, said: String::new() };
        while !up.said.contains("stop:") {
            let line = up.lines.next().expect("it ended before it was ready").unwrap();
            up.said += &format!("{line}\n");
        }
        up
    }

    /// What `ironfs WORD --json` says of it.
    fn ask(&self, word: &str) -> serde_json::Value {
        let output = succeed(ironfs().args([word, "--json"]).arg(&self.mnt));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn end(mut self) {
        succeed(ironfs().arg("umount").arg(&self.mnt));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After a failed assertion: the mount would keep the directory. Otherwise it has ended.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(ironfs().arg("umount").arg(&self.mnt).output());
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// However many nodes serve them, the directories are on one device.
#[test]
fn nodes_of_one_machine_share_its_device() {
    let root = tempfile::tempdir().unwrap();
    let device = rustix::fs::statvfs(root.path()).unwrap();
    let device_bytes = device.f_blocks * device.f_frsize;
    let content = pattern(3, 3_000_000);
    for (words, survives) in [
        (&[][..], "any 2 directories; not the loss of this device"),
        (&["--nodes", "6"], "any 2 directories, and any one node; not the loss of this device"),
        (&["--nodes", "2"], "any 2 directories; not the loss of this device"),
        (&[], "any 2 directories; not the loss of this device"),
    ] {
        let up = Up::start(root.path(), words);
        assert!(up.said.contains("not the loss of this device"), "{}", up.said);
        if fs::exists(up.mnt.join("f")).unwrap() {
            assert!(fs::read(up.mnt.join("f")).unwrap() == content);
        } else {
            fs::write(up.mnt.join("f"), &content).unwrap();
            succeed(ironfs().arg("sync").arg(&up.mnt));
        }
        let status = up.ask("status");
        assert_eq!(
            (&status["survives"], &status["shared_device"]),
            (&survives.into(), &true.into())
        );
        let room = &up.ask("df")[0];
        let raw = room["raw_total_bytes"].as_u64().unwrap();
        assert!(raw <= device_bytes && raw > device_bytes / 2, "{raw} of {device_bytes}");
        up.end();
    }
}
