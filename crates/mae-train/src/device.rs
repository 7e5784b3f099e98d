//! Which device a run uses.

use anyhow::{Result, bail, ensure};
use tch::Device;

/// The device of that name: `auto` (CUDA if there is any), `cpu`, `cuda`, or `cuda:N`.
///
/// `key` is where the name was given, `run.device` or `--device`.
///
/// # Errors
/// If the name is none of these, or there is no such device; with the key, and what to give it here.
pub fn find(key: &str, name: &str) -> Result<Device> {
    let on = |device: &str| match key.starts_with("--") {
        true => format!("{key} {device}"),
        false => format!("--set {key}={device}"),
    };
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let index = match name {
        "auto" | "cuda" => 0,
        _ => match name
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
        {
            Some(index) => index,
            None => bail!(
                "`{key}` is {name:?}, expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"; go on with {}",
                on("auto")
            ),
        },
    };
    let library = torch_ext::load_cuda();
    let devices = match library {
        Ok(true) => tch::Cuda::device_count(),
        Ok(false) | Err(_) => 0,
    };
    if name == "auto" && devices == 0 {
        if let Err(error) = library {
            log::warn!("computing on the CPU, for libtorch's CUDA library does not load: {error}");
        }
        return Ok(Device::Cpu);
    }
    ensure!(
        library?,
        "`{key}` is {name:?}, but this libtorch has no CUDA library; go on with {}, or install a PyTorch that has one (in \
         the sources: cargo xtask setup --cuda)",
        on("cpu")
    );
    ensure!(
        devices > 0,
        "`{key}` is {name:?}, but no CUDA device answers here; go on with {}",
        on("cpu")
    );
    ensure!(
        (index as i64) < devices,
        "`{key}` is {name:?}, but of CUDA devices there are {devices} here, counted from cuda:0; go on with {} or {}",
        on("cuda:0"),
        on("cpu")
    );
    Ok(Device::Cuda(index))
}

/// The name that [`find`] takes for `device`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// Lets CUDA compute products that are in f32 at all in TF32: 10 bits of mantissa are the norm for training.
///
/// # Errors
/// If libtorch refuses.
pub fn prefer_speed(device: Device) -> Result<()> {
    if let Device::Cuda(_) = device {
        torch_ext::set_float32_matmul_precision(torch_ext::MatmulPrecision::High)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_here_is_refused_with_what_to_give_instead() {
        let message = |key: &str, name: &str| find(key, name).unwrap_err().to_string();
        for name in ["cuda:250", "mps"] {
            let found = message("run.device", name);
            let expected = match name {
                "mps" => "--set run.device=auto",
                _ => "--set run.device=cpu",
            };
            assert!(
                found.contains(&format!("`run.device` is {name:?}")),
                "{found}"
            );
            assert!(found.contains(expected), "{found}");
        }
        let found = message("--device", "cuda:250");
        assert!(
            found.contains("--device cpu") && !found.contains("--set"),
            "{found}"
        );
        assert_eq!(find("run.device", "cpu").unwrap(), Device::Cpu);
    }
}
