//! Downloading with the user's own curl: its proxy and certificates apply.

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// True if there is a curl.
pub fn answers() -> bool {
    start(&["--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// The bytes that the server announces for `url`; nothing if it announces none.
pub fn size(url: &str) -> Option<u64> {
    let output = start(&["--silent", "--head", url]).output().ok()?;
    last_content_length(&String::from_utf8_lossy(&output.stdout))
}

/// Downloads `url` into the file `path`.
///
/// # Errors
/// If curl fails; what it says is on the terminal.
pub fn download(url: &str, path: &Path) -> Result<()> {
    let progress = if io::stderr().is_terminal() {
        "--progress-bar"
    } else {
        "--silent"
    };
    let status = start(&["--show-error", "--retry", "3", progress, "--output"])
        .arg(path)
        .arg(url)
        .status()
        .context("cannot run curl")?;
    if !status.success() {
        bail!("curl could not download {url}: see its message above");
    }
    Ok(())
}

fn start(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--fail", "--location", "--connect-timeout", "30"])
        .args(arguments)
        .stdin(Stdio::null());
    command
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
