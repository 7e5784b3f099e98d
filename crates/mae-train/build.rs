//! Lets the program and its tests find libtorch where torch-ext found it, and tells it its revision.

use std::path::Path;
use std::process::Command;

fn main() {
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if std::env::var("CARGO_CFG_UNIX").is_ok() && !has("DOC_ONLY") {
        let folders = match has("WHEEL") {
            true => python_packages(),
            false => vec![std::env::var("DEP_TORCH_EXT_LIB").expect("torch-ext publishes `lib`")],
        };
        for folder in folders {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        }
        if has("WHEEL") {
            // A function that another libtorch lacks is missed when it is called, after the version was looked at.
            println!("cargo:rustc-link-arg=-Wl,-z,lazy");
        }
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

/// Where pip puts the libraries of the package torch, seen from the folder of programs in the same environment.
fn python_packages() -> Vec<String> {
    let mut folders = Vec::new();
    for python in 10..=14 {
        for packages in ["site-packages", "dist-packages"] {
            folders.push(format!(
                "$ORIGIN/../lib/python3.{python}/{packages}/torch/lib"
            ));
        }
    }
    folders
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
