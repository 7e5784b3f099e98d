//! Values that may stand for nothing measured, though no file says so.

/// What programs write where nothing was measured: round numbers, the ends of types, and those of netCDF.
const USUAL: [f32; 11] = [
    -999.0,
    -9999.0,
    -99999.0,
    -32767.0,
    -32768.0,
    -2_147_483_648.0,
    -3.4e38,
    f32::MIN,
    f32::MAX,
    1e20,
    9.969_21e36,
];
/// How many times as far from all others as these are from each other, a value that is not usual must be.
const FAR: f64 = 10.0;
/// Share of the values that one that is not usual must have.
const SPIKE: f64 = 1e-3;

/// A value that may stand for nothing measured.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Suspect {
    /// The channel in which it is.
    pub channel: usize,
    /// The value, in the file's own units.
    pub value: f32,
    /// Its share of the channel's values.
    pub share: f64,
}

/// Both ends of the values of a channel.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Ends {
    count: u64,
    low: End,
    /// Of the values times -1.
    high: End,
}

/// The lowest of some values, how often it occurs, and the one that follows.
#[derive(Copy, Clone, Debug)]
struct End {
    lowest: f32,
    count: u64,
    next: f32,
}

impl Ends {
    pub(super) fn add(&mut self, value: f32) {
        self.count += 1;
        self.low.add(value);
        self.high.add(-value);
    }

    pub(super) fn merge(self, other: Ends) -> Ends {
        Ends {
            count: self.count + other.count,
            low: self.low.merge(other.low),
            high: self.high.merge(other.high),
        }
    }

    /// The lowest or the highest value, if it occurs often and lies far from all others.
    ///
    /// Integers of 8 and 16 bits without a sign become 0 to 1, in which nothing is far from anything.
    pub(super) fn suspect(&self, channel: usize) -> Option<Suspect> {
        let ends = [(1.0, self.low, self.high), (-1.0, self.high, self.low)];
        ends.into_iter().find_map(|(sign, end, other)| {
            let value = sign * end.lowest;
            let gap = f64::from(end.next) - f64::from(end.lowest);
            let rest = -f64::from(other.lowest) - f64::from(end.next);
            let share = end.count as f64 / self.count as f64;
            let is_suspect = match USUAL.contains(&value) {
                true => end.count > 1 && gap > rest,
                false => share >= SPIKE && gap > FAR * rest && rest > 0.0,
            };
            let is_known = end.next.is_finite() && value.abs() > 1.0;
            (is_known && is_suspect).then_some(Suspect {
                channel,
                value,
                share,
            })
        })
    }
}

impl Default for End {
    fn default() -> End {
        End {
            lowest: f32::INFINITY,
            count: 0,
            next: f32::INFINITY,
        }
    }
}

impl End {
    fn add(&mut self, value: f32) {
        if value < self.lowest {
            (self.next, self.lowest, self.count) = (self.lowest, value, 1);
        } else if value == self.lowest {
            self.count += 1;
        } else if value < self.next {
            self.next = value;
        }
    }

    fn merge(self, other: End) -> End {
        let (first, second) = match other.lowest < self.lowest {
            true => (other, self),
            false => (self, other),
        };
        match first.lowest == second.lowest {
            true => End {
                count: first.count + second.count,
                next: first.next.min(second.next),
                ..first
            },
            false => End {
                next: first.next.min(second.lowest),
                ..first
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 values from `low` to `high`, and `count` times `value`, in two images.
    fn suspect(low: f32, high: f32, value: f32, count: usize) -> Option<(f32, f64)> {
        let step = (high - low) / 99.0;
        let mut images = [Ends::default(); 2];
        for i in 0..100 {
            images[i % 2].add(low + step * i as f32);
        }
        for i in 0..count {
            images[i % 2].add(value);
        }
        let [first, second] = images;
        let found = first.merge(second).suspect(0);
        let backwards = second.merge(first).suspect(0);
        assert_eq!(found, backwards);
        found.map(|found| (found.value, found.share))
    }

    #[test]
    fn a_spike_far_from_all_others_is_suspected() {
        for value in [-9999.0, -32768.0, f32::MIN, -3.4e38, 1e20] {
            assert_eq!(suspect(0.0, 3000.0, value, 25), Some((value, 0.2)));
        }
        assert_eq!(suspect(-3.0, 4.0, -100.0, 25), Some((-100.0, 0.2)));
        assert_eq!(suspect(0.0, 1.0, 255.0, 25), Some((255.0, 0.2)));
    }

    #[test]
    fn what_may_have_been_measured_is_not() {
        // Between others, not far, once, and in images without anything else.
        assert_eq!(suspect(-20_000.0, 20_000.0, -9999.0, 25), None);
        assert_eq!(suspect(-1000.0, 3000.0, -1500.0, 25), None);
        assert_eq!(suspect(0.0, 3000.0, -9999.0, 1), None);
        assert_eq!(suspect(0.0, 0.0, -50.0, 25), None);
        assert_eq!(suspect(0.0, 0.01, 1.0, 25), None);
        assert_eq!(suspect(0.0, 1.0, 0.5, 0), None);
        let mut alone = Ends::default();
        (0..9).for_each(|_| alone.add(-9999.0));
        assert_eq!(alone.suspect(0), None);
        assert_eq!(Ends::default().suspect(0), None);
    }
}
