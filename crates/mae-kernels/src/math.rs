//! Elementwise functions, free of branches so that the compiler makes vector instructions of them.

use std::array::from_fn;
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

use pulp::{Simd, WithSimd};

/// Runs `body` compiled for the widest vectors that this processor has.
///
/// Everything that `body` calls must be `#[inline(always)]`.
#[inline(always)]
pub fn vectorized<T>(body: impl FnOnce(Fma) -> T) -> T {
    struct Body<F>(F);
    impl<T, F: FnOnce(Fma) -> T> WithSimd for Body<F> {
        type Output = T;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> T {
            (self.0)(Fma(!S::IS_SCALAR))
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// Whether the processor multiplies and adds in one instruction; without, that would be a slow call.
#[derive(Clone, Copy)]
pub struct Fma(bool);

impl Fma {
    /// `a * b + c`
    #[inline(always)]
    pub fn of(self, a: f32, b: f32, c: f32) -> f32 {
        if self.0 { a.mul_add(b, c) } else { a * b + c }
    }

    /// The polynomial with these coefficients, the highest power's first.
    #[inline(always)]
    fn polynomial(self, coefficients: &[f32], x: f32) -> f32 {
        let mut value = coefficients[0];
        for &coefficient in &coefficients[1..] {
            value = self.of(value, x, coefficient);
        }
        value
    }
}

/// The exponential of numbers up to 88, to about 1e-7 relative; those below -87 give that of -87.
///
/// `2^n e^r` with `n` the nearest integer to `x / ln 2` and the Taylor series of `e^r`.
#[inline(always)]
pub fn exp(fma: Fma, x: f32) -> f32 {
    // Adding it rounds to an integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2, the first part with so few digits that a product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Not `max`, which would hide a NaN.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = fma.of(x, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma.of(-n, LN_2_LOW, fma.of(-n, LN_2_HIGH, x));
    let series = [5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0].map(f32::recip);
    let series = fma.polynomial(&series, r);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * power
}

/// The exact GELU, `x cdf(x)` for the normal distribution, and its derivative `cdf(x) + x pdf(x)`.
///
/// Absolute error below 2e-7 for the cdf.
///
/// Source: Hendrycks and Gimpel 2016, arXiv 1606.08415; the error function is Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub fn gelu(fma: Fma, x: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1;
    const A: [f32; 5] = [
        1.061_405_4,
        -1.453_152_1,
        1.421_413_8,
        -0.284_496_72,
        0.254_829_6,
    ];
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    let t = 1.0 / fma.of(P * FRAC_1_SQRT_2, x.abs(), 1.0);
    let density = exp(fma, -0.5 * x * x);
    // What is left beyond |x|, on one side.
    let tail = 0.5 * fma.polynomial(&A, t) * t * density;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (x * cdf, fma.of(x * FRAC_1_SQRT_2PI, density, cdf))
}

/// The sum of `f` over pairs of elements, in 64 partial sums.
#[inline(always)]
pub fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (long_a, a) = a.as_chunks::<64>();
    let (long_b, b) = b.as_chunks::<64>();
    let mut sums = [[0.0; 16]; 4];
    for (a, b) in long_a.iter().zip(long_b) {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum += f(a[16 * i + lane], b[16 * i + lane]);
            }
        }
    }
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for (lane, sum) in sums[0].iter_mut().enumerate() {
            *sum += f(a[lane], b[lane]);
        }
    }
    let [s0, s1, s2, s3] = sums;
    let sums: [f32; 16] = from_fn(|i| (s0[i] + s1[i]) + (s2[i] + s3[i]));
    let sums: [f32; 8] = from_fn(|i| sums[i] + sums[i + 8]);
    let sums: [f32; 4] = from_fn(|i| sums[i] + sums[i + 4]);
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum();
    sum + rest
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
        |_| {
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
        for fma in [Fma(false), Fma(true)] {
            for i in 0..=20_000 {
                let x = -87.0 + i as f32 * 175.0 / 20_000.0;
                let expected = f64::from(x).exp();
                let error = (f64::from(exp(fma, x)) - expected).abs() / expected;
                assert!(error < 2e-7, "exp({x}): relative error {error}");
            }
            assert_eq!(exp(fma, f32::NEG_INFINITY), exp(fma, -87.0));
            assert!(exp(fma, f32::NAN).is_nan());
        }
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
        for fma in [Fma(false), Fma(true)] {
            for (x, value, derivative) in GELU {
                let (found, slope) = gelu(fma, x);
                assert!((f64::from(found) - value).abs() < 3e-7 * f64::from(x.abs().max(1.0)));
                assert!((f64::from(slope) - derivative).abs() < 5e-7, "gelu'({x})");
            }
        }
    }

    #[test]
    fn sums_of_all_lengths_are_whole() {
        for len in 0..200_u16 {
            let a: Vec<f32> = (0..len).map(f32::from).collect();
            let expected = f32::from(len) * (f32::from(len) - 1.0) / 2.0;
            assert_eq!(sum(&a, &a, |a, _| a), expected.max(0.0), "{len}");
        }
    }
}
