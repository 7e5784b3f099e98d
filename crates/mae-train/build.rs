//! Lets the program and its tests find libtorch where torch-ext found it, and tells it its revision.

use std::path::Path;
use std::process::Command;

fn main() {
    if std::env::var("CARGO_CFG_UNIX").is_ok() {
        let lib = std::env::var("DEP_TORCH_EXT_LIB").expect("torch-ext publishes `lib`");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }

    // Git appends to this file at every commit and checkout.
    let log = Path::new("../../.git/logs/HEAD");
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let revision = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let revision = match revision {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_string()
        }
        _ => "unknown".to_string(),
    };
    println!("cargo:rustc-env=MAE_REVISION={revision}");
}
