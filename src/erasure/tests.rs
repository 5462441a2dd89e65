use super::{ErasureCoder, Scheme, TooFewCells, coder};
use crate::error::ErrorKind;
use crate::sum::blake3;
use crate::types::ShardIndex;

fn scheme(text: &str) -> Scheme {
    text.parse().unwrap()
}

/// k cells of fixed pseudo-random bytes (xorshift64).
fn data(k: u8, length: usize) -> Vec<Vec<u8>> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..k).map(|_cell| (0..length).map(|_byte| next()).collect()).collect()
}

/// All n cells of a row.
fn row(coder: &dyn ErasureCoder, length: usize) -> Vec<Vec<u8>> {
    let mut cells = data(coder.scheme().k(), length);
    let mut parity = vec![vec![0; length]; usize::from(coder.scheme().m())];
    let refs: Vec<_> = cells.iter().map(Vec::as_slice).collect();
    coder.encode(&refs, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    cells.append(&mut parity);
    cells
}

fn shards(mask: u64, n: u8) -> Vec<ShardIndex> {
    (0..n).filter(|index| mask >> index & 1 == 1).map(ShardIndex).collect()
}

/// Loses the cells in `lost` and wants them back, from all others and from what `plan` proposes.
fn check_pattern(coder: &dyn ErasureCoder, row: &[Vec<u8>], lost: u64) {
    let n = coder.scheme().n();
    let wanted = shards(lost, n);
    let given = |mask: u64| -> Vec<_> {
        (0..n).zip(row).map(|(i, cell)| (mask >> i & 1 == 1).then_some(cell.as_slice())).collect()
    };
    let expected: Vec<_> = wanted.iter().map(|shard| row[usize::from(shard.0)].clone()).collect();
    assert_eq!(coder.reconstruct(&given(!lost), &wanted).unwrap(), expected, "lost {lost:b}");
    let sources = coder.plan(!lost, &wanted).unwrap();
    assert!(sources.len() <= usize::from(coder.scheme().k()).max(wanted.len()));
    let planned = sources.iter().fold(0, |mask, shard| mask | 1 << shard.0);
    assert_eq!(planned & lost, 0, "the plan uses what is lost");
    assert_eq!(coder.reconstruct(&given(planned), &wanted).unwrap(), expected, "lost {lost:b}");
}

fn check_scheme(text: &str, length: usize, patterns: usize) {
    let coder = coder(scheme(text));
    let (k, m, n) = (coder.scheme().k(), coder.scheme().m(), coder.scheme().n());
    let row = row(&*coder, length);
    let mut count = 0;
    for lost in 0..1_u64 << n {
        let losses = lost.count_ones();
        if (1..=u32::from(m)).contains(&losses) {
            check_pattern(&*coder, &row, lost);
            count += 1;
        } else if losses == u32::from(m) + 1 {
            let cells: Vec<_> = (0..n)
                .zip(&row)
                .map(|(i, cell)| (lost >> i & 1 == 0).then_some(cell.as_slice()))
                .collect();
            let error = coder.reconstruct(&cells, &shards(lost, n)).unwrap_err();
            assert_eq!(error, TooFewCells { needed: k, found: k - 1 });
            assert_eq!(coder.plan(!lost, &shards(lost, n)), None);
        }
    }
    assert_eq!(count, patterns);
}

#[test]
fn every_pattern_of_the_default_schemes_decodes() {
    check_scheme("replica:3", 64, 6);
    check_scheme("2+1", 192, 3);
    check_scheme("3+2", 128, 15);
    check_scheme("4+2", 192, 21);
    check_scheme("6+3", 64, 129);
    check_scheme("10+4", 64, 1470);
}

#[test]
fn odd_schemes_decode() {
    check_scheme("replica:1", 64, 0);
    check_scheme("replica:17", 64, (1 << 17) - 2);
    check_scheme("1+1", 64, 2);
    check_scheme("1+4", 64, 30);
    check_scheme("5+1", 64, 6);
    let coder = coder(scheme("32+16"));
    let row = row(&*coder, 128);
    for lost in [0xffff, 0xffff << 32, 0xff00_0000_00ff, 0x1111_1111_1111, 1, 1 << 47] {
        check_pattern(&*coder, &row, lost);
    }
}

#[test]
fn all_cell_lengths_decode() {
    // Changing lengths and schemes also reuse one working space.
    for length in [64, 128, 65600, 65536, 8256, 64] {
        for text in ["4+2", "1+1", "6+3", "3+5"] {
            let coder = coder(scheme(text));
            let row = row(&*coder, length);
            check_pattern(&*coder, &row, 0b11 & ((1 << coder.scheme().m()) - 1));
            check_pattern(&*coder, &row, 1 << (coder.scheme().n() - 1));
        }
    }
}

#[test]
fn parity_is_pinned() {
    let pinned = [
        ("replica:3", "30d777944c1e283bc71b16e6d3bcebf27fc470abeb3e3cd84f19fd37c72f620b"),
        ("2+1", "399a1332b0c27af17ee116dcc3dba431ce7c60436a0076e51282138aee009795"),
        ("3+2", "0a2c9d649eea0a537c4108aef2d0f73b8e80297f7e627708a4d8ea3be8c56fd9"),
        ("4+2", "562083331e6c50cde9750b62094ee28409e5821cd6bc96eae540a7e07aedbd9b"),
        ("6+3", "765e6b016c28d3275bd5b6e57d969d868d438f686eb42edd81580e301ff32e8e"),
        ("10+4", "32827ec8e137cc98e376d63eb9853478fbabfa3d517c69f2c1a2c8ebbacc52e1"),
    ];
    for (text, expected) in pinned {
        let coder = coder(scheme(text));
        let parity = row(&*coder, 4096).split_off(usize::from(coder.scheme().k())).concat();
        let sum: String = blake3(&parity).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, expected, "{text}");
    }
}

#[test]
fn what_is_there_needs_no_decoding() {
    let coder = coder(scheme("4+2"));
    let row = row(&*coder, 64);
    let mut cells = vec![None; 6];
    cells[5] = Some(row[5].as_slice());
    assert_eq!(coder.reconstruct(&cells, &[ShardIndex(5)]).unwrap(), [row[5].clone()]);
    let error = coder.reconstruct(&cells, &[ShardIndex(5), ShardIndex(0)]).unwrap_err();
    assert_eq!(error.to_string(), "too few good cells: expected 4, found 1");
}

#[test]
fn plans_prefer_the_wanted_and_then_data() {
    let check = |text: &str, available: u64, wanted: &[u8], expected: Option<&[u8]>| {
        let wanted: Vec<_> = wanted.iter().copied().map(ShardIndex).collect();
        let plan = coder(scheme(text)).plan(available, &wanted);
        let plan: Option<Vec<u8>> = plan.map(|plan| plan.iter().map(|shard| shard.0).collect());
        assert_eq!(plan.as_deref(), expected);
    };
    check("4+2", 0b11_1111, &[3, 1], Some(&[3, 1]));
    check("4+2", 0b11_1110, &[0], Some(&[1, 2, 3, 4]));
    check("4+2", 0b11_1110, &[0, 5], Some(&[1, 2, 3, 5]));
    check("4+2", 0b11_1100, &[1], Some(&[2, 3, 4, 5]));
    check("4+2", 0b11_1000, &[1], None);
    check("4+2", 0b00_1000, &[3], Some(&[3]));
    check("replica:3", 0b110, &[0], Some(&[1]));
    check("replica:3", 0b100, &[0, 1], Some(&[2]));
    check("replica:3", 0, &[0], None);
}

#[test]
fn schemes_have_a_text_form() {
    for text in ["1+1", "4+2", "32+16", "replica:1", "replica:17"] {
        assert_eq!(scheme(text).to_string(), text);
    }
    assert_eq!(scheme("4+2"), Scheme::ReedSolomon { k: 4, m: 2 });
    for text in [
        "",
        "4",
        "+",
        "4+",
        "+2",
        "4+2+1",
        "0+2",
        "4+0",
        "33+2",
        "4+17",
        "256+1",
        "4++2",
        "04+2",
        " 4+2",
        "4-2",
        "replica",
        "replica:",
        "replica:0",
        "replica:18",
        "replica:+3",
        "Replica:3",
    ] {
        let error = text.parse::<Scheme>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().starts_with(&format!("{text:?} is no redundancy scheme: ")));
    }
    assert!(Scheme::Replica(0).validate().is_err());
    assert!(Scheme::ReedSolomon { k: 32, m: 16 }.validate().is_ok());
}
