//! The memory of f32 tensors on the CPU, as slices.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// A new f32 tensor on the CPU to which there is no other handle, so that its values can be borrowed and changed.
///
/// ```
/// let mut values = torch_ext::Values::new(&[2, 2]);
/// values.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(values.into_tensor().double_value(&[1, 0]), 3.0);
/// ```
#[derive(Debug)]
pub struct Values(Tensor);

impl Values {
    /// A tensor of `size`, of whatever values its memory had.
    pub fn new(size: &[i64]) -> Self {
        Self(Tensor::empty(size, (Kind::Float, Device::Cpu)))
    }

    /// The tensor, to be shared.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `new` made that many f32 in a row, and `self` is the only way to them.
        unsafe { std::slice::from_raw_parts(data(&self.0), self.0.numel()) }
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(data(&self.0), self.0.numel()) }
    }
}

/// The values of a contiguous f32 tensor on the CPU.
///
/// # Safety
/// While the slice lives, nothing writes to the tensor's memory, resizes it or gives it other memory, through any of
/// its handles and views.
///
/// # Errors
/// If `tensor` is of another kind, elsewhere, or not contiguous.
pub unsafe fn as_slice(tensor: &Tensor) -> Result<&[f32]> {
    if !tensor.defined()
        || tensor.kind() != Kind::Float
        || tensor.device() != Device::Cpu
        || !tensor.is_contiguous()
    {
        return Err(Error(format!(
            "expected a contiguous float32 tensor on the CPU, found {tensor:?}"
        )));
    }
    // SAFETY: checked to be that many f32 in a row; the rest is the caller's.
    Ok(unsafe { std::slice::from_raw_parts(data(tensor), tensor.numel()) })
}

/// An empty tensor may have no memory.
fn data(tensor: &Tensor) -> *mut f32 {
    NonNull::new(tensor.data_ptr().cast()).map_or(NonNull::dangling().as_ptr(), NonNull::as_ptr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_of_contiguous_f32_only() {
        let mut values = Values::new(&[2, 2]);
        values.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        values[1] = 9.0;
        let tensor = values.into_tensor();
        // SAFETY: nothing changes these tensors.
        let values = |tensor: &Tensor| unsafe { as_slice(tensor).map(<[f32]>::to_vec) };
        assert_eq!(values(&tensor).unwrap(), [1.0, 9.0, 3.0, 4.0]);
        assert!(values(&tensor.tr()).is_err());
        assert!(values(&tensor.to_kind(Kind::Double)).is_err());
        assert!(values(&Tensor::new()).is_err());
        assert!(values(&Tensor::from_slice::<f32>(&[])).unwrap().is_empty());
        assert!(Values::new(&[0]).is_empty());
    }
}
