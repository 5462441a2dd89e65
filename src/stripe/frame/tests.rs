use super::*;

fn segment(length: usize) -> Bytes {
    (0..length as u64).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect::<Vec<_>>().into()
}

fn stored(frame: &Frame) -> Vec<u8> {
    [&frame.header, &*frame.body].concat()
}

/// Reads a part of a stored frame the way a stripe reader does.
fn read(frame: &FrameRef, stored: &[u8], offset: u32, length: u32) -> Result<Bytes> {
    let cover = cover(frame, offset, length);
    let place = |at: u64| usize::try_from(at - u64::from(frame.payload_offset)).unwrap();
    let at = |range: &Range<u64>| stored[place(range.start)..place(range.end)].to_vec();
    let (header, body) = (at(&cover.header), at(&cover.body));
    open(frame, offset..offset + length, cover.first_block, &header, body)
}

#[test]
fn raw_header_is_pinned() {
    let frame = Frame::seal(Compression::None, Bytes::from_static(b"abc"));
    // XXH3-64 of "abc", from the reference implementation.
    let mut expected = [0; 64];
    expected[..8].copy_from_slice(&0x78af_5f94_892f_3950_u64.to_le_bytes());
    assert_eq!(frame.header, expected);
    let reference = frame.reference(128);
    assert_eq!(reference.header_sum, xxh3(&expected));
    assert_eq!((reference.payload_offset, reference.body_bytes, reference.raw_bytes), (128, 3, 3));
    assert!(!reference.compressed);
}

#[test]
fn compressed_header_is_pinned() {
    let frame = Frame::seal(Compression::Zstd(3), vec![7; 65536].into());
    let reference = frame.reference(0);
    assert!(reference.compressed);
    let mut words = [0_u64; 8];
    words[..3].copy_from_slice(&[xxh3(&frame.body), 65536, frame.body.len() as u64]);
    assert_eq!(check_header(&reference, &frame.header).unwrap(), words);
}

#[test]
fn parts_of_frames_round_trip() {
    for length in [1, 100, 8191, 8192, 8193, 20000, 65535, 65536] {
        for compression in [Compression::None, Compression::Zstd(1)] {
            let data = segment(length as usize);
            let frame = Frame::seal(compression, data.clone());
            let (reference, bytes) = (frame.reference(6400), stored(&frame));
            for offset in [0, 1, 8191, 8192, 8193, 16384, length - 1] {
                for part in [1, 64, 8192, 8193, length] {
                    if offset < length && offset + part <= length {
                        let found = read(&reference, &bytes, offset, part).unwrap();
                        assert_eq!(found, data[offset as usize..(offset + part) as usize]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_cut_segment_reads_its_front() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        let data = segment(30000);
        let frame = Frame::seal(compression, data.clone());
        let reference = FrameRef { raw_bytes: 9000, ..frame.reference(0) };
        assert_eq!(read(&reference, &stored(&frame), 100, 8900).unwrap(), data[100..9000]);
    }
}

#[test]
fn every_covered_byte_is_checked() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        let frame = Frame::seal(compression, segment(9000));
        let (reference, bytes) = (frame.reference(0), stored(&frame));
        for at in (0..bytes.len()).step_by(13).chain(0..64) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = read(&reference, &damaged, 0, 9000).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt);
        }
    }
}

#[test]
fn only_the_blocks_in_the_way_are_read() {
    let frame = Frame::seal(Compression::None, segment(65536)).reference(65600);
    let cover = |offset, length| cover(&frame, offset, length);
    assert_eq!(cover(8192, 4096).body, 65600 + 64 + 8192..65600 + 64 + 16384);
    assert_eq!(cover(8192, 4096).header, 65600..65664);
    assert_eq!(cover(8191, 2).body, 65664..65664 + 16384);
    assert_eq!(cover(65535, 1).first_block, 7);
}
