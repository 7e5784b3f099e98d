//! Installing libtorch into the cache.

use std::fs;

use anyhow::{Context, Result};

use super::{
    Kind, VERSION, archive,
    cache::{Cache, Installation, explain},
    existing,
    pip::Pip,
    wheels,
};

/// The cache's libtorch of `kind`, installed now if it is not there or damaged.
///
/// # Errors
/// If it cannot be downloaded, is not what it should be, or cannot be written.
pub fn install(cache: &Cache, kind: Kind) -> Result<Installation> {
    let installation = cache.installation(kind);
    if installation.check().is_ok() {
        return Ok(installation);
    }
    let lock = cache.lock()?;
    lock.remove_leftovers()?;
    // Another process may have installed it while this one waited.
    if installation.root().exists() {
        match installation.check() {
            Ok(()) => return Ok(installation),
            Err(error) => {
                eprintln!("the installed libtorch is damaged ({error:#}): installing it again")
            }
        }
    }
    eprintln!(
        "libtorch {VERSION} ({kind}) will be installed into {}",
        installation.root().display()
    );
    let staging = lock.stage(kind, space_needed(kind))?;
    match Pip::find() {
        Some(pip) => wheels::fetch(&pip, kind, &staging)?,
        None => archive::fetch(kind, &staging)?,
    }
    let libtorch = staging.tree().join("torch");
    existing::check(&libtorch)
        .context("what was downloaded is not the libtorch that was asked for")?;
    // torch-sys' build compares this file with the version that it expects.
    let build_version = libtorch.join("build-version");
    fs::write(&build_version, format!("{VERSION}\n"))
        .map_err(|error| explain(error, "write", &build_version))?;
    staging.commit(&installation)?;
    Ok(installation)
}

/// The bytes on the disk while both the downloads and what is unpacked from them are there, rounded up.
fn space_needed(kind: Kind) -> u64 {
    match kind {
        Kind::Cpu => 1_200_000_000,
        Kind::Cuda => 7_000_000_000,
    }
}
