//! What must be settled before the first CUDA call.

use crate::Result;
use crate::ffi::{
    check, ext_cuda_compute_capability, ext_cuda_memory, ext_load_cuda,
    ext_set_float32_matmul_precision,
};
use std::ffi::CStr;

/// Loads libtorch's CUDA library if it is installed; says whether it is.
///
/// A binary is linked against the CPU library alone, so that it starts on machines without CUDA.
/// Call this before any question about CUDA: libtorch remembers its first answer.
///
/// # Errors
/// If the library is there and cannot be loaded, with the loader's message.
pub fn load_cuda() -> Result<bool> {
    let mut loaded = false;
    // SAFETY: the pointer is valid for the call; the library's initialisers are libtorch's own.
    check(unsafe { ext_load_cuda(&mut loaded) })?;
    Ok(loaded)
}

/// The compute capability of a CUDA device, for example `(8, 0)`; bfloat16 is native from 8 on.
///
/// # Errors
/// If no CUDA runtime is loaded, or there is no such device.
pub fn cuda_compute_capability(device: usize) -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are valid for the call.
    check(unsafe { ext_cuda_compute_capability(device as i32, &mut major, &mut minor) })?;
    Ok((major, minor))
}

/// Bytes of a CUDA device's memory that nobody has taken, and all of them.
///
/// # Errors
/// If no CUDA runtime is loaded, or there is no such device.
pub fn cuda_memory(device: usize) -> Result<(u64, u64)> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: both pointers are valid for the call.
    check(unsafe { ext_cuda_memory(device as i32, &mut free, &mut total) })?;
    Ok((free as u64, total as u64))
}

/// How exactly float32 matrix products are computed on hardware that has a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// IEEE float32 throughout.
    Highest,
    /// TensorFloat-32 where CUDA hardware has it: 10 bits of mantissa, several times faster.
    High,
}

/// Sets the precision of float32 matrix products for the whole process.
///
/// # Errors
/// If libtorch refuses, in its words.
pub fn set_float32_matmul_precision(precision: MatmulPrecision) -> Result<()> {
    let name: &CStr = match precision {
        MatmulPrecision::Highest => c"highest",
        MatmulPrecision::High => c"high",
    };
    // SAFETY: a zero-terminated string that outlives the call.
    check(unsafe { ext_set_float32_matmul_precision(name.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_cuda_answers_without_cuda() {
        let loaded = load_cuda().expect("an absent CUDA library is no error");
        if !loaded {
            eprintln!("no CUDA library here: only the answer `false` was tested");
            assert!(!tch::Cuda::is_available());
            assert!(cuda_compute_capability(0).is_err());
            assert!(cuda_memory(0).is_err());
        }
    }

    #[test]
    fn matmul_precision_is_accepted() {
        set_float32_matmul_precision(MatmulPrecision::High).unwrap();
        set_float32_matmul_precision(MatmulPrecision::Highest).unwrap();
    }
}
