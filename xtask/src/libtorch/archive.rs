//! libtorch from PyTorch's own archives, for machines without pip.
//!
//! PyTorch publishes no digests of them, so what vouches for one is the server's certificate,
//! and for its transfer the checksum of every file in it; the message that announces the download says so.

use std::{
    env,
    io::IsTerminal,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use indicatif::DecimalBytes;

use super::{Kind, VERSION, cache::Staging, platform::Platform, unpack};

/// Where PyTorch publishes libtorch; `MAE_LIBTORCH_URL` names a mirror instead.
const BASE_URL: &str = "https://download.pytorch.org/libtorch";

/// Downloads the archive for `kind` and unpacks it into the staging tree.
///
/// # Errors
/// If there is no `curl` or no archive, or the archive is damaged or cannot be written.
pub fn fetch(platform: Platform, kind: Kind, staging: &Staging) -> Result<()> {
    let remedy = format!(
        "install Python 3 with pip (on Debian and Ubuntu: apt install python3-pip), \
         or set LIBTORCH to a libtorch {VERSION} that you downloaded"
    );
    let base = env::var("MAE_LIBTORCH_URL").unwrap_or_else(|_| BASE_URL.to_owned());
    let Some(url) = platform.archive_url(&base, kind) else {
        bail!(
            "there is no pip, and PyTorch publishes no libtorch archive for {kind} on this system: {remedy}"
        );
    };
    if Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        bail!("there is neither pip nor curl to download libtorch with: {remedy}, or install curl");
    }
    let size = content_length(&url).map_or_else(
        || "unknown size".to_owned(),
        |size| DecimalBytes(size).to_string(),
    );
    eprintln!("there is no pip: downloading {url} with curl: {size}");
    eprintln!(
        "PyTorch publishes no digest of this archive: only the checksums inside it are verified"
    );

    let path = staging.downloads().join("libtorch.zip");
    let progress = if std::io::stderr().is_terminal() {
        "--progress-bar"
    } else {
        "--silent"
    };
    let status = Command::new("curl")
        .args([
            "--fail",
            "--location",
            "--show-error",
            "--retry",
            "3",
            "--connect-timeout",
            "30",
            progress,
        ])
        .arg("--output")
        .arg(&path)
        .arg(&url)
        .stdin(Stdio::null())
        .status()
        .context("cannot run curl")?;
    if !status.success() {
        bail!("curl could not download {url}: see its message above; or {remedy}");
    }

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

/// The size that the server announces; nothing if it announces none.
fn content_length(url: &str) -> Option<u64> {
    let output = Command::new("curl")
        .args([
            "--fail",
            "--location",
            "--silent",
            "--head",
            "--connect-timeout",
            "30",
            url,
        ])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    last_content_length(&String::from_utf8_lossy(&output.stdout))
}

/// The last one: the earlier ones are of redirections.
fn last_content_length(headers: &str) -> Option<u64> {
    headers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .filter_map(|(_, value)| value.trim().parse().ok())
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_that_of_the_last_answer() {
        let headers = "HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 184549376\r\n\r\n";
        assert_eq!(last_content_length(headers), Some(184_549_376));
        assert_eq!(last_content_length("HTTP/1.1 200 OK\r\n"), None);
    }
}
