//! libtorch from PyTorch's own archives, for machines without pip.
//!
//! PyTorch publishes no digests of them, so what vouches for one is the server's certificate,
//! and for its transfer the checksum of every file in it; the message that announces the download says so.

use std::env;

use anyhow::{Result, anyhow, bail};
use indicatif::DecimalBytes;

use super::{CUDA, Kind, VERSION, cache::Staging, curl, unpack};

/// Where PyTorch publishes libtorch; `MAE_LIBTORCH_URL` names a mirror instead.
const BASE_URL: &str = "https://download.pytorch.org/libtorch";

/// Downloads the archive for `kind` and unpacks it into the staging tree.
///
/// # Errors
/// If there is no `curl` or no archive, or the archive is damaged or cannot be written.
pub fn fetch(kind: Kind, staging: &Staging) -> Result<()> {
    let remedy = format!(
        "install Python 3 with pip (on Debian and Ubuntu: apt install python3-pip), \
         or set LIBTORCH to a libtorch {VERSION} that you downloaded"
    );
    let base = env::var("MAE_LIBTORCH_URL").unwrap_or_else(|_| BASE_URL.to_owned());
    let url = address(&base, kind);
    if !curl::answers() {
        bail!("there is neither pip nor curl to download libtorch with: {remedy}, or install curl");
    }
    let size = curl::size(&url).map_or_else(
        || "unknown size".to_owned(),
        |size| DecimalBytes(size).to_string(),
    );
    eprintln!("there is no pip: downloading {url} with curl: {size}");
    eprintln!(
        "PyTorch publishes no digest of this archive: only the checksums inside it are verified"
    );

    let path = staging.downloads().join("libtorch.zip");
    curl::download(&url, &path).map_err(|error| anyhow!("{error:#}; or {remedy}"))?;

    let mut archive = unpack::open(&path)?;
    // The archive's one directory takes the name that it has in a wheel.
    let place = |name: &str| {
        name.strip_prefix("libtorch/")
            .map(|rest| format!("torch/{rest}"))
    };
    unpack::unpack(
        &mut archive,
        "libtorch.zip",
        &staging.tree(),
        place,
        |_, _| Ok(()),
    )?;
    Ok(())
}

/// The address of PyTorch's archive for `kind` below `base`.
fn address(base: &str, kind: Kind) -> String {
    let build = match kind {
        Kind::Cpu => "cpu".to_owned(),
        Kind::Cuda => format!("cu{}", CUDA.replace('.', "")),
    };
    let base = base.trim_end_matches('/');
    format!("{base}/{build}/libtorch-shared-with-deps-{VERSION}%2B{build}.zip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_pytorchs_addresses() {
        let check = |kind, expect: &str| {
            assert_eq!(address("https://host/libtorch/", kind), expect);
        };
        check(
            Kind::Cpu,
            "https://host/libtorch/cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip",
        );
        check(
            Kind::Cuda,
            "https://host/libtorch/cu130/libtorch-shared-with-deps-2.13.0%2Bcu130.zip",
        );
    }
}
