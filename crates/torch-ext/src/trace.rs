//! TorchScript modules, recorded from what runs here.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::null_mut;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{check, ext_save_traced, handle, panic_message};
use crate::{Error, Result};

/// What a recorded module has besides its `forward`.
///
/// tch's own tracing knows no tensors but constants, which PyTorch can neither list, convert nor move.
#[derive(Debug, Default)]
pub struct Traced<'a> {
    /// Name of the module's class, an identifier.
    pub class_name: &'a str,
    /// Tensors that PyTorch calls parameters, by name: `blocks.0.norm1.weight` is `weight` of a module in a module.
    /// None may require a gradient.
    pub parameters: BTreeMap<String, Tensor>,
    /// Tensors that it calls buffers.
    pub buffers: BTreeMap<String, Tensor>,
    /// Strings that the module has as attributes.
    pub attributes: BTreeMap<&'a str, String>,
}

/// Calls `forward` once, without gradient, and writes what it did to `input` as a TorchScript module.
///
/// What `forward` asks a tensor for, its size above all, is a constant of the module: use -1 and broadcasting where a
/// size shall be free.
/// A tensor that it uses and `module` does not hold becomes a constant, too.
///
/// # Errors
/// If `forward` panics or libtorch refuses, in its words, or `path` cannot be written.
pub fn save_traced<F>(path: &Path, module: &Traced, input: &Tensor, forward: F) -> Result<()>
where
    F: FnOnce(&Tensor) -> Tensor,
{
    let path = c_string(&path.to_string_lossy())?;
    let class_name = c_string(module.class_name)?;
    let tensors = || {
        (module.parameters.iter().map(|named| (named, false)))
            .chain(module.buffers.iter().map(|named| (named, true)))
    };
    let names = c_strings(tensors().map(|((name, _), _)| name.as_str()))?;
    let tensor_handles: Vec<_> = tensors().map(|((_, tensor), _)| handle(tensor)).collect();
    let is_buffer: Vec<bool> = tensors().map(|(_, is_buffer)| is_buffer).collect();
    let keys = c_strings(module.attributes.keys().copied())?;
    let values = c_strings(module.attributes.values().map(String::as_str))?;
    let mut forward = Some(forward);
    // SAFETY: lists as long as said, of zero-terminated strings and live handles, and a `state` of the type that
    // `call::<F>` takes; all outlive the call, which keeps none of the pointers.
    check(unsafe {
        ext_save_traced(
            path.as_ptr(),
            class_name.as_ptr(),
            pointers(&names).as_ptr(),
            tensor_handles.as_ptr(),
            is_buffer.as_ptr(),
            names.len(),
            pointers(&keys).as_ptr(),
            pointers(&values).as_ptr(),
            keys.len(),
            handle(input),
            (&raw mut forward).cast(),
            call::<F>,
        )
    })
}

unsafe extern "C" fn call<F: FnOnce(&Tensor) -> Tensor>(
    state: *mut c_void,
    input: *mut C_tensor,
    output: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: `state` is alive, of this type, and nobody else uses it meanwhile.
    let forward = unsafe { &mut *state.cast::<Option<F>>() };
    let body = || {
        let forward = forward.take().expect("a trace calls once");
        // SAFETY: `input` is a live handle; the clone owns itself.
        forward(&unsafe { Tensor::clone_from_ptr(input) })
    };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => {
            // SAFETY: there is room for one handle; the C++ side takes it over.
            unsafe { *output = handle(&result) };
            std::mem::forget(result);
            null_mut()
        }
        Err(panic) => panic_message(panic, "the traced function panicked"),
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| Error(format!("{text:?}: {error}")))
}

fn c_strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>> {
    texts.map(c_string).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{CModule, Device, Kind};

    fn numbers(count: i64) -> Tensor {
        Tensor::arange(count, (Kind::Float, Device::Cpu))
    }

    /// `x * weight + bias` with both in a module in a module.
    fn module() -> Traced<'static> {
        Traced {
            class_name: "Line",
            parameters: BTreeMap::from([("parts.0.weight".into(), numbers(3) + 2.0)]),
            buffers: BTreeMap::from([("parts.0.bias".into(), numbers(3) * 0.5)]),
            attributes: BTreeMap::from([("note", "a line".into())]),
        }
    }

    fn save(path: &Path, module: &Traced) -> Result<()> {
        let (weight, bias) = (
            &module.parameters["parts.0.weight"],
            &module.buffers["parts.0.bias"],
        );
        save_traced(path, module, &numbers(6).view([2, 3]), |x| {
            x * weight + bias
        })
    }

    #[test]
    fn what_was_recorded_runs_on_other_numbers_and_batches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line.pt");
        save(&path, &module()).unwrap();
        let loaded = CModule::load(&path).unwrap();
        for batch in [1, 5] {
            let x = numbers(3 * batch).view([batch, 3]) - 4.0;
            let expected = &x * (numbers(3) + 2.0) + numbers(3) * 0.5;
            assert_eq!(loaded.forward_ts(&[x]).unwrap(), expected);
        }
        let parameters = loaded.named_parameters().unwrap();
        let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["parts.0.weight"]);
        assert!(!parameters[0].1.requires_grad());
    }

    #[test]
    fn tensors_of_the_module_are_no_constants() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line.pt");
        save(&path, &module()).unwrap();
        let mut loaded = CModule::load(&path).unwrap();
        // A constant would stay f32, and be refused or make the sum f32.
        loaded.to(Device::Cpu, Kind::Double, false);
        let x = Tensor::ones([1, 3], (Kind::Double, Device::Cpu));
        assert_eq!(loaded.forward_ts(&[x]).unwrap().kind(), Kind::Double);
    }

    #[test]
    fn what_cannot_be_recorded_is_told_and_the_next_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line.pt");
        let trains = Traced {
            parameters: BTreeMap::from([("weight".into(), numbers(3).set_requires_grad(true))]),
            ..module()
        };
        let error = save_traced(&path, &trains, &numbers(3), |x| x + 1.0).unwrap_err();
        assert!(
            error.to_string().contains("weight requires a gradient"),
            "{error}"
        );
        let error = save_traced(&path, &module(), &numbers(3), |_| panic!("on purpose"));
        assert!(error.unwrap_err().to_string().contains("on purpose"));
        assert!(!path.exists());
        let error = save(&folder.path().join("absent/line.pt"), &module()).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        save(&path, &module()).unwrap();
    }
}
