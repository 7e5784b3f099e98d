//! Where an axis begins and ends, and what is written along it.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Values beyond this are drawn as gaps, so that no sum or difference of two of them overflows.
const LARGEST: f64 = 1e100;

/// Largest over smallest value from which a logarithmic axis shows more than a linear one.
const LOG_RATIO: f64 = 30.0;

/// Ticks that are asked for on a linear axis; there may be a few more or less.
const TICKS: f64 = 5.0;

/// Whether `value` can be drawn.
pub(crate) fn is_drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// What the values along an axis are like.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// Logarithmic if they spread over orders of magnitude, else linear around them.
    Fitted,
    /// Linear around them.
    Linear,
    /// Linear from zero.
    FromZero,
    /// Whole numbers, with no room left at the ends.
    Steps,
}

/// An axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// From end to end, in decimal logarithms if the axis is logarithmic.
    positions: Range<f64>,
    ticks: Vec<Tick>,
    logarithmic: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Tick {
    value: f64,
    label: String,
}

impl Axis {
    /// The axis that shows all drawable `values`; a bare line if there are none.
    pub(crate) fn new(values: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let extent = values.filter(|&value| is_drawable(value)).fold(
            None,
            |extent: Option<(f64, f64)>, value| {
                let (low, high) = extent.unwrap_or((value, value));
                Some((low.min(value), high.max(value)))
            },
        );
        let Some((low, high)) = extent else {
            return Self {
                positions: 0.0..1.0,
                ticks: Vec::new(),
                logarithmic: false,
            };
        };
        match scale {
            Scale::Fitted if low > 0.0 && high / low >= LOG_RATIO => Self::logarithmic(low, high),
            Scale::Fitted | Scale::Linear => Self::linear(room_around(low, high)),
            Scale::FromZero if low >= 0.0 => Self::linear(0.0..room_around(0.0, high).end),
            Scale::FromZero => Self::linear(room_around(low, high)),
            Scale::Steps => Self::steps(low, high),
        }
    }

    /// Names at 0, 1, 2 and so on.
    pub(crate) fn names(names: Vec<String>) -> Self {
        let positions = -0.5..(names.len().max(1) as f64 - 0.5);
        let ticks = (names.into_iter().enumerate())
            .map(|(index, label)| Tick {
                value: index as f64,
                label,
            })
            .collect();
        Self {
            positions,
            ticks,
            logarithmic: false,
        }
    }

    /// The same axis from its end to its beginning.
    pub(crate) fn reversed(self) -> Self {
        Self {
            positions: self.positions.end..self.positions.start,
            ..self
        }
    }

    fn linear(positions: Range<f64>) -> Self {
        let interval = round_interval((positions.end - positions.start) / TICKS);
        let largest = positions.start.abs().max(positions.end.abs());
        let ticks = multiples(interval, &positions)
            .map(|value| Tick {
                value,
                label: decimal(value, interval, largest),
            })
            .collect();
        Self {
            positions,
            ticks,
            logarithmic: false,
        }
    }

    fn steps(low: f64, high: f64) -> Self {
        let positions = if high > low {
            low..high
        } else {
            room_around(low, high)
        };
        let interval = round_interval((positions.end - positions.start) / TICKS).max(1.0);
        let ticks = multiples(interval, &positions)
            .map(|value| Tick {
                value,
                label: thousands(value),
            })
            .collect();
        Self {
            positions,
            ticks,
            logarithmic: false,
        }
    }

    fn logarithmic(low: f64, high: f64) -> Self {
        let positions = room_around(low.log10(), high.log10());
        let decades = positions.end - positions.start;
        let digits: &[u32] = if decades < 3.2 { &[1, 2, 5] } else { &[1] };
        let every = (decades / 6.0).ceil() as usize;
        let ticks = (positions.start.floor() as i32..=positions.end.ceil() as i32)
            .step_by(every)
            .flat_map(|exponent| digits.iter().map(move |&digit| power(digit, exponent)))
            .filter(|tick| positions.contains(&tick.value.log10()))
            .collect();
        Self {
            positions,
            ticks,
            logarithmic: true,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let position = if self.logarithmic {
            value.log10()
        } else {
            *value
        };
        let share = (position - self.positions.start) / (self.positions.end - self.positions.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|tick| tick.value).collect()
    }

    fn range(&self) -> Range<f64> {
        if self.logarithmic {
            10_f64.powf(self.positions.start)..10_f64.powf(self.positions.end)
        } else {
            self.positions.clone()
        }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.value == *value);
        tick.map(|tick| tick.label.clone()).unwrap_or_default()
    }
}

/// A range with a little room on both sides of the values, and never empty.
fn room_around(low: f64, high: f64) -> Range<f64> {
    let largest = low.abs().max(high.abs());
    let room = match high - low {
        spread if spread > 1e-9 * largest => 0.06 * spread,
        _ if largest > 1e-100 => 0.1 * largest,
        _ => 1.0,
    };
    low - room..high + room
}

/// The next larger of 1, 2, 5, 10, 20, 50, ..., and of their tenths, hundredths and so on.
fn round_interval(least: f64) -> f64 {
    let unit = 10_f64.powi(exponent(least));
    [1.0, 2.0, 5.0]
        .map(|digit| digit * unit)
        .into_iter()
        .find(|&interval| interval >= 0.999 * least)
        .unwrap_or(10.0 * unit)
}

/// The multiples of `interval` within `range`.
fn multiples(interval: f64, range: &Range<f64>) -> impl Iterator<Item = f64> {
    let first = (range.start / interval).ceil();
    let last = range.end;
    (0..20)
        .map(move |index| (first + f64::from(index)) * interval)
        .take_while(move |&value| value <= last)
}

/// The power of ten at or below `value`.
fn exponent(value: f64) -> i32 {
    (value.abs().log10() + 1e-9).floor() as i32
}

/// `value` with the digits that tell multiples of `interval` apart, on an axis that reaches to `largest`.
fn decimal(value: f64, interval: f64, largest: f64) -> String {
    let digits = |above: i32| usize::try_from(above - exponent(interval)).unwrap_or(0);
    if value.abs() < 0.5 * interval {
        "0".to_owned()
    } else if (1e-3..1e5).contains(&largest) {
        format!("{value:.*}", digits(0))
    } else {
        format!("{value:.*e}", digits(exponent(value)))
    }
}

/// The tick at `digit` x 10^`exponent`.
fn power(digit: u32, exponent: i32) -> Tick {
    let value = match exponent {
        // Dividing, since the negative powers of ten are not exact.
        ..0 => f64::from(digit) / 10_f64.powi(-exponent),
        _ => f64::from(digit) * 10_f64.powi(exponent),
    };
    let label = match exponent {
        -3..5 => value.to_string(),
        _ => format!("{digit}e{exponent}"),
    };
    Tick { value, label }
}

/// `step` with commas between the thousands.
pub(super) fn thousands(step: f64) -> String {
    let digits = format!("{:.0}", step.abs());
    let mut text = String::from(if step < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], scale: Scale, expect: &str) {
        let axis = Axis::new(values.iter().copied(), scale);
        let labels: Vec<_> = axis.ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(labels.join(" "), expect);
        assert!(axis.positions.start < axis.positions.end);
    }

    #[test]
    fn ticks_are_round() {
        check(&[0.42, 1.05], Scale::Fitted, "0.4 0.6 0.8 1.0");
        check(&[0.4212, 0.4351], Scale::Fitted, "0.425 0.430 0.435");
        check(&[0.0, 1.5e-4], Scale::FromZero, "0 5e-5 1.0e-4 1.5e-4");
        check(&[-3.0, 3.0], Scale::Fitted, "-2 0 2");
        check(&[2e6, 9e6], Scale::Fitted, "2e6 4e6 6e6 8e6");
        check(&[1.0, 12_000.0], Scale::Steps, "5,000 10,000");
        check(&[1.0, 3.0], Scale::Steps, "1 2 3");
    }

    #[test]
    fn a_wide_spread_is_logarithmic() {
        check(&[0.3, 45.0], Scale::Fitted, "0.5 1 2 5 10 20 50");
        check(&[1e-4, 1e3], Scale::Fitted, "0.001 0.1 10 1000");
        check(&[1e-4, 10.0], Scale::FromZero, "0 5 10");
        check(&[0.0, 1e3], Scale::Fitted, "0 500 1000");
        check(&[1.0, 60.0], Scale::Linear, "0 20 40 60");
    }

    #[test]
    fn names_stand_at_equal_distances() {
        let axis = Axis::names(["1", "2", "12"].map(String::from).to_vec());
        let places = |axis: &Axis| [0.0, 1.0, 2.0].map(|index| axis.map(&index, (0, 300)));
        assert_eq!(places(&axis), [50, 150, 250]);
        assert_eq!(axis.format_ext(&2.0), "12");
        assert_eq!(places(&axis.reversed()), [250, 150, 50]);
    }

    #[test]
    fn odd_values_have_an_axis_too() {
        for scale in [Scale::Fitted, Scale::Linear, Scale::FromZero, Scale::Steps] {
            for values in [
                &[][..],
                &[0.0],
                &[-0.5, -0.5],
                &[0.7, 0.7],
                &[f64::NAN, f64::INFINITY, f64::MIN],
                &[5e-324],
                &[1e-320, 1e-310],
                &[-1e100, 1e100],
                &[1e-100, 1e100],
                &[1.0, 1.0 + f64::EPSILON],
                &[1e18, 1e18 + 512.0],
                &[u64::MAX as f64],
            ] {
                let axis = Axis::new(values.iter().copied(), scale);
                assert!(
                    axis.positions.start < axis.positions.end,
                    "{values:?}: {axis:?}"
                );
                assert!(axis.ticks.len() <= 20, "{values:?}: {axis:?}");
                for tick in &axis.ticks {
                    assert!(
                        (0..=1000).contains(&axis.map(&tick.value, (0, 1000))),
                        "{values:?}: {axis:?}"
                    );
                }
            }
        }
    }
}
