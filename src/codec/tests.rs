use super::{compress, decompress};
use crate::class::Compression;

/// Bytes that do not compress (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_byte| next()).collect()
}

/// `noise` bytes that do not compress, then zeros, 64 KiB in all.
fn segment(noise_bytes: usize) -> Vec<u8> {
    let mut segment = noise(noise_bytes);
    segment.resize(65536, 0);
    segment
}

#[test]
fn segments_round_trip_at_all_levels() {
    for level in 1..=19 {
        let segment = segment(1000);
        let body = compress(Compression::Zstd(level), &segment).unwrap();
        assert!(body.len() < 1200);
        assert_eq!(decompress(&body, 65536), Some(segment));
    }
    let body = compress(Compression::Zstd(3), &[7; 300]).unwrap();
    assert_eq!(decompress(&body, 300), Some(vec![7; 300]));
}

#[test]
fn what_saves_less_than_an_eighth_stays_raw() {
    let zstd = Compression::Zstd(3);
    assert!(compress(zstd, &segment(50_000)).is_some());
    assert_eq!(compress(zstd, &segment(57_400)), None);
    assert_eq!(compress(zstd, &noise(65536)), None);
    assert_eq!(compress(zstd, b"x"), None);
    assert_eq!(compress(zstd, b""), None);
    assert_eq!(compress(Compression::None, &segment(0)), None);
}

#[test]
fn decompression_checks_the_length() {
    let body = compress(Compression::Zstd(3), &segment(10)).unwrap();
    assert_eq!(decompress(&body, 12), Some(segment(10)[..12].to_vec())); // cut by a truncate
    assert_eq!(decompress(&body, 65537), None);
    let short = compress(Compression::Zstd(3), &[7; 300]).unwrap();
    assert_eq!(decompress(&short, 301), None);
    let bomb = compress(Compression::Zstd(3), &vec![0; 1 << 20]).unwrap();
    assert_eq!(decompress(&bomb, 65536), None);
}

#[test]
fn bad_bodies_never_panic() {
    let body = compress(Compression::Zstd(3), &segment(500)).unwrap();
    assert_eq!(decompress(b"", 1), None);
    assert_eq!(decompress(b"no frame at all", 1), None);
    for at in 0..body.len() {
        assert_eq!(decompress(&body[..at], 65536), None, "cut at {at}");
        let mut flipped = body.clone();
        flipped[at] ^= 1 << (at % 8);
        // The body's sum is checked elsewhere: here only the length is.
        assert!(decompress(&flipped, 65536).is_none_or(|segment| segment.len() == 65536));
    }
}

/// Encoders change between versions of zstd; what was stored once must decode for ever.
#[test]
fn stored_bodies_decode() {
    let check = |hex: &str, expected: &[u8]| {
        let body: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        assert_eq!(decompress(&body, expected.len()).as_deref(), Some(expected));
    };
    // By hand after RFC 8878: single segment of 300 bytes, one last block, run length encoded.
    check("28b52ffd602c0063090061", &[b'a'; 300]);
    // Written by zstd 1.5.7 at level 3: literals with a Huffman table, and sequences.
    let text: String = (0..120).map(|i| format!("line {} of {}; ", i * i, i % 7)).collect();
    check(
        concat!(
            "28b52ffd606606850d0046983011b057727d0431895ab197c88a082c0ed9052f0028002b00220967",
            "8870bf0fc161cc22fb9263afcd7684c1f1b37ff6c66a9cccd7f86f04fd75e80d2040000307000210",
            "30202808dec8faf4960643ddba6fd9ae1d0a15a833389956298e55679329fc8b47bd77e3b4d842d3",
            "fae1cc01f24970821d421f81d3b0a050b8c883e17ebc3ecd4f7471e221443c1c1c6583b298151aff",
            "c1c1db62376a329fc7e9bb70c76eb8073ab897a3c8f66f5e396da25dd6444dda24237d2e4f8c634d",
            "2b425f768b840180cba820e0b57d0360a3a46d031020879ca2b60177e46b4736abcad4742439478a",
            "d2bd46a6de70e0fe3733bb21c9da10918cb7b57e590dd9a42109d1107178f7354352965a720cb827",
            "76b1e33aee8e60e71338b1039dd24a74e74665d41dc1ce277062073aace3ee08763e81133bd08143",
            "0bdd48db5e8918a320a9d9dbe811ff0c0cebcf18c6f8a94689e56764582bdd34c6f6a02ef6984d0b",
            "f5a4f0c08206ffda1b10a78dd749bc906d6edd4c4af499864f17953ada569a66593386342c2e4318",
            "c855ae3b728a3340973b83992bd84daafb165568b43adb751b275c3241f054086b8a09a6322f0ca8",
            "9102",
        ),
        text.as_bytes(),
    );
}
