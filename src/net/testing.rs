//! Certificates for the tests of this module.

use super::authority::{self, Issued, Role, SERIAL_BYTES, Wanted};
use super::tls::{Identity, IdentityFiles};
use crate::error::Result;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Certificates are compared with the clock of the machine.
#[expect(clippy::disallowed_methods, reason = "the TLS library reads it too")]
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

pub(super) const YEAR: i64 = 365 * 86_400;

/// An authority and the holders of its certificates.
pub(super) struct Authority {
    pub(super) issued: Issued,
    next: AtomicU64,
}

impl Authority {
    pub(super) fn new() -> Self {
        let issued = authority::create("test", [9; SERIAL_BYTES], now() - YEAR).unwrap();
        Self { issued, next: AtomicU64::new(1) }
    }

    /// The holder's certificate, valid from and to so many seconds from now.
    pub(super) fn issue(
        &self,
        holder: &str,
        role: Role,
        valid: std::ops::Range<i64>,
    ) -> (Issued, [u8; 16]) {
        let mut serial = [0; SERIAL_BYTES];
        serial[8..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let valid = now() + valid.start..now() + valid.end;
        let wanted = Wanted { holder: holder.to_owned(), role, serial, valid };
        (authority::issue(&self.issued, &wanted).unwrap(), serial)
    }

    /// What a holder has in its files.
    pub(super) fn identity(&self, issued: &Issued, revoked: Option<&str>) -> Result<Identity> {
        Identity::read(IdentityFiles {
            certificate: issued.certificate.as_bytes(),
            key: issued.key.as_bytes(),
            authority: self.issued.certificate.as_bytes(),
            revoked: revoked.map(str::as_bytes),
        })
    }

    /// A valid holder.
    pub(super) fn holder(&self, holder: &str, role: Role) -> Identity {
        self.identity(&self.issue(holder, role, -60..YEAR).0, None).unwrap()
    }
}
