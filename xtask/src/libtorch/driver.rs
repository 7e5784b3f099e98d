//! Is there an NVIDIA GPU that would answer?

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

/// True where an NVIDIA driver is loaded and its library can be found.
///
/// Not so where `CUDA_VISIBLE_DEVICES` hides every GPU: to CUDA, there is none then.
pub fn answers() -> bool {
    if env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|devices| ["", "-1"].contains(&devices.trim())) {
        return false;
    }
    nvidia_smi_lists_a_gpu() || (kernel_driver_is_loaded() && library_can_be_found())
}

fn nvidia_smi_lists_a_gpu() -> bool {
    Command::new("nvidia-smi")
        .arg("-L")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"GPU "))
}

/// libcuda.so.1 alone proves nothing: images for CUDA development carry it on machines without a GPU.
fn kernel_driver_is_loaded() -> bool {
    // The last is how Windows' GPUs appear in its subsystem for Linux.
    ["/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"]
        .iter()
        .any(|path| Path::new(path).exists())
}

fn library_can_be_found() -> bool {
    let from_environment = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/run/opengl-driver/lib",
    ];
    env::split_paths(&from_environment)
        .chain(usual.iter().map(Into::into))
        .any(|directory| directory.join("libcuda.so.1").exists())
}
