//! Identities as files: a directory for each holder, and that of the authority. Knows no connection.
//!
//! A holder's directory has `cert.pem`, `key.pem` (mode 0600), `ca.pem` and, if certificates were taken back, `revoked.pem`.

use crate::error::{Error, Result};
use crate::net::tls::{Identity, IdentityFiles};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The holder's certificate.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// Its key.
pub const KEY_FILE: &str = "key.pem";
/// The authority's certificate.
pub const AUTHORITY_FILE: &str = "ca.pem";
/// The authority's list of certificates that were taken back.
pub const REVOKED_FILE: &str = "revoked.pem";

/// Reads the identity in `directory`.
///
/// Errors: `Refused` with what to do: a file is missing or wrong, or others may read the key.
pub fn load(directory: &Path) -> Result<Identity> {
    let shown = directory.display();
    let read = |name: &str| {
        fs::read(directory.join(name)).map_err(|error| {
            Error::refused(format!(
                "read {name} of identity {shown}: {error}; `ironfs ca issue` makes an identity"
            ))
        })
    };
    let key_file = directory.join(KEY_FILE);
    let open_to_others = |mode: u32| mode & 0o077 != 0;
    if fs::metadata(&key_file).is_ok_and(|found| open_to_others(found.permissions().mode())) {
        let key_file = key_file.display();
        return Err(Error::refused(format!(
            "{key_file} can be read by others, so it is worth nothing: chmod 600 {key_file}, and better issue a new one"
        )));
    }
    let (certificate, key) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
    let authority = read(AUTHORITY_FILE)?;
    let has_list = directory.join(REVOKED_FILE).exists();
    let revoked = if has_list { Some(read(REVOKED_FILE)?) } else { None };
    Identity::read(IdentityFiles {
        certificate: &certificate,
        key: &key,
        authority: &authority,
        revoked: revoked.as_deref(),
    })
    .map_err(|error| error.while_doing(format!("identity {shown}")))
}

/// Writes a file that only its owner may read, durably and whole or not at all.
pub fn write_secret(path: &Path, content: &str) -> Result<()> {
    let wrong = |error| Error::from_io(format!("write {}", path.display()), error);
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(wrong)?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    fs::rename(&beside, path).map_err(wrong)?;
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(wrong)
}
