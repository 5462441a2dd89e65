use super::{blake3, crc32c, xxh3};

/// Published values: xxHash sanity checks and XXH3 of nothing, RFC 3720 B.4, and the BLAKE3 test vectors.
#[test]
fn sums_are_the_published_ones() {
    assert_eq!(xxh3(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(xxh3(b"a"), 0xe6c6_32b6_1e96_4e1f);
    assert_eq!(xxh3(b"abc"), 0x78af_5f94_892f_3950);

    assert_eq!(crc32c(b""), 0);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);

    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(blake3(b"")),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
    assert_eq!(
        hex(blake3(&[0])),
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"
    );
}

/// Long inputs take other code paths than short ones.
#[test]
fn sums_of_blocks_are_pinned() {
    let block: Vec<u8> = (0..8192_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    assert_eq!(format!("{:016x}", xxh3(&block)), "40a71c16bbe37322");
    assert_eq!(format!("{:08x}", crc32c(&block)), "5372b398");
    // The 8192-byte case of the BLAKE3 test vectors.
    let expected = "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63";
    assert_eq!(
        blake3(&block).iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        expected
    );
}

#[test]
fn every_bit_counts() {
    let mut bytes = [0; 64];
    let before = (xxh3(&bytes), crc32c(&bytes), blake3(&bytes));
    for bit in 0..512 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(xxh3(&bytes), before.0);
        assert_ne!(crc32c(&bytes), before.1);
        assert_ne!(blake3(&bytes), before.2);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
