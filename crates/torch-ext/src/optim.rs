//! One pass over all parameters: AdamW, unscaling, norms.

use crate::ffi::{
    check, ext_clear_grads, ext_fused_adamw, ext_total_norm, ext_unscale, handle, handles,
};
use crate::{Error, Result};
use tch::Tensor;

/// The numbers of one AdamW step.
///
/// Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; multiplied by `lr`.
    pub weight_decay: f64,
}

/// AdamW's memory: one entry a parameter, in the parameters' order.
#[derive(Debug, Default)]
pub struct AdamWState {
    /// First moments, shaped as the parameters.
    pub exp_avgs: Vec<Tensor>,
    /// Second moments, shaped as the parameters.
    pub exp_avg_sqs: Vec<Tensor>,
    /// Updates made so far: one float32 each, on the parameter's device.
    pub steps: Vec<Tensor>,
}

impl AdamWState {
    /// The state before the first step.
    pub fn zeros_like(params: &[Tensor]) -> Self {
        tch::no_grad(|| Self {
            exp_avgs: params.iter().map(Tensor::zeros_like).collect(),
            exp_avg_sqs: params.iter().map(Tensor::zeros_like).collect(),
            steps: params
                .iter()
                .map(|p| Tensor::zeros([], (tch::Kind::Float, p.device())))
                .collect(),
        })
    }
}

/// One AdamW step on all `params`, in place and in one kernel.
///
/// `grad_scale` (one float32 on the device) divides every gradient first, in the same pass.
/// Where `found_inf` (likewise) is 1 nothing changes, the step counts included; the host need not know.
///
/// # Errors
/// If lengths, shapes, strides, dtypes or devices disagree; the message has the parameter's position.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    state: &mut AdamWState,
    step: &AdamW,
    grad_scale: Option<&Tensor>,
    found_inf: Option<&Tensor>,
) -> Result<()> {
    let lengths = [
        ("gradients", grads.len()),
        ("first moments", state.exp_avgs.len()),
        ("second moments", state.exp_avg_sqs.len()),
        ("step counts", state.steps.len()),
    ];
    if let Some((name, found)) = lengths.iter().find(|(_, length)| *length != params.len()) {
        return Err(Error(format!(
            "{} parameters but {found} {name}",
            params.len()
        )));
    }
    let optional = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null_mut(), handle);
    // SAFETY: five lists of `params.len()` handles and two optional ones, all alive during the call.
    // The C++ side checks that what the kernel walks as raw memory has one layout.
    check(unsafe {
        ext_fused_adamw(
            handles(params).as_ptr(),
            handles(grads).as_ptr(),
            handles(&state.exp_avgs).as_ptr(),
            handles(&state.exp_avg_sqs).as_ptr(),
            handles(&state.steps).as_ptr(),
            params.len(),
            step.lr,
            step.beta1,
            step.beta2,
            step.eps,
            step.weight_decay,
            optional(grad_scale),
            optional(found_inf),
        )
    })
}

/// Multiplies every gradient by `inv_scale` in place, and sets `found_inf` to 1 if any is not finite.
///
/// # Shapes
/// - `found_inf`, `inv_scale`: one float32 each, on the gradients' device
///
/// # Errors
/// If devices or dtypes disagree.
pub fn unscale(grads: &[Tensor], found_inf: &mut Tensor, inv_scale: &Tensor) -> Result<()> {
    // SAFETY: a list of `grads.len()` live handles, and two more.
    check(unsafe {
        ext_unscale(
            handles(grads).as_ptr(),
            grads.len(),
            handle(found_inf),
            handle(inv_scale),
        )
    })
}

/// The Euclidean norm over all elements of all `tensors`: a scalar on their device, not read back.
///
/// # Errors
/// If `tensors` is empty or they lie on several devices.
pub fn total_norm(tensors: &[Tensor]) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: a list of `tensors.len()` live handles; on success `result` is a new tensor that is ours.
    unsafe {
        check(ext_total_norm(
            handles(tensors).as_ptr(),
            tensors.len(),
            &mut result,
        ))?;
        Ok(Tensor::from_ptr(result))
    }
}

/// Forgets the gradients of `params`: the next backward pass writes them instead of adding to zeros.
///
/// # Errors
/// If libtorch refuses, in its words.
pub fn clear_grads(params: &[Tensor]) -> Result<()> {
    // SAFETY: a list of `params.len()` live handles.
    check(unsafe { ext_clear_grads(handles(params).as_ptr(), params.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
    const STEP: AdamW = AdamW {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.05,
    };

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view([-1])).unwrap()
    }

    // torch.optim.AdamW(lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05) of torch 2.13.0, float64
    // printed, on [1, -2, 3] with gradients [0.5, -0.25, 2] and then [-1, 0.125, 0.5].
    const AFTER_TWO: [f64; 3] = [0.9268624186515808, -1.853713035583496, 2.7865781784057617];

    #[test]
    fn fused_adamw_equals_pytorch() {
        let params = [Tensor::from_slice(&[1f32, -2.0, 3.0])];
        let mut state = AdamWState::zeros_like(&params);
        for grad in [[0.5f32, -0.25, 2.0], [-1.0, 0.125, 0.5]] {
            fused_adamw(
                &params,
                &[Tensor::from_slice(&grad)],
                &mut state,
                &STEP,
                None,
                None,
            )
            .unwrap();
        }
        for (ours, theirs) in values(&params[0]).iter().zip(AFTER_TWO) {
            assert!((ours - theirs).abs() < 2e-7, "{ours} against {theirs}");
        }
        assert_eq!(values(&state.steps[0]), [2.0]);
    }

    #[test]
    fn grad_scale_divides_and_found_inf_skips() {
        let run = |grad: f32, scale: Option<f32>, inf: Option<f32>| {
            let params = [Tensor::from_slice(&[1f32])];
            let mut state = AdamWState::zeros_like(&params);
            // SGD-like sensitivity to scale: a large eps keeps AdamW from normalising it away.
            let step = AdamW { eps: 1.0, ..STEP };
            let scale = scale.map(|s| Tensor::from_slice(&[s]));
            let inf = inf.map(|f| Tensor::from_slice(&[f]));
            let grads = [Tensor::from_slice(&[grad])];
            fused_adamw(
                &params,
                &grads,
                &mut state,
                &step,
                scale.as_ref(),
                inf.as_ref(),
            )
            .unwrap();
            (values(&params[0])[0], values(&state.steps[0])[0])
        };
        assert_eq!(run(8.0, Some(8.0), None), run(1.0, None, None));
        assert_eq!(
            run(f32::NAN, None, Some(1.0)),
            (1.0, 0.0),
            "a skipped step changes nothing"
        );
        assert_eq!(run(1.0, None, Some(0.0)), run(1.0, None, None));
    }

    #[test]
    fn refuses_what_the_kernel_would_misread() {
        let param = Tensor::zeros([2, 3], CPU);
        let check = |grad: Tensor, expected: &str| {
            let params = [param.shallow_clone()];
            let mut state = AdamWState::zeros_like(&params);
            let error = fused_adamw(&params, &[grad], &mut state, &STEP, None, None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Tensor::zeros([3, 2], CPU), "shape [3, 2]");
        check(Tensor::zeros([3, 2], CPU).tr(), "strides [1, 2]");
        check(
            Tensor::zeros([2, 3], (Kind::Double, Device::Cpu)),
            "dtype Double",
        );
        check(Tensor::new(), "undefined");
        let error = fused_adamw(
            &[param.shallow_clone()],
            &[],
            &mut AdamWState::default(),
            &STEP,
            None,
            None,
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("1 parameters but 0 gradients")
        );
    }

    #[test]
    fn unscale_scales_and_finds_the_non_finite() {
        let grads = [
            Tensor::from_slice(&[2f32, 4.0]),
            Tensor::from_slice(&[8f32]),
        ];
        let mut found_inf = Tensor::zeros([], CPU);
        let inv_scale = Tensor::from(0.5f32);
        unscale(&grads, &mut found_inf, &inv_scale).unwrap();
        assert_eq!(
            (values(&grads[0]), values(&grads[1])),
            (vec![1.0, 2.0], vec![4.0])
        );
        assert_eq!(values(&found_inf), [0.0]);
        unscale(
            &[Tensor::from_slice(&[1f32, f32::INFINITY])],
            &mut found_inf,
            &inv_scale,
        )
        .unwrap();
        assert_eq!(values(&found_inf), [1.0]);
    }

    #[test]
    fn total_norm_spans_all_tensors() {
        let norm = total_norm(&[
            Tensor::from_slice(&[3f32, 0.0]),
            Tensor::from_slice(&[4f32]),
        ])
        .unwrap();
        assert_eq!(values(&norm), [5.0]);
        assert!(total_norm(&[]).is_err());
    }

    #[test]
    fn cleared_gradients_are_undefined() {
        let param = Tensor::ones([2], CPU).set_requires_grad(true);
        (&param * 3.0).sum(Kind::Float).backward();
        assert_eq!(values(&param.grad()), [3.0, 3.0]);
        clear_grads(&[param.shallow_clone()]).unwrap();
        assert!(!param.grad().defined());
    }
}
