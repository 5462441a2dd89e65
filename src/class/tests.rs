use super::{Class, Compression};
use crate::erasure::Scheme;
use crate::error::ErrorKind;
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::CELL_BYTES;
use crate::placement::policy::{Policy, Rule, Tag};
use proptest::prelude::*;

fn class(text: &str) -> Class {
    text.parse().unwrap()
}

fn stored(class: Class) -> Vec<u8> {
    let mut writer = Writer::new();
    class.encode(&mut writer);
    writer.into_vec()
}

fn decoded(bytes: &[u8]) -> Decoded<Class> {
    let mut reader = Reader::new(bytes);
    let class = Class::decode(&mut reader)?;
    reader.finish()?;
    Ok(class)
}

#[test]
fn text_forms() {
    let rs = Scheme::ReedSolomon { k: 4, m: 2 };
    assert_eq!(class("4+2"), Class::new(rs));
    assert_eq!(class("4+2").cell_bytes, CELL_BYTES);
    assert_eq!(class("replica:3").scheme, Scheme::Replica(3));
    assert_eq!(class("4+2,zstd").compression, Compression::Zstd(3));
    assert_eq!(class("4+2,zstd:19").compression, Compression::Zstd(19));
    assert_eq!(class("4+2,none"), class("4+2"));
    assert_eq!(class("4+2,cell:16448,zstd").to_string(), "4+2,zstd,cell:16448");
    assert_eq!(class("4+2,place:ring"), class("4+2"));
    assert_eq!(class("4+2,apart:psu,avoid:smr,zstd").to_string(), "4+2,zstd,avoid:smr,apart:psu");
    assert_eq!(class("4+2,place:local-first").placement.rule, Rule::LocalFirst);
    let texts = ["4+2", "replica:3", "6+3,zstd", "4+2,zstd:9", "1+1,cell:64", "4+2,place:random"];
    for text in
        texts.into_iter().chain(["2+1,place:round-robin,avoid:psu=2,apart:sixteen-letters."])
    {
        assert_eq!(class(text).to_string(), text);
    }
}

#[test]
fn bad_text_gets_one_sentence() {
    let check = |text: &str, expected: &str| {
        let error = text.parse::<Class>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
    };
    check("", "\"\" is no redundancy scheme");
    check("4+", "is no redundancy scheme");
    check("zstd", "is no redundancy scheme");
    check("4+2,", "\"\" is no option of a class");
    check("4+2,lz4", "\"lz4\" is no option of a class");
    check("4+2,none:1", "\"none:1\" is no option of a class");
    check("4+2,cell", "\"cell\" is no option of a class");
    check("4+2,zstd:0", "zstd level 0 is not one of 1 to 19");
    check("4+2,zstd:20", "zstd level 20 is not one of 1 to 19");
    check("4+2,zstd:-1", "zstd level -1 is not");
    check("4+2,zstd:+1", "zstd level +1 is not");
    check("4+2,zstd:999", "zstd level 999 is not");
    check("4+2,zstd,zstd:3", "says zstd more than once");
    check("4+2,zstd,none", "says zstd more than once");
    check(
        "4+2,place:crush",
        "\"crush\" is no placement rule: ring, random, round-robin, local-first",
    );
    check("4+2,place", "\"place\" is no option");
    check("4+2,place:ring,place:random", "says place more than once");
    check("4+2,avoid:", "\"\" cannot be a tag");
    check("4+2,avoid:a b", "cannot be a tag");
    check("4+2,avoid:seventeen-letters", "cannot be a tag");
    check("4+2,apart:psu=2", "say the key alone");
    check("4+2,cell:0", "cell size 0 is not a multiple of 64 up to 65600");
    check("4+2,cell:100", "cell size 100 is not");
    check("4+2,cell:65664", "cell size 65664 is not");
}

#[test]
fn stored_form_is_pinned() {
    assert_eq!(stored(class("4+2")), [1, 2, 4, 2, 0, 0, 0x40, 0, 1, 0, 0, 0, 0]);
    assert_eq!(
        stored(class("replica:3,zstd:9,cell:64,place:random,apart:psu,avoid:a=b")),
        *b"\x01\x01\x01\x02\x01\x09\x40\0\0\0\x01\x03a=b\x03psu"
    );
    let longest = class("4+2,avoid:sixteen-letters.,apart:sixteen-letters.");
    assert_eq!(stored(longest).len(), Class::STORED_BYTES_MAX);
}

#[test]
fn bad_stored_forms_are_refused() {
    let check = |at: usize, value: u8, expected: FormatError| {
        let mut bytes = stored(class("4+2,zstd"));
        bytes[at] = value;
        assert_eq!(decoded(&bytes), Err(expected), "byte {at} is {value}");
    };
    check(0, 0, FormatError::Invalid("version of a class"));
    check(0, 2, FormatError::Newer { known: 1, found: 2 });
    check(1, 1, FormatError::Invalid("scheme of a class"));
    check(1, 3, FormatError::Invalid("scheme of a class"));
    check(2, 33, FormatError::Invalid("value of a class"));
    check(3, 0, FormatError::Invalid("value of a class"));
    check(4, 2, FormatError::Invalid("compression of a class"));
    check(4, 0, FormatError::Invalid("compression of a class"));
    check(5, 200, FormatError::Invalid("value of a class"));
    check(6, 1, FormatError::Invalid("value of a class"));
    check(10, 4, FormatError::Invalid("placement rule"));
    check(11, 17, FormatError::Short);
    assert_eq!(decoded(&[1, 2, 4]), Err(FormatError::Short));
    let tail = |bytes: &[u8]| decoded(&[&stored(class("4+2"))[..10], bytes].concat());
    assert_eq!(tail(b"\0\x02a b\0"), Err(FormatError::Invalid("tag of a class")));
    assert_eq!(tail(b"\0\x02a\0\0"), Err(FormatError::Invalid("tag of a class")));
    assert_eq!(tail(b"\0\x11seventeen-letters\0"), Err(FormatError::Invalid("tag of a class")));
    assert_eq!(tail(b"\0\0\x03a=b"), Err(FormatError::Invalid("key of a class")));
    assert_eq!(
        decoded(&[1, 1, 1, 255, 0, 0, 64, 0, 0, 0, 0, 0, 0]),
        Err(FormatError::Invalid("scheme of a class"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_round_trip(k in 0..34u8, m in 0..18u8, replica: bool, level in 0..20i8, cell in 1..=1025u32,
        rule in 0..4usize, avoid in "[a-z._-]{0,8}", apart in "[A-Z0-9]{0,16}") {
        let scheme = if replica { Scheme::Replica(m) } else { Scheme::ReedSolomon { k, m } };
        let compression = if level == 0 { Compression::None } else { Compression::Zstd(level) };
        let rule = [Rule::Ring, Rule::Random, Rule::RoundRobin, Rule::LocalFirst][rule];
        let placement = Policy { rule, avoid: Tag::new(&avoid).ok(), apart: Tag::new(&apart).ok() };
        if let Ok(class) = (Class { scheme, compression, cell_bytes: cell * 64, placement }).validate() {
            prop_assert_eq!(class.to_string().parse::<Class>().unwrap(), class);
            prop_assert_eq!(decoded(&stored(class)), Ok(class));
        }
    }

    #[test]
    fn foreign_bytes_never_panic(head: [u8; 10], tail in prop::collection::vec(0..128u8, 0..40), text in "[0-9+:,a-z]{0,20}") {
        let bytes = [&head[..], &tail].concat();
        if let Ok(class) = decoded(&bytes) {
            prop_assert_eq!(stored(class), bytes);
        }
        if let Ok(class) = text.parse::<Class>() {
            prop_assert!(class.validate().is_ok());
        }
    }
}
