//! Which device a run uses.

use anyhow::{Result, bail, ensure};
use tch::Device;

/// The device of that name: `auto` (CUDA if there is any), `cpu`, `cuda`, or `cuda:N`.
///
/// # Errors
/// If the name is none of these, or there is no such device.
pub fn find(name: &str) -> Result<Device> {
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
                "`run.device` is {name:?}, expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\""
            ),
        },
    };
    let has_library = torch_ext::load_cuda()?;
    let devices = if has_library {
        tch::Cuda::device_count()
    } else {
        0
    };
    if name == "auto" && devices == 0 {
        return Ok(Device::Cpu);
    }
    ensure!(
        has_library,
        "`run.device` is {name:?}, but this libtorch has no CUDA library; \
         install one with `cargo xtask setup --cuda`, or set run.device=cpu"
    );
    ensure!(
        (index as i64) < devices,
        "`run.device` is {name:?}, but {devices} CUDA devices answer; set run.device to one of them, or to cpu"
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
