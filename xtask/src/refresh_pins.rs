//! `cargo xtask refresh-pins`: writes the table of wheels that set-up installs.

use std::{env, fs, io, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{
    cargo,
    libtorch::{
        CUDA, VERSION, curl,
        pins::{self, Pin},
        pip::Pip,
        platform,
    },
};

const EXAMPLES: &str = "Examples:
  cargo xtask refresh-pins                          after a change of VERSION or CUDA in xtask/src/libtorch.rs";

/// Write the table of wheels that `setup` installs, for maintainers
///
/// Asks pip which wheels torch needs, and writes their names, versions, sizes and digests to xtask/libtorch-pins.toml.
/// pip 25.3 or newer downloads none of them for it; from 22.2 on it downloads them all (2.5 GB) and deletes them.
/// Look at the difference, and try `setup --cpu` and `setup --cuda`, before you commit it.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {}

/// Runs `cargo xtask refresh-pins`.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    // pip judges by the system it runs on whether a package is required.
    platform::check()?;
    let pip = Pip::find().context("there is no pip: install Python 3 with pip")?;
    let requirements = requirements();
    eprintln!("asking {pip} what {} need", requirements.join(", "));
    let mut table = Vec::new();
    for wheel in libraries(&report(&pip, &requirements)?)? {
        table.push(wheel.pin()?);
    }
    let path = cargo::workspace_root().join(pins::PATH);
    let text = pins::to_toml(table)?;
    let changed = fs::read_to_string(&path).ok().as_ref() != Some(&text);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!(
        "{}: {}",
        path.display(),
        if changed { "changed" } else { "as it was" }
    );
    Ok(ExitCode::SUCCESS)
}

fn requirements() -> [String; 3] {
    [
        format!("torch=={VERSION}"),
        // Headers that those of libtorch include and torch does not require: to compile against NCCL.
        "cuda-toolkit[cccl,crt]".to_owned(),
        // The only library of which torch allows a later CUDA than its own.
        format!("nvidia-nvjitlink=={CUDA}.*"),
    ]
}

/// What pip would install.
fn report(pip: &Pip, requirements: &[String]) -> Result<String> {
    let output = pip
        .choose("install")
        .args([
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
        ])
        // Reads the requirements out of a wheel on the server where the index does not tell them apart.
        .arg("--use-feature=fast-deps")
        // Without a folder pip refuses to look for another Python than its own; a dry run puts nothing there.
        .arg("--target")
        .arg(env::temp_dir())
        .args(requirements)
        .stderr(io::stderr())
        .output()
        .with_context(|| format!("cannot run {pip}"))?;
    if !output.status.success() {
        bail!(
            "{pip} could not resolve {}: see its message above, which pip before 22.2 ends with \
             \"no such option\"; with `{pip} config list` you see the index and proxy that it uses",
            requirements.join(", ")
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("the report of {pip} is not UTF-8"))
}

/// A part of pip's report.
///
/// Source: pip's documentation, "Installation Report", version 1.
#[derive(Deserialize)]
struct Report {
    install: Vec<Wheel>,
}

#[derive(Debug, Deserialize)]
struct Wheel {
    metadata: Metadata,
    download_info: DownloadInfo,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct DownloadInfo {
    url: String,
    archive_info: ArchiveInfo,
}

#[derive(Debug, Deserialize)]
struct ArchiveInfo {
    hashes: Hashes,
}

#[derive(Debug, Deserialize)]
struct Hashes {
    sha256: String,
}

/// torch and NVIDIA's libraries of the report; the rest is Python code.
fn libraries(report: &str) -> Result<Vec<Wheel>> {
    let report: Report = serde_json::from_str(report)
        .context("pip's report is not understood: is it of version 1?")?;
    let mut wheels = report.install;
    wheels.retain(|wheel| {
        let file = wheel.file();
        file.starts_with("torch-") || file.starts_with("nvidia_")
    });
    Ok(wheels)
}

impl Wheel {
    fn file(&self) -> &str {
        let url = &self.download_info.url;
        url.rsplit('/').next().unwrap_or(url)
    }

    fn pin(&self) -> Result<Pin> {
        let file = self.file();
        // pip's report has no sizes.
        let bytes = curl::size(&self.download_info.url)
            .with_context(|| format!("curl does not say how large {file} is: is there a curl?"))?;
        eprintln!("{file}: {bytes} bytes");
        Ok(Pin {
            name: self.metadata.name.to_lowercase().replace(['_', '.'], "-"),
            version: self.metadata.version.clone(),
            file: file.to_owned(),
            bytes,
            sha256: self.download_info.archive_info.hashes.sha256.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_from_pips_report() {
        let wheel = |name: &str, file: &str| {
            format!(
                r#"{{"download_info": {{"url": "https://host/a1/{file}", "archive_info":
                    {{"hash": "sha256=0a", "hashes": {{"sha256": "0a"}}}}}}, "is_direct": false,
                    "metadata": {{"name": "{name}", "version": "1"}}}}"#
            )
        };
        let wheels = [
            wheel("torch", "torch-1-cp312-cp312-manylinux_2_28_x86_64.whl"),
            wheel("sympy", "sympy-1-py3-none-any.whl"),
            wheel("nvidia-nccl-cu13", "nvidia_nccl_cu13-1-py3-none-any.whl"),
            wheel("cuda-toolkit", "cuda_toolkit-1-py3-none-any.whl"),
        ];
        let report = format!(r#"{{"version": "1", "install": [{}]}}"#, wheels.join(", "));
        let found = libraries(&report).unwrap();
        let names: Vec<_> = found.iter().map(|wheel| &*wheel.metadata.name).collect();
        assert_eq!(names, ["torch", "nvidia-nccl-cu13"]);
        assert_eq!(found[1].file(), "nvidia_nccl_cu13-1-py3-none-any.whl");
        assert_eq!(found[1].download_info.archive_info.hashes.sha256, "0a");
        assert!(libraries("{}").is_err());
    }
}
