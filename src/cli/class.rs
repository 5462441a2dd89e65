//! `class get|set`: the redundancy class of a directory, through its xattr.

use super::{out, paths};
use crate::class::Class;
use crate::error::{Error, Result};
use clap::Subcommand;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The xattr that names the class.
const CLASS_XATTR: &str = "user.ironfs.class";
/// Longest text of a class.
const CLASS_BYTES_MAX: usize = 128;

/// Show or set the redundancy class of a directory
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs class get /mnt/media/films\n  ironfs class set /mnt/media/photos replica:3\n  ironfs class set /mnt/media/logs 4+2,zstd"
)]
pub(super) enum ClassCommand {
    /// Show the class of a file or directory
    #[command(after_help = "Example:\n  ironfs class get /mnt/media/films")]
    Get {
        /// File or directory inside a mount
        path: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set the class for what is written from now on; new children inherit it
    #[command(
        after_help = "Examples:\n  ironfs class set /mnt/media/photos replica:3\n  ironfs class set /mnt/media/logs 4+2,zstd\n\nIt prints nothing but errors, unless --json has it show the class that is set."
    )]
    Set {
        /// Directory (or file) inside a mount
        path: PathBuf,
        /// `4+2`, `6+3`, `replica:3`, with `,zstd` for compression
        class: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    path: String,
    class: String,
}

impl ClassCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Get { path, json } => {
                let class = get(&path)?;
                if json { show(&path, class) } else { out::print(&format!("{class}\n")) }
            }
            Self::Set { path, class, json } => {
                let class = set(&path, &class)?;
                if json { show(&path, class) } else { Ok(()) }
            }
        }
    }
}

fn show(path: &Path, class: String) -> Result<()> {
    out::print_json(&Shown { path: path.display().to_string(), class })
}

fn inside_mount(path: &Path) -> Result<()> {
    match paths::mount_of(path)? {
        Some(_) => Ok(()),
        None => Err(Error::refused(format!("{} is not inside an ironfs mount", path.display()))),
    }
}

fn get(path: &Path) -> Result<String> {
    inside_mount(path)?;
    let mut value = [0u8; CLASS_BYTES_MAX];
    let length = rustix::fs::getxattr(path, CLASS_XATTR, &mut value)
        .map_err(|error| Error::refused(format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(value.get(..length).unwrap_or_default()).into_owned())
}

/// Answers the class as it is written.
fn set(path: &Path, class: &str) -> Result<String> {
    inside_mount(path)?;
    let parsed: Class = class.parse()?;
    let value = parsed.to_string();
    let flags = rustix::fs::XattrFlags::empty();
    let set = rustix::fs::setxattr(path, CLASS_XATTR, value.as_bytes(), flags);
    let path = path.display();
    match set {
        Ok(()) => Ok(value),
        Err(rustix::io::Errno::NOSPC) => {
            Err(Error::refused(format!("{path}: the volume has too few disks for class {value}")))
        }
        Err(error) => Err(Error::refused(format!("{path}: set class {value}: {error}"))),
    }
}
