//! Transposing 8 x 8 values, in steps that compilers turn into shuffles of registers.

/// Rows become columns.
#[inline(always)]
pub(super) fn transpose<T: Copy + Default>(rows: [[T; 8]; 8]) -> [[T; 8]; 8] {
    // Interleaving row i with row i + 4, three times over, is a perfect shuffle of all 64 values.
    interleave(interleave(interleave(rows)))
}

#[inline(always)]
fn interleave<T: Copy + Default>(rows: [[T; 8]; 8]) -> [[T; 8]; 8] {
    let mut out = [[T::default(); 8]; 8];
    for i in 0..4 {
        for j in 0..4 {
            out[2 * i][2 * j] = rows[i][j];
            out[2 * i][2 * j + 1] = rows[i + 4][j];
            out[2 * i + 1][2 * j] = rows[i][j + 4];
            out[2 * i + 1][2 * j + 1] = rows[i + 4][j + 4];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let rows = std::array::from_fn(|row| std::array::from_fn(|column| 8 * row + column));
        let expected = std::array::from_fn(|row| std::array::from_fn(|column| 8 * column + row));
        assert_eq!(transpose::<usize>(rows), expected);
    }
}
