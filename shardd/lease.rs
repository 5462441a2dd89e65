//! Who may change a disk: the mount that holds its lease. Knows no disk and no clock.
//!
//! Each request of a mount renews its leases. One that was silent for `LEASE` keeps what it holds until another mount
//! asks for it; from then on whatever it wants is refused as `Superseded`, for good.

use crate::error::{Error, ErrorKind, Result};
use crate::types::MountId;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// How long a mount may be silent before another one gets its disk.
pub const LEASE: Duration = Duration::from_secs(10);

/// The lease of one disk.
#[derive(Debug, Default)]
pub struct Lease {
    holder: Option<Holder>,
    /// Who held it last.
    last: Option<MountId>,
}

#[derive(Debug)]
struct Holder {
    mount: MountId,
    /// For people.
    name: String,
    heard: Instant,
}

impl Lease {
    /// Gives the lease to `mount`, unless another one holds it. Answers whether it changes hands.
    ///
    /// Errors: `Refused`, naming the holder.
    pub fn take(&mut self, mount: MountId, name: &str, now: Instant) -> Result<bool> {
        if mount == MountId::default() {
            return Err(Error::refused("a mount without a number cannot hold a disk"));
        }
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.mount != mount) {
            let silent = now.saturating_duration_since(holder.heard);
            if silent < LEASE {
                let left = (LEASE - silent).as_secs_f32();
                return Err(Error::refused(format!(
                    "in use by {}; if that is gone, its lease ends in {left:.1} s",
                    holder.name
                )));
            }
        }
        let changes = self.holder.as_ref().is_none_or(|holder| holder.mount != mount);
        self.holder = Some(Holder { mount, name: name.to_owned(), heard: now });
        self.last = Some(mount);
        Ok(changes)
    }

    /// Renews the lease if it is that of `mount`.
    pub fn renew(&mut self, mount: MountId, now: Instant) {
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.mount == mount) {
            holder.heard = holder.heard.max(now);
        }
    }

    /// Whether `mount` may use the disk.
    ///
    /// Errors: `Superseded` if another mount has had it since; `Unavailable` if nobody holds it.
    pub fn check(&self, mount: MountId) -> Result<()> {
        let superseded = |context| Err(Error::new(ErrorKind::Superseded, context));
        match &self.holder {
            Some(holder) if holder.mount == mount => Ok(()),
            Some(holder) => superseded(format!("the disk has gone over to {}", holder.name)),
            None if self.last.is_some_and(|last| last != mount) => {
                superseded("another mount has had the disk since".to_owned())
            }
            None => Err(Error::unavailable("the node has begun anew: take the disk again")),
        }
    }

    /// `mount` needs the disk no more. Answers whether it held it.
    pub fn give_back(&mut self, mount: MountId) -> bool {
        let held = self.holder.as_ref().is_some_and(|holder| holder.mount == mount);
        if held {
            self.holder = None;
        }
        held
    }
}
