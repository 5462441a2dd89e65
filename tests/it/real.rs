//! Real mounts: a volume on directories of this machine, served by the real program through the real kernel.

use crate::device::Device;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A volume of its own, unmounted and removed at the end.
pub(crate) struct Volume {
    /// What its disks are mounted from, if they are not plain directories.
    pub(crate) devices: Vec<Device>,
    root: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) disks: Vec<PathBuf>,
}

/// Fails, never skips, where the machine lacks what real mounts need.
fn require_root_and_fuse() {
    assert!(rustix::process::geteuid().is_root(), "real mounts need root");
    assert!(Path::new("/dev/fuse").exists(), "real mounts need /dev/fuse");
}

impl Volume {
    /// A fresh volume of `count` directories.
    pub(crate) fn format(class: &str, count: usize) -> Self {
        Self::format_on(class, count, &std::env::temp_dir())
    }

    /// A fresh volume below `place`.
    pub(crate) fn format_on(class: &str, count: usize, place: &Path) -> Self {
        let volume = Self::prepare(count, place);
        volume.format_disks(class, &["--allow-same-device"]);
        volume
    }

    /// A fresh volume of one ext4 file system for each of `mib`, of so many MiB.
    pub(crate) fn format_devices(class: &str, mib: &[u64]) -> Self {
        let mut volume = Self::prepare(mib.len(), &std::env::temp_dir());
        for (disk, mib) in volume.disks.iter().zip(mib) {
            volume.devices.push(Device::ext4(&disk.with_extension("image"), *mib, disk));
        }
        volume.format_disks(class, &[]);
        volume
    }

    /// Empty directories for a volume.
    pub(crate) fn prepare(count: usize, place: &Path) -> Self {
        require_root_and_fuse();
        let root = tempfile::Builder::new().prefix("ironfs-it-").tempdir_in(place).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{number}", std::process::id());
        let disks: Vec<PathBuf> =
            (0..count).map(|index| root.path().join(format!("d{index}"))).collect();
        for disk in &disks {
            std::fs::create_dir(disk).unwrap();
        }
        std::fs::create_dir(root.path().join("mnt")).unwrap();
        Self { devices: Vec::new(), root, name, disks }
    }

    /// Makes the volume out of its prepared directories.
    pub(crate) fn format_disks(&self, class: &str, options: &[&str]) {
        let mut command = ironfs();
        command.args(["format", &self.name, "--class", class]).args(options);
        command.arg("--config").arg(self.config()).arg("--disk").args(&self.disks);
        succeed(&mut command);
        // Disks that a test has taken away do not come while it mounts.
        self.set_limit("disk_wait_s", 10, 0);
    }

    /// Changes a limit in the configuration from its default.
    pub(crate) fn set_limit(&self, name: &str, default: u32, value: u32) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let (old, new) = (format!("{name} = {default}\n"), format!("{name} = {value}\n"));
        assert!(text.contains(&old), "no {old} in {text}");
        std::fs::write(self.config(), text.replace(&old, &new)).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.path().join("volume.toml")
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The mount point.
    pub(crate) fn mnt(&self) -> PathBuf {
        self.root.path().join("mnt")
    }

    pub(crate) fn mount(&self) {
        self.mount_with("");
    }

    pub(crate) fn mount_with(&self, options: &str) {
        succeed(&mut self.mount_command(options));
    }

    pub(crate) fn mount_command(&self, options: &str) -> Command {
        let mut command = ironfs();
        command.arg("mount").arg(self.config()).arg(self.mnt()).args(["-o", options]);
        command
    }

    /// Unmounts. A child that another test is just starting holds this test's files open until it runs its program, so
    /// the mount may be busy for a moment.
    pub(crate) fn umount(&self) {
        let start = Instant::now();
        let mut command = ironfs();
        command.arg("umount").arg(self.mnt());
        while !command.output().unwrap().status.success() {
            if start.elapsed() > Duration::from_secs(2) {
                succeed(&mut command);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn remount(&self) {
        self.umount();
        self.mount();
    }

    /// What `status --json` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = succeed(ironfs().args(["status", "--json"]).arg(self.mnt()));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What its admin socket serves as metrics.
    pub(crate) fn metrics(&self) -> String {
        let socket = UnixStream::connect(format!("/run/ironfs/{}.sock", self.name)).unwrap();
        let (code, page) = crate::metrics::get(socket, "/metrics");
        assert_eq!(code, 200, "{page}");
        page
    }

    pub(crate) fn sync(&self) {
        succeed(ironfs().arg("sync").arg(self.mnt()));
    }

    /// Waits until `status` satisfies `condition`.
    pub(crate) fn wait_status(&self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) {
        self.wait_status_for(DEADLINE, what, condition);
    }

    /// As `wait_status`, with a deadline of its own.
    pub(crate) fn wait_status_for(
        &self,
        deadline: Duration,
        what: &str,
        condition: impl Fn(&serde_json::Value) -> bool,
    ) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if condition(&status) {
                return;
            }
            assert!(start.elapsed() < deadline, "waited in vain: {what}: {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// fsck must find nothing.
    pub(crate) fn fsck(&self) {
        succeed(ironfs().args(["fsck", "--read-data"]).arg(self.config()));
    }

    /// Process that serves the mount.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.status()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Does `change` while the server stands still, so that it sees all of it at once.
    ///
    /// Nothing in it may wait for the mount, and no program may be started: both wait for the server.
    pub(crate) fn stopped(&self, change: impl FnOnce()) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let _continued = Continued(pid);
        wait("the server stands still", || {
            std::fs::read_to_string(&stat).unwrap().contains(") T ")
        });
        change();
    }

    /// kill -9 of the server; returns when it is gone.
    pub(crate) fn kill(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let gone = || {
            !Path::new(&format!("/proc/{}/exe", pid.as_raw_nonzero())).exists()
                || std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_err()
        };
        wait("the killed server is gone", gone);
    }
}

/// Lets a stopped server go on, also when the test fails.
struct Continued(rustix::process::Pid);

impl Drop for Continued {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::CONT).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Best effort: a test that failed half-way must not leave a mount behind.
        drop(ironfs().args(["umount", "--lazy"]).arg(self.mnt()).output());
        let socket = format!("/run/ironfs/{}.sock", self.name);
        let start = Instant::now();
        while Path::new(&socket).exists() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The program under test.
pub(crate) fn ironfs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ironfs"))
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command that must fail with `code`; answers what it said on stderr.
pub(crate) fn fail(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    said
}

/// Waits for a condition, with a deadline.
pub(crate) fn wait(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `length` bytes that depend on `seed` and on each position.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
