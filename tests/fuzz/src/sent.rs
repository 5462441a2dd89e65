//! What peers send.

use bytes::Bytes;
use ironfs::format::{Decoded, Reader};
use ironfs::net::authority::{self, Issued, Revoked, Role, SERIAL_BYTES, Wanted};
use ironfs::net::tls::{Identity, IdentityFiles, PeerIdentity};
use ironfs::net::wire::{Answer, HEADER_BYTES, Header, Order};
use ironfs::sum::xxh3;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::sync::LazyLock;

/// Bytes of the version whose layout is kept, a message in each line, orders first.
const GOLDEN: &str = include_str!("../../../src/net/wire/golden.txt");
/// Lines of orders.
const ORDERS: usize = 32;
/// A piece in the body: length and sum.
const PIECE_BYTES: usize = 12;

pub(super) fn orders() -> Vec<Vec<u8>> {
    GOLDEN.lines().take(ORDERS).map(bytes_of).collect()
}

pub(super) fn answers() -> Vec<Vec<u8>> {
    GOLDEN.lines().skip(ORDERS).map(bytes_of).collect()
}

fn bytes_of(line: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("two digits");
    (0..line.len()).step_by(2).map(digit).collect()
}

pub(super) fn order(data: &[u8]) -> bool {
    let again = |header: &Header, body: &[u8], payload| {
        let order = Order::unpack(header, body, payload)?;
        let shown = format!("{order:?}");
        Ok((shown, order.pack(header.id, header.mount).chunks().concat()))
    };
    let show = |header: &Header, body: &[u8], payload| {
        Order::unpack(header, body, payload).map(|order| format!("{order:?}"))
    };
    message(data, again, show) | message(&sealed(data), again, show)
}

pub(super) fn answer(data: &[u8]) -> bool {
    let again = |header: &Header, body: &[u8], payload| {
        let answer = Answer::unpack(header, body, payload)?;
        let shown = format!("{answer:?}");
        Ok((shown, answer.pack(header.id).chunks().concat()))
    };
    let show = |header: &Header, body: &[u8], payload| {
        Answer::unpack(header, body, payload).map(|answer| format!("{answer:?}"))
    };
    message(data, again, show) | message(&sealed(data), again, show)
}

/// Whether it is a message; what it says must say the same when it is sent on.
fn message(
    data: &[u8],
    again: impl Fn(&Header, &[u8], Bytes) -> Decoded<(String, Vec<u8>)>,
    show: impl Fn(&Header, &[u8], Bytes) -> Decoded<String>,
) -> bool {
    let Some((header, body, payload)) = parts(data) else { return false };
    let Ok((shown, sent)) = again(&header, body, payload) else { return false };
    let (header, body, payload) = parts(&sent).expect("what is packed can be received");
    assert_eq!(show(&header, body, payload).expect("and understood"), shown);
    true
}

fn parts(data: &[u8]) -> Option<(Header, &[u8], Bytes)> {
    let (head, rest) = data.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::decode(head).ok()?;
    let (body, payload) = rest.split_at_checked(header.body_bytes as usize)?;
    let fits = payload.len() as u64 == header.payload_bytes;
    fits.then(|| (header, body, Bytes::copy_from_slice(payload)))
}

/// With lengths and sums put right.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let Some((head, rest)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return bytes };
    head[..6].copy_from_slice(b"IRNW\x01\0");
    let told = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
    let (body, payload) = rest.split_at_mut(told.min(rest.len()));
    seal_pieces(body, payload);
    head[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    head[32..40].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    head[40..48].copy_from_slice(&xxh3(body).to_le_bytes());
    let sum = xxh3(&head[..56]);
    head[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Puts the sums of the pieces right, as far as their lengths fit.
fn seal_pieces(body: &mut [u8], payload: &[u8]) {
    let Ok(count) = Reader::new(body).u32() else { return };
    let (mut rest, count) = (payload, count as usize);
    let Some(table) = body.get_mut(4..).map(|table| table.chunks_exact_mut(PIECE_BYTES)) else {
        return;
    };
    for piece in table.take(count) {
        let length = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]) as usize;
        let Some((bytes, behind)) = rest.split_at_checked(length) else { return };
        piece[4..].copy_from_slice(&xxh3(bytes).to_le_bytes());
        rest = behind;
    }
}

/// Files of an identity that is right.
struct Right {
    authority: Issued,
    own: Issued,
    revoked: String,
}

static RIGHT: LazyLock<Right> = LazyLock::new(|| {
    const NUMBER: [u8; SERIAL_BYTES] = [5; SERIAL_BYTES];
    let made = authority::create("media", NUMBER, 0).and_then(|authority| {
        let (holder, role) = ("alpha".to_owned(), Role::Node);
        let wanted = Wanted { holder, role, serial: NUMBER, valid: 0..i64::from(u32::MAX) };
        let own = authority::issue(&authority, &wanted)?;
        let taken = Revoked { serial: NUMBER, time: 1 };
        let revoked = authority::revocations(&authority, &[taken], 1, 0)?;
        Ok(Right { authority, own, revoked })
    });
    made.expect("an authority")
});

/// The first byte says which: a certificate that a peer shows, or one of the three files of an identity that are not secret.
pub(super) fn identity(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else { return false };
    if kind % 4 == 0 {
        return PeerIdentity::of(&CertificateDer::from(body)).is_ok_and(|peer| {
            assert!(!peer.name.is_empty() || !peer.serial.is_empty());
            true
        });
    }
    let right = &*RIGHT;
    let mut files = IdentityFiles {
        certificate: right.own.certificate.as_bytes(),
        key: right.own.key.as_bytes(),
        authority: right.authority.certificate.as_bytes(),
        revoked: None,
    };
    match kind % 4 {
        1 => files.certificate = body,
        2 => files.authority = body,
        _ => files.revoked = Some(body),
    }
    let Ok(identity) = Identity::read(files) else { return false };
    let (_server, _client) = (identity.server().is_ok(), identity.client().is_ok());
    let _revoked = identity.has_revoked(identity.own());
    true
}

pub(super) fn identities() -> Vec<Vec<u8>> {
    let certificate = RIGHT.own.certificate.as_bytes();
    let shown = CertificateDer::from_pem_slice(certificate).expect("it was just issued");
    let files: [&[u8]; 4] =
        [&shown, certificate, RIGHT.authority.certificate.as_bytes(), RIGHT.revoked.as_bytes()];
    (0..).zip(files).map(|(kind, file): (u8, _)| [&[kind], file].concat()).collect()
}
