use super::{Footer, FooterBuilder, cell_lengths, decode_header, decode_trailer, encode_header};
use crate::net::{ShardHeader, ShardKey};
use crate::sum::blake3;
use crate::types::{ClassId, Epoch, ShardIndex, StripeId, VolumeId};
use bytes::Bytes;
use proptest::prelude::*;

fn header() -> ShardHeader {
    ShardHeader {
        key: ShardKey { stripe: StripeId(0x1234_5678_9abc), index: ShardIndex(5) },
        class: ClassId(2),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: 65600,
        epoch: Epoch(9),
    }
}

fn footer() -> Footer {
    let mut builder = FooterBuilder::new(VolumeId([3; 16]), header());
    builder.append(&[1; 65600]);
    builder.append(&[2; 128]);
    builder.finish(4 * 65600 + 4 * 100, Bytes::from_static(b"slots")).unwrap()
}

#[test]
fn golden_vectors() {
    let hex = |bytes: &[u8]| bytes.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
    let head = encode_header(VolumeId([3; 16]), &header());
    let tail = footer().encode();
    assert_eq!((head.len(), tail.len()), (8192, 64 + 8 + 8 + 32 + 9 + 4 + 4 * 11 + 4 + 64 + 32));
    assert_eq!((hex(&blake3(&head)), hex(&blake3(&tail))), GOLDEN.map(str::to_owned).into());
}

/// First bytes of the BLAKE3 of header and footer, version 1.
const GOLDEN: [&str; 2] = ["101bd747938e262c", "f8e5020d4de9cdaf"];

#[test]
fn headers_and_footers_round_trip() {
    let head = encode_header(VolumeId([3; 16]), &header());
    assert_eq!(decode_header(&head).unwrap(), (VolumeId([3; 16]), header()));
    let bytes = footer().encode();
    let (body, trailer) = bytes.split_at(bytes.len() - 32);
    assert_eq!(decode_trailer(trailer).unwrap().0, body.len() as u64);
    assert_eq!(Footer::decode(body).unwrap().1, footer());
    for at in 0..body.len() {
        let mut bad = body.to_vec();
        bad[at] ^= 1;
        // The trailer's checksum covers the footer; decoding alone must merely not panic.
        drop(Footer::decode(&bad));
    }
}

#[test]
fn cells_of_payloads() {
    for (payload, expected) in [
        (1, (0, 64)),
        (256, (0, 64)),
        (257, (0, 128)),
        (4 * 65600, (1, 0)),
        (4 * 65600 + 1, (1, 64)),
        (8 * 65600 - 1, (1, 65600)),
    ] {
        assert_eq!(cell_lengths(payload, 4, 65600), expected, "{payload}");
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ignored = decode_header(&bytes).is_ok();
        let _ignored = decode_trailer(&bytes).is_ok();
        let _ignored = Footer::decode(&bytes).is_ok();
    }
}
