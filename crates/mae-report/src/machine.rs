//! Where something was measured.

use std::{env, fs, process::Command, thread};

use serde::{Deserialize, Serialize};

/// What a reader of measurements must know of the computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, with its family and model where the system says them.
    pub cpu: String,
    /// Cores that a program may use.
    pub cores: usize,
    /// Bytes of memory, where the system says so.
    pub memory: Option<u64>,
    /// The operating system and its kernel.
    pub os: String,
}

impl Machine {
    /// The one that this runs on; what it does not say is `unknown`.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let name = value(&read("/etc/os-release"), "PRETTY_NAME", '=')
            .unwrap_or_else(|| env::consts::OS.to_string());
        let kernel = output("uname", &["-sr"]).unwrap_or_else(|| env::consts::ARCH.to_string());
        Self {
            cpu: processor(&read("/proc/cpuinfo"))
                .or_else(|| output("sysctl", &["-n", "machdep.cpu.brand_string"]))
                .unwrap_or_else(|| "unknown".to_string()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: value(&read("/proc/meminfo"), "MemTotal", ':')
                .and_then(|kib| kib.strip_suffix("kB")?.trim().parse().ok())
                .map(|kib: u64| kib * 1024),
            os: format!("{name}, {kernel}"),
        }
    }
}

/// The name in Linux's `cpuinfo`, with the family and the model, for virtual machines hide what they run on.
fn processor(cpuinfo: &str) -> Option<String> {
    let name = value(cpuinfo, "model name", ':')?;
    let number = |key: &str| value(cpuinfo, key, ':');
    Some(match (number("cpu family"), number("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    })
}

/// The value of `key` in lines of `key SEPARATOR value`.
fn value(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().trim_matches('"').to_string())
        .filter(|value| !value.is_empty())
}

/// What a program that succeeds prints, if anything.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_lines() {
        let text = "model\t\t: 2\nmodel name\t: A CPU 3: fast\nempty :\n";
        assert_eq!(
            value(text, "model name", ':').as_deref(),
            Some("A CPU 3: fast")
        );
        assert_eq!(value(text, "empty", ':'), None);
        assert_eq!(processor(text).as_deref(), Some("A CPU 3: fast"));
        let text = format!("cpu family : 26\n{text}");
        let named = "A CPU 3: fast (family 26, model 2)";
        assert_eq!(processor(&text).as_deref(), Some(named));
        assert_eq!(
            value("NAME=\"An OS\"", "NAME", '=').as_deref(),
            Some("An OS")
        );
    }
}
