//! Mounting: `/dev/fuse`, mount(2) or fusermount3, unmounting, and the kernel's tuning knobs. Knows nothing of what
//! is served.

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The type that `/proc/mounts` shows.
pub const FILE_SYSTEM_TYPE: &str = "fuse.ironfs";
/// Readahead of the mount in KiB: buffered sequential reads stay at 128 KiB without it.
const READ_AHEAD_KIB: u32 = 4096;
/// Share of the dirty-page limit that the mount may use, in percent. The limit must not be strict: a strict one is the mount's
/// share of what was written to all devices lately, so writers would stand still because other disks are busy.
const DIRTY_RATIO_PERCENT: u32 = 100;

/// A mount to be made.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// First column of `/proc/mounts`: the volume's name.
    pub source: String,
    /// Mount point.
    pub directory: PathBuf,
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// Whether users other than the mounting one may enter.
    pub allow_other: bool,
}

/// Mounts and answers with the connection to the kernel. As root by mount(2), else through fusermount3.
///
/// Errors: `Refused` with what to do about it.
pub fn mount(request: &MountRequest) -> Result<OwnedFd> {
    if rustix::process::geteuid().is_root() {
        mount_as_root(request)
    } else {
        mount_as_user(request)
    }
}

fn mount_as_root(request: &MountRequest) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|error| {
        let context =
            "open /dev/fuse: load the kernel module (modprobe fuse) or pass the device on";
        Error::with_source(crate::error::ErrorKind::Refused, context, error)
    })?;
    let mut options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions",
        device.as_raw_fd()
    );
    if request.allow_other {
        options.push_str(",allow_other");
    }
    let options = std::ffi::CString::new(options)
        .map_err(|error| Error::internal(format!("mount options: {error}")))?;
    rustix::mount::mount(
        request.source.as_str(),
        &request.directory,
        FILE_SYSTEM_TYPE,
        request.flags,
        Some(options.as_c_str()),
    )
    .map_err(|error| {
        let context = format!("mount {} on {}", request.source, request.directory.display());
        Error::with_source(crate::error::ErrorKind::Refused, context, error)
    })?;
    Ok(device)
}

/// fusermount3 mounts for users and hands the descriptor over the socket that `_FUSE_COMMFD` names.
fn mount_as_user(request: &MountRequest) -> Result<OwnedFd> {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::empty(),
        None,
    )
    .map_err(|error| Error::from_io("make a socket for fusermount3", error.into()))?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| Error::from_io("set up the socket for fusermount3", error.into()))?;
    let mut options = format!("subtype=ironfs,fsname={},default_permissions", request.source);
    if request.allow_other {
        options.push_str(",allow_other");
    }
    for (flag, word) in [(MountFlags::RDONLY, ",ro"), (MountFlags::NOEXEC, ",noexec")] {
        if request.flags.contains(flag) {
            options.push_str(word);
        }
    }
    let mut child = std::process::Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(&request.directory)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| {
            let context =
                "start fusermount3 (Debian package fuse3), which mounts for users other than root";
            Error::with_source(crate::error::ErrorKind::Refused, context, error)
        })?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let mut said = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        // What cannot be read is only missing from the message below.
        drop(stderr.read_to_string(&mut said));
    }
    let status = child.wait().map_err(|error| Error::from_io("wait for fusermount3", error))?;
    match received {
        Some(descriptor) if status.success() => Ok(descriptor),
        Some(_) | None => Err(Error::refused(format!(
            "mount {} through fusermount3: {}",
            request.directory.display(),
            said.trim()
        ))),
    }
}

fn receive_descriptor(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags).ok()?;
    control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Unmounts. `lazy` detaches a mount that is in use.
///
/// Errors: `Refused`; says that the mount is in use where that is the reason.
pub fn unmount(directory: &Path, lazy: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return unmount_as_user(directory, lazy);
    }
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(directory, flags | UnmountFlags::NOFOLLOW).map_err(|error| {
        let place = directory.display();
        let context = match error {
            rustix::io::Errno::BUSY => format!(
                "unmount {place}: a process still uses it (see `fuser -vm {place}`); --lazy detaches it all the same"
            ),
            rustix::io::Errno::INVAL => format!("unmount {place}: nothing is mounted there"),
            _ => format!("unmount {place}"),
        };
        Error::with_source(crate::error::ErrorKind::Refused, context, error)
    })
}

/// How long a remount waits for files that were unlinked and whose last close is still under way: the kernel calls
/// the mount busy until it has heard of it.
const REMOUNT_WAIT: Duration = Duration::from_millis(500);
/// Pause between tries.
const REMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// Changes the flags of a mount. The data string stays empty: FUSE takes no options at a remount.
///
/// Errors: `Refused`.
pub fn remount(directory: &Path, flags: MountFlags) -> Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match rustix::mount::mount_remount(directory, flags, c"") {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if waited < REMOUNT_WAIT => {
                pause(REMOUNT_PAUSE);
                waited += REMOUNT_PAUSE;
            }
            Err(error) => {
                let context = format!("remount {}", directory.display());
                return Err(Error::with_source(crate::error::ErrorKind::Refused, context, error));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a command without a runtime waits for the kernel")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

fn unmount_as_user(directory: &Path, lazy: bool) -> Result<()> {
    let mut command = std::process::Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(directory)
        .output()
        .map_err(|error| Error::from_io("start fusermount3", error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::refused(format!("unmount {}: {}", directory.display(), said.trim())))
}

/// A line of `/proc/self/mountinfo` that concerns ironfs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mounted {
    /// Device number, `major:minor`.
    pub device: String,
    /// Mount point.
    pub directory: PathBuf,
    /// Name of the volume.
    pub source: String,
}

/// All ironfs mounts that this process sees.
pub fn mounted() -> Result<Vec<Mounted>> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| Error::from_io("read /proc/self/mountinfo", error))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_mountinfo).collect())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: proc_pid_mountinfo(5).
fn parse_mountinfo(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(words.nth(2)?.to_vec()).ok()?;
    let directory = words.nth(1)?;
    let mut tail = words.skip_while(|word| *word != b"-").skip(1);
    if tail.next()? != FILE_SYSTEM_TYPE.as_bytes() {
        return None;
    }
    let source = String::from_utf8_lossy(&unescape(tail.next()?)).into_owned();
    let directory = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(directory)));
    Some(Mounted { device, directory, source })
}

/// Undoes the kernel's `\040` for blank, tab, newline and backslash.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = code
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match byte {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// Sets readahead and dirty limits of a mount. Best effort: a failure costs speed, not data, and is a warning.
pub fn tune(directory: &Path) {
    let device = mounted().ok().and_then(|mounts| {
        mounts
            .into_iter()
            .rev()
            .find(|mount| mount.directory == directory)
            .map(|mount| mount.device)
    });
    let Some(device) = device else { return };
    let settings = [
        ("read_ahead_kb", READ_AHEAD_KIB),
        ("strict_limit", 0),
        ("max_ratio", DIRTY_RATIO_PERCENT),
    ];
    for (name, value) in settings {
        let path = format!("/sys/class/bdi/{device}/{name}");
        if let Err(error) = std::fs::write(&path, value.to_string()) {
            tracing::warn!("cannot set {path} to {value} ({error}): the mount works, but slower");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mounted, parse_mountinfo};
    use std::path::PathBuf;

    #[test]
    fn lines_of_mountinfo() {
        let line =
            b"98 29 0:55 / /mnt/a\\040b rw,relatime shared:3 - fuse.ironfs media rw,user_id=0";
        let expected = Mounted {
            device: "0:55".to_owned(),
            directory: PathBuf::from("/mnt/a b"),
            source: "media".to_owned(),
        };
        assert_eq!(parse_mountinfo(line), Some(expected));
        assert_eq!(parse_mountinfo(b"98 29 0:55 / /mnt rw - ext4 /dev/vda rw"), None);
        assert_eq!(parse_mountinfo(b""), None);
        assert_eq!(parse_mountinfo(b"1 2 3:4 / /x rw - fuse.ironfs"), None);
    }
}
