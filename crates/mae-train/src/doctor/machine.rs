//! What the machine has: cores, memory, disk.
//!
//! Memory is known on Linux and of CUDA devices, disk on Unix; elsewhere the answers are `None`.

use std::fs;
use std::path::Path;
use std::thread;

use serde::Serialize;
use tch::Device;

/// A device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceMemory {
    /// Bytes that nobody has taken.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Whether a GPU answers.
pub fn has_gpu() -> bool {
    matches!(
        crate::device::find("run.device", "auto"),
        Ok(Device::Cuda(_))
    )
}

/// The memory of a device; of the CPU what its system, or the process' control group, has.
pub fn memory(device: Device) -> Option<DeviceMemory> {
    match device {
        Device::Cuda(index) => torch_ext::cuda_memory(index)
            .ok()
            .map(|(free, total)| DeviceMemory { free, total }),
        _ => host_memory(),
    }
}

/// Bytes of main memory that this process has now.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes of main memory that this process has had.
pub fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// Bytes that can be written at `path`, or where it would be made.
pub fn free_disk(path: &Path) -> Option<u64> {
    let place = std::path::absolute(path).ok()?;
    let place = place.ancestors().find(|place| place.exists())?;
    #[cfg(unix)]
    return rustix::fs::statvfs(place)
        .ok()
        .map(|disk| disk.f_bavail * disk.f_frsize);
    #[cfg(not(unix))]
    return None;
}

fn status(key: &str) -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, key)
}

/// Bytes of `key` in lines of `key NUMBER kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

fn host_memory() -> Option<DeviceMemory> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let system = DeviceMemory {
        free: kib(&meminfo, "MemAvailable:")?,
        total: kib(&meminfo, "MemTotal:")?,
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(limit(system, &groups, Path::new("/sys/fs/cgroup")))
}

/// The least of what the system and the control groups that `groups` names, in the hierarchy at `root`, leave.
fn limit(system: DeviceMemory, groups: &str, root: &Path) -> DeviceMemory {
    // Of version 2 there is one line, `0::/PATH`; of version 1 one that names the controller.
    let found = groups
        .lines()
        .find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => Some((root.to_path_buf(), path, ["memory.max", "memory.current"])),
            [_, "memory", path] => {
                let files = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
                Some((root.join("memory"), path, files))
            }
            _ => None,
        });
    let Some((root, path, [limit, usage])) = found else {
        return system;
    };
    let group = root.join(path.trim_start_matches('/'));
    let mut memory = system;
    // A group is bound by those that it is in, too; in a container only the root may be there.
    for group in group.ancestors().take_while(|at| at.starts_with(&root)) {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let (Some(limit), Some(usage)) = (number(limit), number(usage)) else {
            continue;
        };
        let stat = read("memory.stat").unwrap_or_default();
        // The system takes it back when it is needed.
        let cache = stat
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file "))
            .and_then(|bytes| bytes.trim().parse().ok())
            .unwrap_or(0);
        memory.total = memory.total.min(limit);
        let free = limit.saturating_sub(usage.saturating_sub(cache));
        memory.free = memory.free.min(free);
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: DeviceMemory = DeviceMemory {
        free: 8000,
        total: 10_000,
    };

    #[test]
    fn control_groups_bind_those_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let check = |groups: &str, free, total| {
            let found = limit(SYSTEM, groups, folder.path());
            assert_eq!(found, DeviceMemory { free, total }, "{groups}");
        };
        check("", 8000, 10_000);
        write("a/memory.max", "6000\n");
        write("a/memory.current", "3000\n");
        write("a/memory.stat", "anon 1\ninactive_file 1000\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        check("0::/", 8000, 10_000);
        check("0::/a/b\n", 4000, 6000);
        // A path of the host's that the container does not see.
        check("0::/elsewhere\n", 8000, 10_000);
        write("memory/c/memory.limit_in_bytes", "500\n");
        write("memory/c/memory.usage_in_bytes", "600\n");
        check("3:cpu:/c\n2:memory:/c\n", 0, 500);
    }

    #[test]
    fn this_machine_has_what_every_machine_has() {
        assert!(cores() >= 1);
        let folder = tempfile::tempdir().unwrap();
        if cfg!(unix) {
            assert!(free_disk(&folder.path().join("not/there/yet")).is_some());
        }
        if cfg!(target_os = "linux") {
            let memory = memory(Device::Cpu).unwrap();
            assert!(0 < memory.free && memory.free <= memory.total, "{memory:?}");
            let (now, peak) = (resident().unwrap(), peak_resident().unwrap());
            assert!(1 << 20 < now && now < memory.total && now / 2 < peak);
        }
    }
}
