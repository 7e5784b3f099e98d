//! Downloading wheels with the user's own pip: its index, mirror, proxy, certificates and cache apply.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    cache::explain,
    pins::{self, Pin},
    platform::Platform,
    requirement::{PYTHON_VERSION, Requirement, allows},
};

/// Older ones take only one `--platform`.
const OLDEST_PIP: u32 = 21;

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

    /// Downloads one wheel for each of `packages` into `directory`.
    ///
    /// # Errors
    /// If pip fails; what it says is on the terminal.
    pub fn download(
        &self,
        packages: &[Package],
        platform: Platform,
        directory: &Path,
    ) -> Result<()> {
        fs::create_dir_all(directory).map_err(|error| explain(error, "create", directory))?;
        let list = directory.join("requirements.txt");
        let lines: String = packages.iter().map(Package::requirement_line).collect();
        fs::write(&list, lines).map_err(|error| explain(error, "write", &list))?;

        let mut command = self.start();
        command.args(["download", "--no-deps", "--only-binary=:all:"]);
        // One wheel for everyone, whatever Python is running pip.
        command.args(["--implementation", "cp", "--python-version", PYTHON_VERSION]);
        command.args(["--abi", &format!("cp{}", PYTHON_VERSION.replace('.', ""))]);
        for tag in platform.wheel_tags() {
            command.args(["--platform", &tag]);
        }
        if packages.iter().all(|package| package.pin.is_some()) {
            command.arg("--require-hashes");
        }
        command
            .arg("--dest")
            .arg(directory)
            .arg("--requirement")
            .arg(&list);
        // pip collects downloads in the temporary directory, which may be small, and never cleans up if killed.
        command.env("TMPDIR", directory);
        command
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_REQUIRE_VIRTUALENV", "0");
        // Standard output belongs to the command that set-up runs for.
        command.stdin(Stdio::null()).stdout(io::stderr());
        let status = command
            .status()
            .with_context(|| format!("cannot run {self}"))?;
        if !status.success() {
            bail!(
                "{self} could not download {}: see its message above; \
                 with `{self} config list` you see the index and proxy that it uses",
                packages
                    .iter()
                    .map(|package| package.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        Ok(())
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

/// What to ask pip for.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// The package's normalised name.
    pub name: String,
    specifier: String,
    /// The one wheel that will do, where that is known.
    pub pin: Option<&'static Pin>,
}

impl Package {
    /// The package that `requirement` names, pinned if there is a pin on `platform`.
    ///
    /// # Errors
    /// If the pin does not satisfy the requirement.
    pub fn new(requirement: &Requirement, platform: Platform) -> Result<Self> {
        let pin = pins::find(platform, &requirement.name);
        if let Some(pin) = pin
            && !allows(&requirement.specifier, pin.version)?
        {
            bail!(
                "{} {} is pinned, but {} is required",
                pin.name,
                pin.version,
                requirement.specifier
            );
        }
        Ok(Self {
            name: requirement.name.clone(),
            specifier: requirement.specifier.clone(),
            pin,
        })
    }

    fn requirement_line(&self) -> String {
        match self.pin {
            Some(pin) => format!(
                "{}=={} --hash=sha256:{}\n",
                pin.name, pin.version, pin.sha256
            ),
            None => format!("{}{}\n", self.name, self.specifier),
        }
    }
}

/// `23` of `pip 23.2.1 from /usr/lib/python3/dist-packages/pip (python 3.11)`
fn major_version(answer: &str) -> Option<u32> {
    answer.strip_prefix("pip ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pips_version_is_read() {
        assert_eq!(
            major_version("pip 23.2.1 from /usr/lib/pip (python 3.11)\n"),
            Some(23)
        );
        assert_eq!(major_version("/usr/bin/python3: No module named pip"), None);
    }

    #[test]
    fn a_pinned_package_is_asked_for_with_its_digest() {
        let package =
            |text: &str, platform| Package::new(&Requirement::parse(text).unwrap(), platform);
        let line = package("nvidia-nvjitlink<14,>=13.0.88", Platform::LinuxX86_64)
            .unwrap()
            .requirement_line();
        assert!(
            line.starts_with("nvidia-nvjitlink==13.0.88 --hash=sha256:"),
            "{line}"
        );
        let line = package("nvidia-nvjitlink<14,>=13.0.88", Platform::LinuxAarch64)
            .unwrap()
            .requirement_line();
        assert_eq!(line, "nvidia-nvjitlink<14,>=13.0.88\n");
        assert!(package("nvidia-nvjitlink>=14", Platform::LinuxX86_64).is_err());
    }
}
