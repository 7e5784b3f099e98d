//! Fixed 2-D sine-cosine positions, in the layout that the public checkpoints depend on; learned ones resized.

use tch::Tensor;

/// Positions of a grid of patches, after a zero row for the class token.
///
/// The first half of a row encodes the patch's column, the second its row; each half is all sines and then
/// all cosines, of frequencies `10000^(-i / (dim / 4))`.
///
/// # Shapes
/// - returns `[1, 1 + rows * columns, dim]`, f32; `dim` is a multiple of 4
///
/// Source: He et al. 2021, appendix A.1; Vaswani et al. 2017, section 3.5, once for each direction.
pub fn sincos_2d(rows: usize, columns: usize, dim: usize) -> Tensor {
    let quarter = dim / 4;
    let frequencies: Vec<f64> = (0..quarter)
        .map(|i| 10000f64.powf(-(i as f64) / quarter as f64))
        .collect();
    let mut values = vec![0f32; dim];
    for row in 0..rows {
        for column in 0..columns {
            for position in [column as f64, row as f64] {
                values.extend(frequencies.iter().map(|f| (position * f).sin() as f32));
                values.extend(frequencies.iter().map(|f| (position * f).cos() as f32));
            }
        }
    }
    Tensor::from_slice(&values).view([1, (1 + rows * columns) as i64, dim as i64])
}

/// Positions resized from one grid of patches to another by bicubic interpolation; the class token's stays.
///
/// # Shapes
/// - `pos_embed`: `[1, 1 + from.0 * from.1, dim]`; `from` and `to` are (rows, columns)
/// - returns `[1, 1 + to.0 * to.1, dim]`
///
/// Source: Dosovitskiy et al. 2021, section 3.2, "Fine-tuning and higher resolution".
pub fn interpolate(pos_embed: &Tensor, from: (usize, usize), to: (usize, usize)) -> Tensor {
    let (rows, columns) = (from.0 as i64, from.1 as i64);
    let patches = pos_embed
        .narrow(1, 1, rows * columns)
        .view([1, rows, columns, -1])
        .permute([0, 3, 1, 2])
        .upsample_bicubic2d([to.0 as i64, to.1 as i64], false, None, None)
        .flatten(2, 3)
        .transpose(1, 2);
    Tensor::cat(&[pos_embed.narrow(1, 0, 1), patches], 1)
}
