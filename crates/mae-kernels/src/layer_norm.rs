//! Layer normalisation of rows.
//!
//! Source: Ba et al. 2016, arXiv 1607.06450.

use crate::math::{sum, vectorized};

/// Scale, shift and the number that keeps the deviation from zero.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
}

impl LayerNorm<'_> {
    /// Normalises each row of `x` into `y`; both `[rows, dim]`.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        let dim = self.weight.len();
        vectorized(
            #[inline(always)]
            |_| {
                for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
                    let (mean, rstd) = self.moments(x);
                    for (((y, x), weight), bias) in
                        y.iter_mut().zip(x).zip(self.weight).zip(self.bias)
                    {
                        *y = (x - mean) * rstd * weight + bias;
                    }
                }
            },
        );
    }

    /// Turns the gradient of the result into that of the input, in place.
    ///
    /// # Shapes
    /// - `x`, `grad`: `[rows, dim]`; `grad` comes in as that of the result
    /// - `grad_weight`, `grad_bias`: `[dim]`, added to
    pub fn backward(
        &self,
        x: &[f32],
        grad: &mut [f32],
        grad_weight: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        let dim = self.weight.len();
        let share = 1.0 / dim as f32;
        vectorized(
            #[inline(always)]
            |_| {
                for (x, grad) in x.chunks_exact(dim).zip(grad.chunks_exact_mut(dim)) {
                    let (mean, rstd) = self.moments(x);
                    let weights = self.weight.iter().zip(&mut *grad_weight);
                    let values = x.iter().zip(grad.iter_mut()).zip(&mut *grad_bias);
                    for (((x, grad), grad_bias), (weight, grad_weight)) in values.zip(weights) {
                        *grad_bias += *grad;
                        *grad_weight += *grad * (x - mean) * rstd;
                        *grad *= weight;
                    }
                    let mean_grad = sum(grad, x, |grad, _| grad) * share;
                    let along = sum(grad, x, |grad, x| grad * ((x - mean) * rstd)) * share;
                    for (grad, x) in grad.iter_mut().zip(x) {
                        *grad = rstd * (*grad - mean_grad - (x - mean) * rstd * along);
                    }
                }
            },
        );
    }

    /// Mean and reciprocal deviation of a row.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let share = 1.0 / x.len() as f32;
        let mean = sum(x, x, |x, _| x) * share;
        let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) * share;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}
