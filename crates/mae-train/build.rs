//! Lets the program and its tests find libtorch where torch-ext found it, and tells it its revision.

use std::path::Path;
use std::process::Command;

fn main() {
    let is_linked = std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none();
    if is_linked && std::env::var("CARGO_CFG_UNIX").is_ok() {
        let lib = std::env::var("DEP_TORCH_EXT_LIB").expect("torch-ext publishes `lib`");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }

    // Git appends to this file at every commit and checkout.
    let log = Path::new("../../.git/logs/HEAD");
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let revision = match log.exists() {
        true => checked_out(),
        false => published(),
    };
    let revision = revision.unwrap_or_else(|| "unknown".to_string());
    println!("cargo:rustc-env=MAE_REVISION={revision}");
}

/// What git calls the commit.
fn checked_out() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8_lossy(&output.stdout).trim().to_string();
    output.status.success().then_some(revision)
}

/// The commit that `cargo package` noted, as short.
fn published() -> Option<String> {
    let note = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = note.split_once("\"sha1\"")?;
    let revision = rest.split('"').nth(1)?;
    Some(revision.get(..7)?.to_string())
}
