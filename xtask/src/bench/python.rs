//! The Python environment of the other systems, in the cache.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    Section,
    measure::{Entry, Role},
};
use crate::libtorch::cache::{Cache, explain};
use crate::process::{self, Interrupt};

/// What draws the photographs.
const PHOTOS: Packages = Packages {
    requirements: &["numpy==2.4.6", "pillow==13.0.0"],
    size: "25 MB",
};

const TORCH: Packages = Packages {
    requirements: &["torch==2.13.0", "torchvision==0.28.0"],
    size: "2.7 GB where pip's index has the build for CUDA, 0.3 GB where it has that for CPUs",
};

/// Its CPU part is in every build; this one is for the CUDA version of the torch above.
const DALI: Packages = Packages {
    requirements: &["nvidia-dali-cuda130==2.4.0"],
    size: "0.3 GB",
};

const TRANSFORMERS: Packages = Packages {
    requirements: &["transformers==5.23.0"],
    size: "30 MB",
};

/// The pinned packages have no wheels for older ones.
const OLDEST: (u32, u32) = (3, 11);

/// Packages that are installed together, and about how much there is to download.
struct Packages {
    requirements: &'static [&'static str],
    size: &'static str,
}

/// An environment that is made when something is first needed of it.
///
/// ```text
/// <cache>/bench-python/             what `python -m venv` makes
///           installed               the requirements that were installed to their end, one a line
/// ```
pub struct Python<'a> {
    cache: &'a Cache,
    interrupt: &'a Interrupt,
    folder: PathBuf,
}

impl<'a> Python<'a> {
    /// The environment in `cache`, there or not.
    pub fn new(cache: &'a Cache, interrupt: &'a Interrupt) -> Self {
        Self {
            cache,
            interrupt,
            folder: cache.root().join("bench-python"),
        }
    }

    /// Where it is.
    pub fn cache(&self) -> &Cache {
        self.cache
    }

    /// Installs what draws the photographs.
    ///
    /// # Errors
    /// If there is no Python, or it cannot be installed.
    pub fn install_for_photos(&mut self) -> Result<()> {
        self.ensure()?;
        self.install(&PHOTOS)
    }

    /// Installs what the peers of `section` need; what cannot be is named, and its peers will fail.
    ///
    /// # Errors
    /// If there is no Python, or on Ctrl-C.
    pub fn install_peers(&mut self, section: Section) -> Result<()> {
        self.ensure()?;
        let needed: &[&Packages] = match section {
            Section::Loader => &[&PHOTOS, &TORCH, &DALI],
            Section::Step(_) => &[&TORCH, &TRANSFORMERS],
        };
        for packages in needed {
            if let Err(error) = self.install(packages) {
                self.interrupt.check()?;
                eprintln!("going on without: {error:#}");
            }
        }
        Ok(())
    }

    /// Runs a script with one argument; what it says is on the terminal.
    ///
    /// # Errors
    /// If it fails.
    pub fn run_script(&self, script: &Path, argument: &Path) -> Result<()> {
        let mut command = Command::new(self.program());
        command.arg("-B").arg(script).arg(argument);
        self.run(&mut command)
    }

    /// A peer's measurement by a script of `benches/peers`.
    pub fn entry(&self, root: &Path, name: &str, script: &str) -> Entry {
        // -B: no byte code is written into the source tree.
        Entry::new(name, Role::Peer, self.program())
            .argument("-B")
            .argument(root.join("benches/peers").join(script))
    }

    /// Makes the environment if it is not there.
    fn ensure(&self) -> Result<()> {
        let _lock = self.cache.lock()?;
        if self.installed_path().is_file() {
            return Ok(());
        }
        let python = find()?;
        eprintln!("making a Python environment in {}", self.folder.display());
        let mut venv = Command::new(python);
        venv.args(["-m", "venv", "--clear"]).arg(&self.folder);
        self.run(&mut venv).with_context(|| {
            format!(
                "`{python} -m venv` failed: install Python's venv module \
                 (on Debian and Ubuntu `apt install python3-venv`)"
            )
        })?;
        self.write_installed("")
    }

    fn install(&self, packages: &Packages) -> Result<()> {
        let _lock = self.cache.lock()?;
        let installed = self.installed_path();
        let done =
            fs::read_to_string(&installed).map_err(|error| explain(error, "read", &installed))?;
        let missing: Vec<_> = packages
            .requirements
            .iter()
            .filter(|requirement| done.lines().all(|line| line != **requirement))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|one| one.replace("==", " "));
        let names = names.collect::<Vec<_>>().join(", ");
        eprintln!(
            "installing {names} into {}, from the index that pip is configured for (`pip config list`): {}",
            self.folder.display(),
            packages.size
        );
        let mut pip = Command::new(self.program());
        pip.args(["-m", "pip", "install", "--only-binary=:all:"])
            .args(&missing)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        self.run(&mut pip)
            .with_context(|| format!("pip could not install {names}: see its message above"))?;
        let lines = missing.iter().map(|one| format!("{one}\n"));
        self.write_installed(&(done + &lines.collect::<String>()))
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        // Standard output has the tables.
        command.stdout(io::stderr());
        let status = process::run(command, self.interrupt)?.status;
        if !status.success() {
            bail!("{status}");
        }
        Ok(())
    }

    fn program(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) {
            "Scripts/python.exe"
        } else {
            "bin/python"
        })
    }

    fn installed_path(&self) -> PathBuf {
        self.folder.join("installed")
    }

    fn write_installed(&self, lines: &str) -> Result<()> {
        let path = self.installed_path();
        fs::write(&path, lines).map_err(|error| explain(error, "write", &path))
    }
}

/// The first Python that is new enough.
fn find() -> Result<&'static str> {
    let mut seen = String::new();
    for python in ["python3", "python"] {
        let version = Command::new(python)
            .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Ok(output) = version else { continue };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_string();
        match parse(&version) {
            Some(version) if version >= OLDEST => return Ok(python),
            Some(_) => seen = format!("; {python} is {version}"),
            None => {}
        }
    }
    bail!(
        "there is no Python {}.{} or newer on the search path{seen}: install it with its venv module \
         (on Debian and Ubuntu `apt install python3-venv`)",
        OLDEST.0,
        OLDEST.1
    )
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
