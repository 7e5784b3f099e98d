//! Operations of our own in libtorch's graph of gradients.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::Result;
use crate::ffi::{check, ext_with_backward, handle, handles, message, panic_message};

/// Gives `output`, which the caller computed of `inputs`, a way back through `backward`.
///
/// `backward` is called with the inputs, then the `intermediates`, and the contiguous gradient of the output;
/// it returns one gradient an input, in order.
/// Inputs and intermediates are kept until then, and freed as libtorch frees what it saves.
/// Where no input requires a gradient, or inside `no_grad`, nothing is kept.
///
/// `backward` need not be `Sync`: whichever thread goes back, libtorch locks the node of the graph while it calls it.
///
/// # Errors
/// If libtorch refuses, in its words.
pub fn with_backward<F>(
    output: Tensor,
    inputs: &[Tensor],
    intermediates: &[Tensor],
    backward: F,
) -> Result<Tensor>
where
    F: Fn(&[Tensor], &Tensor) -> Vec<Tensor> + Send + 'static,
{
    let state = Box::new(State {
        inputs: inputs.len(),
        backward,
    });
    let mut result = std::ptr::null_mut();
    // SAFETY: lists of live handles; the C++ side owns `state` from here on and drops it once, with the function
    // of its type; on success `result` is a new tensor that is ours.
    unsafe {
        check(ext_with_backward(
            handle(&output),
            handles(inputs).as_ptr(),
            inputs.len(),
            handles(intermediates).as_ptr(),
            intermediates.len(),
            Box::into_raw(state).cast(),
            call::<F>,
            drop_state::<F>,
            &mut result,
        ))?;
        Ok(Tensor::from_ptr(result))
    }
}

struct State<F> {
    inputs: usize,
    backward: F,
}

unsafe extern "C" fn drop_state<F>(state: *mut c_void) {
    // SAFETY: `state` came from `Box::into_raw` of this type, and this is the only call for it.
    drop(unsafe { Box::from_raw(state.cast::<State<F>>()) });
}

unsafe extern "C" fn call<F: Fn(&[Tensor], &Tensor) -> Vec<Tensor>>(
    state: *mut c_void,
    saved: *const *mut C_tensor,
    saved_count: usize,
    grad: *mut C_tensor,
    grads: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: `state` is alive and of this type, and nobody changes it. One thread at a time is here, for
    // `CppNode::apply` holds the mutex of the node that owns it.
    let state = unsafe { &*state.cast::<State<F>>() };
    let body = || {
        // SAFETY: `saved` is a list of `saved_count` live handles; the clones own themselves.
        let (saved, grad): (Vec<Tensor>, Tensor) = unsafe {
            let saved = std::slice::from_raw_parts(saved, saved_count).iter();
            (
                saved.map(|saved| Tensor::clone_from_ptr(*saved)).collect(),
                Tensor::clone_from_ptr(grad),
            )
        };
        tch::no_grad(|| (state.backward)(&saved, &grad))
    };
    let results = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(results) if results.len() == state.inputs => results,
        Ok(results) => {
            return message(&format!(
                "a backward function gave {} gradients for {} inputs",
                results.len(),
                state.inputs
            ));
        }
        Err(panic) => return panic_message(panic, "a backward function panicked"),
    };
    for (i, result) in results.into_iter().enumerate() {
        // SAFETY: `grads` has room for one handle an input; the C++ side takes each over.
        unsafe { *grads.add(i) = handle(&result) };
        std::mem::forget(result);
    }
    std::ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    /// `a * b` with a gradient of `a` that is wrong on purpose: ten times too large.
    fn product(a: &Tensor, b: &Tensor) -> Tensor {
        let output = tch::no_grad(|| a * b);
        let inputs = [a.shallow_clone(), b.shallow_clone()];
        let ten = Tensor::from(10.0f32);
        with_backward(output, &inputs, &[ten], |saved, grad| {
            let [a, b, ten] = saved else {
                panic!("three were saved")
            };
            vec![grad * b * ten, grad * a]
        })
        .unwrap()
    }

    #[test]
    fn backward_is_ours_and_composes() {
        let (a, b) = (leaf(&[2.0, 3.0]), leaf(&[5.0, 7.0]));
        let y = product(&(&a * 2.0), &b);
        assert_eq!(Vec::<f32>::try_from(&y).unwrap(), [20.0, 42.0]);
        (y * 3.0).sum(Kind::Float).backward();
        assert_eq!(
            Vec::<f32>::try_from(a.grad()).unwrap(),
            [300.0, 420.0],
            "3 * b * 10 * 2"
        );
        assert_eq!(Vec::<f32>::try_from(b.grad()).unwrap(), [12.0, 18.0]);
    }

    #[test]
    fn nothing_is_kept_without_gradients() {
        let (a, b) = (leaf(&[2.0]), leaf(&[5.0]));
        assert!(!tch::no_grad(|| product(&a, &b)).requires_grad());
        assert!(
            !product(&Tensor::from_slice(&[2f32]), &Tensor::from_slice(&[5f32])).requires_grad()
        );
    }

    #[test]
    fn state_is_dropped_with_the_graph() {
        let alive = std::sync::Arc::new(());
        let a = leaf(&[1.0]);
        let inner = alive.clone();
        let output = tch::no_grad(|| &a * 2.0);
        let y = with_backward(output, &[a.shallow_clone()], &[], move |_, grad| {
            let _alive = &inner;
            vec![grad * 2.0]
        });
        assert_eq!(std::sync::Arc::strong_count(&alive), 2);
        drop(y);
        assert_eq!(std::sync::Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_panic_on_the_way_back_is_an_error() {
        let a = leaf(&[1.0]);
        let output = tch::no_grad(|| &a * 2.0);
        let fails = |_: &[Tensor], _: &Tensor| -> Vec<Tensor> { panic!("no way back") };
        let y = with_backward(output, &[a.shallow_clone()], &[], fails).unwrap();
        let error = y.f_backward().unwrap_err().to_string();
        assert!(error.contains("no way back"), "{error}");
        let output = tch::no_grad(|| &a * 2.0);
        let y = with_backward(output, &[a.shallow_clone()], &[], |_, _| vec![]).unwrap();
        let error = y.f_backward().unwrap_err().to_string();
        assert!(error.contains("0 gradients for 1 inputs"), "{error}");
    }
}
