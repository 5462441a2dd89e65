//! Mount options as mount(8) and fstab give them: words to flags of mount(2) and settings of the server.

use crate::error::{Error, Result};
use crate::fs::AtimeMode;
use rustix::mount::MountFlags;

/// Options of one mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// When access times are updated; the server has to act on it, FUSE does not.
    pub atime: AtimeMode,
    /// Whether directories keep their access time (`nodiratime`).
    pub nodiratime: bool,
    /// Whether other users may enter; only without root is there a choice.
    pub allow_other: bool,
    /// `remount`: change a mount that is there.
    pub remount: bool,
}

impl Default for MountOptions {
    /// What `defaults` means: rw, suid, dev, exec, relatime, open to all users.
    fn default() -> Self {
        Self {
            flags: MountFlags::empty(),
            atime: AtimeMode::Relative,
            nodiratime: false,
            allow_other: true,
            remount: false,
        }
    }
}

/// Words that concern mount(8), fstab or systemd and not us.
const IGNORED: [&str; 12] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "async",
    "nostrictatime",
];

/// What the kernel shows of any FUSE mount: mount(8) hands it back at a remount, where it cannot change.
const OF_THE_KERNEL: [&str; 8] = [
    "user_id=",
    "group_id=",
    "rootmode=",
    "fd=",
    "max_read=",
    "blksize=",
    "default_permissions",
    "seclabel",
];

impl MountOptions {
    /// Reads `a,b,c`. With `sloppy` (mount -s) unknown options are passed over.
    ///
    /// Errors: `Refused`, naming the option.
    pub fn parse(text: &str, sloppy: bool) -> Result<Self> {
        let mut options = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            if !options.apply(word) && !sloppy {
                return Err(Error::refused(format!(
                    "mount option \"{word}\" is unknown: see `ironfs mount --help`"
                )));
            }
        }
        Ok(options)
    }

    /// Whether the mount is read-only.
    pub fn read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    fn apply(&mut self, word: &str) -> bool {
        if let Some((flag, on)) = flag_of(word) {
            self.flags.set(flag, on);
            return true;
        }
        match word {
            "noatime" => self.atime = AtimeMode::Never,
            "relatime" | "atime" | "norelatime" => self.atime = AtimeMode::Relative,
            "strictatime" => self.atime = AtimeMode::Strict,
            "nodiratime" => self.nodiratime = true,
            "diratime" => self.nodiratime = false,
            "allow_other" => self.allow_other = true,
            "noallow_other" => self.allow_other = false,
            "remount" => self.remount = true,
            _ => {
                return IGNORED.contains(&word)
                    || OF_THE_KERNEL.iter().any(|shown| word.starts_with(shown))
                    || word.starts_with("x-")
                    || word.starts_with("X-")
                    || word.starts_with("comment=");
            }
        }
        self.flags.set(MountFlags::NOATIME, self.atime == AtimeMode::Never);
        self.flags.set(MountFlags::NODIRATIME, self.nodiratime);
        true
    }
}

fn flag_of(word: &str) -> Option<(MountFlags, bool)> {
    let (name, on) = match word {
        "ro" => return Some((MountFlags::RDONLY, true)),
        "rw" => return Some((MountFlags::RDONLY, false)),
        "sync" => return Some((MountFlags::SYNCHRONOUS, true)),
        "dirsync" => return Some((MountFlags::DIRSYNC, true)),
        _ => word.strip_prefix("no").map_or((word, false), |name| (name, true)),
    };
    match name {
        "dev" => Some((MountFlags::NODEV, on)),
        "suid" => Some((MountFlags::NOSUID, on)),
        "exec" => Some((MountFlags::NOEXEC, on)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::MountOptions;
    use crate::fs::AtimeMode;
    use rustix::mount::MountFlags;

    fn check(text: &str, flags: MountFlags, atime: AtimeMode) {
        let options = MountOptions::parse(text, false).unwrap();
        assert_eq!((options.flags, options.atime), (flags, atime), "{text}");
    }

    #[test]
    fn words_become_flags() {
        check("", MountFlags::empty(), AtimeMode::Relative);
        check(
            "defaults,_netdev,nofail,x-systemd.automount,user_id=0,group_id=0,default_permissions",
            MountFlags::empty(),
            AtimeMode::Relative,
        );
        check("ro,noatime", MountFlags::RDONLY | MountFlags::NOATIME, AtimeMode::Never);
        check("ro,rw", MountFlags::empty(), AtimeMode::Relative);
        check(
            "nosuid,nodev,noexec",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            AtimeMode::Relative,
        );
        check("nosuid,suid", MountFlags::empty(), AtimeMode::Relative);
        check("strictatime,nodiratime", MountFlags::NODIRATIME, AtimeMode::Strict);
    }

    #[test]
    fn unknown_words_are_refused_unless_sloppy() {
        let error = MountOptions::parse("ro,compress", false).unwrap_err().to_string();
        assert!(error.contains("\"compress\""), "{error}");
        assert!(MountOptions::parse("ro,compress", true).unwrap().read_only());
        assert!(MountOptions::parse("remount,ro", false).unwrap().remount);
    }
}
