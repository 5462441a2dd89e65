use super::super::matrix::Pattern;
use super::ReedSolomon;
use crate::erasure::{ErasureCoder as _, Scheme};

/// Where a processor has no vector tables, long cells are decoded without a matrix: what the one makes the other must.
#[test]
fn the_general_decoder_makes_what_the_matrix_makes() {
    for text in ["2+1", "4+2", "6+3"] {
        let scheme: Scheme = text.parse().unwrap();
        let coder = ReedSolomon::new(scheme);
        let (k, n) = (usize::from(scheme.k()), usize::from(scheme.n()));
        let byte =
            |cell: usize, at: usize| u8::try_from((at * 31 + cell * 17 + at / 251) % 256).unwrap();
        let mut row: Vec<Vec<u8>> =
            (0..n).map(|cell| (0..16_448).map(|at| byte(cell, at)).collect()).collect();
        let (data, parity) = row.split_at_mut(k);
        let data: Vec<_> = data.iter().map(Vec::as_slice).collect();
        coder.encode(&data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        for lost in (1..1_u64 << n).filter(|lost| lost.count_ones() <= u32::from(scheme.m())) {
            let cells: Vec<_> = row
                .iter()
                .enumerate()
                .map(|(index, cell)| (lost >> index & 1 == 0).then_some(cell.as_slice()))
                .collect();
            let expected: Vec<_> = Pattern::indexes(lost).map(|index| row[index].clone()).collect();
            assert_eq!(coder.decode(&cells, lost), expected, "{text} without {lost:b}");
        }
    }
}
