//! Automatic mixed precision for one device and one dtype.

use crate::ffi::{check, ext_autocast_enter, ext_autocast_exit, ext_autocast_state};
use crate::{Error, Result};
use tch::{Device, Kind};

// The numbers are c10::ScalarType's, part of libtorch's file formats and so fixed.
const HALF: i8 = 5;
const BFLOAT16: i8 = 15;

/// Runs `body` with autocast on for `device`: matrix products in `kind`, sums and norms in float32.
///
/// `Kind::Float` turns autocast off inside `body`, whatever is around it.
/// Calls nest, with other dtypes too; the state before is restored even when `body` panics.
/// Autocast belongs to the calling thread.
///
/// # Errors
/// If `kind` is not one of `Float`, `BFloat16` and `Half`, or `device` is neither CPU nor CUDA.
pub fn autocast<T>(device: Device, kind: Kind, body: impl FnOnce() -> T) -> Result<T> {
    let _guard = Guard::enter(device, kind)?;
    Ok(body())
}

/// What the calling thread computes matrix products in on `device`: `Float` outside of [`autocast`].
///
/// # Errors
/// If `device` is neither CPU nor CUDA.
pub fn autocast_kind(device: Device) -> Result<Kind> {
    let (_, enabled, dtype) = state(device)?;
    match (enabled, dtype) {
        (false, _) => Ok(Kind::Float),
        (true, HALF) => Ok(Kind::Half),
        (true, BFLOAT16) => Ok(Kind::BFloat16),
        (true, dtype) => Err(Error(format!(
            "autocast is to libtorch's dtype {dtype}: expected that of bfloat16, {BFLOAT16}, or of float16, {HALF}"
        ))),
    }
}

/// The number that libtorch has for the kind of device, whether autocast is on, and its dtype.
fn state(device: Device) -> Result<(i8, bool, i8)> {
    let device = match device {
        Device::Cpu => 0,
        Device::Cuda(_) => 1,
        other => {
            return Err(Error(format!(
                "autocast knows CPU and CUDA devices, not {other:?}"
            )));
        }
    };
    let (mut enabled, mut dtype) = (false, 0);
    // SAFETY: both pointers are valid for the call.
    check(unsafe { ext_autocast_state(device, &mut enabled, &mut dtype) })?;
    Ok((device, enabled, dtype))
}

/// Restores the state that it found when dropped. Private, so that guards end in the order they nest.
struct Guard {
    device: i8,
    enabled: bool,
    dtype: i8,
}

impl Guard {
    fn enter(device: Device, kind: Kind) -> Result<Self> {
        let (device, enabled, dtype) = state(device)?;
        let (on, wanted) = match kind {
            Kind::Float => (false, dtype),
            Kind::Half => (true, HALF),
            Kind::BFloat16 => (true, BFLOAT16),
            _ => {
                return Err(Error(format!(
                    "autocast to {kind:?}: expected Float, BFloat16 or Half"
                )));
            }
        };
        // SAFETY: plain values.
        check(unsafe { ext_autocast_enter(device, on, wanted) })?;
        Ok(Self {
            device,
            enabled,
            dtype,
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: plain values. Setting thread-local flags to values read from them cannot fail.
        let _ = check(unsafe { ext_autocast_exit(self.device, self.enabled, self.dtype) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn product_kind(weight: &Tensor) -> Kind {
        weight.matmul(weight).kind()
    }

    #[test]
    fn nests_with_other_dtypes_and_restores() {
        let weight = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert_eq!(product_kind(&weight), Kind::Float);
        autocast(Device::Cpu, Kind::BFloat16, || {
            assert_eq!(product_kind(&weight), Kind::BFloat16);
            assert_eq!(autocast_kind(Device::Cpu).unwrap(), Kind::BFloat16);
            // The cached bfloat16 copy of `weight` must not be used here, nor the float16 one after.
            autocast(Device::Cpu, Kind::Half, || {
                assert_eq!(product_kind(&weight), Kind::Half);
                assert_eq!(autocast_kind(Device::Cpu).unwrap(), Kind::Half);
            })
            .unwrap();
            assert_eq!(product_kind(&weight), Kind::BFloat16);
            autocast(Device::Cpu, Kind::Float, || {
                assert_eq!(product_kind(&weight), Kind::Float)
            })
            .unwrap();
            assert_eq!(product_kind(&weight), Kind::BFloat16);
        })
        .unwrap();
        assert_eq!(product_kind(&weight), Kind::Float);
        assert_eq!(autocast_kind(Device::Cpu).unwrap(), Kind::Float);
    }

    #[test]
    fn sees_weights_that_changed_between_calls() {
        let mut weight = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let sum = |w: &Tensor| {
            autocast(Device::Cpu, Kind::BFloat16, || {
                w.matmul(w).sum(Kind::Float).double_value(&[])
            })
            .unwrap()
        };
        assert_eq!(sum(&weight), 8.0);
        tch::no_grad(|| {
            let _ = weight.fill_(2.0);
        });
        assert_eq!(sum(&weight), 32.0, "a stale cast was used");
    }

    #[test]
    fn restores_after_a_panic() {
        let caught =
            std::panic::catch_unwind(|| autocast(Device::Cpu, Kind::BFloat16, || panic!("inside")));
        assert!(caught.is_err());
        let a = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        assert_eq!(product_kind(&a), Kind::Float);
    }

    #[test]
    fn refuses_what_is_no_lower_precision() {
        let error = autocast(Device::Cpu, Kind::Int64, || ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("expected Float, BFloat16 or Half"),
            "{error}"
        );
    }
}
