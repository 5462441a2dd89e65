//! Who may speak: an identity signed by the volume's authority, what TLS 1.3 makes of it, and what a peer's certificate says
//! of the peer. Knows no file and no socket.

use super::authority::Role;
use crate::error::{Error, Result};
use crate::sync::Arc;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{CipherSuite, SupportedCipherSuite};
use std::collections::BTreeSet;
use std::fmt;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// What both ends must speak.
const PROTOCOL: &[u8] = b"ironfs/1";

/// A holder's certificate with its key, and whom it trusts.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    authority: CertificateDer<'static>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Serial numbers in `revoked`.
    revoked_serials: BTreeSet<Vec<u8>>,
    /// What the own certificate says.
    own: PeerIdentity,
}

/// The files of an identity, as PEM.
#[derive(Clone, Copy, Debug)]
pub struct IdentityFiles<'a> {
    /// The holder's certificate.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// The authority's certificate.
    pub authority: &'a [u8],
    /// The authority's list of certificates that were taken back, if there is one.
    pub revoked: Option<&'a [u8]>,
}

/// What a certificate says of its holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// Name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Serial number of its certificate, as DER has it.
    pub serial: Vec<u8>,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Identity").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads an identity.
    ///
    /// Error: `Refused`, which says what file is wrong.
    pub fn read(files: IdentityFiles<'_>) -> Result<Self> {
        let wrong = |what: &'static str| {
            move |error| Error::refused(format!("the {what} cannot be read: {error}"))
        };
        let certificate =
            CertificateDer::from_pem_slice(files.certificate).map_err(wrong("certificate"))?;
        let authority = CertificateDer::from_pem_slice(files.authority)
            .map_err(wrong("authority's certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(files.key).map_err(wrong("key"))?;
        let revoked = files.revoked.map(CertificateRevocationListDer::from_pem_slice).transpose();
        let revoked = revoked.map_err(wrong("list of revoked certificates"))?;
        let own = PeerIdentity::of(&certificate)?;
        let revoked: Vec<_> = revoked.into_iter().collect();
        let revoked_serials = serials(&revoked)?;
        Ok(Self { certificate, key, authority, revoked, revoked_serials, own })
    }

    /// What the own certificate says.
    pub const fn own(&self) -> &PeerIdentity {
        &self.own
    }

    /// Whether the certificate of a peer was taken back.
    pub fn has_revoked(&self, peer: &PeerIdentity) -> bool {
        self.revoked_serials.contains(&peer.serial)
    }

    /// For whoever is connected to: clients must show a certificate of the same authority. Nothing is accepted before the
    /// handshake is complete.
    ///
    /// Error: `Refused` if certificate, key and authority do not fit together.
    pub fn server(&self) -> Result<QuicServerConfig> {
        let provider = provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider.clone())
            .with_crls(self.revoked.iter().cloned())
            .build()
            .map_err(unfit)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(unfit)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(unfit)
    }

    /// For whoever connects: the server must show a certificate of the same authority with the name that is wanted.
    ///
    /// Error: as `server`.
    pub fn client(&self) -> Result<QuicClientConfig> {
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider.clone())
            .with_crls(self.revoked.iter().cloned())
            .build()
            .map_err(unfit)?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(unfit)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_early_data = false;
        QuicClientConfig::try_from(config).map_err(unfit)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(unfit)?;
        Ok(Arc::new(roots))
    }
}

impl PeerIdentity {
    /// Reads what a certificate says, which TLS has verified.
    ///
    /// Error: `Refused` if it says no role.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self> {
        let no_role =
            || Error::refused("the certificate names no holder and role of an ironfs volume");
        let (_rest, parsed) = X509Certificate::from_der(certificate).map_err(|_error| no_role())?;
        let names = parsed.subject_alternative_name().map_err(|_error| no_role())?;
        let names = names.ok_or_else(no_role)?.value;
        let (mut name, mut role) = (None, None);
        for entry in &names.general_names {
            match entry {
                GeneralName::DNSName(dns) => name = Some((*dns).to_owned()),
                GeneralName::URI(uri) => {
                    role = uri.strip_prefix("ironfs:").map(str::parse::<Role>).transpose()?;
                }
                _ => {}
            }
        }
        let (name, role) = (name.ok_or_else(no_role)?, role.ok_or_else(no_role)?);
        let serial = parsed.raw_serial().to_vec();
        Ok(Self { name, role, serial })
    }
}

/// Serial numbers of lists of revoked certificates.
fn serials(lists: &[CertificateRevocationListDer<'_>]) -> Result<BTreeSet<Vec<u8>>> {
    let mut serials = BTreeSet::new();
    for list in lists {
        let (_rest, parsed) = CertificateRevocationList::from_der(list).map_err(|error| {
            Error::refused(format!("the list of revoked certificates cannot be read: {error}"))
        })?;
        serials.extend(parsed.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()));
    }
    Ok(serials)
}

/// The first suite that both ends have is taken: AES-128 is as safe as the rest of the protocol (RFC 8446, 9.1), and costs less
/// than AES-256.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let first =
        |suite: &SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| !first(suite));
    Arc::new(provider)
}

fn unfit(error: impl fmt::Display) -> Error {
    Error::refused(format!("certificate, key and authority do not fit together: {error}"))
}
