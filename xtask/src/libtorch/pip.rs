//! Downloading wheels with the user's own pip: its index, mirror, proxy, certificates and cache apply.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{VERSION, cache::explain, pins::Pin};

/// Older ones take only one `--platform`.
const OLDEST_PIP: u32 = 21;

/// The Python for which wheels are chosen, whatever Python the user has: any would do, one makes it the same everywhere.
const PYTHON_VERSION: &str = "3.12";

/// What every glibc that wheels are built for is called, up to the one that torch's asks for:
/// pip takes each tag by its letter.
const GLIBC: [&str; 12] = [
    "manylinux1",
    "manylinux2010",
    "manylinux2014",
    "manylinux_2_5",
    "manylinux_2_12",
    "manylinux_2_17",
    "manylinux_2_18",
    "manylinux_2_24",
    "manylinux_2_25",
    "manylinux_2_26",
    "manylinux_2_27",
    "manylinux_2_28",
];

/// How the user's pip is started.
pub struct Pip {
    command: &'static [&'static str],
}

impl Pip {
    /// The first pip that answers.
    pub fn find() -> Option<Self> {
        const CANDIDATES: [&[&str]; 4] = [
            &["python3", "-m", "pip"],
            &["python", "-m", "pip"],
            &["pip3"],
            &["pip"],
        ];
        CANDIDATES.into_iter().map(|command| Self { command }).find(|pip| {
            let Ok(output) = pip.start().arg("--version").stderr(Stdio::null()).output() else { return false };
            match major_version(&String::from_utf8_lossy(&output.stdout)) {
                Some(version) if version >= OLDEST_PIP => true,
                Some(version) => {
                    eprintln!("{pip} is too old ({version}, at least {OLDEST_PIP} is needed): looking further");
                    false
                }
                None => false,
            }
        })
    }

    /// Downloads the wheels of `pins` into `directory`.
    ///
    /// # Errors
    /// If pip fails; what it says is on the terminal.
    pub fn download(&self, pins: &[Pin], directory: &Path) -> Result<()> {
        let list = directory.join("requirements.txt");
        let lines: String = pins.iter().map(requirement_line).collect();
        fs::write(&list, lines).map_err(|error| explain(error, "write", &list))?;

        let mut command = self.choose("download");
        command.args(["--no-deps", "--require-hashes"]);
        command
            .arg("--dest")
            .arg(directory)
            .arg("--requirement")
            .arg(&list);
        // pip collects downloads in the temporary directory, which may be small, and never cleans up if killed.
        command.env("TMPDIR", directory);
        // Standard output belongs to the command that set-up runs for.
        command.stdin(Stdio::null()).stdout(io::stderr());
        let status = command
            .status()
            .with_context(|| format!("cannot run {self}"))?;
        if !status.success() {
            bail!(
                "{self} could not download {}: see its message above; \
                 with `{self} config list` you see the index and proxy that it uses; \
                 or set LIBTORCH to a libtorch {VERSION} that you have",
                pins.iter()
                    .map(|pin| pin.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Ok(())
    }

    /// pip's `subcommand`, choosing from the wheels for the pinned system, whatever Python is running pip.
    pub fn choose(&self, subcommand: &str) -> Command {
        let mut command = self.start();
        command.args([subcommand, "--only-binary=:all:"]);
        command.args(["--implementation", "cp", "--python-version", PYTHON_VERSION]);
        command.args(["--abi", &format!("cp{}", PYTHON_VERSION.replace('.', ""))]);
        for glibc in GLIBC {
            command.args(["--platform", &format!("{glibc}_x86_64")]);
        }
        command
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_REQUIRE_VIRTUALENV", "0");
        command
    }

    fn start(&self) -> Command {
        let mut command = Command::new(self.command[0]);
        command.args(&self.command[1..]);
        command
    }
}

impl std::fmt::Display for Pip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.command.join(" "))
    }
}

fn requirement_line(pin: &Pin) -> String {
    format!(
        "{}=={} --hash=sha256:{}\n",
        pin.name, pin.version, pin.sha256
    )
}

/// `23` of `pip 23.2.1 from /usr/lib/python3/dist-packages/pip (python 3.11)`
fn major_version(answer: &str) -> Option<u32> {
    answer.strip_prefix("pip ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::pins;

    #[test]
    fn pips_version_is_read() {
        assert_eq!(
            major_version("pip 23.2.1 from /usr/lib/pip (python 3.11)\n"),
            Some(23)
        );
        assert_eq!(major_version("/usr/bin/python3: No module named pip"), None);
    }

    #[test]
    fn every_pinned_wheel_is_one_that_pip_may_choose() {
        for pin in pins::all().unwrap() {
            let platforms = pin
                .file
                .trim_end_matches(".whl")
                .rsplit('-')
                .next()
                .unwrap();
            let chosen = platforms
                .split('.')
                .filter_map(|platform| platform.strip_suffix("_x86_64"))
                .any(|glibc| GLIBC.contains(&glibc));
            assert!(chosen, "{}", pin.file);
        }
    }

    #[test]
    fn a_pinned_package_is_asked_for_with_its_digest() {
        let pins = pins::all().unwrap();
        let pin = pins.iter().find(|pin| pin.name == "nvidia-nvjitlink");
        let line = requirement_line(pin.unwrap());
        assert!(
            line.starts_with("nvidia-nvjitlink==13.0.88 --hash=sha256:"),
            "{line}"
        );
    }
}
