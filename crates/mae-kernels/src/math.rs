//! Elementwise functions, free of branches so that the compiler makes vector instructions of them.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Runs `body` compiled for the widest vectors that this processor has.
///
/// Everything that `body` calls must be `#[inline(always)]`.
#[inline(always)]
pub fn vectorized<T>(body: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(body)
}

/// The exponential of numbers up to 88, to about 1e-7 relative; those below -87 give that of -87.
///
/// `2^n e^r` with `n` the nearest integer to `x / ln 2` and the Taylor series of `e^r`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding it rounds to an integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2, the first part with so few digits that a product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Not `max`, which would hide a NaN.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * power
}

/// The exact GELU, `x cdf(x)` for the normal distribution, and its derivative `cdf(x) + x pdf(x)`.
///
/// Absolute error below 2e-7 for the cdf.
///
/// Source: Hendrycks and Gimpel 2016, arXiv 1606.08415; the error function is Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub fn gelu(x: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        0.254_829_6,
        -0.284_496_72,
        1.421_413_8,
        -1.453_152_1,
        1.061_405_4,
    ];
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let t = 1.0 / (1.0 + P * FRAC_1_SQRT_2 * x.abs());
    let density = exp(-0.5 * x * x);
    let series = A[4];
    let series = series * t + A[3];
    let series = series * t + A[2];
    let series = series * t + A[1];
    let series = series * t + A[0];
    // What is left beyond |x|, on one side.
    let tail = 0.5 * series * t * density;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (x * cdf, cdf + x * FRAC_1_SQRT_2PI * density)
}

/// The sum of `f` over pairs of elements, in 16 partial sums.
#[inline(always)]
pub fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The largest element; a NaN may or may not be seen.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (a, rest) = a.as_chunks::<16>();
    let mut best = [f32::NEG_INFINITY; 16];
    for a in a {
        for lane in 0..16 {
            best[lane] = larger(best[lane], a[lane]);
        }
    }
    best.iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |best, &a| larger(best, a))
}

/// Adds `b` to `a`.
#[inline(always)]
pub fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// Adds every row of `rows`, `[.., total.len()]`, to `total`.
pub fn add_rows(total: &mut [f32], rows: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for row in rows.chunks_exact(total.len()) {
                add(total, row);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_as_exact_as_f32_allows() {
        for i in 0..=20_000 {
            let x = -87.0 + i as f32 * 175.0 / 20_000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2e-7, "exp({x}): relative error {error}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert!(exp(f32::NAN).is_nan());
    }

    // Python: cdf = 0.5 * math.erfc(-x / 2 ** 0.5); x * cdf; cdf + x * math.exp(-x * x / 2) / (2 * math.pi) ** 0.5.
    const GELU: [(f32, f64, f64); 6] = [
        (-6.0, -5.919525870226207e-9, -3.5468709453902015e-8),
        (-1.0, -0.15865525393145707, -0.08331547058768629),
        (-0.25, -0.10032341857926907, 0.30462664511636395),
        (0.0, 0.0, 0.5),
        (0.75, 0.5800294857173488, 0.9992257217392351),
        (3.0, 2.99595030590511, 1.011945647204184),
    ];

    #[test]
    fn gelu_equals_the_exact_one() {
        for (x, value, derivative) in GELU {
            let (found, slope) = gelu(x);
            assert!((f64::from(found) - value).abs() < 3e-7 * f64::from(x.abs().max(1.0)));
            assert!((f64::from(slope) - derivative).abs() < 5e-7, "gelu'({x})");
        }
    }
}
