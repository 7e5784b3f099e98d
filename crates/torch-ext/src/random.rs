//! Random numbers from a generator of their own.

use crate::ffi::{check, ext_exponential};
use crate::{Error, Result};
use std::ptr::null_mut;
use tch::{Device, Kind, Tensor};

/// Numbers of the exponential distribution of rate 1, drawn on `device`, f32.
///
/// `seed` alone names the numbers, for one size on one kind of device: libtorch's global random state is neither
/// read nor changed.
///
/// # Errors
/// If `size` is negative or too large, or `device` has no generators.
pub fn exponential(size: &[i64], seed: u64, device: Device) -> Result<Tensor> {
    let empty = Tensor::f_empty(size, (Kind::Float, device)).map_err(|e| Error(e.to_string()))?;
    let mut result = null_mut();
    // SAFETY: a live tensor, borrowed for the call, and a place for the result.
    check(unsafe { ext_exponential(crate::ffi::handle(&empty), seed, &mut result) })?;
    // SAFETY: the call succeeded, so `result` is a new tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_names_the_numbers() {
        let draw = |seed| exponential(&[4, 50_000], seed, Device::Cpu).unwrap();
        let first = draw(1);
        tch::manual_seed(5);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
    }

    #[test]
    fn the_global_state_is_left_alone() {
        let draw = || Tensor::rand([8], (Kind::Float, Device::Cpu));
        tch::manual_seed(3);
        let expected = (draw(), draw());
        tch::manual_seed(3);
        let first = draw();
        let _ = exponential(&[1000], 7, Device::Cpu).unwrap();
        assert_eq!((first, draw()), expected);
    }

    #[test]
    fn moments_are_the_distributions() {
        let numbers = exponential(&[1_000_000], 11, Device::Cpu).unwrap();
        let numbers = numbers.to_kind(Kind::Double);
        let mean = numbers.mean(Kind::Double).double_value(&[]);
        // Five deviations of the mean of a million: 0.005.
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
        let above = numbers.gt(1.0).to_kind(Kind::Double);
        let share = above.mean(Kind::Double).double_value(&[]);
        assert!((share - (-1.0f64).exp()).abs() < 0.0025, "{share}");
    }

    #[test]
    fn a_size_that_is_none_is_refused() {
        assert!(exponential(&[-1], 0, Device::Cpu).is_err());
    }
}
