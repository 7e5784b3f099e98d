//! What seeds tell of a value, and of its order among others.

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    /// Half the 95 % confidence interval of the mean; none for one seed.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// Of `values`, one a seed; none if there are none.
    ///
    /// The interval is Student's: `t(0.975, n - 1) s / sqrt(n)`.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let half_width = (count > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (squares / (count - 1) as f64).sqrt();
            student_t(count - 1) * deviation / (count as f64).sqrt()
        });
        Some(Self { mean, half_width })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let reach = self.half_width.unwrap_or(0.0) + other.half_width.unwrap_or(0.0);
        (self.mean - other.mean).abs() <= reach
    }
}

/// Which of some values is highest, and whether that is more than chance.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Indices, the highest first.
    pub ranked: Vec<usize>,
    /// Those of one seed, which have no interval.
    pub single: Vec<usize>,
    pub verdict: Verdict,
}

/// What can be said of the highest value.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its interval overlaps no other.
    Clear,
    /// Its interval overlaps those of these others, the highest first.
    Overlaps(Vec<usize>),
    /// It has no interval, or no other has.
    Unknown,
}

impl Order {
    /// Of the estimates that there are; none if there are fewer than two.
    pub fn of(estimates: &[Option<Estimate>]) -> Option<Self> {
        let mut known: Vec<(usize, Estimate)> = (estimates.iter().enumerate())
            .filter_map(|(index, estimate)| Some((index, (*estimate)?)))
            .collect();
        known.sort_by(|a, b| b.1.mean.total_cmp(&a.1.mean));
        if known.len() < 2 {
            return None;
        }
        let indices = |of: &[(usize, Estimate)]| of.iter().map(|(index, _)| *index).collect();
        let ranked: Vec<usize> = indices(&known);
        let (repeated, single): (Vec<_>, Vec<_>) =
            (known.into_iter()).partition(|(_, estimate)| estimate.half_width.is_some());
        let verdict = match &repeated[..] {
            [(index, best), others @ ..] if *index == ranked[0] && !others.is_empty() => {
                let rivals = others.iter().filter(|(_, other)| best.overlaps(other));
                let rivals: Vec<usize> = rivals.map(|(index, _)| *index).collect();
                match rivals.is_empty() {
                    true => Verdict::Clear,
                    false => Verdict::Overlaps(rivals),
                }
            }
            _ => Verdict::Unknown,
        };
        Some(Self {
            ranked,
            single: indices(&single),
            verdict,
        })
    }

    /// The value that is higher than every other by more than the intervals.
    pub fn clear(&self) -> Option<usize> {
        (self.verdict == Verdict::Clear && self.single.is_empty()).then_some(self.ranked[0])
    }
}

/// The 0.975 quantile of Student's distribution.
fn student_t(freedom: usize) -> f64 {
    const FEW: [f64; 10] = [
        12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157,
        2.228139,
    ];
    if let Some(&quantile) = FEW.get(freedom - 1) {
        return quantile;
    }
    // Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    let (z, n) = (1.959964_f64, freedom as f64);
    let power = |exponent| z.powi(exponent);
    z + (power(3) + z) / (4.0 * n)
        + (5.0 * power(5) + 16.0 * power(3) + 3.0 * z) / (96.0 * n.powi(2))
        + (3.0 * power(7) + 19.0 * power(5) + 17.0 * power(3) - 15.0 * z) / (384.0 * n.powi(3))
        + (79.0 * power(9) + 776.0 * power(7) + 1482.0 * power(5) - 1920.0 * power(3) - 945.0 * z)
            / (92160.0 * n.powi(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expect: f64) {
        assert!((found / expect - 1.0).abs() < 1e-5, "{found} {expect}");
    }

    /// scipy 1.17.1: `scipy.stats.t.ppf(0.975, freedom)`.
    #[test]
    fn quantiles_are_those_of_scipy() {
        for (freedom, expect) in [
            (1, 12.706204736174694),
            (2, 4.302652729749462),
            (4, 2.7764451051977934),
            (10, 2.228138851986274),
            (11, 2.200985160091639),
            (12, 2.1788128296672284),
            (20, 2.085963447265864),
            (100, 1.9839715185235518),
        ] {
            close(student_t(freedom), expect);
        }
    }

    /// scipy 1.17.1: `numpy.mean(x)`, `scipy.stats.sem(x) * scipy.stats.t.ppf(0.975, len(x) - 1)`.
    #[test]
    fn intervals_are_those_of_scipy() {
        for (values, mean, half_width) in [
            (&[62.1, 62.9, 61.4][..], 62.13333333333333, 1.8644828495581),
            (
                &[0.4213, 0.4198, 0.4251, 0.4207, 0.4222],
                0.42182,
                0.0025224427807711792,
            ),
        ] {
            let found = Estimate::of(values).unwrap();
            close(found.mean, mean);
            close(found.half_width.unwrap(), half_width);
        }
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[0.5]).unwrap().half_width, None);
        assert_eq!(Estimate::of(&[0.5, 0.5]).unwrap().half_width, Some(0.0));
    }

    #[test]
    fn only_what_overlaps_nothing_is_clear() {
        let estimate = |mean, half_width| Some(Estimate { mean, half_width });
        let check = |estimates: &[Option<Estimate>], ranked: &[usize], verdict| {
            let order = Order::of(estimates).unwrap();
            assert_eq!((&order.ranked[..], &order.verdict), (ranked, &verdict));
            order
        };
        let (low, high) = (estimate(50.0, Some(1.0)), estimate(53.0, Some(1.5)));
        let order = check(&[low, None, high], &[2, 0], Verdict::Clear);
        assert_eq!(order.clear(), Some(2));
        // The next below it is clear of it, and a wide one further down is not.
        let wide = estimate(49.0, Some(4.0));
        let order = check(&[wide, low, high], &[2, 1, 0], Verdict::Overlaps(vec![0]));
        assert_eq!(order.clear(), None);
        let same = estimate(50.0, Some(0.0));
        check(&[same, same], &[0, 1], Verdict::Overlaps(vec![1]));
        // Values of one seed.
        let single = estimate(1.0, None);
        let order = check(&[high, single, low], &[0, 2, 1], Verdict::Clear);
        assert_eq!((order.clear(), order.single), (None, vec![1]));
        check(&[high, single], &[0, 1], Verdict::Unknown);
        check(
            &[low, high, estimate(60.0, None)],
            &[2, 1, 0],
            Verdict::Unknown,
        );
        check(&[single, single], &[0, 1], Verdict::Unknown);
        assert_eq!(Order::of(&[high, None]), None);
        assert_eq!(Order::of(&[]), None);
    }
}
