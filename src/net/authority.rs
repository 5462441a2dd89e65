//! The authority of a volume: certificates that say who somebody is and what they may do, and the list of those that were
//! taken back. Knows no file, no clock and no connection.
//!
//! A certificate (X.509 v3, RFC 5280) carries the name of its holder as DNS name, so that TLS compares it with the name that
//! a client wants to reach, and the role as URI `ironfs:ROLE`. Keys are ECDSA P-256.

use crate::config::validate_holder;
use crate::error::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use time::OffsetDateTime;

#[cfg(test)]
mod tests;

/// How long an authority lives, in seconds: 20 years.
pub const AUTHORITY_SECONDS: i64 = 20 * 365 * 86_400;
/// Random bytes of a serial number.
pub const SERIAL_BYTES: usize = 16;

/// What the holder of a certificate may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Serves disks, and asks other nodes for shards.
    Node,
    /// Mounts the volume.
    Client,
    /// Looks after the volume.
    Admin,
}

impl Role {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let roles = [Self::Node, Self::Client, Self::Admin];
        let role = roles.into_iter().find(|role| role.word() == word);
        role.ok_or_else(|| Error::refused(format!("a role is node, client or admin, not {word:?}")))
    }
}

/// A certificate and its key, as PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Who.
    pub holder: String,
    /// What they may do.
    pub role: Role,
    /// Number of the certificate, random.
    pub serial: [u8; SERIAL_BYTES],
    /// Seconds since 1970 between which it holds.
    pub valid: Range<i64>,
}

/// A certificate that was taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Its number.
    pub serial: [u8; SERIAL_BYTES],
    /// Seconds since 1970.
    pub time: i64,
}

/// Makes the authority of `volume`, valid from `now` on (seconds since 1970).
pub fn create(volume: &str, serial: [u8; SERIAL_BYTES], now: i64) -> Result<Issued> {
    let key = KeyPair::generate().map_err(cannot("make a key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("ironfs {volume}"));
    params.serial_number = Some(number(serial));
    (params.not_before, params.not_after) = (date(now)?, date(now + AUTHORITY_SECONDS)?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(cannot("sign the authority"))?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Has `authority` sign a certificate for a new key.
pub fn issue(authority: &Issued, wanted: &Wanted) -> Result<Issued> {
    validate_holder(&wanted.holder)?;
    let issuer = issuer(authority)?;
    let key = KeyPair::generate().map_err(cannot("make a key"))?;
    let dns = vec![wanted.holder.clone()];
    let mut params = CertificateParams::new(dns).map_err(cannot("name the holder"))?;
    params.distinguished_name = name(&wanted.holder);
    params.serial_number = Some(number(wanted.serial));
    (params.not_before, params.not_after) = (date(wanted.valid.start)?, date(wanted.valid.end)?);
    let role = format!("ironfs:{}", wanted.role);
    let role = role.try_into().map_err(cannot("name the role"))?;
    params.subject_alt_names.push(SanType::URI(role));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(cannot("sign a certificate"))?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The list of all that were taken back, as PEM. `number` rises from list to list; the list holds as long as the authority.
pub fn revocations(authority: &Issued, revoked: &[Revoked], list: u64, now: i64) -> Result<String> {
    let issuer = issuer(authority)?;
    let entry = |revoked: &Revoked| {
        Ok(RevokedCertParams {
            serial_number: number(revoked.serial),
            revocation_time: date(revoked.time)?,
            reason_code: None,
            invalidity_date: None,
        })
    };
    let params = CertificateRevocationListParams {
        this_update: date(now)?,
        next_update: date(now + AUTHORITY_SECONDS)?,
        crl_number: SerialNumber::from(list),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect::<Result<_>>()?,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(&issuer).map_err(cannot("sign the list"))?;
    signed.pem().map_err(cannot("write the list"))
}

fn issuer(authority: &Issued) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&authority.key).map_err(cannot("read the authority's key"))?;
    Issuer::from_ca_cert_pem(&authority.certificate, key)
        .map_err(cannot("read the authority's certificate"))
}

fn name(common: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// A serial number as RFC 5280 wants it: positive, and with no zero in front.
pub const fn positive(mut serial: [u8; SERIAL_BYTES]) -> [u8; SERIAL_BYTES] {
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn number(serial: [u8; SERIAL_BYTES]) -> SerialNumber {
    SerialNumber::from_slice(&positive(serial))
}

fn date(seconds: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|error| Error::refused(format!("{seconds} s is no date: {error}")))
}

fn cannot(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::refused(format!("cannot {what}: {error}"))
}
