//! The C interface of `cpp/torch_ext.cpp`.

use crate::{Error, Result};
use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

/// How autograd calls back: state, saved tensors, their number, the gradient of the output, and where the
/// gradients of the inputs go.
pub type Backward = unsafe extern "C" fn(
    state: *mut c_void,
    saved: *const *mut C_tensor,
    saved_count: usize,
    grad: *mut C_tensor,
    grads: *mut *mut C_tensor,
) -> *mut c_char;

/// How a traced function is called: state, its input, and where its new output goes.
pub type Forward = unsafe extern "C" fn(
    state: *mut c_void,
    input: *mut C_tensor,
    output: *mut *mut C_tensor,
) -> *mut c_char;

// The C++ functions receive tensor handles as tch holds them: pointers to at::Tensor.
unsafe extern "C" {
    fn ext_free(text: *mut c_char);
    pub fn ext_built_version() -> *mut c_char;
    pub fn ext_loaded_version() -> *mut c_char;
    fn ext_message(text: *const c_char, length: usize) -> *mut c_char;
    pub fn ext_with_backward(
        output: *mut C_tensor,
        inputs: *const *mut C_tensor,
        input_count: usize,
        intermediates: *const *mut C_tensor,
        intermediate_count: usize,
        state: *mut c_void,
        backward: Backward,
        drop: unsafe extern "C" fn(*mut c_void),
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub fn ext_autocast_state(device: i8, enabled: *mut bool, dtype: *mut i8) -> *mut c_char;
    pub fn ext_autocast_enter(device: i8, enabled: bool, dtype: i8) -> *mut c_char;
    pub fn ext_autocast_exit(device: i8, enabled: bool, dtype: i8) -> *mut c_char;
    pub fn ext_fused_adamw(
        params: *const *mut C_tensor,
        grads: *const *mut C_tensor,
        exp_avgs: *const *mut C_tensor,
        exp_avg_sqs: *const *mut C_tensor,
        steps: *const *mut C_tensor,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        grad_scale: *mut C_tensor,
        found_inf: *mut C_tensor,
    ) -> *mut c_char;
    pub fn ext_unscale(
        grads: *const *mut C_tensor,
        count: usize,
        found_inf: *mut C_tensor,
        inv_scale: *mut C_tensor,
    ) -> *mut c_char;
    pub fn ext_total_norm(
        tensors: *const *mut C_tensor,
        count: usize,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub fn ext_exponential(
        like: *mut C_tensor,
        seed: u64,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub fn ext_clear_grads(params: *const *mut C_tensor, count: usize) -> *mut c_char;
    pub fn ext_set_float32_matmul_precision(precision: *const c_char) -> *mut c_char;
    pub fn ext_cuda_compute_capability(
        device: i32,
        major: *mut i32,
        minor: *mut i32,
    ) -> *mut c_char;
    pub fn ext_save_traced(
        path: *const c_char,
        class_name: *const c_char,
        names: *const *const c_char,
        tensors: *const *mut C_tensor,
        is_buffer: *const bool,
        tensor_count: usize,
        keys: *const *const c_char,
        values: *const *const c_char,
        attribute_count: usize,
        input: *mut C_tensor,
        state: *mut c_void,
        forward: Forward,
    ) -> *mut c_char;
    pub fn ext_cuda_memory(
        device: i32,
        free_bytes: *mut usize,
        total_bytes: *mut usize,
    ) -> *mut c_char;
    pub fn ext_has_mkl() -> bool;
    pub fn ext_sgemm(
        m: i32,
        n: i32,
        k: i32,
        a_transposed: bool,
        a: *const f32,
        a_stride: i32,
        b_transposed: bool,
        b: *const f32,
        b_stride: i32,
        beta: f32,
        c: *mut f32,
        c_stride: i32,
    );
    pub fn ext_load_cuda(loaded: *mut bool) -> *mut c_char;
}

/// Turns the message that a C++ function returned into a result, and frees it.
pub fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: it is what a function of the C++ side answered.
    Err(Error(unsafe { take(message) }))
}

/// A text of the C++ side.
///
/// # Safety
/// It is null, or a zero-terminated string that the C++ side allocated and nobody else frees.
pub unsafe fn take(text: *mut c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe {
        let taken = CStr::from_ptr(text).to_string_lossy().into_owned();
        ext_free(text);
        taken
    }
}

/// The handle of a tensor, for a call that only borrows it.
pub fn handle(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

/// The handles of several tensors, for a call that only borrows them.
pub fn handles(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(handle).collect()
}

/// What a panic said, for the C++ side to free.
pub fn panic_message(panic: Box<dyn Any + Send>, unknown: &str) -> *mut c_char {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    message(
        text.or(panic.downcast_ref::<&str>().copied())
            .unwrap_or(unknown),
    )
}

/// A message that the C++ side may free.
pub fn message(text: &str) -> *mut c_char {
    // SAFETY: `text` is alive during the call, which copies it.
    unsafe { ext_message(text.as_ptr().cast(), text.len()) }
}
