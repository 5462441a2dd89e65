//! `sync`: makes everything of a mount durable.

use super::paths;
use crate::admin::{Done, client};
use crate::error::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// Make everything written to a mount durable (sync(2) does not reach FUSE servers)
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ironfs sync /mnt/media")]
pub(super) struct Sync {
    /// A path inside the mount
    directory: PathBuf,
}

impl Sync {
    pub(super) fn run(self) -> Result<()> {
        let directory = self.directory.display();
        let mount = paths::mount_of(&self.directory)?
            .ok_or_else(|| Error::refused(format!("{directory} is not inside an ironfs mount")))?;
        push_kernel_pages(&self.directory)?;
        let socket = paths::socket(&mount.source);
        paths::block_on(client::post::<Done>(&socket, "/sync", &())).map(drop)
    }
}

/// What the kernel still holds has to reach the server first.
fn push_kernel_pages(directory: &std::path::Path) -> Result<()> {
    let context = || format!("sync {}", directory.display());
    let file = std::fs::File::open(directory).map_err(|e| Error::from_io(context(), e))?;
    rustix::fs::syncfs(&file).map_err(|error| Error::from_io(context(), error.into()))
}
