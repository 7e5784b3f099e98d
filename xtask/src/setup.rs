//! `cargo xtask setup`: finds or installs libtorch, and tells cargo where it is.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cargo,
    libtorch::{
        Kind, Source, VERSION,
        cache::{Cache, Installation},
        config, driver, existing, install, platform,
    },
};

const EXAMPLES: &str = "Examples:
  cargo xtask setup                                 what this machine needs
  cargo xtask setup --cuda                          on a machine without a driver, for one with a GPU
  LIBTORCH=/opt/libtorch cargo xtask setup          the libtorch that is there already";

/// Find or install libtorch, and tell cargo where it is
///
/// Takes the first of:
///
///   1. the libtorch that you named in LIBTORCH, if its version is the right one;
///
///   2. the one that an earlier set-up recorded in .cargo/libtorch.toml;
///
///   3. the one in the cache (MAE_CACHE_DIR, or `mae-rs` in your user cache directory);
///
///   4. a new one, installed into the cache: PyTorch's wheel through `python3 -m pip download`,
///      or where there is no pip PyTorch's libtorch archive through `curl`. Digests of the wheels
///      and of every file in them are verified; of the archive, only the checksums inside it.
///
/// A second set-up changes nothing and takes no time.
/// A set-up that was killed leaves nothing but temporary files, which the next one removes.
/// It installs on Linux on x86-64 (glibc 2.28 or newer) only; on another system, name your own in LIBTORCH.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Install the build for NVIDIA GPUs (2.5 GB to download, 7 GB with the temporary files);
    /// without --cuda or --cpu, that is what a machine with an NVIDIA driver gets
    #[arg(long, conflicts_with = "cpu")]
    cuda: bool,

    /// Install the build for CPUs only (530 MB to download, 510 MB on disk), whatever the machine has
    #[arg(long)]
    cpu: bool,
}

/// Who asks for libtorch: decides what happens, and is said, when it is already there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The user, by `setup`.
    Explicitly,
    /// Another command: stay quiet, and never replace a libtorch that works.
    OnTheWay,
}

/// Runs `cargo xtask setup`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kind = match (arguments.cuda, arguments.cpu) {
        (true, _) => Some(Kind::Cuda),
        (_, true) => Some(Kind::Cpu),
        _ => None,
    };
    set_up(kind, Asked::Explicitly)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that cargo can find libtorch; says nothing where it already can.
pub fn ensure() -> Result<Source> {
    set_up(None, Asked::OnTheWay)
}

fn set_up(kind: Option<Kind>, asked: Asked) -> Result<Source> {
    let say = |line: &str| {
        if asked == Asked::Explicitly {
            eprintln!("{line}");
        }
    };
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        say(
            "LIBTORCH_USE_PYTORCH is set: the build takes libtorch from Python's torch package, nothing to set up",
        );
        return Ok(Source::Environment);
    }

    let config = config::path(&cargo::workspace_root());
    let recorded = config::read(&config)?;
    if let Some(libtorch) = users_libtorch(recorded.as_deref())? {
        if kind.is_some() {
            bail!(
                "LIBTORCH is set to {}, and cargo would use that and not what --cpu or --cuda installs: \
                 unset LIBTORCH, or leave the option out",
                libtorch.display()
            );
        }
        existing::check(&libtorch).context(
            "the libtorch named in LIBTORCH cannot be used: correct the variable, \
             or unset it to have `cargo xtask setup` install one",
        )?;
        config::write(&config, &libtorch)?;
        say(&format!(
            "using libtorch {VERSION} from LIBTORCH: {}",
            libtorch.display()
        ));
        return Ok(Source::Environment);
    }

    let cache = Cache::locate()?;
    if kind.is_none()
        && let Some(libtorch) = recorded
    {
        let replace_by_cuda = asked == Asked::Explicitly
            && libtorch == cache.installation(Kind::Cpu).libtorch()
            && driver::answers();
        match check_recorded(&libtorch) {
            Ok(()) if !replace_by_cuda => {
                say(&format!(
                    "libtorch {VERSION} is set up: {}",
                    libtorch.display()
                ));
                return Ok(Source::Config);
            }
            Ok(()) => {}
            Err(error) => eprintln!(
                "the recorded libtorch cannot be used any more ({error:#}): setting up again"
            ),
        }
    }

    platform::check()?;
    let kind = kind.unwrap_or_else(|| {
        if driver::answers() {
            Kind::Cuda
        } else {
            Kind::Cpu
        }
    });
    let installation = install::install(&cache, kind)?;
    let libtorch = installation.libtorch();
    config::write(&config, &libtorch)?;
    say(&format!(
        "libtorch {VERSION} ({kind}) is set up: {}",
        libtorch.display()
    ));
    Ok(Source::Config)
}

/// `LIBTORCH`, if the user set it.
///
/// cargo exports what `.cargo/libtorch.toml` says to the programs that it runs, hence to this one.
/// A value that differs from the file's can only be the user's; the same value needs no distinction.
fn users_libtorch(recorded: Option<&Path>) -> Result<Option<PathBuf>> {
    match env::var_os("LIBTORCH") {
        None => Ok(None),
        Some(value) if value.is_empty() => bail!("LIBTORCH is set but empty: unset it"),
        Some(value) if recorded == Some(Path::new(&value)) => Ok(None),
        Some(value) => {
            let path = PathBuf::from(value);
            if path.is_relative() {
                // A build script runs in its own crate's directory, so it would look elsewhere.
                bail!(
                    "LIBTORCH is a relative path ({}): make it an absolute one",
                    path.display()
                );
            }
            Ok(Some(path))
        }
    }
}

/// What set-up installed is checked file by file, what a user named by its version.
fn check_recorded(libtorch: &Path) -> Result<()> {
    match libtorch.parent().map(Installation::at) {
        Some(installation) if installation.has_manifest() => installation.check(),
        _ => existing::check(libtorch),
    }
}
