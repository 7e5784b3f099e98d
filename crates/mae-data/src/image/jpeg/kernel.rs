//! Which source pixels make a pixel of the result, along one axis.

use std::ops::Range;

/// Fractional bits of the weights.
pub(super) const WEIGHT_FRACTION: i32 = 14;

/// The weighted sums of source values that make the values of the result, along one axis.
pub(super) struct Kernel {
    sums: Vec<Sum>,
    weights: Vec<i16>,
    sources: Range<usize>,
}

struct Sum {
    /// The first source value.
    first: usize,
    /// Where its weights are.
    weights: Range<usize>,
}

impl Kernel {
    /// The number of values of the result.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// First source value and weights of one value of the result; the weights add up to 1.
    pub(super) fn sum(&self, i: usize) -> (usize, &[i16]) {
        let sum = &self.sums[i];
        (sum.first, &self.weights[sum.weights.clone()])
    }

    /// The source values that any sum needs.
    pub(super) fn sources(&self) -> Range<usize> {
        self.sources.clone()
    }

    /// Turns the order of the results round.
    pub(super) fn reverse(&mut self) {
        self.sums.reverse();
    }

    /// Adds a sum, given its weights up to a factor.
    fn push(&mut self, first: usize, weights: &[f64]) {
        let one = f64::from(1 << WEIGHT_FRACTION);
        let scale = one / weights.iter().sum::<f64>();
        let start = self.weights.len();
        // By truncating a positive number: rounding costs a call on processors of the first kind.
        let rounded = |weight: f64| ((weight * scale + (one + 0.5)) as i32 - one as i32) as i16;
        self.weights
            .extend(weights.iter().map(|&weight| rounded(weight)));
        // So that an even surface keeps its value to the bit.
        let rounded = &mut self.weights[start..];
        let excess = rounded.iter().map(|&weight| i32::from(weight)).sum::<i32>() - one as i32;
        if let Some(largest) = rounded.iter_mut().max() {
            *largest -= excess as i16;
        }
        self.sources.start = self.sources.start.min(first);
        self.sources.end = self.sources.end.max(first + weights.len());
        self.sums.push(Sum {
            first,
            weights: start..self.weights.len(),
        });
    }
}

/// A part of an axis that becomes another number of pixels.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    /// Pixels of the whole image.
    pub(super) side: usize,
    /// Start and length of the part, in pixels.
    pub(super) start: f64,
    pub(super) len: f64,
    /// Pixels of the result.
    pub(super) pixels: usize,
}

impl Axis {
    /// Kernels of the full-sized plane, and of one that holds a value for `subsampling` pixels.
    ///
    /// The first is Catmull-Rom (a = -0.5), stretched when shrinking, as Pillow's `BICUBIC`.
    /// The second equals magnifying the plane to full size and then applying the first.
    pub(super) fn kernels(&self, subsampling: usize) -> [Kernel; 2] {
        const SUPPORT: f64 = 2.0;
        let scale = self.len / self.pixels as f64;
        let stretch = scale.max(1.0);
        let mut kernels = [(); 2].map(|()| Kernel {
            sums: Vec::with_capacity(self.pixels),
            weights: Vec::new(),
            sources: self.side..0,
        });
        let (mut full, mut coarse) = (Vec::new(), Vec::new());
        for i in 0..self.pixels {
            let centre = self.start + (i as f64 + 0.5) * scale;
            let reach = SUPPORT * stretch;
            let first = ((centre - reach + 0.5).max(0.0) as usize).min(self.side - 1);
            let end = ((centre + reach + 0.5) as usize).clamp(first + 1, self.side);
            full.clear();
            full.extend((first..end).map(|x| catmull_rom((x as f64 + 0.5 - centre) / stretch)));
            kernels[0].push(first, &full);
            let first = self.coarsen(subsampling, first, &full, &mut coarse);
            kernels[1].push(first, &coarse);
        }
        kernels
    }

    /// The weights of a coarse plane; returns its first value that has one.
    ///
    /// Between two coarse values, a pixel takes 3/4 from the nearer one and 1/4 from the other, as
    /// in libjpeg's "fancy" upsampling.
    fn coarsen(
        &self,
        subsampling: usize,
        first: usize,
        full: &[f64],
        coarse: &mut Vec<f64>,
    ) -> usize {
        coarse.clear();
        if subsampling == 1 {
            coarse.extend_from_slice(full);
            return first;
        }
        let last = self.side.div_ceil(2) - 1;
        let coarse_first = (first / 2).saturating_sub(1);
        let coarse_last = ((first + full.len() - 1) / 2 + 1).min(last);
        coarse.resize(coarse_last + 1 - coarse_first, 0.0);
        for (x, weight) in (first..).zip(full) {
            let near = x / 2;
            let far = if x % 2 == 0 {
                near.saturating_sub(1)
            } else {
                (near + 1).min(last)
            };
            coarse[near - coarse_first] += 0.75 * weight;
            coarse[far - coarse_first] += 0.25 * weight;
        }
        coarse_first
    }
}

fn catmull_rom(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * A - 4.0 * A
    } else {
        0.0
    }
}
