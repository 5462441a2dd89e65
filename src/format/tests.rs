use super::{FormatError, Reader, Writer};
use crate::error::{Error, ErrorKind};
use proptest::prelude::*;

#[test]
fn values_are_little_endian_and_packed() {
    let mut writer = Writer::with_capacity(64);
    assert!(writer.is_empty());
    writer.u8(0x01);
    writer.u16(0x0203);
    writer.u32(0x0405_0607);
    writer.u64(0x0809_0a0b_0c0d_0e0f);
    writer.i64(-2);
    writer.flag(true);
    writer.bytes(b"ab");
    writer.raw(b"c");
    writer.pad_to(36);
    let expected = [
        1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8, 254, 255, 255, 255, 255, 255, 255, 255,
        1, 2, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0,
    ];
    assert_eq!((writer.as_slice(), writer.len()), (expected.as_slice(), 36));

    let mut reader = Reader::new(&expected);
    assert_eq!(reader.u8(), Ok(1));
    assert_eq!(reader.u16(), Ok(0x0203));
    assert_eq!(reader.u32(), Ok(0x0405_0607));
    assert_eq!(reader.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
    assert_eq!(reader.i64(), Ok(-2));
    assert_eq!(reader.flag("flag"), Ok(true));
    assert_eq!(reader.bytes(2, "name"), Ok(b"ab".as_slice()));
    assert_eq!(reader.array(), Ok([b'c']));
    assert_eq!(reader.remaining(), 5);
    assert_eq!(reader.clone().finish(), Err(FormatError::Trailing));
    assert_eq!(reader.take(5), Ok([0; 5].as_slice()));
    assert_eq!(reader.finish(), Ok(()));
}

#[test]
fn short_bytes_are_short() {
    assert_eq!(Reader::new(&[]).u8(), Err(FormatError::Short));
    assert_eq!(Reader::new(&[0; 1]).u16(), Err(FormatError::Short));
    assert_eq!(Reader::new(&[0; 3]).u32(), Err(FormatError::Short));
    assert_eq!(Reader::new(&[0; 7]).u64(), Err(FormatError::Short));
    assert_eq!(Reader::new(&[0; 7]).i64(), Err(FormatError::Short));
    assert_eq!(Reader::new(&[0; 7]).take(8), Err(FormatError::Short));
    assert_eq!(Reader::new(&[5, 0, 0, 0, 1]).bytes(9, "name"), Err(FormatError::Short));
}

#[test]
fn lengths_are_checked_before_allocation() {
    let huge = [0xff; 8];
    assert_eq!(Reader::new(&huge).bytes(100, "name"), Err(FormatError::Invalid("name")));
    assert_eq!(Reader::new(&huge).owned(100, "name"), Err(FormatError::Invalid("name")));
    assert_eq!(Reader::new(&huge).count(1, "list"), Err(FormatError::Invalid("list")));
    assert_eq!(Reader::new(&[2, 0, 0, 0, 0, 0, 0, 0]).count(2, "list"), Ok(2));
    assert_eq!(
        Reader::new(&[2, 0, 0, 0, 0, 0, 0]).count(2, "list"),
        Err(FormatError::Invalid("list"))
    );
    assert_eq!(Reader::new(&huge).count(usize::MAX, "list"), Err(FormatError::Invalid("list")));
    assert_eq!(Reader::new(&[2]).flag("flag"), Err(FormatError::Invalid("flag")));
}

#[test]
fn only_newer_formats_are_the_operators_business() {
    let kind = |error: FormatError| Error::from(error).kind();
    assert_eq!(kind(FormatError::Newer { known: 1, found: 2 }), ErrorKind::Refused);
    for error in
        [FormatError::Short, FormatError::Invalid("x"), FormatError::Sum, FormatError::Trailing]
    {
        assert_eq!(kind(error), ErrorKind::Corrupt);
    }
    let newer = FormatError::Newer { known: 1, found: 2 }.to_string();
    assert_eq!(newer, "format version 2 is newer than 1, which this program knows");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_reads_of_any_bytes_end(bytes: Vec<u8>, steps in proptest::collection::vec(0..9u8, 0..40)) {
        let mut reader = Reader::new(&bytes);
        for step in steps {
            let before = reader.remaining();
            let good = match step {
                0 => reader.u8().is_ok(),
                1 => reader.u16().is_ok(),
                2 => reader.u32().is_ok(),
                3 => reader.u64().is_ok(),
                4 => reader.i64().is_ok(),
                5 => reader.flag("f").is_ok(),
                6 => reader.bytes(20, "f").is_ok(),
                7 => reader.owned(20, "f").is_ok(),
                _ => reader.count(3, "f").is_ok(),
            };
            prop_assert!(reader.remaining() <= before);
            prop_assert!(!good || reader.remaining() < before);
        }
    }
}
