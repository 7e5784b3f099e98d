//! What CONTRIBUTING.md shows as a first change can be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Everything in blocks marked as `diff`, without what the blocks are indented by.
fn diffs(markdown: &str) -> String {
    let mut diffs = String::new();
    let mut indent = None;
    for line in markdown.lines() {
        let text = line.trim_start();
        match indent {
            None if text == "```diff" => indent = Some(line.len() - text.len()),
            Some(_) if text == "```" => indent = None,
            Some(indent) => {
                diffs += &line[indent.min(line.len())..];
                diffs.push('\n');
            }
            None => {}
        }
    }
    diffs
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn the_mask_sampler_of_contributing_can_be_added() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.parent().unwrap().parent().unwrap();
    let guide = root.join("CONTRIBUTING.md");
    // Where the crate is used without its workspace, there is no guide to keep true.
    let Ok(guide) = fs::read_to_string(&guide) else {
        return;
    };
    let diffs = diffs(&guide);
    assert_eq!(diffs.matches("\n+++ ").count(), 3, "{diffs}");

    let folder = tempfile::tempdir().unwrap();
    let krate = folder.path().join("crates/mae-data");
    copy_folder(&own.join("src"), &krate.join("src"));
    for file in ["Cargo.toml", "README.md"] {
        fs::copy(own.join(file), krate.join(file)).unwrap();
    }
    fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let workspace = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = r#"members = ["crates/*", "xtask", "benches"]"#;
    assert!(workspace.contains(members), "expected {members}");
    let workspace = workspace.replace(members, r#"members = ["crates/mae-data"]"#);
    // Tests of masks need no optimised decoders, which take minutes to compile.
    let (workspace, _profiles) = workspace.split_once("[profile.").unwrap();
    fs::write(folder.path().join("Cargo.toml"), workspace).unwrap();

    fs::write(krate.join("example.diff"), diffs).unwrap();
    succeeds(
        Command::new("git")
            .args(["apply", "--unidiff-zero", "example.diff"])
            .current_dir(&krate)
            .env("GIT_CEILING_DIRECTORIES", folder.path()),
    );
    let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("worked-example");
    let found = succeeds(
        Command::new(env!("CARGO"))
            .args(["test", "--offline", "--lib", "mask"])
            .current_dir(&krate)
            .env("CARGO_TARGET_DIR", target),
    );
    assert!(
        found.contains("columns_keep_the_even_ones ... ok"),
        "{found}"
    );
}
